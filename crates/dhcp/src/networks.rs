//! Several networks: which one a client is in, and who leases there.

use crate::message::RequestKind;
use crate::pool::{Heard, Usage};
use crate::request::Request;
use crate::server::{Config, Decision, Reason, Server};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use wire::{Lease, Mac};

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The interface, by a number of the caller's.
    pub interface: usize,
    /// It was sent to an address of ours and not to everybody: whoever has sent it may be behind a router.
    pub is_unicast: bool,
}

/// Where a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the interface with this number: its clients are heard themselves.
    Link(usize),
    /// Behind relays, which pass on what its clients say.
    Relayed,
}

/// The servers of all networks, each with its own addresses; a NIC has one address in all of them together.
///
/// It is used as one [`Server`] is: see there.
#[derive(Debug)]
pub struct Networks {
    networks: Vec<(Place, Server)>,
    known: BTreeSet<Mac>,
    /// In which network a NIC had its address last.
    homes: BTreeMap<Mac, usize>,
}

impl Networks {
    /// Servers of these networks, which don't overlap, that remember `leases`.
    pub fn new(
        networks: impl IntoIterator<Item = (Place, Config)>,
        leases: impl IntoIterator<Item = Lease>,
    ) -> Self {
        let configs: Vec<(Place, Config)> = networks.into_iter().collect();
        let mut of_each: Vec<Vec<Lease>> = configs.iter().map(|_| Vec::new()).collect();
        let mut homes = BTreeMap::new();
        for lease in leases {
            // What lies in none of them is nobody's to lease any more; one network has always kept it.
            let home = configs.iter().position(|(_, config)| config.is_local(lease.address));
            let home = home.unwrap_or_default();
            homes.insert(lease.mac, home);
            if let Some(leases) = of_each.get_mut(home) {
                leases.push(lease);
            }
        }
        let servers = configs.into_iter().zip(of_each);
        let networks =
            servers.map(|((place, config), leases)| (place, Server::new(config, leases))).collect();
        Self { networks, known: BTreeSet::new(), homes }
    }

    /// These clients are known from now on: see [`Server::know`].
    pub fn know(&mut self, clients: &BTreeSet<Mac>) {
        self.known.clone_from(clients);
        for (_, server) in &mut self.networks {
            server.know(clients.clone());
        }
        self.expect();
    }

    /// Who is at home elsewhere needs no address here.
    fn expect(&mut self) {
        let mut n_at_home = alloc::vec![0usize; self.networks.len()];
        let mut n_nowhere = 0;
        for mac in &self.known {
            match self.homes.get(mac).and_then(|home| n_at_home.get_mut(*home)) {
                Some(n) => *n += 1,
                None => n_nowhere += 1,
            }
        }
        for ((_, server), n) in self.networks.iter_mut().zip(n_at_home) {
            server.expect(n + n_nowhere);
        }
    }

    /// Leaves a declined address alone until then: see [`Server::rest`].
    pub fn rest(&mut self, address: Ipv4Addr, until: u64) {
        if let Some(server) = self.server_of(address) {
            server.rest(address, until);
        }
    }

    /// Addresses of the network on this interface that nobody has leased: see [`Server::unleased`].
    pub fn unleased(
        &self,
        interface: usize,
        from: Option<Ipv4Addr>,
        max: u32,
        now: u64,
    ) -> (Vec<Ipv4Addr>, Option<Ipv4Addr>) {
        let mut all = self.networks.iter();
        let here = all.find(|(place, _)| *place == Place::Link(interface));
        here.map_or((Vec::new(), None), |(_, server)| server.unleased(from, max, now))
    }

    /// Somebody on this interface was heard to have an address: see [`Server::heard`].
    pub fn heard(&mut self, interface: usize, mac: Mac, address: Ipv4Addr, now: u64) -> Heard {
        let mut all = self.networks.iter_mut();
        let here = all.find(|(place, _)| *place == Place::Link(interface));
        here.map_or(Heard::Right, |(_, server)| server.heard(mac, address, now))
    }

    /// Exactly these addresses are reserved beside those of the configuration: see [`Server::reserve`].
    pub fn reserve(&mut self, fixed: &BTreeMap<Mac, Ipv4Addr>) {
        for (_, server) in &mut self.networks {
            server.reserve(fixed);
        }
    }

    /// Remembers leases that another server gave and that are stored for good, but for those of which the address or the
    /// client has another one by now. Returns how many it does.
    pub fn take(&mut self, leases: &[Lease], now: u64) -> usize {
        let mut n_taken = 0;
        for lease in leases {
            let is_at = |(_, server): &(Place, Server)| server.config().is_local(lease.address);
            let Some(network) = self.networks.iter().position(is_at) else { continue };
            let elsewhere = self.homes.get(&lease.mac).copied().filter(|home| *home != network);
            let elsewhere = elsewhere.and_then(|home| self.networks.get(home));
            let is_used =
                elsewhere.is_some_and(|(_, server)| server.in_use(lease.mac, now).is_some());
            if is_used || !self.networks[network].1.take(lease, now) {
                continue;
            }
            n_taken += 1;
            if let Some(home) = self.homes.insert(lease.mac, network).filter(|it| *it != network)
                && let Some((_, server)) = self.networks.get_mut(home)
            {
                server.forget(lease.mac);
            }
        }
        self.expect();
        n_taken
    }

    /// The client's lease of this address is no more.
    pub fn free(&mut self, mac: Mac, address: Ipv4Addr) {
        if let Some(server) = self.server_of(address) {
            server.free(mac, address);
        }
    }

    /// An address that was left alone can be had again.
    pub fn stop_resting(&mut self, address: Ipv4Addr) {
        if let Some(server) = self.server_of(address) {
            server.stop_resting(address);
        }
    }

    fn server_of(&mut self, address: Ipv4Addr) -> Option<&mut Server> {
        let mut servers = self.networks.iter_mut().map(|(_, server)| server);
        servers.find(|server| server.config().is_local(address))
    }

    /// A lease that was to be stored is stored for good.
    pub fn on_stored(&mut self, lease: &Lease) {
        for (_, server) in &mut self.networks {
            server.on_stored(lease);
        }
    }

    /// Who has how many addresses of all networks together.
    pub fn usage(&mut self, now: u64) -> Usage {
        let mut all = Usage::default();
        for (_, server) in &mut self.networks {
            let Usage { n_addresses, n_known, n_strangers, n_strangers_max, n_declined } =
                server.usage(now);
            all.n_addresses += n_addresses;
            all.n_known += n_known;
            all.n_strangers += n_strangers;
            all.n_strangers_max += n_strangers_max;
            all.n_declined += n_declined;
        }
        all
    }

    /// These clients are known to use their addresses: see [`Server::protect`].
    pub fn protect(&mut self, in_use: &BTreeMap<Mac, Option<Ipv4Addr>>) {
        for (_, server) in &mut self.networks {
            server.protect(in_use.clone());
        }
    }

    /// Prolongs the lease of a machine that runs: see [`Server::on_alive`].
    pub fn on_alive(&mut self, mac: Mac, now: u64) -> Option<Lease> {
        let home = *self.homes.get(&mac)?;
        self.networks.get_mut(home)?.1.on_alive(mac, now)
    }

    /// Decides about a request that arrived there at `now` (seconds since 1970).
    pub fn on_request(&mut self, request: &Request, arrival: Arrival, now: u64) -> Decision {
        let network = match self.network_of(request, arrival, now) {
            Ok(network) => network,
            Err(reason) => return Decision::Silent(reason),
        };
        // Who moved a machine that runs to another network would take its disk away.
        if let Some(home) = self.homes.get(&request.mac).filter(|home| **home != network)
            && let Some((place, server)) = self.networks.get(*home)
        {
            // Anybody who reaches us can say that he is a relay. Who is heard on a link of ours is there.
            let is_hearsay = *place == Place::Relayed
                && self.networks[network].0 == Place::Link(arrival.interface)
                && request.relay.is_unspecified()
                && !arrival.is_unicast;
            let in_use = match is_hearsay {
                true => server.used_by(request.mac),
                false => server.in_use(request.mac, now),
            };
            if let Some(address) = in_use {
                return Decision::Silent(Reason::InUseElsewhere(address));
            }
        }
        // A client may know us by another of our addresses, and by a relay's (RFC 5107).
        let is_ours = request.server.is_some_and(|server| {
            request.server_override() == Some(server)
                || self.networks.iter().any(|(_, it)| it.config().server == server)
        });
        let (place, server) = &mut self.networks[network];
        let own = server.config().server;
        let request = Request {
            server: if is_ours { Some(own) } else { request.server },
            is_routed: arrival.is_unicast && *place != Place::Link(arrival.interface),
            ..request.clone()
        };
        let decision = server.on_request(&request, now);
        if let Decision::Reply(reply) = &decision
            && reply.lease.is_some()
        {
            self.is_at_home(request.mac, network);
        }
        decision
    }

    /// The NIC has its address there from now on.
    fn is_at_home(&mut self, mac: Mac, network: usize) {
        let former = self.homes.insert(mac, network);
        if former == Some(network) {
            return;
        }
        if let Some((_, server)) = former.and_then(|former| self.networks.get_mut(former)) {
            server.forget(mac);
        }
        self.expect();
    }

    /// The network that a client is in: a relay names it, or else the interface (RFC 2131 §4.3.1). Who is on another interface is not
    /// in a network of our own one, whatever is said: its clients are heard there.
    fn network_of(&self, request: &Request, arrival: Arrival, now: u64) -> Result<usize, Reason> {
        let is_near =
            |place: Place| [Place::Relayed, Place::Link(arrival.interface)].contains(&place);
        let holds = |address: Ipv4Addr| {
            let mut all = self.networks.iter();
            all.position(|(place, server)| server.config().is_local(address) && is_near(*place))
        };
        if !request.relay.is_unspecified() {
            // A relay may speak from an address that is in none of its clients' networks (RFC 3527, RFC 3011).
            let named = request.link_selection().or(request.subnet);
            let address = named.unwrap_or(request.relay);
            return holds(address).ok_or(match named {
                Some(link) => Reason::ForeignLink(request.relay, link),
                None => Reason::ForeignRelay(request.relay),
            });
        }
        // Who prolongs his lease speaks to us himself, past the relay. His broadcasts are heard on his own network only.
        let speaks_himself = matches!(
            request.kind,
            RequestKind::Request | RequestKind::Release | RequestKind::Inform
        );
        if arrival.is_unicast
            && speaks_himself
            && let Some(address) = request.address_in_use()
            && let Some(network) = holds(address)
        {
            let (place, server) = &self.networks[network];
            // Without a lease nothing shows that it is there.
            let is_hearsay = *place == Place::Relayed
                && !server.has_leased(address, request.mac)
                && server.is_free_for(request.mac, address, now);
            return if is_hearsay { Err(Reason::Others(address)) } else { Ok(network) };
        }
        let is_here = |(place, _): &(Place, Server)| *place == Place::Link(arrival.interface);
        self.networks.iter().position(is_here).ok_or(Reason::NoNetworkHere)
    }
}
