//! The machine's own DHCP, when the boot server has not leased its address.

use crate::console::{Console, uptime};
use crate::failure::Failure;
use crate::net::nic::Nic;
use ::dhcp::{CLIENT_PORT, Change, Client, ClientLease, Next, SERVER_PORT};
use initcfg::BootConfig;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;
use wire::{Mac, Moment};

/// Longest answer that is read: what fits a frame.
const ANSWER_MAX: usize = 1500;

/// A person is told that there is no answer after this time, then again after each [`HINT_EVERY`].
const HINT_FIRST: Duration = Duration::from_secs(10);
const HINT_EVERY: Duration = Duration::from_secs(20);

/// A switch port that has to learn first that there is no loop takes 30 s (IEEE 802.1D: twice 15 s).
const SPANNING_TREE: Duration = Duration::from_secs(30);

/// How long one look for an answer lasts at most, so that hints come in time.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// A lease, and when it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) lease: ClientLease,
    pub(crate) since: Moment,
}

impl Held {
    /// Words for the keeper's command line.
    pub(crate) fn to_words(&self) -> Vec<String> {
        let ClientLease { address, prefix, server, seconds: [renew, rebind, end], .. } =
            &self.lease;
        let since = self.since.as_millis();
        let text = format!("{address} {prefix} {server} {renew} {rebind} {end} {since}");
        text.split(' ').map(ToOwned::to_owned).collect()
    }

    pub(crate) fn parse(words: &[String]) -> Option<Self> {
        let [address, prefix, server, renew, rebind, end, since] = words else { return None };
        let lease = ClientLease {
            address: address.parse().ok()?,
            prefix: prefix.parse().ok()?,
            server: server.parse().ok()?,
            router: None,
            routes: Vec::new(),
            dns: Vec::new(),
            ntp: Vec::new(),
            domain: None,
            seconds: [renew.parse().ok()?, rebind.parse().ok()?, end.parse().ok()?],
        };
        Some(Self { lease, since: Moment::from_millis(since.parse().ok()?) })
    }

    /// For `/run/bootlace/lease.json`. Nothing in it needs quoting: a domain is letters, digits, `-._`.
    pub(crate) fn to_json(&self) -> String {
        let ClientLease { address, prefix, server, router, routes, dns, ntp, domain, seconds } =
            &self.lease;
        let quoted = |text: String| format!("\"{text}\"");
        let or_null = |text: Option<String>| text.map_or_else(|| "null".to_owned(), quoted);
        let list = |servers: &[Ipv4Addr]| {
            let servers: Vec<String> =
                servers.iter().map(|server| quoted(server.to_string())).collect();
            servers.join(",")
        };
        let routes: Vec<String> = routes.iter().map(|route| quoted(route.to_string())).collect();
        let [renew, rebind, end] = seconds;
        format!(
            "{{\"address\":\"{address}\",\"prefix\":{prefix},\"server\":\"{server}\",\"router\":{},\
             \"routes\":[{}],\"dns\":[{}],\"ntp\":[{}],\"domain\":{},\"renew_seconds\":{renew},\"rebind_seconds\":{rebind},\
             \"lease_seconds\":{end},\"since_uptime_ms\":{}}}\n",
            or_null(router.map(|router| router.to_string())),
            routes.join(","),
            list(dns),
            list(ntp),
            or_null(domain.clone()),
            self.since.as_millis()
        )
    }
}

/// Asks for an address, for as long as it takes.
pub(crate) fn obtain(nic: &Nic, config: &BootConfig, console: &Console) -> Result<Held, Failure> {
    let port = Port::open(&nic.name).map_err(|error| {
        Failure::new(
            format!("can't use DHCP on {}: {error}", nic.name),
            "this is a fault of the kernel or of this initrd: try another kernel version",
        )
    })?;
    let started = now();
    // Whoever booted the machine knows it.
    let mut client = Client::new(config.mac, &config.host_name, transaction(config.mac), started)
        .preferring(config.server);
    let mut next_hint = HINT_FIRST;
    loop {
        if let Some(Change::Leased(lease)) = port.step(&mut client) {
            return Ok(Held { lease, since: now() });
        }
        let waited = now().since(started);
        if waited >= next_hint {
            console.wait("address", &hint(&nic.name, waited));
            next_hint += HINT_EVERY;
        }
    }
}

fn hint(name: &str, waited: Duration) -> String {
    let cause = match waited < SPANNING_TREE {
        true => "does one serve this network?",
        false => {
            "does one serve this network, and does it know this machine? Some switch ports pass \
             nothing for 30 s: turn on PortFast (edge port) there"
        }
    };
    format!(
        "{name} has a link, but no DHCP server has answered for {} s: {cause}",
        waited.as_secs()
    )
}

/// Keeps a lease while the system runs: [`open`](Self::open) as long as there is an initrd, then
/// [`keep`](Self::keep). The address stays in any case: the root disk depends on it.
pub(crate) struct Renewal {
    port: Port,
    client: Client,
    lease: ClientLease,
}

impl Renewal {
    pub(crate) fn open(held: Held, nic: &str, config: &BootConfig) -> io::Result<Self> {
        let lease = held.lease.clone();
        let (mac, host_name) = (config.mac, &config.host_name);
        let client = Client::resume(mac, host_name, transaction(mac), held.lease, held.since);
        Ok(Self { port: Port::open(nic)?, client, lease })
    }

    /// Ends when there is nothing more to do.
    pub(crate) fn keep(mut self, console: &Console) {
        let ours = self.lease.address;
        let restart = "somebody else may get it: restart this machine";
        while self.lease.seconds[2] != u32::MAX {
            match self.port.step(&mut self.client) {
                Some(Change::Leased(lease)) if lease.address == ours => {
                    let seconds = lease.seconds[2];
                    console.log(&format!("bootlace: {ours} is leased for {seconds} s from now"));
                    self.lease = lease;
                }
                Some(Change::Leased(lease)) => {
                    let (server, other) = (lease.server, lease.address);
                    console.warn(&format!(
                        "bootlace: the DHCP server {server} now gives {other} instead of {ours}; {restart}"
                    ));
                    return;
                }
                Some(Change::Lost) => {
                    console.warn(&format!("bootlace: the DHCP server takes {ours} back; {restart}"))
                }
                None => {}
            }
        }
    }
}

/// The client port of one NIC.
struct Port {
    socket: UdpSocket,
}

impl Port {
    fn open(nic: &str) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // Only there: without an address, it is the interface by which the kernel finds the way.
        socket.bind_device(Some(nic.as_bytes()))?;
        socket.set_broadcast(true)?;
        // The real system may have a client of its own on another card.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, CLIENT_PORT)).into())?;
        Ok(Self { socket: socket.into() })
    }

    /// Sends what is due, or waits for an answer, not too long.
    fn step(&self, client: &mut Client) -> Option<Change> {
        let wait = match client.next(now()) {
            Next::Send(message, to) => {
                // What can't be sent now is sent the next time.
                let _ = self.socket.send_to(&message, SocketAddrV4::new(to, SERVER_PORT));
                return None;
            }
            Next::WaitUntil(moment) => moment.since(now()),
            Next::Done => LOOK_MAX,
        };
        let wait = wait.clamp(Duration::from_millis(1), LOOK_MAX);
        self.socket.set_read_timeout(Some(wait)).ok()?;
        let mut answer = [0; ANSWER_MAX];
        match self.socket.recv(&mut answer) {
            Ok(length) => client.on_datagram(&answer[..length], now()),
            Err(error) if is_timeout(&error) => None,
            Err(_) => {
                // Such as a NIC that is down: not a reason to spin.
                std::thread::sleep(wait);
                None
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn now() -> Moment {
    Moment::default() + uptime()
}

/// Different for each machine and each time.
fn transaction(mac: Mac) -> u32 {
    let [.., a, b, c, d] = mac.0;
    u32::from_be_bytes([a, b, c, d]) ^ uptime().subsec_nanos().rotate_left(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_comes_to_the_keeper_and_into_the_file() {
        let lease = ClientLease {
            address: Ipv4Addr::new(10, 0, 0, 7),
            prefix: 24,
            server: Ipv4Addr::new(10, 0, 0, 1),
            router: None,
            routes: Vec::new(),
            dns: Vec::new(),
            ntp: Vec::new(),
            domain: None,
            seconds: [60, 105, 120],
        };
        let held = Held { lease, since: Moment::from_millis(6400) };
        assert_eq!(Held::parse(&held.to_words()), Some(held.clone()));
        assert_eq!(Held::parse(&[]), None);
        let lease = ClientLease {
            router: Some(Ipv4Addr::new(10, 0, 0, 254)),
            routes: vec!["10.9.0.0/16:10.0.0.253".parse().unwrap()],
            dns: vec![Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(9, 9, 9, 9)],
            ntp: vec![Ipv4Addr::new(10, 0, 0, 2)],
            ..held.lease
        };
        assert_eq!(
            Held { lease, ..held }.to_json(),
            "{\"address\":\"10.0.0.7\",\"prefix\":24,\"server\":\"10.0.0.1\",\
             \"router\":\"10.0.0.254\",\"routes\":[\"10.9.0.0/16:10.0.0.253\"],\"dns\":[\"10.0.0.1\",\"9.9.9.9\"],\"ntp\":[\"10.0.0.2\"],\"domain\":null,\
             \"renew_seconds\":60,\"rebind_seconds\":105,\"lease_seconds\":120,\
             \"since_uptime_ms\":6400}\n"
        );
    }

    #[test]
    fn a_wait_for_dhcp_is_explained() {
        let early = hint("eth0", Duration::from_secs(10));
        assert!(early.contains("no DHCP server has answered for 10 s: does one serve"), "{early}");
        assert!(!early.contains("PortFast"), "{early}");
        assert!(hint("eth0", Duration::from_secs(31)).contains("PortFast"));
    }
}
