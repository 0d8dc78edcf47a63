//! Browsers that speak plain HTTP where TLS is spoken.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// The first byte of a TLS connection: a record of a handshake (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

/// Longest request head that is read: an address and a few headers.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// How a client begins.
pub(super) enum Greeting {
    Tls,
    Plain,
}

/// Waits for the client's first byte, and leaves it there.
pub(super) async fn greeting(stream: &TcpStream) -> io::Result<Greeting> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ if first[0] == HANDSHAKE => Ok(Greeting::Tls),
        _ => Ok(Greeting::Plain),
    }
}

/// Tells a browser the address that begins with `https`. Nothing else is answered, and what it has sent is not looked at. Returns
/// whether that is not HTTP.
pub(super) async fn send_to_https(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> bool {
    let service = service_fn(async |request| Ok::<_, Infallible>(answer(&request)));
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let Err(error) = connection.await else { return false };
    tracing::debug!(%error, "plain HTTP where TLS is spoken");
    error.is_parse()
}

fn answer(request: &Request<Incoming>) -> Response<Empty<Bytes>> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let mut response = Response::new(Empty::new());
    let location = host.map(|host| format!("https://{host}{}", request.uri()));
    let location = location.and_then(|location| location.parse().ok());
    *response.status_mut() = match location {
        // A form that was sent in plain text is not sent again.
        Some(location) if matches!(*request.method(), Method::GET | Method::HEAD) => {
            response.headers_mut().insert(LOCATION, location);
            StatusCode::TEMPORARY_REDIRECT
        }
        _ => StatusCode::BAD_REQUEST,
    };
    response.headers_mut().insert(CONNECTION, hyper::header::HeaderValue::from_static("close"));
    response
}
