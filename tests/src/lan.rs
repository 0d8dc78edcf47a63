//! A virtual LAN: a bridge with the server's address, PCs and clients plugged into it.

use crate::netns::Netns;
use anyhow::Result;
use nix::sys::signal::Signal;
use std::cell::Cell;
use std::path::Path;
use std::process::Command;

/// Address of the server on each LAN.
pub const SERVER: &str = "10.77.0.1";

/// Address of the server on each LAN, with the length of its network prefix.
pub const SERVER_PREFIX: &str = "10.77.0.1/24";

/// The server's NIC on each LAN.
const SERVER_MAC: &str = "02:00:0a:4d:00:01";

/// A bridge `br0` with the address [`SERVER`] in a namespace of its own.
#[derive(Debug)]
pub struct Lan {
    netns: Netns,
    n_ports: Cell<u32>,
    tap_mtu: Cell<u16>,
}

impl Lan {
    /// Lays the LAN.
    ///
    /// # Errors
    /// Not root, or `ip` fails.
    pub fn lay(purpose: &str) -> Result<Self> {
        let netns = Netns::create(purpose)?;
        // A bridge without ports has no carrier; servers may look for it.
        // (A veth, for not every kernel has dummy interfaces.)
        netns.ip("link add port0 type veth peer name end0")?;
        netns.ip("link set end0 up")?;
        let lan = Self { netns, n_ports: Cell::new(0), tap_mtu: Cell::new(1500) };
        lan.add_bridge()?;
        Ok(lan)
    }

    fn add_bridge(&self) -> Result<()> {
        // A bridge whose address was not chosen changes it with its ports, and then nobody finds the server for seconds.
        let bridge = "type bridge stp_state 0 forward_delay 0";
        self.netns.ip(&format!("link add br0 address {SERVER_MAC} {bridge}"))?;
        self.netns.ip(&format!("addr add {SERVER_PREFIX} dev br0"))?;
        self.netns.ip("link set br0 up")?;
        self.netns.ip("link set port0 master br0 up")
    }

    /// Takes the bridge away, and does something in the meantime; then there is another one of its name. Nothing is
    /// plugged into it.
    ///
    /// # Errors
    /// `ip` fails, or what is done in the meantime.
    pub fn make_bridge_again(&self, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
        self.netns.ip("link del br0")?;
        meanwhile()?;
        self.add_bridge()
    }

    /// The namespace with the bridge, where servers and QEMU run.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Sets how large packets the server sends, and the largest that reach PCs which are plugged in later:
    /// 1500 bytes without this.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn set_mtu(&self, server: u16, pcs: u16) -> Result<()> {
        self.tap_mtu.set(pcs);
        self.netns.ip(&format!("link set br0 mtu {server}"))
    }

    /// Plugs in a tap interface for a QEMU PC and returns its name.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn add_tap(&self) -> Result<String> {
        let name = self.next_port("tap");
        self.netns.ip(&format!("tuntap add {name} mode tap"))?;
        let mtu = self.tap_mtu.get();
        self.netns.ip(&format!("link set {name} mtu {mtu} master br0 up"))?;
        Ok(name)
    }

    /// Plugs in a client: a namespace of its own with one interface `eth0`, up, without address.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn add_client(&self, purpose: &str, mac: &str) -> Result<Client> {
        let client = Client { netns: Netns::create(purpose)? };
        self.plug("br0", &client, "eth0", mac)?;
        Ok(client)
    }

    /// Lays another bridge of that name in the server's namespace. Without an address (`ADDRESS/LENGTH`) the server is not on it.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn add_bridge_of(&self, bridge: &str, address: Option<&str>) -> Result<()> {
        let (port, end) = (self.next_port("port"), self.next_port("end"));
        self.netns.ip(&format!("link add {port} type veth peer name {end}"))?;
        self.netns.ip(&format!("link set {end} up"))?;
        self.netns.ip(&format!("link add {bridge} type bridge stp_state 0 forward_delay 0"))?;
        if let Some(address) = address {
            self.netns.ip(&format!("addr add {address} dev {bridge}"))?;
        }
        self.netns.ip(&format!("link set {bridge} up"))?;
        self.netns.ip(&format!("link set {port} master {bridge} up"))
    }

    /// Plugs a client into one of the bridges, with an interface of that name, which is up and has no address. Returns the name of
    /// the bridge's port.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn plug(
        &self,
        bridge: &str,
        client: &Client,
        interface: &str,
        mac: &str,
    ) -> Result<String> {
        let port = self.next_port("veth");
        let peer = client.netns.name();
        let end = format!("peer name {interface} address {mac} netns {peer}");
        self.netns.ip(&format!("link add {port} type veth {end}"))?;
        self.netns.ip(&format!("link set {port} master {bridge} up"))?;
        client.netns.ip(&format!("link set {interface} up"))?;
        Ok(port)
    }

    fn next_port(&self, kind: &str) -> String {
        let number = self.n_ports.get() + 1;
        self.n_ports.set(number);
        format!("{kind}{number}")
    }
}

/// A client program's place on a [`Lan`].
#[derive(Debug)]
pub struct Client {
    netns: Netns,
}

impl Client {
    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// A client that is not plugged in yet.
    ///
    /// # Errors
    /// Not root, or `ip` fails.
    pub fn unplugged(purpose: &str) -> Result<Self> {
        Ok(Self { netns: Netns::create(purpose)? })
    }

    /// A command that runs there.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.netns.command(program, Signal::SIGKILL)
    }
}
