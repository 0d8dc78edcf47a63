//! DHCP for PCs that are tried on this host: see [`trial`](crate::trial).

use crate::boot::dhcp::{answer, choose_loader};
use crate::boot::grub_images::{ARM64_FILE, BIOS_FILE, UEFI_X64_FILE};
use crate::boot::router_solicitations;
use crate::config::Config;
use crate::net::dhcp_socket::DhcpSocket;
use crate::net::link::{Link, LinkState, LinkWatch, look_at};
use crate::trial;
use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Json, Router};
use dhcp::{Arrival, Decision, Networks, Place};
use model::{Machine, Network};
use service::{Actor, Service};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use web::{LocalAdmin, Problem};

/// Addresses of its PCs.
const POOL: (Ipv4Addr, Ipv4Addr) =
    (Ipv4Addr::new(198, 18, 77, 100), Ipv4Addr::new(198, 18, 77, 199));

/// Longer than somebody watches a PC that he tries; while it runs it asks again.
const LEASE_SECONDS: u32 = 86_400;

/// After an error.
const RETRY: Duration = Duration::from_secs(1);

/// The interface of trials, as sockets are bound to it.
const ARRIVAL: Arrival = Arrival { interface: 0, is_unicast: false };

/// Tells commands whether trials are served, and begins one for them.
pub(crate) fn asked(service: Service, is_free: bool, is_served: Arc<AtomicBool>) -> Router {
    let state = move || {
        let has_interface = is_served.load(Ordering::Relaxed);
        std::future::ready(Json(trial::State { is_free, has_interface }))
    };
    Router::new().route(trial::STATE, get(state).post(begin)).with_state(service)
}

async fn begin(
    State(service): State<Service>,
    Extension(LocalAdmin { uid }): Extension<LocalAdmin>,
    Json(trial::Begin { name, machine }): Json<trial::Begin>,
) -> Result<Json<Machine>, Problem> {
    let admin = service.admin(&Actor::command(uid))?;
    Ok(Json(admin.begin_trial(name, machine).await?))
}

/// What is leased there.
pub(crate) fn leased(config: &Config, network: &Network) -> dhcp::Config {
    dhcp::Config {
        server: network.server,
        others: vec![trial::HOST],
        subnet: network.subnet,
        prefix: network.prefix,
        pool: POOL,
        reserved: BTreeMap::new(),
        router: network.router,
        routes: Vec::new(),
        dns: Vec::new(),
        ntp: Vec::new(),
        domain: network.domain.clone(),
        serve_everyone: config.network.serve_everyone,
        lease_seconds: LEASE_SECONDS,
        bios_file: BIOS_FILE.into(),
        uefi_x64_file: UEFI_X64_FILE.into(),
        uefi_arm64_file: ARM64_FILE.into(),
    }
}

/// Serves the interface of trials whenever there is one, until `stop`.
pub(crate) async fn serve(
    watch: LinkWatch,
    config: dhcp::Config,
    is_served: Arc<AtomicBool>,
    service: Service,
    stop: CancellationToken,
) {
    // Of a former boot server that died during one.
    let mut has_pcs = true;
    loop {
        if let Some(state) = look() {
            let (_states, link) = Link::new(trial::INTERFACE, state);
            let of_link = stop.child_token();
            // iPXE waits for a router of IPv6.
            let routers = router_solicitations::serve(link, service.clone(), of_link.clone());
            let routers = tokio::spawn(routers);
            let served =
                stop.run_until_cancelled(serve_one(&watch, state, &config, &is_served, &service));
            let served = served.await;
            is_served.store(false, Ordering::Relaxed);
            of_link.cancel();
            let _ = routers.await;
            match served {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "PCs that are tried get no address");
                    tokio::time::sleep(RETRY).await;
                }
            }
            has_pcs = true;
            continue;
        }
        if has_pcs {
            match service.forget_tried(trial::is_tried_address).await {
                Ok(()) => has_pcs = false,
                Err(error) => {
                    let error = error.chain();
                    tracing::warn!(error, "PCs that were tried are not forgotten yet");
                    if stop.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                        return;
                    }
                    continue;
                }
            }
        }
        if stop.run_until_cancelled(watch.changed()).await.is_none() {
            return;
        }
    }
}

/// The interface of trials, if it can be served.
fn look() -> Option<LinkState> {
    let state = look_at(trial::INTERFACE, trial::HOST).ok()?;
    (state.index.is_some() && state.trouble.is_none()).then_some(state)
}

/// Serves it until it is gone, or another one.
async fn serve_one(
    watch: &LinkWatch,
    state: LinkState,
    config: &dhcp::Config,
    is_served: &AtomicBool,
    service: &Service,
) -> anyhow::Result<()> {
    let socket = Arc::new(DhcpSocket::bind(trial::INTERFACE, config.server)?);
    is_served.store(true, Ordering::Relaxed);
    tracing::info!(interface = trial::INTERFACE, "a PC is tried on this host");
    let mut server = Networks::new([(Place::Link(0), config.clone())], []);
    let mut answers = JoinSet::new();
    loop {
        let (mut request, is_unicast) = tokio::select! {
            () = watch.changed() => match look() == Some(state) {
                true => continue,
                false => return Ok(()),
            },
            Some(stored) = answers.join_next() => {
                if let Ok(Some(lease)) = stored {
                    server.on_stored(&lease);
                }
                continue;
            }
            received = socket.receive(service.traffic()) => received?,
        };
        if !trial::is_tried(request.mac) {
            continue;
        }
        choose_loader(service, &mut request);
        let arrival = Arrival { is_unicast, ..ARRIVAL };
        match server.on_request(&request, arrival, service.lease_clock_unix()) {
            Decision::Reply(reply) => {
                let stored = reply.lease.clone().map(|lease| service.commit_lease(lease));
                let (socket, service) = (Arc::clone(&socket), service.clone());
                answers.spawn(answer(socket, service, request, reply, stored));
            }
            Decision::Silent(reason) => {
                tracing::info!(mac = %request.mac, %reason, "DHCP request not answered");
            }
            // They are forgotten soon.
            Decision::Released(_) | Decision::Declined(..) => {}
        }
    }
}
