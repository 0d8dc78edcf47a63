//! Whether a PC's firmware starts only what is signed.

use core::fmt;

/// Whether a PC's firmware starts only what is signed (UEFI Specification, "Secure Boot and Driver Signing").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum SecureBoot {
    /// It is on.
    On,
    /// It is off.
    Off,
    /// It is off, and the firmware has no owner's key: whoever is at the PC may enrol keys.
    Setup,
}

impl SecureBoot {
    /// Both states by the firmware's variables `SecureBoot` and `SetupMode`.
    pub const fn of_variables(is_on: bool, is_in_setup: bool) -> Self {
        match (is_on, is_in_setup) {
            (true, _) => Self::On,
            (false, true) => Self::Setup,
            (false, false) => Self::Off,
        }
    }

    /// How it stands in the list of a machine's hardware: in the form of a hardware name, which is none of the kernel's.
    pub const fn hardware_name(self) -> &'static str {
        match self {
            Self::On => "uefi:secure-boot-on",
            Self::Off => "uefi:secure-boot-off",
            Self::Setup => "uefi:secure-boot-setup",
        }
    }

    /// What such a name means; `None`: it is another one.
    pub fn of_hardware_name(name: &str) -> Option<Self> {
        [Self::On, Self::Off, Self::Setup].into_iter().find(|it| it.hardware_name() == name)
    }
}

/// For people: `on`, `off` or `off (setup mode)`.
impl fmt::Display for SecureBoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Setup => "off (setup mode)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::SecureBoot;

    #[test]
    fn a_state_is_read_as_it_was_written() {
        for (is_on, is_in_setup) in [(true, false), (false, false), (false, true)] {
            let state = SecureBoot::of_variables(is_on, is_in_setup);
            assert_eq!(SecureBoot::of_hardware_name(state.hardware_name()), Some(state));
        }
        assert_eq!(SecureBoot::of_hardware_name("pci:v00008086"), None);
    }
}
