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
use std::io;
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

/// A server that stops waits so long for the first request of who is connected: closed at once, a program that has just
/// connected would meet an end without an answer, which nobody repeats.
const FIRST_REQUEST_WAIT: Duration = Duration::from_secs(1);

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
                            is_malformed = served => {
                                if is_malformed {
                                    doorkeeper.on_malformed(peer);
                                }
                            }
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

/// Serves one connection until it ends or `stop`. Returns whether it ended because what came is not HTTP.
async fn serve<S: Answers>(
    style: Style,
    (stream, tls): (TcpStream, Option<TlsAcceptor>),
    place: Place,
    service: S,
    stop: CancellationToken,
) -> bool {
    let Some(tls) = tls else {
        let stream = Watched::new(stream, place.clone());
        return talk(style, stream, place, service, stop).await;
    };
    // The handshake must be done as soon as a request would have to be.
    let greeted = tokio::time::timeout(HEAD_DEADLINE, async {
        match greeting(&stream).await? {
            Greeting::Plain => Ok(Err(send_to_https(Watched::new(stream, place.clone())).await)),
            Greeting::Tls => tls.accept(Watched::new(stream, place.clone())).await.map(Ok),
        }
    });
    let too_late = async {
        stop.cancelled().await;
        if style.finishes {
            tokio::time::sleep(FIRST_REQUEST_WAIT).await;
        }
    };
    let greeted = tokio::select! {
        () = too_late => return false,
        greeted = greeted => greeted,
    };
    match greeted {
        Ok(Ok(Ok(stream))) => talk(style, stream, place, service, stop).await,
        Ok(Ok(Err(is_malformed))) => is_malformed,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            is_no_tls(&error)
        }
        Err(_) => {
            tracing::debug!("TLS handshake took too long");
            false
        }
    }
}

/// Whether what came is nothing that TLS knows. A client that does not trust us says that in TLS.
fn is_no_tls(error: &io::Error) -> bool {
    use rustls::Error::{
        InappropriateHandshakeMessage, InappropriateMessage, InvalidMessage, PeerMisbehaved,
    };
    let source = error.get_ref().and_then(|source| source.downcast_ref());
    matches!(
        source,
        Some(
            InvalidMessage(_)
                | InappropriateMessage { .. }
                | InappropriateHandshakeMessage { .. }
                | PeerMisbehaved(_)
        )
    )
}

/// HTTP on one connection until it ends or `stop`. Returns whether it ended because what came is not HTTP.
async fn talk<S: Answers>(
    style: Style,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: Place,
    service: S,
    stop: CancellationToken,
) -> bool {
    let asked = CancellationToken::new();
    let service = {
        let asked = asked.clone();
        service_fn(move |request| {
            asked.cancel();
            place.prove(Instant::now());
            service.call(request)
        })
    };
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
                return false;
            }
            let first_request = tokio::time::timeout(FIRST_REQUEST_WAIT, asked.cancelled());
            tokio::select! {
                ended = &mut connection => ended,
                _ = first_request => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    let Err(error) = ended else { return false };
    tracing::debug!(%error, "HTTP connection ended");
    error.is_parse()
}

#[cfg(test)]
mod tests {
    use super::super::places::{Guest, Limits, NoPlace};
    use super::*;
    use http_body_util::Full;
    use hyper::body::Bytes;
    use std::convert::Infallible;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// Says that somebody has come.
    struct Bell(CancellationToken);

    impl Doorkeeper for Bell {
        fn guest(&self, peer: SocketAddr) -> Guest {
            self.0.cancel();
            Guest { address: peer.ip(), is_stranger: false }
        }

        fn on_refused(&self, _: SocketAddr, _: NoPlace) {}

        fn on_malformed(&self, _: SocketAddr) {}

        fn on_lost(&self, _: SocketAddr) {}
    }

    #[tokio::test]
    async fn who_has_connected_before_the_server_stops_is_answered() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits {
            places_max: 8,
            per_host_max: 8,
            unproven_stays: Duration::ZERO,
            silent_stays: Duration::ZERO,
        };
        let (stop, has_come) = (CancellationToken::new(), CancellationToken::new());
        let server = HttpServer::for_browsers(
            Door::new(listener, || {}),
            Places::new(limits, Instant::now()),
            None,
        );
        let answer = |_| async {
            Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from_static(b"here"))))
        };
        let service = move |_| service_fn(answer);
        let served = tokio::spawn(server.run(Bell(has_come.clone()), service, stop.clone()));
        let mut client = TcpStream::connect(address).await.unwrap();
        has_come.cancelled().await;
        stop.cancel();
        tokio::time::sleep(FIRST_REQUEST_WAIT / 10).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut told = String::new();
        client.read_to_string(&mut told).await.unwrap();
        assert!(told.starts_with("HTTP/1.1 200") && told.ends_with("here"), "{told:?}");
        served.await.unwrap();
    }
}
