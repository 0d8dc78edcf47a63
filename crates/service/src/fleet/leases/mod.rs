//! Who has which address, and what people change of it.

mod import;
mod known;

pub use import::{ImportedLease, ImportedLeases, LeftOutLease};

use crate::error::{Error, LeaseError};
use crate::live::LeaseNews;
use crate::options::{LeasedNetwork, Leasing};
use crate::people::{Admin, Viewer};
use crate::service::Service;
use crate::store::{FieldChange, View};
use known::Known;
use model::{FindingKind, MachineName, Site, Subject};
use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use wire::Mac;

/// Addresses that people have fixed: as many as the largest pools have.
const FIXED_MAX: usize = 65_536;

/// A lease that has longer left never ends: no server of ours gives one for so long.
const NEVER_SECONDS: u64 = 50 * 365 * 86_400;

/// What somebody has an address by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseKind {
    /// It belongs to the NIC for ever.
    Reserved,
    /// It was leased, and the lease goes on.
    Lease,
    /// Another DHCP server gave it, and it was seen there.
    Learned,
    /// Somebody uses it without a lease, as a client has found out: nobody gets it for a while.
    Declined,
    /// The lease is over, and the address kept in mind for the NIC.
    Ended,
}

/// Where it is written that an address is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReservedIn {
    /// In `bootlace.toml`.
    File,
    /// People have fixed it.
    State,
}

/// An address, and who has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LeaseView {
    /// The address.
    pub address: Ipv4Addr,
    /// Who has it; `None`: somebody of whom nothing more is known.
    pub mac: Option<Mac>,
    /// The machine whose NIC that is.
    pub machine: Option<MachineName>,
    /// What the client calls itself.
    pub host_name: Option<String>,
    /// By what it is his.
    pub kind: LeaseKind,
    /// Where it is written, if it is reserved.
    pub reserved_in: Option<ReservedIn>,
    /// Until when, or since when not any more; seconds since 1970. `None`: there is no end, or there is no lease.
    pub ends_unix: Option<u64>,
    /// Whether a machine runs there.
    pub is_in_use: bool,
    /// The network that it lies in; `None`: in none in which we give addresses.
    pub network: Option<String>,
}

/// Whose an address shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FixWish {
    /// This NIC's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// That of this machine: of its NIC that has the address now, or of its first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineName>,
}

/// An address is somebody's for ever.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fixed {
    /// The address.
    pub address: Ipv4Addr,
    /// Whose it is.
    pub mac: Mac,
    /// The machine whose NIC that is.
    pub machine: Option<MachineName>,
    /// What was fixed for it before.
    pub former: Option<Ipv4Addr>,
    /// What it has until it asks again, if that is another one.
    pub has_now: Option<Ipv4Addr>,
    /// It is so already, by the configuration.
    pub is_in_file: bool,
}

/// An address can be given to others.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Freed {
    /// The address.
    pub address: Ipv4Addr,
    /// Who had it; `None`: nobody, it rested.
    pub mac: Option<Mac>,
    /// The machine whose NIC that is.
    pub machine: Option<MachineName>,
    /// Until when the lease would have gone on; `None`: it never ended, or was over.
    pub ends_unix: Option<u64>,
    /// The lease was over.
    pub had_ended: bool,
    /// Another DHCP server gave it, and goes on doing so.
    pub by_others: bool,
    /// It is still for this NIC alone, for ever.
    pub reserved_for: Option<Mac>,
}

impl Viewer {
    /// All addresses that somebody has, had or may have for ever, in their order.
    ///
    /// # Errors
    /// The database can't be read.
    pub async fn leases(&self) -> Result<Vec<LeaseView>, Error> {
        self.service().lease_views().await
    }
}

impl Service {
    /// The networks in which we give addresses.
    ///
    /// # Errors
    /// Others do, or it is not known.
    fn leased_networks(&self) -> Result<&[LeasedNetwork], LeaseError> {
        match &self.options().leasing {
            Leasing::Ours(networks) => Ok(networks),
            Leasing::Others => Err(LeaseError::ByOthers),
            Leasing::Unknown(why) => Err(LeaseError::Unknown(why.clone())),
        }
    }

    async fn lease_views(&self) -> Result<Vec<LeaseView>, Error> {
        let declined = self.database().read(|tables| tables.declined()).await?;
        let (view, in_use, now) = (self.view(), self.machines_in_use(), self.now().unix());
        let networks = self.leased_networks().unwrap_or_default();
        let learns = self.options().leasing == Leasing::Others;
        let reserved = reserved(networks, &view);
        let mut all = Vec::new();
        let mut with_lease = HashSet::new();
        for lease in view.leases() {
            let (mac, address) = (lease.mac, lease.address);
            let reserved_in = reserved.get(&(address, mac)).copied();
            let has_ended = lease.expires_unix <= now;
            let kind = match (reserved_in, has_ended) {
                (Some(_), _) => LeaseKind::Reserved,
                (None, true) => LeaseKind::Ended,
                (None, false) if learns => LeaseKind::Learned,
                (None, false) => LeaseKind::Lease,
            };
            with_lease.insert((address, mac));
            let ends_unix = end(lease.expires_unix, now);
            let ends_unix = ends_unix.filter(|_| kind != LeaseKind::Reserved || !has_ended);
            let is_in_use =
                in_use.get(&mac).is_some_and(|at| at.is_none_or(|used| used == address));
            let row = row(networks, &view, address, Some(mac));
            let host_name = lease.host_name.clone();
            all.push(LeaseView { host_name, kind, reserved_in, ends_unix, is_in_use, ..row });
        }
        for (&(address, mac), &place) in &reserved {
            if !with_lease.contains(&(address, mac)) {
                let row = row(networks, &view, address, Some(mac));
                all.push(LeaseView { reserved_in: Some(place), ..row });
            }
        }
        for (address, until) in declined.into_iter().filter(|(_, until)| *until > now) {
            let row = row(networks, &view, address, None);
            let (kind, ends_unix) = (LeaseKind::Declined, Some(until));
            all.push(LeaseView { kind, ends_unix, ..row });
        }
        let clock = self.lease_clock_unix();
        let taken: HashSet<Ipv4Addr> =
            all.iter().filter(|it| it.kind != LeaseKind::Ended).map(|it| it.address).collect();
        let heard = self.lease_desk().heard(clock).into_iter();
        for (address, mac, until) in heard.filter(|(address, ..)| !taken.contains(address)) {
            let row = row(networks, &view, address, Some(mac));
            let (kind, ends_unix) = (LeaseKind::Declined, Some(now + until.saturating_sub(clock)));
            all.push(LeaseView { kind, ends_unix, ..row });
        }
        all.sort_by_key(|it| (it.address, it.kind, it.mac));
        Ok(all)
    }
}

/// `lab-07 (52:54:00:12:34:56)`, or the MAC alone.
fn whose(site: &Site, mac: Mac) -> String {
    match site.machine_by_mac(mac) {
        Some(machine) => format!("{} ({mac})", machine.name),
        None => mac.to_string(),
    }
}

/// What is known of an address and its owner beside the lease.
fn row(networks: &[LeasedNetwork], view: &View, address: Ipv4Addr, mac: Option<Mac>) -> LeaseView {
    let network = networks.iter().find(|network| network.holds(address));
    let machine = mac.and_then(|mac| view.site.machine_by_mac(mac));
    LeaseView {
        address,
        mac,
        machine: machine.map(|machine| machine.name.clone()),
        host_name: None,
        kind: LeaseKind::Reserved,
        reserved_in: None,
        ends_unix: None,
        is_in_use: false,
        network: network.map(|network| format!("{}/{}", network.subnet, network.prefix)),
    }
}

/// Whose addresses are for ever, and where that is written. The configuration counts more, as for who decides on leases.
fn reserved(networks: &[LeasedNetwork], view: &View) -> BTreeMap<(Ipv4Addr, Mac), ReservedIn> {
    let in_file = networks.iter().flat_map(|network| &network.reserved);
    let mut all: BTreeMap<_, _> =
        in_file.map(|(mac, address)| ((*address, *mac), ReservedIn::File)).collect();
    for (mac, address) in view.fixed.iter() {
        let is_in_file = networks.iter().any(|network| {
            network.holds(*address)
                && (network.reserved.contains_key(mac)
                    || network.reserved.values().any(|other| other == address))
        });
        if !is_in_file {
            all.insert((*address, *mac), ReservedIn::State);
        }
    }
    all
}

/// When a lease ends; `None`: never.
fn end(expires_unix: u64, now_unix: u64) -> Option<u64> {
    Some(expires_unix).filter(|it| it.saturating_sub(now_unix) < NEVER_SECONDS)
}

impl Admin {
    /// Ends the lease of an address, or the rest of one that was declined. Its client goes on using it until it asks again.
    ///
    /// # Errors
    /// Nobody has it, or it is its owner's for ever, or the database can't be written.
    pub async fn free_lease(&self, address: Ipv4Addr) -> Result<Freed, Error> {
        let service = self.service();
        let _turn = service.lease_desk().turn().acquire().await.map_err(|_| Error::Stopping)?;
        let (actor, now) = (self.shared_actor(), self.now());
        let networks = service.leased_networks().unwrap_or_default().to_vec();
        let site = self.site();
        let heard = service.lease_desk().forget_heard(address, service.lease_clock_unix());
        let freeing = service.database().write(move |tables| {
            let in_file = networks.iter().flat_map(|network| &network.reserved);
            let mut in_file = in_file.filter(|(_, its)| **its == address).map(|(mac, _)| *mac);
            let in_file = in_file.next();
            let fixed = tables.fixed_addresses()?.into_iter();
            let fixed = fixed.filter(|(_, its)| *its == address).map(|(mac, _)| mac).next();
            let rested = tables.delete_declined(address)?.is_some_and(|until| until > now.unix());
            let rested = rested || heard;
            let lease = tables.delete_lease(address)?;
            let owner = in_file.or(fixed);
            if !rested {
                let its_own = lease.as_ref().is_none_or(|lease| owner == Some(lease.mac));
                match (in_file, fixed) {
                    (Some(mac), _) if its_own => {
                        return Err(Error::from(LeaseError::InFile { address, mac }).into());
                    }
                    (None, Some(mac)) if its_own => {
                        let who = whose(&site, mac);
                        return Err(Error::from(LeaseError::Fixed { address, who }).into());
                    }
                    _ if lease.is_none() => {
                        return Err(Error::from(LeaseError::Nobodys(address)).into());
                    }
                    _ => {}
                }
            }
            let old = lease.as_ref().map_or_else(|| "declined".to_owned(), |it| it.mac.to_string());
            let change = FieldChange { field: "lease".to_owned(), old: Some(old), new: None };
            tables.put_audit(&actor.does("lease.free", &address, vec![change], now.unix_ms))?;
            Ok((lease, rested, owner))
        });
        let (lease, rested, reserved_for) = freeing.await?;
        if let Some(lease) = &lease {
            service.lease_desk().tell(LeaseNews::Freed(lease.mac, address)).await;
        }
        if rested {
            service.lease_desk().tell(LeaseNews::Rested(address)).await;
            service.resolved(FindingKind::AddressInUse, &Subject::Address(address));
        }
        let mac = lease.as_ref().map(|lease| lease.mac);
        tracing::info!(%address, mac = mac.map(tracing::field::display), "address freed");
        let site = self.site();
        let machine = mac.and_then(|mac| site.machine_by_mac(mac));
        let had_ended = lease.as_ref().is_some_and(|lease| lease.expires_unix <= now.unix());
        Ok(Freed {
            address,
            mac,
            machine: machine.map(|machine| machine.name.clone()),
            ends_unix: lease.and_then(|it| end(it.expires_unix, now.unix())).filter(|_| !had_ended),
            had_ended,
            by_others: service.options().leasing == Leasing::Others,
            reserved_for,
        })
    }

    /// Fixes an address for a NIC: nobody else gets it any more, and that one no other.
    ///
    /// # Errors
    /// Somebody else has it, or the configuration says otherwise, or no host can have it, or the database can't be written.
    pub async fn fix_address(&self, address: Ipv4Addr, wish: FixWish) -> Result<Fixed, Error> {
        let service = self.service();
        let networks = service.leased_networks()?.to_vec();
        let (actor, now, site) = (self.shared_actor(), self.now(), self.site());
        let mac = self.nic_of(address, &wish)?;
        let in_use = service.machines_in_use();
        let fixing = service.database().write(move |tables| {
            let known = Known::read(tables, networks, (in_use, site), now.unix())?;
            if known.is_in_file(mac, address) {
                let has_now = known.lease_of(mac).filter(|its| *its != address);
                return Ok((None, has_now, true));
            }
            known.check_fix(mac, address)?;
            let former = known.fixed_of(mac).filter(|former| *former != address);
            if known.n_fixed() >= FIXED_MAX && known.fixed_of(mac).is_none() {
                return Err(Error::from(LeaseError::TooManyFixed(FIXED_MAX)).into());
            }
            tables.put_fixed_address(mac, address)?;
            let change =
                FieldChange { field: "fixed for".into(), old: None, new: Some(mac.to_string()) };
            tables.put_audit(&actor.does("lease.fix", &address, vec![change], now.unix_ms))?;
            Ok((former, known.lease_of(mac).filter(|its| *its != address), false))
        });
        let (former, has_now, is_in_file) = fixing.await?;
        tracing::info!(%address, %mac, "address fixed");
        let machine = self.site().machine_by_mac(mac).map(|machine| machine.name.clone());
        Ok(Fixed { address, mac, machine, former, has_now, is_in_file })
    }

    /// The NIC that an address is to be fixed for.
    fn nic_of(&self, address: Ipv4Addr, wish: &FixWish) -> Result<Mac, Error> {
        let site = self.site();
        let has_it = self.service().view().owner(address);
        let machine = wish
            .machine
            .as_ref()
            .map(|name| site.machine(name).ok_or_else(|| Error::NoMachine(name.clone())));
        match (machine.transpose()?, wish.mac) {
            (Some(machine), Some(mac)) if !machine.macs().any(|its| its == mac) => {
                Err(LeaseError::NotItsMac { mac, machine: machine.name.clone() }.into())
            }
            (_, Some(mac)) if !mac.is_of_a_nic() => Err(Error::GroupMac(mac)),
            (_, Some(mac)) => Ok(mac),
            (Some(machine), None) => {
                let has_it = has_it.filter(|mac| machine.macs().any(|its| its == *mac));
                Ok(has_it.unwrap_or(machine.mac))
            }
            (None, None) => Ok(has_it.ok_or(LeaseError::ForWhom(address))?),
        }
    }

    /// Takes it back that an address is fixed; whose it was. That one keeps it as a lease.
    ///
    /// # Errors
    /// It is fixed for nobody, or in the configuration, or the database can't be written.
    pub async fn unfix_address(&self, address: Ipv4Addr) -> Result<Mac, Error> {
        let service = self.service();
        let (actor, now_unix_ms) = (self.shared_actor(), self.now().unix_ms);
        let networks = service.leased_networks().unwrap_or_default().to_vec();
        let undoing = service.database().write(move |tables| {
            let Some(mac) = tables.delete_fixed_address(address)? else {
                let mut in_file = networks.iter().flat_map(|network| &network.reserved);
                return Err(Error::from(match in_file.find(|(_, its)| **its == address) {
                    Some((&mac, _)) => LeaseError::InFile { address, mac },
                    None => LeaseError::NotFixed(address),
                })
                .into());
            };
            let change =
                FieldChange { field: "fixed for".into(), old: Some(mac.to_string()), new: None };
            tables.put_audit(&actor.does("lease.unfix", &address, vec![change], now_unix_ms))?;
            Ok(mac)
        });
        let mac = undoing.await?;
        tracing::info!(%address, %mac, "address not fixed any more");
        Ok(mac)
    }
}
