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
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST,
    HeaderMap, HeaderValue, IF_RANGE, RANGE,
};
use hyper::http::uri::Authority;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use initcfg::{CAPTURE_PATH, CaptureProof, Tag};
use model::Fetch;
use service::Capturing;
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
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Some("method"),
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
    if !names_host(request.version(), request.headers()) {
        return refusal(StatusCode::BAD_REQUEST);
    }
    if *request.method() == Method::PUT
        && let Some((told, boot)) = Told::of(path)
    {
        let boot = boot.to_owned();
        let tag = request.headers().get(initcfg::TAG_HEADER);
        let tag = tag.and_then(|tag| tag.to_str().ok()?.parse().ok());
        return refusal(take(request.into_body(), peer, told, &boot, tag, &files).await);
    }
    if *request.method() == Method::PUT
        && let Some(proof) = CaptureProof::from_path(path)
    {
        return take_capture(request.into_body(), peer, proof, &files).await;
    }
    // Who only asks how long a secret is would make it void.
    let allowed = match () {
        () if Told::of(path).is_some() || path.starts_with(CAPTURE_PATH) => "PUT",
        () if BootFiles::is_host(path) => "GET",
        () => "GET, HEAD",
    };
    if !allowed.split(", ").any(|method| method == request.method().as_str()) {
        return not_allowed(request.method(), allowed);
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
    let range = match wanted(request.method(), request.headers(), size) {
        Ok(range) => range.unwrap_or(0..size),
        Err(NotSatisfiable) => {
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

/// Takes what is captured of a PC, for as long as it takes.
async fn take_capture(
    mut body: Incoming,
    peer: Ipv4Addr,
    proof: CaptureProof,
    files: &BootFiles,
) -> Reply {
    let capturing = match files.capture(peer, proof).await {
        Ok(Some(capturing)) => capturing,
        Ok(None) => return refusal(StatusCode::FORBIDDEN),
        Err(why) => return said(StatusCode::SERVICE_UNAVAILABLE, why),
    };
    loop {
        let frame = tokio::time::timeout(Capturing::SILENCE_MAX, body.frame()).await;
        match frame {
            Ok(Some(Ok(frame))) => {
                let bytes = frame.into_data().unwrap_or_default();
                if !bytes.is_empty() && !capturing.write(bytes).await {
                    break;
                }
            }
            Ok(None) => break,
            // Dropped, it has broken off.
            Ok(Some(Err(_))) | Err(_) => return refusal(StatusCode::BAD_REQUEST),
        }
    }
    match capturing.finish().await {
        Ok(()) => refusal(StatusCode::NO_CONTENT),
        Err(why) => said(StatusCode::CONFLICT, why),
    }
}

/// An answer for the person in front of the machine.
fn said(status: StatusCode, why: String) -> Reply {
    let length = why.len().to_string();
    let mut reply = Response::new(Either::Right(Full::from(why)));
    *reply.status_mut() = status;
    set(&mut reply, CONTENT_LENGTH, &length);
    reply
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

/// Nothing of what is asked for is in the file.
#[derive(Debug, PartialEq, Eq)]
struct NotSatisfiable;

/// The part of a file that is asked for; `None`: all of it.
fn wanted(
    method: &Method,
    headers: &HeaderMap,
    size: usize,
) -> Result<Option<Range<usize>>, NotSatisfiable> {
    // A range is for GET only (RFC 9110 section 14.2). There is no validator that a condition could name, so none holds (13.1.5).
    if *method != Method::GET || headers.contains_key(IF_RANGE) {
        return Ok(None);
    }
    headers.get(RANGE).map_or(Ok(None), |value| parse_range(value, size))
}

/// One range of bytes (RFC 9110 section 14.1.2). Whoever asks for several gets all, as whoever counts in other units.
fn parse_range(value: &HeaderValue, size: usize) -> Result<Option<Range<usize>>, NotSatisfiable> {
    let text = value.to_str().ok().and_then(|text| text.split_once('='));
    let Some((unit, ranges)) = text else { return Err(NotSatisfiable) };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Ok(None);
    }
    let mut parts = Vec::new();
    for range in ranges.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').ok_or(NotSatisfiable)?;
        let part = match (first.trim(), last.trim()) {
            ("", suffix) => size.saturating_sub(number(suffix)?)..size,
            (first, "") => number(first)?..size,
            (first, last) => number(first)?..number(last)?.saturating_add(1).min(size),
        };
        parts.push(part);
    }
    match &parts[..] {
        [part] if part.start < part.end => Ok(Some(part.clone())),
        [_, _, ..] if parts.iter().any(|part| part.start < part.end) => Ok(None),
        _ => Err(NotSatisfiable),
    }
}

/// Digits only; what is too large for a number is beyond every file.
fn number(digits: &str) -> Result<usize, NotSatisfiable> {
    match !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) {
        true => Ok(digits.parse().unwrap_or(usize::MAX)),
        false => Err(NotSatisfiable),
    }
}

/// Whether a request says once for which host it is, as it must (RFC 9112 section 3.2).
fn names_host(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(host), None) => {
            host.is_empty()
                || Authority::try_from(host.as_bytes())
                    .is_ok_and(|authority| !authority.as_str().contains('@'))
        }
        (Some(_), Some(_)) => false,
    }
}

/// A method that this file does not have, or nobody knows (RFC 9110 section 9.1).
fn not_allowed(method: &Method, allowed: &'static str) -> Reply {
    let is_known = matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::CONNECT
            | Method::OPTIONS
            | Method::TRACE
            | Method::PATCH
    );
    if !is_known {
        return refusal(StatusCode::NOT_IMPLEMENTED);
    }
    let mut reply = refusal(StatusCode::METHOD_NOT_ALLOWED);
    set(&mut reply, ALLOW, allowed);
    reply
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
        if self.item.stage.is_some() {
            let n_sent = self.n_bytes - self.left.len();
            self.files.goes_on(self.peer, n_sent as u64, self.n_bytes as u64);
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
        for (text, part) in [
            ("bytes=0-9", 0..10),
            ("Bytes=0-9,", 0..10),
            ("bytes=90-", 90..100),
            ("bytes=-10", 90..100),
            ("bytes=90-1000", 90..100),
            ("bytes=0-99999999999999999999999", 0..100),
            ("bytes=-99999999999999999999999", 0..100),
        ] {
            assert_eq!(range(text), Ok(Some(part)), "{text}");
        }
        for text in ["lines=1-2", "bytes=1-2,5-6", "bytes=0-0,-1", "bytes=100-,0-1"] {
            assert_eq!(range(text), Ok(None), "{text}");
        }
        for text in ["bytes=100-", "bytes=9-0", "bytes=-0", "bytes=a-b", "bytes=+1-5", "bytes=", ""]
        {
            assert_eq!(range(text), Err(NotSatisfiable), "{text}");
        }
    }

    #[test]
    fn a_part_is_for_who_gets_and_depends_on_nothing() {
        let mut headers = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=0-9"))]);
        assert_eq!(wanted(&Method::GET, &headers, 100), Ok(Some(0..10)));
        assert_eq!(wanted(&Method::HEAD, &headers, 100), Ok(None));
        headers.insert(IF_RANGE, HeaderValue::from_static("\"abc\""));
        assert_eq!(wanted(&Method::GET, &headers, 100), Ok(None));
    }

    #[test]
    fn a_request_says_once_for_whom_it_is() {
        let names = |version, hosts: &[&str]| {
            let hosts = hosts.iter().map(|host| (HOST, HeaderValue::from_str(host).unwrap()));
            let mut headers = HeaderMap::new();
            for (name, host) in hosts {
                headers.append(name, host);
            }
            names_host(version, &headers)
        };
        for host in ["10.77.0.1", "bootlace:80", "[fe80::1]", ""] {
            assert!(names(Version::HTTP_11, &[host]), "{host}");
        }
        assert!(names(Version::HTTP_10, &[]));
        assert!(!names(Version::HTTP_11, &[]));
        for hosts in [&["a", "b"][..], &["a b/:x"], &["root@a"]] {
            assert!(!names(Version::HTTP_11, hosts), "{hosts:?}");
        }
    }

    #[test]
    fn who_may_not_is_told_what_he_may() {
        let reply = not_allowed(&Method::POST, "GET, HEAD");
        assert_eq!(reply.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(reply.headers()[ALLOW], "GET, HEAD");
        let unknown = not_allowed(&Method::from_bytes(b"FOO").unwrap(), "GET");
        assert_eq!(unknown.status(), StatusCode::NOT_IMPLEMENTED);
    }
}
