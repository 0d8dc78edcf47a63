//! How a package is walked through, and why that may end early.

use crate::BuildError;
use std::io::{self, Read};
use std::path::Path;

/// What is done with each file of a package: path and content.
pub(crate) type Visit<'a> = dyn FnMut(&str, &mut dyn Read) -> io::Result<()> + 'a;

/// Why walking through a package ended early.
pub(crate) enum Failure {
    Io(io::Error),
    Format(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Failure {
    /// With the file that it happened to.
    pub(super) fn of(self, path: &Path) -> BuildError {
        let path = path.to_owned();
        match self {
            // The decoders and tar say it with these kinds when the file is cut off or damaged.
            Self::Io(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::IsADirectory
                ) =>
            {
                BuildError::Package { path, reason: format!("it is damaged or cut off: {error}") }
            }
            Self::Io(source) => BuildError::Read { what: path.display().to_string(), source },
            Self::Format(reason) => BuildError::Package { path, reason },
        }
    }
}
