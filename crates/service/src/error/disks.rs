//! Why machines don't get a disk beside their roots.

use model::{DiskId, DiskTag, DisksClash, FilesOf, ImageName, MachineName, ParseChoiceError};

/// A disk beside roots can't be as it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum DisksError {
    /// There is none of this name.
    #[error("{of} has no disk {name} of its own: bootlace disk ls shows all")]
    Missing {
        /// Of whom.
        of: FilesOf,
        /// Its name.
        name: DiskTag,
    },
    /// It is the root.
    #[error(
        "{0} is the root of a machine: bootlace machine reset {0} begins that anew. Say which disk beside it: {0}+NAME"
    )]
    IsRoot(MachineName),
    /// The machine uses it.
    #[error(
        "{0} is attached, or was just now: shut its machine down first, by bootlace machine power {m} poweroff, and try again half a \
         minute later", m = .0.machine
    )]
    InUse(DiskId),
    /// There is none.
    #[error("nothing is written to {0}: bootlace disk ls --kept shows all that is")]
    NothingWritten(DiskId),
    /// The storage server can't be asked.
    #[error("what is written to disks is not known: {0}")]
    StorageSilent(String),
    /// It names a room and a machine.
    #[error(
        "say a room or a machine, not both; with neither all machines of the site have the disk"
    )]
    TwoOwners,
    /// It says not what it is for, or more than one thing.
    #[error(
        "say one of what the disk is for: a folder where it is mounted, folders that are carried over to it, swap space, or that \
         there is to be none"
    )]
    NotOneThing,
    /// It has no image.
    #[error(
        "say with which image the disk begins: bootlace image new NAME --size 20G makes an empty one"
    )]
    NoImage,
    /// What is asked for does not go together.
    #[error("{0}")]
    Refused(&'static str),
    /// A machine can't be told so, such as of a folder that no disk may hide.
    #[error(transparent)]
    Unfit(#[from] ParseChoiceError),
    /// The image is a system.
    #[error(
        "the image {0} is a system, which machines boot: import what is to be beside their roots by bootlace image import FILE \
         --name NAME --data, or make an empty one by bootlace image new NAME --size 20G"
    )]
    System(ImageName),
    /// There is no such image, or no version of it is for machines.
    #[error(
        "the image {0} has no version that machines could have: bootlace image ls shows all images, and bootlace image new \
         {0} --size 20G makes an empty one"
    )]
    NoVersion(ImageName),
    /// Machines of a room, or of the site, could not have all of their disks.
    #[error("the machines of {whose} could not have all of their disks")]
    ClashIn {
        /// Whose.
        whose: FilesOf,
        /// Why.
        source: Box<DisksClash>,
    },
    /// A machine could not have all of its disks.
    #[error(
        "{machine} could not have all of its disks: bootlace disk ls shows them, and bootlace disk put NAME --none --machine {machine} takes one \
         from it"
    )]
    Clash {
        /// The machine.
        machine: MachineName,
        /// Why.
        source: Box<DisksClash>,
    },
}
