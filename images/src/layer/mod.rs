//! Write layers: what machines wrote over an image version.

mod about;
mod error;
mod file;
mod files;
mod header;
mod layers;
mod map;
mod room;
mod write;

pub use about::{About, Expected, ForBoot, LayerMode};
pub use error::LayerError;
pub use header::{BadHeader, Header};
pub use layers::Layers;
pub use room::NoRoom;
pub use write::WriteLayer;
