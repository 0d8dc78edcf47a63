//! How large the blocks may be that reach a client: tunnels, VPNs and PPPoE carry less than Ethernet.

use nix::sys::socket::{getsockopt, sockopt};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Largest block: one Ethernet frame. Many ROMs can't put fragments together.
const BLOCK_SIZE_MAX: u16 = 1468;
/// IP, UDP and TFTP headers.
const HEADERS: u16 = 20 + 8 + 4;
/// Blocks for the smallest packets that `mtu` may ask for: no tunnel that people have carries less.
const SMALL_ENOUGH: u16 = *initcfg::MTU_RANGE.start() - HEADERS;
/// Hosts of which it is known what has reached them: as many as there are transfers at once.
const WAYS_MAX: usize = 1024;
/// How long blocks that got lost are not tried again. Whoever boots each morning fails once a week at most, and a link that was
/// down for a moment makes no PC slower for ever.
const LOST_STAYS: Duration = Duration::from_secs(604_800);

/// The MTU of the network that has an address, if it is set.
type MtuOf = Box<dyn Fn(Ipv4Addr) -> Option<u16> + Send + Sync>;

/// What is known of the ways to clients.
pub(super) struct Ways {
    mtu_of: MtuOf,
    hosts: Mutex<HashMap<Ipv4Addr, Way>>,
}

/// The way to one host.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// Largest block that it has acknowledged, and when it did.
    carried: (u16, Instant),
    /// Smallest block that did not come though it was sent again and again, and when that was seen.
    lost: Option<(u16, Instant)>,
}

impl Ways {
    pub(super) fn new(mtu_of: impl Fn(Ipv4Addr) -> Option<u16> + Send + Sync + 'static) -> Self {
        Self { mtu_of: Box::new(mtu_of), hosts: Mutex::default() }
    }

    /// The largest block that is sent to `peer`, which has asked for `asked` bytes: what fits into one packet of its network and of
    /// the route to it, and does not probably get lost.
    pub(super) fn block_size_max(
        &self,
        peer: SocketAddrV4,
        asked: Option<u32>,
        now: Instant,
    ) -> u16 {
        let mtu = (self.mtu_of)(*peer.ip()).into_iter().chain(route_mtu(peer)).min();
        let fits = mtu.map_or(BLOCK_SIZE_MAX, |mtu| {
            mtu.saturating_sub(HEADERS).clamp(tftp::BLOCK_SIZE_DEFAULT, BLOCK_SIZE_MAX)
        });
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let way = hosts.get(peer.ip());
        way.and_then(|way| way.carries_only(asked, now)).map_or(fits, |max| max.min(fits))
    }

    /// Blocks of that size got lost, of a transfer that began at `since`. Returns whether that is news.
    pub(super) fn lost(&self, host: Ipv4Addr, size: u16, since: Instant, now: Instant) -> bool {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let way = way_to(&mut hosts, host, now);
        let (carried, carried_at) = way.carried;
        if carried >= size {
            // It took such blocks meanwhile: this transfer it has just forgotten. Or before: then once is bad luck.
            if carried_at < since {
                way.carried = (0, now);
            }
            return false;
        }
        let known = way.lost_size(now);
        way.lost = Some((known.map_or(size, |known| known.min(size)), now));
        known.is_none()
    }

    /// The host has acknowledged a block of that size. Returns whether such blocks were said to get lost.
    pub(super) fn carried(&self, host: Ipv4Addr, size: u16, now: Instant) -> bool {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let way = way_to(&mut hosts, host, now);
        way.carried = (way.carried.0.max(size), now);
        let was_lost = way.lost.is_some_and(|(lost, _)| lost <= size);
        if was_lost {
            way.lost = None;
        }
        was_lost
    }
}

impl Way {
    fn lost_size(&self, now: Instant) -> Option<u16> {
        let (size, at) = self.lost?;
        (now.saturating_duration_since(at) < LOST_STAYS).then_some(size)
    }

    /// If larger blocks got lost: how large they may be. Who asks for much more than gets through has the smallest, and who asks
    /// for less has that, as it may get through.
    fn carries_only(&self, asked: Option<u32>, now: Instant) -> Option<u16> {
        let lost = self.lost_size(now)?;
        let asked = asked.and_then(|asked| u16::try_from(asked).ok());
        let may_pass = asked.filter(|asked| *asked < lost && *asked <= SMALL_ENOUGH);
        Some(may_pass.unwrap_or(0).max(self.carried.0).max(tftp::BLOCK_SIZE_DEFAULT))
    }
}

/// When there are too many, the one goes that matters least: nothing got lost on it, and it was used long ago.
fn way_to(hosts: &mut HashMap<Ipv4Addr, Way>, host: Ipv4Addr, now: Instant) -> &mut Way {
    if hosts.len() >= WAYS_MAX && !hosts.contains_key(&host) {
        let least = hosts.iter().min_by_key(|(_, way)| {
            let lost_at = way.lost.map(|(_, at)| at);
            (lost_at, way.carried.1)
        });
        if let Some(least) = least.map(|(host, _)| *host) {
            hosts.remove(&least);
        }
    }
    hosts.entry(host).or_insert(Way { carried: (0, now), lost: None })
}

/// How large a packet may be on the route to `peer`, as far as the kernel knows: by the interface, the route itself, and what
/// routers have said since (RFC 1191).
fn route_mtu(peer: SocketAddrV4) -> Option<u16> {
    // Connecting sends nothing, it only looks up the route.
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(peer).ok()?;
    let mtu = getsockopt(&socket, sockopt::IpMtu).ok()?;
    Some(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// Lets routers divide what is sent from now on. Until then packets must not be divided, as Linux does it by itself: a router that
/// can't pass one on says so, and the next transfer has smaller blocks.
pub(super) fn allow_fragments(socket: impl AsFd) {
    if let Err(error) = set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT) {
        tracing::debug!(%error, "TFTP packets can't be divided on their way");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

    fn ways(mtu: Option<u16>) -> Ways {
        Ways::new(move |_| mtu)
    }

    fn granted(ways: &Ways, now: Instant) -> u16 {
        granted_of(ways, 1468, now)
    }

    fn granted_of(ways: &Ways, asked: u32, now: Instant) -> u16 {
        // Loopback carries 64 KiB.
        ways.block_size_max(SocketAddrV4::new(HOST, 9), Some(asked), now)
    }

    #[test]
    fn a_block_fits_into_one_packet_of_its_network() {
        let check = |mtu, expected| assert_eq!(granted(&ways(mtu), Instant::now()), expected);
        check(None, 1468);
        check(Some(9000), 1468);
        check(Some(1500), 1468);
        check(Some(1400), 1368);
        check(Some(1280), 1248);
        check(Some(0), 512);
    }

    #[test]
    fn what_gets_lost_is_not_tried_again_for_a_week() {
        let ways = ways(None);
        let start = Instant::now();
        assert!(ways.lost(HOST, 1468, start, start + SECOND));
        assert!(!ways.lost(HOST, 1468, start, start + SECOND), "that is known");
        assert_eq!(granted(&ways, start + SECOND), 512);
        assert_eq!(granted_of(&ways, 1432, start + SECOND), 512);
        // GRUB asks for 1024.
        assert!(granted_of(&ways, 1024, start + SECOND) >= 1024);
        assert!(!ways.carried(HOST, 1024, start + SECOND));
        assert_eq!(granted(&ways, start + SECOND), 1024, "so much was seen to arrive");
        for n in 2..4 {
            assert!(!ways.lost(HOST, 1000, start + n * SECOND, start + (n + 1) * SECOND));
        }
        assert_eq!(granted_of(&ways, 1024, start + 4 * SECOND), 512, "no longer");
        let end = start + 4 * SECOND + LOST_STAYS;
        assert_eq!(granted(&ways, end - SECOND), 512);
        assert_eq!(granted(&ways, end), 1468);
        assert!(ways.lost(HOST, 1468, end, end), "it is news again");
    }

    #[test]
    fn what_arrives_is_not_lost() {
        let ways = ways(None);
        let start = Instant::now();
        // Firmware asks for the size, forgets that, and asks again.
        assert!(!ways.carried(HOST, 1468, start + SECOND));
        assert!(!ways.lost(HOST, 1468, start, start + 2 * SECOND));
        assert_eq!(granted(&ways, start + 2 * SECOND), 1468);
        // Another way, perhaps.
        assert!(!ways.lost(HOST, 1468, start + 3 * SECOND, start + 4 * SECOND), "once");
        assert_eq!(granted(&ways, start + 4 * SECOND), 1468);
        assert!(ways.lost(HOST, 1468, start + 4 * SECOND, start + 5 * SECOND), "and again");
        assert_eq!(granted(&ways, start + 5 * SECOND), 512);
        assert!(ways.carried(HOST, 1468, start + 5 * SECOND), "it was only late");
        assert_eq!(granted(&ways, start + 5 * SECOND), 1468);
    }

    #[test]
    fn a_crowd_takes_no_room_and_hides_no_loss() {
        let ways = ways(None);
        let start = Instant::now();
        assert!(ways.lost(HOST, 1468, start, start));
        for n in 0..2 * WAYS_MAX as u32 {
            ways.carried(Ipv4Addr::from_bits(0x0a00_0000 + n), 1468, start + SECOND);
        }
        assert_eq!(ways.hosts.lock().unwrap().len(), WAYS_MAX);
        assert_eq!(granted(&ways, start + SECOND), 512);
    }
}
