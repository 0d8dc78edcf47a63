//! The decision core (RFC 2131 §4.3).

use crate::message::{ReplyKind, RequestKind};
use crate::pool::{Heard, Pool, Usage};
use crate::reply::{Reply, grant, inform, refuse};
use crate::request::Request;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use wire::{Lease, Mac, Route};

/// A stranger has an address for so long at most, in seconds, until it is known. A PC that waits to be known is
/// alive, which prolongs it.
const STRANGERS_LEASE_SECONDS: u32 = 300;

/// An address is kept for its client for so many times as long as the client was told. So a renewal mostly changes
/// nothing that is stored, and needs no write.
const KEPT_LEASES: u64 = 2;

/// What the server gives out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our own address, as the network's clients reach it; of a network behind a relay it lies elsewhere.
    pub server: Ipv4Addr,
    /// Further addresses of ours, which nobody gets; may be empty.
    pub others: Vec<Ipv4Addr>,
    /// An address of the network.
    pub subnet: Ipv4Addr,
    /// Prefix length of the network, 1 to 30.
    pub prefix: u8,
    /// First and last address to lease; inside of the network.
    pub pool: (Ipv4Addr, Ipv4Addr),
    /// Addresses that belong to one NIC for ever.
    pub reserved: BTreeMap<Mac, Ipv4Addr>,
    /// Default route of the clients; `None`: they get none.
    pub router: Option<Ipv4Addr>,
    /// Further routes of the clients, 20 at most.
    pub routes: Vec<Route>,
    /// Name servers of the clients, the preferred first; may be empty.
    pub dns: Vec<Ipv4Addr>,
    /// Time servers (NTP) of the clients, the preferred first; may be empty.
    pub ntp: Vec<Ipv4Addr>,
    /// DNS domain of the clients; `None`: they get none.
    pub domain: Option<String>,
    /// Whether others get an address, too, than who boots from the network or is known.
    pub serve_everyone: bool,
    /// How long a lease lasts, in seconds; those of strangers are shorter.
    pub lease_seconds: u32,
    /// Loader for PC BIOS, by TFTP from us; less than 128 bytes.
    pub bios_file: String,
    /// Loader for 64-bit UEFI, by TFTP or by HTTP from us; less than 100 bytes.
    pub uefi_x64_file: String,
    /// The same for UEFI of 64-bit ARM PCs.
    pub uefi_arm64_file: String,
}

impl Config {
    pub(crate) fn netmask(&self) -> Ipv4Addr {
        let shift = 32 - u32::from(self.prefix.min(32));
        Ipv4Addr::from_bits(u32::MAX.checked_shl(shift).unwrap_or(0))
    }

    pub(crate) fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.subnet.to_bits() | !self.netmask().to_bits())
    }

    /// Whether the address is one of this network.
    pub(crate) fn is_local(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.netmask().to_bits()
            == self.subnet.to_bits() & self.netmask().to_bits()
    }

    /// Whether a host of this network may have this address.
    fn is_host_s(&self, address: Ipv4Addr) -> bool {
        let network = self.subnet.to_bits() & self.netmask().to_bits();
        self.is_local(address) && address.to_bits() != network && address != self.broadcast()
    }

    /// First and last address of the pool, without those that no client can have.
    pub(crate) fn pool_range(&self) -> (u32, u32) {
        let network = self.subnet.to_bits() & self.netmask().to_bits();
        let (first, last) = (self.pool.0.to_bits(), self.pool.1.to_bits());
        (first.max(network + 1), last.min(self.broadcast().to_bits() - 1))
    }

    /// How long a client of that kind has an address, in seconds.
    fn seconds(&self, is_known: bool) -> u32 {
        if is_known { self.lease_seconds } else { self.lease_seconds.min(STRANGERS_LEASE_SECONDS) }
    }
}

/// What to do about a request, once what it gives or takes is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send this, after its lease is stored.
    Reply(Box<Reply>),
    /// Store that the lease has ended; there is no reply.
    Released(Lease),
    /// Store that nobody has the address until then, seconds since 1970, for somebody uses it without a lease; there
    /// is no reply.
    Declined(Ipv4Addr, u64),
    /// Do nothing, for this reason.
    Silent(Reason),
}

/// Why a request gets no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The client takes another server's offer.
    #[error(
        "the client chose the DHCP server {0}: two servers answer on this network; switch off the \
         other one, or let it serve the machines"
    )]
    OtherServer(Ipv4Addr),
    /// No address is left.
    #[error(
        "no address is left in the pool {0}-{1}: make the pool larger, or the lease time shorter, in \
         bootlace.toml"
    )]
    PoolExhausted(Ipv4Addr, Ipv4Addr),
    /// Strangers have all addresses that they may have.
    #[error(
        "strangers have as many addresses as they may have ({0}): adopt this PC if it belongs here; the others are for \
         the machines"
    )]
    StrangersShareExhausted(u32),
    /// The address reserved for the client is held by somebody else.
    #[error(
        "the address {0} is reserved for this client, but another one still holds it: switch that one \
         off or wait until its lease ends"
    )]
    ReservedInUse(Ipv4Addr),
    /// A client releases an address that it does not have.
    #[error("the client releases {0}, which it does not have: nothing to do")]
    NotLeased(Ipv4Addr),
    /// A client has found somebody else at an address that it does not have.
    #[error(
        "the client says that somebody else uses {0}, which it was not given here: nothing to do"
    )]
    NotDeclined(Ipv4Addr),
    /// A client gives up an address that it is known to use.
    #[error(
        "{0} is in use by the client in whose name it is given up: that is probably forged; look for a PC that \
         has the same MAC address, or for who sends it"
    )]
    StillInUse(Ipv4Addr),
    /// A client goes on with an address that another server gave it.
    #[error(
        "the client goes on with {0}, which is neither in the pool nor reserved and was never leased here: another DHCP \
         server has probably given it"
    )]
    Others(Ipv4Addr),
    /// A client that was never heard here asks whether its address is still good (RFC 2131, 4.3.2: silence).
    #[error(
        "the client asks for {0} again, which it was not given here, as far as this server remembers: it has it from another DHCP \
         server, and looks for a new one if that does not answer"
    )]
    NoRecord(Ipv4Addr),
    /// The message makes no sense.
    #[error("the {0} names no address: update the client's firmware if it does not boot")]
    NoAddress(RequestKind),
    /// It is said to be the client's address, and no host has it.
    #[error(
        "no host of this network can have {0}, which the client says that it has: set another address there"
    )]
    NoHost(Ipv4Addr),
    /// The client is none that boots.
    #[error(
        "the client does not boot from the network and is no machine, and nobody else gets an address: reserve one for it, or \
         set serve_everyone = true below [network] if Bootlace is to give all devices their addresses"
    )]
    NoBootClient,
    /// A relay asks for a network that is not configured.
    #[error(
        "the relay {0} is in no network of bootlace.toml: add a [[network]] with its subnet, or take Bootlace out of what \
         the relay passes on"
    )]
    ForeignRelay(Ipv4Addr),
    /// A relay names a network that is not configured.
    #[error(
        "the relay {0} names the network of {1}, which is in no network of bootlace.toml: add a [[network]] with that subnet"
    )]
    ForeignLink(Ipv4Addr, Ipv4Addr),
    /// Only networks behind relays are configured for this interface.
    #[error(
        "the request came from the interface's own network, of which only those behind relays are in bootlace.toml: add a \
         [[network]] without subnet for the interface if its PCs are to boot"
    )]
    NoNetworkHere,
    /// A machine has an address in another network, and uses it.
    #[error(
        "the client is a machine that uses {0}, in another network: that is probably forged, or a PC has the same MAC \
         address; one that was moved gets its address within minutes"
    )]
    InUseElsewhere(Ipv4Addr),
}

impl Reason {
    /// A word for it, for counting.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::OtherServer(_) => "other-server",
            Self::PoolExhausted(..) => "pool-exhausted",
            Self::StrangersShareExhausted(_) => "strangers-share-exhausted",
            Self::ReservedInUse(_) => "reserved-in-use",
            Self::NotLeased(_) => "not-leased",
            Self::NotDeclined(_) => "not-declined",
            Self::StillInUse(_) => "still-in-use",
            Self::Others(_) => "of-others",
            Self::NoRecord(_) => "no-record",
            Self::NoAddress(_) => "no-address",
            Self::NoHost(_) => "no-host",
            Self::NoBootClient => "no-boot-client",
            Self::ForeignRelay(_) => "foreign-relay",
            Self::ForeignLink(..) => "foreign-link",
            Self::NoNetworkHere => "no-network-here",
            Self::InUseElsewhere(_) => "in-use-elsewhere",
        }
    }
}

/// The server's memory: who has which address.
///
/// Requests are of one network: [`Networks`](crate::Networks) finds it.
///
/// Hand each request to [`on_request`](Self::on_request) and obey the [`Decision`]; hand each sign that a machine runs
/// to [`on_alive`](Self::on_alive); who is known to use his address is told by [`protect`](Self::protect). The first two
/// return leases that the caller stores for good, and in their order for each MAC, before a reply leaves; when one is
/// stored it says so to [`on_stored`](Self::on_stored). After a restart [`new`](Self::new) gets them back, and
/// [`rest`](Self::rest) the addresses that were declined. Nothing has to be called at certain times.
///
/// Clients are *strangers* until [`know`](Self::know) names them: together they get a part of the pool only, so that
/// those that are known always find an address.
#[derive(Debug)]
pub struct Server {
    config: Config,
    /// Addresses that the configuration reserves; others may be reserved besides.
    configured: BTreeMap<Mac, Ipv4Addr>,
    pool: Pool,
}

impl Server {
    /// A server that remembers `leases`, ended ones too.
    pub fn new(config: Config, leases: impl IntoIterator<Item = Lease>) -> Self {
        let pool = Pool::new(&config, leases);
        Self { configured: config.reserved.clone(), config, pool }
    }

    /// Exactly these addresses are reserved beside those of the configuration, which counts more. What no client of this
    /// network can have is not.
    pub fn reserve(&mut self, fixed: &BTreeMap<Mac, Ipv4Addr>) {
        let mut reserved = self.configured.clone();
        let mut taken: BTreeSet<Ipv4Addr> = reserved.values().copied().collect();
        taken.insert(self.config.server);
        taken.extend(self.config.router);
        for (mac, address) in fixed {
            let is_one = self.config.is_host_s(*address) && !reserved.contains_key(mac);
            if is_one && taken.insert(*address) {
                reserved.insert(*mac, *address);
            }
        }
        self.pool.reserve(&reserved);
        self.config.reserved = reserved;
    }

    /// Remembers a lease that somebody else gave and that is stored for good, unless the address or the client has another
    /// one by now. Returns whether it does.
    pub(crate) fn take(&mut self, lease: &Lease, now: u64) -> bool {
        self.pool.on_time(now);
        let is_elsewhere = |address: Ipv4Addr| address != lease.address;
        let has_other = self.in_use(lease.mac, now).is_some_and(is_elsewhere)
            || self
                .pool
                .lease(lease.mac)
                .is_some_and(|its| its.expires_unix > now && is_elsewhere(its.address));
        // Who was heard there without a lease of ours is mostly the client itself.
        if has_other || !self.pool.is_free_but_for_rest(lease.mac, lease.address, now) {
            return false;
        }
        self.pool.stop_resting(lease.address);
        self.pool.set(lease);
        self.pool.note_stored(lease);
        true
    }

    /// The client's lease of this address is no more.
    pub(crate) fn free(&mut self, mac: Mac, address: Ipv4Addr) {
        if self.has_leased(address, mac) {
            self.pool.forget(mac);
        }
    }

    /// An address that was left alone can be had again.
    pub(crate) fn stop_resting(&mut self, address: Ipv4Addr) {
        self.pool.stop_resting(address);
    }

    /// These clients are known from now on, by their NICs, and all others are strangers. Those that an address is
    /// reserved for are always known.
    pub fn know(&mut self, clients: BTreeSet<Mac>) {
        self.pool.know(clients);
    }

    /// So many of the clients that are known look for their address here, and the others elsewhere.
    pub(crate) fn expect(&mut self, n: usize) {
        self.pool.expect(n);
    }

    /// The client has its address elsewhere now.
    pub(crate) fn forget(&mut self, mac: Mac) {
        self.pool.forget(mac);
    }

    /// The address that the client is known to use.
    pub(crate) fn used_by(&self, mac: Mac) -> Option<Ipv4Addr> {
        self.pool.used_by(mac)
    }

    /// Whether this address was leased to the client.
    pub(crate) fn has_leased(&self, address: Ipv4Addr, mac: Mac) -> bool {
        self.pool.lease(mac).is_some_and(|lease| lease.address == address)
    }

    /// Whether the client may have this address, as nobody else has it.
    pub(crate) fn is_free_for(&self, mac: Mac, address: Ipv4Addr, now: u64) -> bool {
        self.pool.is_free_for(mac, address, now)
    }

    /// The address that the client is known to use, or was given just now.
    pub(crate) fn in_use(&self, mac: Mac, now: u64) -> Option<Ipv4Addr> {
        self.pool.used_by(mac).or(self.pool.held_by(mac, now))
    }

    /// Leaves an address alone until `until`, seconds since 1970, since it was declined before a restart.
    pub fn rest(&mut self, address: Ipv4Addr, until: u64) {
        self.pool.rest(address, until);
    }

    /// Addresses of the pool that nobody has leased at `now` (seconds since 1970), in order, from `from` on, or from the first one; and
    /// where the next ones are, if there are. At most `max` addresses are looked at.
    pub fn unleased(
        &self,
        from: Option<Ipv4Addr>,
        max: u32,
        now: u64,
    ) -> (Vec<Ipv4Addr>, Option<Ipv4Addr>) {
        self.pool.unleased(from, max, now)
    }

    /// Somebody with this NIC was heard at `now` (seconds since 1970) to have the address. If nobody has it from here it rests, and is
    /// offered to nobody any more.
    pub fn heard(&mut self, mac: Mac, address: Ipv4Addr, now: u64) -> Heard {
        self.pool.on_time(now);
        self.pool.heard(mac, address, now)
    }

    /// A lease that was to be stored is stored for good.
    pub fn on_stored(&mut self, lease: &Lease) {
        self.pool.note_stored(lease);
    }

    /// Who has how many addresses at `now` (seconds since 1970).
    pub fn usage(&mut self, now: u64) -> Usage {
        self.pool.on_time(now);
        self.pool.usage()
    }

    /// The configuration that the server was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// From now on these clients are known to use their addresses, and no others: they keep them until that changes.
    /// `None` is the address of the client's lease; one that is told is kept for it whatever becomes of the lease.
    /// Anybody can send a DHCP message in anybody's name.
    pub fn protect(&mut self, in_use: BTreeMap<Mac, Option<Ipv4Addr>>) {
        self.pool.protect(in_use);
    }

    /// Decides about a request that arrived at `now` (seconds since 1970).
    pub fn on_request(&mut self, request: &Request, now: u64) -> Decision {
        self.pool.on_time(now);
        match request.kind {
            RequestKind::Discover => self.on_discover(request, now),
            RequestKind::Request => self.on_address_request(request, now),
            // What is another server's is not ended here (RFC 2131, table 5).
            RequestKind::Decline | RequestKind::Release
                if let Some(other) = self.other_server(request) =>
            {
                Decision::Silent(Reason::OtherServer(other))
            }
            RequestKind::Decline => self.on_decline(request, now),
            RequestKind::Release => self.on_release(request, now),
            RequestKind::Inform if request.client.is_unspecified() => {
                Decision::Silent(Reason::NoAddress(request.kind))
            }
            // The answer goes there, and anybody could have it sent to anybody.
            RequestKind::Inform if !self.config.is_host_s(request.client) => {
                Decision::Silent(Reason::NoHost(request.client))
            }
            // Who gets no address here is not told where others are to be found, either.
            RequestKind::Inform if self.term(request, now).is_none() => {
                Decision::Silent(Reason::NoBootClient)
            }
            RequestKind::Inform => Decision::Reply(Box::new(inform(&self.config, request))),
        }
    }

    /// Prolongs the lease of a machine that is known to use it, when half of the time is over for which its address is
    /// kept.
    ///
    /// A machine whose root disk is behind its address must keep it, though no DHCP client of its system
    /// may renew it. `None`: there is nothing to store.
    pub fn on_alive(&mut self, mac: Mac, now: u64) -> Option<Lease> {
        self.pool.on_time(now);
        let lease = self.pool.lease(mac)?.clone();
        let seconds = self.config.seconds(self.pool.is_known(mac));
        let is_enough = lease.expires_unix > now.saturating_add(seconds.into());
        let may_have =
            self.pool.is_free_for(mac, lease.address, now) && self.pool.has_room_for(mac);
        if (is_enough && self.pool.is_stored(mac)) || !may_have {
            return None;
        }
        let lease = Lease { expires_unix: kept_until(now, seconds), ..lease };
        self.pool.set(&lease);
        Some(lease)
    }

    /// For how long the client may have an address. Loaders and systems that firmware has started ask again by the same NIC
    /// without a word of firmware: whoever has an address keeps it until it ends.
    fn term(&self, request: &Request, now: u64) -> Option<Term> {
        let is_known = self.pool.is_known(request.mac);
        let seconds = self.config.seconds(is_known);
        if self.config.serve_everyone || request.is_boot_client || is_known {
            return Some(Term { seconds, ends_unix: kept_until(now, seconds), only: None });
        }
        let lease = self.pool.lease(request.mac);
        let left = lease.and_then(|lease| Some((lease, lease.expires_unix.checked_sub(now)?)));
        let Some((lease, left)) = left.filter(|(_, left)| *left > 0) else {
            // Firmware says what it is at least when it looks for a server.
            let is_chosen =
                request.kind == RequestKind::Request && self.pool.is_offered(request.mac);
            let ends_unix = kept_until(now, seconds);
            return is_chosen.then_some(Term { seconds, ends_unix, only: None });
        };
        Some(Term {
            seconds: u32::try_from(left).unwrap_or(u32::MAX).min(seconds),
            ends_unix: lease.expires_unix,
            only: Some(lease.address),
        })
    }

    fn on_discover(&mut self, request: &Request, now: u64) -> Decision {
        let Some(Term { seconds, only, .. }) = self.term(request, now) else {
            return Decision::Silent(Reason::NoBootClient);
        };
        match self.pool.choose(request.mac, request.wanted, now) {
            Some(address) if only.is_some_and(|only| only != address) => {
                Decision::Silent(Reason::NoBootClient)
            }
            Some(address) => {
                self.pool.offer(request.mac, address, now);
                let reply = grant(&self.config, request, ReplyKind::Offer, address, seconds, None);
                Decision::Reply(Box::new(reply))
            }
            None => Decision::Silent(self.why_none(request.mac)),
        }
    }

    /// The other server that the client has chosen.
    fn other_server(&self, request: &Request) -> Option<Ipv4Addr> {
        request.server.filter(|server| *server != self.config.server)
    }

    fn on_address_request(&mut self, request: &Request, now: u64) -> Decision {
        if let Some(other) = self.other_server(request) {
            self.pool.forget_offer(request.mac);
            return Decision::Silent(Reason::OtherServer(other));
        }
        // Selecting and init-reboot name the address in option 50, renewing and rebinding in ciaddr.
        let Some(address) = request.wanted.or(request.address_in_use()) else {
            return Decision::Silent(Reason::NoAddress(request.kind));
        };
        let Some(Term { seconds, ends_unix, only }) = self.term(request, now) else {
            return Decision::Silent(Reason::NoBootClient);
        };
        if only.is_some_and(|only| only != address) {
            return Decision::Silent(Reason::NoBootClient);
        }
        let is_local = self.config.is_local(address);
        // Another server's client keeps its address, even if we are the one that must be alone here. Who has chosen us
        // is ours.
        if request.server.is_none() && is_local && !self.pool.is_ours(address) {
            return Decision::Silent(Reason::Others(address));
        }
        let reserved = self.config.reserved.get(&request.mac);
        // Who moved it elsewhere would take its disk away. A new reservation counts all the same.
        let used = self.in_use(request.mac, now);
        let used = used.filter(|_| reserved != Some(&address));
        let why = if !is_local {
            Some(format!("{address} is not on this network"))
        } else if let Some(used) = used.filter(|used| *used != address) {
            Some(format!("{used} is yours, and in use"))
        } else if let Some(other) = reserved.filter(|reserved| **reserved != address) {
            // Only if it can really have the other one; else it would ask and be refused for ever.
            let can_have = self.pool.is_free_for(request.mac, *other, now);
            can_have.then(|| format!("{other} is reserved for you"))
        } else {
            let why = self.pool.why_not_for(request.mac, address, now);
            why.map(|why| format!("{address} {why}"))
        };
        if let Some(why) = why {
            return Decision::Reply(Box::new(refuse(&self.config, request, why)));
        }
        if self.is_unheard_of(request) {
            return Decision::Silent(Reason::NoRecord(address));
        }
        if !self.pool.has_room_for(request.mac) {
            return Decision::Silent(self.why_none(request.mac));
        }
        let former = self.pool.lease(request.mac);
        let host_name =
            request.host_name.clone().or(former.and_then(|lease| lease.host_name.clone()));
        let is_stored = former.is_some_and(|former| {
            let is_same = former.address == address && former.host_name == host_name;
            let is_long = former.expires_unix >= now.saturating_add(seconds.into());
            // Another server may have given it for ever, or we ourselves, when leases were longer.
            let is_longer_than_any =
                former.expires_unix > kept_until(now, self.config.lease_seconds).max(ends_unix);
            is_same && is_long && !is_longer_than_any && self.pool.is_stored(request.mac)
        });
        let lease = (!is_stored).then_some(Lease {
            mac: request.mac,
            address,
            expires_unix: ends_unix,
            host_name,
        });
        match &lease {
            Some(lease) => self.pool.set(lease),
            None => self.pool.forget_offer(request.mac),
        }
        self.pool.hold(request.mac, now);
        let reply = grant(&self.config, request, ReplyKind::Ack, address, seconds, lease);
        Decision::Reply(Box::new(reply))
    }

    /// Whether a client asks for the address that it had before it was started again (INIT-REBOOT), of which nothing is known here.
    /// Another server may have it on record, and may be slower. One that was offered the address only leaves out by whom.
    fn is_unheard_of(&self, request: &Request) -> bool {
        request.server.is_none()
            && request.client.is_unspecified()
            && self.pool.lease(request.mac).is_none()
            && !self.config.reserved.contains_key(&request.mac)
            && self.pool.used_by(request.mac).is_none()
            && !self.pool.is_offered(request.mac)
    }

    fn on_decline(&mut self, request: &Request, now: u64) -> Decision {
        let Some(address) = request.wanted else {
            return Decision::Silent(Reason::NoAddress(request.kind));
        };
        if self.pool.used_by(request.mac) == Some(address) {
            return Decision::Silent(Reason::StillInUse(address));
        }
        // Only what it was given: otherwise one client could make the whole pool unusable.
        if self.pool.lease(request.mac).is_some_and(|lease| lease.address == address) {
            return Decision::Declined(address, self.pool.decline(request.mac, address, now));
        }
        Decision::Silent(Reason::NotDeclined(address))
    }

    fn on_release(&mut self, request: &Request, now: u64) -> Decision {
        if self.pool.used_by(request.mac) == Some(request.client) {
            return Decision::Silent(Reason::StillInUse(request.client));
        }
        match self.pool.lease(request.mac) {
            Some(lease) if lease.address == request.client => {
                let ended = Lease { expires_unix: now, ..lease.clone() };
                self.pool.set(&ended);
                Decision::Released(ended)
            }
            _ => Decision::Silent(Reason::NotLeased(request.client)),
        }
    }

    fn why_none(&self, mac: Mac) -> Reason {
        match self.config.reserved.get(&mac) {
            Some(address) => Reason::ReservedInUse(*address),
            None if !self.pool.has_room_for(mac) => {
                Reason::StrangersShareExhausted(self.pool.usage().n_strangers_max)
            }
            None => Reason::PoolExhausted(self.config.pool.0, self.config.pool.1),
        }
    }
}

/// For how long a client may have an address.
struct Term {
    seconds: u32,
    /// Until when it is kept for it.
    ends_unix: u64,
    /// The only one that it may have.
    only: Option<Ipv4Addr>,
}

/// Until when an address is kept for a client that has it for `seconds` from `now` on.
fn kept_until(now: u64, seconds: u32) -> u64 {
    now.saturating_add(u64::from(seconds) * KEPT_LEASES)
}
