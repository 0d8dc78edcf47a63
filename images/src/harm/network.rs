//! What takes the boot card from the system that lives behind it.

use super::System;
use super::found::{Change, Checked, Found};
use crate::error::RootfsError;

const INTERFACES: &str = "/etc/network/interfaces";

/// A stanza of interfaces(5).
#[derive(Debug)]
struct Stanza<'a> {
    index: usize,
    words: Vec<&'a str>,
}

/// Lines of interfaces(5), those that end with a backslash joined.
fn stanzas(text: &str) -> Vec<Stanza<'_>> {
    let mut found: Vec<Stanza<'_>> = Vec::new();
    let mut goes_on = false;
    for (index, line) in text.lines().enumerate() {
        let (line, more) = match line.strip_suffix('\\') {
            Some(line) => (line, true),
            None => (line, false),
        };
        let words = line.split_ascii_whitespace();
        match found.last_mut().filter(|_| goes_on) {
            Some(last) => last.words.extend(words),
            None => found.push(Stanza { index, words: words.collect() }),
        }
        goes_on = more;
    }
    found.retain(|stanza| stanza.words.first().is_some_and(|word| !word.starts_with('#')));
    found
}

/// The files of ifupdown.
fn ifupdown(system: &System<'_>) -> Result<Vec<(String, String)>, RootfsError> {
    let mut files = vec![(INTERFACES.to_owned(), system.tree.text(INTERFACES)?)];
    files.extend(system.tree.texts("/etc/network/interfaces.d", "")?);
    Ok(files)
}

/// Cards that ifupdown would set up.
pub(super) fn ifupdown_cards(system: &System<'_>) -> Checked {
    let mut found = Vec::new();
    for (path, text) in ifupdown(system)? {
        for Stanza { index, words } in stanzas(&text) {
            let (Some(&word), names) = (words.first(), words.get(1..).unwrap_or_default()) else {
                continue;
            };
            let names: Vec<&str> = names.iter().copied().filter(|name| *name != "lo").collect();
            let is_start = word == "auto" || word.starts_with("allow-");
            if is_start && !names.is_empty() {
                let what = format!("ifupdown sets up {}", names.join(", "));
                found.push(Found::new(what).at(&path).in_line(index));
            }
        }
    }
    Ok(found)
}

/// Bridges and bonds of ifupdown, which take the card whatever is said of the card itself.
pub(super) fn ifupdown_bridges(system: &System<'_>) -> Checked {
    let mut found = Vec::new();
    for (path, text) in ifupdown(system)? {
        let stanzas = stanzas(&text);
        let started: Vec<&str> = stanzas
            .iter()
            .filter(|it| it.words[0] == "auto" || it.words[0].starts_with("allow-"))
            .flat_map(|it| it.words[1..].iter().copied())
            .collect();
        let mut of = "";
        for Stanza { index, words } in &stanzas {
            if words[0] == "iface" {
                of = words.get(1).copied().unwrap_or_default();
            }
            let key = words[0].replace('-', "_");
            let takes = matches!(key.as_str(), "bridge_ports" | "bond_slaves" | "slaves")
                && words[1..].iter().any(|word| !matches!(*word, "none" | "off"));
            if takes && started.contains(&of) {
                let what = format!("{of} takes {}", words[1..].join(" "));
                found.push(Found::new(what).at(&path).in_line(*index));
            }
        }
    }
    Ok(found)
}

/// Files of network services that are told at each boot to leave the card alone.
pub(super) fn other_services(system: &System<'_>) -> Checked {
    let places = [
        ("/etc/netplan", ".yaml", "netplan"),
        ("/etc/systemd/network", ".network", "systemd-networkd"),
        ("/etc/NetworkManager/system-connections", ".nmconnection", "NetworkManager"),
    ];
    let mut found = Vec::new();
    for (folder, end, service) in places {
        let names = system.tree.list(folder)?.into_iter().filter(|entry| entry.name.ends_with(end));
        found.extend(names.map(|entry| {
            let path = format!("{folder}/{}", entry.name);
            Found::new(format!("{service} has a profile of the network where the image was made"))
                .at(path)
        }));
    }
    Ok(found)
}

/// Services for the network to which nothing can be said.
pub(super) const SERVICES: &[&str] =
    &["dhcpcd.service", "connman.service", "wicked.service", "wickedd.service", "network.service"];

/// A tunnel that takes all that goes out, the disk's packets among it.
pub(super) fn tunnels(system: &System<'_>) -> Checked {
    let mut found = Vec::new();
    for name in system.units.instances("wg-quick@") {
        let path = format!("/etc/wireguard/{name}.conf");
        let text = system.tree.text(&path)?;
        let takes_all = text.lines().enumerate().find(|(_, line)| {
            let value = line.split_once('=').filter(|(key, _)| key.trim() == "AllowedIPs");
            value.is_some_and(|(_, list)| list.split(',').any(|it| it.trim() == "0.0.0.0/0"))
        });
        if let Some((index, _)) = takes_all {
            let what = format!("the tunnel {name} starts at boot and takes all that goes out");
            found.push(Found::new(what).at(path).in_line(index));
        }
    }
    Ok(found)
}

/// A service that waits for the network without an end.
pub(super) fn endless_wait(system: &System<'_>) -> Checked {
    let mut found = Vec::new();
    for unit in ["systemd-networkd-wait-online.service", "NetworkManager-wait-online.service"] {
        if !system.units.start(unit) {
            continue;
        }
        let folder = format!("{}/{unit}.d", super::units::ADMIN);
        let mut files = system.tree.texts(&folder, ".conf")?;
        let own = format!("{}/{unit}", super::units::ADMIN);
        files.push((own.clone(), system.tree.text(&own)?));
        for (path, text) in files {
            let endless = text.lines().position(|line| {
                let words: Vec<&str> = line.split_ascii_whitespace().collect();
                line.starts_with("ExecStart=")
                    && words.iter().any(|word| matches!(*word, "--timeout=0" | "-t0"))
            });
            if let Some(index) = endless {
                let what = format!("{unit} waits for the network without an end");
                found.push(Found::new(what).at(path).in_line(index));
            }
        }
    }
    Ok(found)
}

/// Rules of udev of old that bind names of cards to the machine where the image was made.
pub(super) fn card_names(system: &System<'_>) -> Checked {
    let mut found = Vec::new();
    let path = "/etc/udev/rules.d/70-persistent-net.rules";
    let text = system.tree.text(path)?;
    let bound = text.lines().position(|line| {
        !line.trim_start().starts_with('#')
            && line.contains("ATTR{address}==")
            && line.contains("NAME=")
    });
    if let Some(index) = bound {
        let what = "it gives names to the cards of the machine where the image was made";
        let change = Change::Remove(path.to_owned());
        found.push(Found::new(what).at(path).in_line(index).changing(change));
    }
    Ok(found)
}
