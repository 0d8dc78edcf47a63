//! The boot server's pages and API on a Unix socket, for commands on this host, and what only they may ask for.

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use model::{ImageName, ImageVersion, MachineName};
use nix::unistd::{Gid, Uid, User};
use service::{Actor, Service};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use web::{LocalAdmin, Problem};

/// Where copies of the database are asked for.
pub(crate) const STATE_COPY: &str = "/local/state-copy";

/// Where it is told that there is a new version in the image store.
pub(crate) const IMAGES: &str = "/local/images";

/// The header of each answer that says of which version the server is.
pub(crate) const VERSION_HEADER: HeaderName = HeaderName::from_static("bootlace-version");

/// How the names of copies begin.
const COPY: &str = "state-copy-";

/// Copies that nobody has fetched are removed after this time.
const COPY_STAYS: Duration = Duration::from_secs(3600);

/// Connections at once: each has one command. More wait in the kernel's queue.
const COMMANDS_MAX: usize = 64;

/// After the kernel has refused a connection, time until the next is taken up.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Of the path of a request, characters in the log.
const PATH_LOGGED_MAX: usize = 64;

/// Listens on `path`, for root and our own user, and for the group if there is one. A socket that nobody listens on is a
/// leftover and is replaced.
///
/// # Errors
/// The folder can't be written, another boot server listens there, or the group is not ours to give.
pub(crate) fn bind(path: &Path, group: Option<Gid>) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if is_answered(path) {
        let text = "another boot server listens there; stop it first";
        return Err(io::Error::new(ErrorKind::AddrInUse, text));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    if let Some(group) = group {
        admit(path, group)?;
    }
    Ok(listener)
}

/// Lets the group through to the socket. What else is in its folder has rights of its own.
fn admit(path: &Path, group: Gid) -> io::Result<()> {
    chown(path, None, Some(group.as_raw()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    if let Some(folder) = path.parent() {
        let mode = std::fs::metadata(folder)?.permissions().mode();
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode | 0o011))?;
    }
    Ok(())
}

/// Whether a boot server listens there.
pub(crate) fn is_answered(path: &Path) -> bool {
    match connect(path) {
        Ok(_) => true,
        // It has not taken those up that came before.
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// Connects, and waits for nothing: who has too many waiting is `WouldBlock`.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(UnixStream::from(std::os::fd::OwnedFd::from(socket)))
}

/// A version that a command has made in the image store.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct NewVersion {
    pub(crate) image: ImageName,
    pub(crate) version: u32,
    /// The machine on which it was made: that changes it no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) published_from: Option<MachineName>,
}

impl NewVersion {
    /// One that came from elsewhere.
    pub(crate) fn of(version: &ImageVersion) -> Self {
        Self { image: version.image.clone(), version: version.version, published_from: None }
    }
}

/// What became of it. One of both is there, unless it is a disk without a system.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Recorded {
    /// Size of its initrd.
    pub(crate) initrd_bytes: Option<u64>,
    /// Why it has none.
    pub(crate) initrd_error: Option<String>,
    /// The machine on which it was made runs on it again, and goes on changing it.
    #[serde(default)]
    pub(crate) goes_on: bool,
}

/// Who is at the other end of a connection, by the kernel; `None`: it does not say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) Option<LocalAdmin>);

/// Answers commands until `stop`; `router` is the one that this module makes.
pub(crate) async fn serve(listener: UnixListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(COMMANDS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let taken = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            taken = taken => taken,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a command is not answered");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let peer = stream.peer_cred().ok().map(|peer| LocalAdmin { uid: peer.uid() });
        let service = router.clone().layer(Extension(ConnectInfo(Peer(peer))));
        let served = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let stop = stop.clone();
        connections.spawn(async move {
            let _place = place;
            let mut served = pin!(served);
            let ended = tokio::select! {
                ended = &mut served => ended,
                () = stop.cancelled() => {
                    served.as_mut().graceful_shutdown();
                    served.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "the connection of a command ended");
            }
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// All that commands on this host may ask for: what pages and API do, and more. Each request has its [`Peer`] in a
/// [`ConnectInfo`]. Copies are made in the first of `folders` that takes them.
pub(crate) fn router(service: Service, folders: [PathBuf; 2]) -> Router {
    router_with(service, folders, Router::new())
}

/// The same with `more`, which others answer.
pub(crate) fn router_with(service: Service, folders: [PathBuf; 2], more: Router) -> Router {
    let copy = async move |State(service): State<Service>| {
        let mut why = None;
        for folder in &folders {
            let _ = std::fs::create_dir_all(folder);
            remove_old_copies(folder);
            let path = new_copy(folder);
            match service.copy_state(&path).await {
                Ok(()) => return Json(serde_json::json!({ "path": path })),
                Err(error) => why = why.or(Some(error.chain())),
            }
        }
        Json(serde_json::json!({ "error": why }))
    };
    let local = Router::new()
        .route(STATE_COPY, post(copy))
        .route(IMAGES, post(record))
        .with_state(service.clone());
    web::router(service, &[]).merge(local).merge(more).layer(from_fn(from_command))
}

/// Records an image version, and builds its initrd.
async fn record(
    State(service): State<Service>,
    Extension(LocalAdmin { uid }): Extension<LocalAdmin>,
    Json(new): Json<NewVersion>,
) -> Result<Json<Recorded>, Problem> {
    let admin = service.admin(&Actor::command(uid))?;
    let (_, initrd) = admin.record_image_version(new.image, new.version).await?;
    let goes_on = match &new.published_from {
        Some(machine) => !admin.edit_is_published(machine).await?,
        None => false,
    };
    Ok(Json(match initrd {
        Ok(path) => {
            let initrd_bytes =
                path.map(|path| std::fs::metadata(path).map_or(0, |about| about.len()));
            Recorded { initrd_bytes, initrd_error: None, goes_on }
        }
        Err(error) => Recorded { initrd_bytes: None, initrd_error: Some(error.chain()), goes_on },
    }))
}

/// Says who asks, to what answers and to the log.
async fn from_command(mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Peer>>().and_then(|peer| peer.0.0);
    let Some(peer) = peer else {
        return Problem::new(StatusCode::FORBIDDEN, "the kernel does not say who asks")
            .into_response();
    };
    request.extensions_mut().insert(peer);
    let method = request.method().clone();
    let path = request.uri().path().chars().take(PATH_LOGGED_MAX);
    let path: String = path.flat_map(char::escape_default).collect();
    let mut response = next.run(request).await;
    // Pictures come all the time, and change nothing.
    let is_told = method != Method::GET && method != Method::HEAD && !is_picture(&path);
    if is_told {
        let (who, status) = (name(peer).await, response.status().as_u16());
        tracing::info!(who, %method, path, status, "asked by a command");
    }
    let version = HeaderValue::from_static(env!("CARGO_PKG_VERSION"));
    response.headers_mut().insert(VERSION_HEADER, version);
    response
}

/// Whether that is where a picture of a screen is put.
fn is_picture(path: &str) -> bool {
    let of_machine = path.strip_prefix("/api/v1/machines/");
    of_machine.and_then(|rest| rest.split_once('/')).is_some_and(|(_, what)| what == "screen")
}

/// The list of users may be on another server.
async fn name(LocalAdmin { uid }: LocalAdmin) -> String {
    let named = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid)));
    match named.await {
        Ok(Ok(Some(user))) => format!("{} ({uid})", user.name),
        _ => uid.to_string(),
    }
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
