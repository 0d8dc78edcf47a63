//! Snapshots of disks that machines keep.

use alloc::string::String;
use alloc::vec::Vec;

/// Why a snapshot was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotKind {
    /// By the timetable: it goes again by that.
    Daily,
    /// A person wanted it: it stays until a person deletes it.
    Asked,
    /// What the disk held when it went back to another snapshot.
    BeforeRollback,
}

impl SnapshotKind {
    /// For people.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Daily => "made at night",
            Self::Asked => "made by a person",
            Self::BeforeRollback => "before a rollback",
        }
    }
}

/// The state of a machine's persistent disk at one moment.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Snapshot {
    /// From 1; no number comes twice in the life of a disk.
    pub number: u32,
    /// When it was made, in seconds since 1970.
    pub at_unix: u64,
    /// Why.
    pub kind: SnapshotKind,
    /// What a person said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A snapshot, as it is told to people: entry of the answer of `GET /v1/disks/MACHINE/snapshots`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SnapshotInfo {
    /// What it is.
    #[serde(flatten)]
    pub snapshot: Snapshot,
    /// What its own files take: what was written between the one before and it. Deleting it gives a part of that back.
    pub held_bytes: u64,
    /// The machine goes on from here when it boots next.
    pub is_next: bool,
    /// What the machine writes lies over it; it does not over those from which it has gone back.
    pub is_below: bool,
}

/// What a person says of a snapshot that is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnapshotOrder {
    /// A remark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// To which snapshot a disk is to go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackOrder {
    /// Its number.
    pub snapshot: u32,
}

/// What is in a folder of a snapshot, or in what it leads to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SnapshotFiles {
    /// The path with all links resolved.
    pub path: String,
    /// What is there, by name; of a file itself alone.
    pub entries: Vec<SnapshotFile>,
    /// There are more than are told.
    pub is_cut: bool,
    /// Partitions with a file system, of which the largest is meant if none is named.
    pub partitions: Vec<u8>,
    /// The partition that was looked at; `None` is the whole disk.
    pub partition: Option<u8>,
}

/// An entry of a folder of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SnapshotFile {
    /// Its name.
    pub name: String,
    /// `file`, `folder`, `link` or `special`.
    pub kind: String,
    /// Of a file.
    pub size_bytes: Option<u64>,
}

/// Which file or folder of a snapshot is meant.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotPath {
    /// From the root of its file system.
    pub path: String,
    /// The partition; `None` is the largest file system that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u8>,
}

/// Snapshots of a machine's disk: answer of `GET /v1/disks/MACHINE/snapshots`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SnapshotList {
    /// The oldest first.
    pub snapshots: Vec<SnapshotInfo>,
    /// Why none was made in the last night, though something was written; `None`: one was, or none was needed.
    pub trouble: Option<String>,
}
