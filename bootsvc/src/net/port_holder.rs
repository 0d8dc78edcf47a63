//! Who holds a port that we need.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// A process that has a socket. Displayed as `dnsmasq (pid 812)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process number of the program.
    pub pid: u32,
    /// Name of the program, as `ps` shows it.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name.escape_debug(), self.pid)
    }
}

/// A socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket has the port.
    #[error("{protocol} port {} is in use by {}", address.port(), used_by(holder.as_ref()))]
    InUse {
        /// TCP or UDP.
        protocol: Protocol,
        /// The address that we need.
        address: SocketAddr,
        /// Who has it; `None` if it could not be found out.
        holder: Option<Holder>,
    },
    /// Ports below 1024 and raw sockets need capabilities.
    #[error(
        "not allowed to use {protocol} port {}; run as root, or with the capabilities \
         CAP_NET_BIND_SERVICE and CAP_NET_RAW",
        address.port()
    )]
    NotAllowed {
        /// TCP or UDP.
        protocol: Protocol,
        /// The address that we need.
        address: SocketAddr,
    },
    /// It is no address of this host.
    #[error(
        "this server has no address {}: correct it in bootlace.toml, or give it to an interface",
        address.ip()
    )]
    NoAddress {
        /// The address that we need.
        address: SocketAddr,
    },
    /// The port can't be had for another reason.
    #[error("can't use {protocol} {address}")]
    Other {
        /// TCP or UDP.
        protocol: Protocol,
        /// The address that we need.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Explains the failed bind of `address`.
pub fn in_use(protocol: Protocol, address: SocketAddr, error: io::Error) -> BindError {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            BindError::InUse { protocol, address, holder: holder(protocol, address.port()) }
        }
        io::ErrorKind::PermissionDenied => BindError::NotAllowed { protocol, address },
        io::ErrorKind::AddrNotAvailable => BindError::NoAddress { address },
        _ => BindError::Other { protocol, address, source: error },
    }
}

/// Who has the port, and what helps.
fn used_by(holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) if holder.pid == std::process::id() => {
            format!("{holder}: this server itself, for another interface")
        }
        Some(holder) if holder.name == "bootlace" => {
            format!("{holder}: Bootlace is running already, perhaps from another folder (--root)")
        }
        Some(holder) => format!("{holder}; stop it, or keep it off the boot network"),
        None => "another program; stop it, or keep it off the boot network".to_owned(),
    }
}

/// A process that holds `port`, if there is one and we may see it. Reads `/proc`.
pub fn holder(protocol: Protocol, port: u16) -> Option<Holder> {
    holders(protocol, port).into_iter().next()
}

/// Whether there is a socket at `port`, whoever has it and at whichever address.
pub fn is_taken(protocol: Protocol, port: u16) -> bool {
    !sockets(protocol, port).is_empty()
}

/// All processes that hold `port`, as far as we may see them: sockets can be in many hands.
pub fn holders(protocol: Protocol, port: u16) -> Vec<Holder> {
    let inodes = sockets(protocol, port);
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    if links.is_empty() {
        return Vec::new();
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let holder = |process: fs::DirEntry| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        // Processes end while we look, and those of others may be closed to us.
        let mut descriptors = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        let has_socket = descriptors.any(|descriptor| {
            fs::read_link(descriptor.path())
                .is_ok_and(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
        });
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        has_socket.then(|| Holder { pid, name: name.trim_end().into() })
    };
    processes.filter_map(holder).collect()
}

/// Inodes of the sockets at `port`.
fn sockets(protocol: Protocol, port: u16) -> Vec<String> {
    let tables = match protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let tables = tables.into_iter().filter_map(|table| fs::read_to_string(table).ok());
    tables.flat_map(|table| inodes_of(&table, protocol, port)).collect()
}

/// Inodes of the sockets bound to `port`, from a table of `/proc/net`.
fn inodes_of(table: &str, protocol: Protocol, port: u16) -> Vec<String> {
    const TCP_LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            let holds = protocol == Protocol::Udp || *state == TCP_LISTEN;
            (holds && local.ends_with(&wanted)).then(|| (*inode).to_string())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn the_holder_of_a_port_is_named() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        let error = UdpSocket::bind(address).unwrap_err();
        let text = in_use(Protocol::Udp, address, error).to_string();
        let expected = format!("(pid {})", std::process::id());
        assert!(text.contains(&expected) && text.contains("UDP port"), "{text}");

        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = holder(Protocol::Tcp, tcp.local_addr().unwrap().port()).unwrap();
        assert_eq!(holder.pid, std::process::id());
    }

    #[test]
    fn an_address_of_another_host_is_told_and_other_failures_keep_their_cause() {
        let address = "192.0.2.1:69".parse().unwrap();
        let error = UdpSocket::bind(address).unwrap_err();
        let text = in_use(Protocol::Udp, address, error).to_string();
        assert!(text.contains("this server has no address 192.0.2.1"), "{text}");
        let error = io::Error::from(io::ErrorKind::OutOfMemory);
        let error = in_use(Protocol::Udp, address, error);
        assert!(std::error::Error::source(&error).is_some(), "{error}");
    }

    #[test]
    fn a_strange_table_is_no_problem() {
        assert!(inodes_of("", Protocol::Udp, 67).is_empty());
        assert!(inodes_of("head\n 1: 00:0043\n\nx", Protocol::Udp, 67).is_empty());
    }
}
