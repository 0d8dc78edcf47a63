//! What a check finds, and what would be changed about it.

use crate::error::RootfsError;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How bad something is for a diskless machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The machine does not come up.
    StopsBoot,
    /// It comes up, and loses its disk or hangs later.
    CutsOff,
    /// It works, and worse than it could.
    Annoys,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::StopsBoot => "stops the boot",
            Self::CutsOff => "cuts it off later",
            Self::Annoys => "annoys",
        })
    }
}

/// Something in an image that hurts a machine without a disk of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Harm {
    /// Name of the check that found it.
    pub check: String,
    /// How bad it is.
    pub severity: Severity,
    /// In which file; `None`: in none.
    pub path: Option<String>,
    /// In which line of it, from 1.
    pub line: Option<usize>,
    /// What was found.
    pub what: String,
    /// What that does to a diskless machine.
    pub effect: String,
    /// What Bootlace does about it by itself at each boot; `None`: nothing.
    pub dealt_with: Option<String>,
    /// What helps.
    pub fix: String,
    /// Whether files that are laid over the root help.
    pub can_be_fixed: bool,
}

/// What a check finds.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) path: Option<String>,
    pub(super) line: Option<usize>,
    pub(super) what: String,
    pub(super) changes: Vec<Change>,
}

impl Found {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), ..Self::default() }
    }

    pub(super) fn at(self, path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..self }
    }

    /// In the line with this index.
    pub(super) fn in_line(self, index: usize) -> Self {
        Self { line: Some(index + 1), ..self }
    }

    pub(super) fn changing(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }
}

/// Something that is laid over the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A line of a file becomes a comment.
    CommentOut {
        path: String,
        /// Its index.
        line: usize,
    },
    /// Lines come behind a line of a file.
    InsertAfter {
        path: String,
        /// Its index.
        line: usize,
        text: String,
    },
    /// systemd does not start a unit, whoever wants it.
    Mask(&'static str),
    /// A file that is not there.
    Write { path: &'static str, text: &'static str },
    /// A file is gone.
    Remove(String),
}

impl Change {
    /// For people.
    pub(super) fn in_words(&self) -> String {
        match self {
            Self::CommentOut { path, line } => {
                format!("line {} of {path} becomes a comment", line + 1)
            }
            Self::InsertAfter { path, line, text } => {
                format!("{path} gets, behind line {}: {}", line + 1, text.trim())
            }
            Self::Mask(unit) => format!("{unit} is masked"),
            Self::Write { path, .. } => format!("{path} is written"),
            Self::Remove(path) => format!("{path} is removed"),
        }
    }
}

pub(super) type Checked = Result<Vec<Found>, RootfsError>;
