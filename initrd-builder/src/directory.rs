//! Modules in a folder.

use crate::known_bugs::KERNEL_START_SIZE;
use crate::{BuildError, ModuleSource};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Deepest nesting of folders below `lib/modules/VERSION` that is followed; Debian has 7.
const DEPTH_MAX: usize = 20;

/// The modules of one kernel in a folder.
#[derive(Debug)]
pub struct Directory {
    kernel: String,
    modules: PathBuf,
    /// Folders with firmware; empty if only a module folder was given.
    firmware: Vec<PathBuf>,
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
            let kernel = name_of(&modules);
            return Ok(Self { kernel, modules, firmware: Vec::new() });
        }
        for library in ["lib", "usr/lib"] {
            let modules = folder.join(library).join("modules");
            let mut kernels = folder_names(&modules);
            kernels.retain(|kernel| modules.join(kernel).join("kernel").is_dir());
            let Some(kernel) = kernels.pop() else { continue };
            if !kernels.is_empty() {
                kernels.push(kernel);
                return Err(BuildError::SeveralKernels {
                    folder: modules,
                    kernels: kernels.join(", "),
                });
            }
            let firmware = ["lib/firmware", "usr/lib/firmware"].map(|path| folder.join(path));
            return Ok(Self {
                modules: modules.join(&kernel),
                kernel,
                firmware: firmware.to_vec(),
            });
        }
        Err(BuildError::NoModules(folder.to_owned()))
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn folder_names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().map(|entry| name_of(&entry.path())).collect();
    names.sort();
    names
}

/// The start of a kernel's file: as much as its version needs.
fn read_start(path: &Path) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    fs::File::open(path)?.take(KERNEL_START_SIZE).read_to_end(&mut start)?;
    Ok(start)
}

fn read_error(path: &Path, source: io::Error) -> BuildError {
    BuildError::Read { what: path.display().to_string(), source }
}

impl ModuleSource for Directory {
    fn kernel(&self) -> &str {
        &self.kernel
    }

    fn origin(&self) -> String {
        self.modules.display().to_string()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut files = Vec::new();
        // `build` and `source` are links to the kernel's source: links to folders are not followed.
        let mut folders = vec![(String::new(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            for entry in fs::read_dir(self.modules.join(&folder))? {
                let entry = entry?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                if !entry.file_type()?.is_dir() {
                    files.push(path);
                } else if depth < DEPTH_MAX {
                    folders.push((path, depth + 1));
                }
            }
        }
        files.sort();
        Ok(files)
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.modules.join(path))
    }

    fn kernel_start(&self) -> Option<Vec<u8>> {
        // The folder is ROOT/lib/modules/VERSION or ROOT/usr/lib/modules/VERSION.
        let name = format!("boot/vmlinuz-{}", self.kernel);
        let roots = self.modules.ancestors().skip(3).take(2).map(|root| root.join(&name));
        let mut files = std::iter::once(self.modules.join("vmlinuz")).chain(roots);
        files.find_map(|file| read_start(&file).ok())
    }

    fn firmware(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        for folder in &self.firmware {
            for suffix in ["", ".xz", ".zst"] {
                match fs::read(folder.join(format!("{name}{suffix}"))) {
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
            assert_eq!(source.list().unwrap(), ["kernel/fs/ext4.ko"]);
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
}
