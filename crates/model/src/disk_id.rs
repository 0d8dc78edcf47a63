//! Which disk of which machine.

use crate::MachineName;
use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;
use initcfg::DiskTag;

/// A disk of a machine: its root, or one beside that. Displayed as its export is called, and its folder: `lab-07`, `lab-07+home`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskId {
    /// The machine.
    pub machine: MachineName,
    /// Name of the further disk; `None`: it is the root.
    pub tag: Option<DiskTag>,
}

/// The text names no disk of a machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no disk of a machine: that is its name, like lab-07, or with the name of a disk beside its root, like lab-07+home"
)]
pub struct BadDiskId {
    text: String,
}

impl DiskId {
    /// Whether it is the machine's root.
    pub const fn is_root(&self) -> bool {
        self.tag.is_none()
    }
}

/// Its root.
impl From<MachineName> for DiskId {
    fn from(machine: MachineName) -> Self {
        Self { machine, tag: None }
    }
}

/// Its root.
impl From<&MachineName> for DiskId {
    fn from(machine: &MachineName) -> Self {
        machine.clone().into()
    }
}

/// The root of this machine.
impl PartialEq<MachineName> for DiskId {
    fn eq(&self, other: &MachineName) -> bool {
        self.is_root() && self.machine == *other
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tag {
            Some(tag) => f.pad(&tag.export_of(self.machine.as_str())),
            None => self.machine.fmt(f),
        }
    }
}

impl FromStr for DiskId {
    type Err = BadDiskId;

    fn from_str(text: &str) -> Result<Self, BadDiskId> {
        let found = DiskTag::split(text).ok();
        let found =
            found.and_then(|(machine, tag)| Some(Self { machine: machine.parse().ok()?, tag }));
        found.ok_or_else(|| BadDiskId { text: text.chars().take(64).collect() })
    }
}

impl serde::Serialize for DiskId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_string())
    }
}

impl<'de> serde::Deserialize<'de> for DiskId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_called_as_its_export() {
        for (text, is_root) in [("lab-07", true), ("lab-07+home", false)] {
            let id: DiskId = text.parse().unwrap();
            assert_eq!((id.to_string().as_str(), id.is_root()), (text, is_root));
            assert_eq!(id.machine.as_str(), "lab-07");
        }
        for text in
            ["", "+home", "lab-07+", "lab-07+a+b", "Lab+home", "lab-07+../x", "lab-07.discard"]
        {
            assert!(text.parse::<DiskId>().is_err(), "{text}");
        }
        let machine: MachineName = "lab-07".parse().unwrap();
        assert_eq!(DiskId::from(&machine), machine);
        assert_ne!("lab-07+home".parse::<DiskId>().unwrap(), machine);
    }
}
