//! Kinds of firmware, by the code with which they ask for a loader.

use core::fmt;

/// Kind of firmware that asks for a loader, by its architecture code (RFC 4578 §2.1, DHCP option 93; IANA's
/// registry "Processor Architecture Types" has those added since).
///
/// Serialized as `"bios"`, `"uefi-x64"`, `"uefi-x64-http"` or `{"other":11}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum Firmware {
    /// PC BIOS, code 0.
    Bios,
    /// 64-bit UEFI, codes 7 and 9: the registry and the RFC disagree on which it is, so firmware sends either.
    UefiX64,
    /// 64-bit UEFI that fetches its loader by HTTP, code 16 ("UEFI HTTP Boot").
    UefiX64Http,
    /// A kind for which there is no loader, with its code.
    Other(u16),
}

impl Firmware {
    /// The kind with this architecture code.
    pub const fn of_code(code: u16) -> Self {
        match code {
            0 => Self::Bios,
            7 | 9 => Self::UefiX64,
            16 => Self::UefiX64Http,
            other => Self::Other(other),
        }
    }

    /// Whether it is 64-bit UEFI, however it fetches its loader.
    pub const fn is_uefi_x64(self) -> bool {
        matches!(self, Self::UefiX64 | Self::UefiX64Http)
    }

    /// The kind's architecture code; of several the one that the registry names: 7 for 64-bit UEFI.
    pub const fn code(self) -> u16 {
        match self {
            Self::Bios => 0,
            Self::UefiX64 => 7,
            Self::UefiX64Http => 16,
            Self::Other(code) => code,
        }
    }
}

/// For people: `BIOS`, `UEFI x64`, `UEFI x64 by HTTP` or `unsupported firmware (architecture 11)`.
impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bios => f.pad("BIOS"),
            Self::UefiX64 => f.pad("UEFI x64"),
            Self::UefiX64Http => f.pad("UEFI x64 by HTTP"),
            Self::Other(code) => write!(f, "unsupported firmware (architecture {code})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Firmware;

    #[test]
    fn a_kind_is_found_by_the_code_that_is_kept_of_it() {
        for code in 0..20 {
            let firmware = Firmware::of_code(code);
            assert_eq!(Firmware::of_code(firmware.code()), firmware, "{code}");
        }
        assert_eq!(Firmware::of_code(9), Firmware::UefiX64);
        assert_eq!([0, 7, 9, 11, 16].map(|code| Firmware::of_code(code).code()), [0, 7, 7, 11, 16]);
    }
}
