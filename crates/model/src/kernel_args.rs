//! Kernel parameters that people give.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use initcfg::ParseChoiceError;

/// Additional kernel parameters: printable ASCII, at most [`KernelArgs::MAX`] bytes, and none of
/// the `bootlace.` parameters that the boot server sets itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct KernelArgs(String);

impl KernelArgs {
    /// Longest text in bytes. x86 kernels take a command line of 2,047 bytes in all.
    pub const MAX: usize = 1024;

    /// The parameters as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parameters one by one.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.split_ascii_whitespace()
    }
}

impl FromStr for KernelArgs {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        if text.len() > Self::MAX || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(ParseChoiceError::new(
                text,
                "a list of kernel parameters: use at most 1024 printable ASCII characters",
            ));
        }
        if text.split_ascii_whitespace().any(|word| word.starts_with("bootlace.")) {
            return Err(ParseChoiceError::new(
                text,
                "a list of kernel parameters for a machine: those that begin with bootlace. are set by the \
                 boot server",
            ));
        }
        Ok(Self(text.trim().to_owned()))
    }
}

impl<'de> serde::Deserialize<'de> for KernelArgs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for KernelArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn kernel_parameters_can_not_override_the_boot_server() {
        assert!("quiet console=ttyS0".parse::<KernelArgs>().is_ok());
        let error = "quiet bootlace.root=nbd:x".parse::<KernelArgs>().unwrap_err();
        assert!(error.to_string().contains("set by the boot server"), "{error}");
        assert!("a\nb".parse::<KernelArgs>().is_err());
    }
}
