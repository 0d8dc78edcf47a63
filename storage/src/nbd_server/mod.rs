//! NBD over TCP and Unix sockets: one thread per connection.

mod address;
mod counts;
mod half_open;
mod link;
mod memory;
mod session;

pub use address::Address;
pub(crate) use counts::Counts;

use crate::admission::{Admission, Opened, Peer};
use crate::descriptors;
use crate::export::Export;
use crate::random_bytes;
use crate::tls::Credentials;
use address::{Accepted, Listener};
use half_open::HalfOpen;
use images::Block;
use link::{Link, Opening};
use model::{Nonce, SECRET_SUFFIX};
use nbd::TransmissionFlags;
use nbd::server::{Agreed, ExportInfo, Handshake, Reason, Refusal, Step, Tls, Way};
use socket2::{SockAddr, Socket};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
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

/// All places where NBD is served, and the connections of all of them, for which the bounds hold together. Dropping it
/// ends them, after their exports were closed.
pub(crate) struct NbdServer {
    shared: Arc<Shared>,
    doors: Vec<Door>,
}

/// A place where clients connect.
struct Door {
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
    counts: Arc<Counts>,
}

impl NbdServer {
    /// It serves nobody before it [listens](Self::listen).
    pub(crate) fn new(exports: Arc<dyn Admission>, tls: Option<Arc<Credentials>>) -> Self {
        let pools = session::Pools::default();
        let counts = Counts::new([Arc::clone(&pools.replies), Arc::clone(&pools.waiting)]);
        let shared = Shared {
            exports,
            tls,
            stopping: AtomicBool::new(false),
            half_open: HalfOpen::default(),
            pools,
            sessions: Mutex::default(),
            counts: Arc::new(counts),
        };
        Self { shared: Arc::new(shared), doors: Vec::new() }
    }

    /// Serves there, too.
    pub(crate) fn listen(&mut self, address: &Address) -> io::Result<()> {
        self.open(Listener::open(address)?)
    }

    /// Serves on a socket that listens already, too.
    pub(crate) fn listen_on(&mut self, socket: Socket) -> io::Result<()> {
        self.open(Listener::handed(socket)?)
    }

    fn open(&mut self, listener: Listener) -> io::Result<()> {
        let listener = Arc::new(listener);
        let thread = std::thread::Builder::new().name("nbd-accept".into()).spawn({
            let (shared, listener) = (Arc::clone(&self.shared), Arc::clone(&listener));
            move || accept(&shared, &listener)
        })?;
        self.doors.push(Door { listener, thread: Some(thread) });
        Ok(())
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> io::Result<Vec<Address>> {
        self.doors.iter().map(|door| door.listener.address()).collect()
    }

    /// The sockets that listen.
    pub(crate) fn sockets(&self) -> Vec<BorrowedFd<'_>> {
        self.doors.iter().map(|door| door.listener.as_fd()).collect()
    }

    /// What it could not do.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.shared.counts)
    }

    /// Lets nobody in any more.
    pub(crate) fn stop_accepting(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.doors.iter().for_each(|door| door.listener.stop());
    }
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        self.stop_accepting();
        for thread in self.doors.iter_mut().filter_map(|door| door.thread.take()) {
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
                shared.counts.no_descriptor.count(limit);
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
            shared.counts.no_descriptor.count(limit);
            continue;
        }
        let mut sessions = shared.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|session| !session.is_finished());
        if sessions.len() >= CONNECTIONS_MAX {
            if let Some(count) = shared.counts.too_many.count_silently() {
                tracing::warn!(count, "NBD connections are refused: {CONNECTIONS_MAX} are open");
            }
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
    let is_stranger = !shared.exports.knows(peer);
    let place =
        shared.half_open.enter(Arc::clone(stream), peer, is_stranger, &shared.counts.let_go);
    let Open { opened, agreed, early, link } = match handshake(shared, stream, peer) {
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
    let Opened { export, connection } = opened;
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

/// What one peer may see, and what it has opened.
struct View<'a> {
    exports: &'a dyn Admission,
    peer: Peer,
    stream: &'a Arc<Socket>,
    /// What is said is inside of TLS.
    is_encrypted: Cell<bool>,
    /// Good for one attempt to open something.
    nonce: Cell<Option<Nonce>>,
    opened: Cell<Option<Opened>>,
}

impl View<'_> {
    /// What was said so far counts no more.
    fn begin(&self) {
        self.nonce.set(random_bytes().map(Nonce::new));
    }
}

impl nbd::server::Exports for View<'_> {
    fn look(&self, name: &str) -> Result<ExportInfo, Refusal> {
        let nonce = self.nonce.get();
        let secret = name.strip_suffix(SECRET_SUFFIX).filter(|_| self.is_encrypted.get());
        let secret = secret.and_then(|name| self.exports.secret(name, nonce.as_ref()));
        if let Some(secret) = secret {
            return Err(Refusal::Policy(secret));
        }
        self.exports.look(name, self.peer, nonce.as_ref()).map(|export| info(&export))
    }

    fn open(&self, name: &str, way: Way) -> Result<ExportInfo, Refusal> {
        // Whoever knows no other way knows of no proof.
        let nonce = self.nonce.take().filter(|_| way == Way::Go);
        let stream = Arc::clone(self.stream);
        let opened = self.exports.open(name, self.peer, nonce.as_ref(), stream)?;
        let Export { disk, label, .. } = &*opened.export;
        if let Err(error) = disk.open() {
            tracing::error!(export = label.name, %error, "the disk's files can't be opened");
            let why = "the server can't open the disk; its log says why";
            return Err(Refusal::Policy(why.to_owned()));
        }
        let info = info(&opened.export);
        self.opened.set(Some(opened));
        Ok(info)
    }

    fn names(&self) -> Vec<String> {
        self.exports.nbd_names(self.peer)
    }
}

fn info(export: &Export) -> ExportInfo {
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
    ExportInfo { size_bytes: export.disk.size_bytes(), flags, description }
}

/// What a client opened.
struct Open<'a> {
    opened: Opened,
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

fn handshake<'a>(
    shared: &Shared,
    stream: &'a Arc<Socket>,
    peer: Peer,
) -> Result<Open<'a>, NotOpened> {
    let deadline = Instant::now() + HANDSHAKE_DEADLINE;
    stream.set_write_timeout(Some(HANDSHAKE_DEADLINE))?;
    let (nonce, opened) = (Cell::default(), Cell::default());
    let is_encrypted = Cell::new(false);
    let view = View { exports: &*shared.exports, peer, stream, is_encrypted, nonce, opened };
    view.begin();
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
                view.is_encrypted.set(true);
                view.begin();
            }
            Step::Transmit { agreed, early, .. } => {
                stream.set_read_timeout(None)?;
                stream.set_write_timeout(None)?;
                let opened = view.opened.take();
                let opened = opened.ok_or(NotOpened::Refused(Reason::Aborted))?;
                return Ok(Open { opened, agreed, early, link });
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
