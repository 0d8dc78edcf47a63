//! Requests to a boot server through its socket.

use super::refused::{Refused, denied};
use crate::boot_socket::{self, VERSION_HEADER};
use crate::paths::Paths;
use anyhow::{Context, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::io::ErrorKind;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Longest answer: all findings of all kinds, 1 KiB each, or all machines.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Connects to the boot server; `None`: none runs here.
///
/// # Errors
/// This user may not, or it takes up no connections.
pub(crate) fn connect(paths: &Paths) -> anyhow::Result<Option<UnixStream>> {
    let socket = paths.boot_socket();
    match boot_socket::connect(&socket) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::NotADirectory => {
                Ok(None)
            }
            ErrorKind::PermissionDenied => Err(denied(&socket).into()),
            ErrorKind::WouldBlock => {
                Err(anyhow!("the boot server runs, and takes up no connections: restart it"))
            }
            _ => Err(error).with_context(|| format!("can't use {}", socket.display())),
        },
    }
}

/// What a boot server has answered.
pub(super) struct Answer {
    status: StatusCode,
    body: Bytes,
    /// Of which version it is; `None`: of one that does not say.
    version: Option<String>,
}

/// Asks, and waits for the answer.
pub(super) async fn exchange(
    stream: UnixStream,
    request: Request<Full<Bytes>>,
    deadline: Duration,
) -> anyhow::Result<Answer> {
    let is_change = request.method() != hyper::Method::GET;
    let asked = tokio::time::timeout(deadline, talk(stream, request)).await;
    let unknown = match is_change {
        true => ". It may have done what it was asked, or not: look before you ask again",
        false => "",
    };
    match asked {
        Ok(answer) => answer.with_context(|| format!("the boot server has not answered{unknown}")),
        Err(_) => Err(anyhow!(
            "the boot server has not answered within {} s: it is overloaded or hangs; if that goes on, restart it{unknown}",
            deadline.as_secs()
        )),
    }
}

async fn talk(stream: UnixStream, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
    driven(stream, request, Answer::receive).await
}

/// Asks, and writes what comes for as long as it comes.
pub(super) async fn save(
    stream: UnixStream,
    request: Request<Full<Bytes>>,
    out: &mut dyn Write,
) -> anyhow::Result<u64> {
    driven(stream, request, async |response| take(response, out).await).await
}

/// Asks, and has `read` read the answer.
async fn driven<T>(
    stream: UnixStream,
    request: Request<Full<Bytes>>,
    read: impl AsyncFnOnce(Response<Incoming>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let stream = tokio::net::UnixStream::from_std(stream)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async { read(sender.send_request(request).await?).await };
    // The connection must be driven while the exchange waits; it ends with this function.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

/// Writes the body of an answer as it comes.
pub(super) async fn take<B>(response: Response<B>, out: &mut dyn Write) -> anyhow::Result<u64>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    if !response.status().is_success() {
        let refused: serde_json::Value = Answer::receive(response).await?.read()?;
        return Err(anyhow!("the boot server says {refused}"));
    }
    let (mut body, mut n_bytes) = (response.into_body(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| anyhow::Error::from_boxed(error.into()));
        let frame = frame.context("the file could not be read to its end")?;
        if let Ok(data) = frame.into_data() {
            out.write_all(&data)?;
            n_bytes += data.len() as u64;
        }
    }
    Ok(n_bytes)
}

impl Answer {
    pub(super) async fn receive<B>(response: Response<B>) -> anyhow::Result<Self>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let status = response.status();
        let version = response.headers().get(VERSION_HEADER);
        let version = version.and_then(|version| version.to_str().ok()).map(str::to_owned);
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
        Ok(Self { status, body, version })
    }

    /// Of which version the server is, if it says so.
    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// What is in it, if what was asked is done.
    pub(super) fn read<T: DeserializeOwned>(self) -> anyhow::Result<T> {
        if self.status.is_success() {
            let body = if self.body.is_empty() { b"null" } else { &self.body[..] };
            let read = serde_json::from_slice(body);
            return read.with_context(|| match self.other_version() {
                Some(other) => format!("the answer of the boot server is not understood: {other}"),
                None => "the answer of the boot server is not understood".to_owned(),
            });
        }
        let problem: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
        // What there is no path for is no problem document, or this one; a machine that there is not is another one.
        let is_missing_path =
            matches!(self.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
                && detail.is_none_or(|detail| detail == web::NOTHING_HERE);
        let detail = match (self.other_version(), detail) {
            (Some(other), _) if is_missing_path => other,
            (Some(other), Some(detail)) => format!("{detail} ({other})"),
            (None, Some(detail)) => detail.to_owned(),
            (_, None) => format!("the boot server says {}", self.status),
        };
        let status = if is_missing_path { StatusCode::NOT_IMPLEMENTED } else { self.status };
        Err(Refused::new(status, detail).into())
    }

    /// Why it may understand this command wrongly.
    fn other_version(&self) -> Option<String> {
        let own = env!("CARGO_PKG_VERSION");
        let version = match &self.version {
            Some(version) if version == own => return None,
            Some(version) => format!("of version {version}"),
            None => "an older one".to_owned(),
        };
        Some(format!(
            "the running boot server is {version}, and this command of version {own}: restart the boot server"
        ))
    }
}
