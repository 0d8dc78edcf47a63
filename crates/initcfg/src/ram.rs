//! How much of a machine's memory may hold what it writes, in write mode `ram`.

use core::fmt;
use core::str::FromStr;

/// Part of the memory, or an amount; displayed as `50%` and `2048M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RamSize {
    /// Percent of the machine's memory, 1 to 90: programs need the rest.
    Percent(u8),
    /// MiB, 16 to 16,777,216.
    Mebibytes(u32),
}

impl Default for RamSize {
    /// What tmpfs itself takes.
    fn default() -> Self {
        Self::Percent(50)
    }
}

impl fmt::Display for RamSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Mebibytes(mebibytes) => write!(f, "{mebibytes}M"),
        }
    }
}

/// The text is no such size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a part of the memory: write 1% to 90%, or MiB like 2048M (at least 16M)")]
pub struct ParseRamSizeError;

impl FromStr for RamSize {
    type Err = ParseRamSizeError;

    fn from_str(text: &str) -> Result<Self, ParseRamSizeError> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.parse().ok().filter(|percent| (1..=90).contains(percent));
            return percent.map(Self::Percent).ok_or(ParseRamSizeError);
        }
        let mebibytes = text.strip_suffix('M').and_then(|mebibytes| mebibytes.parse().ok());
        let mebibytes = mebibytes.filter(|mebibytes| (16..=1 << 24).contains(mebibytes));
        mebibytes.map(Self::Mebibytes).ok_or(ParseRamSizeError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn sizes_are_percent_or_mebibytes() {
        for text in ["1%", "50%", "90%", "16M", "2048M"] {
            assert_eq!(text.parse::<RamSize>().unwrap().to_string(), text);
        }
        for text in ["", "%", "M", "0%", "91%", "300%", "8M", "99999999M", "5G", "-1%", "50"] {
            assert_eq!(text.parse::<RamSize>(), Err(ParseRamSizeError), "{text}");
        }
    }
}
