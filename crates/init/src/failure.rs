//! Why a boot can't go on, in words for the person in front of the screen.

use crate::console::Console;
use initcfg::{BootConfig, failure_code};
use std::fmt;

/// What failed and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What failed, and why.
    pub(crate) what: String,
    /// What a person can do.
    pub(crate) remedy: String,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }

    /// Tells the person in front of the machine.
    pub(crate) fn show(&self, console: &Console, config: Option<&BootConfig>) {
        for line in self.explanation(config) {
            console.line(&line);
        }
    }

    /// Lines for the screen; `config` is what is known of the machine.
    pub(crate) fn explanation(&self, config: Option<&BootConfig>) -> Vec<String> {
        let is_captured = config.is_some_and(|config| config.capture.is_some());
        let title = match is_captured {
            true => "*** This machine can't be captured; nothing on its disks was changed ***",
            false => "*** This machine can't start ***",
        };
        let mut lines = vec![
            String::new(),
            title.to_owned(),
            format!("  What happened:  {}", self.what),
            format!("  What helps:     {}", self.remedy),
        ];
        if let Some(config) = config {
            let BootConfig { host_name, mac, address, server, .. } = config;
            let address = address.map_or_else(
                || "address by DHCP".to_owned(),
                |(address, prefix)| format!("{address}/{prefix}"),
            );
            lines.push(format!("  This machine:   {host_name}, {mac}, {address}"));
            lines.push(format!("  Boot server:    {server}"));
            let code = failure_code(config.boot, config.mac);
            lines.push(format!("  Code:           {code}, also shown on the boot server's page"));
        }
        lines.push(String::new());
        lines
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}
