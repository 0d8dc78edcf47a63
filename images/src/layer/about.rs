//! `layer.toml`: a layer describes itself, so that any index can be rebuilt.

use super::tree::Tree;
use model::{BootId, BootIdentity, DiskId, ImageName, WriteMode};

/// The format of a layer that never had a snapshot.
pub(super) const FORMAT: u32 = 1;

/// The format of one that has, which an earlier Bootlace refuses: it would take the oldest files for all.
pub(super) const FORMAT_WITH_TREE: u32 = 2;

/// What becomes of a write layer. A machine in mode `ram` has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerMode {
    /// Thrown away when the machine boots again.
    Discard,
    /// Kept.
    Persistent,
}

impl LayerMode {
    /// The layer that a machine in this mode has, if any.
    pub const fn of(mode: WriteMode) -> Option<Self> {
        match mode {
            WriteMode::Discard => Some(Self::Discard),
            WriteMode::Persistent => Some(Self::Persistent),
            WriteMode::Ram => None,
        }
    }
}

/// The boot for which a layer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForBoot {
    /// Its number.
    pub number: BootId,
    /// Tells it from another boot with the same number. `None`: the number does.
    pub identity: Option<BootIdentity>,
}

impl From<BootId> for ForBoot {
    fn from(number: BootId) -> Self {
        Self { number, identity: None }
    }
}

/// What is known of a layer before it is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// There may be none yet.
    Perhaps,
    /// It was there: one that is missing is not made anew.
    There,
}

/// What a write layer is, as kept beside its data.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Format of the layer's files: 1, or 2 with a tree.
    pub format: u32,
    /// Random identity in hexadecimal; in mode `discard` that of the boot in which it was made, if that has one.
    pub id: String,
    /// Whose writes it holds.
    #[serde(rename = "machine")]
    pub disk: DiskId,
    /// What becomes of them.
    pub mode: LayerMode,
    /// The boot in which it was made.
    pub boot: BootId,
    /// Image of its parent.
    pub image: ImageName,
    /// Version of its parent.
    pub version: u32,
    /// BLAKE3 of its parent's content.
    pub parent_digest: String,
    /// Size of the disk.
    pub size_bytes: u64,
    /// Snapshots and what lies over them; `None` if it never had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Tree>,
}

impl About {
    /// Whether this Bootlace knows the format.
    pub(super) fn is_known(&self) -> bool {
        let expected = if self.tree.is_some() { FORMAT_WITH_TREE } else { FORMAT };
        self.format == expected
    }

    /// The number of the files to which the machine writes.
    pub(super) fn top(&self) -> u32 {
        self.tree.as_ref().map_or(0, |tree| tree.top)
    }

    /// The files that the machine sees, from the top down.
    pub(super) fn path(&self) -> Vec<u32> {
        let path = self.tree.as_ref().and_then(|tree| tree.path(tree.top));
        path.unwrap_or_else(|| vec![0])
    }

    /// The same layer with this tree.
    pub(super) fn with_tree(&self, tree: Tree) -> Self {
        Self { format: FORMAT_WITH_TREE, tree: Some(tree), ..self.clone() }
    }
}
