//! What people may do.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use initcfg::ParseChoiceError;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $wanted:literal, $($(#[$one:meta])* $value:ident = $word:literal, $title:literal;)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$one])* $value,)*
        }

        impl $name {
            /// All of them, from the one that may least to the one that may most.
            pub const ALL: &[Self] = &[$(Self::$value),*];

            /// The word in commands, settings and the API.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$value => $word),* }
            }

            /// What it means, for people.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$value => $title),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }

        impl FromStr for $name {
            type Err = ParseChoiceError;

            fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
                let found = Self::ALL.iter().copied().find(|one| one.word() == text);
                found.ok_or_else(|| ParseChoiceError::new(text, $wanted))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

words!(
    /// What somebody may do; each includes those before it.
    Right,
    "a right: use read, operate or admin",
    /// See machines, images, boots and findings, but no secrets.
    Read = "read", "see everything but secrets";
    /// Restart machines and shut them down.
    Operate = "operate", "restart machines and shut them down, too";
    /// Everything: change machines, read the passwords of rescue shells, manage accounts.
    Admin = "admin", "change everything";
);

words!(
    /// What an account is for.
    Role,
    "a role: use viewer, teacher or admin",
    /// Looks only.
    Viewer = "viewer", "sees everything but secrets";
    /// Works with machines, and changes none.
    Teacher = "teacher", "also restarts machines and shuts them down";
    /// Changes everything.
    Admin = "admin", "changes everything";
);

impl Role {
    /// What people with this role may do.
    pub const fn right(self) -> Right {
        match self {
            Self::Viewer => Right::Read,
            Self::Teacher => Right::Operate,
            Self::Admin => Right::Admin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn rights_include_those_before_them_and_words_are_read_as_written() {
        assert!(Right::Read < Right::Operate && Right::Operate < Right::Admin);
        for role in Role::ALL {
            assert_eq!(role.word().parse(), Ok(*role));
        }
        for right in Right::ALL {
            assert_eq!(right.word().parse(), Ok(*right));
        }
        let error = "root".parse::<Role>().unwrap_err().to_string();
        assert!(error.contains("use viewer, teacher or admin"), "{error}");
    }
}
