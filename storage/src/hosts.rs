//! Which hosts do what they should not.

use crate::admission::Peer;
use model::{HostCount, MachineName};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Hosts that are remembered for one thing that they did; after that the one that has done it least recently is forgotten.
const HOSTS_MAX: usize = 64;

/// How often which host has done something.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Grows with each count.
    now: u64,
    by_address: BTreeMap<Ipv4Addr, Done>,
}

#[derive(Debug, Default)]
struct Done {
    last: u64,
    count: u64,
    machine: Option<MachineName>,
}

impl Hosts {
    /// The host has done it once more, with this machine's disk if it is known. Whoever has no IPv4 address is not counted: he
    /// is on this host, or no machine.
    pub(crate) fn count(&self, peer: Peer, machine: Option<&MachineName>) {
        let Some(IpAddr::V4(address)) = peer.ip() else { return };
        let mut known = self.lock();
        known.now += 1;
        let now = known.now;
        if !known.by_address.contains_key(&address) && known.by_address.len() >= HOSTS_MAX {
            let oldest = known.by_address.iter().min_by_key(|(_, done)| done.last);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                known.by_address.remove(&oldest);
            }
        }
        let done = known.by_address.entry(address).or_default();
        done.last = now;
        done.count += 1;
        done.machine = machine.cloned();
    }

    /// Each host, and how often.
    pub(crate) fn list(&self) -> Vec<HostCount> {
        let known = self.lock();
        let hosts = known.by_address.iter().map(|(&address, done)| HostCount {
            address,
            count: done.count,
            machine: done.machine.clone(),
        });
        hosts.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Single entries stay right whatever panicked.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> Peer {
        Peer::Tcp((Ipv4Addr::from_bits(number), 1000).into())
    }

    #[test]
    fn the_hosts_that_did_it_last_are_known() {
        let hosts = Hosts::default();
        let machine: MachineName = "lab-07".parse().unwrap();
        hosts.count(peer(0), None);
        hosts.count(peer(1), None);
        hosts.count(Peer::Unix, None);
        hosts.count(peer(0), Some(&machine));
        let count = |address, count, machine| HostCount {
            address: Ipv4Addr::from_bits(address),
            count,
            machine,
        };
        assert_eq!(hosts.list(), [count(0, 2, Some(machine)), count(1, 1, None)]);
        for number in 2..=HOSTS_MAX as u32 {
            hosts.count(peer(number), None);
        }
        let list = hosts.list();
        assert_eq!(list.len(), HOSTS_MAX);
        assert!(list.iter().any(|host| host.address.to_bits() == 0), "it did it later than 1");
        assert!(list.iter().all(|host| host.address.to_bits() != 1));
    }
}
