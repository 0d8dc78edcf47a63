//! Boots beside another DHCP server, which gives the addresses: our proxy names the loader, and who has which address is learned.

use crate::boot::dhcp::{choose_loader, not_bound, uuid_of};
use crate::boot::elsewhere::is_elsewhere;
use crate::boot::grub_images::{ARM64_FILE, BIOS_FILE, UEFI_X64_FILE};
use crate::boot::offers::Offers;
use crate::net::dhcp_socket::{BootServerSocket, DhcpError, DhcpSocket};
use crate::net::link::{Link, LinkTrouble};
use crate::net::neighbours::Neighbours;
use crate::trial;
use dhcp::{Proxy, ProxyConfig, ProxyDecision, Request};
use model::{FindingKind, Subject};
use service::{Link as Reached, Service, Sighting, Traffic};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::Mac;

/// How long it is waited after an error.
const RETRY: Duration = Duration::from_secs(1);

/// Notes that wait for the disk. Requests beyond wait in the sockets' buffers.
const NOTES_MAX: usize = 256;

/// How often it is looked who has asked for nothing.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Addresses that are looked for at once. What is beyond is noted when its loader asks us.
const SEARCHES_MAX: usize = 64;

/// For how long a PC is looked for at the address that it asked for, which it uses at once.
const SEARCH_TIME: Duration = Duration::from_secs(3);

/// Until it is looked again whether the address is still somebody else's.
const SEARCH_PAUSE: Duration = Duration::from_millis(200);

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
    async fn receive(&self, traffic: &Traffic) -> io::Result<(Request, Option<SocketAddr>)> {
        tokio::select! {
            request = self.offers.receive(traffic) => request.map(|(request, _)| (request, None)),
            request = self.boot_server.receive(traffic) => request.map(|(request, peer)| (request, Some(peer))),
        }
    }
}

/// As [`ProxySockets::receive`]; waits while there are none.
async fn receive(
    sockets: Option<&ProxySockets>,
    service: &Service,
) -> io::Result<(Request, Option<SocketAddr>)> {
    match sockets {
        Some(sockets) => sockets.receive(service.traffic()).await,
        None => std::future::pending().await,
    }
}

/// Names loaders to firmware on one interface until `stop`, and notes who takes which address.
pub(crate) async fn serve_proxy(
    (sockets, mut link): (ProxySockets, Link),
    (server, subject, neighbours): (Ipv4Addr, Subject, Neighbours),
    service: Service,
    stop: CancellationToken,
) {
    let proxy = Proxy::new(ProxyConfig {
        server,
        bios_file: BIOS_FILE.into(),
        uefi_x64_file: UEFI_X64_FILE.into(),
        uefi_arm64_file: ARM64_FILE.into(),
    });
    let mut notes = JoinSet::new();
    // Apart from them: anybody can have us look for what is not there.
    let mut searches = JoinSet::new();
    let mut offers = Offers::default();
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    let mut bound = Some(sockets);
    let mut is_deaf = false;
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            is_there = link.moved() => {
                // Where interfaces change their names, another one waits for this place.
                bound = None;
                if is_there {
                    match ProxySockets::bind(link.interface(), server) {
                        Ok(again) => {
                            bound = Some(again);
                            if std::mem::take(&mut is_deaf) {
                                service.resolved(FindingKind::DhcpDeaf, &subject);
                            }
                        }
                        Err(error) => {
                            is_deaf = true;
                            not_bound(&error, &subject, &service);
                            link.forget();
                            tokio::time::sleep(RETRY).await;
                        }
                    }
                }
                continue;
            }
            Some(_) = notes.join_next() => continue,
            Some(_) = searches.join_next() => continue,
            _ = look.tick() => {
                tell_silent(&mut offers, &service);
                continue;
            }
            received = receive(bound.as_ref(), &service), if notes.len() < NOTES_MAX => received,
        };
        let Some(sockets) = &bound else { continue };
        let (mut request, peer) = match received {
            Ok(received) => received,
            Err(error) => {
                is_deaf = true;
                let cause = format!("DHCP can't receive ({error})");
                service.found(FindingKind::DhcpDeaf, &subject, cause);
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        if std::mem::take(&mut is_deaf) {
            service.resolved(FindingKind::DhcpDeaf, &subject);
        }
        if let Some(trouble @ LinkTrouble::NoAddress(_)) = link.trouble() {
            let interface = link.interface();
            tracing::info!(mac = %request.mac, "DHCP request not answered: {interface} {trouble}");
            continue;
        }
        // Somebody who takes himself for a PC that is tried on this host.
        if trial::is_tried(request.mac) {
            continue;
        }
        choose_loader(&service, &mut request);
        let mac = request.mac;
        let decision = match peer {
            Some(_) => proxy.on_boot_request(&request),
            None => proxy.on_request(&request),
        };
        // The address that it takes, and whether it may be behind a router.
        let taken = match decision {
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
                match peer {
                    None => {
                        offers.offered(mac, service.now().moment);
                        None
                    }
                    // Somebody else's word about its address is none.
                    Some(peer) if peer.ip() != IpAddr::V4(request.client) => {
                        service.traffic().refused("dhcp", "not-its-address");
                        continue;
                    }
                    Some(_) => Some((request.client, true)),
                }
            }
            ProxyDecision::Takes(address) => Some((address, !request.relay.is_unspecified())),
            ProxyDecision::Silent(reason) => {
                tracing::debug!(mac = %request.mac, %reason, "DHCP request not answered");
                service.traffic().refused("dhcp", reason.word());
                continue;
            }
        };
        if let Some(taken) = taken {
            takes(&mut offers, &service, mac);
            if service.site().machine_by_mac(mac).is_some() && searches.len() < SEARCHES_MAX {
                let (service, neighbours) = (service.clone(), neighbours.clone());
                searches.spawn(async move { search(&service, &neighbours, mac, taken).await });
            }
        }
        let (service, address) = (service.clone(), taken.map(|(address, _)| address));
        notes.spawn(async move { note(&service, request, address).await });
    }
}

/// Where we lease nothing: machines that are `alive` keep their addresses, until `stop`.
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

/// It takes what it is told, after all.
fn takes(offers: &mut Offers, service: &Service, mac: Mac) {
    if offers.takes(mac) {
        service.resolved(FindingKind::LoaderNotAsked, &service.subject_of(mac));
    }
}

/// Tells of those that were told of their loader and took nothing.
fn tell_silent(offers: &mut Offers, service: &Service) {
    for (mac, n) in offers.silent(service.now().moment) {
        let cause = format!(
            "It was told {n} times where its loader is, and asked neither for that nor for an address: no DHCP server gives it one, or its \
             firmware does not take two answers together"
        );
        service.found(FindingKind::LoaderNotAsked, &service.subject_of(mac), cause);
    }
}

/// A client asks for an address, or takes one. Of those that are not firmware nothing is noted.
async fn note(service: &Service, request: Request, address: Option<Ipv4Addr>) {
    let Some(firmware) = request.firmware else { return };
    let (mac, uuid) = (request.mac, uuid_of(&request));
    let sighting = Sighting { mac, firmware, address, uuid, host_name: request.host_name };
    let noted = match address {
        Some(address) => service.firmware_has_address(sighting, address).await,
        None => service.saw(sighting).await,
    };
    warn(mac, noted);
}

/// A machine asks for an address, or takes one: it has it where it is seen there. Anybody can ask in its name.
async fn search(
    service: &Service,
    neighbours: &Neighbours,
    mac: Mac,
    (address, may_be_routed): (Ipv4Addr, bool),
) {
    let is_seen = service.owner_of(address) == Some(mac)
        || tokio::time::timeout(SEARCH_TIME, is_at(neighbours, mac, (address, may_be_routed)))
            .await
            .unwrap_or(false);
    let but = match is_seen && !neighbours.is_on_link(address) {
        true => is_elsewhere(service, neighbours, mac, address).await,
        false => None,
    };
    if let Some(but) = but {
        tracing::info!(%mac, %address, but, "it asked for this address, and is elsewhere");
        service.traffic().refused("dhcp", "not-its-address");
    } else if is_seen {
        warn(mac, service.has_address(mac, address).await);
    } else {
        tracing::info!(%mac, %address, "it asked for this address, where it was not seen");
        service.traffic().refused("dhcp", "not-its-address");
    }
}

/// Whether the NIC answers at this address; waits until it does. Behind a router nobody is seen; but who was heard without one
/// is not there.
async fn is_at(
    neighbours: &Neighbours,
    mac: Mac,
    (address, may_be_routed): (Ipv4Addr, bool),
) -> bool {
    if address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_broadcast()
    {
        return false;
    }
    loop {
        match neighbours.link_to(address).await {
            Reached::Neighbour(other) if other == mac => return true,
            Reached::Routed => return may_be_routed,
            // Whoever had it before may still be known.
            Reached::Neighbour(_) | Reached::Silent => tokio::time::sleep(SEARCH_PAUSE).await,
        }
    }
}

fn warn(mac: Mac, noted: Result<(), service::Error>) {
    if let Err(error) = noted {
        tracing::warn!(%mac, error = error.chain(), "that a PC takes an address could not be noted");
    }
}
