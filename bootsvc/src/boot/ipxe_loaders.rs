//! iPXE's programs, from the distribution's package, for PCs that are to have them.

use bytes::Bytes;
use model::IPXE_FILES;
use std::io;
use std::path::{Path, PathBuf};

/// Where Debian's, Ubuntu's and Fedora's packages put them.
pub(crate) const FOLDERS: [&str; 2] = ["/usr/lib/ipxe", "/usr/share/ipxe"];

/// What installs them.
pub(crate) const INSTALL: &str = "apt-get install ipxe";

/// A file of it may have so many bytes; the largest has 1 MB.
const FILE_MAX: u64 = 16 << 20;

/// The programs, as they were found.
#[derive(Clone, Debug)]
pub(crate) struct IpxeLoaders {
    files: [(&'static str, Bytes); 2],
    folder: PathBuf,
}

/// They can't be handed out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoIpxe {
    /// The package is missing.
    #[error("{what} is missing, which loader or loader_of wants: {INSTALL}")]
    Missing {
        /// What.
        what: String,
    },
    /// A file can't be read.
    #[error("can't read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl IpxeLoaders {
    /// Reads them from where distributions put them.
    ///
    /// # Errors
    /// The package is missing, or a file can't be read.
    pub(crate) fn find() -> Result<Self, NoIpxe> {
        let folder = FOLDERS.iter().map(Path::new).find(|it| it.join(IPXE_FILES[0]).exists());
        let folder = folder
            .ok_or_else(|| NoIpxe::Missing { what: format!("{}/{}", FOLDERS[0], IPXE_FILES[0]) })?;
        Self::read(folder)
    }

    fn read(folder: &Path) -> Result<Self, NoIpxe> {
        let read = |name: &'static str| {
            let path = folder.join(name);
            let unreadable = |source| NoIpxe::Unreadable { path: path.clone(), source };
            match std::fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(NoIpxe::Missing { what: path.display().to_string() });
                }
                Err(error) => return Err(unreadable(error)),
                Ok(metadata) if metadata.len() > FILE_MAX => {
                    let length = metadata.len();
                    return Err(unreadable(io::Error::other(format!(
                        "it has {length} bytes, and is no loader"
                    ))));
                }
                Ok(_) => {}
            }
            Ok((name, Bytes::from(std::fs::read(&path).map_err(unreadable)?)))
        };
        Ok(Self { files: [read(IPXE_FILES[0])?, read(IPXE_FILES[1])?], folder: folder.to_owned() })
    }

    /// The program of that name.
    pub(crate) fn get(&self, file: &str) -> Option<(&'static str, Bytes)> {
        self.files.iter().find(|(name, _)| *name == file).cloned()
    }

    /// Where they are from.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_both_or_it_is_said_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("undionly.kpxe"), "for BIOS").unwrap();
        let lacks = IpxeLoaders::read(folder.path()).unwrap_err().to_string();
        assert!(lacks.contains("snponly.efi is missing") && lacks.contains("apt-get"), "{lacks}");
        std::fs::write(folder.path().join("snponly.efi"), "for UEFI").unwrap();
        let loaders = IpxeLoaders::read(folder.path()).unwrap();
        assert_eq!(loaders.get("snponly.efi").unwrap().1, "for UEFI");
        assert!(loaders.get("ipxe.efi").is_none());
    }
}
