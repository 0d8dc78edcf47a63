//! Swap space in the machine's own memory, compressed.

use crate::ParseChoiceError;
use core::fmt;
use core::str::FromStr;

const WANTED: &str = "a part of the memory: write percent, 1 to 200";

/// How much compressed swap space a machine has, in percent of its memory, 1 to 200: what it holds takes a half to a third of that.
/// Displayed as `50`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "u8", into = "u8")
)]
pub struct ZramPercent(u8);

impl ZramPercent {
    /// So many percent; `None`: it is not one of 1 to 200.
    pub fn new(percent: u8) -> Option<Self> {
        (1..=200).contains(&percent).then_some(Self(percent))
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for ZramPercent {
    type Error = ParseChoiceError;

    fn try_from(percent: u8) -> Result<Self, ParseChoiceError> {
        Self::new(percent)
            .ok_or_else(|| ParseChoiceError::new(&alloc::format!("{percent}"), WANTED))
    }
}

impl From<ZramPercent> for u8 {
    fn from(percent: ZramPercent) -> Self {
        percent.0
    }
}

impl fmt::Display for ZramPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ZramPercent {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if is_number { text.parse().ok() } else { None };
        number.and_then(Self::new).ok_or_else(|| ParseChoiceError::new(text, WANTED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn it_is_a_part_of_the_memory_and_twice_that_at_most() {
        for text in ["1", "50", "200"] {
            assert_eq!(text.parse::<ZramPercent>().unwrap().to_string(), text);
        }
        for text in ["", "0", "201", "256", "-1", "+1", "50%", " 5"] {
            assert!(text.parse::<ZramPercent>().is_err(), "{text:?}");
        }
    }
}
