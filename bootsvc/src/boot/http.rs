//! HTTP for boot clients. GRUB, shim and firmware take only a narrow HTTP: Title-Case header names, a
//! length always, never chunks; so this listener is apart from the pages'.

use crate::boot::doorkeeper::FilesDoorkeeper;
use crate::boot::files::{BootFiles, Item, Told};
use crate::net::door::{Door, Share};
use crate::net::http_server::HttpServer;
use crate::net::places::{Limits, Places};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use initcfg::Tag;
use model::Fetch;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Connections at once: a few for each of the most machines that one server is meant for.
const CONNECTIONS_MAX: usize = 1024;

/// Connections at once of one host. GRUB has one, a machine's init one more; the rest is a mistake or an attack.
const CONNECTIONS_PER_HOST_MAX: usize = 16;

/// A file must be in memory by then. Beyond, GRUB has given up.
const FILE_DEADLINE: Duration = Duration::from_secs(25);

/// What a machine's init tells must be here by then.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Bytes handed to the connection at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Places of boot clients.
const LIMITS: Limits = Limits {
    places_max: CONNECTIONS_MAX,
    per_host_max: CONNECTIONS_PER_HOST_MAX,
    unproven_stays: Duration::ZERO,
    silent_stays: Duration::from_secs(5),
};

/// The places of boot clients, all free.
pub(crate) fn places() -> Places {
    let places_max = Share::Http.clients_max(CONNECTIONS_MAX);
    Places::new(Limits { places_max, ..LIMITS }, Instant::now())
}

/// Serves boot files until `stop`.
pub(crate) async fn run(
    door: Door<impl FnMut()>,
    places: Places,
    files: BootFiles,
    stop: CancellationToken,
) {
    let doorkeeper = FilesDoorkeeper::of_http(files.clone());
    let service = |peer: SocketAddr| {
        let files = files.clone();
        service_fn(move |request| {
            let files = files.clone();
            async move {
                let reply = match peer.ip().to_canonical() {
                    IpAddr::V4(address) => answer(request, address, files.clone()).await,
                    IpAddr::V6(_) => refusal(StatusCode::NOT_FOUND),
                };
                if let Some(reason) = reason(reply.status()) {
                    files.traffic().refused("http", reason);
                }
                Ok::<_, Infallible>(reply)
            }
        })
    };
    HttpServer::for_boot_clients(door, places).run(doorkeeper, service, stop).await;
}

/// Why a request was refused, if it was.
fn reason(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::NOT_FOUND => Some("not-found"),
        StatusCode::FORBIDDEN => Some("denied"),
        StatusCode::METHOD_NOT_ALLOWED => Some("method"),
        StatusCode::SERVICE_UNAVAILABLE => Some("busy"),
        _ if status.is_client_error() => Some("bad-request"),
        _ => None,
    }
}

type Reply = Response<Either<FileBody, Full<Bytes>>>;

/// EDK2 takes a refusal without a body for one that goes on, and waits until the connection is closed: for 10 s each time that
/// shim asks for a file that may be missing.
const REFUSED: &str = "refused\n";

async fn answer(request: Request<Incoming>, peer: Ipv4Addr, files: BootFiles) -> Reply {
    let path = request.uri().path();
    if *request.method() == Method::PUT
        && let Some((told, boot)) = Told::of(path)
    {
        let boot = boot.to_owned();
        let tag = request.headers().get(initcfg::TAG_HEADER);
        let tag = tag.and_then(|tag| tag.to_str().ok()?.parse().ok());
        return refusal(take(request.into_body(), peer, told, &boot, tag, &files).await);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return refusal(StatusCode::METHOD_NOT_ALLOWED);
    }
    // Who only asks how long a secret is would make it void.
    if *request.method() == Method::HEAD && BootFiles::is_host(path) {
        return refusal(StatusCode::METHOD_NOT_ALLOWED);
    }
    let found = async {
        match files.host(path, peer).await {
            Some(item) => (item, true),
            None => (files.get(path, peer, Fetch::ByFirmware).await, false),
        }
    };
    let Ok((item, is_secret)) = tokio::time::timeout(FILE_DEADLINE, found).await else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE);
    };
    let Some(item) = item else {
        let shown: String = path.chars().take(64).collect();
        // GRUB asks for these lists although all its modules are inside of it.
        if !path.ends_with(".lst") {
            tracing::info!(%peer, path = shown, "HTTP: no such boot file");
        }
        return refusal(StatusCode::NOT_FOUND);
    };
    let size = item.bytes.len();
    let range = match request.headers().get(RANGE).map(|value| parse_range(value, size)) {
        None => 0..size,
        Some(Ok(range)) => range,
        Some(Err(())) => {
            let mut reply = refusal(StatusCode::RANGE_NOT_SATISFIABLE);
            set(&mut reply, CONTENT_RANGE, &format!("bytes */{size}"));
            return reply;
        }
    };
    let is_part = range != (0..size);
    let body = if request.method() == Method::HEAD {
        Either::Right(Full::default())
    } else {
        let path = path.to_owned();
        Either::Left(FileBody::new(item, path, range.clone(), peer, files))
    };
    let mut reply = Response::new(body);
    if is_part {
        *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(&mut reply, CONTENT_RANGE, &format!("bytes {}-{}/{size}", range.start, range.end - 1));
    }
    set(&mut reply, CONTENT_LENGTH, &range.len().to_string());
    set(&mut reply, CONTENT_TYPE, "application/octet-stream");
    set(&mut reply, ACCEPT_RANGES, "bytes");
    if is_secret {
        set(&mut reply, CACHE_CONTROL, "no-store");
    }
    reply
}

/// Takes what a machine's init tells of its boot.
async fn take(
    body: Incoming,
    peer: Ipv4Addr,
    told: Told,
    boot: &str,
    tag: Option<Tag>,
    files: &BootFiles,
) -> StatusCode {
    let body = Limited::new(body, told.bytes_max()).collect();
    let Ok(Ok(text)) = tokio::time::timeout(BODY_DEADLINE, body).await else {
        return StatusCode::BAD_REQUEST;
    };
    match files.keep(told, peer, boot, &text.to_bytes(), tag).await {
        true => StatusCode::NO_CONTENT,
        false => StatusCode::FORBIDDEN,
    }
}

/// An answer that says no more than its status.
fn refusal(status: StatusCode) -> Reply {
    let text = if status == StatusCode::NO_CONTENT { "" } else { REFUSED };
    let mut reply = Response::new(Either::Right(Full::from(text)));
    *reply.status_mut() = status;
    set(&mut reply, CONTENT_LENGTH, &text.len().to_string());
    reply
}

fn set(reply: &mut Reply, name: hyper::header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}

/// One range of bytes (RFC 9110 §14.1.2). Several ranges, which no boot client asks for, are refused.
fn parse_range(value: &HeaderValue, size: usize) -> Result<Range<usize>, ()> {
    let text = value.to_str().ok().and_then(|text| text.strip_prefix("bytes=")).ok_or(())?;
    let (first, last) = text.trim().split_once('-').ok_or(())?;
    let range = match (first.trim(), last.trim()) {
        ("", suffix) => size.saturating_sub(suffix.parse().map_err(|_| ())?)..size,
        (first, "") => first.parse().map_err(|_| ())?..size,
        (first, last) => {
            let last: usize = last.parse().map_err(|_| ())?;
            first.parse().map_err(|_| ())?..last.saturating_add(1).min(size)
        }
    };
    if range.start < range.end { Ok(range) } else { Err(()) }
}

/// A part of a file, handed out in chunks. When the last one has left and it was the whole file, the
/// boot has reached the file's stage.
struct FileBody {
    item: Item,
    path: String,
    left: Range<usize>,
    is_whole: bool,
    n_bytes: usize,
    started: Instant,
    peer: Ipv4Addr,
    files: BootFiles,
}

impl FileBody {
    fn new(
        item: Item,
        path: String,
        range: Range<usize>,
        peer: Ipv4Addr,
        files: BootFiles,
    ) -> Self {
        let is_whole = range == (0..item.bytes.len());
        let n_bytes = range.len();
        Self { item, path, left: range, is_whole, n_bytes, started: Instant::now(), peer, files }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let end = self.left.end.min(self.left.start + CHUNK_BYTES);
        let chunk = self.item.bytes.slice(self.left.start..end);
        self.left.start = end;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

impl Drop for FileBody {
    fn drop(&mut self) {
        let n_sent = self.n_bytes - self.left.len();
        self.files.traffic().sent("http", self.left.is_empty(), n_sent as u64);
        let (Some(stage), true, true) = (self.item.stage, self.left.is_empty(), self.is_whole)
        else {
            return;
        };
        let bytes = self.item.bytes.len();
        let seconds = self.started.elapsed().as_secs_f64();
        let detail = format!("{:.1} MB by HTTP in {seconds:.1} s", bytes as f64 / 1e6);
        let detail = self.files.detail(&self.path, detail);
        if let Some(noted) = self.files.fetched(stage, self.peer, detail) {
            tokio::spawn(noted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_a_body() {
        let length = |reply: &Reply| {
            let length = reply.headers()[CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
            assert_eq!(reply.body().size_hint().exact(), Some(length));
            length
        };
        assert!(length(&refusal(StatusCode::NOT_FOUND)) > 0);
        assert_eq!(length(&refusal(StatusCode::NO_CONTENT)), 0, "it is none");
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        let range = |text: &str| parse_range(&HeaderValue::from_str(text).unwrap(), 100);
        assert_eq!(range("bytes=0-9"), Ok(0..10));
        assert_eq!(range("bytes=90-"), Ok(90..100));
        assert_eq!(range("bytes=-10"), Ok(90..100));
        assert_eq!(range("bytes=90-1000"), Ok(90..100));
        let max = format!("bytes=0-{}", usize::MAX);
        assert_eq!(range(&max), Ok(0..100));
        for text in ["bytes=100-", "bytes=9-0", "lines=1-2", "bytes=1-2,5-6", "bytes=a-b", "bytes="]
        {
            assert_eq!(range(text), Err(()), "{text}");
        }
    }
}
