//! Addresses: who has which, and which is next.

use crate::server::Config;
use alloc::collections::{BTreeMap, BTreeSet};
use core::net::Ipv4Addr;
use wire::{Lease, Mac};

/// An offered address is kept for its client for so long (seconds).
const OFFER_SECONDS: u64 = 60;

/// An address that a client found in use is left alone for so long (seconds).
const DECLINED_SECONDS: u64 = 600;

/// Offers that are held at once, so that strangers can't fill the memory. Beyond, an offer is made but
/// not held: of two clients that got the same one, the slower is refused and asks again.
const OFFERS_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Pool {
    by_mac: BTreeMap<Mac, Lease>,
    by_address: BTreeMap<Ipv4Addr, Mac>,
    /// What each client was offered, and until when it is held.
    offers: BTreeMap<Mac, (Ipv4Addr, u64)>,
    /// The clients of `offers`: a full pool is searched address by address.
    offered: BTreeMap<Ipv4Addr, Mac>,
    reserved: BTreeMap<Ipv4Addr, Mac>,
    declined: BTreeMap<Ipv4Addr, u64>,
    /// Clients that are known to use their address, whatever is said in their name.
    in_use: BTreeSet<Mac>,
}

impl Pool {
    pub(crate) fn new(config: &Config, leases: impl IntoIterator<Item = Lease>) -> Self {
        let reserved = config.reserved.iter().map(|(mac, address)| (*address, *mac)).collect();
        let mut pool = Self { reserved, ..Self::default() };
        for lease in leases {
            pool.set(&lease);
        }
        pool
    }

    /// Remembers a lease, in place of the MAC's and the address's former ones.
    pub(crate) fn set(&mut self, lease: &Lease) {
        if let Some(other) = self.by_address.insert(lease.address, lease.mac)
            && other != lease.mac
        {
            self.by_mac.remove(&other);
        }
        self.forget_offer(lease.mac);
        if let Some(former) = self.by_mac.insert(lease.mac, lease.clone())
            && former.address != lease.address
        {
            self.by_address.remove(&former.address);
        }
    }

    pub(crate) fn protect(&mut self, in_use: BTreeSet<Mac>) {
        self.in_use = in_use;
    }

    /// The address that this client is known to use.
    pub(crate) fn used_by(&self, mac: Mac) -> Option<Ipv4Addr> {
        self.in_use.get(&mac).and_then(|mac| self.by_mac.get(mac)).map(|lease| lease.address)
    }

    pub(crate) fn lease(&self, mac: Mac) -> Option<&Lease> {
        self.by_mac.get(&mac)
    }

    pub(crate) fn offer(&mut self, mac: Mac, address: Ipv4Addr, now: u64) {
        self.forget_offer(mac);
        if self.offers.len() >= OFFERS_MAX {
            self.offers.retain(|_, (_, until)| *until > now);
            let offers = &self.offers;
            self.offered.retain(|_, mac| offers.contains_key(mac));
        }
        if self.offers.len() < OFFERS_MAX {
            self.offers.insert(mac, (address, now.saturating_add(OFFER_SECONDS)));
            // Whose former offer of the address has ended.
            if let Some(former) = self.offered.insert(address, mac) {
                self.offers.remove(&former);
            }
        }
    }

    pub(crate) fn forget_offer(&mut self, mac: Mac) {
        if let Some((address, _)) = self.offers.remove(&mac) {
            self.offered.remove(&address);
        }
    }

    /// Takes the address away from its client, for somebody else uses it.
    pub(crate) fn decline(&mut self, mac: Mac, address: Ipv4Addr, now: u64) {
        self.forget_offer(mac);
        if self.by_mac.get(&mac).is_some_and(|lease| lease.address == address) {
            self.by_mac.remove(&mac);
            self.by_address.remove(&address);
        }
        self.declined.retain(|_, until| *until > now);
        self.declined.insert(address, now.saturating_add(DECLINED_SECONDS));
    }

    /// Whether `mac` may have `address` now: it lies in the pool or is reserved for it, and nobody
    /// else has it.
    pub(crate) fn is_free_for(
        &self,
        config: &Config,
        mac: Mac,
        address: Ipv4Addr,
        now: u64,
    ) -> bool {
        match self.reserved.get(&address) {
            Some(owner) if *owner != mac => return false,
            None if !config.is_in_pool(address) => return false,
            _ => {}
        }
        let is_held = self
            .by_address
            .get(&address)
            .filter(|owner| **owner != mac)
            .and_then(|owner| self.by_mac.get(owner))
            .is_some_and(|lease| lease.expires_unix > now || self.in_use.contains(&lease.mac));
        let is_offered = self
            .offered
            .get(&address)
            .filter(|owner| **owner != mac)
            .and_then(|owner| self.offers.get(owner))
            .is_some_and(|(_, until)| *until > now);
        let is_declined = self.declined.get(&address).is_some_and(|until| *until > now);
        !is_held && !is_offered && !is_declined && address != config.server
    }

    /// The address for a client that looks for one: its reservation, its former address, what it was
    /// offered, what it wants, one that nobody ever had, or the one that ended longest ago.
    pub(crate) fn choose(
        &self,
        config: &Config,
        mac: Mac,
        wanted: Option<Ipv4Addr>,
        now: u64,
    ) -> Option<Ipv4Addr> {
        if let Some(address) = config.reserved.get(&mac) {
            // Somebody may still hold it from before it was reserved.
            return self.is_free_for(config, mac, *address, now).then_some(*address);
        }
        let former = self.by_mac.get(&mac).map(|lease| lease.address);
        let offered = self.offers.get(&mac).map(|(address, _)| *address);
        let is_free = |address: &Ipv4Addr| self.is_free_for(config, mac, *address, now);
        if let Some(address) = [former, offered, wanted].into_iter().flatten().find(is_free) {
            return Some(address);
        }
        let first = config.pool.0.to_bits();
        let count = config.pool.1.to_bits() - first + 1;
        // Where a MAC starts looking is its own, so that it gets the same address again even if its
        // lease was lost.
        let start =
            mac.0.iter().fold(0u32, |hash, &byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let addresses = (0..count)
            .map(|step| Ipv4Addr::from_bits(first + (start % count + step) % count))
            .filter(|address| is_free(address));
        let ended = |address: &Ipv4Addr| {
            let owner = self.by_address.get(address)?;
            self.by_mac.get(owner).map(|lease| lease.expires_unix)
        };
        let mut longest_ended = None;
        for address in addresses {
            match ended(&address) {
                None => return Some(address),
                Some(at) if longest_ended.is_none_or(|(_, before)| at < before) => {
                    longest_ended = Some((address, at));
                }
                Some(_) => {}
            }
        }
        longest_ended.map(|(address, _)| address)
    }
}
