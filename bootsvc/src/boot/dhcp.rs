//! DHCP of the boot server: decisions of the `dhcp` crate, kept by the service.

use crate::boot::dhcp_silence::{InVain, LeftOut, note_declined};
use crate::boot::grub_images::{ARM64_FILE, BIOS_FILE, UEFI_X64_FILE};
use crate::boot::probes::Probes;
use crate::net::dhcp_socket::{DhcpError, DhcpSocket};
use crate::net::link::{Link, LinkTrouble};
use crate::net::places::Places;
use crate::network::{Served, interfaces};
use crate::trial;
use dhcp::{Arrival, Decision, Networks, Place, Reason, Reply, Request, Usage};
use model::{AddressPool, FindingKind, Lease, LoaderRule, Site, Stage, Subject};
use service::{LeaseNews, NewStage, Service, Sighting};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::Mac;

/// Answers that wait for the disk, each with two changes: more would not find room among those that wait there. A disk may be busy
/// for most of a second while clients come at 2,000 a second; requests beyond wait, and clients repeat them.
const ANSWERS_MAX: usize = 1536;

/// A PC gets its address so long after its request at the latest, though its boot is not recorded yet: firmware asks
/// again after four seconds.
const BOOT_WAIT: Duration = Duration::from_secs(1);

/// HTTP connections of a PC whose firmware has just started are forgotten if it took nothing for so long. Who is in
/// the middle of a download takes something all the time, also if somebody else sends DHCP messages in his name.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1);
/// How long it is waited after an error.
const RETRY: Duration = Duration::from_secs(1);

/// How often it is told how full the pool is.
const GAUGE_INTERVAL: Duration = Duration::from_secs(2);

/// What is leased in these networks, and where each is. An interface's number is its place in [`interfaces`].
/// `serve_everyone` or only who boots.
pub(crate) fn configs(networks: &[Served], serve_everyone: bool) -> Vec<(Place, dhcp::Config)> {
    let interfaces = interfaces(networks);
    let config = |served: &Served| {
        let Served { network, pool, reserved, lease, interface, further, storage: _ } = served;
        let pool = (*pool)?;
        let here = (interface.as_str(), network.server);
        let place = match interfaces.iter().position(|place| *place == here) {
            Some(number) if !network.is_relayed => Place::Link(number),
            _ => Place::Relayed,
        };
        let config = dhcp::Config {
            server: network.server,
            others: further.clone(),
            subnet: network.subnet,
            prefix: network.prefix,
            pool: (pool.first, pool.last),
            reserved: reserved.clone(),
            router: network.router,
            routes: network.routes.clone(),
            dns: network.dns.clone(),
            ntp: network.ntp.clone(),
            domain: network.domain.clone(),
            serve_everyone,
            lease_seconds: u32::try_from(lease.as_secs()).unwrap_or(u32::MAX),
            bios_file: BIOS_FILE.into(),
            uefi_x64_file: UEFI_X64_FILE.into(),
            uefi_arm64_file: ARM64_FILE.into(),
        };
        Some((place, config))
    };
    networks.iter().filter_map(config).collect()
}

/// Requests that wait between an interface and the decision. Others wait in the socket's buffer, in which the system leaves room
/// for some hundred only.
const REQUESTS_MAX: usize = 1024;

/// One of our interfaces.
pub(crate) struct Ear {
    /// Its socket.
    pub(crate) socket: DhcpSocket,
    /// What it is like.
    pub(crate) link: Link,
    /// Our address there.
    pub(crate) address: Ipv4Addr,
    /// What a finding about it is about.
    pub(crate) subject: Subject,
}

/// What an interface has heard.
struct Heard {
    request: Request,
    arrival: Arrival,
    /// Where the answer goes out.
    socket: Arc<DhcpSocket>,
}

/// The next request, whether it was sent to us, and where its answer goes out. Waits while there is no socket.
async fn receive(
    socket: Option<&Arc<DhcpSocket>>,
    service: &Service,
) -> io::Result<(Request, bool, Arc<DhcpSocket>)> {
    let Some(socket) = socket else { return std::future::pending().await };
    let (request, is_unicast) = socket.receive(service.traffic()).await?;
    Ok((request, is_unicast, Arc::clone(socket)))
}

/// An interface is there again, and nobody is heard there yet.
pub(super) fn not_bound(error: &DhcpError, subject: &Subject, service: &Service) {
    let cause = format!("Nobody is heard there yet: {}", wire::error_chain(error));
    service.found(FindingKind::DhcpDeaf, subject, cause);
}

/// Hears requests on the interface with this number until nobody wants them.
async fn hear(
    ear: Ear,
    interface: usize,
    is_alone: bool,
    service: Service,
    to: mpsc::Sender<Heard>,
) {
    let Ear { socket, mut link, address, subject } = ear;
    let mut bound = Some(Arc::new(socket));
    let mut is_deaf = false;
    loop {
        let received = tokio::select! {
            () = to.closed() => return,
            is_there = link.moved() => {
                // Where interfaces change their names, another ear waits for this place.
                bound = None;
                if is_there {
                    match DhcpSocket::bind(link.interface(), address) {
                        Ok(again) => {
                            bound = Some(Arc::new(again));
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
            received = receive(bound.as_ref(), &service) => received,
        };
        let (request, is_unicast, socket) = match received {
            Ok(received) => received,
            Err(error) => {
                is_deaf = true;
                let cause = format!("DHCP can't receive on {} ({error})", link.interface());
                service.found(FindingKind::DhcpDeaf, &subject, cause);
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        if is_deaf {
            is_deaf = false;
            service.resolved(FindingKind::DhcpDeaf, &subject);
        }
        tracing::debug!(
            mac = %request.mac, kind = %request.kind, wanted = ?request.wanted, relay = %request.relay,
            interface = link.interface(), "DHCP request"
        );
        // Our own search for other servers, which a relay brings back; and somebody who takes himself for a PC that is tried here.
        if is_alone && link.mac() == Some(request.mac) || trial::is_tried(request.mac) {
            continue;
        }
        // A PC that got an address from us could not fetch its loader. Perhaps somebody else answers.
        if let Some(trouble @ LinkTrouble::NoAddress(_)) = link.trouble() {
            let interface = link.interface();
            tracing::info!(mac = %request.mac, "DHCP request not answered: {interface} {trouble}");
            continue;
        }
        let arrival = Arrival { interface, is_unicast };
        let heard = Heard { request, arrival, socket };
        if to.send(heard).await.is_err() {
            return;
        }
    }
}

/// How often, at most, it is looked which machines run: their addresses are theirs whatever is said in their name.
const IN_USE_INTERVAL: Duration = Duration::from_secs(1);

/// Answers requests that `ears` hear until `stop`, but for those of our own NICs, and prolongs the leases of machines that are `alive`.
/// `is_alone` unless others may answer here, too, which is nothing to tell then.
pub(crate) async fn serve(
    ears: Vec<Ear>,
    configs: Vec<(Place, dhcp::Config)>,
    is_alone: bool,
    mut alive: mpsc::Receiver<Mac>,
    http: Places,
    service: Service,
    stop: CancellationToken,
) {
    if let Err(error) = service.bound_leases().await {
        tracing::error!(
            error = error.chain(),
            "leases of a clock that was ahead may last too long"
        );
    }
    // Before leases are read: what changes from here on is not missed.
    let mut news = service.lease_news();
    let reserved = configs.iter().flat_map(|(_, config)| &config.reserved);
    let reserved: BTreeMap<Mac, Ipv4Addr> =
        reserved.map(|(mac, address)| (*mac, *address)).collect();
    let mut in_vain = InVain::new(!is_alone, reserved);
    let mut server = Networks::new(configs, service.leases());
    let mut in_use_known: Option<Instant> = None;
    match service.declined(dhcp::DECLINED_SECONDS).await {
        Ok(declined) => declined.into_iter().for_each(|(it, until)| server.rest(it, until)),
        Err(error) => tracing::error!(
            error = error.chain(),
            "addresses that somebody else uses may be given again"
        ),
    }
    let mut known = Known { site: service.site(), fixed: service.fixed_addresses() };
    server.know(&machines(&known.site));
    server.reserve(&known.fixed);
    in_vain.reserve(&known.fixed);
    let mut gauge = tokio::time::interval(GAUGE_INTERVAL);
    let mut left_out = LeftOut::default();
    let mut probes = Probes::begin(ears.iter().map(|ear| ear.link.clone()).collect());
    let (to, mut requests) = mpsc::channel(REQUESTS_MAX);
    let mut hearing = JoinSet::new();
    for (interface, ear) in ears.into_iter().enumerate() {
        hearing.spawn(hear(ear, interface, is_alone, service.clone(), to.clone()));
    }
    drop(to);
    // Decisions are made one by one, and their leases queued for the database in this order: tasks run in any. What
    // waits for the disk are tasks, so that what is decided together is stored together.
    let mut answers = JoinSet::new();
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            Some(stored) = answers.join_next() => {
                if let Ok(Some(lease)) = stored {
                    server.on_stored(&lease);
                }
                continue;
            }
            Some(mac) = alive.recv() => {
                known.look(&mut server, &mut in_vain, &service);
                if let Some(lease) = server.on_alive(mac, service.lease_clock_unix()) {
                    let stored = service.commit_lease(lease.clone());
                    answers.spawn(async move { keep(lease.mac, stored).await.then_some(lease) });
                }
                continue;
            }
            Some(news) = news.recv() => {
                known.look(&mut server, &mut in_vain, &service);
                server.protect(&service.machines_in_use());
                on_news(&mut server, news, service.lease_clock_unix());
                continue;
            }
            _ = gauge.tick() => {
                let usage = server.usage(service.lease_clock_unix());
                service.note_address_pool(pool(&usage, left_out.count(Instant::now())));
                continue;
            }
            heard = probes.next() => {
                match heard {
                    None => probes.ask(&server, service.lease_clock_unix()),
                    Some(answer) => probes.heard(&answer, &mut server, &service),
                }
                continue;
            }
            heard = requests.recv(), if answers.len() < ANSWERS_MAX => heard,
        };
        // Whoever hears ends by a panic only.
        let Some(Heard { mut request, arrival, socket }) = heard else { return };
        known.look(&mut server, &mut in_vain, &service);
        if in_use_known.is_none_or(|known| known.elapsed() >= IN_USE_INTERVAL) {
            server.protect(&service.machines_in_use());
            in_use_known = Some(Instant::now());
        }
        choose_loader(&service, &mut request);
        let machine = known.site.machine_by_mac(request.mac);
        request.name = machine.map(|machine| machine.name.to_string());
        match server.on_request(&request, arrival, service.lease_clock_unix()) {
            Decision::Reply(reply) => {
                if request.firmware.is_some() && reply.gives_address() {
                    // It may ask from a port that it had before, of which we would still think that it is open.
                    http.clear(reply.address.into(), FORGOTTEN_AFTER, Instant::now());
                }
                if reply.gives_address() {
                    in_vain.has_address(&service, request.mac, reply.address);
                }
                if let Some(why) = &reply.why {
                    tracing::info!(mac = %request.mac, reason = why, "DHCP request refused");
                }
                let stored = reply.lease.clone().map(|lease| service.commit_lease(lease));
                let service = service.clone();
                answers.spawn(answer(socket, service, request, reply, stored));
            }
            Decision::Released(lease) => {
                let stored = service.commit_lease(lease.clone());
                answers.spawn(async move { release(lease.mac, stored).await.then_some(lease) });
            }
            Decision::Declined(address, until) => {
                note_declined(&service, request.mac, address);
                let stored = service.commit_declined(address, until);
                answers.spawn(async move {
                    release(request.mac, stored).await;
                    None
                });
            }
            // Each phone asks all day.
            Decision::Silent(reason @ Reason::NoBootClient) => {
                tracing::debug!(mac = %request.mac, %reason, "DHCP request not answered");
                service.traffic().refused("dhcp", reason.word());
                left_out.note(request.mac, Instant::now());
            }
            Decision::Silent(reason) => {
                tracing::info!(mac = %request.mac, %reason, "DHCP request not answered");
                service.traffic().refused("dhcp", reason.word());
                in_vain.note(&service, request.mac, &reason);
            }
        }
    }
}

/// Decides what firmware loads, if it asks.
pub(super) fn choose_loader(service: &Service, request: &mut Request) {
    let Some(firmware) = request.firmware else { return };
    let choice = service.choose_loader(request.mac, firmware, request.is_ipxe);
    tracing::debug!(mac = %request.mac, loader = ?choice.loader, rule = %choice.rule, "loader chosen");
    request.gets_no_loader = choice.loader.is_none();
    if matches!(choice.rule, LoaderRule::NoLoader | LoaderRule::NoArm64) {
        let who = service.subject_of(request.mac);
        let cause = format!("Its firmware is {firmware}, and gets no loader: {}", choice.rule);
        service.found(FindingKind::NoLoader, &who, cause);
    }
    request.loader = choice.loader.map(|loader| loader.file().to_owned());
}

/// What of the site decides on leases, as it was looked at last.
struct Known {
    site: Arc<Site>,
    fixed: Arc<BTreeMap<Mac, Ipv4Addr>>,
}

impl Known {
    /// Machines are no strangers, and some have addresses for ever. Looks whether they are others now.
    fn look(&mut self, server: &mut Networks, in_vain: &mut InVain, service: &Service) {
        let (site, fixed) = (service.site(), service.fixed_addresses());
        if !Arc::ptr_eq(&self.site, &site) {
            self.site = site;
            server.know(&machines(&self.site));
        }
        if !Arc::ptr_eq(&self.fixed, &fixed) {
            self.fixed = fixed;
            server.reserve(&self.fixed);
            in_vain.reserve(&self.fixed);
        }
    }
}

/// People have changed something of leases, and it is stored.
fn on_news(server: &mut Networks, news: LeaseNews, now: u64) {
    match news {
        LeaseNews::Taken(leases) => {
            let n_taken = server.take(&leases, now);
            if n_taken < leases.len() {
                let n_lost = leases.len() - n_taken;
                tracing::warn!(n_lost, "imported addresses were given to others meanwhile");
            }
        }
        LeaseNews::Freed(mac, address) => server.free(mac, address),
        LeaseNews::Rested(address) => server.stop_resting(address),
    }
}

fn machines(site: &Site) -> BTreeSet<Mac> {
    site.machines.iter().flat_map(model::Machine::macs).collect()
}

const fn pool(usage: &Usage, n_left_out: u32) -> AddressPool {
    AddressPool {
        n_addresses: usage.n_addresses,
        n_machines: usage.n_known,
        n_strangers: usage.n_strangers,
        n_strangers_max: usage.n_strangers_max,
        n_declined: usage.n_declined,
        n_left_out,
    }
}

/// Answers when what must be stored is. Returns the lease that is stored now.
pub(super) async fn answer(
    socket: Arc<DhcpSocket>,
    service: Service,
    request: Request,
    reply: Box<Reply>,
    stored: Option<impl Future<Output = Result<(), service::Error>>>,
) -> Option<Lease> {
    let mac = request.mac;
    let store = async {
        match stored {
            Some(stored) => stored.await,
            None => Ok(()),
        }
    };
    // What another program keeps from being stored keeps no known PC from its address.
    let mut note = std::pin::pin!(note_boot(&service, &request, &reply));
    let (stored, noted) = tokio::join!(store, tokio::time::timeout(BOOT_WAIT, note.as_mut()));
    // The lease is on the disk before the client hears of it.
    if let Err(error) = stored {
        tracing::error!(%mac, error = error.chain(), "no ACK: the lease could not be stored");
        return None;
    }
    match socket.send(&reply).await {
        Ok(()) => {
            tracing::debug!(%mac, kind = ?reply.kind, address = %reply.address, to = ?reply.to, "DHCP reply");
        }
        Err(error) => tracing::warn!(%mac, %error, "a DHCP reply could not be sent"),
    }
    let noted = match noted {
        Ok(noted) => noted,
        Err(_) => note.await,
    };
    if let Err(error) = noted {
        tracing::warn!(%mac, error = error.chain(), "the boot could not be recorded");
    }
    reply.lease.clone()
}

/// Returns whether it is stored.
async fn keep(mac: Mac, stored: impl Future<Output = Result<(), service::Error>>) -> bool {
    match stored.await {
        Ok(()) => {
            tracing::debug!(%mac, "lease extended");
            true
        }
        Err(error) => {
            tracing::warn!(%mac, error = error.chain(), "a lease could not be extended");
            false
        }
    }
}

/// Returns whether it is stored.
async fn release(mac: Mac, stored: impl Future<Output = Result<(), service::Error>>) -> bool {
    let stored = stored.await;
    if let Err(error) = &stored {
        tracing::warn!(%mac, error = error.chain(), "that a lease has ended could not be recorded");
    }
    stored.is_ok()
}

/// Firmware has an address: a PC was seen, and a boot begins. Other clients change nothing.
async fn note_boot(
    service: &Service,
    request: &Request,
    reply: &Reply,
) -> Result<(), service::Error> {
    // Who has an address and asks for the rest begins no boot by that.
    let Some(firmware) = request.firmware.filter(|_| reply.gives_address()) else {
        return Ok(());
    };
    let sighting = Sighting {
        mac: request.mac,
        firmware,
        address: Some(reply.address),
        uuid: uuid_of(request),
        host_name: request.host_name.clone(),
    };
    let stage = NewStage::noticed(Stage::Dhcp, format!("{}, {firmware}", reply.address));
    service.firmware_starts(sighting, stage).await.map(drop)
}

/// The PC's SMBIOS UUID. Boards whose maker has set none send zeros, or ones.
pub(super) fn uuid_of(request: &Request) -> Option<String> {
    let uuid = request.uuid.filter(|uuid| uuid[1..].iter().any(|&it| it != 0 && it != 0xff));
    uuid.map(|uuid| uuid_text(&uuid))
}

/// As SMBIOS tools print it: the first three fields are little-endian on the wire.
fn uuid_text(option: &[u8; 17]) -> String {
    let [_, a, b, c, d, e, f, g, h, rest @ ..] = option;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (clock, node) = rest.split_at(2);
    format!(
        "{}-{}-{}-{}-{}",
        hex(&[*d, *c, *b, *a]),
        hex(&[*f, *e]),
        hex(&[*h, *g]),
        hex(clock),
        hex(node)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_shown_as_the_firmware_setup_shows_it() {
        let option = [
            0, 0x78, 0x56, 0x34, 0x12, 0xbc, 0x9a, 0xf0, 0xde, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66,
            0x77, 0x88,
        ];
        assert_eq!(uuid_text(&option), "12345678-9abc-def0-1122-334455667788");
    }
}
