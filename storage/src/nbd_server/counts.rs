//! What could not be done for clients.

use super::memory::Memory;
use crate::descriptors::Refused;
use crate::hosts::Hosts;
use std::sync::Arc;

/// What could not be done for clients of one server, at all of its addresses.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Connections for which there were no descriptors.
    pub(crate) no_descriptor: Refused,
    /// Connections that were one too many.
    pub(crate) too_many: Refused,
    /// Who was let go in the handshake, since too many were in it.
    pub(crate) let_go: Hosts,
    memory: [Arc<Memory>; 2],
}

impl Counts {
    pub(super) fn new(memory: [Arc<Memory>; 2]) -> Self {
        let (no_descriptor, too_many) = (Refused::default(), Refused::default());
        Self { no_descriptor, too_many, let_go: Hosts::default(), memory }
    }

    /// How often replies had to be made in small pieces, since other clients did not take theirs.
    pub(crate) fn n_short_of_memory(&self) -> u64 {
        self.memory.iter().map(|memory| memory.n_refused()).sum()
    }
}
