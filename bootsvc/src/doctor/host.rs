//! The computer itself: its clock, its disks, its network card.

use super::Look;
use crate::boot::other_dhcp;
use crate::check::{Verdict, at_once};
use crate::config::{Config, Mode};
use crate::net::dhcp_watch::DhcpWatch;
use crate::network::{interfaces, networks};
use crate::paths::Paths;
use crate::programs::{NoAnswer, ask};
use model::{Size, Space};
use rustix::fs::statvfs;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long other DHCP servers are listened for.
pub(super) const LISTENING: Duration = Duration::from_secs(5);

/// With less a room of PCs boots slowly.
const SPEED_MIN_MBITS: u32 = 1000;

pub(super) fn clock() -> Look {
    let told = ask("timedatectl", &["show", "--property=NTPSynchronized", "--value"]);
    Look::at_host(match told {
        Ok(answer) if answer.is_done => match answer.output.trim() {
            "yes" => Verdict::Right("the clock is synchronized".to_owned()),
            _ => Verdict::Better(
                "the clock is not synchronized with others: certificates and times in logs may be wrong. Compare it (date); \
                 timedatectl set-ntp true keeps it right where this computer may ask a time server"
                    .to_owned(),
            ),
        },
        Ok(_) | Err(NoAnswer::Missing(_)) => Verdict::Better(
            "nothing here tells whether the clock is right: compare it with another one (date)".to_owned(),
        ),
        Err(error) => Verdict::Better(format!(
            "whether the clock is right is not known, as {}: compare it with another one (date)",
            wire::error_chain(&error)
        )),
    })
}

/// Room on each file system that has something of ours.
pub(super) fn disks(paths: &Paths) -> Vec<Look> {
    let folders = [
        paths.state(),
        paths.images(),
        paths.layers(),
        paths.incoming(),
        paths.cache(),
        paths.run(),
    ];
    let mut seen = BTreeSet::new();
    let mut looks = Vec::new();
    for folder in folders {
        match disk(&folder, &mut seen) {
            Ok(verdict) => looks.extend(verdict.map(Look::at_host)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                looks.push(Look::at_host(Verdict::Unseen(format!(
                    "how much room is in {}",
                    folder.display()
                ))));
            }
            Err(error) => looks.push(Look::at_host(Verdict::Wrong(format!(
                "how much room is in {} can't be found out: {error}",
                folder.display()
            )))),
        }
    }
    looks
}

/// `None`: this one was looked at.
fn disk(folder: &std::path::Path, seen: &mut BTreeSet<u64>) -> io::Result<Option<Verdict>> {
    // One that is missing is made in the next one above it that there is.
    let mut there = folder;
    let device = loop {
        match (fs::metadata(there), there.parent()) {
            (Ok(about), _) => break about.dev(),
            (Err(error), Some(parent)) if error.kind() == ErrorKind::NotFound => there = parent,
            (Err(error), _) => return Err(error),
        }
    };
    if !seen.insert(device) {
        return Ok(None);
    }
    let about = statvfs(there)?;
    let (free_bytes, total_bytes) = (
        about.f_bavail.saturating_mul(about.f_frsize),
        about.f_blocks.saturating_mul(about.f_frsize),
    );
    let name = folder.display();
    Ok(Some(judged(&name.to_string(), free_bytes, total_bytes, (about.f_favail, about.f_files))))
}

/// `files`: how many more can be made, and how many there can be in all; 0 if that is not bounded.
fn judged(name: &str, free_bytes: u64, total_bytes: u64, files: (u64, u64)) -> Verdict {
    let space = Space { free_bytes, total_bytes, reserve_bytes: 0, layer_max_bytes: None };
    let room = format!("{} of {} free", Size(free_bytes), Size(total_bytes));
    match files {
        (0, 1..) => Verdict::Wrong(format!(
            "no more files can be made on the disk of {name}, though {room}: it has too many small ones (df -i). Delete some"
        )),
        _ if free_bytes == 0 => {
            Verdict::Wrong(format!("the disk of {name} is full ({room}): free space there"))
        }
        _ if space.is_short() => Verdict::Better(format!(
            "the disk of {name} will be full soon, {room}: free space there (bootlace help full-disk)"
        )),
        (free, total) if free < total / 50 => Verdict::Better(format!(
            "the disk of {name} takes only {free} more files (df -i): delete some, although {room}"
        )),
        _ => Verdict::Right(format!("disk of {name}: {room}")),
    }
}

/// How fast the cards of the boot networks are. Whether they have a link and their addresses is checked elsewhere.
pub(super) fn links(config: &Config) -> Vec<Look> {
    let mut names: Vec<&str> = config.network.all().map(|it| it.interface.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().filter_map(link).collect()
}

fn link(interface: &str) -> Option<Look> {
    let folder = PathBuf::from("/sys/class/net").join(interface);
    // Cards in software, and those without a link, have no speed.
    let told = |file: &str| fs::read_to_string(folder.join(file)).ok();
    let speed: u32 = told("speed")?.trim().parse().ok()?;
    let is_half = told("duplex").is_some_and(|duplex| duplex.trim() == "half");
    let link = format!("the network card {interface} has a link of {speed} Mbit/s");
    Some(Look::at_host(match () {
        () if is_half => Verdict::Better(format!(
            "{link}, in one direction at a time (half duplex): the switch is probably set to a fixed speed; have both find it by \
             themselves"
        )),
        () if speed < SPEED_MIN_MBITS => Verdict::Better(format!(
            "{link}, so a room boots slowly: try another cable, and another port of the switch"
        )),
        () => Verdict::Right(link),
    }))
}

/// Other DHCP servers that are heard meanwhile on each interface, each once.
pub(super) fn listen(config: &Config) -> Vec<Look> {
    match networks(config) {
        Ok(networks) => at_once(interfaces(&networks), |(interface, server)| {
            listen_on(config, interface, server)
        }),
        Err(error) => {
            let error = io::Error::other(wire::error_chain(&error));
            let interface = &config.network.interface;
            vec![Look::at_host(Verdict::Wrong(other_dhcp::not_asked(interface, &error)))]
        }
    }
}

fn listen_on(config: &Config, interface: &str, server: Ipv4Addr) -> Look {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let heard = runtime.and_then(|runtime| runtime.block_on(hear(interface, server)));
    Look::at_host(match heard {
        Ok(others) => {
            heard_on(interface, config.network.mode, config.network.beside_others, &others)
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Verdict::Unseen(format!("whether other DHCP servers are heard on {interface}"))
        }
        Err(error) => Verdict::Wrong(other_dhcp::not_asked(interface, &error)),
    })
}

async fn hear(interface: &str, server: Ipv4Addr) -> io::Result<Others> {
    let watch = DhcpWatch::open(interface, server)?;
    let end = Instant::now() + LISTENING;
    let mut others = BTreeMap::new();
    // One that is asked by nobody says nothing; the question takes most of the time.
    if let Ok(asked) = timeout_at(end, watch.probe()).await
        && let Some(other) = asked?
    {
        others.insert(other.server, other.address);
    }
    while let Ok(heard) = timeout_at(end, watch.overhear()).await {
        let other = heard?;
        others.insert(other.server, other.address);
    }
    Ok(others)
}

/// Other servers, and what each offered; `None`: only a loader.
type Others = BTreeMap<Ipv4Addr, Option<Ipv4Addr>>;

fn heard_on(interface: &str, mode: Mode, may_be: bool, others: &Others) -> Verdict {
    let leases = mode.leases();
    let gives = |(server, address): (&Ipv4Addr, &Option<Ipv4Addr>)| match address {
        Some(address) => format!("{server} (offers {address})"),
        None => format!("{server} (tells PCs of another loader)"),
    };
    // Where we give no addresses somebody has to.
    let is_wrong = |other: &(&Ipv4Addr, &Option<Ipv4Addr>)| leases || other.1.is_none();
    let (wrong, right): (Vec<_>, Vec<_>) = others.iter().partition(is_wrong);
    let list = |others: Vec<_>| others.into_iter().map(gives).collect::<Vec<String>>().join(", ");
    match (wrong.is_empty(), right.is_empty()) {
        (true, true) => Verdict::Right(format!(
            "no other DHCP server was heard on {interface} within {} s",
            LISTENING.as_secs()
        )),
        (true, false) => Verdict::Right(format!(
            "this server gives addresses on {interface}, and nobody else was heard: {}",
            list(right)
        )),
        (false, _) if leases && may_be => Verdict::Better(format!(
            "other DHCP servers answer on {interface}: {}. beside_others allows that; see that they leave the machines alone",
            list(wrong)
        )),
        (false, _) => Verdict::Wrong(format!(
            "other DHCP servers answer on {interface}: {}. PCs take an address or a loader from whichever is faster: switch the other \
             one off, or keep it out of this network. A home router that somebody has plugged in is the usual case",
            list(wrong)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_or_without_files_to_make_is_told() {
        let gb = 1_000_000_000;
        let tag = |free, total, files| judged("/x", free, total, files).in_words().0;
        assert_eq!(tag(50 * gb, 100 * gb, (900, 1000)), "ok");
        assert_eq!(tag(50 * gb, 100 * gb, (0, 0)), "ok", "btrfs has no bound");
        assert_eq!(tag(50 * gb, 100 * gb, (0, 1000)), "wrong");
        assert_eq!(tag(50 * gb, 100 * gb, (10, 1000)), "note");
        assert_eq!(tag(gb, 100 * gb, (900, 1000)), "note");
        assert_eq!(tag(0, 100 * gb, (900, 1000)), "wrong");
    }

    #[test]
    fn a_second_dhcp_server_is_wrong_unless_it_may_be_there() {
        let others = [([10, 0, 5, 254].into(), Some([10, 0, 5, 33].into()))].into();
        let verdict = heard_on("br0", Mode::Dhcp, false, &others);
        let (tag, text) = verdict.in_words();
        assert!(tag == "wrong" && text.contains("10.0.5.254"), "{text}");
        assert_eq!(heard_on("br0", Mode::Dhcp, true, &others).in_words().0, "note");
        assert_eq!(heard_on("br0", Mode::Dhcp, false, &BTreeMap::new()).in_words().0, "ok");
        // Somebody has to give addresses where we don't, and nobody else tells of loaders.
        assert_eq!(heard_on("br0", Mode::Proxy, false, &others).in_words().0, "ok");
        let teller = [([10, 0, 5, 253].into(), None)].into();
        assert_eq!(heard_on("br0", Mode::Proxy, false, &teller).in_words().0, "wrong");
    }
}
