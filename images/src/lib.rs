//! Where bits live: image versions, write layers of machines, and import of foreign disk images.

mod block;

pub use block::{Block, check_range};
