//! The boot server's pages and API on a Unix socket that only its own user may open: what commands on this host
//! learn of it that is in its memory only.

use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::HOST;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use service::Service;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::{UnixListener, UnixStream};

/// Where copies are asked for.
const STATE_COPY: &str = "/local/state-copy";

/// How the names of copies begin.
const COPY: &str = "state-copy-";

/// A person waits.
const DEADLINE: Duration = Duration::from_secs(3);

/// A copy of a large database on a slow disk.
const COPY_DEADLINE: Duration = Duration::from_secs(600);

/// Copies that nobody has fetched are removed after this time.
const COPY_STAYS: Duration = Duration::from_secs(3600);

/// Longest answer: all findings of all kinds, 1 KiB each.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Listens on `path`. A socket that nobody listens on is a leftover and is replaced.
///
/// # Errors
/// The folder can't be written, or another boot server listens there.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if is_answered(path) {
        let text = "another boot server listens there; stop it first";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Whether a boot server listens there.
pub(crate) fn is_answered(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_ok()
}

/// The error for a person. While a boot server runs on without its database, what is left of the site is in its memory.
pub(crate) fn explain(error: service::Error, path: &Path) -> anyhow::Error {
    match error {
        service::Error::DatabaseMissing { path: database, .. } if is_answered(path) => {
            anyhow::anyhow!(
                "the database {} is gone, and the boot server runs on with what was in it: save that by bootlace backup \
                 create FILE before you stop it; then bootlace backup restore FILE",
                database.display()
            )
        }
        error => error.into(),
    }
}

/// Asks the running boot server for what `url` shows, as JSON.
///
/// # Errors
/// None runs, or it does not answer as it should.
pub(crate) async fn get(path: &Path, url: &str) -> anyhow::Result<serde_json::Value> {
    let stream = UnixStream::connect(path).await?;
    tokio::time::timeout(DEADLINE, talk(stream, Method::GET, url)).await?
}

/// Has the running boot server copy its database: where the copy is, which belongs to the caller then. `None`: none runs,
/// or it is an older one, which can't.
///
/// # Errors
/// It runs, and can't.
pub(crate) async fn copy_state(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    let Ok(stream) = UnixStream::connect(path).await else { return Ok(None) };
    let asked = talk(stream, Method::POST, STATE_COPY);
    let Ok(answer) = tokio::time::timeout(COPY_DEADLINE, asked).await? else { return Ok(None) };
    if let Some(why) = answer["error"].as_str() {
        anyhow::bail!("the boot server can't copy its database: {why}");
    }
    Ok(answer["path"].as_str().map(PathBuf::from))
}

/// What only commands on this host may ask for. Copies are made in `folder`.
pub(crate) fn router(service: Service, folder: PathBuf) -> Router {
    let copy = async move || {
        let _ = std::fs::create_dir_all(&folder);
        remove_old_copies(&folder);
        let path = new_copy(&folder);
        Json(match service.copy_state(&path).await {
            Ok(()) => serde_json::json!({ "path": path }),
            Err(error) => serde_json::json!({ "error": error.chain() }),
        })
    };
    Router::new().route(STATE_COPY, post(copy))
}

/// Where the next copy of a database is made.
pub(crate) fn new_copy(folder: &Path) -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    folder.join(format!("{COPY}{}-{now}", std::process::id()))
}

fn remove_old_copies(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_old = |entry: &std::fs::DirEntry| {
        let made = entry.metadata().and_then(|about| about.modified()).ok();
        let age = made.and_then(|made| made.elapsed().ok());
        entry.file_name().as_encoded_bytes().starts_with(COPY.as_bytes())
            && age.is_some_and(|age| age > COPY_STAYS)
    };
    for entry in entries.filter(is_old) {
        let _ = std::fs::remove_file(entry.path());
    }
}

async fn talk(stream: UnixStream, method: Method, url: &str) -> anyhow::Result<serde_json::Value> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header(HOST, "localhost")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
        anyhow::ensure!(status.is_success(), "the boot server says {status}");
        Ok(serde_json::from_slice(&body)?)
    };
    // The connection must be driven while the exchange waits; it ends with this function.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{FindingKind, Subject};
    use service::{Options, Service};

    #[tokio::test]
    async fn commands_see_what_the_running_boot_server_has_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/bootlace/boot.sock");
        assert!(get(&path, "/api/v1/findings").await.is_err(), "none runs");
        let options = Options { init: None, ..Options::under(folder.path()) };
        let service = Service::open(options).unwrap();
        service.found(FindingKind::ClockSet, &Subject::Server, "the clock was set");
        let listener = bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(bind(&path).unwrap_err().to_string().contains("another boot server"));
        let server = tokio::spawn(axum::serve(listener, web::router(service)).into_future());
        let told = get(&path, "/api/v1/findings").await.unwrap();
        let findings = told["findings"].as_array().unwrap();
        assert!(findings.iter().any(|finding| finding["kind"] == "clock-set"), "{told}");
        assert!(get(&path, "/api/v1/nothing").await.is_err());
        server.abort();
        let _ = server.await;
        bind(&path).expect("a leftover is replaced");
    }
}
