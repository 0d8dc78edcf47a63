//! Clients in the handshake. Who is slow must not keep others out.

use crate::admission::Peer;
use crate::hosts::Hosts;
use socket2::Socket;
use std::collections::VecDeque;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Clients in the handshake at once. One more, and the one that has been there longest is let go.
pub(super) const HALF_OPEN_MAX: usize = 100;

/// How many of those in the handshake may be strangers, so that they can't keep machines from their disks.
const STRANGERS_MAX: usize = 50;

#[derive(Default)]
pub(super) struct HalfOpen {
    clients: Mutex<Clients>,
}

#[derive(Default)]
struct Clients {
    next: u64,
    /// Oldest first.
    waiting: VecDeque<Client>,
}

struct Client {
    id: u64,
    stream: Arc<Socket>,
    peer: Peer,
    is_stranger: bool,
}

impl HalfOpen {
    /// Lets a client in. A stranger is somebody whom no export is for. Who has to go for it is counted.
    pub(super) fn enter(
        &self,
        stream: Arc<Socket>,
        peer: Peer,
        is_stranger: bool,
        let_go: &Hosts,
    ) -> Place<'_> {
        let mut clients = self.lock();
        let n_strangers = clients.waiting.iter().filter(|client| client.is_stranger).count();
        if is_stranger && n_strangers >= STRANGERS_MAX || clients.waiting.len() >= HALF_OPEN_MAX {
            let oldest = clients.waiting.iter().position(|client| client.is_stranger).unwrap_or(0);
            if let Some(client) = clients.waiting.remove(oldest) {
                // It may have gone by itself.
                let _ = client.stream.shutdown(Shutdown::Both);
                let_go.count(client.peer, None);
                tracing::warn!(
                    "NBD client disconnected: too many at once have not opened an export"
                );
            }
        }
        let id = clients.next;
        clients.next += 1;
        clients.waiting.push_back(Client { id, stream, peer, is_stranger });
        Place { half_open: self, id }
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        // The list stays right whatever panicked: it is changed by single calls.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's place in the handshake; leaving is dropping it.
pub(super) struct Place<'a> {
    half_open: &'a HalfOpen,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.half_open.lock().waiting.retain(|client| client.id != self.id);
    }
}
