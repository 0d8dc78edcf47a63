//! The boot network's interface as it is now. Interfaces are made again (a bridge or a bond that is restarted, a USB
//! NIC, a driver that is reloaded), and sockets that were bound to the former one then hear nothing any more.

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket,
};
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use wire::Mac;

/// The interface of PCs that are tried on this host, which is there only meanwhile.
pub(crate) const TRIALS: &str = "bootlace-try";

/// The kernel tells of changes at once; what it told while its buffer was full is seen after this time.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Groups of messages about links and IPv4 addresses (linux/rtnetlink.h: RTMGRP_LINK, RTMGRP_IPV4_IFADDR).
const GROUPS: u32 = 0x1 | 0x10;

/// What an interface is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Its number, which another one of the same name does not have; `None` if there is none.
    pub index: Option<u32>,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Why nothing can be served there.
    pub trouble: Option<LinkTrouble>,
}

/// Why nothing can be served on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkTrouble {
    /// There is none of that name.
    Gone,
    /// It is switched off.
    Down,
    /// It has lost the server's address, or has not got it yet.
    NoAddress(Ipv4Addr),
    /// Nobody is at the other end of its cable.
    NoCarrier,
}

impl LinkTrouble {
    /// What a person can do about it, behind a statement of it; empty: nothing more than that says.
    pub fn advice(self, interface: &str) -> String {
        match self {
            Self::Down => format!(": switch it on (ip link set {interface} up)"),
            Self::NoAddress(address) => {
                format!(": give it that (ip address add {address}/24 dev {interface})")
            }
            Self::Gone | Self::NoCarrier => String::new(),
        }
    }
}

impl fmt::Display for LinkTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("is not there"),
            Self::Down => f.write_str("is down"),
            Self::NoAddress(address) => write!(f, "does not have the server's address {address}"),
            Self::NoCarrier => {
                f.write_str("has no link: probably a cable is loose, or the switch is off")
            }
        }
    }
}

/// What the kernel tells of interfaces and addresses.
pub struct Changes(UdpSocket);

impl Changes {
    /// Hears of all that happens from now on.
    ///
    /// # Errors
    /// The kernel tells nothing.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let kind = SockType::Raw;
        let route = socket(AddressFamily::Netlink, kind, flags, SockProtocol::NetlinkRoute)?;
        bind(route.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        // What arrives are whole messages, as datagrams are, so tokio's socket for those serves.
        Ok(Self(UdpSocket::from_std(route.into())?))
    }

    /// Waits until something has changed somewhere, or some time has passed. What the kernel says is not read: it is looked
    /// at.
    pub async fn next(&self) {
        let mut message = [0; 1];
        // An error: its buffer was full.
        let _ = tokio::time::timeout(LOOK_INTERVAL, self.0.recv(&mut message)).await;
        while self.0.try_recv(&mut message).is_ok() {}
    }
}

/// Looks at one interface.
pub struct LinkWatch {
    interface: String,
    server: Ipv4Addr,
    changes: Changes,
}

impl LinkWatch {
    /// Looks at `interface`, on which the server's address is `server`.
    ///
    /// # Errors
    /// The kernel tells of no changes.
    pub fn open(interface: &str, server: Ipv4Addr) -> io::Result<Self> {
        let changes = Changes::open()?;
        Ok(Self { interface: interface.to_owned(), server, changes })
    }

    /// What the interface is like now.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn look(&self) -> io::Result<LinkState> {
        look_at(&self.interface, self.server)
    }

    /// Waits until something may have changed.
    pub async fn changed(&self) {
        self.changes.next().await;
    }
}

/// What `interface` is like, on which the server's address is `server`.
///
/// # Errors
/// The kernel does not tell.
pub fn look_at(interface: &str, server: Ipv4Addr) -> io::Result<LinkState> {
    let mut state = LinkState { trouble: Some(LinkTrouble::Gone), ..LinkState::default() };
    let mut flags = None;
    let mut has_address = false;
    for entry in getifaddrs()?.filter(|entry| entry.interface_name == interface) {
        flags = Some(entry.flags);
        let Some(address) = entry.address else { continue };
        if let Some(link) = address.as_link_addr() {
            state.index = u32::try_from(link.ifindex()).ok();
            state.mac = link.addr().map(Mac);
        }
        has_address |= address.as_sockaddr_in().is_some_and(|it| it.ip() == server);
    }
    let Some(flags) = flags else { return Ok(state) };
    state.trouble = if !flags.contains(InterfaceFlags::IFF_UP) {
        Some(LinkTrouble::Down)
    } else if !has_address {
        Some(LinkTrouble::NoAddress(server))
    } else if !flags.contains(InterfaceFlags::IFF_RUNNING) {
        Some(LinkTrouble::NoCarrier)
    } else {
        None
    };
    Ok(state)
}

/// The interface for who has sockets that are bound to it.
#[derive(Clone, Debug)]
pub struct Link {
    interface: String,
    states: watch::Receiver<LinkState>,
    /// The one that sockets are bound to.
    index: Option<u32>,
}

impl Link {
    /// `interface`, which is now like this. What comes later is told by the sender.
    pub fn new(interface: &str, now: LinkState) -> (watch::Sender<LinkState>, Self) {
        let (sender, states) = watch::channel(now);
        (sender, Self { interface: interface.to_owned(), states, index: now.index })
    }

    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Its hardware address, if it is there.
    pub fn mac(&self) -> Option<Mac> {
        self.states.borrow().mac
    }

    /// Why nothing can be served there now.
    pub fn trouble(&self) -> Option<LinkTrouble> {
        self.states.borrow().trouble
    }

    /// Waits until there is another interface of this name than the one that sockets are bound to, and takes it for that.
    pub async fn made_again(&mut self) {
        let bound = self.index;
        let is_another = |state: &LinkState| state.index.is_some() && state.index != bound;
        match self.states.wait_for(is_another).await.map(|state| state.index) {
            Ok(index) => self.index = index,
            // Nobody looks any more: the server stops.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until the interface of this name is another one than sockets are bound to, or none: they are to be closed. Returns
    /// whether there is one to bind to, and takes it for that.
    pub async fn moved(&mut self) -> bool {
        let bound = self.index;
        match self.states.wait_for(|state| state.index != bound).await.map(|state| state.index) {
            Ok(index) => {
                self.index = index;
                index.is_some()
            }
            // Nobody looks any more: the server stops.
            Err(_) => std::future::pending().await,
        }
    }

    /// Sockets could not be bound: [`made_again`](Self::made_again) and [`moved`](Self::moved) return once more.
    pub fn forget(&mut self) {
        self.index = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_interface_is_told_by_what_it_lacks() {
        let look = |interface: &str, server| LinkWatch::open(interface, server)?.look();
        let state = look("lo", Ipv4Addr::LOCALHOST).unwrap();
        assert_eq!((state.index, state.trouble), (Some(1), None));
        let elsewhere = Ipv4Addr::new(10, 0, 5, 1);
        let trouble = look("lo", elsewhere).unwrap().trouble;
        assert_eq!(trouble, Some(LinkTrouble::NoAddress(elsewhere)));
        let state = look("enp77s0", elsewhere).unwrap();
        assert_eq!((state.index, state.trouble), (None, Some(LinkTrouble::Gone)));
    }

    #[tokio::test]
    async fn who_is_bound_to_a_former_interface_is_told_once() {
        let state = |index| LinkState { index, ..LinkState::default() };
        let (sender, mut link) = Link::new("br0", state(Some(3)));
        let at_once = Duration::from_millis(20);
        let is_told =
            async |link: &mut Link| tokio::time::timeout(at_once, link.made_again()).await.is_ok();
        assert!(!is_told(&mut link).await);
        sender.send_replace(state(None));
        assert!(!is_told(&mut link).await, "there is nothing to bind to");
        sender.send_replace(state(Some(7)));
        assert!(is_told(&mut link).await);
        assert!(!is_told(&mut link).await);
        link.forget();
        assert!(is_told(&mut link).await, "it is tried again");
    }

    #[tokio::test]
    async fn who_is_bound_to_an_interface_that_goes_is_told_that_too() {
        let state = |index| LinkState { index, ..LinkState::default() };
        let (sender, mut link) = Link::new("br0", state(Some(3)));
        let at_once = Duration::from_millis(20);
        let told = async |link: &mut Link| tokio::time::timeout(at_once, link.moved()).await.ok();
        assert_eq!(told(&mut link).await, None);
        sender.send_replace(state(None));
        assert_eq!(told(&mut link).await, Some(false));
        assert_eq!(told(&mut link).await, None);
        // Also the one that it was before.
        sender.send_replace(state(Some(3)));
        assert_eq!(told(&mut link).await, Some(true));
        link.forget();
        assert_eq!(told(&mut link).await, Some(true), "it is tried again");
    }
}
