//! One power-on of one machine, with its stages.

use crate::{ImageName, MachineName, RootKind};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use initcfg::Stage;
use wire::{Firmware, Mac};

/// After which time a PC that waits in the loader asks again.
pub const ASK_AGAIN: Duration = Duration::from_secs(10);

const ASK_AGAIN_MS: u64 = ASK_AGAIN.as_secs() * 1000;

/// Number of a boot. It counts up over the life of a site.
pub type BootId = u64;

/// A stage that a boot has reached.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StageEvent {
    /// The stage that was reached.
    pub stage: Stage,
    /// When it was reached by the boot server's clock, milliseconds since 1970.
    pub at_unix_ms: u64,
    /// More about the stage, for people; may be empty.
    pub detail: String,
}

/// One power-on of one machine.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Boot {
    /// Number of the boot.
    pub id: BootId,
    /// The NIC that asked.
    pub mac: Mac,
    /// The machine, if the MAC was in the machine list then.
    pub machine: Option<MachineName>,
    /// The firmware that asked.
    pub firmware: Firmware,
    /// When the firmware asked first, milliseconds since 1970.
    pub started_unix_ms: u64,
    /// Image and version it was given, once it has fetched its configuration.
    pub image: Option<(ImageName, u32)>,
    /// How its root reaches it, once it has fetched its configuration.
    pub root: Option<RootKind>,
    /// The stages reached so far, in the order of their arrival.
    pub stages: Vec<StageEvent>,
}

impl Boot {
    /// The last stage that was reached.
    pub fn current(&self) -> Option<&StageEvent> {
        self.stages.last()
    }

    /// How long it took from the firmware's first packet until the system was up, in milliseconds, without the time for
    /// which it waited in its loader, as for somebody who says what it boots; `None`: it is not up.
    pub fn took_ms(&self) -> Option<u64> {
        let at = |stage: Stage| Some(self.stages.iter().find(|it| it.stage == stage)?.at_unix_ms);
        let up = at(Stage::Up)?;
        let before = self.stages.iter().filter(|event| event.stage < Stage::Config);
        let before = before.map(|event| event.at_unix_ms).max().unwrap_or(self.started_unix_ms);
        // Whoever does not wait asks for its configuration at once, and who waits asks after so long again.
        let asked_after = at(Stage::Config).map_or(0, |config| config.saturating_sub(before));
        let waited = if asked_after >= ASK_AGAIN_MS { asked_after } else { 0 };
        Some(up.saturating_sub(self.started_unix_ms).saturating_sub(waited))
    }

    /// Whether the boot has ended, well or badly.
    pub fn is_over(&self) -> bool {
        self.current().is_some_and(|event| matches!(event.stage, Stage::Up | Stage::Failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    #[test]
    fn a_boot_does_not_take_as_long_as_it_waits_for_somebody() {
        let boot = |stages: &[(Stage, u64)]| Boot {
            stages: stages
                .iter()
                .map(|&(stage, at_unix_ms)| StageEvent { stage, at_unix_ms, detail: String::new() })
                .collect(),
            id: 1,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            machine: None,
            firmware: Firmware::Bios,
            started_unix_ms: 1_000,
            image: None,
            root: None,
        };
        let asked_at_once =
            boot(&[(Stage::Loader, 2_000), (Stage::Config, 9_000), (Stage::Up, 30_000)]);
        assert_eq!(asked_at_once.took_ms(), Some(29_000));
        let waited =
            boot(&[(Stage::Loader, 2_000), (Stage::Config, 602_000), (Stage::Up, 630_000)]);
        assert_eq!(waited.took_ms(), Some(29_000));
        assert_eq!(boot(&[(Stage::Loader, 2_000)]).took_ms(), None);
        assert_eq!(
            boot(&[(Stage::Up, 9_000)]).took_ms(),
            Some(8_000),
            "of the others nothing is known"
        );
    }
}
