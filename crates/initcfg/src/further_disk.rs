//! Disks that a machine has beside its root: what init is told of them in the host segment.

use crate::ParseChoiceError;
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

/// Further disks that a machine has at most.
pub const FURTHER_DISKS_MAX: usize = 8;

/// Longest text of one: eight fit into a host segment with all else that is in it.
const TEXT_MAX: usize = 512;

/// Longest name.
const TAG_MAX: usize = 24;

/// Between a machine and the name of one of its further disks, where both are one name. No machine's name has it.
const SEPARATOR: char = '+';

/// Name of a further disk, of 1 to 24 lower-case letters, digits and hyphens; the first and the last are no hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskTag(String);

/// One disk beside the root. Displayed as it stands in the host segment: `home kept carry /home /etc/cups`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FurtherDisk {
    /// Its name.
    pub tag: DiskTag,
    /// What becomes of writes to it.
    pub writes: DiskWrites,
    /// What the machine does with it.
    pub purpose: DiskPurpose,
}

/// What becomes of writes to a further disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskWrites {
    /// There are none: all machines that have it read the same (`ro`).
    Refused,
    /// They are forgotten with the boot (`forgotten`).
    Forgotten,
    /// They are kept. A boot that lacks the disk fails, so that nobody works where nothing lasts (`kept`).
    Kept,
}

/// What a machine does with a further disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum DiskPurpose {
    /// It is mounted at this folder of the root (`mount /data`).
    Mount(String),
    /// These folders of the root are on it; at first they hold what the root has there (`carry /home /etc/cups`).
    Carry(Vec<String>),
    /// The system swaps to it (`swap`).
    Swap,
}

impl DiskTag {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of this disk of the machine as an NBD export.
    pub fn export_of(&self, machine: &str) -> String {
        alloc::format!("{machine}{SEPARATOR}{self}")
    }

    /// Machine and further disk that an export's name means; `None` as the disk: it is the root.
    ///
    /// # Errors
    /// What follows the separator is no name of a disk.
    pub fn split(export: &str) -> Result<(&str, Option<Self>), ParseChoiceError> {
        match export.split_once(SEPARATOR) {
            Some((machine, tag)) => Ok((machine, Some(tag.parse()?))),
            None => Ok((export, None)),
        }
    }
}

impl fmt::Display for DiskTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for DiskTag {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = (1..=TAG_MAX).contains(&text.len())
            && text.bytes().all(|byte| is_plain(byte) || byte == b'-')
            && text.bytes().next().is_some_and(is_plain)
            && text.bytes().next_back().is_some_and(is_plain);
        let wanted = "the name of a disk, of 1 to 24 lower-case letters, digits and hyphens, starting and ending with a letter or \
                      digit";
        if fits { Ok(Self(text.to_owned())) } else { Err(ParseChoiceError::new(text, wanted)) }
    }
}

impl DiskPurpose {
    /// The folders of the root that are on the disk, or where it is mounted.
    pub fn folders(&self) -> &[String] {
        match self {
            Self::Mount(folder) => core::slice::from_ref(folder),
            Self::Carry(folders) => folders,
            Self::Swap => &[],
        }
    }
}

impl FurtherDisk {
    /// As [`DiskPurpose::folders`].
    pub fn folders(&self) -> &[String] {
        self.purpose.folders()
    }
}

impl fmt::Display for DiskWrites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "ro",
            Self::Forgotten => "forgotten",
            Self::Kept => "kept",
        })
    }
}

impl FromStr for DiskWrites {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        match text {
            "ro" => Ok(Self::Refused),
            "forgotten" => Ok(Self::Forgotten),
            "kept" => Ok(Self::Kept),
            _ => Err(ParseChoiceError::new(text, "ro, forgotten or kept")),
        }
    }
}

impl fmt::Display for FurtherDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.tag, self.writes)?;
        f.write_str(match self.purpose {
            DiskPurpose::Mount(_) => "mount",
            DiskPurpose::Carry(_) => "carry",
            DiskPurpose::Swap => "swap",
        })?;
        self.folders().iter().try_for_each(|folder| write!(f, " {folder}"))
    }
}

impl FromStr for FurtherDisk {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let wanted = "a disk's name, then ro, forgotten or kept, then mount FOLDER, carry FOLDER… or swap, in 512 letters at most";
        let refused = || ParseChoiceError::new(text, wanted);
        if text.len() > TEXT_MAX {
            return Err(refused());
        }
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or_else(refused);
        let (tag, writes, purpose) = (word()?.parse()?, word()?.parse()?, word()?);
        let folders: Vec<String> = words.map(disk_folder).collect::<Result<_, _>>()?;
        let purpose = match (purpose, writes, folders.as_slice()) {
            ("mount", _, [folder]) => DiskPurpose::Mount(folder.clone()),
            ("carry", DiskWrites::Kept, [_, ..]) => DiskPurpose::Carry(folders),
            ("swap", DiskWrites::Forgotten, []) => DiskPurpose::Swap,
            _ => return Err(refused()),
        };
        Ok(Self { tag, writes, purpose })
    }
}

/// A folder where a further disk may be, without a slash at its end.
///
/// # Errors
/// It is none: it has no slash before it, is the root itself, leads upwards, is what no disk may hide (`/dev`, `/proc`, `/run`, `/sys`,
/// `/usr`, `/bin`, `/sbin`, `/lib` and the like, `/etc` itself), or has other signs than letters, digits and `. _ - + @`.
pub fn disk_folder(text: &str) -> Result<String, ParseChoiceError> {
    /// With all that is in them.
    const NEVER: [&str; 11] =
        ["bin", "boot", "dev", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys"];
    /// Only themselves: the system does not start without them.
    const NOT_WHOLE: [&str; 6] = ["etc", "etc/systemd", "nix", "var", "var/lib", "var/run"];
    let wanted = "a folder like /home or /srv/data, of letters, digits and . _ - + @, and none that the system itself needs to start";
    let refused = || ParseChoiceError::new(text, wanted);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+@".contains(&byte);
    let path = text.strip_prefix('/').ok_or_else(refused)?;
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut steps = path.split('/');
    let is_good = |step: &str| !matches!(step, "" | "." | "..") && step.bytes().all(is_plain);
    let first = steps.clone().next().unwrap_or_default();
    let is_of_system = first == "usr" && !matches!(path.split('/').nth(1), Some("local" | "src"));
    if !steps.all(is_good) || NEVER.contains(&first) || NOT_WHOLE.contains(&path) || is_of_system {
        return Err(refused());
    }
    Ok(alloc::format!("/{path}"))
}

/// What a folder that is carried over is called on its disk: `/etc/cups` is `etc:cups`. All are beside each other, and no two have one
/// name: a colon is in no [`disk_folder`].
pub fn name_on_disk(folder: &str) -> String {
    folder.trim_matches('/').replace('/', ":")
}

#[cfg(feature = "serde")]
mod as_text {
    use super::{DiskTag, DiskWrites, FurtherDisk};
    use alloc::string::String;

    macro_rules! as_text {
        ($($name:ty),*) => {$(
            impl serde::Serialize for $name {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }

            impl<'de> serde::Deserialize<'de> for $name {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                }
            }
        )*};
    }

    as_text!(DiskTag, DiskWrites, FurtherDisk);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        for text in [
            "home kept carry /home /etc/cups",
            "courses ro mount /srv/courses",
            "scratch forgotten mount /data",
            "data kept mount /data",
            "swap forgotten swap",
        ] {
            assert_eq!(text.parse::<FurtherDisk>().unwrap().to_string(), text);
        }
        let disk: FurtherDisk = "home kept carry /home/".parse().unwrap();
        assert_eq!(disk.folders(), ["/home"]);
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        for text in [
            "",
            "home",
            "home kept",
            "home kept carry",
            "home kept mount",
            "home kept mount /a /b",
            "home ro carry /home",
            "home forgotten carry /home",
            "swap kept swap",
            "swap forgotten swap /x",
            "home kept  mount /a",
            "Home kept mount /a",
            "-home kept mount /a",
            "home kept mount a",
            "home kept mount /",
            "home kept mount /a/../b",
            "home kept mount /a//b",
            "home kept mount /proc/x",
            "home kept mount /usr",
            "home kept mount /usr/lib",
            "home kept mount /lib/systemd",
            "home kept mount /var/lib",
            "home kept carry /home /etc",
            "home kept mount /a\n",
            "home kept mount /ä",
        ] {
            assert!(text.parse::<FurtherDisk>().is_err(), "{text:?}");
        }
        let long = alloc::format!("home kept mount /{}", "x".repeat(TEXT_MAX));
        assert!(long.parse::<FurtherDisk>().is_err());
        assert!("/usr/local".parse::<DiskTag>().is_err() && disk_folder("/usr/local").is_ok());
    }

    #[test]
    fn folders_have_a_name_each_on_their_disk() {
        assert_eq!(name_on_disk("/home"), "home");
        assert_eq!(name_on_disk("/etc/cups"), "etc:cups");
        assert_ne!(name_on_disk("/etc/cups"), name_on_disk("/etc-cups"));
        assert!(disk_folder("/etc:cups").is_err());
    }

    #[test]
    fn an_export_is_a_machines_root_or_one_of_its_disks() {
        let tag: DiskTag = "home".parse().unwrap();
        let export = tag.export_of("lab-07");
        assert_eq!(DiskTag::split(&export).unwrap(), ("lab-07", Some(tag)));
        assert_eq!(DiskTag::split("lab-07").unwrap(), ("lab-07", None));
        assert!(DiskTag::split("lab-07+").is_err() && DiskTag::split("lab-07+a+b").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<FurtherDisk>();
            let _ = DiskTag::split(&text);
        }
    }
}
