//! What can't be done with a PC that is to be captured.

use model::{ImageName, MachineName};

/// Why a PC can't be captured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// It is already.
    #[error(
        "{machine} is to be captured already, as {image}, ordered by {by}: let it boot, or bootlace image capture --cancel {machine}"
    )]
    Begun {
        /// The machine.
        machine: MachineName,
        /// As which image.
        image: ImageName,
        /// Who has ordered it.
        by: String,
    },
    /// It is not.
    #[error("{0} is not to be captured: bootlace image capture NAME --machine {0} orders that")]
    None(MachineName),
    /// It sends already.
    #[error(
        "{0} sends its disk already: bootlace job ls shows the job, and bootlace job cancel stops it"
    )]
    Sends(MachineName),
    /// Something else goes on there.
    #[error("an image is changed on {0}: publish that or throw it away first")]
    Edited(MachineName),
    /// It has a disk that would be in the way.
    #[error(
        "{0} keeps a disk of its own on the storage server, which would be in the way: take another machine, or throw that disk away first \
         (bootlace machine reset {0}, and then let it boot once in another write mode)"
    )]
    HasDisk(MachineName),
    /// There is no kernel that could run meanwhile.
    #[error(
        "there is no image yet whose kernel could run on {0} while its disk is read: make one first, such as by bootlace image build \
         debian-12-minimal, or bootlace image import FILE --name NAME"
    )]
    NoKernel(MachineName),
}
