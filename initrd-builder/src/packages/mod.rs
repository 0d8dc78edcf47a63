//! Modules straight out of kernel packages, which need not be installed.

mod deb;
mod failure;
mod rpm;

use crate::codec::FILE_SIZE_MAX;
use crate::known_bugs::KERNEL_START_SIZE;
use crate::select::is_likely_needed;
use crate::{BuildError, Listing, ModuleSource};
use failure::{Failure, Visit};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// The modules of a kernel in its packages: `linux-image-…` of Debian; `linux-image-…` and `linux-modules-…` of
/// Ubuntu; or `kernel-core` and `kernel-modules` of Fedora.
#[derive(Debug)]
pub struct KernelPackage {
    paths: Vec<PathBuf>,
    kernel: String,
    /// By path below `lib/modules/VERSION/`. `None` was not worth keeping in memory: it is read again
    /// from the packages in the rare case that it is wanted.
    files: BTreeMap<String, Option<Vec<u8>>>,
    /// Start of the kernel's own file, if one of the packages has it.
    kernel_start: Option<Vec<u8>>,
}

/// What one package has.
#[derive(Default)]
struct Found {
    /// By release and path below its folder.
    modules: BTreeMap<String, BTreeMap<String, Option<Vec<u8>>>>,
    /// Start of a kernel, by its release.
    kernels: BTreeMap<String, Vec<u8>>,
}

impl Found {
    fn read(path: &Path) -> Result<Self, Failure> {
        let mut found = Self::default();
        walk(path, &mut |path, content| {
            if let Some(release) = release_of_kernel(path) {
                let mut start = Vec::new();
                content.take(KERNEL_START_SIZE).read_to_end(&mut start)?;
                found.kernels.insert(release.to_owned(), start);
                return Ok(());
            }
            let Some((release, file)) = module_path(path) else { return Ok(()) };
            let kept = is_likely_needed(file).then(|| read_all(content)).transpose()?;
            found.modules.entry(release.to_owned()).or_default().insert(file.to_owned(), kept);
            Ok(())
        })?;
        if found.modules.is_empty() && found.kernels.is_empty() {
            return Err(Failure::Format(
                "it holds no kernel modules; give the package that does, like \
                 linux-image-6.1.0-56-amd64 (linux-image-amd64 only points to it), or kernel-core and \
                 kernel-modules"
                    .to_owned(),
            ));
        }
        Ok(found)
    }

    /// Releases of the kernels and modules.
    fn releases(&self) -> impl Iterator<Item = &String> {
        self.modules.keys().chain(self.kernels.keys())
    }
}

impl KernelPackage {
    /// Reads each package once, keeping the modules that an initrd may need. Their order does not matter.
    ///
    /// # Errors
    /// One can't be read, is no package, holds neither modules nor a kernel, or those of another kernel than
    /// the first; or there are no modules in all of them.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self, BuildError> {
        let mut package = Self {
            paths: paths.iter().map(|path| path.as_ref().to_owned()).collect(),
            kernel: String::new(),
            files: BTreeMap::new(),
            kernel_start: None,
        };
        for path in paths {
            let path = path.as_ref();
            let found = Found::read(path).map_err(|failure| failure.of(path))?;
            package.add(found).map_err(|failure| failure.of(path))?;
        }
        match package.files.is_empty() {
            false => Ok(package),
            true => {
                Err(BuildError::OnlyKernel { origin: package.origin(), kernel: package.kernel })
            }
        }
    }

    fn add(&mut self, mut found: Found) -> Result<(), Failure> {
        let first = found.releases().next().cloned().unwrap_or_default();
        if self.kernel.is_empty() {
            self.kernel = first.clone();
        }
        if !found.releases().any(|release| *release == self.kernel) {
            return Err(Failure::Format(format!(
                "it is of kernel {first}, but the packages before it are of {}: give packages of one kernel",
                self.kernel
            )));
        }
        self.files.extend(found.modules.remove(&self.kernel).unwrap_or_default());
        self.kernel_start = found.kernels.remove(&self.kernel).or(self.kernel_start.take());
        Ok(())
    }
}

/// The release of a kernel's file: Debian has it as `/boot/vmlinuz-RELEASE`, Fedora beside the modules.
fn release_of_kernel(path: &str) -> Option<&str> {
    match module_path(path) {
        Some((release, "vmlinuz")) => Some(release),
        Some(_) => None,
        None => path.trim_start_matches('.').trim_start_matches('/').strip_prefix("boot/vmlinuz-"),
    }
}

impl ModuleSource for KernelPackage {
    fn kernel(&self) -> &str {
        &self.kernel
    }

    fn origin(&self) -> String {
        let paths: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        paths.join(" and ")
    }

    fn list(&self) -> io::Result<Listing> {
        Ok(Listing { files: self.files.keys().cloned().collect(), unreadable: Vec::new() })
    }

    fn kernel_start(&self) -> Option<Vec<u8>> {
        self.kernel_start.clone()
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        if let Some(Some(content)) = self.files.get(path) {
            return Ok(content.clone());
        }
        let mut found = None;
        for package in &self.paths {
            walk_modules(package, |release, file, content| {
                if release == self.kernel && file == path {
                    found = Some(read_all(content)?);
                }
                Ok(())
            })
            .map_err(|failure| match failure {
                Failure::Io(error) => error,
                Failure::Format(reason) => io::Error::new(io::ErrorKind::InvalidData, reason),
            })?;
        }
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Visits all files of a package; its first bytes tell of which kind it is.
fn walk(path: &Path, visit: &mut Visit<'_>) -> Result<(), Failure> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let start = file.fill_buf()?;
    match start {
        _ if start.starts_with(deb::MAGIC) => deb::walk(file, visit),
        _ if start.starts_with(rpm::MAGIC) => rpm::walk(file, visit),
        _ => Err(Failure::Format("it is not a Debian (.deb) or RPM package".to_owned())),
    }
}

/// Visits the module trees of a package: kernel release, path below its folder, and content.
fn walk_modules(
    path: &Path,
    mut visit: impl FnMut(&str, &str, &mut dyn Read) -> io::Result<()>,
) -> Result<(), Failure> {
    walk(path, &mut |path, content| match module_path(path) {
        Some((release, file)) => visit(release, file, content),
        None => Ok(()),
    })
}

/// Splits `./usr/lib/modules/RELEASE/FILE`.
fn module_path(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_start_matches('.').trim_start_matches('/');
    let path = path.strip_prefix("usr/").unwrap_or(path);
    path.strip_prefix("lib/modules/")?.split_once('/')
}

fn read_all(content: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    content.take(FILE_SIZE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, *content).unwrap();
        }
        let data = zstd::bulk::compress(&tar.into_inner().unwrap(), 1).unwrap();
        let mut deb = b"!<arch>\n".to_vec();
        for (name, content) in [("debian-binary", &b"2.0\nx"[..]), ("data.tar.zst", &data)] {
            deb.extend(format!("{name:<48}{:<10}`\n", content.len()).bytes());
            deb.extend(content);
            deb.resize(deb.len().next_multiple_of(2), b'\n');
        }
        deb
    }

    /// Opens packages of these contents, in this order.
    fn open_all(packages: &[&[u8]]) -> Result<KernelPackage, BuildError> {
        let folder = tempfile::tempdir().unwrap();
        let path = |index: usize| folder.path().join(format!("{index}.deb"));
        for (index, bytes) in packages.iter().enumerate() {
            std::fs::write(path(index), bytes).unwrap();
        }
        KernelPackage::open(&(0..packages.len()).map(path).collect::<Vec<_>>())
    }

    fn open(bytes: &[u8]) -> Result<KernelPackage, BuildError> {
        open_all(&[bytes])
    }

    #[test]
    fn modules_are_read_from_the_package() {
        let deb = package(&[
            ("./boot/vmlinuz-6.1", b"kernel"),
            ("./lib/modules/6.1/kernel/fs/ext4/ext4.ko", b"module"),
            ("./lib/modules/6.1/kernel/sound/pci/hda.ko", b"sound"),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel.deb");
        std::fs::write(&path, deb).unwrap();
        let source = KernelPackage::open(&[path]).unwrap();
        assert_eq!(source.kernel(), "6.1");
        assert_eq!(source.list().unwrap().files.len(), 2);
        assert_eq!(source.kernel_start(), Some(b"kernel".to_vec()));
        assert_eq!(source.read("kernel/fs/ext4/ext4.ko").unwrap(), b"module");
        assert_eq!(source.read("kernel/sound/pci/hda.ko").unwrap(), b"sound", "read again");
        assert!(source.read("kernel/other.ko").is_err());
    }

    #[test]
    fn a_kernel_in_several_packages_is_given_in_any_order() {
        let image = package(&[("./boot/vmlinuz-6.1", b"kernel")]);
        let modules = package(&[("./lib/modules/6.1/kernel/drivers/block/nbd.ko", b"nbd")]);
        let extra = package(&[("./lib/modules/6.1/kernel/drivers/net/ethernet/x.ko", b"x")]);
        let nvidia = package(&[("./lib/modules/6.1/updates/nvidia.ko", b"nvidia")]);
        let mut packages = [&*image, &*modules, &*extra, &*nvidia];
        for _ in 0..packages.len() {
            packages.rotate_left(1);
            let source = open_all(&packages).unwrap();
            assert_eq!((source.kernel(), source.list().unwrap().files.len()), ("6.1", 3));
            assert_eq!(source.kernel_start(), Some(b"kernel".to_vec()));
            packages.swap(0, 2);
            assert_eq!(open_all(&packages).unwrap().list().unwrap().files.len(), 3);
        }
        assert_eq!(open_all(&[&modules]).unwrap().kernel(), "6.1");
        let check = |packages: &[&[u8]], expected: &str| {
            let error = open_all(packages).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&[&image], "kernel 6.1 without its modules");
        let other = package(&[("./boot/vmlinuz-6.2", b"kernel")]);
        check(&[&modules, &other], "of kernel 6.2, but the packages before it are of 6.1");
        check(&[&other, &modules], "of kernel 6.1, but the packages before it are of 6.2");
        let header = package(&[("./usr/src/linux-headers-6.1/x", b"")]);
        check(&[&modules, &header], "holds no kernel modules");
    }

    #[test]
    fn other_files_are_refused_in_words() {
        let check = |bytes: &[u8], expected: &str| {
            let error = open(bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(b"", "not a Debian (.deb) or RPM package");
        check(&package(&[("./usr/share/doc/x", b"")]), "holds no kernel modules");
        let deb = package(&[("./lib/modules/6.1/kernel/fs/ext4/ext4.ko", &[7; 100])]);
        for end in 0..deb.len() - 1 {
            assert!(open(&deb[..end]).is_err(), "{end}");
        }
    }
}
