//! Changing an image by booting it: one machine gets a disk of its own on a version, and what it leaves there becomes the next
//! version.

use crate::{Follows, ImageChoice, ImageName};
use alloc::string::String;

/// An image that is being changed on a machine.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Edit {
    /// The image.
    pub image: ImageName,
    /// The version on which it began.
    pub version: u32,
    /// Who has begun it: an account, or a user of the server.
    pub by: String,
    /// When that was, seconds since 1970.
    pub since_unix: u64,
}

impl Edit {
    /// What the machine boots as long as it lasts.
    pub fn choice(&self) -> ImageChoice {
        ImageChoice { image: self.image.clone(), follows: Follows::Version(self.version) }
    }
}
