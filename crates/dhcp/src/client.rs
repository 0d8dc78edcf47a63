//! A client: from no address to a lease, and how it is kept (RFC 2131 §4.4).

use crate::answer::{Answer, ClientLease};
use crate::message::{FLAG_BROADCAST, Fields, MessageKind, ReplyKind, RequestKind, emit};
use crate::option_codes::{
    OPT_BOOT_FILE, OPT_CLASSLESS_ROUTES, OPT_CLIENT_ARCHITECTURE, OPT_DNS_SERVER, OPT_DOMAIN_NAME,
    OPT_HOST_NAME, OPT_LEASE_TIME, OPT_MESSAGE_SIZE_MAX, OPT_NTP_SERVER, OPT_PARAMETER_LIST,
    OPT_REBINDING_TIME, OPT_RENEWAL_TIME, OPT_REQUESTED_ADDRESS, OPT_ROUTER, OPT_SERVER_ID,
    OPT_SUBNET_MASK, OPT_VENDOR_CLASS,
};
use crate::options::OptionWriter;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;
use wire::{Mac, Moment};

/// A question is repeated after this time, then after twice as long and so on. RFC 2131 §4.1 begins with
/// 4 s, but the first packets after a link comes up are often lost.
const REPEAT_FIRST: Duration = Duration::from_millis(250);
const REPEAT_MAX: Duration = Duration::from_secs(4);

/// So long another server's offer waits for one of the server that the client would rather have. Ours offers within
/// milliseconds, and where it gives no addresses each boot waits for so long.
const PREFERRED_WAIT: Duration = Duration::from_millis(200);

/// After so many requests without an answer the offer is forgotten: the server may have died.
const REQUESTS_MAX: u32 = 5;

/// A running machine asks again after half of the time that is left, but not more often than this
/// (RFC 2131 §4.4.5).
const RENEW_AGAIN_MIN: Duration = Duration::from_secs(60);

/// What the client wants to know.
const PARAMETERS: [u8; 9] = [
    OPT_SUBNET_MASK,
    OPT_CLASSLESS_ROUTES,
    OPT_ROUTER,
    OPT_DNS_SERVER,
    OPT_DOMAIN_NAME,
    OPT_NTP_SERVER,
    OPT_LEASE_TIME,
    OPT_RENEWAL_TIME,
    OPT_REBINDING_TIME,
];

/// Longest answer that it takes, in bytes: what fits a frame behind the headers of IP and UDP.
const ANSWER_MAX: u16 = 1500 - 20 - 8;

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this to port 67, to that address, and ask again at once.
    Send(Vec<u8>, Ipv4Addr),
    /// Ask again at this moment, or when a datagram has come.
    WaitUntil(Moment),
    /// There is nothing to do any more: the lease is for ever.
    Done,
}

/// What a datagram or the time has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is a lease: a new one, or the one that the client has was prolonged.
    Leased(ClientLease),
    /// The server does not want the client to have its address any longer. The client asks for a new one.
    Lost,
}

#[derive(Clone, Debug)]
enum State {
    /// Asks everybody. Another server than the preferred one may have offered something, which is taken at that moment.
    Discovering { n_sent: u32, other: Option<(ClientLease, Moment)> },
    /// Has chosen an offer.
    Requesting { offer: ClientLease, n_sent: u32 },
    /// Has a lease since then.
    Bound { lease: ClientLease, since: Moment },
}

/// Gets an address and keeps it.
///
/// Call [`next`](Self::next) and do what it says: after [`Next::Send`] call it again at once; at [`Next::WaitUntil`]
/// hand each datagram that comes to port 68 to [`on_datagram`](Self::on_datagram), and call `next` again after each,
/// and at that moment. What `on_datagram` returns is what to tell the system. A client never gives up: who does not
/// want to wait any longer drops it. All moments are of one clock that never goes backwards.
#[derive(Clone, Debug)]
pub struct Client {
    mac: Mac,
    host_name: String,
    transaction: u32,
    /// Whose offer it would rather have.
    preferred: Option<Ipv4Addr>,
    state: State,
    next_send: Moment,
}

impl Client {
    /// A client without address. `transaction` is random, so that answers to others are told apart.
    pub fn new(mac: Mac, host_name: &str, transaction: u32, now: Moment) -> Self {
        let state = State::Discovering { n_sent: 0, other: None };
        let host_name = host_name.into();
        Self { mac, host_name, transaction, preferred: None, state, next_send: now }
    }

    /// Takes the offer of this server if two answer; another one's is taken a moment later.
    #[must_use]
    pub fn preferring(mut self, server: Ipv4Addr) -> Self {
        self.preferred = Some(server);
        self
    }

    /// A client that has had this lease since then.
    pub fn resume(
        mac: Mac,
        host_name: &str,
        transaction: u32,
        lease: ClientLease,
        since: Moment,
    ) -> Self {
        let mut client = Self::new(mac, host_name, transaction, since);
        client.bind(lease, since);
        client
    }

    /// What to do at `now`.
    pub fn next(&mut self, now: Moment) -> Next {
        if let State::Discovering { other: Some((offer, at)), .. } = &self.state {
            if now < *at {
                return Next::WaitUntil(*at);
            }
            self.state = State::Requesting { offer: offer.clone(), n_sent: 0 };
            self.next_send = now;
        }
        if now < self.next_send {
            return Next::WaitUntil(self.next_send);
        }
        match &mut self.state {
            State::Discovering { n_sent, .. } => {
                *n_sent += 1;
                self.next_send = now + pause(*n_sent);
                self.send(RequestKind::Discover, Ipv4Addr::UNSPECIFIED, None, None)
            }
            State::Requesting { n_sent, .. } if *n_sent >= REQUESTS_MAX => {
                self.restart(now);
                self.next(now)
            }
            State::Requesting { offer, n_sent } => {
                *n_sent += 1;
                self.next_send = now + pause(*n_sent);
                let (address, server) = (offer.address, offer.server);
                self.send(RequestKind::Request, Ipv4Addr::UNSPECIFIED, Some(address), Some(server))
            }
            State::Bound { lease, .. } if lease.seconds[2] == u32::MAX => Next::Done,
            State::Bound { lease, since } => {
                let [_, rebind, end] = lease.seconds.map(|seconds| at(*since, seconds));
                let (address, server) = (lease.address, lease.server);
                if now >= end {
                    // The address stays where it is, but has to be asked for like a new one.
                    self.restart(now);
                    return self.next(now);
                }
                let (to, limit) =
                    if now < rebind { (server, rebind) } else { (Ipv4Addr::BROADCAST, end) };
                let half = limit.since(now) / 2;
                self.next_send = (now + half.max(RENEW_AGAIN_MIN)).min(limit);
                match self.send(RequestKind::Request, address, None, None) {
                    Next::Send(message, _) => Next::Send(message, to),
                    other => other,
                }
            }
        }
    }

    /// A datagram came to port 68. `None`: it changes nothing, or nothing to tell anybody.
    pub fn on_datagram(&mut self, datagram: &[u8], now: Moment) -> Option<Change> {
        let answer = Answer::parse(datagram).ok()?;
        if (answer.transaction, answer.mac) != (self.transaction, self.mac) {
            return None;
        }
        match (&mut self.state, answer.kind, answer.lease) {
            (State::Discovering { other, .. }, ReplyKind::Offer, Some(offer))
                if self.preferred.is_some_and(|server| server != offer.server) =>
            {
                other.get_or_insert((offer, now + PREFERRED_WAIT));
                None
            }
            (State::Discovering { .. }, ReplyKind::Offer, Some(offer)) => {
                self.state = State::Requesting { offer, n_sent: 0 };
                self.next_send = now;
                None
            }
            (State::Requesting { offer, .. }, ReplyKind::Ack, Some(lease))
                if lease.server == offer.server =>
            {
                self.bind(lease.clone(), now);
                Some(Change::Leased(lease))
            }
            (State::Bound { lease: old, since }, ReplyKind::Ack, Some(lease))
                if lease.address == old.address && now >= at(*since, old.seconds[0]) =>
            {
                self.bind(lease.clone(), now);
                Some(Change::Leased(lease))
            }
            (State::Requesting { .. }, ReplyKind::Nak, _) => {
                self.restart(now);
                // A server that refuses what it offers must not make us ask without a pause.
                self.next_send = now + REPEAT_MAX;
                None
            }
            (State::Bound { lease, since }, ReplyKind::Nak, _)
                if now >= at(*since, lease.seconds[0]) =>
            {
                self.restart(now);
                self.next_send = now + REPEAT_MAX;
                Some(Change::Lost)
            }
            _ => None,
        }
    }

    fn restart(&mut self, now: Moment) {
        self.state = State::Discovering { n_sent: 0, other: None };
        self.transaction = self.transaction.wrapping_add(1);
        self.next_send = now;
    }

    fn bind(&mut self, lease: ClientLease, since: Moment) {
        self.next_send = at(since, lease.seconds[0]);
        self.transaction = self.transaction.wrapping_add(1);
        self.state = State::Bound { lease, since };
    }

    fn send(
        &self,
        kind: RequestKind,
        client: Ipv4Addr,
        wanted: Option<Ipv4Addr>,
        server: Option<Ipv4Addr>,
    ) -> Next {
        let none = Ipv4Addr::UNSPECIFIED;
        let fields = Fields {
            transaction: self.transaction,
            // Who has no address yet can only hear broadcasts.
            flags: if client.is_unspecified() { FLAG_BROADCAST } else { 0 },
            client,
            yours: none,
            next_server: none,
            relay: none,
            mac: self.mac,
        };
        let mut options = OptionWriter::default();
        if let Some(wanted) = wanted {
            options.put_addresses(OPT_REQUESTED_ADDRESS, &[wanted]);
        }
        if let Some(server) = server {
            options.put_addresses(OPT_SERVER_ID, &[server]);
        }
        options.put(OPT_MESSAGE_SIZE_MAX, &ANSWER_MAX.to_be_bytes());
        options.put(OPT_HOST_NAME, self.host_name.as_bytes());
        options.put(OPT_PARAMETER_LIST, &PARAMETERS);
        let message = emit(MessageKind::Request(kind), &fields, "", "", &options);
        Next::Send(message, Ipv4Addr::BROADCAST)
    }
}

/// What firmware of this architecture (RFC 4578 §2.1) asks for an address with: a DISCOVER, to be sent by broadcast.
pub fn firmware_question(mac: Mac, transaction: u32, architecture: u16) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let fields = Fields {
        transaction,
        flags: FLAG_BROADCAST,
        client: none,
        yours: none,
        next_server: none,
        relay: none,
        mac,
    };
    let mut options = OptionWriter::default();
    let class = alloc::format!("PXEClient:Arch:{architecture:05}:UNDI:003016");
    options.put(OPT_VENDOR_CLASS, class.as_bytes());
    options.put(OPT_CLIENT_ARCHITECTURE, &architecture.to_be_bytes());
    options.put(OPT_MESSAGE_SIZE_MAX, &ANSWER_MAX.to_be_bytes());
    options
        .put(OPT_PARAMETER_LIST, &[&PARAMETERS[..], &[OPT_VENDOR_CLASS, OPT_BOOT_FILE]].concat());
    emit(MessageKind::Request(RequestKind::Discover), &fields, "", "", &options)
}

fn pause(n_sent: u32) -> Duration {
    let factor = 1 << n_sent.saturating_sub(1).min(8);
    REPEAT_MAX.min(REPEAT_FIRST * factor)
}

fn at(since: Moment, seconds: u32) -> Moment {
    since + Duration::from_secs(seconds.into())
}
