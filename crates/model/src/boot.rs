//! One power-on of one machine, with its stages.

use crate::{ImageName, MachineName, RootKind};
use alloc::string::String;
use alloc::vec::Vec;
use initcfg::Stage;
use wire::{Firmware, Mac};

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

    /// Whether the boot has ended, well or badly.
    pub fn is_over(&self) -> bool {
        self.current().is_some_and(|event| matches!(event.stage, Stage::Up | Stage::Failed))
    }
}
