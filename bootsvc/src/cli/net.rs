//! `bootlace net`: how PCs are answered when they boot.

mod recipe;

use crate::cli::output::say;
use crate::paths::Paths;
use crate::site::Site;
use anyhow::{Context, bail};
use clap::Subcommand;
use model::{MachineName, SecureBoot};
use serde::Deserialize;
use wire::{Firmware, Mac};

#[derive(Subcommand)]
pub(super) enum Net {
    /// Show which loader a PC gets when it boots the next time, and by which rule
    ///
    /// Example: bootlace net why lab-07
    Why {
        /// The PC: a machine's name, or a MAC address
        pc: String,
    },
    /// Print what another DHCP server must be told so that its PCs boot from here
    ///
    /// For mode = "external", in which Bootlace answers no DHCP itself.
    ///
    /// Example: bootlace net recipe kea
    Recipe {
        /// Whose configuration
        server: recipe::Server,
    },
}

/// A PC that has asked, as far as it is printed.
#[derive(Deserialize)]
struct Pc {
    firmware: Option<Firmware>,
    #[serde(default)]
    secure_boot: Option<SecureBoot>,
    loader: Option<GivenLoader>,
}

#[derive(Deserialize)]
struct GivenLoader {
    file: Option<String>,
    rule: String,
}

/// How a PC is found among the machines.
#[derive(Deserialize)]
struct Nics {
    name: MachineName,
    mac: Mac,
    #[serde(default)]
    other_macs: Vec<Mac>,
}

impl Net {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let pc = match self {
            Self::Why { pc } => pc,
            Self::Recipe { server } => return recipe::print(server, paths),
        };
        let site = Site::open(paths)?;
        let (who, found) = match pc.parse::<Mac>() {
            Ok(mac) => of_mac(&site, mac)?,
            Err(_) => {
                let name: MachineName = pc
                    .parse()
                    .with_context(|| format!("{pc:?} is neither a MAC address nor a name"))?;
                (name.to_string(), site.get(&format!("/api/v1/machines/{name}"))?)
            }
        };
        for line in told(&who, &found)? {
            say(line);
        }
        Ok(())
    }
}

fn of_mac(site: &Site, mac: Mac) -> anyhow::Result<(String, Pc)> {
    let machines: Vec<serde_json::Value> = site.get("/api/v1/machines")?;
    for machine in machines {
        let nics: Nics = serde_json::from_value(machine.clone())?;
        if nics.mac == mac || nics.other_macs.contains(&mac) {
            return Ok((format!("{} ({mac})", nics.name), serde_json::from_value(machine)?));
        }
    }
    let strangers: Vec<serde_json::Value> = site.get("/api/v1/discovered")?;
    match strangers.into_iter().find(|pc| pc["mac"] == mac.to_string()) {
        Some(pc) => Ok((format!("{mac} (not adopted)"), serde_json::from_value(pc)?)),
        None => bail!("no machine has the MAC {mac}, and no PC has asked with it"),
    }
}

/// What is said of it, line by line.
fn told(who: &str, pc: &Pc) -> anyhow::Result<Vec<String>> {
    let Some(firmware) = pc.firmware else {
        bail!(
            "{who} has never asked for a loader: switch it on, with network boot first in its boot order"
        );
    };
    let Some(loader) = &pc.loader else {
        bail!("no boot server runs that could say so: bootlace serve");
    };
    let secure_boot = match (firmware, pc.secure_boot) {
        (Firmware::Bios | Firmware::Other(_), _) => None,
        (_, Some(state)) => Some(state.to_string()),
        (_, None) => Some("not known: the machine says so when it boots".to_owned()),
    };
    let mut lines = vec![format!("{who}: {firmware}")];
    lines.extend(secure_boot.map(|state| format!("Secure Boot: {state}")));
    lines.push(format!("Loader:      {}", loader.file.as_deref().unwrap_or("none")));
    lines.push(format!("Rule:        {}", loader.rule));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pc_s_loader_is_told_with_its_rule() {
        let pc = |json: &str| serde_json::from_str::<Pc>(json).unwrap();
        let asked = pc(
            r#"{"firmware":"uefi-x64","secure_boot":"on","loader":{"file":"shimx64.efi","rule":"its Secure Boot was on"}}"#,
        );
        let lines = told("lab-07", &asked).unwrap();
        let expected = [
            "lab-07: UEFI x64",
            "Secure Boot: on",
            "Loader:      shimx64.efi",
            "Rule:        its Secure Boot was on",
        ];
        assert_eq!(lines, expected);
        let arm = r#"{"firmware":{"other":11},"loader":{"file":null,"rule":"there is none"}}"#;
        assert_eq!(told("x", &pc(arm)).unwrap()[1], "Loader:      none");
        let never = told("x", &pc(r#"{"firmware":null,"loader":null}"#)).unwrap_err().to_string();
        assert!(never.contains("never asked"), "{never}");
    }
}
