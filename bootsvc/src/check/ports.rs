//! Whether the ports can be had.

use super::ours::{Ours, Server};
use super::{Verdict, Viewer};
use crate::config::Config;
use crate::net::port_holder::{Holder, Protocol, holders, in_use, is_taken};
use crate::net::tftp_server;
use crate::network::{Served, nbd_addresses, servers};
use crate::serve::dhcp_ports;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use wire::error_chain;

/// A port that one of our servers needs.
struct Port<'a> {
    protocol: Protocol,
    address: SocketAddr,
    what: String,
    /// Which of them.
    server: &'a Server,
}

/// All ports.
pub(super) fn ports(
    config: &Config,
    networks: &[Served],
    ours: &Ours,
    viewer: Viewer,
) -> Vec<Verdict> {
    let at = |server: Ipv4Addr, port| SocketAddr::from((server, port));
    let boot = |protocol, address, what: &str| Port {
        protocol,
        address,
        what: what.to_owned(),
        server: &ours.boot,
    };
    let all = servers(networks);
    let named = |what: &str, server: Ipv4Addr| match all.len() {
        1 => what.to_owned(),
        _ => format!("{what} at {server}"),
    };
    let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let dhcp = dhcp_ports(config.network.mode).iter();
    let mut needed: Vec<Port<'_>> =
        dhcp.map(|&port| boot(Protocol::Udp, any(port), "DHCP")).collect();
    for &server in &all {
        needed.extend([
            boot(Protocol::Udp, at(server, tftp_server::PORT), &named("TFTP", server)),
            boot(Protocol::Tcp, at(server, initcfg::HTTP_PORT), &named("HTTP boot", server)),
            boot(Protocol::Udp, at(server, initcfg::REPORT_PORT), &named("reports", server)),
        ]);
    }
    needed.push(boot(Protocol::Tcp, config.web.listen, "web page"));
    needed.extend(nbd_addresses(networks).into_iter().map(|nbd| Port {
        protocol: Protocol::Tcp,
        address: SocketAddr::V4(nbd),
        what: named("NBD", *nbd.ip()),
        server: &ours.storage,
    }));
    needed.into_iter().map(|port| port.check(ours, viewer)).collect()
}

impl Port<'_> {
    fn check(&self, ours: &Ours, viewer: Viewer) -> Verdict {
        let Self { protocol, address, ref what, .. } = *self;
        let bound = match protocol {
            Protocol::Udp => UdpSocket::bind(address).map(drop),
            Protocol::Tcp => TcpListener::bind(address).map(drop),
        };
        let port = address.port();
        match bound.map_err(|error| (error.kind(), error)) {
            Ok(()) => Verdict::Right(format!("{what}: {protocol} port {port} is free")),
            Err((ErrorKind::AddrInUse, _)) => self.taken(ours),
            // The kernel asks for rights before it looks whether the port is free.
            Err((ErrorKind::PermissionDenied, _)) if is_taken(protocol, port) => self.taken(ours),
            Err((ErrorKind::PermissionDenied, _)) if !viewer.is_theirs => {
                Verdict::Unseen(format!("whether {protocol} port {port} can be had ({what})"))
            }
            Err((_, error)) => {
                let why = error_chain(&in_use(protocol, address, error));
                Verdict::Wrong(format!("{what}: {why}"))
            }
        }
    }

    fn taken(&self, ours: &Ours) -> Verdict {
        let Self { protocol, ref what, .. } = *self;
        let port = format!("{what}: {protocol} port {}", self.address.port());
        let holders = holders(protocol, self.address.port());
        // What systemd keeps for our servers it holds, too.
        if let Some((holder, name)) = holders.iter().find_map(|it| Some((it, ours.name(it.pid)?))) {
            return Verdict::Right(format!(
                "{port} is this site's already: its {name} runs ({holder})"
            ));
        }
        match (holders.first(), self.server) {
            (Some(holder), _) if holder.name == "bootlace" => Verdict::Wrong(format!(
                "{port} is in use by another Bootlace than this site's, {holder}{}: stop that one",
                root_of(holder)
            )),
            (Some(holder), _) => Verdict::Wrong(format!("{port} is in use by {holder}; stop it")),
            (None, Server::Runs(_) | Server::Hangs(_)) => Verdict::Right(format!(
                "{port} is in use, probably by this site's own server, which runs"
            )),
            (None, Server::Unseen) => Verdict::Unseen(format!("who uses {port}")),
            (None, Server::Absent) => {
                Verdict::Wrong(format!("{port} is in use by another program; stop it"))
            }
        }
    }
}

/// From where a Bootlace was started that is not this one.
fn root_of(holder: &Holder) -> String {
    let line = std::fs::read(format!("/proc/{}/cmdline", holder.pid)).unwrap_or_default();
    let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word));
    let words: Vec<_> = words.collect();
    let beside = words.iter().position(|word| word == "--root").and_then(|n| words.get(n + 1));
    let root = beside.map(|root| &**root);
    let root = root.or_else(|| words.iter().find_map(|word| word.strip_prefix("--root=")));
    root.map_or_else(String::new, |root| format!(", started with --root {}", root.escape_debug()))
}

/// Whether two of our own servers want the same port.
pub(super) fn clashes(config: &Config, networks: &[Served]) -> Option<Verdict> {
    let boot = |server| (SocketAddr::from((server, initcfg::HTTP_PORT)), "HTTP boot");
    let mut tcp: Vec<_> = servers(networks).into_iter().map(boot).collect();
    tcp.push((config.web.listen, "the web page"));
    tcp.extend(nbd_addresses(networks).into_iter().map(|nbd| (SocketAddr::V4(nbd), "NBD")));
    let is_same = |one: SocketAddr, other: SocketAddr| {
        one.port() == other.port()
            && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
    };
    let pairs =
        tcp.iter().enumerate().flat_map(|(n, one)| tcp[n + 1..].iter().map(move |it| (one, it)));
    let clash = pairs.into_iter().find(|(one, other)| is_same(one.0, other.0))?;
    let ((one, first), (_, second)) = clash;
    Some(Verdict::Wrong(format!(
        "{first} and {second} both want TCP {one}: give one of them another port or address"
    )))
}
