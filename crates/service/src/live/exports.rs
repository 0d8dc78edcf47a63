//! What the storage server said last.

use model::{BootId, Descriptors, DiskReport, ExportStatus, MachineName, NbdRefusals, Space};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use wire::Moment;

/// The last answer of the storage server.
#[derive(Debug, Default)]
pub(crate) struct Exports {
    last: Mutex<Arc<Answer>>,
    /// When somebody looked last at what it said.
    looked: Mutex<Option<Moment>>,
    /// Boots are counted beyond this number, as far as the storage server has seen any.
    counted_from: AtomicU64,
}

/// An answer of the storage server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// When it was asked; `None` is never.
    pub(crate) asked: Option<Moment>,
    /// Of roots.
    pub(crate) list: Vec<ExportStatus>,
    /// Of disks beside roots.
    pub(crate) further: Vec<ExportStatus>,
    /// The room that is left there, if it is known.
    pub(crate) space: Option<Space>,
    /// Why no machine gets a disk, if that is so and known.
    pub(crate) place_trouble: Option<String>,
    /// Whom it refuses for lack of descriptors, if it is known.
    pub(crate) descriptors: Option<Descriptors>,
    /// Whom it could not serve over NBD, if it is known.
    pub(crate) refusals: Option<NbdRefusals>,
    /// Roots that machines keep or should have, as it said when it was asked last for that.
    pub(crate) disks: Arc<Vec<DiskReport>>,
    /// Disks beside roots that they keep or should have, as it said then.
    pub(crate) further_disks: Arc<Vec<DiskReport>>,
    /// When that was; `None`: it is to be asked.
    pub(crate) disks_asked: Option<Moment>,
    /// Why it did not answer.
    pub(crate) error: Option<String>,
}

impl Exports {
    /// What it said last.
    pub(crate) fn last(&self) -> Arc<Answer> {
        Arc::clone(&self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Somebody looks at what it says.
    pub(crate) fn note_look(&self, now: Moment) {
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// When somebody looked last; `None`: never.
    pub(crate) fn looked(&self) -> Option<Moment> {
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was not said before that it has seen this boot, or a later one.
    pub(crate) fn is_news(&self, boot: BootId) -> bool {
        self.counted_from.fetch_max(boot, Ordering::Relaxed) < boot
    }

    /// What was news could not be stored.
    pub(crate) fn forget_news(&self) {
        self.counted_from.store(0, Ordering::Relaxed);
    }

    /// The machine's disk was deleted: what was said of it is over, and is asked again.
    pub(crate) fn forget_disk(&self, machine: &MachineName) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answer = (**last).clone();
        Arc::make_mut(&mut answer.disks).retain(|report| report.disk != *machine);
        answer.list.retain(|export| export.spec.disk != *machine);
        answer.disks_asked = None;
        *last = Arc::new(answer);
    }

    /// There is a disk of which it has not told yet.
    pub(crate) fn ask_for_disks(&self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Arc::new(Answer { disks_asked: None, ..(**last).clone() });
    }

    /// It says something. Returns what it said before.
    pub(crate) fn put(&self, answer: Answer) -> Arc<Answer> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut last, Arc::new(answer))
    }
}
