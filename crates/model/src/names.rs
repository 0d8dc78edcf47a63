//! Names that people give, checked once.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// The text can't be a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} can't be the name of {what}: {rule}")]
pub struct InvalidName {
    text: String,
    what: &'static str,
    rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $extra:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
                let fits = (1..=$max).contains(&text.len())
                    && text.bytes().all(|byte| is_plain(byte) || $extra.contains(&byte))
                    && text.bytes().next().is_some_and(is_plain)
                    && text.bytes().next_back().is_some_and(is_plain);
                if fits {
                    Ok(Self(text.to_owned()))
                } else {
                    let text = text.chars().take(64).collect();
                    Err(InvalidName { text, what: $what, rule: $rule })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// Name of a machine; it is also its host name and its export's name.
    /// 1 to 63 lower-case letters, digits and hyphens (RFC 1123 §2.1).
    MachineName,
    "a machine",
    63,
    b"-",
    "use 1 to 63 lower-case letters, digits and hyphens, starting and ending with a letter or digit"
);

impl MachineName {
    /// Whether hosts take the name for another one than the machine: for themselves (RFC 6761 §6.3), for a group of
    /// addresses that their `/etc/hosts` has, or for a domain.
    pub fn means_else(&self) -> bool {
        const NAMES: [&str; 10] = [
            "localhost",
            "localhost4",
            "localhost6",
            "localdomain",
            "local",
            "broadcasthost",
            "ip6-localhost",
            "ip6-loopback",
            "ip6-allnodes",
            "ip6-allrouters",
        ];
        NAMES.contains(&self.as_str())
    }
}

name!(
    /// Name of an image; it appears in URLs and folder names.
    /// 1 to 63 lower-case letters, digits, hyphens, dots and underscores.
    ImageName,
    "an image",
    63,
    b"-._",
    "use 1 to 63 lower-case letters, digits, hyphens, dots and underscores, starting and ending with \
     a letter or digit, and here no version behind it"
);

name!(
    /// Name of a room; it appears in URLs.
    /// 1 to 63 lower-case letters, digits, hyphens, dots and underscores.
    RoomName,
    "a room",
    63,
    b"-._",
    "use 1 to 63 lower-case letters, digits, hyphens, dots and underscores, starting and ending with \
     a letter or digit"
);

name!(
    /// Name by which a person logs in.
    /// 1 to 63 lower-case letters, digits, hyphens, dots and underscores.
    UserName,
    "an account",
    63,
    b"-._",
    "use 1 to 63 lower-case letters, digits, hyphens, dots and underscores, starting and ending with \
     a letter or digit"
);

name!(
    /// A word that some machines have in common, by which people find them.
    /// 1 to 32 lower-case letters, digits, hyphens, dots and underscores.
    Tag,
    "a tag",
    32,
    b"-._",
    "use 1 to 32 lower-case letters, digits, hyphens, dots and underscores, starting and ending with \
     a letter or digit"
);

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_name_that_is_every_hosts_own_is_known() {
        let means_else = |text: &str| text.parse::<MachineName>().unwrap().means_else();
        assert!(means_else("localhost") && means_else("ip6-loopback"));
        assert!(!means_else("lab-07") && !means_else("localhost-7"));
    }

    #[test]
    fn names_are_safe_in_urls_paths_and_command_lines() {
        for text in ["lab-07", "7", "a", &"x".repeat(63)] {
            assert_eq!(text.parse::<MachineName>().unwrap().as_str(), text);
        }
        assert!("debian-12.5_x".parse::<ImageName>().is_ok());
        for text in ["", "-a", "a-", "A", "a b", "a/b", "..", "a.b", "ä", &"x".repeat(64)] {
            let error = text.parse::<MachineName>().unwrap_err();
            assert!(error.to_string().contains("name of a machine"), "{error}");
        }
        assert!("..".parse::<ImageName>().is_err());
    }
}
