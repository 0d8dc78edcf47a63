//! How far a boot is.

use crate::ParseChoiceError;
use core::fmt;
use core::str::FromStr;

/// A stage of a boot. They are reached in this order; [`Stage::Failed`] can follow any.
///
/// Those before [`Stage::Start`] the boot server sees by itself, by what is asked of it; the others the machine's
/// init reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
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

    /// Whether the machine's init reports it.
    pub const fn is_reported(self) -> bool {
        !matches!(self, Self::Dhcp | Self::Loader | Self::Config | Self::Kernel | Self::Initrd)
    }

    /// The stage's word in reports, in the API and in the database.
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

impl FromStr for Stage {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let found = Self::ALL.into_iter().find(|stage| stage.word() == text);
        found.ok_or_else(|| ParseChoiceError::new(text, "a stage of a boot"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_read_by_its_word() {
        for stage in Stage::ALL {
            assert_eq!(stage.word().parse(), Ok(stage));
        }
        assert!("waiting".parse::<Stage>().is_err(), "who waits reaches nothing");
        assert!(Stage::ALL.is_sorted());
    }
}
