//! What tells boots with the same number apart.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A random number that a boot gets beside its own: after a database was lost, or an older one was restored, numbers
/// come again, and this does not. It is no secret. As text it is 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootIdentity(u128);

impl BootIdentity {
    /// The identity of these bytes, which must be random.
    pub const fn new(random: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(random))
    }

    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for BootIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The text is no identity of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the identity of a boot is 32 hexadecimal digits")]
pub struct NoBootIdentity;

impl FromStr for BootIdentity {
    type Err = NoBootIdentity;

    fn from_str(text: &str) -> Result<Self, NoBootIdentity> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).map_err(|_| NoBootIdentity)?;
        if is_hex { Ok(Self(number)) } else { Err(NoBootIdentity) }
    }
}

impl Serialize for BootIdentity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BootIdentity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn an_identity_reads_as_it_was_written() {
        let identity = BootIdentity::new([7; 16]);
        assert_eq!(identity.to_string(), "07".repeat(16));
        assert_eq!(identity.to_string().parse(), Ok(identity));
        for wrong in ["", "07", &"07".repeat(17), &"+7".repeat(16), &"0g".repeat(16)] {
            assert_eq!(wrong.parse::<BootIdentity>(), Err(NoBootIdentity), "{wrong}");
        }
    }
}
