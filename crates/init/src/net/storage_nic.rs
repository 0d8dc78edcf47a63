//! The card that leads to the storage network: finds it among those that did not boot, and gives it its address there.

use crate::console::{Console, uptime};
use crate::failure::Failure;
use crate::modules::Modules;
use crate::modules::coldplug::{self, LostCard};
use crate::net::mtu::{self, Proof};
use crate::net::netlink::{self, Socket};
use crate::net::nic::{self, Nic, in_words};
use crate::patience::Patience;
use crate::sysfs;
use initcfg::{BootConfig, Root, StorageNetwork};
use socket2::{Domain, Protocol, Type};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;
use wire::Mac;

/// How often it is looked again.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Nobody need read of the first moments, in which links come up.
const SILENT_AT_FIRST: Duration = Duration::from_secs(4);

/// How long a server may take to let itself be connected to.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a card may take to show up if the disk can be had without it: drivers were loaded long ago, and a room may have
/// machines with one card, each of whose boots waits for so long.
const CARD_PATIENCE: Duration = Duration::from_secs(5);

/// The same for its link, of which the slowest were seen to need 6 s.
const LINK_PATIENCE: Duration = Duration::from_secs(15);

/// The same for the server's answer. A switch port that has to learn first that there is no loop takes 30 s (IEEE 802.1D).
const ANSWER_PATIENCE: Duration = Duration::from_secs(40);
const SPANNING_TREE: Duration = Duration::from_secs(30);

/// The longest of all that together, if the disk can be had without it.
const SEARCH_MAX: Duration = Duration::from_secs(60);

/// How long a card may take if there is no disk without it: USB adapters were seen to need 15 s.
const CARD_TIMEOUT: Duration = Duration::from_secs(30);

/// The card, and what it is told to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StorageNic {
    pub(crate) nic: Nic,
    pub(crate) mac: Mac,
    /// Address and prefix length.
    pub(crate) address: (Ipv4Addr, u8),
    /// How large its packets are, if that is not the usual.
    pub(crate) mtu: Option<u16>,
}

/// By which way the disk is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Over the storage network; the text says by which card, for people.
    Storage(StorageNic, String),
    /// Over the network that the machine boots from, since this is wrong.
    Boot(String),
}

/// For people, behind what is attached.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(_, text) => write!(f, ", {text}"),
            Self::Boot(why) => write!(f, "; {why}"),
        }
    }
}

impl Way {
    /// The card that leads to the storage network.
    pub(crate) fn card(&self) -> Option<&StorageNic> {
        match self {
            Self::Storage(card, _) => Some(card),
            Self::Boot(_) => None,
        }
    }

    /// Those of the servers that are reached by it.
    pub(crate) fn servers(
        &self,
        network: &StorageNetwork,
        all: &[SocketAddrV4],
    ) -> Vec<SocketAddrV4> {
        let is_there = |server: &&SocketAddrV4| network.holds(*server.ip());
        let is_over_it = matches!(self, Self::Storage(..));
        all.iter().filter(|server| is_there(server) == is_over_it).copied().collect()
    }
}

/// A card that did not boot.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Card {
    nic: Nic,
    mac: Mac,
}

/// Why the storage network is not reached; in the order of what must be so first.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    /// The machine would have the server's own address.
    IsServer,
    /// The address can't be given to this card.
    NotConfigured(String, String),
    /// There is no second card.
    NoCard(Vec<LostCard>),
    /// None has a link.
    NoLink(Vec<Card>),
    /// Nobody answers behind those that have one.
    NoAnswer(Vec<Card>),
}

/// Sets all cards up that did not boot, as links take seconds; what can't be done is seen later.
pub(crate) fn raise_others(boot: Mac) {
    if let Ok(socket) = Socket::route() {
        for card in others(boot) {
            let _ = netlink::link_up(&socket, card.nic.index);
        }
    }
}

/// Searches until the storage server answers, for as long as it takes; or, if the disk can be had over the network that the
/// machine boots from, until that is better. All other cards are as they were then.
pub(crate) fn find(
    boot_nic: &Nic,
    config: &BootConfig,
    network: &StorageNetwork,
    modules: &Modules,
    console: &Console,
) -> Result<Way, Failure> {
    let boot = config.address.map_or(Ipv4Addr::UNSPECIFIED, |(address, _)| address);
    let search = Search {
        network,
        address: network.address_of(boot),
        servers: servers(network, &config.root),
        boot_mac: config.mac,
    };
    let has_other_way = can_fall_back(network, &config.root);
    let mut patience = Patience::new(console, "attach");
    let started = uptime();
    let mut since: Option<(Trouble, Duration)> = None;
    loop {
        let trouble = match search.look(modules) {
            Ok(card) => {
                let alone = [("arp_ignore", "1"), ("arp_announce", "2")];
                // Where both cards are on one switch, each answers for its own address only.
                for (name, (key, value)) in [&boot_nic.name, &card.nic.name]
                    .into_iter()
                    .flat_map(|name| alone.map(|setting| (name, setting)))
                {
                    sysfs::tune(format!("/proc/sys/net/ipv4/conf/{name}/{key}"), value);
                }
                put_down(config.mac, Some(card.mac));
                return Ok(search.finish(card, console));
            }
            Err(trouble) => trouble,
        };
        let is_new = since.as_ref().is_none_or(|(known, _)| !known.is_like(&trouble));
        if is_new {
            since = Some((trouble.clone(), uptime()));
        }
        let waited = since.as_ref().map_or(Duration::ZERO, |(_, since)| uptime() - *since);
        let (what, remedy) = trouble.words(network, search.address, waited);
        // A link that comes and goes is another trouble each time.
        let is_too_long = uptime() - started >= SEARCH_MAX;
        if has_other_way && (waited >= trouble.patience() || is_too_long) {
            put_down(config.mac, None);
            let why = format!("over the boot network, since {what}; {remedy}");
            console.warn(&format!("bootlace: attach: {why}"));
            return Ok(Way::Boot(why));
        }
        if !has_other_way && waited >= trouble.timeout() {
            return Err(Failure::new(what, remedy));
        }
        if uptime() - started > SILENT_AT_FIRST {
            patience.waiting(&format!("{what}: {remedy}"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What came of a card.
enum Tried {
    Answered,
    Silent,
    NoLink,
}

/// What is looked for.
struct Search<'a> {
    network: &'a StorageNetwork,
    /// The machine's address there.
    address: Ipv4Addr,
    /// Servers of the root there, with the ports of those that have one.
    servers: Vec<SocketAddrV4>,
    boot_mac: Mac,
}

impl Search<'_> {
    /// Gives each card that has a link the address, and asks behind it; the one behind which somebody answers keeps it.
    fn look(&self, modules: &Modules) -> Result<Card, Trouble> {
        if self.servers.iter().any(|server| *server.ip() == self.address) {
            return Err(Trouble::IsServer);
        }
        let cards = others(self.boot_mac);
        if cards.is_empty() {
            return Err(Trouble::NoCard(coldplug::cards_without_driver(modules)));
        }
        let socket = Socket::route()
            .map_err(|error| Trouble::NotConfigured("netlink".to_owned(), error.to_string()))?;
        let (mut linked, mut broken) = (Vec::new(), None);
        for card in &cards {
            match self.try_card(&socket, card) {
                Ok(Tried::Answered) => return Ok(card.clone()),
                Ok(Tried::Silent) => linked.push(card.clone()),
                Ok(Tried::NoLink) => {}
                // Another one may be right.
                Err(error) => broken = Some((card.nic.name.clone(), error.to_string())),
            }
        }
        Err(match (linked.is_empty(), broken) {
            (false, _) => Trouble::NoAnswer(linked),
            (true, Some((name, error))) => Trouble::NotConfigured(name, error),
            (true, None) => Trouble::NoLink(cards),
        })
    }

    /// Gives the card the address, and takes it away again if nobody answers.
    fn try_card(&self, socket: &Socket, card: &Card) -> io::Result<Tried> {
        let Card { nic: Nic { name, index }, .. } = card;
        // Those that came since are still down.
        netlink::link_up(socket, *index)?;
        if !card.nic.has_carrier() {
            return Ok(Tried::NoLink);
        }
        netlink::add_address(socket, *index, self.address, self.network.prefix)?;
        if self.servers.iter().any(|server| answers(*server, name)) {
            return Ok(Tried::Answered);
        }
        netlink::delete_address(socket, *index, self.address, self.network.prefix)?;
        Ok(Tried::Silent)
    }

    /// Packets as large as the settings want, if they get through.
    fn finish(&self, card: Card, console: &Console) -> Way {
        let Card { nic, mac } = card;
        let (address, prefix) = (self.address, self.network.prefix);
        let mut text = format!("over {} {mac} as {address}", nic.name);
        let mut used = None;
        if let Some(wanted) = self.network.mtu {
            let servers: Vec<Ipv4Addr> = self.servers.iter().map(|server| *server.ip()).collect();
            let proof = match mtu::set(&nic, wanted) {
                Ok(()) => {
                    // Many cards begin their negotiation again.
                    nic::wait_for_link(&nic, console);
                    mtu::prove_to(&servers, wanted)
                }
                Err(error) => Proof::NotCarried(format!("the card refuses them: {error}")),
            };
            match proof {
                Proof::Carried => {
                    used = Some(wanted);
                    text += &format!(", MTU {wanted}");
                }
                Proof::NotCarried(why) => {
                    let _ = mtu::set(&nic, mtu::USUAL);
                    nic::wait_for_link(&nic, console);
                    let warning = format!("MTU {} instead of {wanted}: {why}", mtu::USUAL);
                    console.warn(&format!("bootlace: attach: {warning}"));
                    text += &format!(", {warning}");
                }
            }
        }
        Way::Storage(StorageNic { nic, mac, address: (address, prefix), mtu: used }, text)
    }
}

impl Trouble {
    /// Whether both are the same, so that one wait goes on.
    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// How long it may last if there is another way to the disk.
    fn patience(&self) -> Duration {
        match self {
            Self::IsServer => Duration::ZERO,
            Self::NotConfigured(..) | Self::NoCard(_) => CARD_PATIENCE,
            Self::NoLink(_) => LINK_PATIENCE,
            Self::NoAnswer(_) => ANSWER_PATIENCE,
        }
    }

    /// How long it may last if there is none: a cable is plugged in some time, and a server comes back.
    fn timeout(&self) -> Duration {
        match self {
            Self::IsServer => Duration::ZERO,
            Self::NotConfigured(..) | Self::NoCard(_) => CARD_TIMEOUT,
            Self::NoLink(_) | Self::NoAnswer(_) => Duration::MAX,
        }
    }

    /// What it is, and what helps.
    fn words(
        &self,
        network: &StorageNetwork,
        address: Ipv4Addr,
        waited: Duration,
    ) -> (String, String) {
        let place = format!("the storage network {}/{}", network.subnet(), network.prefix);
        let names = |cards: &[Card]| {
            let all = cards.iter().map(|Card { nic, mac }| format!("{} {mac}", nic.name));
            all.collect::<Vec<_>>().join(", ")
        };
        let server = network.server;
        let (what, remedy) = match self {
            Self::IsServer => (
                format!("this machine would have {address} in {place}, which is a server's"),
                "give the machine another address in the network that it boots from",
            ),
            Self::NotConfigured(name, error) => (
                format!("{name} can't be used for {place}: {error}"),
                "this is a fault of the driver: try another kernel version",
            ),
            Self::NoCard(lost) if lost.is_empty() => (
                format!("this machine has no second network card for {place}"),
                "check that the card is seated, and on in the firmware's setup",
            ),
            Self::NoCard(lost) => (
                format!("Linux does not see the network card for {place}: {}", in_words(lost)),
                "use an image whose kernel has a driver and firmware for this card",
            ),
            Self::NoLink(cards) => (
                format!("no link on {}, for {place}", names(cards)),
                "is the cable plugged in, and the switch on?",
            ),
            Self::NoAnswer(cards) => (
                format!("{server} in {place} does not answer {address} behind {}", names(cards)),
                match waited < SPANNING_TREE {
                    true => "is the cable in the right network, and the storage server on?",
                    false => {
                        "is the cable in the right network, and the storage server on? Some switch ports pass nothing \
                         for 30 s: turn on PortFast (edge port) there"
                    }
                },
            ),
        };
        (what, remedy.to_owned())
    }
}

/// Whether this root can also be had without the storage network.
fn can_fall_back(network: &StorageNetwork, root: &Root) -> bool {
    match root {
        Root::Nbd { servers, .. } => servers.iter().any(|server| !network.holds(*server.ip())),
        // What is reached by a card alone is not moved to another one without a person.
        Root::Aoe { .. } | Root::Foreign(_) => false,
    }
}

/// The storage server, and other servers of the root in the storage network. Port 0: it is only pinged.
fn servers(network: &StorageNetwork, root: &Root) -> Vec<SocketAddrV4> {
    let of_root = match root {
        Root::Nbd { servers, .. } => servers.clone(),
        Root::Aoe { .. } => Vec::new(),
        Root::Foreign(url) => url.server().into_iter().collect(),
    };
    let mut all: Vec<SocketAddrV4> =
        of_root.into_iter().filter(|server| network.holds(*server.ip())).collect();
    if all.iter().all(|server| *server.ip() != network.server) {
        all.push(SocketAddrV4::new(network.server, 0));
    }
    all
}

/// Whether the server is behind this card: it answers a ping, or has the port, or says that it has not.
fn answers(server: SocketAddrV4, interface: &str) -> bool {
    if mtu::is_behind(*server.ip(), interface).unwrap_or(false) {
        return true;
    }
    let connect = || {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.connect_timeout(&server.into(), CONNECT_TIMEOUT)
    };
    server.port() != 0
        && match connect() {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        }
}

/// Cards with a cable that did not boot: of VLANs, loopback and the like there is no device, and wireless ones are no
/// room's storage network.
fn others(boot: Mac) -> Vec<Card> {
    let is_card = |name: &str| {
        let folder = Path::new("/sys/class/net").join(name);
        folder.join("device").exists() && !folder.join("phy80211").exists()
    };
    let cards = nic::interfaces().into_iter().filter(|(name, mac)| *mac != boot && is_card(name));
    cards.filter_map(|(name, mac)| Some(Card { nic: Nic::named(&name)?, mac })).collect()
}

/// Leaves cards to the real system as the kernel had them. One that is up can't be renamed, for instance.
fn put_down(boot: Mac, storage: Option<Mac>) {
    if let Ok(socket) = Socket::route() {
        for card in others(boot).into_iter().filter(|card| Some(card.mac) != storage) {
            let _ = netlink::link_down(&socket, card.nic.index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> StorageNetwork {
        "10.20.0.1/24".parse().unwrap()
    }

    fn root(text: &str) -> Root {
        let line = format!(
            "bootlace.server=10.0.0.1 bootlace.boot=4 bootlace.mac=52:54:00:00:00:01 \
             bootlace.address=dhcp bootlace.host=lab-07 bootlace.root={text}"
        );
        BootConfig::parse(&line).unwrap().root
    }

    fn card() -> Card {
        let nic = Nic { name: "eth1".to_owned(), index: 3 };
        Card { nic, mac: Mac([2, 0, 0, 0, 0, 2]) }
    }

    #[test]
    fn the_storage_server_is_asked_and_the_servers_of_the_root_that_are_there() {
        let check = |text: &str, expected: &[&str], has_other_way: bool| {
            let root = root(text);
            let asked = servers(&network(), &root);
            assert_eq!(asked.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
            assert_eq!(can_fall_back(&network(), &root), has_other_way, "{text}");
        };
        check("nbd:10.20.0.1:10809,10.0.0.1:10809:lab-07", &["10.20.0.1:10809"], true);
        let two = &["10.20.0.2:10809", "10.20.0.1:0"];
        check("nbd:10.20.0.2:10809:lab-07", two, false);
        check("aoe:1.7", &["10.20.0.1:0"], false);
        check("nfs://10.20.0.9/srv", &["10.20.0.9:2049", "10.20.0.1:0"], false);
    }

    #[test]
    fn a_way_has_its_own_servers() {
        let all: Vec<SocketAddrV4> =
            ["10.0.0.1:10809", "10.20.0.1:10809"].map(|text| text.parse().unwrap()).into();
        let Card { nic, mac } = card();
        let nic = StorageNic { nic, mac, address: (Ipv4Addr::new(10, 20, 0, 7), 24), mtu: None };
        let over = Way::Storage(nic, String::new()).servers(&network(), &all);
        assert_eq!(over, [all[1]]);
        assert_eq!(Way::Boot(String::new()).servers(&network(), &all), [all[0]]);
    }

    #[test]
    fn whatever_is_wrong_is_said_with_what_helps() {
        let check = |trouble: Trouble, seconds: u64, what: &str, remedy: &str| {
            let address = Ipv4Addr::new(10, 20, 0, 7);
            let said = trouble.words(&network(), address, Duration::from_secs(seconds));
            assert!(said.0.contains(what) && said.1.contains(remedy), "{said:?}");
            assert!(said.0.contains("the storage network 10.20.0.0/24"), "{said:?}");
            assert!(trouble.patience() <= trouble.timeout(), "{trouble:?}");
        };
        let lost = LostCard { name: "PCI 8086:100e".to_owned(), has_driver: false };
        check(Trouble::IsServer, 0, "would have 10.20.0.7", "another address");
        check(Trouble::NoCard(vec![]), 0, "no second network card", "is seated");
        check(Trouble::NoCard(vec![lost]), 0, "PCI 8086:100e has no driver", "a driver");
        check(Trouble::NoLink(vec![card()]), 0, "no link on eth1 02:00:00:00:00:02", "cable");
        let silent = Trouble::NoAnswer(vec![card()]);
        check(silent.clone(), 0, "10.20.0.1 in", "server on?");
        check(silent, 31, "behind eth1 02:00:00:00:00:02", "PortFast");
    }
}
