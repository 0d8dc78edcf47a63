//! An image version: a system's disk, frozen; for whom it is, and which of an image a machine boots.

use crate::ImageName;
use crate::as_text::as_text;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use initcfg::{FileSystem, LogicalVolumeName, ParseChoiceError};
use wire::Architecture;

/// Immutable state of an image. It never changes once it is published.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageVersion {
    /// Name of the image.
    pub image: ImageName,
    /// Number of the version, from 1.
    pub version: u32,
    /// BLAKE3 of the disk's bytes in hexadecimal: the version's identity.
    pub digest: String,
    /// Size of the disk in bytes, a multiple of 4096.
    pub size_bytes: u64,
    /// Partition that holds the root file system, from 1; `None` is the whole disk.
    pub partition: Option<u8>,
    /// Logical volume that does instead. Older versions don't say, and are on none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logical_volume: Option<LogicalVolumeName>,
    /// The root's file system.
    pub file_system: FileSystem,
    /// Release of the kernel that it boots, like `6.1.0-56-amd64`; empty: it is no system, but a disk that machines have beside their
    /// roots.
    pub kernel_version: String,
    /// What that kernel is for. Versions of an older Bootlace don't say, and are for x86-64.
    #[serde(default)]
    pub architecture: Architecture,
    /// What the image calls itself (`PRETTY_NAME` of its os-release).
    pub os_name: Option<String>,
    /// When it was imported, seconds since 1970.
    pub imported_unix: u64,
}

impl ImageVersion {
    /// Whether it is no system, but a file system that machines have beside their roots.
    pub const fn is_data(&self) -> bool {
        self.kernel_version.is_empty()
    }
}

/// For whom a version is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VersionState {
    /// For nobody but machines that are told to boot just this version.
    Draft,
    /// For machines that boot what is to be tested.
    Test,
    /// For all machines.
    #[default]
    Released,
    /// For no machine, unless it is told to boot just this version, or keeps a disk that was made on it.
    Retired,
}

impl VersionState {
    /// All of them, in the order in which a version has them.
    pub const ALL: [Self; 4] = [Self::Draft, Self::Test, Self::Released, Self::Retired];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Test => "test",
            Self::Released => "released",
            Self::Retired => "retired",
        }
    }
}

impl fmt::Display for VersionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for VersionState {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let found = Self::ALL.into_iter().find(|state| state.word() == text);
        found.ok_or_else(|| {
            ParseChoiceError::new(
                text,
                "a state of a version: use draft, test, released or retired",
            )
        })
    }
}

/// Which version of its image a machine boots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Follows {
    /// The newest that is released.
    #[default]
    Released,
    /// The newest that is released or to be tested.
    Test,
    /// This one, whatever its state.
    Version(u32),
}

/// What a machine boots: an image, and which of its versions. Displayed as it is written: `debian-12`, `debian-12/test`,
/// `debian-12/v3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageChoice {
    /// The image.
    pub image: ImageName,
    /// Which of its versions.
    pub follows: Follows,
}

impl ImageChoice {
    /// Whether it means this version, which has this state, if there is no newer one.
    pub fn takes(&self, version: u32, state: VersionState) -> bool {
        match self.follows {
            Follows::Released => state == VersionState::Released,
            Follows::Test => matches!(state, VersionState::Released | VersionState::Test),
            Follows::Version(only) => only == version,
        }
    }
}

impl From<ImageName> for ImageChoice {
    /// What is released of an image.
    fn from(image: ImageName) -> Self {
        Self { image, follows: Follows::Released }
    }
}

impl fmt::Display for ImageChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.follows {
            Follows::Released => write!(f, "{}", self.image),
            Follows::Test => write!(f, "{}/test", self.image),
            Follows::Version(version) => write!(f, "{}/v{version}", self.image),
        }
    }
}

impl FromStr for ImageChoice {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let refused = || {
            ParseChoiceError::new(
                text,
                "an image: use NAME for what is released of it, NAME/test for what is to be tested, or NAME/v3 for a version",
            )
        };
        let (image, follows) = match text.split_once('/') {
            None => (text, Follows::Released),
            Some((image, "test")) => (image, Follows::Test),
            Some((image, version)) => {
                let number = version.strip_prefix('v').and_then(counted).ok_or_else(refused)?;
                (image, Follows::Version(number))
            }
        };
        Ok(Self { image: image.parse().map_err(|_| refused())?, follows })
    }
}

/// The number of a version, as people and scripts write it: `v3`, or `3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionNumber(pub u32);

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl FromStr for VersionNumber {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let number = counted(text.strip_prefix('v').unwrap_or(text)).map(Self);
        number.ok_or_else(|| ParseChoiceError::new(text, "the number of a version: use v3 or 3"))
    }
}

/// A number from 1 in the one way in which it is written.
fn counted(digits: &str) -> Option<u32> {
    digits.parse().ok().filter(|_| !digits.starts_with(['0', '+']))
}

as_text!(ImageChoice, VersionNumber, VersionState);

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn a_choice_is_read_as_it_is_written() {
        for text in ["debian-12", "debian-12/test", "debian-12/v3"] {
            assert_eq!(text.parse::<ImageChoice>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "/",
            "debian/",
            "debian/3",
            "debian/v0",
            "debian/v+1",
            "debian/v",
            "debian/vx",
            "a/b/c",
            "../v1",
        ] {
            let error = text.parse::<ImageChoice>().unwrap_err().to_string();
            assert!(error.contains("NAME/test"), "{text}: {error}");
        }
    }

    #[test]
    fn a_version_has_one_number_and_two_ways_to_write_it() {
        for text in ["3", "v3"] {
            assert_eq!(text.parse(), Ok(VersionNumber(3)), "{text}");
        }
        for text in ["", "v", "0", "v0", "002", "v02", "+3", "-3", "vv3", "3v", "4294967296"] {
            assert!(text.parse::<VersionNumber>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_choice_takes_what_is_meant_for_it() {
        let takes = |choice: &str| {
            let choice: ImageChoice = choice.parse().unwrap();
            VersionState::ALL.map(|state| choice.takes(3, state))
        };
        assert_eq!(takes("debian"), [false, false, true, false]);
        assert_eq!(takes("debian/test"), [false, true, true, false]);
        assert_eq!(takes("debian/v3"), [true; 4]);
        assert_eq!(takes("debian/v2"), [false; 4]);
    }
}
