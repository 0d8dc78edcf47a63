//! What becomes of what machines write.

use core::fmt;
use core::str::FromStr;
use initcfg::ParseChoiceError;

/// What becomes of the blocks that a machine writes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum WriteMode {
    /// Thrown away when the machine boots again.
    #[default]
    Discard,
    /// Kept, for as long as the machine stays on the image version.
    Persistent,
    /// Kept in the machine's own memory until it is switched off: the server writes nothing.
    Ram,
}

impl WriteMode {
    /// All modes, the default first.
    pub const ALL: [Self; 3] = [Self::Discard, Self::Persistent, Self::Ram];

    /// The mode's word on the command line, in the API and in the database.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Discard => "discard",
            Self::Persistent => "persistent",
            Self::Ram => "ram",
        }
    }

    /// What becomes of the writes, for people: "discarded at each boot".
    pub const fn title(self) -> &'static str {
        match self {
            Self::Discard => "discarded at each boot",
            Self::Persistent => "kept on a disk of its own",
            Self::Ram => "kept in its own memory until it restarts",
        }
    }
}

impl fmt::Display for WriteMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for WriteMode {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        Self::ALL.into_iter().find(|mode| mode.word() == text).ok_or_else(|| {
            ParseChoiceError::new(text, "a write mode: use discard, persistent or ram")
        })
    }
}
