//! Certificates of this site, as whoever reads the files has seen them last.

use model::FindingKind;
use std::sync::{Mutex, PoisonError};

/// A file with a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its path.
    pub file: String,
    /// Whether browsers look at it; others are for NBD.
    pub is_for_pages: bool,
    /// When it ends, or the first of several in the file; `None`: that is not known.
    pub ends_unix: Option<i64>,
    /// What is wrong with it, in a sentence.
    pub trouble: Option<(FindingKind, String)>,
}

/// The last look at all of them.
#[derive(Debug, Default)]
pub(crate) struct Certificates(Mutex<Vec<Certificate>>);

impl Certificates {
    pub(crate) fn get(&self) -> Vec<Certificate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn put(&self, certificates: Vec<Certificate>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = certificates;
    }
}
