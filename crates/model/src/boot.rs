//! One power-on of one machine, with its stages.

use crate::{ImageName, MachineName, RootKind};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;
use wire::{Firmware, Mac};

/// Number of a boot. It counts up over the life of a site.
pub type BootId = u64;

/// A stage of a boot. They are reached in this order; [`Stage::Failed`] can follow any.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The firmware has an address.
    Dhcp,
    /// The loader was fetched.
    Loader,
    /// The loader has its configuration.
    Config,
    /// The kernel was fetched.
    Kernel,
    /// The initrd was fetched.
    Initrd,
    /// The kernel runs our init.
    Start,
    /// The drivers of the hardware are loaded.
    Modules,
    /// The boot NIC has carrier.
    Link,
    /// The boot NIC has its address.
    Address,
    /// The root disk is attached.
    Attach,
    /// The root file system is mounted.
    Mount,
    /// The image's own init takes over.
    Handover,
    /// The image's services have started.
    Up,
    /// The boot can't go on.
    Failed,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 14] = [
        Self::Dhcp,
        Self::Loader,
        Self::Config,
        Self::Kernel,
        Self::Initrd,
        Self::Start,
        Self::Modules,
        Self::Link,
        Self::Address,
        Self::Attach,
        Self::Mount,
        Self::Handover,
        Self::Up,
        Self::Failed,
    ];

    /// The stage's word in the API and in the database.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dhcp => "dhcp",
            Self::Loader => "loader",
            Self::Config => "config",
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Start => "start",
            Self::Modules => "modules",
            Self::Link => "link",
            Self::Address => "address",
            Self::Attach => "attach",
            Self::Mount => "mount",
            Self::Handover => "handover",
            Self::Up => "up",
            Self::Failed => "failed",
        }
    }

    /// What was reached, for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Dhcp => "firmware has an address",
            Self::Loader => "loader fetched",
            Self::Config => "configuration fetched",
            Self::Kernel => "kernel fetched",
            Self::Initrd => "initrd fetched",
            Self::Start => "kernel started",
            Self::Modules => "drivers loaded",
            Self::Link => "network link up",
            Self::Address => "address set",
            Self::Attach => "root disk attached",
            Self::Mount => "root mounted",
            Self::Handover => "system starts",
            Self::Up => "system is up",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// The text is no stage's word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a stage of a boot")]
pub struct UnknownStage(pub String);

impl FromStr for Stage {
    type Err = UnknownStage;

    fn from_str(text: &str) -> Result<Self, UnknownStage> {
        Self::ALL
            .into_iter()
            .find(|stage| stage.word() == text)
            .ok_or_else(|| UnknownStage(text.to_owned()))
    }
}

impl Stage {
    /// The stage that a report of `init` is about; `None` if it says that the boot waits.
    pub const fn reported(stage: initcfg::Stage) -> Option<Self> {
        Some(match stage {
            initcfg::Stage::Waiting => return None,
            initcfg::Stage::Start => Self::Start,
            initcfg::Stage::Modules => Self::Modules,
            initcfg::Stage::Link => Self::Link,
            initcfg::Stage::Address => Self::Address,
            initcfg::Stage::Attach => Self::Attach,
            initcfg::Stage::Mount => Self::Mount,
            initcfg::Stage::Handover => Self::Handover,
            initcfg::Stage::Up => Self::Up,
            initcfg::Stage::Failed => Self::Failed,
        })
    }
}

/// A stage that a boot has reached.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StageEvent {
    /// The stage.
    pub stage: Stage,
    /// When it was reached by the boot server's clock, milliseconds since 1970.
    pub at_unix_ms: u64,
    /// More about it, for people; may be empty.
    pub detail: String,
}

/// One power-on of one machine.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Boot {
    /// Its number.
    pub id: BootId,
    /// The NIC that asked.
    pub mac: Mac,
    /// The machine, if it was known then.
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
