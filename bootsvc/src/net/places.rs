//! Places at a server, and who gets one when all are taken: no host keeps the others out.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How many places there are, and when one must be given up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Places of all hosts.
    pub places_max: usize,
    /// Places of one host.
    pub per_host_max: usize,
    /// A host that has all of its places gives one up for a new one: one that is [unproven](Place::prove) for
    /// at least so long.
    pub unproven_stays: Duration,
    /// Or, if all are proven, one in which nothing has happened for at least so long.
    pub silent_stays: Duration,
}

/// Somebody who wants a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// His address.
    pub address: IpAddr,
    /// Whether nobody knows him: he has no lease of ours. Strangers give up their places first.
    pub is_stranger: bool,
}

/// Why somebody gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// His host has all of its places, and somebody may just be asking in its name.
    #[error("its host has just asked too often")]
    HostAsksOften,
    /// His host has all of its places and uses them.
    #[error("its host has too many already")]
    HostIsFull,
    /// All places are taken by hosts with at most as many.
    #[error("there are too many of all hosts")]
    Full,
    /// Strangers have asked more often than they may.
    #[error("too many hosts without a lease have just asked")]
    Strangers,
}

impl NoPlace {
    /// A word for it, for counting.
    pub const fn word(self) -> &'static str {
        match self {
            Self::HostAsksOften => "host-asks-often",
            Self::HostIsFull => "host-is-full",
            Self::Full => "full",
            Self::Strangers => "strangers",
        }
    }
}

/// The word for what a protocol does not know, for counting.
pub const MALFORMED: &str = "malformed";

/// Who knows the hosts, and is told what becomes of them.
pub trait Doorkeeper: Send + Sync + 'static {
    /// Who comes from there.
    fn guest(&self, peer: SocketAddr) -> Guest;
    /// He was refused.
    fn on_refused(&self, peer: SocketAddr, why: NoPlace);
    /// What he has sent is nothing that this protocol knows.
    fn on_malformed(&self, peer: SocketAddr);
    /// What he had was ended, as others need his place.
    fn on_lost(&self, peer: SocketAddr);
}

/// The places of one server. Cheap to clone; all clones are the same places.
#[derive(Clone, Debug)]
pub struct Places {
    limits: Limits,
    table: Arc<Mutex<Table>>,
    opened: Instant,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    seats: HashMap<u64, Arc<Seat>>,
    of_host: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Seat {
    host: IpAddr,
    is_stranger: bool,
    is_proven: AtomicBool,
    active_ms: AtomicU64,
    /// Whether the host itself has forgotten it.
    is_forgotten: AtomicBool,
    lost: CancellationToken,
}

/// A place, until it is dropped.
#[derive(Clone, Debug)]
pub struct Place {
    inner: Arc<Taken>,
}

#[derive(Debug)]
struct Taken {
    id: u64,
    seat: Arc<Seat>,
    places: Places,
}

impl Places {
    /// All free.
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, table: Arc::default(), opened: now }
    }

    /// Takes a place. When all are taken, somebody may lose his: of the strangers, else of all, one of the host
    /// that has most; of that host's, one that is unproven, else the one in which nothing has happened for
    /// longest.
    ///
    /// # Errors
    /// He himself would be the one to lose it.
    pub fn take(&self, guest: Guest, now: Instant) -> Result<Place, NoPlace> {
        let now = self.ms(now);
        let host = host(guest.address);
        let mut table = self.table();
        if table.of_host.get(&host).is_some_and(|&count| count >= self.limits.per_host_max) {
            let id = table.who_makes_room_at(host, now, &self.limits)?;
            table.evict(id);
        }
        let seat = Arc::new(Seat {
            host,
            is_stranger: guest.is_stranger,
            is_proven: AtomicBool::new(false),
            active_ms: AtomicU64::new(now),
            is_forgotten: AtomicBool::new(false),
            lost: CancellationToken::new(),
        });
        let id = table.add(Arc::clone(&seat));
        if table.seats.len() > self.limits.places_max {
            let leaves = table.who_leaves(now).unwrap_or(id);
            table.evict(leaves);
            if leaves == id {
                return Err(NoPlace::Full);
            }
        }
        drop(table);
        Ok(Place { inner: Arc::new(Taken { id, seat, places: self.clone() }) })
    }

    /// Takes the places away from a host in which nothing has happened for at least `silent`: it has been switched
    /// off and on again, and knows nothing of them.
    pub fn clear(&self, address: IpAddr, silent: Duration, now: Instant) {
        let (host, now) = (host(address), self.ms(now));
        let mut table = self.table();
        let of_host = table.seats.iter().filter(|(_, seat)| seat.host == host);
        let forgotten = of_host.filter(|(_, seat)| seat.silent_for(now) >= silent);
        let forget = |(&id, seat): (&u64, &Arc<Seat>)| {
            seat.is_forgotten.store(true, Ordering::Relaxed);
            id
        };
        for id in forgotten.map(forget).collect::<Vec<_>>() {
            table.evict(id);
        }
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.opened).as_millis()).unwrap_or(u64::MAX)
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn add(&mut self, seat: Arc<Seat>) -> u64 {
        let id = self.next;
        self.next += 1;
        *self.of_host.entry(seat.host).or_default() += 1;
        self.seats.insert(id, seat);
        id
    }

    /// Frees a place and tells who has it; `false` if it is free already.
    fn evict(&mut self, id: u64) -> bool {
        let Some(seat) = self.seats.remove(&id) else { return false };
        seat.lost.cancel();
        if let Some(count) = self.of_host.get_mut(&seat.host) {
            *count -= 1;
            if *count == 0 {
                self.of_host.remove(&seat.host);
            }
        }
        true
    }

    fn who_makes_room_at(&self, host: IpAddr, now: u64, limits: &Limits) -> Result<u64, NoPlace> {
        let of_host = || self.seats.iter().filter(|(_, seat)| seat.host == host);
        let oldest = |is_proven: bool| {
            let such = of_host().filter(|(_, seat)| seat.is_proven() == is_proven);
            such.map(|(&id, seat)| (seat.silent_for(now), Reverse(id))).max()
        };
        match (oldest(false), oldest(true)) {
            (Some((silent, Reverse(id))), _) if silent >= limits.unproven_stays => Ok(id),
            (_, Some((silent, Reverse(id)))) if silent >= limits.silent_stays => Ok(id),
            (Some(_), _) => Err(NoPlace::HostAsksOften),
            (None, _) => Err(NoPlace::HostIsFull),
        }
    }

    fn who_leaves(&self, now: u64) -> Option<u64> {
        let rank = |(&id, seat): (&u64, &Arc<Seat>)| {
            let of_host = self.of_host.get(&seat.host).copied().unwrap_or(0);
            // Of equals the one who came first.
            (seat.is_stranger, of_host, !seat.is_proven(), seat.silent_for(now), Reverse(id))
        };
        self.seats.iter().map(rank).max().map(|(.., Reverse(id))| id)
    }
}

impl Seat {
    fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Relaxed)
    }

    fn silent_for(&self, now_ms: u64) -> Duration {
        Duration::from_millis(now_ms.saturating_sub(self.active_ms.load(Ordering::Relaxed)))
    }
}

impl Place {
    /// Who has it has shown that he is more than a claim: his packets reach us and ours reach him, or he has asked
    /// for something. Until then the place is *unproven*.
    pub fn prove(&self, now: Instant) {
        self.inner.seat.is_proven.store(true, Ordering::Relaxed);
        self.on_progress(now);
    }

    /// Something has happened: he has taken or acknowledged bytes.
    pub fn on_progress(&self, now: Instant) {
        self.inner.seat.active_ms.store(self.inner.places.ms(now), Ordering::Relaxed);
    }

    /// Waits until the place is lost; whether that is so because somebody else has got it, and not as the host has
    /// [forgotten](Places::clear) it.
    pub async fn lost(&self) -> bool {
        self.inner.seat.lost.cancelled().await;
        !self.inner.seat.is_forgotten.load(Ordering::Relaxed)
    }

    /// Whether the place is lost.
    pub fn is_lost(&self) -> bool {
        self.inner.seat.lost.is_cancelled()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.places.table().evict(self.id);
    }
}

/// What counts as one host: an IPv4 address; an IPv6 network of a link, in which a host takes what it likes.
fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        places_max: 6,
        per_host_max: 3,
        unproven_stays: Duration::from_secs(1),
        silent_stays: Duration::from_secs(5),
    };

    /// Places, all that were ever taken, and what time it is.
    struct Hall {
        places: Places,
        taken: Vec<Place>,
        now: Instant,
    }

    impl Hall {
        fn new() -> Self {
            let now = Instant::now();
            Self { places: Places::new(LIMITS, now), taken: Vec::new(), now }
        }

        fn wait(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }

        fn take(&mut self, guest: Guest) -> Result<(), NoPlace> {
            self.taken.push(self.places.take(guest, self.now)?);
            Ok(())
        }

        fn prove(&self, index: usize) {
            self.taken[index].prove(self.now);
        }

        /// Which of them were lost.
        fn lost(&self) -> Vec<usize> {
            let all = self.taken.iter().enumerate();
            all.filter(|(_, place)| place.is_lost()).map(|(index, _)| index).collect()
        }
    }

    fn machine(host: u8) -> Guest {
        Guest { address: IpAddr::from([10, 0, 0, host]), is_stranger: false }
    }

    fn stranger(host: u8) -> Guest {
        Guest { is_stranger: true, ..machine(host) }
    }

    #[test]
    fn places_are_given_back() {
        let mut hall = Hall::new();
        for _ in 0..100 {
            (0..3).for_each(|_| hall.take(machine(1)).unwrap());
            assert!(hall.lost().is_empty());
            hall.taken.clear();
        }
        assert!(hall.places.table().of_host.is_empty());
    }

    #[test]
    fn a_host_gives_up_its_own_places_and_nobody_elses() {
        let mut hall = Hall::new();
        for host in [2, 1, 1, 1] {
            hall.take(machine(host)).unwrap();
        }
        assert_eq!(hall.take(machine(1)), Err(NoPlace::HostAsksOften));
        hall.prove(1);
        hall.wait(1500);
        hall.take(machine(1)).unwrap();
        assert_eq!(hall.lost(), [2], "the older of those that are unproven");
        hall.prove(3);
        hall.prove(4);
        assert_eq!(hall.take(machine(1)), Err(NoPlace::HostIsFull));
        hall.wait(4900);
        hall.prove(1);
        hall.wait(200);
        hall.take(machine(1)).unwrap();
        assert_eq!(hall.lost(), [2, 3], "the one in which nothing happens");
    }

    #[test]
    fn strangers_lose_their_places_first_and_then_who_has_most() {
        let mut hall = Hall::new();
        for (index, guest) in
            [stranger(9), machine(1), machine(1), machine(1), machine(2), machine(2)]
                .into_iter()
                .enumerate()
        {
            hall.take(guest).unwrap();
            hall.prove(index);
            hall.wait(10);
        }
        hall.take(machine(3)).unwrap();
        assert_eq!(hall.lost(), [0], "the stranger");
        assert_eq!(hall.take(stranger(8)), Err(NoPlace::Full));
        hall.prove(1);
        hall.take(machine(4)).unwrap();
        assert_eq!(hall.lost(), [0, 2], "of the host with three, the one in which nothing happens");
        hall.take(machine(5)).unwrap();
        hall.take(machine(6)).unwrap();
        assert_eq!(hall.lost(), [0, 2, 3, 4], "of the hosts with two");
        hall.wait(10);
        hall.take(machine(7)).unwrap();
        assert_eq!(hall.lost(), [0, 2, 3, 4, 6], "all have one: the oldest that is unproven");
    }

    #[test]
    fn who_asks_in_many_names_gets_no_place_of_those_that_are_proven() {
        let mut hall = Hall::new();
        for index in 0..6 {
            hall.take(machine(1 + index)).unwrap();
            hall.prove(index.into());
        }
        hall.wait(60_000);
        assert_eq!(hall.take(machine(7)), Err(NoPlace::Full));
        assert!(hall.lost().is_empty());
    }

    #[test]
    fn what_a_host_has_forgotten_is_cleared_out() {
        let mut hall = Hall::new();
        for host in [1, 2, 1, 1] {
            hall.take(machine(host)).unwrap();
        }
        hall.wait(1000);
        hall.prove(3);
        hall.places.clear(machine(1).address, Duration::from_secs(1), hall.now);
        assert_eq!(hall.lost(), [0, 2]);
    }

    #[test]
    fn hosts_of_one_ipv6_link_count_as_one() {
        let of = |text: &str| host(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
