//! `bootlace lease …`

mod import;

use super::backup::time;
use super::setup::agrees;
use super::status::count;
use super::{WrongUsage, advise, say, table};
use crate::config::Subnet;
use crate::paths::Paths;
use crate::site::{Refused, Site};
use anyhow::bail;
use clap::{Args, Subcommand};
use dhcp::LeaseFormat;
use hyper::{Method, StatusCode};
use model::MachineName;
use serde::Deserialize;
use serde_json::Value;
use service::{FixWish, Fixed, Freed};
use std::fmt;
use std::io::{self, IsTerminal as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;
use wire::Mac;

#[derive(Subcommand)]
pub(super) enum Lease {
    /// List addresses, and who has them
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Those, too, whose leases have ended: they are kept in mind for their cards
        #[arg(long)]
        all: bool,
        /// Only those of this network, like 10.0.5.0/24
        #[arg(long, value_name = "SUBNET")]
        network: Option<Subnet>,
    },
    /// End a lease, or let an address be given again that somebody was found to use
    ///
    /// The PC goes on using the address until it renews its lease: switch it off before another one gets it. Asks first if it is a
    /// machine that runs.
    Free {
        /// The address, or the MAC address of the card that has it
        who: Who,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
    /// Fix an address for a machine or a network card: it is never given to another
    ///
    /// Example: bootlace lease fix 10.0.5.20 --machine lab-07
    ///
    /// A card has one fixed address; a new one takes the place of the former.
    Fix(Fix),
    /// Take over what another DHCP server has leased, so that its clients keep their addresses
    ///
    /// Example: bootlace lease import /var/lib/misc/dnsmasq.leases --dry-run
    ///
    /// Stop the other server first. Addresses outside of the pools of bootlace.toml are not taken, nor those that somebody else has
    /// here: each is told with its line. All others are taken in one go, or none.
    Import {
        /// The file: dnsmasq.leases, dhcpd.leases or kea-leases4.csv
        file: PathBuf,
        /// Whose it is: dnsmasq, isc or kea; without it Bootlace looks into the file
        #[arg(long, value_parser = clap::builder::ValueParser::new(format))]
        format: Option<LeaseFormat>,
        /// Only say what would be taken
        #[arg(long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub(super) struct Fix {
    /// The address, or the MAC address of a card that has one
    who: Who,
    /// For this machine; without it, for the card that has the address
    #[arg(long, value_name = "NAME")]
    machine: Option<MachineName>,
    /// For the card with this MAC address
    #[arg(long)]
    mac: Option<Mac>,
    /// Take that back: the address is leased as others are
    #[arg(long, conflicts_with_all = ["machine", "mac"])]
    undo: bool,
}

fn format(word: &str) -> Result<LeaseFormat, String> {
    word.parse().map_err(|_| "it is dnsmasq, isc or kea".to_owned())
}

/// How an address is named.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who {
    Address(Ipv4Addr),
    Mac(Mac),
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let mac = text.parse().map(Self::Mac);
        mac.map_err(|_| {
            "it is an address like 10.0.5.20, or a MAC address like 52:54:00:12:34:56".to_owned()
        })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Mac(mac) => mac.fmt(f),
        }
    }
}

/// An address, as far as it is printed.
#[derive(Deserialize)]
struct Printed {
    address: Ipv4Addr,
    mac: Option<Mac>,
    machine: Option<MachineName>,
    host_name: Option<String>,
    kind: String,
    reserved_in: Option<String>,
    ends_unix: Option<u64>,
    is_in_use: bool,
}

const ENDED: &str = "ended";

impl Printed {
    fn row(&self) -> [String; 6] {
        let text = |it: Option<String>| it.unwrap_or_else(|| "-".to_owned());
        let by = match (self.kind.as_str(), self.reserved_in.as_deref()) {
            (_, Some("file")) => "reserved in bootlace.toml",
            (_, Some(_)) => "fixed",
            ("declined", _) => "declined: in use by somebody",
            ("learned", _) => "another DHCP server",
            (kind, _) => kind,
        };
        let until = match (self.kind.as_str(), self.ends_unix) {
            (_, Some(unix)) => time(unix),
            (_, None) => "for ever".to_owned(),
        };
        [
            self.address.to_string(),
            text(self.mac.map(|mac| mac.to_string())),
            text(self.machine.as_ref().map(ToString::to_string)),
            text(self.host_name.clone()),
            by.to_owned(),
            until,
        ]
    }
}

impl Lease {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        match self {
            Self::Ls { json, all, network } => list(paths, json, all, network),
            Self::Free { who, yes } => free(paths, who, yes),
            Self::Fix(fix) => fix.run(paths),
            Self::Import { file, format, dry_run, json } => {
                import::import(paths, &file, format, dry_run, json)
            }
        }
    }
}

/// Where an address is in the API.
fn url(address: Ipv4Addr) -> String {
    format!("/api/v1/leases/{address}")
}

fn list(paths: &Paths, json: bool, is_all: bool, network: Option<Subnet>) -> anyhow::Result<()> {
    let mut listed: Vec<Value> = Site::open(paths)?.get("/api/v1/leases")?;
    let is_there = |it: &Value| {
        let address = it["address"].as_str().and_then(|address| address.parse().ok());
        network.is_none_or(|network| address.is_some_and(|address| network.holds(address)))
    };
    listed.retain(is_there);
    let n_known = listed.len();
    listed.retain(|it| is_all || it["kind"] != ENDED);
    let n_ended = n_known - listed.len();
    if json {
        say(serde_json::to_string_pretty(&listed)?);
        return Ok(());
    }
    let rows: Vec<[String; 6]> = listed
        .into_iter()
        .map(|it| Ok(serde_json::from_value::<Printed>(it)?.row()))
        .collect::<anyhow::Result<_>>()?;
    if rows.is_empty() {
        say("Nobody has an address now.");
    } else {
        say(table(["ADDRESS", "MAC", "MACHINE", "HOST", "BY", "UNTIL"], &rows));
    }
    if n_ended > 0 {
        let leases = count(n_ended.try_into().unwrap_or(u64::MAX), "lease");
        advise(paths, &format!("\n{leases} ended, kept in mind: bootlace lease ls --all"));
    }
    Ok(())
}

/// What is known of whom somebody has named.
fn find(site: &Site, who: Who) -> anyhow::Result<Vec<Printed>> {
    let mut known: Vec<Printed> = site.get("/api/v1/leases")?;
    known.retain(|it| match who {
        Who::Address(address) => it.address == address,
        Who::Mac(mac) => it.mac == Some(mac),
    });
    Ok(known)
}

/// The address that is meant.
fn address_of(who: Who, known: &[Printed]) -> anyhow::Result<Ipv4Addr> {
    match (who, known) {
        (Who::Address(address), _) => Ok(address),
        (Who::Mac(mac), []) => {
            let text =
                format!("{mac} has no address here: bootlace lease ls --all shows who has one");
            Err(Refused::new(StatusCode::NOT_FOUND, text).into())
        }
        (Who::Mac(_), [one]) => Ok(one.address),
        (Who::Mac(mac), several) => {
            let all: Vec<String> = several.iter().map(|it| it.address.to_string()).collect();
            bail!("{mac} stands at several addresses ({}): say which one", all.join(", "))
        }
    }
}

fn free(paths: &Paths, who: Who, is_said: bool) -> anyhow::Result<()> {
    let site = Site::open(paths)?;
    let known = find(&site, who)?;
    let address = address_of(who, &known)?;
    if let Some(used) = known.iter().find(|it| it.is_in_use).filter(|_| !is_said) {
        let whose = whose(used.machine.as_ref(), used.mac);
        let lost = format!(
            "{whose} runs at {address} with its disk open, and could lose it if another PC gets the address"
        );
        if !io::stdin().is_terminal() {
            let text = format!(
                "{lost}, and there is no terminal to ask: give --yes to free it all the same"
            );
            return Err(WrongUsage(text).into());
        }
        if !agrees(&format!("{lost}. Do you want to free it all the same"), false)? {
            bail!("nothing was changed");
        }
    }
    let freed: Freed = site.send(Method::DELETE, &url(address), &())?;
    say(said_of_freed(&freed));
    Ok(())
}

/// `lab-07 (52:54:00:12:34:56)`.
fn whose(machine: Option<&MachineName>, mac: Option<Mac>) -> String {
    match (machine, mac) {
        (Some(machine), Some(mac)) => format!("{machine} ({mac})"),
        (Some(machine), None) => machine.to_string(),
        (None, Some(mac)) => mac.to_string(),
        (None, None) => "somebody".to_owned(),
    }
}

fn said_of_freed(freed: &Freed) -> String {
    let Freed { address, mac, machine, ends_unix, had_ended, by_others, reserved_for } = freed;
    let whose = whose(machine.as_ref(), *mac);
    let said = match (mac, had_ended) {
        (None, _) => {
            format!("{address}: can be given again; whoever still uses it is found there again")
        }
        (Some(_), _) if *by_others => format!(
            "{address}: forgotten for {whose}; the other DHCP server knows nothing of it, and when the PC is seen there again it is \
             noted again"
        ),
        (Some(_), true) => format!("{address}: forgotten; the lease of {whose} had ended"),
        (Some(_), false) => {
            let until = ends_unix
                .map_or_else(String::new, |ends| format!(" (until {} at most)", time(ends)));
            format!(
                "{address}: free; {whose} goes on using it until it renews its lease{until}, and is then given an address as a new \
                 PC is: switch it off if another one shall have this one"
            )
        }
    };
    match reserved_for {
        Some(owner) => format!("{said}; it is for {owner} alone"),
        None => said,
    }
}

impl Fix {
    fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let site = Site::open(paths)?;
        let mut known = find(&site, self.who)?;
        if self.undo {
            known.retain(|it| it.reserved_in.is_some());
            let address = address_of(self.who, &known)?;
            let mac: Mac = site.send(Method::DELETE, &format!("{}/fixed", url(address)), &())?;
            say(format!(
                "{address}: fixed no more; {mac} keeps it for as long as it renews its lease"
            ));
            return Ok(());
        }
        let mac = match (self.who, self.mac) {
            (Who::Mac(mac), Some(other)) if mac != other => {
                return Err(WrongUsage(format!(
                    "--mac {other} contradicts {mac}: give the address, and --mac"
                ))
                .into());
            }
            (Who::Mac(mac), _) => Some(mac),
            (Who::Address(_), mac) => mac,
        };
        let address = address_of(self.who, &known)?;
        let wish = FixWish { mac, machine: self.machine };
        let fixed: Fixed = site.send(Method::PUT, &format!("{}/fixed", url(address)), &wish)?;
        say(said_of_fixed(&fixed));
        Ok(())
    }
}

fn said_of_fixed(fixed: &Fixed) -> String {
    let Fixed { address, mac, machine, former, has_now, is_in_file } = fixed;
    let whose = whose(machine.as_ref(), Some(*mac));
    if *is_in_file {
        return format!("{address}: reserved for {whose} already, in bootlace.toml");
    }
    let has_now =
        has_now.map(|other| format!("; it has {other} until it starts again or renews its lease"));
    let former =
        former.map(|former| format!("; {former}, which was fixed for it, is anybody's again"));
    format!(
        "{address}: fixed for {whose}{}{}",
        has_now.unwrap_or_default(),
        former.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 5, 20);

    #[test]
    fn what_becomes_of_a_freed_address_is_said() {
        let freed = Freed {
            address: ADDRESS,
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            machine: Some("lab-07".parse().unwrap()),
            ends_unix: Some(0),
            had_ended: false,
            by_others: false,
            reserved_for: None,
        };
        let said = said_of_freed(&freed);
        assert!(
            said.contains("lab-07 (02:00:00:00:00:01) goes on using it until it renews"),
            "{said}"
        );
        let ended = said_of_freed(&Freed { had_ended: true, ..freed.clone() });
        assert!(ended.ends_with("the lease of lab-07 (02:00:00:00:00:01) had ended"), "{ended}");
        let learned = said_of_freed(&Freed { by_others: true, ..freed.clone() });
        assert!(learned.contains("noted again"), "{learned}");
        let rested = said_of_freed(&Freed { mac: None, reserved_for: freed.mac, ..freed });
        assert!(rested.contains("given again") && rested.ends_with("alone"), "{rested}");
    }

    #[test]
    fn an_address_is_named_by_itself_or_by_its_card() {
        assert!(matches!("10.0.5.20".parse(), Ok(Who::Address(ADDRESS))));
        assert!(matches!("52-54-00-12-34-56".parse(), Ok(Who::Mac(_))));
        assert!("lab-07".parse::<Who>().unwrap_err().contains("10.0.5.20"));
    }
}
