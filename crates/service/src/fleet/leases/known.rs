//! What decides whether somebody may have an address, as it is in one transaction.

use super::{end, whose};
use crate::error::{Error, LeaseError};
use crate::options::LeasedNetwork;
use crate::store::{self, ChangeError, Transaction};
use model::{Lease, Site};
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use wire::Mac;

/// Everything that is known of addresses.
pub(super) struct Known {
    networks: Vec<LeasedNetwork>,
    leases: HashMap<Mac, Lease>,
    owners: HashMap<Ipv4Addr, Mac>,
    /// Until when they rest.
    declined: HashMap<Ipv4Addr, u64>,
    fixed: BTreeMap<Mac, Ipv4Addr>,
    /// Whose they are, by the configuration or as people have fixed them.
    reserved: HashMap<Ipv4Addr, Mac>,
    in_use: BTreeMap<Mac, Option<Ipv4Addr>>,
    used_at: HashMap<Ipv4Addr, Mac>,
    site: Arc<Site>,
    now_unix: u64,
}

/// What becomes of a lease of another server.
pub(super) enum Verdict {
    /// It is ours from now on.
    Take,
    /// The client has it here, for as long.
    Known,
    /// It has ended.
    Ended,
    /// It is not taken, and this is why.
    LeftOut(String),
}

impl Known {
    pub(super) fn read(
        tables: &Transaction<'_>,
        networks: Vec<LeasedNetwork>,
        (in_use, site): (BTreeMap<Mac, Option<Ipv4Addr>>, Arc<Site>),
        now_unix: u64,
    ) -> store::Result<Self> {
        let leases: HashMap<Mac, Lease> =
            tables.leases()?.into_iter().map(|lease| (lease.mac, lease)).collect();
        let fixed: BTreeMap<Mac, Ipv4Addr> = tables.fixed_addresses()?.into_iter().collect();
        let of_people = fixed.iter().map(|(mac, address)| (*address, *mac));
        let mut reserved: HashMap<Ipv4Addr, Mac> = of_people.collect();
        let in_file = networks.iter().flat_map(|network| &network.reserved);
        reserved.extend(in_file.map(|(mac, address)| (*address, *mac)));
        Ok(Self {
            owners: leases.values().map(|lease| (lease.address, lease.mac)).collect(),
            declined: tables.declined()?.into_iter().collect(),
            used_at: in_use.iter().filter_map(|(mac, at)| Some(((*at)?, *mac))).collect(),
            networks,
            leases,
            fixed,
            reserved,
            in_use,
            site,
            now_unix,
        })
    }

    fn network_of(&self, address: Ipv4Addr) -> Option<&LeasedNetwork> {
        self.networks.iter().find(|network| network.holds(address))
    }

    /// The configuration says that the address is this NIC's.
    pub(super) fn is_in_file(&self, mac: Mac, address: Ipv4Addr) -> bool {
        self.networks.iter().any(|network| network.reserved.get(&mac) == Some(&address))
    }

    pub(super) fn fixed_of(&self, mac: Mac) -> Option<Ipv4Addr> {
        self.fixed.get(&mac).copied()
    }

    pub(super) fn n_fixed(&self) -> usize {
        self.fixed.len()
    }

    fn running(&self, mac: Mac) -> Option<&Lease> {
        self.leases.get(&mac).filter(|lease| lease.expires_unix > self.now_unix)
    }

    /// The address that the NIC has by a lease that goes on.
    pub(super) fn lease_of(&self, mac: Mac) -> Option<Ipv4Addr> {
        self.running(mac).map(|lease| lease.address)
    }

    /// Who else has the address now, or uses it.
    fn other_owner(&self, mac: Mac, address: Ipv4Addr) -> Option<Mac> {
        let leased = self.owners.get(&address).copied().filter(|owner| {
            let uses = self.in_use.get(owner).is_some_and(|at| at.is_none_or(|at| at == address));
            self.running(*owner).is_some() || uses
        });
        let used = self.used_at.get(&address).copied();
        [leased, used].into_iter().flatten().find(|owner| *owner != mac)
    }

    fn whose(&self, mac: Mac) -> String {
        whose(&self.site, mac)
    }

    /// Why no client of its network can have this address; `None`: one can.
    fn unfit(&self, network: &LeasedNetwork, address: Ipv4Addr) -> Option<&'static str> {
        if address == network.server {
            Some("it is the boot server's own")
        } else if network.router == Some(address) {
            Some("it is the router's")
        } else {
            (!network.is_host_s(address)).then_some("no host of its network can have it")
        }
    }

    /// Whether the address can be fixed for this NIC.
    pub(super) fn check_fix(&self, mac: Mac, address: Ipv4Addr) -> Result<(), ChangeError> {
        let refuse = |error: LeaseError| Err(ChangeError::from(Error::from(error)));
        let Some(network) = self.network_of(address) else {
            let networks = self.networks.iter();
            let networks = networks.map(|it| format!("{}/{}", it.subnet, it.prefix));
            let networks = networks.collect::<Vec<_>>().join(", ");
            let why = format!("it lies in no network that Bootlace serves ({networks})");
            return refuse(LeaseError::Unfit { address, why });
        };
        if let Some(why) = self.unfit(network, address) {
            return refuse(LeaseError::Unfit { address, why: why.to_owned() });
        }
        if let Some(&its) = network.reserved.get(&mac) {
            return refuse(LeaseError::OtherInFile { mac, address: its, wanted: address });
        }
        if let Some((&owner, _)) = network.reserved.iter().find(|(_, its)| **its == address) {
            return refuse(LeaseError::InFile { address, mac: owner });
        }
        if let Some(owner) = self.reserved.get(&address).filter(|owner| **owner != mac) {
            return refuse(LeaseError::Fixed { address, who: self.whose(*owner) });
        }
        match self.other_owner(mac, address) {
            Some(owner) => refuse(LeaseError::Leased { address, who: self.whose(owner) }),
            None => Ok(()),
        }
    }

    /// What becomes of a lease that another server has given until then, `None` for ever.
    pub(super) fn verdict(&self, mac: Mac, address: Ipv4Addr, ends_unix: Option<u64>) -> Verdict {
        let left_out = |why: String| Verdict::LeftOut(why);
        if ends_unix.is_some_and(|ends| ends <= self.now_unix) {
            return Verdict::Ended;
        }
        if !mac.is_of_a_nic() {
            return left_out(format!("no network card has the MAC address {mac}"));
        }
        let Some(network) = self.network_of(address) else {
            return left_out("it lies in no network that Bootlace serves".to_owned());
        };
        if let Some(why) = self.unfit(network, address) {
            return left_out(why.to_owned());
        }
        let its = network.reserved.get(&mac).copied().or(self.fixed_of(mac));
        if let Some(its) = its.filter(|its| *its != address) {
            return left_out(format!("{} has {its} for ever", self.whose(mac)));
        }
        match self.reserved.get(&address) {
            Some(owner) if *owner != mac => {
                return left_out(format!("it is reserved for {}", self.whose(*owner)));
            }
            None if !(network.pool.0..=network.pool.1).contains(&address) => {
                let (first, last) = network.pool;
                return left_out(format!("it lies outside of the pool {first}-{last}"));
            }
            _ => {}
        }
        if self.declined.get(&address).is_some_and(|until| *until > self.now_unix) {
            let why = "somebody uses it without a lease: bootlace lease free has it given again";
            return left_out(why.to_owned());
        }
        if let Some(owner) = self.other_owner(mac, address) {
            return left_out(format!("it is {}'s here, and stays so", self.whose(owner)));
        }
        let used = self.in_use.get(&mac).copied().flatten();
        if let Some(other) = self.lease_of(mac).or(used).filter(|other| *other != address) {
            return left_out(format!("{} has {other} here, and keeps it", self.whose(mac)));
        }
        let has_until = self.running(mac).map(|lease| end(lease.expires_unix, self.now_unix));
        let is_known = has_until.is_some_and(|until| match (until, ends_unix) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(until), Some(ends)) => until >= ends,
        });
        if is_known { Verdict::Known } else { Verdict::Take }
    }

    /// A lease is taken: it counts for those that follow.
    pub(super) fn note(&mut self, lease: &Lease) {
        if let Some(former) = self.leases.insert(lease.mac, lease.clone()) {
            self.owners.remove(&former.address);
        }
        if let Some(former) = self.owners.insert(lease.address, lease.mac)
            && former != lease.mac
        {
            self.leases.remove(&former);
        }
    }
}
