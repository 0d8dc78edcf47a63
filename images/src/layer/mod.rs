//! Write layers: what machines wrote over an image version.

mod about;
mod header;
mod layers;
mod map;
mod write;

pub use about::{About, LayerMode};
pub use header::{BadHeader, Header};
pub use layers::{LayerError, Layers};
pub use write::WriteLayer;
