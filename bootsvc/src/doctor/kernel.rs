//! Settings of the kernel that a room of PCs outgrows.

use super::Look;
use crate::check::Verdict;
use serde_json::Value;
use std::fs;

/// For each machine so many neighbours: itself, and what else is on its network.
const NEIGHBOURS_PER_MACHINE: u64 = 2;

/// Connections that the kernel follows, of those that it can: from here on it is soon full.
const FULL_PERCENT: u64 = 80;

pub(super) fn looks(machines: &[Value]) -> Vec<Look> {
    let n_machines = machines.len() as u64;
    let neighbours = setting("/proc/sys/net/ipv4/neigh/default/gc_thresh3");
    let followed = setting("/proc/sys/net/netfilter/nf_conntrack_count")
        .zip(setting("/proc/sys/net/netfilter/nf_conntrack_max"));
    let verdicts = [
        neighbours.map(|most| neighbours_of(n_machines, most)),
        followed.map(|(now, most)| connections(now, most)),
    ];
    verdicts.into_iter().flatten().map(Look::at_host).collect()
}

fn setting(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn neighbours_of(n_machines: u64, most: u64) -> Verdict {
    let wanted = n_machines * NEIGHBOURS_PER_MACHINE;
    match wanted > most {
        true => Verdict::Better(format!(
            "the kernel remembers {most} neighbours at most, and there are {n_machines} machines: with more it forgets some, and their \
             disks wait. Set net.ipv4.neigh.default.gc_thresh3 = {} in /etc/sysctl.d/",
            wanted.next_power_of_two() * 2
        )),
        false => Verdict::Right(format!(
            "the kernel remembers {most} neighbours, which is enough for {n_machines} machines"
        )),
    }
}

fn connections(now: u64, most: u64) -> Verdict {
    match now.saturating_mul(100) >= most.saturating_mul(FULL_PERCENT) {
        true => Verdict::Wrong(format!(
            "the firewall follows {now} connections, and can follow {most}: when it is full, packets of machines are dropped. Set \
             net.netfilter.nf_conntrack_max = {} in /etc/sysctl.d/",
            most * 4
        )),
        false => Verdict::Right(format!("the firewall follows {now} connections of {most}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_room_outgrows_is_told() {
        assert_eq!(neighbours_of(200, 1024).in_words().0, "ok");
        assert_eq!(neighbours_of(1000, 1024).in_words().0, "note");
        assert_eq!(connections(10, 262_144).in_words().0, "ok");
        assert_eq!(connections(262_000, 262_144).in_words().0, "wrong");
    }
}
