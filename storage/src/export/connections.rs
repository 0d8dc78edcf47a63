//! Who uses an export, and how those that must leave do.

use super::heard::acknowledged_ago;
use socket2::Socket;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Shutdown};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long connections may finish what they have received before they are cut.
const FINISH_TIME: Duration = Duration::from_secs(1);

/// How long a reset waits for connections of the former boot to leave.
const LEAVE_TIME: Duration = Duration::from_secs(5);

/// How long a client's new connection waits for its former one; then it is refused, and comes again.
const FENCE_TIME: Duration = Duration::from_secs(2);

/// The connections of one export: NBD connections, batches of AoE frames, and what is being written back.
///
/// A client that opens the export over NBD calls [`enter`](Self::enter), which makes its former connections
/// leave first. The end is [`close`](Self::close), or its two halves
/// [`begin_close`](Self::begin_close) and [`finish_close`](Self::finish_close) if many exports end at
/// once; nobody joins after it began.
#[derive(Default)]
pub(crate) struct Connections {
    is_closed: AtomicBool,
    inside: Mutex<Inside>,
    has_left: Condvar,
}

#[derive(Default)]
struct Inside {
    next: u64,
    /// Connections of a smaller generation are ended, and not let in any more.
    generation: u32,
    open: HashMap<u64, Open>,
    /// NBD connections that there ever were.
    n_streams: u64,
    /// When the client was last heard of over a connection that has ended since, and not by its own word.
    last_heard: Option<Instant>,
}

/// One of them.
struct Open {
    /// `None` if it is no NBD connection.
    stream: Option<Arc<Socket>>,
    generation: u32,
    cut: Arc<AtomicBool>,
}

/// Which generations a client may open its next connection with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    /// This one, as often as it likes.
    Claimed(u32),
    /// This one, once: it has proven that it means it.
    Proven(u32),
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotEntered {
    #[error("a newer connection of this machine has the disk")]
    Old,
    #[error("requests of the former connection are still waiting for the disk")]
    Busy,
    #[error("the disk was taken away just now")]
    Closed,
    #[error("{0} connections to this disk are open, which is as many as there may be")]
    Full(usize),
}

impl Connections {
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// How many NBD connections there are.
    pub(crate) fn count(&self) -> u32 {
        self.inside().open.values().filter(|open| open.stream.is_some()).count() as u32
    }

    /// Our addresses to which NBD connections were made, each once.
    pub(crate) fn servers(&self) -> Vec<Ipv4Addr> {
        let inside = self.inside();
        let streams = inside.open.values().filter_map(|open| open.stream.as_ref());
        let addresses = streams.filter_map(|stream| stream.local_addr().ok()?.as_socket());
        let mut servers: Vec<Ipv4Addr> = addresses
            .filter_map(|address| match address.ip().to_canonical() {
                IpAddr::V4(server) => Some(server),
                IpAddr::V6(_) => None,
            })
            .collect();
        servers.sort_unstable();
        servers.dedup();
        servers
    }

    /// Whether there ever was an NBD connection.
    pub(crate) fn was_used(&self) -> bool {
        self.inside().n_streams > 0
    }

    /// Time since the client was last heard of over NBD; `None`: never, or it has said goodbye since.
    pub(crate) fn heard_ago(&self) -> Option<Duration> {
        let inside = self.inside();
        let streams = inside.open.values().filter_map(|open| open.stream.as_ref());
        // Who connects without TCP is on this host.
        let open = streams.map(|stream| acknowledged_ago(stream).unwrap_or_default());
        open.chain(inside.last_heard.map(|at| at.elapsed())).min()
    }

    /// Lets an NBD client in. Its connections of smaller generations are ended first, and have left when this
    /// returns, so that none of their writes can follow one of a newer connection.
    ///
    /// A kernel that lost its connection sends the same requests again, and the former connection may
    /// still hold a copy of them.
    ///
    /// # Errors
    /// It may not come in; see [`NotEntered`]. There are never more than `connections_max`.
    pub(crate) fn enter(
        self: &Arc<Self>,
        stream: Arc<Socket>,
        generation: Generation,
        connections_max: usize,
    ) -> Result<Connection, NotEntered> {
        let mut inside = self.inside();
        let generation = match generation {
            Generation::Proven(generation) if generation <= inside.generation => {
                return Err(NotEntered::Old);
            }
            Generation::Claimed(generation) | Generation::Proven(generation) => generation,
        };
        inside.generation = inside.generation.max(generation);
        for open in inside.open.values().filter(|open| open.generation < generation) {
            open.cut.store(true, Ordering::Release);
            if let Some(stream) = &open.stream {
                // It may be closed already, which is as good.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        let deadline = Instant::now() + FENCE_TIME;
        if !self.await_leaving(inside, deadline, |open| open.generation < generation) {
            return Err(NotEntered::Busy);
        }
        self.join(Some(stream), generation, connections_max)
    }

    /// Registers work of this server's own, which no newer connection ends; `None` if the export was closed
    /// meanwhile.
    pub(crate) fn join_work(self: &Arc<Self>) -> Option<Connection> {
        self.join(None, u32::MAX, usize::MAX).ok()
    }

    fn join(
        self: &Arc<Self>,
        stream: Option<Arc<Socket>>,
        generation: u32,
        connections_max: usize,
    ) -> Result<Connection, NotEntered> {
        let mut inside = self.inside();
        if self.is_closed() {
            return Err(NotEntered::Closed);
        }
        if generation < inside.generation {
            return Err(NotEntered::Old);
        }
        let n_open = inside.open.values().filter(|open| open.stream.is_some()).count();
        if stream.is_some() && n_open >= connections_max {
            return Err(NotEntered::Full(n_open));
        }
        let id = inside.next;
        inside.next += 1;
        inside.n_streams += u64::from(stream.is_some());
        let cut = Arc::new(AtomicBool::new(false));
        inside.open.insert(id, Open { stream, generation, cut: Arc::clone(&cut) });
        drop(inside);
        let has_said_goodbye = AtomicBool::new(false);
        Ok(Connection { connections: Arc::clone(self), id, cut, has_said_goodbye })
    }

    /// Lets nobody in any more, and tells those inside to leave after what they have received.
    pub(crate) fn begin_close(&self) {
        let inside = self.inside();
        self.is_closed.store(true, Ordering::Release);
        shut_down(&inside, Shutdown::Read);
    }

    /// Ends all connections. Whether the last request has left the disk, so that no late write can
    /// follow.
    pub(crate) fn close(&self) -> bool {
        self.begin_close();
        self.finish_close(Instant::now())
    }

    /// Waits for all to leave after [`begin_close`](Self::begin_close), which was at `since`. Whether the
    /// last request has left the disk, so that no late write can follow.
    pub(crate) fn finish_close(&self, since: Instant) -> bool {
        let is_empty = self.await_leaving(self.inside(), since + FINISH_TIME, |_| true);
        if !is_empty {
            // A client that takes no replies: perhaps it lost its power.
            shut_down(&self.inside(), Shutdown::Both);
        }
        is_empty || self.await_leaving(self.inside(), since + LEAVE_TIME, |_| true)
    }

    /// Waits for those that must leave; whether they have.
    fn await_leaving(
        &self,
        mut inside: MutexGuard<'_, Inside>,
        deadline: Instant,
        must_leave: impl Fn(&Open) -> bool,
    ) -> bool {
        while inside.open.values().any(&must_leave) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.has_left.wait_timeout(inside, left);
            inside = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // The map stays right whatever panicked: it is changed by single calls.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shut_down(inside: &Inside, how: Shutdown) {
    for stream in inside.open.values().filter_map(|open| open.stream.as_ref()) {
        // It may be closed already, which is as good.
        let _ = stream.shutdown(how);
    }
}

/// A place among the connections of an export; leaving is dropping it.
pub(crate) struct Connection {
    connections: Arc<Connections>,
    id: u64,
    cut: Arc<AtomicBool>,
    has_said_goodbye: AtomicBool,
}

impl Connection {
    /// The client ends it, and says so.
    pub(crate) fn say_goodbye(&self) {
        self.has_said_goodbye.store(true, Ordering::Release);
    }

    /// Whether the client has a newer connection: what it asked here is asked there again.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut inside = self.connections.inside();
        let open = inside.open.remove(&self.id);
        if let Some(stream) = open.and_then(|open| open.stream) {
            let ago = acknowledged_ago(&stream).unwrap_or_default();
            inside.last_heard = match self.has_said_goodbye.load(Ordering::Acquire) {
                true => None,
                false => inside.last_heard.max(Instant::now().checked_sub(ago)),
            };
        }
        drop(inside);
        self.connections.has_left.notify_all();
    }
}
