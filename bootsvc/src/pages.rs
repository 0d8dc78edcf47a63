//! The sockets of the web page.

use crate::boot_socket;
use crate::config::WebConfig;
use crate::net::door::{Door, Share};
use crate::net::http_server::HttpServer;
use crate::net::places::{Doorkeeper, Guest, Limits, MALFORMED, NoPlace, Places};
use crate::net::{self, Handed};
use crate::systemd;
use anyhow::Context;
use axum::routing::get;
use axum::{Json, Router};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::service::TowerToHyperService;
use service::Service;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::Credentials;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use web::Browser;

/// Connections at once.
const CONNECTIONS_MAX: usize = 256;

/// Connections at once of one host. A browser opens six, a proxy before us one for each that it has.
const CONNECTIONS_PER_HOST_MAX: usize = 128;

const LIMITS: Limits = Limits {
    places_max: CONNECTIONS_MAX,
    per_host_max: CONNECTIONS_PER_HOST_MAX,
    unproven_stays: Duration::ZERO,
    silent_stays: Duration::from_secs(1),
};

/// The listener for the pages: one that was handed to us (a socket unit's, or ours from before a restart), or a new one.
pub(crate) async fn listener(
    mut handed: Vec<Handed>,
    address: SocketAddr,
) -> anyhow::Result<TcpListener> {
    handed.retain(|handed| handed.name != systemd::PAGES || handed.is_at(address));
    net::listener(handed, address)
        .await
        .with_context(|| format!("can't show the web page on {address}"))
}

/// Where commands are told the address of the pages.
pub(crate) const ADDRESS: &str = "/local/pages";

/// The address of the pages, as a browser on this host or, if there is a name, any other calls them.
pub(crate) fn address(web: &WebConfig, listen: SocketAddr, is_encrypted: bool) -> String {
    let scheme = if is_encrypted { "https" } else { "http" };
    match (listen.ip().is_unspecified(), web.names.first()) {
        (false, _) => format!("{scheme}://{listen}"),
        (true, Some(name)) => format!("{scheme}://{name}:{}", listen.port()),
        (true, None) => format!("{scheme}://localhost:{}", listen.port()),
    }
}

/// What tells commands this address.
pub(crate) fn told(address: String) -> Router {
    Router::new().route(ADDRESS, get(async move || Json(address.clone())))
}

/// Shows pages until `stop`, and `local`, which is more, to commands on this host.
pub(crate) async fn run(
    door: Door<impl FnMut()>,
    tls: Option<Arc<Credentials>>,
    (commands, local): (UnixListener, Router),
    (service, names): (Service, &[String]),
    stop: CancellationToken,
) {
    let doorkeeper = PagesDoorkeeper { service: Some(service.clone()) };
    let pages = show(door, tls, web::router(service, names), doorkeeper, stop.clone());
    tokio::join!(pages, boot_socket::serve(commands, local, stop));
}

/// Shows these pages until `stop`. Each request has a [`Browser`] in its extensions.
pub(crate) async fn show(
    door: Door<impl FnMut()>,
    tls: Option<Arc<Credentials>>,
    pages: Router,
    doorkeeper: PagesDoorkeeper,
    stop: CancellationToken,
) {
    let places_max = Share::Pages.clients_max(CONNECTIONS_MAX);
    let places = Places::new(Limits { places_max, ..LIMITS }, Instant::now());
    let is_encrypted = tls.is_some();
    let service = move |peer: SocketAddr| {
        let browser = Browser { address: peer.ip().to_canonical(), is_encrypted };
        let pages = TowerToHyperService::new(pages.clone());
        service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(browser);
            pages.call(request)
        })
    };
    HttpServer::for_browsers(door, places, tls).run(doorkeeper, service, stop).await;
}

/// Who may look: the page itself looks at what he wants.
#[derive(Default)]
pub(crate) struct PagesDoorkeeper {
    /// Counts what is refused.
    service: Option<Service>,
}

impl PagesDoorkeeper {
    fn count(&self, reason: &'static str) {
        if let Some(service) = &self.service {
            service.traffic().refused("pages", reason);
        }
    }
}

impl Doorkeeper for PagesDoorkeeper {
    fn guest(&self, peer: SocketAddr) -> Guest {
        Guest { address: peer.ip(), is_stranger: false }
    }

    fn on_refused(&self, peer: SocketAddr, why: NoPlace) {
        tracing::warn!(%peer, %why, "connection to the web page refused");
        self.count(why.word());
    }

    fn on_malformed(&self, _: SocketAddr) {
        self.count(MALFORMED);
    }

    fn on_lost(&self, peer: SocketAddr) {
        tracing::debug!(%peer, "connection to the web page ended: others need its place");
    }
}
