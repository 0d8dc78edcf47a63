//! Which attacks there are, and what an attacker knows.

use crate::booted::Booted;
use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use wire::Mac;

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Attack {
    /// A host asks for machines' disks
    GuessDisks,
    /// A user of the machine that runs asks for its disk
    UserOfTheMachine,
    /// A host says again what the machine that runs has said to both servers
    Replay,
    /// A host gives up the address of the machine that runs, and asks for it
    ForgedRelease,
    /// A host begins boots in the name of the machine that runs
    ForgedBoot,
    /// A host asks for the secrets of boots
    HostSegments,
    /// A host says in the names of boots, known and unknown, that they have failed or stopped
    ForgedWords,
    /// Connections to the NBD server that say nothing
    NbdHalfOpen,
    /// Machines that ask for much of their disks and read nothing
    NbdUnread,
    /// HTTP requests that are never finished
    HttpHalfOpen,
    /// HTTP clients that ask for the kernel and read nothing
    HttpDeaf,
    /// TFTP requests for the kernel in the names of others
    TftpForged,
    /// Questions for addresses by invented NICs
    DhcpDiscover,
    /// Complete exchanges for addresses by invented NICs
    DhcpLeases,
    /// What writes a line to the log each time
    LogLines,
    /// AoE discovery and reads by invented NICs
    AoeDeaf,
    /// NBD and HTTP connections, while the servers may have 512 descriptors each
    FewDescriptors,
}

/// Who attacks.
pub(super) enum Place {
    /// A host on the network.
    Elsewhere,
    /// A user without rights on the machine that runs.
    Machine,
}

impl Attack {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::GuessDisks => "guess-disks",
            Self::UserOfTheMachine => "user-of-the-machine",
            Self::Replay => "replay",
            Self::ForgedRelease => "forged-release",
            Self::ForgedBoot => "forged-boot",
            Self::HostSegments => "host-segments",
            Self::ForgedWords => "forged-words",
            Self::NbdHalfOpen => "nbd-half-open",
            Self::NbdUnread => "nbd-unread",
            Self::HttpHalfOpen => "http-half-open",
            Self::HttpDeaf => "http-deaf",
            Self::TftpForged => "tftp-forged",
            Self::DhcpDiscover => "dhcp-discover",
            Self::DhcpLeases => "dhcp-leases",
            Self::LogLines => "log-lines",
            Self::AoeDeaf => "aoe-deaf",
            Self::FewDescriptors => "few-descriptors",
        }
    }

    /// How much of it, for people.
    pub(super) fn load(self) -> &'static str {
        match self {
            Self::GuessDisks => "100 connections/s, with and without invented proofs",
            Self::UserOfTheMachine => "100 connections/s from the machine's address",
            Self::Replay => "50 handshakes and 50 words a second, as heard",
            Self::ForgedRelease => "50 RELEASE, DECLINE and REQUEST a second",
            Self::ForgedBoot => "20 DHCP exchanges and TFTP requests a second",
            Self::HostSegments => "100 requests/s over HTTP",
            Self::ForgedWords => "1000 datagrams/s in the machine's name",
            Self::NbdHalfOpen => "200 connections/s, up to 2000",
            Self::NbdUnread => "8 machines, each 64 reads of 8 MiB, again after 5 s",
            Self::HttpHalfOpen => "500 connections/s from 96 addresses, up to 5000",
            Self::HttpDeaf => "200 connections/s from 96 addresses, up to 1100",
            Self::TftpForged => "2000 requests/s in the names of 250 hosts",
            Self::DhcpDiscover => "1000 DISCOVER/s of invented NICs",
            Self::DhcpLeases => "100 exchanges/s of invented NICs",
            Self::LogLines => "5000 reports/s and 50 HTTP requests/s for no file",
            Self::AoeDeaf => "2000 queries and reads a second of invented NICs",
            Self::FewDescriptors => "200 NBD and HTTP connections/s, up to 2000",
        }
    }

    /// What a person must be told meanwhile.
    pub(super) fn findings(self) -> &'static [&'static str] {
        match self {
            Self::GuessDisks | Self::UserOfTheMachine | Self::Replay => &["disk-not-proven"],
            Self::NbdHalfOpen | Self::FewDescriptors => &["nbd-crowded"],
            Self::HttpHalfOpen | Self::HttpDeaf => &["asks-too-much"],
            Self::TftpForged => &["no-place-left"],
            Self::DhcpDiscover | Self::DhcpLeases => &["strangers-share-full"],
            Self::ForgedRelease | Self::ForgedWords | Self::LogLines => &["words-refused"],
            _ => &[],
        }
    }

    pub(super) fn place(self) -> Place {
        match self {
            Self::UserOfTheMachine => Place::Machine,
            _ => Place::Elsewhere,
        }
    }

    pub(super) fn wants_rogues(self) -> bool {
        self == Self::NbdUnread
    }

    /// How many descriptors each server may have; `None`: as many as we.
    pub(super) fn descriptors_max(self) -> Option<u64> {
        (self == Self::FewDescriptors).then_some(512)
    }
}

/// What an attacker knows.
pub(super) struct Facts {
    /// Name of the machine that runs.
    pub(super) machine: String,
    pub(super) mac: Mac,
    pub(super) address: Ipv4Addr,
    pub(super) boot: u64,
    /// By which it has opened its disk.
    pub(super) disk_name: String,
    /// What it said to the boot server.
    pub(super) said: Vec<String>,
    /// Boots of the attacker's own machines.
    pub(super) rogues: Vec<Rogue>,
}

/// A boot of a machine that belongs to the attacker.
pub(super) struct Rogue {
    pub(super) machine: String,
    pub(super) boot: u64,
    /// The boot's secret, in hexadecimal digits.
    pub(super) token: String,
}

impl From<Booted> for Rogue {
    fn from(Booted { machine, boot, token, .. }: Booted) -> Self {
        Self { machine: machine.to_owned(), boot, token: token.to_hex() }
    }
}

impl Facts {
    pub(super) fn to_json(&self) -> Value {
        let rogue = |it: &Rogue| json!([it.machine, it.boot, it.token]);
        json!({
            "machine": self.machine,
            "mac": self.mac.to_string(),
            "address": self.address.to_string(),
            "boot": self.boot,
            "disk_name": self.disk_name,
            "said": self.said,
            "rogues": self.rogues.iter().map(rogue).collect::<Vec<_>>(),
        })
    }

    pub(super) fn from_json(facts: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
        let list = |value: &Value| value.as_array().cloned().context("no list");
        let rogue = |it: Value| {
            let boot = it[1].as_u64().context("no number")?;
            Ok(Rogue { machine: text(&it[0])?, boot, token: text(&it[2])? })
        };
        Ok(Self {
            machine: text(&facts["machine"])?,
            mac: text(&facts["mac"])?.parse()?,
            address: text(&facts["address"])?.parse()?,
            boot: facts["boot"].as_u64().context("no number")?,
            disk_name: text(&facts["disk_name"])?,
            said: list(&facts["said"])?.iter().map(text).collect::<Result<_>>()?,
            rogues: list(&facts["rogues"])?.into_iter().map(rogue).collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attacks_have_their_names_on_the_command_line() {
        for attack in Attack::value_variants() {
            assert_eq!(attack.to_possible_value().unwrap().get_name(), attack.name());
        }
    }

    #[test]
    fn facts_arrive_as_they_were_written() {
        let facts = Facts {
            machine: "working".to_owned(),
            mac: Mac([2; 6]),
            address: Ipv4Addr::new(10, 77, 0, 100),
            boot: 7,
            disk_name: "working?boot=7".to_owned(),
            said: vec!["one".to_owned(), "two\ntag 00".to_owned()],
            rogues: vec![Rogue { machine: "rogue".to_owned(), boot: 8, token: "ab".to_owned() }],
        };
        let json = facts.to_json();
        assert_eq!(Facts::from_json(&json).unwrap().to_json(), json);
    }
}
