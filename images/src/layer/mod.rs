//! Write layers: what machines wrote over an image version.

mod about;
mod error;
mod file;
mod files;
mod header;
mod in_place;
mod last_use;
mod layers;
mod map;
mod owner;
mod room;
mod write;

pub use about::{About, Expected, ForBoot, LayerMode};
pub use error::{LayerError, OtherCopy, OtherOwner, OwnerUnknown};
pub use header::{BadHeader, Header};
pub use last_use::LastUse;
pub use layers::Layers;
pub use room::NoRoom;
pub use write::WriteLayer;
