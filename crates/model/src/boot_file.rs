//! Paths of kernels and initrds on the boot server: rendered into GRUB's configuration, and read again when GRUB
//! asks for them.

use crate::{ImageName, Stage};
use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// A kernel or an initrd of an image version. Its text is its path, by TFTP and by HTTP:
/// `/boot/IMAGE/VERSION/FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFile {
    /// Name of the image.
    pub image: ImageName,
    /// Version of the image.
    pub version: u32,
    /// Which of its files.
    pub part: BootPart,
}

/// Which file of an image version a machine boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootPart {
    /// The kernel: `vmlinuz`.
    Kernel,
    /// The initrd for all machines: `initrd`.
    Initrd,
    /// The initrd for one kind of hardware, by the key of that kind: `initrd-KEY`.
    FittedInitrd(String),
}

/// The text is no path of a [`BootFile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the path of a kernel or initrd")]
pub struct NotABootFile;

const FOLDER: &str = "/boot/";
const KERNEL: &str = "vmlinuz";
const INITRD: &str = "initrd";

impl BootPart {
    /// The stage that a boot has reached when its machine has the whole file.
    pub const fn stage(&self) -> Stage {
        match self {
            Self::Kernel => Stage::Kernel,
            Self::Initrd | Self::FittedInitrd(_) => Stage::Initrd,
        }
    }
}

impl fmt::Display for BootFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image, version, part } = self;
        write!(f, "{FOLDER}{image}/{version}/")?;
        match part {
            BootPart::Kernel => f.write_str(KERNEL),
            BootPart::Initrd => f.write_str(INITRD),
            BootPart::FittedInitrd(key) => write!(f, "{INITRD}-{key}"),
        }
    }
}

impl FromStr for BootFile {
    type Err = NotABootFile;

    fn from_str(path: &str) -> Result<Self, NotABootFile> {
        let mut parts = path.strip_prefix(FOLDER).ok_or(NotABootFile)?.splitn(3, '/');
        let mut next = || parts.next().ok_or(NotABootFile);
        let (image, version, file) = (next()?, next()?, next()?);
        let part = match file.strip_prefix(INITRD) {
            Some("") => BootPart::Initrd,
            Some(key) => BootPart::FittedInitrd(key_of(key)?.to_owned()),
            None if file == KERNEL => BootPart::Kernel,
            None => return Err(NotABootFile),
        };
        Ok(Self {
            image: image.parse().map_err(|_| NotABootFile)?,
            version: version.parse().map_err(|_| NotABootFile)?,
            part,
        })
    }
}

/// A key behind its hyphen: keys are letters and digits.
fn key_of(text: &str) -> Result<&str, NotABootFile> {
    let key = text.strip_prefix('-').ok_or(NotABootFile)?;
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_key.then_some(key).ok_or(NotABootFile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_path_leads_to_the_file_that_it_was_made_of() {
        for (path, part) in [
            ("/boot/debian-12/2/vmlinuz", BootPart::Kernel),
            ("/boot/debian-12/2/initrd", BootPart::Initrd),
            ("/boot/debian-12/2/initrd-0a1b", BootPart::FittedInitrd("0a1b".into())),
        ] {
            let file = BootFile { image: "debian-12".parse().unwrap(), version: 2, part };
            assert_eq!((file.to_string().as_str(), path.parse()), (path, Ok(file)));
        }
    }

    #[test]
    fn other_paths_are_none() {
        for path in [
            "",
            "/",
            "/boot/",
            "/boot/debian-12/2",
            "/boot/debian-12/2/",
            "/boot/debian-12/2/disk.raw",
            "/boot/debian-12/2/initrd-",
            "/boot/debian-12/2/initrd0a1b",
            "/boot/debian-12/2/initrd-../../x",
            "/boot/debian-12/2/vmlinuz/",
            "/boot/debian-12/x/vmlinuz",
            "/boot/debian-12/-1/vmlinuz",
            "/boot/../2/vmlinuz",
            "/boot//2/vmlinuz",
            "boot/debian-12/2/vmlinuz",
        ] {
            assert_eq!(path.parse::<BootFile>(), Err(NotABootFile), "{path}");
        }
    }
}
