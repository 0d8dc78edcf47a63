//! What tells boots with the same number apart, and machines with the same name.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The text is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an identity is 32 hexadecimal digits")]
pub struct NoIdentity;

/// A random number of 16 bytes, as text 32 hexadecimal digits.
macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(u128);

        impl $name {
            /// The identity of these bytes, which must be random.
            pub const fn new(random: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(random))
            }

            /// Its bytes.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = NoIdentity;

            fn from_str(text: &str) -> Result<Self, NoIdentity> {
                let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
                let number = u128::from_str_radix(text, 16).map_err(|_| NoIdentity)?;
                if is_hex { Ok(Self(number)) } else { Err(NoIdentity) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

identity! {
    /// A random number that a boot gets beside its own: after a database was lost, or an older one was restored, numbers
    /// come again, and this does not. It is no secret. As text it is 32 hexadecimal digits.
    BootIdentity
}

identity! {
    /// A random number that a machine gets beside its name when it is added, and keeps whatever of it changes: another machine
    /// of that name has another one. It is no secret. As text it is 32 hexadecimal digits.
    MachineIdentity
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
            assert_eq!(wrong.parse::<BootIdentity>(), Err(NoIdentity), "{wrong}");
        }
    }
}
