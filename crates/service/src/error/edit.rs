//! What can't be done with an image that is changed on a machine.

use model::{ImageName, MachineName};

/// Why an image can't be changed on a machine, or what was changed can't become a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It changes one already.
    #[error(
        "{machine} changes {image}/v{version} already, begun by {by}: publish that (bootlace image publish {image}), or throw it \
         away (bootlace image discard {image})"
    )]
    Begun {
        /// The machine.
        machine: MachineName,
        /// What it changes.
        image: ImageName,
        /// Which version.
        version: u32,
        /// Who has begun it.
        by: String,
    },
    /// It has a disk that would be in the way.
    #[error(
        "{0} keeps a disk of its own, which stays what it is: take another machine, or throw that disk away first (bootlace machine \
         reset {0}, and then let it boot once in another write mode)"
    )]
    HasDisk(MachineName),
    /// It changes nothing.
    #[error("no image is changed on {0}: bootlace image edit NAME --machine {0} begins that")]
    None(MachineName),
    /// It has not shut down.
    #[error(
        "{0} still runs, or was just switched off: shut it down (bootlace machine power {0} poweroff), and try again half a minute later"
    )]
    Runs(MachineName),
    /// Its disk is to be thrown away, and so is what would be published.
    #[error(
        "{0}'s disk is to be empty at its next boot (bootlace machine reset), so what was changed on it is not published: throw it away \
         by bootlace image discard, or let {0} boot once"
    )]
    ResetOrdered(MachineName),
    /// Its disk goes back at the next boot, and what it goes back from would be published.
    #[error(
        "{machine}'s disk is to go back to snapshot {snapshot} at its next boot: let it boot once, and shut it down; or take that back by \
         bootlace machine rollback {machine} --undo, and publish it as it is"
    )]
    RollbackOrdered {
        /// The machine.
        machine: MachineName,
        /// Number of the snapshot.
        snapshot: u32,
    },
    /// It has written nothing.
    #[error(
        "{0} has not booted since that was begun, or has changed nothing: there is nothing to publish"
    )]
    Unchanged(MachineName),
    /// Somebody has made another version since.
    #[error(
        "{image}/v{newest} was made since {machine} began with v{version}, and what is new in it is not in this one: publish it by \
         --anyway if that does not matter"
    )]
    Newer {
        /// The machine.
        machine: MachineName,
        /// The image.
        image: ImageName,
        /// On which it stands.
        version: u32,
        /// The newest one.
        newest: u32,
    },
}
