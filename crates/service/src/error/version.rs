//! What can't be done with an image version.

use model::{ImageName, MachineName, RoomName};

/// Names that are told; those beyond are counted.
const NAMES_MAX: usize = 8;

/// Why something can't be done with an image version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Machines would have nothing to boot.
    #[error(
        "{image}/v{version} can't go: no other version of {image} is for {} then. Release another one first, or give them \
         another image",
        listed(who)
    )]
    LastOne {
        /// The image.
        image: ImageName,
        /// The version.
        version: u32,
        /// Who boots it.
        who: Vec<String>,
    },
    /// There is nothing to go back to.
    #[error("{image} can't go back: no version before {} is released. To make one that is retired what machines get: \
             bootlace image rollback {image} --to VERSION. What a room tries is ended by bootlace image ring stop {image}", released.map_or_else(
        || "any other".to_owned(), |version| format!("v{version}")
    ))]
    NothingBefore {
        /// The image.
        image: ImageName,
        /// The newest that is released.
        released: Option<u32>,
    },
    /// Nothing was there before it.
    #[error(
        "{image}/v{version} is the first version that is there: there is nothing to compare it with"
    )]
    First {
        /// The image.
        image: ImageName,
        /// The version.
        version: u32,
    },
    /// No machine could start with it.
    #[error("machines can't boot {image}/v{version}: {why}")]
    Broken {
        /// The image.
        image: ImageName,
        /// The version.
        version: u32,
        /// Why, and what helps.
        why: String,
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
    /// No room tries it.
    #[error(
        "no room tries a version of {0}: bootlace image release {0}/vN --ring ROOM begins that"
    )]
    NoRing(ImageName),
    /// A room that tries it would learn nothing, or there is nothing to go back to.
    #[error(
        "a room can try only what is newer than a version that is released, and not {image}/v{version}: {}",
        released.map_or_else(|| format!("no version of {image} is released"), |it| format!("v{it} is released"))
    )]
    NotToTry {
        /// The image.
        image: ImageName,
        /// The version.
        version: u32,
        /// The newest that is released.
        released: Option<u32>,
    },
    /// Nobody would try it.
    #[error(
        "no machine of the room {room} would try it: none that is waited for has the image {image}, boots what is released or to be \
         tested of it, and keeps no disk of its own"
    )]
    NobodyTries {
        /// The image.
        image: ImageName,
        /// The room.
        room: RoomName,
    },
    /// Another room tries a version of it.
    #[error(
        "the room {room} tries {image}/v{version} already: end that first, by bootlace image ring pass {image} or bootlace image ring stop {image}"
    )]
    RingRuns {
        /// The image.
        image: ImageName,
        /// What it tries.
        version: u32,
        /// The room.
        room: RoomName,
    },
    /// Nobody waits for it in any case.
    #[error(
        "nobody waits for {machine}: it is not in the room {room}, boots another image or one certain version of {image}, or keeps a disk"
    )]
    NotInRing {
        /// The image.
        image: ImageName,
        /// The machine.
        machine: MachineName,
        /// The room.
        room: RoomName,
    },
    /// Somebody needs it.
    #[error("{image}/v{version} can't be removed: {}", by.join("; "))]
    InUse {
        /// The image.
        image: ImageName,
        /// The version.
        version: u32,
        /// Who, and what for.
        by: Vec<String>,
    },
    /// No check has that name.
    #[error(
        "there is no check {0}: bootlace image check lists what was found, and the page What hurts in an image all checks"
    )]
    NoCheck(String),
    /// What is laid over a version would go, and nothing come in its place.
    #[error(
        "{check} has found nothing in {image}/v{version} that files laid over it help against: nothing was changed (bootlace image fix \
         {image}/v{version} --none lays nothing over it any more)"
    )]
    NothingToFix {
        /// The image.
        image: ImageName,
        /// The version.
        version: u32,
        /// Name of the check.
        check: String,
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
pub(crate) fn listed(names: &[impl ToString]) -> String {
    let shown: Vec<String> = names.iter().take(NAMES_MAX).map(ToString::to_string).collect();
    let n_more = names.len() - shown.len();
    let more = if n_more > 0 { format!(" and {n_more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}
