//! What can go wrong with files that are laid over machines' roots.

use initcfg::{LAID_MAX, OVERLAY_MAX};
use model::{BadTemplate, FilesOf};

/// Why something can't be laid over machines' roots.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// Nothing is laid there.
    #[error("nothing of {of} is laid at {path}: bootlace files ls shows all")]
    Missing {
        /// Of whom.
        of: FilesOf,
        /// Where.
        path: String,
    },
    /// Nothing can be laid there.
    #[error(
        "nothing can be laid at {0:?}: a path begins with / and does not end with it, is without .. and //, and not in /dev, /proc, /run or /sys, which no \
         root holds"
    )]
    BadPath(String),
    /// It names a room and a machine.
    #[error(
        "say a room or a machine, not both; with neither it is laid on all machines of the site"
    )]
    TwoOwners,
    /// It says not what is laid, or more than one thing.
    #[error(
        "say one of what is laid there: a file, where a link leads, or that there is to be nothing"
    )]
    NotOneThing,
    /// Only files have these.
    #[error("only a file has permissions and an owner, can be a template, or a secret")]
    NotAFile,
    /// A link leads nowhere.
    #[error("a link leads to a path of 1 to 4095 bytes in one line")]
    BadTarget,
    /// The content can't be read.
    #[error("the content of the file is not Base64")]
    NotBase64,
    /// A template is a text.
    #[error(
        "a template is a text in UTF-8, and this file is none: lay it without values of the machine"
    )]
    TemplateNotText,
    /// A template has a placeholder that stands for nothing.
    #[error("the template was not taken")]
    BadTemplate(#[from] BadTemplate),
    /// One machine would get too much.
    #[error(
        "too much: the site's files, those of the room with the most and those of the machine with the most would be {n_bytes} \
         bytes together, and at most {OVERLAY_MAX} are laid over a root. Put what is large into the image"
    )]
    TooMuch {
        /// How much it would be.
        n_bytes: u64,
    },
    /// One machine would get too many.
    #[error(
        "too many: the site's files, those of the room with the most and those of the machine with the most would be {n} \
         together, and at most {LAID_MAX} are laid over a root"
    )]
    TooMany {
        /// How many they would be.
        n: u64,
    },
    /// All together are too much.
    #[error(
        "too much: all files would be {n_bytes} bytes together, and at most {max} are kept", max = Self::ALL_MAX
    )]
    TooMuchInAll {
        /// How much it would be.
        n_bytes: u64,
    },
}

impl FilesError {
    /// What all files may be together, in bytes: they stand in the state, which each backup has whole.
    pub const ALL_MAX: u64 = 64 << 20;
}
