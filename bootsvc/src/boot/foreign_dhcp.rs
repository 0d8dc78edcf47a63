//! Boots beside another DHCP server, which gives the addresses: our proxy names the loader, and who has which address is learned.

use crate::boot::dhcp::uuid_of;
use crate::boot::grub_images::{BIOS_FILE, UEFI_X64_FILE};
use crate::net::dhcp_socket::{BootServerSocket, DhcpError, DhcpSocket};
use crate::net::link::{Link, LinkTrouble};
use dhcp::{Proxy, ProxyConfig, ProxyDecision, Request};
use model::{FindingKind, Subject};
use service::{Service, Sighting};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::Mac;

/// How long it is waited after an error.
const RETRY: Duration = Duration::from_secs(1);

/// Notes that wait for the disk. Requests beyond wait in the sockets' buffers.
const NOTES_MAX: usize = 256;

/// The proxy's sockets.
pub(crate) struct ProxySockets {
    offers: DhcpSocket,
    boot_server: BootServerSocket,
}

impl ProxySockets {
    /// Listens on `interface`, whose address is `server`.
    ///
    /// # Errors
    /// A port is taken (the error says by whom), or the interface can't be used.
    pub(crate) fn bind(interface: &str, server: Ipv4Addr) -> Result<Self, DhcpError> {
        Ok(Self {
            offers: DhcpSocket::bind(interface, server)?,
            boot_server: BootServerSocket::bind(interface)?,
        })
    }

    /// The next request; with where it came from, if that is where the answer goes.
    async fn receive(&self) -> io::Result<(Request, Option<SocketAddr>)> {
        tokio::select! {
            request = self.offers.receive() => request.map(|request| (request, None)),
            request = self.boot_server.receive() => request.map(|(request, peer)| (request, Some(peer))),
        }
    }
}

/// Names loaders to firmware until `stop`, and notes who takes which address; machines that are `alive` keep theirs.
pub(crate) async fn serve_proxy(
    (mut sockets, mut link): (ProxySockets, Link),
    server: Ipv4Addr,
    mut alive: mpsc::Receiver<Mac>,
    service: Service,
    stop: CancellationToken,
) {
    let proxy = Proxy::new(ProxyConfig {
        server,
        bios_file: BIOS_FILE.into(),
        uefi_x64_file: UEFI_X64_FILE.into(),
    });
    let mut notes = JoinSet::new();
    let mut is_deaf = false;
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            () = link.made_again() => {
                match ProxySockets::bind(link.interface(), server) {
                    Ok(again) => sockets = again,
                    Err(error) => {
                        tracing::warn!(error = wire::error_chain(&error), "DHCP can't be served yet");
                        link.forget();
                        tokio::time::sleep(RETRY).await;
                    }
                }
                continue;
            }
            Some(_) = notes.join_next() => continue,
            Some(mac) = alive.recv() => {
                let service = service.clone();
                notes.spawn(async move { keep(&service, mac).await });
                continue;
            }
            received = sockets.receive(), if notes.len() < NOTES_MAX => received,
        };
        let (mut request, peer) = match received {
            Ok(received) => received,
            Err(error) => {
                is_deaf = true;
                let cause = format!("DHCP can't receive ({error})");
                service.found(FindingKind::DhcpDeaf, &Subject::Server, cause);
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        if std::mem::take(&mut is_deaf) {
            service.resolved(FindingKind::DhcpDeaf, &Subject::Server);
        }
        if let Some(trouble @ LinkTrouble::NoAddress(_)) = link.trouble() {
            let interface = link.interface();
            tracing::info!(mac = %request.mac, "DHCP request not answered: {interface} {trouble}");
            continue;
        }
        if let Some(firmware) = request.firmware {
            let choice = service.choose_loader(request.mac, firmware, request.is_ipxe);
            tracing::debug!(mac = %request.mac, loader = ?choice.loader, rule = %choice.rule, "loader chosen");
            request.loader = choice.loader.map(|loader| loader.file().to_owned());
        }
        let decision = match peer {
            Some(_) => proxy.on_boot_request(&request),
            None => proxy.on_request(&request),
        };
        match decision {
            ProxyDecision::Reply(reply) => {
                let sent = match peer {
                    Some(peer) => sockets.boot_server.send(&reply, peer).await,
                    None => sockets.offers.send(&reply).await,
                };
                match sent {
                    Ok(()) => {
                        tracing::debug!(mac = %request.mac, kind = ?reply.kind, to = ?reply.to, "proxyDHCP reply");
                    }
                    Err(error) => {
                        tracing::warn!(mac = %request.mac, %error, "a proxyDHCP reply could not be sent");
                    }
                }
                if peer.is_some() {
                    let (service, address) = (service.clone(), request.client);
                    notes.spawn(async move { note(&service, request, address).await });
                }
            }
            ProxyDecision::Takes(address) => {
                let service = service.clone();
                notes.spawn(async move { note(&service, request, address).await });
            }
            ProxyDecision::Silent(reason) => {
                tracing::debug!(mac = %request.mac, %reason, "DHCP request not answered");
                service.traffic().refused("dhcp", reason.word());
            }
        }
    }
}

/// Without DHCP of ours: machines that are `alive` keep their addresses, until `stop`.
pub(crate) async fn keep_addresses(
    mut alive: mpsc::Receiver<Mac>,
    service: Service,
    stop: CancellationToken,
) {
    loop {
        let mac = tokio::select! {
            () = stop.cancelled() => return,
            Some(mac) = alive.recv() => mac,
        };
        keep(&service, mac).await;
    }
}

async fn keep(service: &Service, mac: Mac) {
    if let Err(error) = service.keeps_address(mac).await {
        tracing::warn!(%mac, error = error.chain(), "that a machine has its address could not be noted");
    }
}

/// A client takes an address. Of those that are neither firmware nor ours nothing is noted.
async fn note(service: &Service, request: Request, address: Ipv4Addr) {
    let mac = request.mac;
    let noted = match request.firmware {
        Some(firmware) => {
            let sighting = Sighting {
                mac,
                firmware,
                address: Some(address),
                uuid: uuid_of(&request),
                host_name: request.host_name,
            };
            service.firmware_has_address(sighting, address).await
        }
        None if service.site().machine_by_mac(mac).is_some() => {
            service.has_address(mac, address).await
        }
        None => return,
    };
    if let Err(error) = noted {
        tracing::warn!(%mac, error = error.chain(), "that a PC takes an address could not be noted");
    }
}
