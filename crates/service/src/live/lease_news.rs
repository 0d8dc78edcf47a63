//! What people change of leases, for who decides on them and has them in its memory.

use model::Lease;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use wire::Mac;

/// Changes that wait for who decides: each is waited for by whoever made it.
const WAITING_MAX: usize = 16;

/// Addresses that are listed as somebody's without a lease. More are somebody who invents them.
const HEARD_MAX: usize = 4096;

/// Something was changed, and is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseNews {
    /// These were another server's. Whatever was decided since counts more.
    Taken(Vec<Lease>),
    /// The NIC's lease of this address is no more.
    Freed(Mac, Ipv4Addr),
    /// The address can be given again, though it was declined.
    Rested(Ipv4Addr),
}

/// Where changes are told. Nobody may listen.
#[derive(Debug)]
pub(crate) struct LeaseDesk {
    listener: Mutex<Option<Sender<LeaseNews>>>,
    /// They are told in the order in which they are stored: who changes something has this meanwhile.
    turn: Semaphore,
    /// Who was heard to have an address without a lease, and until when nobody gets it because of that.
    heard: Mutex<BTreeMap<Ipv4Addr, (Mac, u64)>>,
}

impl Default for LeaseDesk {
    fn default() -> Self {
        Self { listener: Mutex::default(), turn: Semaphore::new(1), heard: Mutex::default() }
    }
}

impl LeaseDesk {
    pub(crate) fn listen(&self) -> Receiver<LeaseNews> {
        let (sender, receiver) = channel(WAITING_MAX);
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    pub(crate) fn turn(&self) -> &Semaphore {
        &self.turn
    }

    /// Somebody was heard to have an address, which rests until then.
    pub(crate) fn note_heard(&self, address: Ipv4Addr, mac: Mac, until: u64, now: u64) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.retain(|_, (_, until)| *until > now);
        if heard.len() < HEARD_MAX {
            heard.insert(address, (mac, until));
        }
    }

    /// Those that rest now, because of whom, and until when.
    pub(crate) fn heard(&self, now: u64) -> Vec<(Ipv4Addr, Mac, u64)> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let resting = heard.iter().filter(|(_, (_, until))| *until > now);
        resting.map(|(address, (mac, until))| (*address, *mac, *until)).collect()
    }

    /// The address rests no longer. Returns whether it did.
    pub(crate) fn forget_heard(&self, address: Ipv4Addr, now: u64) -> bool {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.remove(&address).is_some_and(|(_, until)| until > now)
    }

    pub(crate) async fn tell(&self, news: LeaseNews) {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(listener) = listener {
            // Who does not listen any more reads what is stored when it starts again.
            let _ = listener.send(news).await;
        }
    }
}
