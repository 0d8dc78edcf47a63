//! The site as commands see it: the JSON API of the boot server that runs here, or, as long as none does, the same API
//! of this process, which has the state for itself meanwhile.

mod connection;
mod refused;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use connection::connect;
pub(crate) use refused::Refused;

use crate::boot_socket::{self, Peer};
use crate::config::Config;
use crate::network::configured_leasing;
use crate::paths::Paths;
use crate::privileges::become_command;
use crate::scratch;
use crate::state_lock::{StateLock, TRY_INTERVAL, Wait, is_denied};
use anyhow::{Context, bail};
use axum::Router;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use connection::Answer;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::service::TowerToHyperService;
use nix::unistd::geteuid;
use refused::only_these;
use serde::Serialize;
use serde::de::DeserializeOwned;
use service::{Options, Service};
use std::cell::RefCell;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use web::LocalAdmin;

/// How long the boot server may take to answer. Itself it waits up to five seconds for another program's lock on its
/// database, and for its storage server.
const DEADLINE: Duration = Duration::from_secs(12);

/// The same, for work: an initrd, or a copy of a large database on a slow disk.
const WORK_DEADLINE: Duration = Duration::from_secs(600);

/// A site, as long as a command needs it.
pub(crate) struct Site {
    paths: Paths,
    runtime: Runtime,
    way: Way,
}

enum Way {
    /// A boot server runs here. The connection is for the first request.
    Server(RefCell<Option<UnixStream>>),
    /// None runs.
    Here(Box<Here>),
}

/// The state in this process. Fields are dropped in this order.
struct Here {
    router: Router,
    /// Nothing can be stored, and this is why: what is shown is a copy.
    unwritable: Option<(TempDir, String)>,
    _lock: StateLock,
}

impl Here {
    /// What it answers to whoever runs this process.
    async fn call(&self, mut request: Request<Full<Bytes>>) -> Response<axum::body::Body> {
        let us = Peer(Some(LocalAdmin { uid: geteuid().as_raw() }));
        request.extensions_mut().insert(ConnectInfo(us));
        let router = TowerToHyperService::new(self.router.clone());
        let Ok(response) = hyper::service::Service::call(&router, request).await;
        response
    }
}

/// Who has the state.
pub(crate) enum Reached {
    /// A boot server, which answers here.
    Server(UnixStream),
    /// This process.
    Lock(StateLock),
}

impl Site {
    /// The site for a command, which has not started a thread yet: without a boot server it goes on as the servers' user.
    ///
    /// # Errors
    /// This user may not, or the state can't be opened.
    pub(crate) fn open(paths: &Paths) -> anyhow::Result<Self> {
        let stream = connect(paths)?;
        if stream.is_none() {
            become_command(paths)?;
        }
        Self::enter(paths, stream)
    }

    /// The site for a process that is the user already that it is to be. The connection is one that it has made before.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn enter(paths: &Paths, stream: Option<UnixStream>) -> anyhow::Result<Self> {
        let lock = match reach(paths, stream)? {
            Reached::Server(stream) => return Self::of_server(paths, stream),
            Reached::Lock(lock) => lock,
        };
        let runtime = runtime()?;
        let (service, unwritable) = {
            let _in_runtime = runtime.enter();
            open_or_look(paths)?
        };
        let router = boot_socket::router(service, paths.for_copies());
        let here = Here { router, unwritable, _lock: lock };
        Ok(Self { paths: paths.clone(), runtime, way: Way::Here(Box::new(here)) })
    }

    /// The site of the boot server at the other end.
    ///
    /// # Errors
    /// No threads can be started.
    pub(crate) fn of_server(paths: &Paths, stream: UnixStream) -> anyhow::Result<Self> {
        let way = Way::Server(RefCell::new(Some(stream)));
        Ok(Self { paths: paths.clone(), runtime: runtime()?, way })
    }

    /// Whether a boot server runs.
    pub(crate) fn has_server(&self) -> bool {
        matches!(self.way, Way::Server(_))
    }

    /// What is at `url`.
    ///
    /// # Errors
    /// [`Refused`], or there is no answer.
    pub(crate) fn get<T: DeserializeOwned>(&self, url: &str) -> anyhow::Result<T> {
        self.ask(Method::GET, url, None, DEADLINE)
    }

    /// Of which version the boot server is; `None`: none runs, or it does not say.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) fn server_version(&self) -> anyhow::Result<Option<String>> {
        let Way::Server(_) = &self.way else { return Ok(None) };
        let answer = self.answer(Method::GET, "/api/v1/status", None, DEADLINE)?;
        Ok(answer.version().map(str::to_owned))
    }

    /// Has something done.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.ask(method, url, Some(serde_json::to_vec(body)?), DEADLINE)
    }

    /// Sends a file, to be there at `url`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) fn put_file(&self, url: &str, content: Vec<u8>) -> anyhow::Result<()> {
        self.ask(Method::PUT, url, Some(content), DEADLINE)
    }

    /// Writes what is at `url` as it comes; returns how much that was.
    ///
    /// # Errors
    /// As [`Self::get`]; it is not all there, or can't be written.
    pub(crate) fn save(&self, url: &str, out: &mut dyn std::io::Write) -> anyhow::Result<u64> {
        let request = Request::get(url).header(HOST, "localhost").body(Full::default())?;
        match &self.way {
            Way::Server(first) => {
                let stream = self.stream(first)?;
                self.runtime.block_on(connection::save(stream, request, out))
            }
            Way::Here(here) => self
                .runtime
                .block_on(async { connection::take(here.call(request).await, out).await }),
        }
    }

    /// A connection to the boot server: the first, if nobody has taken it.
    fn stream(&self, first: &RefCell<Option<UnixStream>>) -> anyhow::Result<UnixStream> {
        let first = first.borrow_mut().take();
        let stream = first.map_or_else(|| connect(&self.paths), |first| Ok(Some(first)))?;
        stream.context("the boot server has ended meanwhile")
    }

    /// Has work done, which takes longer.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) fn work<T: DeserializeOwned>(
        &self,
        url: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.work_by(Method::POST, url, body)
    }

    /// The same by another method.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) fn work_by<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.ask(method, url, Some(serde_json::to_vec(body)?), WORK_DEADLINE)
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &str,
        body: Option<Vec<u8>>,
        deadline: Duration,
    ) -> anyhow::Result<T> {
        self.answer(method, url, body, deadline)?.read()
    }

    fn answer(
        &self,
        method: Method,
        url: &str,
        body: Option<Vec<u8>>,
        deadline: Duration,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method).uri(url).header(HOST, "localhost");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())))?;
        match &self.way {
            Way::Server(first) => {
                let stream = self.stream(first)?;
                self.runtime.block_on(connection::exchange(stream, request, deadline))
            }
            Way::Here(here) => {
                let is_change = !matches!(*request.method(), Method::GET | Method::HEAD);
                if let Some((_, why)) = here.unwritable.as_ref().filter(|_| is_change) {
                    let detail = format!("{why}. Nothing was changed");
                    return Err(Refused::new(StatusCode::INSUFFICIENT_STORAGE, detail).into());
                }
                self.runtime.block_on(async { Answer::receive(here.call(request).await).await })
            }
        }
    }
}

/// The boot server that runs, or the state for this process.
///
/// # Errors
/// This user may not, or somebody has the state for so long.
pub(crate) fn reach(paths: &Paths, stream: Option<UnixStream>) -> anyhow::Result<Reached> {
    if let Some(stream) = stream {
        return Ok(Reached::Server(stream));
    }
    let mut wait = Wait::new();
    loop {
        // One that has just started holds the lock, and answers a moment later.
        if let Some(stream) = connect(paths)? {
            return Ok(Reached::Server(stream));
        }
        let holder = match StateLock::try_take(paths, false) {
            Ok(Ok(lock)) => return Ok(Reached::Lock(lock)),
            Ok(Err(holder)) => holder,
            Err(error) if is_denied(&error) && !geteuid().is_root() => {
                return Err(only_these(paths, &error).into());
            }
            Err(error) => return Err(error),
        };
        if wait.is_over() {
            match holder.is_server {
                true => {
                    bail!("{holder} has started or is stopping, and does not answer yet: try again")
                }
                false => bail!("{holder} is not done yet: try again when it is"),
            }
        }
        if wait.is_to_be_told() {
            let _ = writeln!(std::io::stderr(), "waiting for {holder}");
        }
        std::thread::sleep(TRY_INTERVAL);
    }
}

/// The state, or, if nothing can be stored where it is, a copy for those who only look, and why.
fn open_or_look(paths: &Paths) -> anyhow::Result<(Service, Option<(TempDir, String)>)> {
    let options = options(paths);
    let error = match Service::open(options.clone()) {
        Ok(service) => return Ok((service, None)),
        Err(error) if error.is_unwritable() => error,
        Err(error) => return Err(error.into()),
    };
    let folder = scratch::folder(scratch::database_bytes(&paths.database()), &[paths.run()]);
    // Without room for a copy it stays what it is.
    let Ok(folder) = folder else { return Err(error.into()) };
    let service = Service::look(options, folder.path())?;
    Ok((service, Some((folder, error.chain()))))
}

/// As the boot server has them, as far as commands need that. What is wrong with the configuration it will report.
fn options(paths: &Paths) -> Options {
    let options = Options::under(&paths.root);
    let Ok(config) = Config::load(&paths.config()) else { return options };
    let nbd_ca = config.storage.machine_ca().unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "note: {error:#}");
        None
    });
    let leasing = configured_leasing(&config);
    Options { rescue_busybox: config.boot.rescue_busybox, leasing, ..options.with_nbd_ca(nbd_ca) }
}

fn runtime() -> anyhow::Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
