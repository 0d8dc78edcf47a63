//! An image version, opened.

use crate::block::Block;
use model::ImageVersion;
use std::fmt;
use std::sync::Arc;

/// What a write layer lies on: an image version and its bytes.
#[derive(Clone)]
pub struct Base {
    /// The version; its digest is what the layer is tied to.
    pub version: ImageVersion,
    /// Its disk, read-only.
    pub block: Arc<dyn Block>,
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base({}/v{})", self.version.image, self.version.version)
    }
}
