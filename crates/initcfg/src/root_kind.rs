//! How a root reaches a machine.

use crate::ParseChoiceError;
use core::fmt;
use core::str::FromStr;

/// How the root of a machine reaches it.
///
/// Its word is the same on the command line, in the API and in the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum RootKind {
    /// A disk of the storage server over TCP: any routed network.
    #[default]
    Nbd,
    /// A disk of the storage server over raw Ethernet: its own LAN.
    Aoe,
    /// A folder that a foreign server exports over NFS, version 3 or 4.
    Nfs,
    /// A disk that a foreign server exports over iSCSI.
    Iscsi,
    /// A disk that a foreign server exports over NBD.
    OtherNbd,
    /// A disk that a foreign target exports over AoE.
    OtherAoe,
}

impl RootKind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Nbd, Self::Aoe, Self::Nfs, Self::Iscsi, Self::OtherNbd, Self::OtherAoe];

    /// Whether a foreign server has the root, and not the storage server.
    pub const fn is_foreign(self) -> bool {
        matches!(self, Self::Nfs | Self::Iscsi | Self::OtherNbd | Self::OtherAoe)
    }

    /// The kind's word: `nbd`, `aoe`, `nfs`, `iscsi`, `other-nbd` or `other-aoe`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nbd => "nbd",
            Self::Aoe => "aoe",
            Self::Nfs => "nfs",
            Self::Iscsi => "iscsi",
            Self::OtherNbd => "other-nbd",
            Self::OtherAoe => "other-aoe",
        }
    }

    /// The protocol's name as people write it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Nbd | Self::OtherNbd => "NBD",
            Self::Aoe | Self::OtherAoe => "AoE",
            Self::Nfs => "NFS",
            Self::Iscsi => "iSCSI",
        }
    }

    /// Where such a root can be, for people who choose: "any network".
    pub const fn reach(self) -> &'static str {
        match self {
            Self::Nbd => "any network",
            Self::Aoe => "same LAN only",
            Self::Nfs => "a folder on another server",
            Self::Iscsi | Self::OtherNbd | Self::OtherAoe => "a disk on another server",
        }
    }
}

impl fmt::Display for RootKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for RootKind {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let found = Self::ALL.into_iter().find(|kind| kind.word() == text);
        let wanted = "a root kind: use nbd, aoe, nfs, iscsi, other-nbd or other-aoe";
        found.ok_or_else(|| ParseChoiceError::new(text, wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_kind_is_read_by_its_word() {
        let words = ["nbd", "aoe", "nfs", "iscsi", "other-nbd", "other-aoe"];
        assert_eq!(RootKind::ALL.map(RootKind::word), words);
        for kind in RootKind::ALL {
            assert_eq!(kind.word().parse(), Ok(kind));
        }
        let error = "NBD".parse::<RootKind>().unwrap_err().to_string();
        assert_eq!(
            error,
            "\"NBD\" is not a root kind: use nbd, aoe, nfs, iscsi, other-nbd or other-aoe"
        );
    }
}
