//! Capture of a PC: its next boot sends what is on its own disks, which becomes a version of an image.

use crate::{BootId, Follows, ImageChoice, ImageName, VersionState};
use alloc::string::String;
use initcfg::CaptureOrder;

/// What is captured of a machine, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Capture {
    /// The image of which it becomes a version.
    pub image: ImageName,
    /// The image whose kernel runs meanwhile.
    pub with: ImageName,
    /// The version of that.
    pub with_version: u32,
    /// What init is told.
    pub order: CaptureOrder,
    /// What people want to remember about the version.
    pub note: Option<String>,
    /// For whom the version is.
    pub state: VersionState,
    /// Whether files are laid over the version against what hurts in it.
    pub fixes: bool,
    /// Who has ordered it: an account, or a user of the server.
    pub by: String,
    /// When that was, seconds since 1970.
    pub since_unix: u64,
    /// The boot that sends it, as soon as it does: no other one may.
    pub boot: Option<BootId>,
}

impl Capture {
    /// What the machine boots for it.
    pub fn choice(&self) -> ImageChoice {
        ImageChoice { image: self.with.clone(), follows: Follows::Version(self.with_version) }
    }
}
