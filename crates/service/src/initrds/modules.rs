//! The modules of an imported image, for the initrd builder.

use crate::error::Error;
use images::{EntryKind, Rootfs, RootfsError, Store};
use initrd_builder::{Folders, Kind, Listing, ModuleSource, list_folders};
use model::ImageVersion;
use std::io;
use std::path::PathBuf;

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
}

impl Folders for ImageModules {
    fn names(&self, folder: &str) -> io::Result<Vec<(String, Kind)>> {
        let path = format!("{}/{folder}", self.folder());
        let entries = self.rootfs.list(path.trim_end_matches('/')).map_err(io_error)?;
        let kind = |kind| match kind {
            EntryKind::Folder => Kind::Folder,
            EntryKind::Link => Kind::Link,
            EntryKind::File | EntryKind::Special => Kind::File,
        };
        Ok(entries.into_iter().map(|entry| (entry.name, kind(entry.kind))).collect())
    }

    fn place(&self, path: &str) -> io::Result<String> {
        let path = format!("{}/{path}", self.folder());
        self.rootfs.canonicalize(path.trim_end_matches('/')).map_err(io_error)
    }
}

impl ModuleSource for ImageModules {
    fn kernel(&self) -> &str {
        &self.kernel
    }

    fn origin(&self) -> String {
        self.origin.clone()
    }

    fn list(&self) -> io::Result<Listing> {
        list_folders(self)
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
        RootfsError::FileSystem(_) | RootfsError::NoFile { .. } | RootfsError::Read { .. } => {
            io::ErrorKind::InvalidData
        }
    };
    io::Error::new(kind, error)
}
