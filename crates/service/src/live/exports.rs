//! What the storage server said last.

use model::{Descriptors, ExportStatus, NbdRefusals, Space};
use std::sync::{Arc, Mutex, PoisonError};
use wire::Moment;

/// The last answer of the storage server.
#[derive(Debug, Default)]
pub(crate) struct Exports {
    last: Mutex<Arc<Answer>>,
}

/// An answer of the storage server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// When it was asked; `None` is never.
    pub(crate) asked: Option<Moment>,
    pub(crate) list: Vec<ExportStatus>,
    /// The room that is left there, if it is known.
    pub(crate) space: Option<Space>,
    /// Whom it refuses for lack of descriptors, if it is known.
    pub(crate) descriptors: Option<Descriptors>,
    /// Whom it could not serve over NBD, if it is known.
    pub(crate) refusals: Option<NbdRefusals>,
    /// Why it did not answer.
    pub(crate) error: Option<String>,
}

impl Exports {
    /// What it said last.
    pub(crate) fn last(&self) -> Arc<Answer> {
        Arc::clone(&self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// It says something. Returns what it said before.
    pub(crate) fn put(&self, answer: Answer) -> Arc<Answer> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut last, Arc::new(answer))
    }
}
