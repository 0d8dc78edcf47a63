//! A machine and what the administrator chose for it.

use crate::{ImageName, MachineName, Origins, RoomName, Seat, Tag};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;
use initcfg::{ParseChoiceError, RootKind, RootUrl};
use wire::Mac;

/// What becomes of the blocks that a machine writes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum WriteMode {
    /// Thrown away when the machine boots again.
    #[default]
    Discard,
    /// Kept, for as long as the machine stays on the image version.
    Persistent,
    /// Kept in the machine's own memory until it is switched off: the server writes nothing.
    Ram,
}

impl WriteMode {
    /// All modes, the default first.
    pub const ALL: [Self; 3] = [Self::Discard, Self::Persistent, Self::Ram];

    /// The mode's word on the command line, in the API and in the database.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Discard => "discard",
            Self::Persistent => "persistent",
            Self::Ram => "ram",
        }
    }

    /// What becomes of the writes, for people: "discarded at each boot".
    pub const fn title(self) -> &'static str {
        match self {
            Self::Discard => "discarded at each boot",
            Self::Persistent => "kept on a disk of its own",
            Self::Ram => "kept in its own memory until it restarts",
        }
    }
}

impl fmt::Display for WriteMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for WriteMode {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        Self::ALL.into_iter().find(|mode| mode.word() == text).ok_or_else(|| {
            ParseChoiceError::new(text, "a write mode: use discard, persistent or ram")
        })
    }
}

/// AoE address of a disk, displayed as `1.7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShelfSlot {
    /// Major address, 0 to 0xfffe. Linux refuses 0xfff too.
    pub shelf: u16,
    /// Minor address, 0 to 0xfe.
    pub slot: u8,
}

impl ShelfSlot {
    /// The address number `index` of those that Bootlace gives out: shelf 1 up, slots 0 to 15,
    /// so that even initiators with few minor numbers can use every one. `None` beyond 65,488.
    pub fn nth(index: u32) -> Option<Self> {
        let shelf = u16::try_from(1 + index / 16).ok().filter(|&shelf| shelf < 0xfff)?;
        Some(Self { shelf, slot: (index % 16) as u8 })
    }
}

impl fmt::Display for ShelfSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.shelf, self.slot)
    }
}

impl FromStr for ShelfSlot {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let wanted = "an AoE address: use SHELF.SLOT with a shelf below 65535 and a slot below 255";
        let (shelf, slot) =
            text.split_once('.').ok_or_else(|| ParseChoiceError::new(text, wanted))?;
        match (shelf.parse(), slot.parse()) {
            (Ok(shelf), Ok(slot)) if shelf != u16::MAX && slot != u8::MAX => {
                Ok(Self { shelf, slot })
            }
            _ => Err(ParseChoiceError::new(text, wanted)),
        }
    }
}

impl serde::Serialize for ShelfSlot {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ShelfSlot {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Additional kernel parameters: printable ASCII, at most [`KernelArgs::MAX`] bytes, and none of
/// the `bootlace.` parameters that the boot server sets itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct KernelArgs(String);

impl KernelArgs {
    /// Longest text in bytes. x86 kernels take a command line of 2,047 bytes in all.
    pub const MAX: usize = 1024;

    /// The parameters as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parameters one by one.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.split_ascii_whitespace()
    }
}

impl FromStr for KernelArgs {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        if text.len() > Self::MAX || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(ParseChoiceError::new(
                text,
                "a list of kernel parameters: use at most 1024 printable ASCII characters",
            ));
        }
        if text.split_ascii_whitespace().any(|word| word.starts_with("bootlace.")) {
            return Err(ParseChoiceError::new(
                text,
                "a list of kernel parameters for a machine: those that begin with bootlace. are set by the \
                 boot server",
            ));
        }
        Ok(Self(text.trim().to_owned()))
    }
}

impl<'de> serde::Deserialize<'de> for KernelArgs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for KernelArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A PC that the administrator knows.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Machine {
    /// Name of the machine: host name, export name, and name on the pages.
    pub name: MachineName,
    /// The NIC that the machine boots from; of several the first.
    pub mac: Mac,
    /// Other NICs that it boots from, such as a second port or the one of its dock.
    #[serde(default)]
    pub other_macs: Vec<Mac>,
    /// The image it boots: its newest version, or the one that its persistent disk was made on.
    /// `None`: it waits in the loader.
    pub image: Option<ImageName>,
    /// How the machine's root reaches it.
    pub root: RootKind,
    /// Where its root is, if a foreign server has it: of the same kind as `root`.
    #[serde(default)]
    pub root_url: Option<RootUrl>,
    /// What becomes of what the machine writes.
    pub write_mode: WriteMode,
    /// AoE address of the machine's disk; allocated once, so that it stays the same.
    pub shelf_slot: ShelfSlot,
    /// Kernel parameters for this machine, after the site's and its room's.
    #[serde(default)]
    pub kernel_args: KernelArgs,
    /// The machine's next boot begins with an empty write layer, whatever the write mode.
    #[serde(default)]
    pub reset_disk: bool,
    /// The room that it is in.
    #[serde(default)]
    pub room: Option<RoomName>,
    /// Where it stands there; nobody else does.
    #[serde(default)]
    pub seat: Option<Seat>,
    /// By which it is found, in order, each once; at most [`Machine::TAGS_MAX`].
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Whose image, root and write mode it has.
    #[serde(default)]
    pub set_by: Origins,
}

impl Machine {
    /// NICs that a machine may have. Each is looked up when the machine boots.
    pub const MACS_MAX: usize = 8;

    /// Tags that a machine may have.
    pub const TAGS_MAX: usize = 16;

    /// All NICs that it boots from.
    pub fn macs(&self) -> impl Iterator<Item = Mac> {
        core::iter::once(self.mac).chain(self.other_macs.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileSystem, Stage};
    use alloc::string::ToString;
    use serde::Deserialize;
    use serde::de::IntoDeserializer;
    use serde::de::value::Error as Refused;

    /// What stands in the API, in the database and beside an image for one of a few words.
    fn read<'a, T: Deserialize<'a>>(word: &'a str) -> Result<T, Refused> {
        T::deserialize(word.into_deserializer())
    }

    #[test]
    fn a_word_is_the_same_on_every_way_in() {
        for kind in RootKind::ALL {
            assert_eq!(read(kind.word()), Ok(kind));
        }
        for file_system in FileSystem::ALL {
            assert_eq!(read(file_system.word()), Ok(file_system));
        }
        for stage in Stage::ALL {
            assert_eq!(read(stage.word()), Ok(stage));
        }
        for mode in WriteMode::ALL {
            assert_eq!((mode.word().parse(), read(mode.word())), (Ok(mode), Ok(mode)));
        }
    }

    #[test]
    fn addresses_are_given_out_in_order_and_end() {
        assert_eq!(ShelfSlot::nth(0).unwrap().to_string(), "1.0");
        assert_eq!(ShelfSlot::nth(17).unwrap().to_string(), "2.1");
        assert_eq!(ShelfSlot::nth(u32::MAX), None);
        assert_eq!("2.1".parse(), Ok(ShelfSlot { shelf: 2, slot: 1 }));
        assert!("65535.1".parse::<ShelfSlot>().is_err());
        assert!("1.255".parse::<ShelfSlot>().is_err());
    }

    #[test]
    fn kernel_parameters_can_not_override_the_boot_server() {
        assert!("quiet console=ttyS0".parse::<KernelArgs>().is_ok());
        let error = "quiet bootlace.root=nbd:x".parse::<KernelArgs>().unwrap_err();
        assert!(error.to_string().contains("set by the boot server"), "{error}");
        assert!("a\nb".parse::<KernelArgs>().is_err());
    }
}
