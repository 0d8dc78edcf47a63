//! The distribution's signed loader for PCs with Secure Boot: shim, which firmware trusts, and the GRUB that shim trusts.

use bytes::Bytes;
use model::{Architecture, SHIM_ARM64_FILE, SHIM_FILE, SIGNED_GRUB_ARM64_FILE, SIGNED_GRUB_FILE};
use std::io;
use std::path::{Path, PathBuf};

/// The loader for PCs with processors of one kind.
struct Kind {
    /// Where Debian's and Ubuntu's packages put them. Debian 12's and 13's shim is one file; Ubuntu names its newest one otherwise.
    shim_paths: &'static [&'static str],
    grub_path: &'static str,
    /// Names in a folder of the administrator's, the first that is there counts.
    shim_names: &'static [&'static str],
    grub_names: &'static [&'static str],
    /// As firmware asks for shim, and shim for GRUB.
    files: [&'static str; 2],
}

const X86_64: Kind = Kind {
    shim_paths: &["/usr/lib/shim/shimx64.efi.signed", "/usr/lib/shim/shimx64.efi.signed.latest"],
    grub_path: "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
    shim_names: &["shimx64.efi.signed", SHIM_FILE],
    grub_names: &["grubnetx64.efi.signed", "grubnetx64.efi", SIGNED_GRUB_FILE],
    files: [SHIM_FILE, SIGNED_GRUB_FILE],
};

const ARM64: Kind = Kind {
    shim_paths: &["/usr/lib/shim/shimaa64.efi.signed", "/usr/lib/shim/shimaa64.efi.signed.latest"],
    grub_path: "/usr/lib/grub/arm64-efi-signed/grubnetaa64.efi.signed",
    shim_names: &["shimaa64.efi.signed", SHIM_ARM64_FILE],
    grub_names: &["grubnetaa64.efi.signed", "grubnetaa64.efi", SIGNED_GRUB_ARM64_FILE],
    files: [SHIM_ARM64_FILE, SIGNED_GRUB_ARM64_FILE],
};

impl Kind {
    const fn of(architecture: Architecture) -> &'static Self {
        match architecture {
            Architecture::X86_64 => &X86_64,
            Architecture::Arm64 => &ARM64,
        }
    }
}

/// What installs both.
const INSTALL: &str = "apt-get install shim-signed grub-efi-amd64-signed";

/// A file of it may have so many bytes; Debian's largest has 4 MB.
const FILE_MAX: u64 = 32 << 20;

/// What such a GRUB has in it.
const FIRMWARE_S_HTTP: &[u8] = b"UefiHttpBoot/";

/// Shim and GRUB, as both were found.
#[derive(Clone, Debug)]
pub(crate) struct SignedLoader {
    shim: Bytes,
    grub: Bytes,
    /// As boot clients ask for them.
    files: [&'static str; 2],
    /// Where they were.
    from: [PathBuf; 2],
}

/// There is none that PCs could boot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSignedLoader {
    /// Nothing is installed, and nobody has named a folder.
    #[error(
        "there is no signed loader, so PCs with Secure Boot can't boot: to serve them, {INSTALL}"
    )]
    NotInstalled,
    /// The folder lacks one.
    #[error(
        "{folder} has no {what} ({names}): put it there, or leave the setting out and install the distribution's packages"
    )]
    Lacks {
        /// The folder.
        folder: PathBuf,
        /// What it lacks.
        what: &'static str,
        /// Under which names it would be found.
        names: String,
    },
    /// Firmware would refuse it.
    #[error(
        "{0} has no signature, so PCs with Secure Boot would refuse it: take the distribution's signed file"
    )]
    Unsigned(PathBuf),
    /// It can't be read.
    #[error("can't read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SignedLoader {
    /// Reads that for such PCs from `folder`, or from where the distribution's packages put it.
    ///
    /// # Errors
    /// A file is missing, can't be read, or is not signed.
    pub(crate) fn find(
        architecture: Architecture,
        folder: Option<&Path>,
    ) -> Result<Self, NoSignedLoader> {
        let kind = Kind::of(architecture);
        let [shim, grub] = match folder {
            Some(folder) => {
                [("shim", kind.shim_names), ("GRUB", kind.grub_names)].map(|(what, names)| {
                    let found =
                        names.iter().map(|name| folder.join(name)).find(|path| path.exists());
                    found.ok_or_else(|| NoSignedLoader::Lacks {
                        folder: folder.to_owned(),
                        what,
                        names: names.join(" or "),
                    })
                })
            }
            None => [kind.shim_paths, &[kind.grub_path]].map(|paths| {
                let found = paths.iter().map(PathBuf::from).find(|path| path.exists());
                found.ok_or(NoSignedLoader::NotInstalled)
            }),
        };
        let from = [shim?, grub?];
        Ok(Self { shim: read(&from[0])?, grub: read(&from[1])?, files: kind.files, from })
    }

    /// The file that a boot client asks for by this name.
    pub(crate) fn get(&self, file: &str) -> Option<(&'static str, Bytes)> {
        let [shim, grub] = self.files;
        let files = [(shim, &self.shim), (grub, &self.grub)];
        let (name, bytes) = files.into_iter().find(|(name, _)| *name == file)?;
        Some((name, bytes.clone()))
    }

    /// Whether this GRUB can be started by UEFI HTTP Boot: it asks the firmware for files then, and says by whom to the server.
    pub(crate) fn starts_by_http(&self) -> bool {
        self.grub.windows(FIRMWARE_S_HTTP.len()).any(|bytes| bytes == FIRMWARE_S_HTTP)
    }

    /// Where it is from, for people.
    pub(crate) fn origin(&self) -> String {
        let [shim, grub] = &self.from;
        format!("{} and {}", shim.display(), grub.display())
    }
}

fn read(path: &Path) -> Result<Bytes, NoSignedLoader> {
    let unreadable = |source| NoSignedLoader::Unreadable { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > FILE_MAX {
        return Err(unreadable(io::Error::other(format!(
            "it has {length} bytes, and is no loader"
        ))));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    if !images::is_signed(&bytes) {
        return Err(NoSignedLoader::Unsigned(path.to_owned()));
    }
    Ok(Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a program of the firmware, with a signature of that length.
    pub(crate) fn program(signature: u32) -> Vec<u8> {
        let mut bytes = vec![0; 0x200];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x40;
        bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
        let optional = 0x40 + 24;
        bytes[optional..optional + 2].copy_from_slice(&0x20b_u16.to_le_bytes());
        bytes[optional + 108] = 16;
        bytes[optional + 148..optional + 152].copy_from_slice(&signature.to_le_bytes());
        bytes
    }

    #[test]
    fn a_folder_has_a_signed_loader_or_it_is_said_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let find = || SignedLoader::find(Architecture::X86_64, Some(folder.path()));
        let lacks = find().unwrap_err().to_string();
        assert!(lacks.contains("has no shim (shimx64.efi.signed or shimx64.efi)"), "{lacks}");
        std::fs::write(folder.path().join("shimx64.efi"), program(100)).unwrap();
        assert!(find().unwrap_err().to_string().contains("has no GRUB"));
        let grub = folder.path().join("grubx64.efi");
        std::fs::write(&grub, program(0)).unwrap();
        assert!(find().unwrap_err().to_string().contains("grubx64.efi has no signature"));
        std::fs::write(&grub, "no program").unwrap();
        assert!(find().unwrap_err().to_string().contains("has no signature"));
        std::fs::write(&grub, program(8)).unwrap();
        let loader = find().unwrap();
        assert_eq!(loader.get("shimx64.efi").unwrap(), (SHIM_FILE, Bytes::from(program(100))));
        assert_eq!(loader.get("grubx64.efi").unwrap().0, SIGNED_GRUB_FILE);
        for name in ["grubx64.efi.bak", "revocations.efi", "shim_certificate_0.efi", ""] {
            assert!(loader.get(name).is_none(), "{name}");
        }
        let arm64 = || SignedLoader::find(Architecture::Arm64, Some(folder.path()));
        assert!(arm64().unwrap_err().to_string().contains("has no shim (shimaa64.efi.signed or"));
        for name in ["shimaa64.efi", "grubnetaa64.efi.signed"] {
            std::fs::write(folder.path().join(name), program(8)).unwrap();
        }
        let loader = arm64().unwrap();
        assert_eq!(loader.get("grubaa64.efi").unwrap().0, SIGNED_GRUB_ARM64_FILE);
        assert!(loader.get("shimx64.efi").is_none());
    }
}
