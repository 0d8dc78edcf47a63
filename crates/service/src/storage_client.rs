//! The boot server's end of the storage API: HTTP and JSON over a Unix socket.

pub(crate) mod snapshots;

pub use snapshots::SnapshotDownload;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use model::{
    Admit, BootId, BootIdentity, Descriptors, DiskId, DiskMeant, DiskReport, ExportOrder,
    ExportStatus, KeptDisk, NbdRefusals, Space, StallVerb, WriteMode,
};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// A PC waits for the answer, and asks again after ten seconds.
const DEADLINE: Duration = Duration::from_secs(5);

/// Longest answer: 4,000 exports of 2 KiB.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Longest message of the storage server that is shown.
const MESSAGE_CHARS_MAX: usize = 600;

/// HTTP status of a body that is JSON, and not what is expected.
const NOT_UNDERSTOOD: u16 = 422;

/// The storage server does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Nobody listens.
    #[error("{}: start it by bootlace up, or by bootlace storage", silence(socket, cause))]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// Why it can't be reached.
        cause: std::io::Error,
    },
    /// It is too slow.
    #[error("the storage server gave no answer within {} seconds: its disks may be busy", DEADLINE.as_secs())]
    Slow,
    /// It works longer than is waited; perhaps it goes on.
    #[error(
        "the storage server has not finished within {0} s: its disks may be busy. It may go on: look before you ask again"
    )]
    Late(u64),
    /// The connection broke.
    #[error("the connection to the storage server broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It says no.
    #[error("the storage server refuses: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its own words.
        message: String,
    },
    /// What has the name is not the disk that was to be thrown away.
    #[error("another disk has the name, and is left alone")]
    OtherDisk,
    /// The disk that was to be thrown away is not there.
    #[error("the disk is gone")]
    GoneDisk,
    /// It is an earlier one, and can't do that.
    #[error("the storage server is of an earlier version, and can't do that")]
    NotKnown,
    /// It had a disk that it does not have any more.
    #[error(
        "the persistent disk of {0} is not there: the file system that holds it is probably not mounted. Mount it; to begin a \
         new one, bootlace machine reset {0}"
    )]
    NoDisk(DiskId),
    /// The answer is not of this API.
    #[error("the storage server's answer can't be understood: are both of the same version?")]
    Answer(#[source] serde_json::Error),
}

impl StorageError {
    /// What is so, without what helps: findings have a remedy of their own.
    pub(crate) fn fact(&self) -> String {
        match self {
            Self::Unreachable { socket, cause } => silence(socket, cause),
            _ => wire::error_chain(self),
        }
    }
}

fn silence(socket: &Path, cause: &std::io::Error) -> String {
    use std::io::ErrorKind;
    let socket = socket.display();
    match cause.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            format!("the storage server does not answer at {socket}, as it does not run")
        }
        _ => format!("the storage server does not answer at {socket} ({cause})"),
    }
}

/// Makes the export of a machine what it shall be, at once or when its boot has proven itself: see
/// [`ExportOrder`].
pub(crate) async fn put_export(socket: &Path, order: &ExportOrder) -> Result<Taken, StorageError> {
    let path = format!("/v1/exports/{}", order.spec.disk);
    let put = async |order: &ExportOrder| {
        let body = serde_json::to_vec(order).map_err(StorageError::Answer)?;
        call(socket, Method::PUT, &path, body).await
    };
    let is_not_understood = |answer: &Result<_, StorageError>| {
        matches!(answer, Err(StorageError::Refused { status: NOT_UNDERSTOOD, .. }))
    };
    let mut order = order.clone();
    let mut answer = put(&order).await;
    // An earlier storage server throws away what has the name; what that is was asked before.
    if is_not_understood(&answer) && order.reset_of.is_some() {
        order.reset_of = None;
        answer = put(&order).await;
    }
    // An earlier one gives disks to names.
    if is_not_understood(&answer) && order.owner.is_some() {
        order.owner = None;
        answer = put(&order).await;
    }
    // An earlier one knows neither identities nor disks that are to be there.
    if is_not_understood(&answer) && (order.identity.is_some() || order.has_disk) {
        let is_kept = order.spec.write_mode == WriteMode::Persistent;
        if order.has_disk && is_kept && !order.reset {
            let disk = &order.spec.disk;
            kept_disk(socket, disk).await?.ok_or_else(|| StorageError::NoDisk(disk.clone()))?;
        }
        (order.identity, order.has_disk) = (None, false);
        answer = put(&order).await;
    }
    // It knows keys, and not yet that they can be exchanged.
    if is_not_understood(&answer) && order.exchange.is_some() {
        order.exchange = None;
        answer = put(&order).await;
    }
    // One of before November 2026 knows neither keys nor resets at the first proof.
    if is_not_understood(&answer) && (order.key.is_some() || order.reset) {
        if order.reset {
            delete_disk(socket, &order.spec.disk).await?;
        }
        order = ExportOrder::new(order.spec);
        answer = put(&order).await;
    }
    // That it is one of this API.
    let _: ExportStatus = serde_json::from_slice(&answer?).map_err(StorageError::Answer)?;
    Ok(Taken { is_exchanged: order.exchange.is_some() })
}

/// What the storage server has taken of an order.
pub(crate) struct Taken {
    /// The boot's key is exchanged inside of TLS.
    pub(crate) is_exchanged: bool,
}

/// Gives the machine's disk to its candidate of this boot, which has proven itself to us.
pub(crate) async fn admit(
    socket: &Path,
    disk: impl fmt::Display,
    boot: BootId,
    identity: Option<BootIdentity>,
) -> Result<ExportStatus, StorageError> {
    let path = format!("/v1/exports/{disk}/admit");
    let body = serde_json::to_vec(&Admit { boot, identity }).map_err(StorageError::Answer)?;
    let answer = call(socket, Method::POST, &path, body).await?;
    serde_json::from_slice(&answer).map_err(StorageError::Answer)
}

/// All exports as they are now.
pub(crate) async fn exports(socket: &Path) -> Result<Vec<ExportStatus>, StorageError> {
    let answer = call(socket, Method::GET, "/v1/exports", Vec::new()).await?;
    serde_json::from_slice(&answer).map_err(StorageError::Answer)
}

/// How much room machines' writes have there.
pub(crate) async fn space(socket: &Path) -> Result<Space, StorageError> {
    let answer = call(socket, Method::GET, "/v1/space", Vec::new()).await?;
    serde_json::from_slice(&answer).map_err(StorageError::Answer)
}

/// Whether it had to refuse machines for lack of descriptors. One of before November 2026 does not know.
pub(crate) async fn descriptors(socket: &Path) -> Result<Descriptors, StorageError> {
    let answer = call(socket, Method::GET, "/v1/descriptors", Vec::new()).await?;
    serde_json::from_slice(&answer).map_err(StorageError::Answer)
}

/// Whom it could not serve over NBD. One of before November 2026 does not know.
pub(crate) async fn refusals(socket: &Path) -> Result<NbdRefusals, StorageError> {
    let answer = call(socket, Method::GET, "/v1/nbd", Vec::new()).await?;
    serde_json::from_slice(&answer).map_err(StorageError::Answer)
}

/// Disks that machines keep, or should have. An earlier one does not tell.
pub(crate) async fn disks(socket: &Path) -> Result<Vec<DiskReport>, StorageError> {
    let answer = call(socket, Method::GET, "/v1/disks", Vec::new()).await?;
    serde_json::from_slice(&answer).map_err(StorageError::Answer)
}

/// Why no machine gets a disk, as a sentence: the folder with the disks is another one. One of before December 2026 does
/// not tell.
pub(crate) async fn place_trouble(socket: &Path) -> Result<Option<String>, StorageError> {
    let answer = call(socket, Method::GET, "/v1/place", Vec::new()).await?;
    serde_json::from_slice(&answer).map_err(StorageError::Answer)
}

/// What the machine's persistent disk stands on; `None` if it has none.
pub(crate) async fn kept_disk(
    socket: &Path,
    disk: impl fmt::Display,
) -> Result<Option<KeptDisk>, StorageError> {
    let answer = call(socket, Method::GET, &format!("/v1/disks/{disk}"), Vec::new()).await?;
    serde_json::from_slice(&answer).map_err(StorageError::Answer)
}

/// Ends the export of a machine, and throws everything away that it ever wrote, if that is the disk that is meant.
///
/// # Errors
/// It is another one ([`StorageError::OtherDisk`]) or gone ([`StorageError::GoneDisk`]); an earlier storage server can't tell
/// ([`StorageError::NotKnown`]).
pub(crate) async fn delete_meant(
    socket: &Path,
    disk: impl fmt::Display,
    meant: &DiskMeant,
) -> Result<(), StorageError> {
    let body = serde_json::to_vec(meant).map_err(StorageError::Answer)?;
    match call(socket, Method::POST, &format!("/v1/disks/{disk}/delete"), body).await {
        Err(StorageError::Refused { status: 412, .. }) => Err(StorageError::OtherDisk),
        Err(StorageError::Refused { status: 410, .. }) => Err(StorageError::GoneDisk),
        Err(StorageError::Refused { status: 404 | 405 | NOT_UNDERSTOOD, .. }) => {
            Err(StorageError::NotKnown)
        }
        answer => answer.map(drop),
    }
}

/// Ends the export of a machine, and throws everything away that it ever wrote.
pub(crate) async fn delete_disk(
    socket: &Path,
    disk: impl fmt::Display,
) -> Result<(), StorageError> {
    call(socket, Method::DELETE, &format!("/v1/disks/{disk}"), Vec::new()).await.map(drop)
}

/// What shall become of the machine's writes that wait; how many there are.
pub(crate) async fn decide_stall(
    socket: &Path,
    disk: impl fmt::Display,
    verb: StallVerb,
) -> Result<u32, StorageError> {
    let path = format!("/v1/exports/{disk}/stall");
    let body = serde_json::to_vec(&verb).map_err(StorageError::Answer)?;
    let answer = call(socket, Method::POST, &path, body).await?;
    serde_json::from_slice(&answer).map_err(StorageError::Answer)
}

async fn call(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Bytes, StorageError> {
    let answer = call_within(DEADLINE, socket, method, path, body).await;
    answer.map_err(|error| match error {
        StorageError::Late(_) => StorageError::Slow,
        error => error,
    })
}

async fn call_within(
    deadline: Duration,
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Bytes, StorageError> {
    tokio::time::timeout(deadline, talk(socket, method, path, body))
        .await
        .map_err(|_| StorageError::Late(deadline.as_secs()))?
}

type Connection = http1::Connection<TokioIo<UnixStream>, Full<Bytes>>;

fn broken(error: hyper::Error) -> StorageError {
    StorageError::Broken(Box::new(error))
}

/// A connection to the storage server, which must be driven while somebody asks.
async fn connected(
    socket: &Path,
) -> Result<(http1::SendRequest<Full<Bytes>>, Connection), StorageError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|cause| StorageError::Unreachable { socket: socket.to_owned(), cause })?;
    http1::handshake(TokioIo::new(stream)).await.map_err(broken)
}

fn request(method: Method, path: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "storage")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .expect("paths of machine names are valid")
}

async fn talk(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Bytes, StorageError> {
    let (mut sender, connection) = connected(socket).await?;
    let request = request(method, path, body);
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok::<_, StorageError>((status, body.map_err(StorageError::Broken)?.to_bytes()))
    };
    // The connection must be driven while the exchange waits; it ends with this function.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    let (status, body) = tokio::select! {
        answer = &mut exchange => answer?,
        _ = &mut connection => exchange.await?,
    };
    if status.is_success() {
        return Ok(body);
    }
    Err(StorageError::Refused { status: status.as_u16(), message: message(&body) })
}

/// The words in an error's body: of a problem document, or plain text.
fn message(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let text = json.as_ref().and_then(|json| {
        ["detail", "error", "message", "title"].iter().find_map(|key| json.get(key)?.as_str())
    });
    let text = text.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    let text: String = text
        .chars()
        .take(MESSAGE_CHARS_MAX)
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect();
    match text.trim() {
        "" => "it gives no reason".to_owned(),
        text => text.to_owned(),
    }
}
