//! Ethernet hardware addresses.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// A 48-bit Ethernet address. Displayed and serialized as `52:54:00:12:34:56`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether frames to this address go to more than one station (IEEE 802 group bit).
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether a NIC can have this address: it is no group's, and not what a NIC has that was never given one (all zero).
    pub fn is_of_a_nic(self) -> bool {
        !self.is_multicast() && self.0 != [0; 6]
    }

    /// The twelve hexadecimal digits without separators, for file names.
    pub fn compact(self) -> String {
        let [a, b, c, d, e, f] = self.0;
        alloc::format!("{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}")
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a hardware address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address: write six pairs of hexadecimal digits, like 52:54:00:12:34:56")]
pub struct ParseMacError;

impl FromStr for Mac {
    type Err = ParseMacError;

    /// Accepts pairs separated by `:` or `-`, and twelve digits without separators.
    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let mut digits = [0u8; 12];
        let mut n_digits = 0;
        for (index, character) in text.trim().chars().enumerate() {
            if matches!(character, ':' | '-') && index % 3 == 2 {
                continue;
            }
            let digit = character.to_digit(16).ok_or(ParseMacError)?;
            *digits.get_mut(n_digits).ok_or(ParseMacError)? = digit as u8;
            n_digits += 1;
        }
        if n_digits != 12 {
            return Err(ParseMacError);
        }
        let mut bytes = [0u8; 6];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(bytes))
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <alloc::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn spellings_people_paste_are_accepted() {
        let mac = Mac([0x52, 0x54, 0, 0x12, 0xab, 0xcd]);
        for text in
            ["52:54:00:12:ab:cd", "52-54-00-12-AB-CD", "52540012abcd", " 52:54:00:12:ab:cd\n"]
        {
            assert_eq!(text.parse(), Ok(mac), "{text}");
        }
        assert_eq!(mac.to_string(), "52:54:00:12:ab:cd");
        assert_eq!(mac.compact(), "52540012abcd");
    }

    #[test]
    fn everything_else_is_refused() {
        for text in
            ["", "52:54:00:12:ab", "52:54:00:12:ab:cd:ef", "52:54:00:12:ab:zz", "5:254:00:12:ab:cd"]
        {
            assert_eq!(text.parse::<Mac>(), Err(ParseMacError), "{text}");
        }
    }
}
