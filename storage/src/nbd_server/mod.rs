//! NBD over TCP: one thread per connection.

mod session;

use crate::table::Exports;
use nbd::TransmissionFlags;
use nbd::server::{ExportInfo, Handshake, Reason, Step};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A client that has opened nothing after this time is let go.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Clients in the handshake at once. More are let go.
const HALF_OPEN_MAX: usize = 100;

/// Of those, how many may be strangers, so that they can't keep machines from their disks.
const STRANGERS_MAX: usize = 50;

/// Connections in transmission: four for each of the most machines that one server is meant for.
const CONNECTIONS_MAX: usize = 1024;

/// A machine that takes no data for so long is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// The listener and its connections; dropping it ends them.
pub(crate) struct NbdServer {
    shared: Arc<Shared>,
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    exports: Arc<Exports>,
    stopping: AtomicBool,
    half_open: AtomicUsize,
    connected: AtomicUsize,
    sessions: Mutex<Vec<JoinHandle<()>>>,
}

impl NbdServer {
    pub(crate) fn start(address: SocketAddr, exports: Arc<Exports>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        // A room full of PCs that is switched on at once connects at once.
        socket.listen(1024)?;
        let listener = TcpListener::from(socket);
        let shared = Arc::new(Shared {
            exports,
            stopping: AtomicBool::new(false),
            half_open: AtomicUsize::new(0),
            connected: AtomicUsize::new(0),
            sessions: Mutex::default(),
        });
        let thread = std::thread::Builder::new().name("nbd-accept".into()).spawn({
            let (shared, listener) = (Arc::clone(&shared), listener.try_clone()?);
            move || accept(&shared, &listener)
        })?;
        Ok(Self { shared, listener, thread: Some(thread) })
    }
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        // Wakes the thread that waits in accept.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.shared.exports.close();
        let sessions = std::mem::take(
            &mut *self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner),
        );
        for session in sessions {
            let _ = session.join();
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    loop {
        let accepted = listener.accept();
        if shared.stopping.load(Ordering::Acquire) {
            return;
        }
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a client that went away: the next accept may do.
                tracing::warn!(%error, "can't accept an NBD connection");
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let half_open = shared.half_open.load(Ordering::Relaxed);
        let is_full = half_open >= HALF_OPEN_MAX
            || shared.connected.load(Ordering::Relaxed) >= CONNECTIONS_MAX
            || half_open >= STRANGERS_MAX && !shared.exports.is_nbd_peer(peer.ip());
        if is_full {
            tracing::warn!(%peer, "NBD connection refused: too many at once");
            continue;
        }
        shared.half_open.fetch_add(1, Ordering::Relaxed);
        let spawned = std::thread::Builder::new().name("nbd".into()).spawn({
            let shared = Arc::clone(shared);
            move || serve(&shared, &stream, peer)
        });
        match spawned {
            Ok(thread) => {
                let mut sessions = shared.sessions.lock().unwrap_or_else(PoisonError::into_inner);
                sessions.retain(|session| !session.is_finished());
                sessions.push(thread);
            }
            Err(error) => {
                shared.half_open.fetch_sub(1, Ordering::Relaxed);
                tracing::warn!(%peer, %error, "no thread for an NBD connection");
            }
        }
    }
}

/// Counts down when it is dropped, whatever ends the thread.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(shared: &Shared, stream: &TcpStream, peer: SocketAddr) {
    let half_open = Counted(&shared.half_open);
    let opened = match handshake(shared, stream, peer.ip()) {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(%peer, %error, "NBD handshake broke off");
            return;
        }
    };
    let (name, early) = match opened {
        Ok(opened) => opened,
        Err(Reason::Aborted) => return,
        Err(reason) => {
            tracing::info!(%peer, %reason, "NBD client let go");
            return;
        }
    };
    shared.connected.fetch_add(1, Ordering::Relaxed);
    let _connected = Counted(&shared.connected);
    drop(half_open);
    let joined = shared
        .exports
        .for_nbd(&name, peer.ip())
        .and_then(|(export, generation)| export.join(Some(stream.try_clone().ok()?), generation));
    let Some(joined) = joined else { return };
    let machine = &joined.export.spec.machine;
    tracing::info!(%machine, %peer, "root disk attached over NBD");
    match session::run(&joined, stream, early) {
        Ok(()) => tracing::info!(%machine, %peer, "root disk detached"),
        Err(error) if joined.export.is_closed() || joined.is_cut() => {
            tracing::debug!(%machine, %peer, %error, "connection ended by us");
        }
        Err(error) => tracing::info!(%machine, %peer, %error, "NBD connection lost"),
    }
}

/// What one peer may see.
struct View<'a> {
    exports: &'a Exports,
    peer: IpAddr,
}

impl nbd::server::Exports for View<'_> {
    fn find(&self, name: &str) -> Result<ExportInfo, String> {
        let Some((export, generation)) = self.exports.for_nbd(name, self.peer) else {
            let name: String = name.chars().take(64).collect();
            return Err(format!(
                "there is no export {name:?} for {}: it has not booted, or the export is another \
                 machine's",
                self.peer
            ));
        };
        if !export.fence(generation) {
            return Err("requests of the former connection still wait for the disk".to_owned());
        }
        let flags = TransmissionFlags::HAS_FLAGS
            .with(TransmissionFlags::SEND_FLUSH)
            .with(TransmissionFlags::SEND_CACHE)
            .with(TransmissionFlags::CAN_MULTI_CONN);
        let flags = match export.is_read_only() {
            true => flags.with(TransmissionFlags::READ_ONLY),
            false => flags
                .with(TransmissionFlags::SEND_FUA)
                .with(TransmissionFlags::SEND_TRIM)
                .with(TransmissionFlags::SEND_WRITE_ZEROES),
        };
        let description = format!("{} version {}", export.spec.image, export.spec.version);
        Ok(ExportInfo { size_bytes: export.size_bytes(), flags, description })
    }

    fn names(&self) -> Vec<String> {
        self.exports.nbd_names(self.peer)
    }
}

type Opened = Result<(String, Vec<u8>), Reason>;

fn handshake(shared: &Shared, mut stream: &TcpStream, peer: IpAddr) -> io::Result<Opened> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5))
        .with_retries(4);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;

    let deadline = Instant::now() + HANDSHAKE_DEADLINE;
    let view = View { exports: &shared.exports, peer };
    let mut handshake = Handshake::new();
    let mut buffer = [0; 4096];
    loop {
        match handshake.step(&view) {
            Step::Send(bytes) => stream.write_all(&bytes)?,
            Step::Receive => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || shared.stopping.load(Ordering::Acquire) {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                stream.set_read_timeout(Some(left.min(Duration::from_secs(1))))?;
                match stream.read(&mut buffer) {
                    Ok(0) => return Ok(Err(Reason::Aborted)),
                    Ok(count) => handshake.on_bytes(&buffer[..count]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Step::Transmit { name, early } => {
                stream.set_read_timeout(None)?;
                return Ok(Ok((name, early)));
            }
            Step::Close(reason) => return Ok(Err(reason)),
        }
    }
}
