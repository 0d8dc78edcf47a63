//! `bootlace share`

use super::output::announce;
use super::{runtime, server};
use crate::config::check_local;
use crate::net::handed_sockets;
use crate::privileges::raise_descriptor_limit;
use crate::systemd;
use anyhow::Context;
use clap::{Args, ValueEnum};
use model::ShelfSlot;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use storage::{Address, Allow, AoeAddress, ShareConfig, TlsConfig, Writes};

/// How often the disk is checked for growth.
const GROWTH_INTERVAL: Duration = Duration::from_secs(2);

/// Share a file or block device over NBD and AoE until Ctrl-C
///
/// The disk is exported as it is, by the storage server's engine and without a configuration. Any NBD or
/// AoE client can use it. Once it is ready, its addresses are printed, one per line:
///
///   bootlace share disk.img --name lab
///   nbd://127.0.0.1:10809/lab
///
/// For a room, read-only, over both protocols:
///
///   bootlace share disk.img --readonly --nbd 10.0.0.1:10809 --allow 10.0.0.0/24 \
///     --aoe eth0:1.0 --allow 52:54:00:12:34:56
///
/// Encrypted, for clients with a certificate from the office's authority:
///
///   bootlace share disk.img --nbd 10.0.0.1:10809 --tls-cert cert.pem --tls-key key.pem \
///     --tls-client-ca office.pem
///   nbds://10.0.0.1:10809/disk.img
///
/// The disk may grow while it is shared (lvextend, truncate): AoE clients are told, NBD clients see it when
/// they reconnect.
///
/// NBD is also served on sockets passed in LISTEN_FDS (systemd's socket units).
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Share {
    /// A raw disk image, or a block device
    file: PathBuf,
    /// What clients call it [default: the file's name]
    #[arg(long)]
    name: Option<String>,
    /// Serve NBD on this address; may be given several times [default: 127.0.0.1:10809 if there is no
    /// other address]
    #[arg(long, value_name = "ADDR:PORT")]
    nbd: Vec<SocketAddr>,
    /// Serve NBD on a Unix socket, which only you may open
    #[arg(long, value_name = "PATH")]
    nbd_unix: Vec<PathBuf>,
    /// Serve AoE on this network interface, as this disk (needs root); @MAC serves it from an address of
    /// its own, which another server can take over
    #[arg(long, value_name = "IFACE:SHELF.SLOT[@MAC]", value_parser = aoe_address)]
    aoe: Vec<AoeAddress>,
    /// Admit only these clients: networks for NBD, MAC addresses for AoE. Without it, whoever reaches an
    /// address may use the disk
    #[arg(long, value_name = "ADDR|CIDR|MAC")]
    allow: Vec<Allow>,
    /// Serve NBD over TLS with this certificate (PEM), which is reloaded when the file changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Admit only clients that present a certificate from one of these authorities (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Whether NBD clients must use TLS
    #[arg(long, value_enum, default_value_t, requires = "tls_cert")]
    tls: Tls,
    /// Refuse writes
    #[arg(long, conflicts_with_all = ["write", "durability"])]
    readonly: bool,
    /// What an acknowledged write survives
    #[arg(long, value_enum, default_value_t)]
    durability: Durability,
    /// Where writes go
    #[arg(long, value_enum, default_value_t)]
    write: Write,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Tls {
    /// Clients without it are refused
    #[default]
    Required,
    /// Clients without it are served too, and need no certificate
    Optional,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Durability {
    /// A power cut: over AoE at once, over NBD after a flush, which file systems send
    #[default]
    Durable,
    /// A power cut only after a flush; AoE clients send none
    Buffered,
    /// Nothing: flushes are ignored. Fast, for disks that may be lost
    Ephemeral,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Write {
    /// To the file itself
    #[default]
    Through,
    /// To a temporary file (in TMPDIR or /var/tmp), which is deleted at the end
    Discard,
}

impl Share {
    pub(super) fn run(self) -> anyhow::Result<()> {
        raise_descriptor_limit();
        let mut config = self.config();
        let handed = handed_sockets().context("a socket of LISTEN_FDS")?;
        config.nbd_sockets = handed.into_iter().map(|handed| handed.socket).collect();
        let has_address = !config.nbd_sockets.is_empty() || !config.aoe.is_empty();
        if !has_address && config.nbd.is_empty() {
            config.nbd.push(Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 10809))));
        }
        runtime()?.block_on(async {
            let stop = server::stop_signal()?;
            let share = storage::Share::start(config)?;
            share.addresses().iter().for_each(announce);
            systemd::ready("sharing");
            let mut looks = tokio::time::interval(GROWTH_INTERVAL);
            while stop.run_until_cancelled(looks.tick()).await.is_some() {
                if let Err(error) = share.grow() {
                    tracing::warn!(%error, "can't see whether the disk has grown");
                }
            }
            drop(share);
            Ok(())
        })
    }

    fn config(self) -> ShareConfig {
        let file_name = self.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let over_tcp = self.nbd.into_iter().map(Address::Tcp);
        let nbd = over_tcp.chain(self.nbd_unix.into_iter().map(Address::Unix)).collect();
        let writes = match (self.readonly, self.write) {
            (true, _) => Writes::Refuse,
            (false, Write::Through) => Writes::Through,
            (false, Write::Discard) => {
                let folder = std::env::var_os("TMPDIR").filter(|folder| !folder.is_empty());
                Writes::Discard(folder.map_or_else(|| "/var/tmp".into(), PathBuf::from))
            }
        };
        let tls = self.tls_cert.zip(self.tls_key).map(|(certificate, key)| TlsConfig {
            certificate,
            key,
            client_ca: self.tls_client_ca,
            is_required: self.tls == Tls::Required,
        });
        let durability = match self.durability {
            Durability::Durable => storage::Durability::Durable,
            Durability::Buffered => storage::Durability::Buffered,
            Durability::Ephemeral => storage::Durability::Ephemeral,
        };
        ShareConfig {
            name: self.name.unwrap_or(file_name),
            file: self.file,
            writes,
            durability,
            nbd,
            nbd_sockets: Vec::new(),
            tls,
            aoe: self.aoe,
            allow: self.allow,
        }
    }
}

fn aoe_address(text: &str) -> Result<AoeAddress, String> {
    let wrong = "use IFACE:SHELF.SLOT or IFACE:SHELF.SLOT@MAC, such as eth0:1.0@02:00:00:00:01:00";
    let (place, mac) = match text.split_once('@') {
        Some((place, mac)) => (place, Some(mac)),
        None => (text, None),
    };
    let (interface, address) = place.rsplit_once(':').ok_or(wrong)?;
    if interface.is_empty() {
        return Err(wrong.to_owned());
    }
    let mac = match mac {
        Some(mac) => Some(check_local(mac.parse().map_err(|error| format!("{error}"))?)?),
        None => None,
    };
    let address: ShelfSlot = address.parse().map_err(|error| format!("{error}"))?;
    Ok(AoeAddress { interface: interface.to_owned(), address, mac })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aoe_addresses_are_read() {
        let one = aoe_address("br0.7:1.15").unwrap();
        assert_eq!((one.interface.as_str(), one.address.to_string().as_str()), ("br0.7", "1.15"));
        let one = aoe_address("eth0:1.0@02:00:00:00:01:00").unwrap();
        assert_eq!(one.mac.unwrap().to_string(), "02:00:00:00:01:00");
        for text in
            ["1.0", ":1.0", "eth0:1", "eth0:1.255", "eth0:1.0@", "eth0:1.0@00:11:22:33:44:55"]
        {
            assert!(aoe_address(text).is_err(), "{text}");
        }
    }
}
