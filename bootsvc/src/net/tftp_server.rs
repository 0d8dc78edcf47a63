//! The TFTP server's sockets: one for requests, and one for each transfer.

use super::door::Share;
use super::places::{Doorkeeper, Guest, Limits, NoPlace, Places};
use super::port_holder::{BindError, Protocol, in_use};
use super::tftp_transfer::{Job, serve};
use super::tftp_ways::Ways;
use crate::bucket::Bucket;
use bytes::Bytes;
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tftp::{Mode, NotServed, Packet, ReadRequest, Sent};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{self, AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// UDP port of requests.
pub const PORT: u16 = 69;
/// Transfers at once, each with a socket. 1024 clients with a window of 64 KiB each are what a gigabit sends in half a
/// second.
pub const TRANSFERS_MAX: usize = 1024;
/// Transfers at once of one client. Firmware has one, GRUB a few; the rest is a mistake or an attack.
pub const TRANSFERS_PER_CLIENT_MAX: usize = 8;
/// Requests at once of hosts without a lease; and what all of them may ask for in a second then. Addresses are easily
/// invented: to answer them all would send as much to who has not asked, and fill the kernel's table of neighbors.
pub const STRANGERS_MAX: u32 = 128;
/// Transfers whose client has acknowledged nothing are kept for so long against others of the same host.
const UNPROVEN_STAYS: Duration = Duration::from_secs(1);
/// And those whose client has fallen silent.
const SILENT_STAYS: Duration = Duration::from_secs(5);
/// Answers of a transfer to datagrams that are not its client's.
const STRANGER_ANSWERS_MAX: u32 = 4;
/// Room for requests that the reader has not seen yet: a hall of machines that is switched on at once.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Longest datagram that can be a request. Longer ones are cut, which only loses options.
const REQUEST_MAX: usize = 2048;

/// What happened, for the time line of a machine and the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TftpEvent {
    /// Who asked.
    pub peer: SocketAddrV4,
    /// What it asked for: normalized, or escaped if it can't be.
    pub path: String,
    /// What became of it.
    pub kind: TftpEventKind,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TftpEventKind {
    /// The file goes out.
    Started {
        /// Size of the file.
        size_bytes: u64,
    },
    /// The client has some more of it; told now and then.
    GoesOn {
        /// What it has acknowledged.
        acked_bytes: u64,
        /// Size of the file.
        size_bytes: u64,
    },
    /// The client has the whole file.
    Done {
        /// Size of the file.
        size_bytes: u64,
        /// How long it took.
        ms: u64,
        /// What was sent for it.
        sent: Sent,
    },
    /// The client ended the transfer, as UEFI does when it only wanted to know the size; or it began anew, or its place was
    /// given to somebody else.
    Ended {
        /// What was sent for it.
        sent: Sent,
    },
    /// The client fell silent.
    GaveUp {
        /// What it has acknowledged until then.
        acked_bytes: u64,
        /// What was sent for it.
        sent: Sent,
    },
    /// The client was told that it gets nothing.
    Refused(NotServed),
    /// Blocks of that size probably get lost on the way to it: its next transfers have smaller ones.
    BlocksLost {
        /// Bytes of such a block.
        block_size: u16,
    },
    /// What was taken for lost has come.
    BlocksArrive,
}

/// The TFTP server.
#[derive(Debug)]
pub struct Tftp {
    socket: UdpSocket,
    server: Ipv4Addr,
}

impl Tftp {
    /// Opens the port of requests at `server`. Transfers come from that address, too.
    ///
    /// # Errors
    /// Names the program that has the port already.
    pub fn bind(server: Ipv4Addr) -> Result<Self, BindError> {
        Self::bind_to(SocketAddrV4::new(server, PORT))
    }

    fn bind_to(address: SocketAddrV4) -> Result<Self, BindError> {
        let server = *address.ip();
        let address = SocketAddr::V4(address);
        let socket = std::net::UdpSocket::bind(address)
            .and_then(|socket| {
                socket.set_nonblocking(true)?;
                // Needs CAP_NET_ADMIN; without it the system's limit holds.
                let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)
                    .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES));
                UdpSocket::from_std(socket)
            })
            .map_err(|error| in_use(Protocol::Udp, address, error))?;
        Ok(Self { socket, server })
    }

    /// Serves until `stop`. `content` gives what a client gets for a path, which is normalized:
    /// `grub/grub.cfg`. `mtu_of` gives how large a packet may be for a client, where that is set. Events are dropped when nobody
    /// takes them.
    pub async fn run<C, F>(
        self,
        content: C,
        doorkeeper: impl Doorkeeper,
        mtu_of: impl Fn(Ipv4Addr) -> Option<u16> + Send + Sync + 'static,
        events: mpsc::Sender<TftpEvent>,
        stop: CancellationToken,
    ) where
        C: Fn(String, SocketAddrV4) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Bytes, NotServed>> + Send + 'static,
    {
        let places_max = Share::Tftp.clients_max(TRANSFERS_MAX);
        let mut server = Server {
            socket: self.socket,
            address: self.server,
            content: Arc::new(content),
            doorkeeper: Arc::new(doorkeeper),
            places: Places::new(Limits { places_max, ..LIMITS }, Instant::now()),
            strangers: Bucket::new(STRANGERS_MAX, STRANGERS_EVERY, Instant::now()),
            events,
            ways: Arc::new(Ways::new(mtu_of)),
            transfers: HashMap::new(),
            peers: HashMap::new(),
            tasks: JoinSet::new(),
        };
        let mut buffer = [0; REQUEST_MAX];
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(ended) = server.tasks.join_next_with_id(), if !server.tasks.is_empty() => {
                    server.on_end(ended.map_or_else(|error| error.id(), |(id, ())| id));
                }
                received = server.socket.recv_from(&mut buffer) => {
                    server.on_datagram(received, &buffer).await;
                }
            }
        }
    }
}

const LIMITS: Limits = Limits {
    places_max: TRANSFERS_MAX,
    per_host_max: TRANSFERS_PER_CLIENT_MAX,
    unproven_stays: UNPROVEN_STAYS,
    silent_stays: SILENT_STAYS,
};

const STRANGERS_EVERY: Duration = Duration::from_nanos(1_000_000_000 / STRANGERS_MAX as u64);

struct Server<C, D> {
    socket: UdpSocket,
    address: Ipv4Addr,
    content: Arc<C>,
    doorkeeper: Arc<D>,
    places: Places,
    strangers: Bucket,
    events: mpsc::Sender<TftpEvent>,
    ways: Arc<Ways>,
    transfers: HashMap<SocketAddrV4, Running>,
    /// Whose transfer a task is.
    peers: HashMap<task::Id, SocketAddrV4>,
    tasks: JoinSet<()>,
}

struct Running {
    request: Vec<u8>,
    again: mpsc::Sender<()>,
    task: AbortHandle,
}

impl<C, F, D> Server<C, D>
where
    C: Fn(String, SocketAddrV4) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Bytes, NotServed>> + Send + 'static,
    D: Doorkeeper,
{
    fn on_end(&mut self, id: task::Id) {
        let Some(peer) = self.peers.remove(&id) else { return };
        // Another one may have taken its place.
        if self.transfers.get(&peer).is_some_and(|running| running.task.id() == id) {
            self.transfers.remove(&peer);
        }
    }

    async fn on_datagram(&mut self, received: io::Result<(usize, SocketAddr)>, buffer: &[u8]) {
        let (len, peer) = match received {
            Ok((len, SocketAddr::V4(peer))) => (len, peer),
            Ok(_) => return,
            Err(error) => {
                // Of the interface, like "network is down": the socket stays good.
                tracing::warn!(%error, "can't receive TFTP requests");
                tokio::time::sleep(Duration::from_millis(100)).await;
                return;
            }
        };
        let datagram = &buffer[..len];
        let guest = self.doorkeeper.guest(peer.into());
        if guest.is_stranger && !self.strangers.take(Instant::now()) {
            self.doorkeeper.on_refused(peer.into(), NoPlace::Strangers);
            return;
        }
        let refused = match Packet::parse(datagram) {
            Ok(Packet::Read(request)) => self.on_request(datagram, &request, peer, guest),
            Ok(Packet::Write) => Err(NotServed::ReadOnly),
            // An ERROR is never answered, and everything else belongs to another port.
            Ok(Packet::Error { .. }) => Ok(()),
            Ok(_) => Err(NotServed::UnknownTransfer),
            Err(error) => {
                tracing::debug!(%peer, %error, "not a TFTP request");
                self.doorkeeper.on_malformed(peer.into());
                Ok(())
            }
        };
        if let Err(why) = refused {
            tracing::debug!(%peer, %why, "TFTP request refused");
            let _ = self.socket.try_send_to(&why.packet(), peer.into());
        }
    }

    fn on_request(
        &mut self,
        datagram: &[u8],
        request: &ReadRequest<'_>,
        peer: SocketAddrV4,
        guest: Guest,
    ) -> Result<(), NotServed> {
        if let Some(running) = self.transfers.get(&peer) {
            let is_same = running.request == datagram;
            if is_same
                && !matches!(running.again.try_send(()), Err(mpsc::error::TrySendError::Closed(())))
            {
                return Ok(());
            }
            // The client has a new wish, so it has forgotten the old one.
            running.task.abort();
            self.transfers.remove(&peer);
        }
        let refuse = |why| {
            let path = request.path.escape_ascii().to_string();
            let _ =
                self.events.try_send(TftpEvent { peer, path, kind: TftpEventKind::Refused(why) });
            Err(why)
        };
        let Some(path) = tftp::normalize(request.path) else { return refuse(NotServed::BadPath) };
        if request.mode == Mode::Unsupported {
            return refuse(NotServed::Mode);
        }
        let place = match self.places.take(guest, Instant::now()) {
            Ok(place) => place,
            Err(why) => {
                self.doorkeeper.on_refused(peer.into(), why);
                // Somebody may ask in its name: then it must neither hear that from us nor believe it.
                return if why == NoPlace::HostIsFull { Err(NotServed::Busy) } else { Ok(()) };
            }
        };
        let (again, repeats) = mpsc::channel(1);
        let job = Job {
            server: self.address,
            peer,
            path,
            mode: request.mode,
            asked: request.asked,
            place: place.clone(),
            n_stranger_answers: STRANGER_ANSWERS_MAX,
            repeats,
            events: self.events.clone(),
            ways: Arc::clone(&self.ways),
        };
        let served = serve(job, Arc::clone(&self.content));
        let doorkeeper = Arc::clone(&self.doorkeeper);
        let task = self.tasks.spawn(async move {
            tokio::select! {
                _ = place.lost() => doorkeeper.on_lost(peer.into()),
                () = served => {}
            }
        });
        self.peers.insert(task.id(), peer);
        self.transfers.insert(peer, Running { request: datagram.to_vec(), again, task });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::time::timeout;

    const SECOND: Duration = Duration::from_secs(1);
    const LONG: usize = 99_500;

    /// A server of two files, and what it tells.
    struct Site {
        requests: SocketAddr,
        events: mpsc::Receiver<TftpEvent>,
        refused: Arc<Mutex<Vec<NoPlace>>>,
        malformed: Arc<Mutex<Vec<SocketAddr>>>,
        _stop: tokio_util::sync::DropGuard,
    }

    /// Whether all are strangers, and who was refused.
    struct Door {
        all_are_strangers: bool,
        refused: Arc<Mutex<Vec<NoPlace>>>,
        malformed: Arc<Mutex<Vec<SocketAddr>>>,
    }

    impl Doorkeeper for Door {
        fn guest(&self, peer: SocketAddr) -> Guest {
            Guest { address: peer.ip(), is_stranger: self.all_are_strangers }
        }

        fn on_refused(&self, _: SocketAddr, why: NoPlace) {
            self.refused.lock().unwrap().push(why);
        }

        fn on_malformed(&self, peer: SocketAddr) {
            self.malformed.lock().unwrap().push(peer);
        }

        fn on_lost(&self, _: SocketAddr) {}
    }

    fn site() -> Site {
        site_for(false)
    }

    fn site_for(all_are_strangers: bool) -> Site {
        let tftp = Tftp::bind_to(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        let requests = tftp.socket.local_addr().unwrap();
        let (sender, events) = mpsc::channel(100);
        let stop = CancellationToken::new();
        let content = async |path: String| match path.as_str() {
            "file" => Ok(Bytes::from(vec![7; 700])),
            "long" => Ok(Bytes::from_iter((0..LONG).map(|n| (n / 1000) as u8))),
            _ => Err(NotServed::NotFound),
        };
        let (refused, malformed) = (Arc::default(), Arc::default());
        let door = Door {
            all_are_strangers,
            refused: Arc::clone(&refused),
            malformed: Arc::clone(&malformed),
        };
        let serving = tftp.run(move |path, _| content(path), door, |_| None, sender, stop.clone());
        tokio::spawn(serving);
        Site { requests, events, refused, malformed, _stop: stop.drop_guard() }
    }

    async fn client() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
    }

    async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2000];
        let (len, sender) = timeout(SECOND, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
        (buffer[..len].to_vec(), sender)
    }

    #[tokio::test]
    async fn asking_for_the_size_first_does_not_block_the_port() {
        let mut site = site();
        let client = client().await;
        let probe = tftp::read_request("file", "octet", &[("tsize", "0")]);
        for _ in 0..3 {
            client.send_to(&probe, site.requests).await.unwrap();
            let (answer, transfer) = receive(&client).await;
            assert_eq!(answer, b"\x00\x06tsize\x00700\x00");
            client.send_to(&tftp::error(8, "aborted"), transfer).await.unwrap();
        }
        client.send_to(&tftp::read_request("/file", "octet", &[]), site.requests).await.unwrap();
        let (data, transfer) = receive(&client).await;
        assert_eq!((&data[..4], data.len()), (&[0, 3, 0, 1][..], 516));
        client.send_to(&tftp::ack(1), transfer).await.unwrap();
        assert_eq!(receive(&client).await.0.len(), 4 + 188);
        client.send_to(&tftp::ack(2), transfer).await.unwrap();
        loop {
            let event = timeout(SECOND, site.events.recv()).await.unwrap().unwrap();
            if let TftpEventKind::Done { size_bytes, sent, .. } = event.kind {
                assert_eq!((size_bytes, &*event.path), (700, "file"));
                assert_eq!((sent.packets, sent.bytes, sent.again), (2, 700, 0));
                return;
            }
            // Only the OACK was sent to who asked for the size.
            if let TftpEventKind::Ended { sent } = event.kind {
                assert_eq!((sent.packets, sent.bytes, sent.again), (1, 0, 0));
            }
        }
    }

    #[tokio::test]
    async fn who_asks_for_multicast_gets_the_file_for_himself() {
        let site = site();
        let client = client().await;
        // RFC 2090; a server that does not know an option leaves it out of its answer (RFC 2347).
        let options = [("multicast", ""), ("blksize", "600")];
        client
            .send_to(&tftp::read_request("file", "octet", &options), site.requests)
            .await
            .unwrap();
        let (answer, transfer) = receive(&client).await;
        assert_eq!(answer, b"\x00\x06blksize\x00600\x00");
        client.send_to(&tftp::ack(0), transfer).await.unwrap();
        assert_eq!(receive(&client).await.0.len(), 4 + 600);
        // Alone, there is nothing to acknowledge.
        let client = self::client().await;
        let request = tftp::read_request("file", "octet", &[("multicast", "")]);
        client.send_to(&request, site.requests).await.unwrap();
        assert_eq!(receive(&client).await.0.len(), 4 + 512);
    }

    #[tokio::test]
    async fn what_was_sent_is_told_however_a_transfer_ends() {
        let mut site = site();
        let client = client().await;
        client.send_to(&tftp::read_request("file", "octet", &[]), site.requests).await.unwrap();
        assert_eq!(receive(&client).await.0.len(), 516);
        // It has forgotten what it asked for.
        let request = tftp::read_request("file", "octet", &[("tsize", "0")]);
        client.send_to(&request, site.requests).await.unwrap();
        loop {
            let event = timeout(SECOND, site.events.recv()).await.unwrap().unwrap();
            if let TftpEventKind::Ended { sent } = event.kind {
                assert_eq!((sent.packets, sent.bytes), (1, 512));
                return;
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_tftp_is_counted_and_not_answered() {
        let site = site();
        let client = client().await;
        client.send_to(b"GET / HTTP/1.1", site.requests).await.unwrap();
        client.send_to(&tftp::read_request("no", "octet", &[]), site.requests).await.unwrap();
        assert_eq!(receive(&client).await.0, NotServed::NotFound.packet());
        assert_eq!(*site.malformed.lock().unwrap(), [client.local_addr().unwrap()]);
    }

    #[tokio::test]
    async fn a_window_arrives_block_by_block() {
        let site = site();
        let client = client().await;
        let options = [("blksize", "1000"), ("windowsize", "40")];
        client
            .send_to(&tftp::read_request("long", "octet", &options), site.requests)
            .await
            .unwrap();
        let (_, transfer) = receive(&client).await;
        client.send_to(&tftp::ack(0), transfer).await.unwrap();
        for block in 1..=100 {
            let (data, _) = receive(&client).await;
            let length = if block == 100 { 500 } else { 1000 };
            let expected =
                tftp::data_header(block).into_iter().chain(vec![block as u8 - 1; length]);
            assert!(data.into_iter().eq(expected), "block {block}");
            if block % 40 == 0 || block == 100 {
                client.send_to(&tftp::ack(block), transfer).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn repeated_requests_are_one_transfer_that_strangers_do_not_disturb() {
        let mut site = site();
        let client = client().await;
        let request = tftp::read_request("file", "octet", &[]);
        for _ in 0..3 {
            client.send_to(&request, site.requests).await.unwrap();
        }
        let (data, transfer) = receive(&client).await;
        assert_eq!(data.len(), 516);
        let stranger = self::client().await;
        stranger.send_to(&tftp::ack(1), transfer).await.unwrap();
        let (answer, _) = receive(&stranger).await;
        assert_eq!(answer, NotServed::UnknownTransfer.packet());
        client.send_to(&tftp::ack(1), transfer).await.unwrap();
        let (data, sender) = receive(&client).await;
        assert_eq!((data.len(), sender), (4 + 188, transfer));
        client.send_to(&tftp::ack(2), transfer).await.unwrap();
        let started = timeout(SECOND, site.events.recv()).await.unwrap().unwrap();
        let done = timeout(SECOND, site.events.recv()).await.unwrap().unwrap();
        assert_eq!(started.kind, TftpEventKind::Started { size_bytes: 700 });
        assert!(matches!(done.kind, TftpEventKind::Done { .. }), "{done:?}");
    }

    #[tokio::test]
    async fn a_client_has_a_few_transfers_at_once_and_is_told_why_not_more() {
        let site = site();
        let request = tftp::read_request("file", "octet", &[]);
        let mut clients = Vec::new();
        for _ in 0..TRANSFERS_PER_CLIENT_MAX {
            let client = client().await;
            client.send_to(&request, site.requests).await.unwrap();
            let (data, transfer) = receive(&client).await;
            assert_eq!(data.len(), 516);
            client.send_to(&tftp::ack(1), transfer).await.unwrap();
            assert_eq!(receive(&client).await.0.len(), 4 + 188);
            clients.push(client);
        }
        let client = client().await;
        for (request, why) in [
            (request, NotServed::Busy),
            (tftp::read_request("../file", "octet", &[]), NotServed::BadPath),
            (tftp::read_request("file", "mail", &[]), NotServed::Mode),
            (b"\x00\x02file\x00octet\x00".to_vec(), NotServed::ReadOnly),
            (tftp::ack(1).to_vec(), NotServed::UnknownTransfer),
        ] {
            client.send_to(&request, site.requests).await.unwrap();
            assert_eq!(receive(&client).await.0, why.packet(), "{why}");
        }
        assert_eq!(*site.refused.lock().unwrap(), [NoPlace::HostIsFull]);
    }

    #[tokio::test]
    async fn who_acknowledges_nothing_makes_way_for_who_asks_from_the_same_address() {
        let site = site();
        let request = tftp::read_request("file", "octet", &[]);
        // As if somebody else asked in its name.
        let forged = client().await;
        let mut ports = vec![forged];
        for _ in 0..TRANSFERS_PER_CLIENT_MAX {
            ports.push(client().await);
        }
        let (honest, forged) = ports.split_last().unwrap();
        for port in forged {
            port.send_to(&request, site.requests).await.unwrap();
            assert_eq!(receive(port).await.0.len(), 516);
        }
        // The client hears nothing, and asks again.
        let mut buffer = [0; 2000];
        for _ in 0..10 {
            honest.send_to(&request, site.requests).await.unwrap();
            if let Ok(received) = timeout(UNPROVEN_STAYS, honest.recv_from(&mut buffer)).await {
                assert_eq!(received.unwrap().0, 516);
                assert_eq!(site.refused.lock().unwrap()[0], NoPlace::HostAsksOften);
                return;
            }
        }
        panic!("nobody makes way");
    }

    #[tokio::test]
    async fn hosts_without_a_lease_are_answered_seldom() {
        let site = site_for(true);
        let client = client().await;
        let n_requests = 20 * STRANGERS_MAX as usize;
        for n in 0..n_requests {
            client.send_to(b"\x00\x02file\x00octet\x00", site.requests).await.unwrap();
            if n % 16 == 0 {
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
        }
        let mut buffer = [0; 2000];
        let mut n_answers = 0;
        while timeout(SECOND / 2, client.recv_from(&mut buffer)).await.is_ok() {
            n_answers += 1;
        }
        let refused = site.refused.lock().unwrap();
        assert!(n_answers > 0 && refused.iter().all(|why| *why == NoPlace::Strangers));
        assert!(refused.len() > n_answers, "{n_answers} answers, {} refused", refused.len());
    }
}
