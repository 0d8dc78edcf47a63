//! What boot clients and browsers were sent, and what was refused to them, counted for who watches.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Counts since the start. Names are words of the program, and so are few.
#[derive(Debug, Default)]
pub struct Traffic {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    transfers: BTreeMap<(&'static str, &'static str), (u64, u64)>,
    refused: BTreeMap<(&'static str, &'static str), u64>,
    tftp: TftpPackets,
}

/// Packets that TFTP transfers consisted of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TftpPackets {
    /// All that were sent.
    pub n: u64,
    /// Of these, packets that had been sent before.
    pub n_again: u64,
}

/// Transfers of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfers {
    /// `tftp` or `http`.
    pub protocol: &'static str,
    /// `done` or `cut-off`.
    pub end: &'static str,
    /// How many.
    pub n: u64,
    /// Bytes of them that were sent.
    pub bytes: u64,
}

/// Requests that were refused for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusals {
    /// `dhcp`, `tftp`, `http` or `pages`.
    pub protocol: &'static str,
    /// A word.
    pub reason: &'static str,
    /// How many.
    pub n: u64,
}

impl Traffic {
    /// Somebody was sent so many bytes of a file.
    pub fn sent(&self, protocol: &'static str, is_whole: bool, n_bytes: u64) {
        let end = if is_whole { "done" } else { "cut-off" };
        let mut counts = self.counts();
        let (n, bytes) = counts.transfers.entry((protocol, end)).or_default();
        *n += 1;
        *bytes += n_bytes;
    }

    /// A TFTP transfer has ended, for which so many packets were sent, and so many of these again.
    pub fn sent_by_tftp(&self, n: u64, n_again: u64) {
        let packets = &mut self.counts().tftp;
        packets.n += n;
        packets.n_again += n_again;
    }

    /// Packets of all TFTP transfers that have ended.
    pub fn tftp_packets(&self) -> TftpPackets {
        self.counts().tftp
    }

    /// A request was refused.
    pub fn refused(&self, protocol: &'static str, reason: &'static str) {
        *self.counts().refused.entry((protocol, reason)).or_default() += 1;
    }

    /// All transfers.
    pub fn transfers(&self) -> Vec<Transfers> {
        let counts = self.counts();
        let all = counts.transfers.iter();
        all.map(|(&(protocol, end), &(n, bytes))| Transfers { protocol, end, n, bytes }).collect()
    }

    /// All that was refused.
    pub fn refusals(&self) -> Vec<Refusals> {
        let counts = self.counts();
        let all = counts.refused.iter();
        all.map(|(&(protocol, reason), &n)| Refusals { protocol, reason, n }).collect()
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_and_refusals_add_up() {
        let traffic = Traffic::default();
        traffic.sent("tftp", true, 3);
        traffic.sent("tftp", true, 4);
        traffic.sent("http", false, 1);
        traffic.sent_by_tftp(10, 1);
        traffic.sent_by_tftp(5, 0);
        assert_eq!(traffic.tftp_packets(), TftpPackets { n: 15, n_again: 1 });
        traffic.refused("dhcp", "pool-exhausted");
        traffic.refused("dhcp", "pool-exhausted");
        let of = |protocol, end, n, bytes| Transfers { protocol, end, n, bytes };
        assert_eq!(traffic.transfers(), [of("http", "cut-off", 1, 1), of("tftp", "done", 2, 7)]);
        let refused = Refusals { protocol: "dhcp", reason: "pool-exhausted", n: 2 };
        assert_eq!(traffic.refusals(), [refused]);
    }
}
