//! Why PCs wait, as of their last question.

use super::recent::{Recent, Said};
use model::Machine;
use wire::{Mac, Moment};

/// Why a PC waits.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    /// When it asked last.
    pub(crate) at: Moment,
    /// What it was told, or says.
    pub(crate) why: String,
    pub(crate) waits_in: WaitsIn,
}

/// Where a PC waits.
#[derive(Clone, Debug)]
pub(crate) enum WaitsIn {
    /// In its loader, as it was told to.
    Loader {
        /// What keeps it can be seen at any time, and not only when it asks.
        is_seen: bool,
        /// What it was set to when it asked; `None`: it was no machine.
        settings: Option<Box<Machine>>,
    },
    /// In its initrd, which says what for.
    Initrd,
}

impl Said for Wait {
    fn at(&self) -> Moment {
        self.at
    }
}

/// Why PCs wait.
#[derive(Debug, Default)]
pub(crate) struct Waits(Recent<Wait>);

impl Waits {
    /// A PC waits. Returns whether that is news.
    pub(crate) fn set(&self, mac: Mac, why: &str, waits_in: WaitsIn, now: Moment) -> bool {
        let former = self.0.put(mac, Wait { at: now, why: why.to_owned(), waits_in });
        former.is_ok_and(|former| former.is_none_or(|former| former.why != why))
    }

    /// A PC goes on.
    pub(crate) fn clear(&self, mac: Mac) {
        self.0.remove(mac);
    }

    /// Why a PC waits, if it does.
    pub(crate) fn get(&self, mac: Mac, now: Moment) -> Option<Wait> {
        self.0.get(mac, now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::recent::PCS_MAX;
    use super::*;

    #[test]
    fn who_asks_no_more_does_not_wait() {
        let waits = Waits::default();
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let at = Moment::from_millis;
        assert!(waits.set(mac, "no image", WaitsIn::Initrd, at(1000)));
        assert!(!waits.set(mac, "no image", WaitsIn::Initrd, at(11_000)), "that is known");
        assert_eq!(waits.get(mac, at(40_999)).map(|wait| wait.why).as_deref(), Some("no image"));
        assert!(waits.get(mac, at(41_000)).is_none());
        waits.set(mac, "no disk", WaitsIn::Initrd, at(50_000));
        waits.clear(mac);
        assert!(waits.get(mac, at(50_000)).is_none());
    }

    #[test]
    fn a_crowd_takes_the_places_of_those_that_are_gone_only() {
        let waits = Waits::default();
        let mac = |n: usize| Mac([2, 0, 0, 0, (n >> 8) as u8, n as u8]);
        let at = Moment::from_millis;
        for n in 0..PCS_MAX {
            assert!(waits.set(mac(n), "waits", WaitsIn::Initrd, at(0)));
        }
        assert!(
            !waits.set(mac(PCS_MAX), "waits", WaitsIn::Initrd, at(29_999)),
            "all places are taken"
        );
        assert!(waits.get(mac(PCS_MAX), at(29_999)).is_none());
        assert!(
            waits.set(mac(0), "waits for something else", WaitsIn::Initrd, at(29_999)),
            "who has a place keeps it"
        );
        assert!(waits.set(mac(PCS_MAX), "waits", WaitsIn::Initrd, at(30_000)));
        assert_eq!(
            waits.get(mac(0), at(30_000)).map(|wait| wait.why).as_deref(),
            Some("waits for something else")
        );
    }
}
