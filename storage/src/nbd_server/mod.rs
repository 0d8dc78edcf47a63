//! NBD over TCP and Unix sockets: one thread per connection.

mod address;
mod half_open;
mod link;
mod session;

pub use address::Address;

use crate::admission::{Admission, Peer};
use crate::descriptors::{self, Refused};
use crate::tls::Credentials;
use address::{Accepted, Listener};
use half_open::HalfOpen;
use images::Block;
use link::{Link, Opening};
use nbd::TransmissionFlags;
use nbd::server::{Agreed, ExportInfo, Handshake, Reason, Step, Tls};
use socket2::{SockAddr, Socket};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A client that has opened nothing after this time is let go.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Connections, each with a thread: four for each of the most machines that one server is meant for,
/// and those in the handshake.
const CONNECTIONS_MAX: usize = 1024 + half_open::HALF_OPEN_MAX;

/// When accepting fails for another reason than a lack of descriptors, it is tried again after this time.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The listener and its connections. Dropping it ends them, after their exports were closed.
pub(crate) struct NbdServer {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    exports: Arc<dyn Admission>,
    tls: Option<Arc<Credentials>>,
    stopping: AtomicBool,
    half_open: HalfOpen,
    pools: session::Pools,
    sessions: Mutex<Vec<JoinHandle<()>>>,
    refused: Arc<Refused>,
}

impl NbdServer {
    pub(crate) fn start(
        address: &Address,
        exports: Arc<dyn Admission>,
        tls: Option<Arc<Credentials>>,
    ) -> io::Result<Self> {
        Self::serve(Listener::open(address)?, exports, tls)
    }

    /// Serves on a socket that listens already.
    pub(crate) fn start_on(
        socket: Socket,
        exports: Arc<dyn Admission>,
        tls: Option<Arc<Credentials>>,
    ) -> io::Result<Self> {
        Self::serve(Listener::handed(socket)?, exports, tls)
    }

    fn serve(
        listener: Listener,
        exports: Arc<dyn Admission>,
        tls: Option<Arc<Credentials>>,
    ) -> io::Result<Self> {
        let listener = Arc::new(listener);
        let shared = Arc::new(Shared {
            exports,
            tls,
            stopping: AtomicBool::new(false),
            half_open: HalfOpen::default(),
            pools: session::Pools::default(),
            sessions: Mutex::default(),
            refused: Arc::default(),
        });
        let thread = std::thread::Builder::new().name("nbd-accept".into()).spawn({
            let (shared, listener) = (Arc::clone(&shared), Arc::clone(&listener));
            move || accept(&shared, &listener)
        })?;
        Ok(Self { shared, listener, thread: Some(thread) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<Address> {
        self.listener.address()
    }

    /// Clients that it had no descriptors for.
    pub(crate) fn refused(&self) -> Arc<Refused> {
        Arc::clone(&self.shared.refused)
    }

    /// Lets nobody in any more.
    pub(crate) fn stop_accepting(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.listener.stop();
    }
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        self.stop_accepting();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let sessions = std::mem::take(
            &mut *self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner),
        );
        for session in sessions {
            let _ = session.join();
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: &Listener) {
    let limit = descriptors::limit();
    let number_max = descriptors::connection_number_max(limit);
    loop {
        let (stream, address) = match listener.accept() {
            Ok(Accepted::Client(stream, address)) => (stream, address),
            Ok(Accepted::NoRoom) => {
                shared.refused.count(limit);
                continue;
            }
            Ok(Accepted::Stopped) => return,
            Err(error) => {
                // A client that went away: the next accept may do.
                tracing::debug!(%error, "can't accept an NBD connection");
                std::thread::sleep(ACCEPT_RETRY);
                continue;
            }
        };
        if stream.as_raw_fd() > number_max {
            shared.refused.count(limit);
            continue;
        }
        let mut sessions = shared.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|session| !session.is_finished());
        if sessions.len() >= CONNECTIONS_MAX {
            tracing::warn!("NBD connection refused: {CONNECTIONS_MAX} are open");
            continue;
        }
        let spawned = std::thread::Builder::new().name("nbd".into()).spawn({
            let shared = Arc::clone(shared);
            move || serve(&shared, &Arc::new(stream), &address)
        });
        match spawned {
            Ok(thread) => sessions.push(thread),
            Err(error) => tracing::warn!(%error, "no thread for an NBD connection"),
        }
    }
}

fn serve(shared: &Shared, stream: &Arc<Socket>, address: &SockAddr) {
    let Ok(peer) = address::prepare(stream, address) else { return };
    let is_stranger = shared.exports.nbd_names(peer).is_empty();
    let place = shared.half_open.enter(Arc::clone(stream), is_stranger);
    let Open { name, agreed, early, link } = match handshake(shared, stream, peer) {
        Ok(opened) => opened,
        Err(NotOpened::Refused(Reason::Aborted)) => return,
        Err(NotOpened::Broken(error)) => {
            tracing::debug!(%peer, %error, "NBD handshake cut short");
            return;
        }
        Err(reason) => {
            tracing::info!(%peer, %reason, "NBD client disconnected before it opened an export");
            return;
        }
    };
    drop(place);
    let Ok((export, generation)) = shared.exports.for_nbd(&name, peer) else { return };
    let stream = Some(Arc::clone(stream));
    let Some(connection) = export.connections.join(stream, generation) else { return };
    let name = &export.label.name;
    let tls = link.protocol();
    tracing::info!(export = name, %peer, tls, "disk attached over NBD");
    match session::run(&export, &connection, link, &shared.pools, agreed, &early) {
        Ok(()) => tracing::info!(export = name, %peer, "disk detached"),
        Err(error) if export.connections.is_closed() || connection.is_cut() => {
            tracing::debug!(export = name, %peer, %error, "connection ended by us");
        }
        Err(error) => tracing::info!(export = name, %peer, %error, "NBD connection lost"),
    }
}

/// What one peer may see.
struct View<'a> {
    exports: &'a dyn Admission,
    peer: Peer,
}

impl nbd::server::Exports for View<'_> {
    fn find(&self, name: &str) -> Result<ExportInfo, String> {
        let (export, generation) = self.exports.for_nbd(name, self.peer)?;
        if !export.connections.fence(generation) {
            return Err(
                "requests of the former connection are still waiting for the disk".to_owned()
            );
        }
        if let Err(error) = export.disk.open() {
            tracing::error!(export = export.label.name, %error, "the disk's files can't be opened");
            return Err("the server can't open the disk; its log says why".to_owned());
        }
        let flags = TransmissionFlags::HAS_FLAGS
            .with(TransmissionFlags::SEND_FLUSH)
            .with(TransmissionFlags::SEND_CACHE)
            .with(TransmissionFlags::CAN_MULTI_CONN);
        let flags = match export.disk.is_read_only() {
            true => flags.with(TransmissionFlags::READ_ONLY),
            false => flags
                .with(TransmissionFlags::SEND_FUA)
                .with(TransmissionFlags::SEND_TRIM)
                .with(TransmissionFlags::SEND_WRITE_ZEROES)
                .with(TransmissionFlags::SEND_FAST_ZERO),
        };
        let description = export.label.description.clone();
        Ok(ExportInfo { size_bytes: export.disk.size_bytes(), flags, description })
    }

    fn names(&self) -> Vec<String> {
        self.exports.nbd_names(self.peer)
    }
}

/// What a client opened.
struct Open<'a> {
    name: String,
    agreed: Agreed,
    /// The beginning of its first requests.
    early: Vec<u8>,
    link: Link<'a>,
}

/// Why a client opened nothing.
#[derive(Debug, thiserror::Error)]
enum NotOpened {
    #[error("{0}")]
    Refused(Reason),
    #[error("TLS failed: {0}")]
    Tls(rustls::Error),
    #[error("the client ended TLS: does it trust the certificate of this server?")]
    Untrusted,
    #[error(transparent)]
    Broken(#[from] io::Error),
}

fn handshake<'a>(shared: &Shared, stream: &'a Socket, peer: Peer) -> Result<Open<'a>, NotOpened> {
    let deadline = Instant::now() + HANDSHAKE_DEADLINE;
    stream.set_write_timeout(Some(HANDSHAKE_DEADLINE))?;
    let view = View { exports: &*shared.exports, peer };
    let mut handshake = Handshake::new(match &shared.tls {
        None => Tls::Off,
        Some(tls) if tls.is_required() => Tls::Required,
        Some(_) => Tls::Optional,
    });
    let mut link = Link::Plain(stream);
    let mut buffer = [0; 4096];
    loop {
        match handshake.step(&view) {
            Step::Send(bytes) => link.write_all(&bytes)?,
            Step::Receive => match in_time(shared, stream, deadline, || link.read(&mut buffer))? {
                0 => return Err(NotOpened::Refused(Reason::Aborted)),
                count => handshake.on_bytes(&buffer[..count]),
            },
            Step::StartTls => {
                let Some(tls) = &shared.tls else {
                    return Err(NotOpened::Refused(Reason::Aborted));
                };
                link = Link::open_tls(stream, tls.current()).map_err(NotOpened::Tls)?;
                loop {
                    match in_time(shared, stream, deadline, || link.go_on_opening())? {
                        Opening::Goes => {}
                        Opening::Done => break,
                        Opening::BrokenOff => return Err(NotOpened::Untrusted),
                    }
                }
                handshake.on_tls();
            }
            Step::Transmit { name, agreed, early } => {
                stream.set_read_timeout(None)?;
                stream.set_write_timeout(None)?;
                return Ok(Open { name, agreed, early, link });
            }
            Step::Close(reason) => return Err(NotOpened::Refused(reason)),
        }
    }
}

/// Repeats `receive` until it has got something.
fn in_time<T>(
    shared: &Shared,
    stream: &Socket,
    deadline: Instant,
    mut receive: impl FnMut() -> io::Result<T>,
) -> Result<T, NotOpened> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || shared.stopping.load(Ordering::Acquire) {
            return Err(NotOpened::Broken(io::ErrorKind::TimedOut.into()));
        }
        stream.set_read_timeout(Some(left.min(Duration::from_secs(1))))?;
        match receive() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(not_opened(error)),
            Ok(done) => return Ok(done),
        }
    }
}

fn not_opened(error: io::Error) -> NotOpened {
    match error.downcast::<rustls::Error>() {
        Ok(error) => NotOpened::Tls(error),
        Err(error) => NotOpened::Broken(error),
    }
}
