//! What can't be done with an image version.

use model::{ImageName, MachineName, VersionState};

/// Names that are told; those beyond are counted.
const NAMES_MAX: usize = 8;

/// Why something can't be done with an image version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Machines would have nothing to boot.
    #[error(
        "{image}/v{version} can't be {state}: no other version of {image} is for {} then. Release another one first, or give them \
         another image",
        listed(machines)
    )]
    LastOne {
        /// The image.
        image: ImageName,
        /// The version.
        version: u32,
        /// What it was to be.
        state: VersionState,
        /// Who boots it.
        machines: Vec<MachineName>,
    },
    /// There is nothing to go back to.
    #[error("{image} can't go back: there is no version before {}", released.map_or_else(
        || "that was released".to_owned(), |version| format!("v{version}, which is released")
    ))]
    NothingBefore {
        /// The image.
        image: ImageName,
        /// The newest that is released.
        released: Option<u32>,
    },
    /// It is newer than what is released.
    #[error(
        "{image}/v{to} is not older than v{released}, which is released: bootlace image release {image}/v{to} makes it what machines boot"
    )]
    NotBefore {
        /// The image.
        image: ImageName,
        /// The one that was to be gone back to.
        to: u32,
        /// The newest that is released.
        released: u32,
    },
    /// Somebody needs it.
    #[error("{image}/v{version} can't be removed: {}. To keep it from others, retire it: bootlace image retire {image}/v{version}", by.join("; "))]
    InUse {
        /// The image.
        image: ImageName,
        /// The version.
        version: u32,
        /// Who, and what for.
        by: Vec<String>,
    },
    /// Only the storage server knows who needs it.
    #[error(
        "{image}/v{version} is not removed: machines may keep disks that were made on it, which only the storage server knows, and {why}"
    )]
    PerhapsInUse {
        /// The image.
        image: ImageName,
        /// The version.
        version: u32,
        /// Why it does not tell.
        why: String,
    },
}

/// `lab-01, lab-02 and 3 more`.
pub(crate) fn listed(machines: &[MachineName]) -> String {
    let shown: Vec<&str> = machines.iter().take(NAMES_MAX).map(MachineName::as_str).collect();
    let n_more = machines.len() - shown.len();
    let more = if n_more > 0 { format!(" and {n_more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}
