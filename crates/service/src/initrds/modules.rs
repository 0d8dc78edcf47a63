//! The modules of an imported image, for the initrd builder.

use crate::error::Error;
use images::{EntryKind, Rootfs, RootfsError, Store};
use initrd_builder::ModuleSource;
use model::ImageVersion;
use std::io;
use std::path::PathBuf;

/// Folders deeper than this hold no modules; kernels have 6.
const DEPTH_MAX: usize = 12;

/// Where distributions keep firmware.
const FIRMWARE_FOLDERS: [&str; 2] = ["/lib/firmware", "/usr/lib/firmware"];

/// Modules and firmware in the root file system of an image.
pub(crate) struct ImageModules {
    pub(crate) rootfs: Rootfs,
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// For people.
    pub(crate) origin: String,
    /// The kernel's file.
    pub(crate) vmlinuz: PathBuf,
}

impl ImageModules {
    pub(crate) fn open(store: &Store, version: &ImageVersion) -> Result<Self, Error> {
        Ok(Self {
            rootfs: store.rootfs(&version.image, version.version)?,
            kernel: version.kernel_version.clone(),
            vmlinuz: store.vmlinuz_path(&version.image, version.version),
            origin: format!("the image {}/v{}", version.image, version.version),
        })
    }

    fn folder(&self) -> String {
        let folder = format!("/lib/modules/{}", self.kernel);
        match self.rootfs.exists(&folder) {
            Ok(false) => format!("/usr/lib/modules/{}", self.kernel),
            // What can't be read says so to whoever reads from it.
            Ok(true) | Err(_) => folder,
        }
    }

    fn list_below(&self, folder: &str, depth: usize, files: &mut Vec<String>) -> io::Result<()> {
        let path = format!("{}/{folder}", self.folder());
        for entry in self.rootfs.list(path.trim_end_matches('/')).map_err(io_error)? {
            let path = match folder {
                "" => entry.name,
                folder => format!("{folder}/{}", entry.name),
            };
            match entry.kind {
                EntryKind::File => files.push(path),
                EntryKind::Folder if depth < DEPTH_MAX => {
                    self.list_below(&path, depth + 1, files)?;
                }
                // `build` and `source` lead to headers.
                EntryKind::Folder | EntryKind::Link | EntryKind::Special => {}
            }
        }
        Ok(())
    }
}

impl ModuleSource for ImageModules {
    fn kernel(&self) -> &str {
        &self.kernel
    }

    fn origin(&self) -> String {
        self.origin.clone()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut files = Vec::new();
        self.list_below("", 0, &mut files)?;
        Ok(files)
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.rootfs.read(&format!("{}/{path}", self.folder())).map_err(io_error)
    }

    fn kernel_start(&self) -> Option<Vec<u8>> {
        std::fs::read(&self.vmlinuz).ok()
    }

    fn firmware(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        for folder in FIRMWARE_FOLDERS {
            for ending in ["", ".zst", ".xz"] {
                let path = format!("{folder}/{name}{ending}");
                match self.rootfs.read(&path) {
                    Ok(content) => return Ok(Some(content)),
                    Err(RootfsError::NotFound(_)) => {}
                    Err(error) => return Err(io_error(error)),
                }
            }
        }
        Ok(None)
    }
}

fn io_error(error: RootfsError) -> io::Error {
    let kind = match error {
        RootfsError::NotFound(_) => io::ErrorKind::NotFound,
        RootfsError::FileSystem(_) | RootfsError::Read { .. } => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, error)
}
