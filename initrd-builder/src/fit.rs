//! The hardware that an initrd is made for.

use crate::BuildError;
use initcfg::glob_matches;

/// Most names in a list: a PC has about 100, so this is for a site with a thousand kinds of PCs.
const MODALIASES_MAX: usize = 100_000;

/// Hardware names (`modalias`) of the machines that an initrd is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    modaliases: Vec<String>,
}

impl Fit {
    /// Reads a list: one name a line; empty lines and those that start with `#` don't count.
    ///
    /// # Errors
    /// A line is no hardware name, or there is none at all.
    pub fn parse(text: &str) -> Result<Self, BuildError> {
        let mut modaliases: Vec<String> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let is_name = line.contains(':') && !line.contains(char::is_whitespace);
            if !is_name || modaliases.len() == MODALIASES_MAX {
                return Err(BuildError::FitLine { line: number + 1 });
            }
            modaliases.push(line.to_owned());
        }
        modaliases.sort();
        modaliases.dedup();
        match modaliases.is_empty() {
            true => Err(BuildError::FitEmpty),
            false => Ok(Self { modaliases }),
        }
    }

    /// The first hardware name that one of these patterns is for.
    pub(crate) fn matching(&self, patterns: &[String]) -> Option<&str> {
        let is_match = |name: &&String| patterns.iter().any(|pattern| glob_matches(pattern, name));
        self.modaliases.iter().find(is_match).map(String::as_str)
    }

    /// All names of network cards, as far as the name tells.
    pub(crate) fn network_cards(&self) -> impl Iterator<Item = &str> {
        self.modaliases.iter().map(String::as_str).filter(|name| is_network_card(name))
    }
}

/// PCI class 02, virtio device 1, and the virtual cards of Xen, Hyper-V and VMware.
fn is_network_card(modalias: &str) -> bool {
    glob_matches("pci:*bc02*", modalias)
        || glob_matches("virtio:d00000001v*", modalias)
        || modalias == "xen:vif"
        || modalias == "vmbus:635161f83edfc546913ff2d2f965ed0e"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_line_by_line() {
        let fit = Fit::parse("# lab 1\n\n pci:v1bc02sc00 \nusb:v2\npci:v1bc02sc00\n").unwrap();
        assert_eq!(fit.network_cards().collect::<Vec<_>>(), ["pci:v1bc02sc00"]);
        assert_eq!(fit.matching(&["usb:v*".to_owned()]), Some("usb:v2"));
        assert_eq!(fit.matching(&["acpi:*".to_owned()]), None);
        let error = |text| Fit::parse(text).unwrap_err().to_string();
        assert!(error("pci:v1\n8086:10d3 Intel card").contains("line 2"));
        assert!(error("# nothing\n").contains("no hardware name"));
    }
}
