//! Where bits live: image versions, write layers of machines, and import of foreign disk images.
#![forbid(unsafe_code)]

mod base;
mod block;
mod layer;
mod memory;
mod raw;

pub use base::Base;
pub use block::{Block, check_range};
pub use layer::{About, BadHeader, Header, LayerError, Layers, WriteLayer};
pub use memory::Memory;
pub use raw::RawFile;
