//! Write layers: what machines wrote over an image version.

mod about;
mod chain;
mod error;
mod file;
mod files;
mod header;
mod in_place;
mod last_use;
mod layers;
mod map;
mod media;
mod owner;
mod part;
#[cfg(test)]
mod power_cut;
mod room;
mod tree;
mod write;

pub use about::{About, Expected, ForBoot, LayerMode};
pub use chain::Change;
pub use error::{LayerError, OtherCopy, OtherOwner, OwnerUnknown};
pub use header::{BadHeader, Header};
pub use last_use::LastUse;
pub use layers::Layers;
pub use layers::{Merged, SnapshotDisk};
pub use room::NoRoom;
pub use tree::Tree;
pub use write::WriteLayer;
