//! How far PCs are with the files that they fetch, as of their last sign of going on.

use super::recent::{Recent, Said};
use wire::{Mac, Moment};

/// How far a PC is with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Download {
    at: Moment,
    /// What it has, or what is on its way to it.
    pub n_bytes: u64,
    /// Size of the file.
    pub size_bytes: u64,
}

impl Said for Download {
    fn at(&self) -> Moment {
        self.at
    }
}

/// How far PCs are.
#[derive(Debug, Default)]
pub(crate) struct Downloads(Recent<Download>);

impl Downloads {
    /// The PC goes on with its file.
    pub(crate) fn note(&self, mac: Mac, n_bytes: u64, size_bytes: u64, now: Moment) {
        // Of one too many it is only not known that it goes on.
        let _ = self.0.put(mac, Download { at: now, n_bytes, size_bytes });
    }

    /// How far the PC is, if it goes on: loaders that lose a packet ask again within seconds.
    pub(crate) fn get(&self, mac: Mac, now: Moment) -> Option<Download> {
        self.0.get(mac, now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::recent::PCS_MAX;
    use super::*;

    #[test]
    fn who_takes_nothing_any_more_does_not_go_on() {
        let downloads = Downloads::default();
        let mac = |n: usize| Mac([2, 0, 0, 0, (n >> 8) as u8, n as u8]);
        let at = Moment::from_millis;
        for n in 0..PCS_MAX {
            downloads.note(mac(n), 1, 2, at(0));
        }
        downloads.note(mac(PCS_MAX), 1, 2, at(29_999));
        assert_eq!(downloads.get(mac(PCS_MAX), at(29_999)), None, "all places are taken");
        downloads.note(mac(0), 2, 2, at(29_999));
        assert_eq!(downloads.get(mac(1), at(30_000)), None, "it has taken nothing for so long");
        assert_eq!(downloads.get(mac(0), at(30_000)).map(|it| it.n_bytes), Some(2));
        downloads.note(mac(PCS_MAX), 1, 2, at(30_000));
        assert!(downloads.get(mac(PCS_MAX), at(30_000)).is_some());
    }
}
