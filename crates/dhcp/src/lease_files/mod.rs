//! What other DHCP servers keep of their leases in a file, so that their clients keep their addresses with us.
//!
//! Foreign bytes in, leases out. What is in the file and no lease is told by its line; what is not understood is an error,
//! since half of a file is worse than none.

mod dnsmasq;
mod isc;
mod kea;

use crate::request::host_name;
use alloc::borrow::ToOwned as _;
use alloc::collections::{BTreeMap, btree_map};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::str::FromStr;
use wire::Mac;

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseFormat {
    /// `dnsmasq.leases` of dnsmasq: a line for each lease.
    Dnsmasq,
    /// `dhcpd.leases` of ISC dhcpd: a log, in which the last entry of an address counts.
    Isc,
    /// `kea-leases4.csv` of Kea's memfile: a log as well.
    Kea,
}

/// A lease that another server gave, and that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignLease {
    /// Line of the file, from 1, on which it begins.
    pub line: usize,
    /// Who has the address.
    pub mac: Mac,
    /// The address.
    pub address: Ipv4Addr,
    /// When it ends, seconds since 1970; `None`: never.
    pub ends_unix: Option<u64>,
    /// The client's name, if the server knows it.
    pub host_name: Option<String>,
}

/// An entry that is no lease for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Line of the file, from 1, on which it begins.
    pub line: usize,
    /// What the entry is about, and why it is none.
    pub why: String,
}

/// What is in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseFile {
    /// Leases that have not ended, by address; each card has one.
    pub leases: Vec<ForeignLease>,
    /// Leases that have ended, or were given back.
    pub n_ended: usize,
    /// What else is there, by line.
    pub left_out: Vec<LeftOut>,
}

/// A file is not what it is said to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLeaseFile {
    /// Nothing in it says whose it is.
    #[error(
        "this is no file of leases that Bootlace knows: say whose it is with --format dnsmasq, isc or kea"
    )]
    Unknown,
    /// A line is wrong.
    #[error("line {line}: {what}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it, and what helps.
        what: String,
    },
}

impl BadLeaseFile {
    fn at(line: usize, what: impl Into<String>) -> Self {
        Self::Line { line, what: what.into() }
    }
}

impl LeaseFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Dnsmasq, Self::Isc, Self::Kea];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dnsmasq => "dnsmasq",
            Self::Isc => "isc",
            Self::Kea => "kea",
        }
    }

    /// The server whose it is.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Dnsmasq => "dnsmasq",
            Self::Isc => "ISC dhcpd",
            Self::Kea => "Kea",
        }
    }

    /// Whose file this is, by how it begins; `None`: nobody's, or it is empty.
    pub fn of(file: &[u8]) -> Option<Self> {
        const LOOKED_AT: usize = 64 << 10;
        let text = String::from_utf8_lossy(&file[..file.len().min(LOOKED_AT)]);
        let mut lines = text.lines().map(str::trim);
        let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
        let first = first.unwrap_or_default();
        let word = first.split_whitespace().next().unwrap_or_default();
        if first.starts_with("address,") {
            Some(Self::Kea)
        } else if word == "duid"
            || word.bytes().all(|byte| byte.is_ascii_digit()) && !word.is_empty()
        {
            Some(Self::Dnsmasq)
        } else if isc::BEGINNINGS.contains(&word) || text.contains("dhcpd.leases(5)") {
            Some(Self::Isc)
        } else {
            None
        }
    }
}

impl FromStr for LeaseFormat {
    type Err = BadLeaseFile;

    fn from_str(word: &str) -> Result<Self, BadLeaseFile> {
        Self::ALL.into_iter().find(|it| it.word() == word).ok_or(BadLeaseFile::Unknown)
    }
}

impl LeaseFile {
    /// What is in the file at `now` (seconds since 1970).
    ///
    /// # Errors
    /// It is not such a file, or something in it is not understood.
    pub fn parse(file: &[u8], format: LeaseFormat, now: u64) -> Result<Self, BadLeaseFile> {
        let text = String::from_utf8_lossy(file);
        let entries = match format {
            LeaseFormat::Dnsmasq => dnsmasq::entries(&text)?,
            LeaseFormat::Isc => isc::entries(&text)?,
            LeaseFormat::Kea => kea::entries(&text)?,
        };
        Ok(entries.finish(now))
    }
}

/// What a file says of one address.
#[derive(Clone, Debug)]
enum Entry {
    /// Somebody has it.
    Leased { mac: Mac, ends_unix: Option<u64>, host_name: Option<String> },
    /// Nobody has it any more.
    Ended,
    /// It is no lease for us, for this reason.
    None(String),
}

/// What was read so far: of each address the last entry, with its line.
#[derive(Debug, Default)]
struct Entries {
    by_address: BTreeMap<Ipv4Addr, (usize, Entry)>,
    left_out: Vec<LeftOut>,
}

impl Entries {
    fn put(&mut self, line: usize, address: Ipv4Addr, entry: Entry) {
        self.by_address.insert(address, (line, entry));
    }

    /// What is about no IPv4 address.
    fn leave_out(&mut self, line: usize, why: impl Into<String>) {
        self.left_out.push(LeftOut { line, why: why.into() });
    }

    fn finish(self, now: u64) -> LeaseFile {
        let mut file = LeaseFile { left_out: self.left_out, ..LeaseFile::default() };
        let mut by_mac: BTreeMap<Mac, ForeignLease> = BTreeMap::new();
        for (address, (line, entry)) in self.by_address {
            let (mac, ends_unix, host_name) = match entry {
                Entry::Leased { mac, ends_unix, host_name } => (mac, ends_unix, host_name),
                Entry::Ended => {
                    file.n_ended += 1;
                    continue;
                }
                Entry::None(why) => {
                    file.left_out.push(LeftOut { line, why: format!("{address}: {why}") });
                    continue;
                }
            };
            if ends_unix.is_some_and(|ends| ends <= now) {
                file.n_ended += 1;
                continue;
            }
            let lease = ForeignLease { line, mac, address, ends_unix, host_name };
            let older = match by_mac.entry(mac) {
                btree_map::Entry::Vacant(place) => {
                    place.insert(lease);
                    continue;
                }
                btree_map::Entry::Occupied(mut place) => match is_later(&lease, place.get()) {
                    true => place.insert(lease),
                    false => lease,
                },
            };
            let why = format!("{}: {mac} has another lease, which ends later", older.address);
            file.left_out.push(LeftOut { line: older.line, why });
        }
        file.leases = by_mac.into_values().collect();
        file.leases.sort_by_key(|lease| lease.address);
        file.left_out.sort_by_key(|it| it.line);
        file
    }
}

fn is_later(one: &ForeignLease, other: &ForeignLease) -> bool {
    let key = |lease: &ForeignLease| (lease.ends_unix.unwrap_or(u64::MAX), lease.line);
    key(one) > key(other)
}

/// A lease of this client, or why it is none.
fn leased(mac: &str, ends_unix: Option<u64>, name: &str) -> Result<Entry, &'static str> {
    const NO_ETHERNET: &str = "its client has no Ethernet address";
    let is_hex = |it: char| it.is_ascii_hexdigit() || it == ':' || it == '-';
    let mac = match mac.parse::<Mac>() {
        Ok(mac) if mac.is_of_a_nic() => mac,
        Ok(_) => return Ok(Entry::None("no network card has its MAC address".to_owned())),
        Err(_) if mac.chars().all(is_hex) => return Ok(Entry::None(NO_ETHERNET.to_owned())),
        Err(_) => return Err("is not a MAC address"),
    };
    // Only what is told by DHCP can be one.
    let host_name = Some(name).filter(|name| *name != "*");
    let host_name = host_name.and_then(|name| host_name_of(name.trim_end_matches('.')));
    Ok(Entry::Leased { mac, ends_unix, host_name })
}

fn host_name_of(name: &str) -> Option<String> {
    host_name(name.as_bytes())
}

/// A word that stands in a message: foreign, and perhaps endless.
fn shown(word: &str) -> String {
    const SHOWN: usize = 40;
    let mut text: String = word.chars().take(SHOWN).collect();
    if text.len() < word.len() {
        text.push('…');
    }
    format!("{text:?}")
}

fn number(word: &str, what: &str, line: usize) -> Result<u64, BadLeaseFile> {
    word.parse().map_err(|_| BadLeaseFile::at(line, format!("{} is no {what}", shown(word))))
}

fn address(word: &str, line: usize) -> Result<Ipv4Addr, BadLeaseFile> {
    word.parse().map_err(|_| BadLeaseFile::at(line, format!("{} is no IPv4 address", shown(word))))
}

#[cfg(test)]
mod tests;
