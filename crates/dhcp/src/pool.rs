//! Addresses: who has which, and which is next.
//!
//! What is next is found without a walk through the pool: strangers may have asked for all of it.

use crate::ranges::Ranges;
use crate::server::Config;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use wire::{Lease, Mac};

/// An offered address is kept for its client for so long (seconds).
const OFFER_SECONDS: u64 = 60;

/// If the client is a stranger, for so long: firmware asks for what it was offered within 5 s.
const STRANGERS_OFFER_SECONDS: u64 = 15;

/// An address that a client found in use is left alone for so long (seconds).
pub const DECLINED_SECONDS: u64 = 600;

/// A known client that was given an address is on its way to use it for so long: nobody else gets it, nor does who speaks
/// in its name get it another one, whatever he says.
const HELD_SECONDS: u64 = 60;

/// Offers that are held at once, so that strangers can't fill the memory. Beyond, an offer is made but
/// not held: of two clients that got the same one, the slower is refused and asks again.
const OFFERS_MAX: usize = 4096;

/// Strangers may have one of so many addresses of the pool: a room of new PCs can be adopted at once, and whoever
/// invents PCs leaves as many for those that are known.
const STRANGERS_SHARE: u32 = 2;

/// Who has how many addresses of the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Addresses of the pool that anybody may have; those that are reserved for a NIC are not among them.
    pub n_addresses: u32,
    /// Those that known clients have.
    pub n_known: u32,
    /// Those that strangers have, were offered or have declined.
    pub n_strangers: u32,
    /// Those that strangers may have.
    pub n_strangers_max: u32,
    /// Those that rest, since somebody uses them who has no lease.
    pub n_declined: u32,
}

/// What becomes of an address that somebody was heard to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is his, or none that is given to anybody.
    Right,
    /// Nobody gets it until then, seconds since 1970.
    Rests(u64),
    /// The client with this NIC has leased it.
    Conflict(Mac),
}

#[derive(Debug)]
pub(crate) struct Pool {
    first: u32,
    last: u32,
    n_addresses: u32,
    /// Addresses of the server.
    own: Vec<Ipv4Addr>,
    reserved: BTreeMap<Ipv4Addr, Mac>,
    owners: BTreeMap<Mac, Ipv4Addr>,
    known: BTreeSet<Mac>,
    /// Of these so many look for an address here; `None`: all.
    n_expected: Option<usize>,
    /// Clients that are known to use their address, whatever is said in their name; which one, if that is known, too.
    in_use: BTreeMap<Mac, Option<Ipv4Addr>>,
    /// The same by address.
    used_at: BTreeMap<Ipv4Addr, Mac>,
    /// Until when known clients hold the address that they were given last.
    held: BTreeMap<Mac, u64>,
    by_mac: BTreeMap<Mac, Lease>,
    by_address: BTreeMap<Ipv4Addr, Mac>,
    /// Whose lease is stored for good.
    stored: BTreeSet<Mac>,
    /// Leases of the pool that have not ended, by their ends.
    strangers: BTreeSet<(u64, Mac)>,
    acquainted: BTreeSet<(u64, Mac)>,
    offers: BTreeMap<Mac, Offer>,
    offered: BTreeMap<Ipv4Addr, Mac>,
    offer_ends: BTreeSet<(u64, Mac)>,
    n_strangers_offered: u32,
    /// Until when each rests, and whether it takes an address of the strangers' share: who is given one after the other
    /// and declines them all must not take the others, either.
    declined: BTreeMap<Ipv4Addr, (u64, bool)>,
    declined_ends: BTreeSet<(u64, Ipv4Addr)>,
    n_strangers_declined: u32,
    /// Addresses that nobody ever had, and nobody is offered now.
    unused: Ranges,
    /// Those that somebody has or had, and nobody is offered now: whether that one is known, until when, the address.
    used: BTreeSet<(bool, u64, Ipv4Addr)>,
    /// Where they are in there.
    filed: BTreeMap<Ipv4Addr, (bool, u64)>,
}

/// What a client was offered.
#[derive(Clone, Copy, Debug)]
struct Offer {
    address: Ipv4Addr,
    until: u64,
    /// It takes an address of the strangers' share.
    takes_share: bool,
}

impl Pool {
    pub(crate) fn new(config: &Config, leases: impl IntoIterator<Item = Lease>) -> Self {
        let reserved: BTreeMap<Ipv4Addr, Mac> =
            config.reserved.iter().map(|(mac, address)| (*address, *mac)).collect();
        let (first, last) = config.pool_range();
        let mut pool = Self {
            first,
            last,
            n_addresses: 0,
            own: core::iter::once(config.server).chain(config.others.iter().copied()).collect(),
            reserved,
            owners: config.reserved.clone(),
            known: BTreeSet::new(),
            n_expected: None,
            in_use: BTreeMap::new(),
            used_at: BTreeMap::new(),
            held: BTreeMap::new(),
            by_mac: BTreeMap::new(),
            by_address: BTreeMap::new(),
            strangers: BTreeSet::new(),
            acquainted: BTreeSet::new(),
            offers: BTreeMap::new(),
            offered: BTreeMap::new(),
            offer_ends: BTreeSet::new(),
            n_strangers_offered: 0,
            declined: BTreeMap::new(),
            declined_ends: BTreeSet::new(),
            n_strangers_declined: 0,
            stored: BTreeSet::new(),
            unused: Ranges::new(first, last),
            used: BTreeSet::new(),
            filed: BTreeMap::new(),
        };
        for address in pool.apart() {
            pool.unused.remove(address);
        }
        pool.n_addresses = pool.count_addresses();
        for lease in leases {
            pool.set(&lease);
            pool.note_stored(&lease);
        }
        pool
    }

    /// Addresses of the range that are not for anybody.
    fn apart(&self) -> BTreeSet<u32> {
        let apart = self.reserved.keys().chain(&self.own).map(|address| address.to_bits());
        apart.filter(|address| (self.first..=self.last).contains(address)).collect()
    }

    fn count_addresses(&self) -> u32 {
        let n_all = if self.first <= self.last { self.last - self.first + 1 } else { 0 };
        n_all.saturating_sub(u32::try_from(self.apart().len()).unwrap_or(u32::MAX))
    }

    /// Exactly these addresses are reserved from now on. Who has one that is reserved for another keeps it until his
    /// lease ends.
    pub(crate) fn reserve(&mut self, owners: &BTreeMap<Mac, Ipv4Addr>) {
        if self.owners == *owners {
            return;
        }
        let reserved = owners.iter().map(|(mac, address)| (*address, *mac)).collect();
        let former = core::mem::replace(&mut self.reserved, reserved);
        self.owners.clone_from(owners);
        self.n_addresses = self.count_addresses();
        let both: BTreeSet<Ipv4Addr> = former.keys().chain(self.reserved.keys()).copied().collect();
        for address in both {
            if let Some((until, _)) = self.declined.get(&address).copied() {
                self.rest(address, until);
            }
            self.file(address);
        }
        self.know(self.known.clone());
    }

    /// Nobody is known to use the address without a lease any more.
    pub(crate) fn stop_resting(&mut self, address: Ipv4Addr) {
        self.forget_declined(address);
    }

    /// These clients are known from now on, and all others strangers.
    pub(crate) fn know(&mut self, known: BTreeSet<Mac>) {
        self.known = known;
        let mut held = core::mem::take(&mut self.held);
        held.retain(|mac, _| self.is_known(*mac));
        self.held = held;
        (self.strangers, self.acquainted) = Default::default();
        let leases: Vec<_> = self.by_mac.values().cloned().collect();
        for lease in leases {
            self.count(&lease);
            self.file(lease.address);
        }
        for offer in self.offers.values_mut() {
            offer.takes_share = false;
        }
        self.n_strangers_offered = 0;
        let offered: Vec<Mac> = self.offers.keys().copied().collect();
        for mac in offered {
            let takes_share = self.takes_share(mac);
            if let Some(offer) = self.offers.get_mut(&mac) {
                offer.takes_share = takes_share;
                self.n_strangers_offered += u32::from(takes_share);
            }
        }
    }

    pub(crate) fn is_known(&self, mac: Mac) -> bool {
        self.known.contains(&mac) || self.owners.contains_key(&mac)
    }

    /// So many known clients look for an address here.
    pub(crate) fn expect(&mut self, n: usize) {
        self.n_expected = Some(n);
    }

    /// The client has its address elsewhere now.
    pub(crate) fn forget(&mut self, mac: Mac) {
        self.forget_offer(mac);
        self.held.remove(&mac);
        if let Some(Lease { address, .. }) = self.forget_lease(mac) {
            self.by_address.remove(&address);
            self.file(address);
        }
    }

    /// What has ended by `now` has ended. Everything else here counts on it.
    pub(crate) fn on_time(&mut self, now: u64) {
        while let Some(&(_, mac)) = self.offer_ends.first().filter(|(until, _)| *until <= now) {
            self.forget_offer(mac);
        }
        for leases in [&mut self.strangers, &mut self.acquainted] {
            while leases.first().is_some_and(|(end, _)| *end <= now) {
                leases.pop_first();
            }
        }
        while let Some(&(_, address)) = self.declined_ends.first().filter(|(it, _)| *it <= now) {
            self.forget_declined(address);
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Usage {
            n_addresses: self.n_addresses,
            n_known: count(self.acquainted.len()),
            n_strangers: self.n_strangers(),
            n_strangers_max: self.n_strangers_max(),
            n_declined: count(
                self.declined.keys().filter(|address| self.is_for_anybody(**address)).count(),
            ),
        }
    }

    fn n_strangers(&self) -> u32 {
        u32::try_from(self.strangers.len()).unwrap_or(u32::MAX)
            + self.n_strangers_offered
            + self.n_strangers_declined
    }

    /// So many that each known client finds an address, and not more than the strangers' share.
    fn n_strangers_max(&self) -> u32 {
        let known = self.known.iter().filter(|mac| !self.owners.contains_key(mac)).count();
        let known = self.n_expected.map_or(known, |n| n.min(known));
        let known = u32::try_from(known).unwrap_or(u32::MAX);
        (self.n_addresses / STRANGERS_SHARE).max(1).min(self.n_addresses.saturating_sub(known))
    }

    /// Whether an address for this client would be one more of the strangers' share.
    fn takes_share(&self, mac: Mac) -> bool {
        let has_one = self
            .by_mac
            .get(&mac)
            .is_some_and(|it| self.strangers.contains(&(it.expires_unix, mac)));
        !self.is_known(mac) && !has_one
    }

    /// Whether the share of the client, if it is a stranger, has room for it.
    pub(crate) fn has_room_for(&self, mac: Mac) -> bool {
        let is_offered = self.offers.get(&mac).is_some_and(|offer| offer.takes_share);
        is_offered || !self.takes_share(mac) || self.n_strangers() < self.n_strangers_max()
    }

    fn is_in_pool(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address.to_bits())
    }

    fn is_for_anybody(&self, address: Ipv4Addr) -> bool {
        let is_apart = self.reserved.contains_key(&address) || self.own.contains(&address);
        self.is_in_pool(address) && !is_apart
    }

    /// Remembers a lease, in place of the MAC's and the address's former ones.
    pub(crate) fn set(&mut self, lease: &Lease) {
        if let Some(other) = self.by_address.insert(lease.address, lease.mac)
            && other != lease.mac
        {
            self.forget_lease(other);
        }
        self.forget_offer(lease.mac);
        if let Some(former) = self.forget_lease(lease.mac)
            && former.address != lease.address
        {
            self.by_address.remove(&former.address);
            self.file(former.address);
        }
        self.by_mac.insert(lease.mac, lease.clone());
        self.count(lease);
        self.file(lease.address);
    }

    fn forget_lease(&mut self, mac: Mac) -> Option<Lease> {
        let lease = self.by_mac.remove(&mac)?;
        self.strangers.remove(&(lease.expires_unix, mac));
        self.acquainted.remove(&(lease.expires_unix, mac));
        self.stored.remove(&mac);
        Some(lease)
    }

    /// A lease is stored for good.
    pub(crate) fn note_stored(&mut self, lease: &Lease) {
        if self.lease(lease.mac) == Some(lease) {
            self.stored.insert(lease.mac);
        }
    }

    /// Whether the client's lease is stored for good as it is.
    pub(crate) fn is_stored(&self, mac: Mac) -> bool {
        self.stored.contains(&mac)
    }

    /// Counts a lease, which may have ended: that shows when the time is told.
    fn count(&mut self, lease: &Lease) {
        if self.is_for_anybody(lease.address) {
            let is_known = self.is_known(lease.mac);
            let leases = if is_known { &mut self.acquainted } else { &mut self.strangers };
            leases.insert((lease.expires_unix, lease.mac));
        }
    }

    /// Notes where a client that looks for an address would find this one, if it would.
    fn file(&mut self, address: Ipv4Addr) {
        match self.filed.remove(&address) {
            Some((is_known, end)) => drop(self.used.remove(&(is_known, end, address))),
            None => self.unused.remove(address.to_bits()),
        }
        let is_busy = self.offered.contains_key(&address)
            || self.declined.contains_key(&address)
            || self.used_at.contains_key(&address);
        if is_busy || !self.is_for_anybody(address) {
            return;
        }
        match self.by_address.get(&address).and_then(|mac| self.by_mac.get(mac)) {
            Some(lease) => {
                let (is_known, end) = (self.is_known(lease.mac), lease.expires_unix);
                self.used.insert((is_known, end, address));
                self.filed.insert(address, (is_known, end));
            }
            None => self.unused.insert(address.to_bits()),
        }
    }

    pub(crate) fn protect(&mut self, in_use: BTreeMap<Mac, Option<Ipv4Addr>>) {
        let by_address = in_use.iter().filter_map(|(mac, address)| Some(((*address)?, *mac)));
        let former = core::mem::replace(&mut self.used_at, by_address.collect());
        self.in_use = in_use;
        let both = former.keys().chain(self.used_at.keys());
        let changed = both.filter(|one| former.contains_key(one) != self.used_at.contains_key(one));
        let changed: Vec<Ipv4Addr> = changed.copied().collect();
        changed.into_iter().for_each(|address| self.file(address));
    }

    /// The leased address that this client is known to use.
    pub(crate) fn used_by(&self, mac: Mac) -> Option<Ipv4Addr> {
        self.in_use.get(&mac).and_then(|_| self.by_mac.get(&mac)).map(|lease| lease.address)
    }

    /// A known client was given its address just now.
    pub(crate) fn hold(&mut self, mac: Mac, now: u64) {
        if self.is_known(mac) {
            self.held.insert(mac, now.saturating_add(HELD_SECONDS));
        }
    }

    /// Whether the client was offered an address just now.
    pub(crate) fn is_offered(&self, mac: Mac) -> bool {
        self.offers.contains_key(&mac)
    }

    /// The address that this client was given just now, if it is known.
    pub(crate) fn held_by(&self, mac: Mac, now: u64) -> Option<Ipv4Addr> {
        self.held.get(&mac).filter(|until| **until > now)?;
        self.by_mac.get(&mac).map(|lease| lease.address)
    }

    pub(crate) fn lease(&self, mac: Mac) -> Option<&Lease> {
        self.by_mac.get(&mac)
    }

    pub(crate) fn offer(&mut self, mac: Mac, address: Ipv4Addr, now: u64) {
        self.forget_offer(mac);
        if self.offers.len() >= OFFERS_MAX {
            return;
        }
        let seconds = if self.is_known(mac) { OFFER_SECONDS } else { STRANGERS_OFFER_SECONDS };
        let until = now.saturating_add(seconds);
        let takes_share = self.takes_share(mac);
        self.n_strangers_offered += u32::from(takes_share);
        self.offers.insert(mac, Offer { address, until, takes_share });
        self.offer_ends.insert((until, mac));
        self.offered.insert(address, mac);
        self.file(address);
    }

    pub(crate) fn forget_offer(&mut self, mac: Mac) {
        if let Some(Offer { address, until, takes_share }) = self.offers.remove(&mac) {
            self.n_strangers_offered -= u32::from(takes_share);
            self.offer_ends.remove(&(until, mac));
            self.offered.remove(&address);
            self.file(address);
        }
    }

    /// Takes the address away from its client, for somebody else uses it. Returns until when it rests.
    pub(crate) fn decline(&mut self, mac: Mac, address: Ipv4Addr, now: u64) -> u64 {
        self.forget_offer(mac);
        if self.by_mac.get(&mac).is_some_and(|lease| lease.address == address) {
            self.forget_lease(mac);
            self.by_address.remove(&address);
        }
        self.held.remove(&mac);
        let until = now.saturating_add(DECLINED_SECONDS);
        self.rest(address, until);
        // Anybody can decline one address after the other in a known client's name.
        while self.n_strangers_declined > 1
            && self.n_strangers() > self.n_strangers_max()
            && self.forget_first_declined()
        {}
        until
    }

    /// Addresses for anybody that nobody has leased, from `from` on, in order, and where the next ones are; `None`: there are no
    /// more. At most `max` are looked at.
    pub(crate) fn unleased(
        &self,
        from: Option<Ipv4Addr>,
        max: u32,
        now: u64,
    ) -> (Vec<Ipv4Addr>, Option<Ipv4Addr>) {
        let start = from.map_or(self.first, Ipv4Addr::to_bits).max(self.first);
        let end = start.saturating_add(max.saturating_sub(1)).min(self.last);
        let is_leased = |address: &Ipv4Addr| {
            let lease = self.by_address.get(address).and_then(|mac| self.by_mac.get(mac));
            lease.is_some_and(|lease| lease.expires_unix > now)
        };
        let all = (start..=end).map(Ipv4Addr::from_bits);
        let found = all
            .filter(|it| {
                self.is_for_anybody(*it) && !is_leased(it) && !self.used_at.contains_key(it)
            })
            .collect();
        (found, (start <= end && end < self.last).then(|| Ipv4Addr::from_bits(end + 1)))
    }

    /// Somebody with this NIC was heard to have the address.
    pub(crate) fn heard(&mut self, mac: Mac, address: Ipv4Addr, now: u64) -> Heard {
        if !self.is_for_anybody(address) || self.used_at.contains_key(&address) {
            return Heard::Right;
        }
        let lease = self.by_address.get(&address).and_then(|owner| self.by_mac.get(owner));
        match lease {
            // Also of a lease that has ended: it is the next one to have it.
            Some(lease) if lease.mac == mac => return Heard::Right,
            Some(lease) if lease.expires_unix > now => return Heard::Conflict(lease.mac),
            _ => {}
        }
        match self.offered.get(&address).copied() {
            Some(client) if client == mac => return Heard::Right,
            Some(client) => self.forget_offer(client),
            None => {}
        }
        let until = now.saturating_add(DECLINED_SECONDS);
        self.rest(address, until);
        // Anybody can say that he has each of them.
        let n_max = (self.n_addresses / STRANGERS_SHARE).max(1);
        while self.n_strangers_declined > n_max && self.forget_first_declined() {}
        Heard::Rests(until)
    }

    /// An address that rests does so no longer. Returns whether there was one.
    fn forget_first_declined(&mut self) -> bool {
        let mut resting = self.declined_ends.iter().map(|(_, address)| *address);
        let first = resting.find(|address| self.is_for_anybody(*address));
        if let Some(first) = first {
            self.forget_declined(first);
        }
        first.is_some()
    }

    /// Leaves an address alone until then.
    pub(crate) fn rest(&mut self, address: Ipv4Addr, until: u64) {
        self.forget_declined(address);
        let takes_share = self.is_for_anybody(address);
        self.n_strangers_declined += u32::from(takes_share);
        self.declined.insert(address, (until, takes_share));
        self.declined_ends.insert((until, address));
        self.file(address);
    }

    fn forget_declined(&mut self, address: Ipv4Addr) {
        if let Some((until, takes_share)) = self.declined.remove(&address) {
            self.declined_ends.remove(&(until, address));
            self.n_strangers_declined -= u32::from(takes_share);
            self.file(address);
        }
    }

    /// Whether nobody but us gives this address: it lies in the pool, is reserved, or was leased by us.
    pub(crate) fn is_ours(&self, address: Ipv4Addr) -> bool {
        self.is_in_pool(address)
            || self.reserved.contains_key(&address)
            || self.by_address.contains_key(&address)
    }

    /// Whether `mac` may have `address` as soon as it rests no longer.
    pub(crate) fn is_free_but_for_rest(&self, mac: Mac, address: Ipv4Addr, now: u64) -> bool {
        self.why_not_for_but_rest(mac, address, now).is_none()
    }

    /// Whether `mac` may have `address` now: it lies in the pool or is reserved for it, and nobody
    /// else has it.
    pub(crate) fn is_free_for(&self, mac: Mac, address: Ipv4Addr, now: u64) -> bool {
        self.why_not_for(mac, address, now).is_none()
    }

    /// Why `mac` may not have `address` now, behind the address; `None`: it may.
    pub(crate) fn why_not_for(
        &self,
        mac: Mac,
        address: Ipv4Addr,
        now: u64,
    ) -> Option<&'static str> {
        if self.declined.contains_key(&address) {
            return Some("was found to be used by somebody else");
        }
        self.why_not_for_but_rest(mac, address, now)
    }

    fn why_not_for_but_rest(&self, mac: Mac, address: Ipv4Addr, now: u64) -> Option<&'static str> {
        if self.own.contains(&address) {
            return Some("is the server's own");
        }
        match self.reserved.get(&address) {
            Some(owner) if *owner != mac => return Some("is reserved for another client"),
            None if !self.is_in_pool(address) => return Some("is not in the pool"),
            _ => {}
        }
        let is_held = self
            .by_address
            .get(&address)
            .filter(|owner| **owner != mac)
            .and_then(|owner| self.by_mac.get(owner))
            .is_some_and(|lease| {
                let is_used = self.in_use.contains_key(&lease.mac);
                lease.expires_unix > now || is_used || self.held_by(lease.mac, now).is_some()
            });
        let is_offered = self.offered.get(&address).is_some_and(|owner| *owner != mac);
        let is_used = self.used_at.get(&address).is_some_and(|owner| *owner != mac);
        (is_held || is_offered || is_used).then_some("is another client's")
    }

    /// The address for a client that looks for one: its reservation, its former address, what it was
    /// offered, what it wants, one that nobody ever had, or the one that ended longest ago; those that a known client
    /// had last.
    pub(crate) fn choose(&self, mac: Mac, wanted: Option<Ipv4Addr>, now: u64) -> Option<Ipv4Addr> {
        if let Some(address) = self.owners.get(&mac) {
            // Somebody may still hold it from before it was reserved.
            return self.is_free_for(mac, *address, now).then_some(*address);
        }
        if !self.has_room_for(mac) {
            return None;
        }
        let former = self.by_mac.get(&mac).map(|lease| lease.address);
        let offered = self.offers.get(&mac).map(|offer| offer.address);
        // A stranger gets what was a known client's only if nothing else is left.
        let is_known = self.is_known(mac);
        let wanted = wanted.filter(|address| {
            is_known || self.filed.get(address).is_none_or(|(is_known, _)| !is_known)
        });
        let is_free = |address: &Ipv4Addr| self.is_free_for(mac, *address, now);
        let used = self.in_use.get(&mac).copied().flatten();
        let likely = [used, former, offered, wanted];
        if let Some(address) = likely.into_iter().flatten().find(is_free) {
            return Some(address);
        }
        // Where a MAC starts looking is its own, so that it gets the same address again even if its
        // lease was lost.
        let start =
            mac.0.iter().fold(0u32, |hash, &byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let count = u64::from(self.last.saturating_sub(self.first)) + 1;
        let start = self.first + (u64::from(start) % count) as u32;
        if let Some(address) = self.unused.next(start) {
            return Some(Ipv4Addr::from_bits(address));
        }
        let ended = |is_known: bool| {
            let first = (is_known, 0, Ipv4Addr::UNSPECIFIED);
            let ended = self.used.range(first..);
            // Those that are in use though their leases have ended are machines, and few.
            ended
                .take_while(|(of_known, end, _)| *of_known == is_known && *end <= now)
                .map(|(.., address)| *address)
                .find(is_free)
        };
        ended(false).or_else(|| ended(true))
    }
}
