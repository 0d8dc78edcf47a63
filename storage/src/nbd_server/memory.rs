//! Memory for replies that all connections share: a client that takes none of its replies keeps what its
//! connection has borrowed, and no more than there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// So many bytes, which are lent out.
#[derive(Debug)]
pub(super) struct Memory {
    bytes_max: usize,
    lent_bytes: AtomicUsize,
    n_refused: AtomicU64,
}

/// What one borrower has; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Loan {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Memory {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        let (lent_bytes, n_refused) = (AtomicUsize::new(0), AtomicU64::new(0));
        Arc::new(Self { bytes_max, lent_bytes, n_refused })
    }

    /// A loan of nothing, to be [grown](Loan::grow_to).
    pub(super) fn borrower(self: &Arc<Self>) -> Loan {
        Loan { memory: Arc::clone(self), bytes: 0 }
    }

    /// A loan of so many bytes; `None` if they are not there.
    pub(super) fn lend(self: &Arc<Self>, bytes: usize) -> Option<Loan> {
        let mut loan = self.borrower();
        loan.grow_to(bytes).then_some(loan)
    }

    /// How often somebody wanted more than was there, and had to do with less.
    pub(super) fn n_refused(&self) -> u64 {
        self.n_refused.load(Ordering::Relaxed)
    }
}

impl Loan {
    /// Makes it so many bytes if it is less; whether it is so many now.
    pub(super) fn grow_to(&mut self, bytes: usize) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else {
            return true;
        };
        let max = self.memory.bytes_max;
        let lend = |lent: usize| lent.checked_add(more).filter(|lent| *lent <= max);
        let lent = self.memory.lent_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lend);
        if lent.is_err() {
            self.memory.n_refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.bytes = bytes;
        true
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The whole loan, for somebody else; nothing is left here.
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, self.memory.borrower())
    }

    pub(super) fn give_back(&mut self) {
        self.memory.lent_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = 0;
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lent_twice_and_all_comes_back() {
        let memory = Memory::new(100);
        let mut one = memory.borrower();
        assert!(one.grow_to(60) && one.grow_to(10), "it has more already");
        assert!(memory.lend(41).is_none() && !one.grow_to(101));
        let two = memory.lend(40).unwrap();
        assert_eq!(memory.n_refused(), 2);
        drop(two);
        assert!(one.grow_to(100));
        one.give_back();
        assert!(memory.lend(100).is_some() && memory.lend(100).is_some());
    }
}
