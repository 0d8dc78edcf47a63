//! Which logical volume holds a root.

use crate::ParseChoiceError;
use alloc::borrow::ToOwned as _;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// A logical volume of LVM by the names that people use: `ubuntu-vg/ubuntu-lv`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogicalVolumeName {
    /// Of its volume group.
    pub group: String,
    /// Its own.
    pub name: String,
}

impl fmt::Display for LogicalVolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.name)
    }
}

impl FromStr for LogicalVolumeName {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let parts = text.split_once('/').filter(|(a, b)| lvm::is_name(a) && lvm::is_name(b));
        let refused = || ParseChoiceError::new(text, "a logical volume: use GROUP/NAME");
        let (group, name) = parts.ok_or_else(refused)?;
        Ok(Self { group: group.to_owned(), name: name.to_owned() })
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for LogicalVolumeName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for LogicalVolumeName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        let name = "ubuntu-vg/ubuntu-lv";
        assert_eq!(name.parse::<LogicalVolumeName>().unwrap().to_string(), name);
        for text in ["", "vg", "vg/", "/lv", "vg/a b", "vg/-a", "vg/a/b", "../lv", "vg/.", "vg/$x"]
        {
            let error = text.parse::<LogicalVolumeName>().unwrap_err().to_string();
            assert!(error.contains("GROUP/NAME"), "{text}: {error}");
        }
    }
}
