//! Which kinds of firmware asked in a machine's name lately. Anybody can ask in it: what one said must not undo what another one said.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wire::{Firmware, Mac, Moment};

/// From its firmware's first word to its configuration a PC takes no longer, as slow as its files come.
const HELD: Duration = Duration::from_secs(600);

/// What was heard of machines' cards: some kinds of firmware of each.
#[derive(Debug, Default)]
pub(crate) struct FirmwareHeard {
    by_mac: Mutex<HashMap<Mac, HashMap<Firmware, Moment>>>,
}

impl FirmwareHeard {
    /// A machine's firmware asks, or somebody in its name. Kinds for which there is no loader are not remembered: they are many.
    pub(crate) fn note(&self, mac: Mac, firmware: Firmware, now: Moment) {
        if firmware.architecture().is_some() {
            self.lock().entry(mac).or_default().insert(firmware, now);
        }
    }

    /// Whether one of such a kind asked lately.
    pub(crate) fn has(&self, mac: Mac, now: Moment, is_wanted: impl Fn(Firmware) -> bool) -> bool {
        self.lock().get(&mac).is_some_and(|kinds| {
            kinds.iter().any(|(&kind, &at)| now.since(at) < HELD && is_wanted(kind))
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Mac, HashMap<Firmware, Moment>>> {
        // A map is whole after each call.
        self.by_mac.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Architecture;

    #[test]
    fn what_somebody_else_says_hides_nothing_for_a_while() {
        let heard = FirmwareHeard::default();
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let at = |seconds: u64| Moment::from_millis(seconds * 1000);
        heard.note(mac, Firmware::Bios, at(1));
        for second in 2..60 {
            heard.note(mac, Firmware::UefiArm64, at(second));
            heard.note(mac, Firmware::Other(second as u16), at(second));
        }
        let is_x86 = |kind: Firmware| kind.architecture() == Some(Architecture::X86_64);
        assert!(heard.has(mac, at(60), is_x86));
        assert!(!heard.has(mac, at(60), Firmware::is_http));
        assert!(!heard.has(mac, at(602), is_x86));
        assert_eq!(heard.lock()[&mac].len(), 2);
    }
}
