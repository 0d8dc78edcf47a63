//! HTTP connections, each in a place that it may lose to others.

use super::door::Door;
use super::https::{Greeting, greeting, send_to_https};
use super::places::{Doorkeeper, Place, Places};
use super::watched::{Watched, bound, reset};
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::Credentials;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// A client that sends no whole request head in this time is let go; so is one that asks for nothing more.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// Longest request head that is read. GRUB's has some hundred bytes, a browser's a few thousand.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// A listener with places for its connections.
pub struct HttpServer<F> {
    door: Door<F>,
    places: Places,
    style: Style,
    tls: Option<Arc<Credentials>>,
}

/// What answers one client.
pub trait Answers:
    Service<
        Request<Incoming>,
        Response = hyper::Response<Self::Content>,
        Error: Into<Box<dyn Error + Send + Sync>>,
        Future: Send + 'static,
    > + Send
    + 'static
{
    /// The body of its answers.
    type Content: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;
}

impl<S, B> Answers for S
where
    S: Service<Request<Incoming>, Response = hyper::Response<B>> + Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    type Content = B;
}

/// What differs between kinds of clients.
#[derive(Clone, Copy)]
struct Style {
    /// `Content-Length` and not `content-length`: GRUB, shim and firmware know no other spelling.
    title_case: bool,
    /// Whether answers that have begun may be finished when the server stops.
    finishes: bool,
}

impl<F: FnMut()> HttpServer<F> {
    /// Serves boot clients.
    pub fn for_boot_clients(door: Door<F>, places: Places) -> Self {
        Self { door, places, style: Style { title_case: true, finishes: false }, tls: None }
    }

    /// Serves browsers, by TLS if there are credentials for that.
    pub fn for_browsers(door: Door<F>, places: Places, tls: Option<Arc<Credentials>>) -> Self {
        Self { door, places, style: Style { title_case: false, finishes: true }, tls }
    }

    /// Serves until `stop`; `service` makes what answers the client at an address.
    pub async fn run<S: Answers>(
        mut self,
        doorkeeper: impl Doorkeeper,
        service: impl Fn(SocketAddr) -> S,
        stop: CancellationToken,
    ) {
        bound(self.door.listener());
        let doorkeeper = Arc::new(doorkeeper);
        let mut connections = JoinSet::new();
        loop {
            let (stream, peer) = tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                client = self.door.next() => client,
            };
            match self.places.take(doorkeeper.guest(peer), Instant::now()) {
                Ok(place) => {
                    let tls = self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.current()));
                    let served = serve(
                        self.style,
                        (stream, tls),
                        place.clone(),
                        service(peer),
                        stop.clone(),
                    );
                    let doorkeeper = Arc::clone(&doorkeeper);
                    connections.spawn(async move {
                        tokio::select! {
                            to_others = place.lost() => {
                                if to_others {
                                    doorkeeper.on_lost(peer);
                                }
                            }
                            () = served => {}
                        }
                    });
                }
                Err(why) => {
                    reset(&stream);
                    doorkeeper.on_refused(peer, why);
                }
            }
        }
        if self.style.finishes {
            while connections.join_next().await.is_some() {}
        }
    }
}

/// Serves one connection until it ends or `stop`.
async fn serve<S: Answers>(
    style: Style,
    (stream, tls): (TcpStream, Option<TlsAcceptor>),
    place: Place,
    service: S,
    stop: CancellationToken,
) {
    let Some(tls) = tls else {
        let stream = Watched::new(stream, place.clone());
        return talk(style, stream, place, service, stop).await;
    };
    // The handshake must be done as soon as a request would have to be.
    let greeted = tokio::time::timeout(HEAD_DEADLINE, async {
        match greeting(&stream).await? {
            Greeting::Plain => {
                send_to_https(Watched::new(stream, place.clone())).await;
                Ok(None)
            }
            Greeting::Tls => tls.accept(Watched::new(stream, place.clone())).await.map(Some),
        }
    });
    let greeted = tokio::select! {
        () = stop.cancelled() => return,
        greeted = greeted => greeted,
    };
    match greeted {
        Ok(Ok(Some(stream))) => talk(style, stream, place, service, stop).await,
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

/// HTTP on one connection until it ends or `stop`.
async fn talk<S: Answers>(
    style: Style,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: Place,
    service: S,
    stop: CancellationToken,
) {
    let service = service_fn(move |request| {
        place.prove(Instant::now());
        service.call(request)
    });
    let connection = http1::Builder::new()
        .title_case_headers(style.title_case)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            if !style.finishes {
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP connection ended");
    }
}
