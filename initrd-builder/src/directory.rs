//! Modules in a folder.

use crate::codec::FILE_SIZE_MAX;
use crate::in_root::resolve;
use crate::known_bugs::KERNEL_START_SIZE;
use crate::{BuildError, Folders, Kind, Listing, ModuleSource, list_folders};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The modules of one kernel in a folder.
#[derive(Debug)]
pub struct Directory {
    kernel: String,
    /// Where absolute links begin.
    root: PathBuf,
    /// Below the root.
    modules: PathBuf,
    /// Folders with firmware, below the root; empty if only a module folder was given.
    firmware: &'static [&'static str],
}

impl Directory {
    /// Opens a folder like `/lib/modules/VERSION`, or one that holds `lib/modules/VERSION` for exactly
    /// one version, like the root of an unpacked system.
    ///
    /// # Errors
    /// The folder has no modules, or those of several kernels.
    pub fn open(folder: &Path) -> Result<Self, BuildError> {
        if folder.join("kernel").is_dir() || folder.join("modules.builtin").is_file() {
            // The name is what counts; `canonicalize` makes one of `.` or of a link.
            let modules = folder.canonicalize().map_err(|source| read_error(folder, source))?;
            let (root, modules) = split(&modules);
            return Ok(Self { kernel: name_of(&modules), root, modules, firmware: &[] });
        }
        for library in ["lib/modules", "usr/lib/modules"] {
            let in_root = |path: &Path| resolve(folder, path).ok();
            let Some(library) = in_root(Path::new(library)) else { continue };
            let kernels = folder_names(&library).into_iter().filter_map(|kernel| {
                let path = library.join(kernel);
                let path = in_root(path.strip_prefix(folder).ok()?)?;
                path.join("kernel").is_dir().then(|| name_of(&path))
            });
            let mut kernels: BTreeSet<String> = kernels.collect();
            let Some(kernel) = kernels.pop_last() else { continue };
            if !kernels.is_empty() {
                kernels.insert(kernel);
                return Err(BuildError::SeveralKernels {
                    folder: library,
                    kernels: kernels.into_iter().collect::<Vec<_>>().join(", "),
                });
            }
            let library = library.strip_prefix(folder).unwrap_or(&library);
            return Ok(Self {
                modules: library.join(&kernel),
                kernel,
                root: folder.to_owned(),
                firmware: &["lib/firmware", "usr/lib/firmware"],
            });
        }
        Err(BuildError::NoModules(folder.to_owned()))
    }

    /// Where a path below the root leads.
    fn in_root(&self, path: &Path) -> io::Result<PathBuf> {
        resolve(&self.root, path)
    }
}

/// Splits ROOT/lib/modules/VERSION or ROOT/usr/lib/modules/VERSION behind the root. What is in no such
/// place belongs to this system.
fn split(modules: &Path) -> (PathBuf, PathBuf) {
    for library in ["usr/lib/modules", "lib/modules"] {
        let root = modules.ancestors().nth(library.split('/').count() + 1);
        let Some(root) = root else { continue };
        if let Ok(path) = modules.strip_prefix(root)
            && path.starts_with(library)
        {
            return (root.to_owned(), path.to_owned());
        }
    }
    (PathBuf::from("/"), modules.strip_prefix("/").unwrap_or(modules).to_owned())
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn folder_names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| name_of(&entry.path())).collect()
}

/// The first bytes of a file. A pipe would never end, and most devices don't either.
fn read_start(path: &Path, size_max: u64) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut start = Vec::new();
    fs::File::open(path)?.take(size_max).read_to_end(&mut start)?;
    Ok(start)
}

fn read_error(path: &Path, source: io::Error) -> BuildError {
    BuildError::Read { what: path.display().to_string(), source }
}

impl Folders for Directory {
    fn names(&self, folder: &str) -> io::Result<Vec<(String, Kind)>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.in_root(&self.modules.join(folder))?)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let kind = match entry.file_type()? {
                kind if kind.is_dir() => Kind::Folder,
                kind if kind.is_symlink() => Kind::Link,
                _ => Kind::File,
            };
            names.push((name, kind));
        }
        names.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(names)
    }

    fn place(&self, path: &str) -> io::Result<String> {
        let place = self.in_root(&self.modules.join(path))?;
        Ok(place.to_string_lossy().into_owned())
    }
}

impl ModuleSource for Directory {
    fn kernel(&self) -> &str {
        &self.kernel
    }

    fn origin(&self) -> String {
        self.root.join(&self.modules).display().to_string()
    }

    fn list(&self) -> io::Result<Listing> {
        list_folders(self)
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        read_start(&self.in_root(&self.modules.join(path))?, FILE_SIZE_MAX)
    }

    fn kernel_start(&self) -> Option<Vec<u8>> {
        let beside = self.modules.join("vmlinuz");
        let boot =
            ["vmlinuz", "kernel", "vmlinux"].map(|name| format!("boot/{name}-{}", self.kernel));
        let files = std::iter::once(beside).chain(boot.into_iter().map(PathBuf::from));
        let start = |file: PathBuf| read_start(&self.in_root(&file).ok()?, KERNEL_START_SIZE).ok();
        files.into_iter().find_map(start)
    }

    fn firmware(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        for folder in self.firmware {
            for suffix in ["", ".xz", ".zst"] {
                let path = Path::new(folder).join(format!("{name}{suffix}"));
                match self.in_root(&path).and_then(|path| read_start(&path, FILE_SIZE_MAX)) {
                    Ok(content) => return Ok(Some(content)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kernel_is_found_in_either_place() {
        let root = tempfile::tempdir().unwrap();
        let modules = root.path().join("lib/modules/6.1-a");
        fs::create_dir_all(modules.join("kernel/fs")).unwrap();
        fs::write(modules.join("kernel/fs/ext4.ko"), "x").unwrap();
        fs::create_dir(root.path().join("boot")).unwrap();
        fs::write(root.path().join("boot/vmlinuz-6.1-a"), "kernel").unwrap();
        for folder in [root.path(), modules.as_path()] {
            let source = Directory::open(folder).unwrap();
            assert_eq!(source.kernel(), "6.1-a");
            assert_eq!(source.list().unwrap().files, ["kernel/fs/ext4.ko"]);
            assert_eq!(source.read("kernel/fs/ext4.ko").unwrap(), b"x");
            assert_eq!(source.kernel_start(), Some(b"kernel".to_vec()));
        }
        fs::create_dir_all(root.path().join("lib/modules/6.2-b/kernel")).unwrap();
        let error = Directory::open(root.path()).unwrap_err().to_string();
        assert!(error.contains("6.1-a, 6.2-b"), "{error}");
    }

    #[test]
    fn a_folder_without_modules_is_named() {
        let root = tempfile::tempdir().unwrap();
        let error = Directory::open(root.path()).unwrap_err().to_string();
        assert!(error.contains(&root.path().display().to_string()), "{error}");
    }

    #[test]
    fn links_of_a_system_lead_to_its_own_files() {
        let root = tempfile::tempdir().unwrap();
        let modules = root.path().join("usr/lib/modules/6.1-a");
        fs::create_dir_all(modules.join("kernel")).unwrap();
        fs::create_dir_all(root.path().join("opt/updates")).unwrap();
        fs::write(root.path().join("opt/updates/r8125.ko"), "r8125").unwrap();
        fs::write(modules.join("kernel/nbd.ko"), "nbd").unwrap();
        for (target, link) in [
            ("/usr/lib", root.path().join("lib")),
            ("6.1-a", root.path().join("usr/lib/modules/latest")),
            ("/opt/updates", modules.join("updates")),
            ("/lib/modules/6.1-a/kernel/nbd.ko", modules.join("kernel/same.ko")),
            ("/etc/passwd", modules.join("kernel/out.ko")),
            ("..", modules.join("kernel/up")),
        ] {
            std::os::unix::fs::symlink(target, link).unwrap();
        }
        for folder in [root.path().to_owned(), root.path().join("usr/lib/modules/latest"), modules]
        {
            let source = Directory::open(&folder).unwrap();
            assert_eq!(source.kernel(), "6.1-a");
            assert_eq!(
                source.list().unwrap().files,
                ["kernel/nbd.ko", "kernel/out.ko", "kernel/same.ko", "updates/r8125.ko"]
            );
            assert_eq!(source.read("kernel/same.ko").unwrap(), b"nbd");
            assert_eq!(source.read("updates/r8125.ko").unwrap(), b"r8125");
            let error = source.read("kernel/out.ko").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{folder:?}: not this system's file");
        }
    }

    #[test]
    fn a_pipe_is_no_module() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("kernel")).unwrap();
        let _socket =
            std::os::unix::net::UnixListener::bind(root.path().join("kernel/x.ko")).unwrap();
        let source = Directory::open(root.path()).unwrap();
        assert_eq!(source.read("kernel/x.ko").unwrap_err().to_string(), "it is not a file");
    }
}
