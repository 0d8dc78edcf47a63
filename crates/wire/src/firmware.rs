//! Kinds of firmware, by the code with which they ask for a loader.

use core::fmt;

/// A kind of processor that machines have, and that an image is for.
///
/// Serialized as `"x86-64"` or `"arm64"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Architecture {
    /// 64-bit x86.
    #[default]
    #[cfg_attr(feature = "serde", serde(rename = "x86-64"))]
    X86_64,
    /// 64-bit ARM.
    #[cfg_attr(feature = "serde", serde(rename = "arm64"))]
    Arm64,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Arm64];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::X86_64 => "x86-64",
            Self::Arm64 => "arm64",
        }
    }

    /// The one of this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.word() == word)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Kind of firmware that asks for a loader, by its architecture code (RFC 4578 §2.1, DHCP option 93; IANA's
/// registry "Processor Architecture Types" has those added since).
///
/// Serialized as `"bios"`, `"uefi-x64"`, `"uefi-x64-http"`, `"uefi-arm64"`, `"uefi-arm64-http"` or `{"other":6}`.
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
    /// UEFI of a 64-bit ARM PC, code 11.
    UefiArm64,
    /// The same that fetches its loader by HTTP, code 19.
    UefiArm64Http,
    /// A kind for which there is no loader, with its code.
    Other(u16),
}

impl Firmware {
    /// The kind with this architecture code.
    pub const fn of_code(code: u16) -> Self {
        match code {
            0 => Self::Bios,
            7 | 9 => Self::UefiX64,
            11 => Self::UefiArm64,
            16 => Self::UefiX64Http,
            19 => Self::UefiArm64Http,
            other => Self::Other(other),
        }
    }

    /// Whether it fetches its loader by HTTP.
    pub const fn is_http(self) -> bool {
        matches!(self, Self::UefiX64Http | Self::UefiArm64Http)
    }

    /// Whether it is UEFI that fetches its loader by PXE.
    pub const fn is_uefi_pxe(self) -> bool {
        matches!(self, Self::UefiX64 | Self::UefiArm64)
    }

    /// The same firmware, when it fetches its loader by HTTP. Unchanged if none is known to do so.
    #[must_use]
    pub const fn by_http(self) -> Self {
        match self {
            Self::UefiX64 => Self::UefiX64Http,
            Self::UefiArm64 => Self::UefiArm64Http,
            other => other,
        }
    }

    /// The same firmware, when it fetches its loader by PXE.
    #[must_use]
    pub const fn by_pxe(self) -> Self {
        match self {
            Self::UefiX64Http => Self::UefiX64,
            Self::UefiArm64Http => Self::UefiArm64,
            other => other,
        }
    }

    /// What its PC's processors are; `None`: not known.
    pub const fn architecture(self) -> Option<Architecture> {
        match self {
            Self::Bios | Self::UefiX64 | Self::UefiX64Http => Some(Architecture::X86_64),
            Self::UefiArm64 | Self::UefiArm64Http => Some(Architecture::Arm64),
            Self::Other(_) => None,
        }
    }

    /// The kind's architecture code; of several the one that the registry names: 7 for 64-bit UEFI.
    pub const fn code(self) -> u16 {
        match self {
            Self::Bios => 0,
            Self::UefiX64 => 7,
            Self::UefiX64Http => 16,
            Self::UefiArm64 => 11,
            Self::UefiArm64Http => 19,
            Self::Other(code) => code,
        }
    }
}

/// For people: `BIOS`, `UEFI x64`, `UEFI x64 by HTTP`, `UEFI arm64` or `unsupported firmware (architecture 6)`.
impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bios => f.pad("BIOS"),
            Self::UefiX64 => f.pad("UEFI x64"),
            Self::UefiX64Http => f.pad("UEFI x64 by HTTP"),
            Self::UefiArm64 => f.pad("UEFI arm64"),
            Self::UefiArm64Http => f.pad("UEFI arm64 by HTTP"),
            Self::Other(code) => write!(f, "unsupported firmware (architecture {code})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Architecture, Firmware};

    #[test]
    fn a_kind_is_found_by_the_code_that_is_kept_of_it() {
        for code in 0..40 {
            let firmware = Firmware::of_code(code);
            let known = !matches!(firmware, Firmware::Other(_));
            assert_eq!(firmware.architecture().is_some(), known, "{code}");
            assert_eq!(firmware.by_http().by_pxe(), firmware.by_pxe(), "{code}");
            assert_eq!(Firmware::of_code(firmware.code()), firmware, "{code}");
        }
        assert_eq!(Firmware::of_code(9), Firmware::UefiX64);
        assert_eq!([0, 7, 9, 11, 16].map(|code| Firmware::of_code(code).code()), [0, 7, 7, 11, 16]);
        assert_eq!(Firmware::of_code(19).architecture(), Some(Architecture::Arm64));
    }
}
