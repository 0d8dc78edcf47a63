//! One TFTP transfer on a socket of its own.

use super::door::client_number_max;
use super::places::Place;
use super::tftp_server::{TftpEvent, TftpEventKind};
use super::tftp_socket::{BLOCKS_MAX, Block, TransferSocket};
use super::tftp_ways::{Ways, allow_fragments};
use bytes::Bytes;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;
use tftp::{Asked, Mode, Next, NotServed, Outcome, Packet, Terms, Transfer};
use tokio::sync::mpsc;
use tokio::time::Instant;
use wire::Moment;

/// The content must be there by then. Firmware asks again for about half a minute.
const CONTENT_DEADLINE: Duration = Duration::from_secs(25);
/// Longest packet that a client sends during a transfer: an ERROR with its text.
const PACKET_MAX: usize = 600;
/// Datagrams that are looked at before a client counts as silent: those of the longest window, and as many of others.
const WAITING_MAX: usize = 128;

/// How often it is told that a transfer goes on: much sooner than a boot counts as one that hangs.
const GOES_ON_EVERY: Duration = Duration::from_secs(5);

/// One request to serve.
pub(super) struct Job {
    pub(super) server: Ipv4Addr,
    pub(super) peer: SocketAddrV4,
    pub(super) path: String,
    pub(super) mode: Mode,
    pub(super) asked: Asked,
    /// Its place among all transfers.
    pub(super) place: Place,
    /// Answers that may still be sent to those who have nothing to do with it.
    pub(super) n_stranger_answers: u32,
    /// A message for each time that the request came in again.
    pub(super) repeats: mpsc::Receiver<()>,
    pub(super) events: mpsc::Sender<TftpEvent>,
    /// What is known of the ways to clients.
    pub(super) ways: Arc<Ways>,
}

enum End {
    Outcome(Outcome),
    /// The client has started over with the request that it sent first.
    Restart,
}

/// Serves one request until its transfer is over.
pub(super) async fn serve<C, F>(mut job: Job, content: Arc<C>)
where
    C: Fn(String, SocketAddrV4) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Bytes, NotServed>> + Send + 'static,
{
    let mut socket = match TransferSocket::bind(job.server) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::debug!(%error, "can't open a socket for a TFTP transfer");
            return job.tell(TftpEventKind::Refused(NotServed::Busy));
        }
    };
    if socket.as_raw_fd() > client_number_max() {
        let _ = socket.send(&NotServed::Busy.packet(), job.peer).await;
        return job.tell(TftpEventKind::Refused(NotServed::Busy));
    }
    loop {
        let content = content(job.path.clone(), job.peer);
        let content = tokio::time::timeout(CONTENT_DEADLINE, content).await;
        let content = match (content.unwrap_or(Err(NotServed::Failed)), job.mode) {
            (Ok(content), Mode::Netascii) => {
                tftp::netascii(&content).map(Bytes::from).ok_or(NotServed::TooLongForText)
            }
            (content, _) => content,
        };
        let content = match content {
            Ok(content) => content,
            Err(why) => {
                let _ = socket.send(&why.packet(), job.peer).await;
                job.tell(TftpEventKind::Refused(why));
                return;
            }
        };
        // Repeats of before are of the request that is answered now.
        let _ = job.repeats.try_recv();
        let size_bytes = content.len() as u64;
        let now = std::time::Instant::now();
        let block_size_max = job.ways.block_size_max(job.peer, job.asked.block_size, now);
        let terms = Terms::settle(&job.asked, job.mode, size_bytes, block_size_max);
        job.tell(TftpEventKind::Started { size_bytes });
        let start = Instant::now();
        let mut ongoing = Ongoing {
            transfer: Transfer::start(&terms, size_bytes, Moment::default()),
            end: None,
            peer: job.peer,
            path: job.path.clone(),
            events: job.events.clone(),
        };
        let end = send(&mut job, &mut socket, &content, &terms, &mut ongoing.transfer, start).await;
        let ms = start.elapsed().as_millis() as u64;
        let sent = ongoing.transfer.sent();
        ongoing.end = Some(match end {
            End::Restart => continue,
            End::Outcome(Outcome::Confirmed | Outcome::Unconfirmed) => {
                TftpEventKind::Done { size_bytes, ms, sent }
            }
            End::Outcome(Outcome::Aborted) => TftpEventKind::Ended { sent },
            End::Outcome(Outcome::GaveUp) => {
                TftpEventKind::GaveUp { acked_bytes: ongoing.transfer.acked_bytes(), sent }
            }
        });
        return;
    }
}

/// A transfer. When it is dropped it is told what was sent, whatever has ended it: perhaps its task was ended.
struct Ongoing {
    transfer: Transfer,
    end: Option<TftpEventKind>,
    peer: SocketAddrV4,
    path: String,
    events: mpsc::Sender<TftpEvent>,
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        let kind = self.end.unwrap_or(TftpEventKind::Ended { sent: self.transfer.sent() });
        tell(&self.events, TftpEvent { peer: self.peer, path: mem::take(&mut self.path), kind });
    }
}

async fn send(
    job: &mut Job,
    socket: &mut TransferSocket,
    content: &[u8],
    terms: &Terms,
    transfer: &mut Transfer,
    start: Instant,
) -> End {
    let now = || Moment::from_millis(start.elapsed().as_millis() as u64);
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut buffer = [0; PACKET_MAX];
    let (mut told, mut told_bytes) = (start, 0);
    let mut arrival = Arrival::of(terms, content.len(), start);
    let mut sent_up_to = 0;
    let mut may_be_divided = false;
    // It is set anew when it has run out, and not for each packet.
    let mut timer = std::pin::pin!(tokio::time::sleep_until(start));
    loop {
        if let Some(seen) = arrival.look(transfer, job) {
            job.tell(seen);
        }
        let acked_bytes = transfer.acked_bytes();
        if acked_bytes > told_bytes && told.elapsed() > GOES_ON_EVERY {
            (told, told_bytes) = (Instant::now(), acked_bytes);
            let size_bytes = content.len() as u64;
            job.tell(TftpEventKind::GoesOn { acked_bytes, size_bytes });
        }
        let next = transfer.next(now());
        if let Next::Data { block, offset, len } = next {
            let is_again = offset < sent_up_to;
            sent_up_to = sent_up_to.max(offset + 1);
            if is_again && !may_be_divided {
                // Perhaps it was too large for a router whose word about that got lost.
                allow_fragments(&*socket);
                may_be_divided = true;
            }
            let bytes = content.get(offset as usize..).and_then(|rest| rest.get(..len.into()));
            let bytes = bytes.expect("a transfer names only bytes of its file");
            blocks.push((tftp::data_header(block), bytes));
            if blocks.len() < BLOCKS_MAX {
                continue;
            }
        }
        if !blocks.is_empty() {
            note_unsent(job, socket.send_blocks(&blocks, job.peer).await);
            blocks.clear();
        }
        match next {
            Next::Data { .. } => {}
            Next::OptionAck => {
                let packet = terms.option_ack.as_deref().unwrap_or_default();
                note_unsent(job, socket.send(packet, job.peer).await);
            }
            Next::WaitUntil(moment) => {
                let wake = start + Duration::from_millis(moment.as_millis());
                if timer.is_elapsed() || wake < timer.deadline() {
                    timer.as_mut().reset(wake);
                }
                tokio::select! {
                    biased;
                    received = socket.receive(&mut buffer) => {
                        if let Ok(received) = received {
                            on_datagram(job, socket, transfer, received, &buffer, now());
                        }
                    }
                    Some(()) = job.repeats.recv() => {
                        // Firmware asks for the size, sends an ERROR, and asks again from the same
                        // port: that ERROR came before the request, so it counts before it.
                        while let Some(received) = socket.waiting(&mut buffer) {
                            on_datagram(job, socket, transfer, received, &buffer, now());
                        }
                        if !transfer.on_request_again(now()) {
                            return End::Restart;
                        }
                    }
                    // Perhaps of something that has been answered since: then it is set anew.
                    () = &mut timer => if wake <= Instant::now() {
                        // On a busy server the timer may be heard of before the socket: an ACK that lies there is no silence.
                        for _ in 0..WAITING_MAX {
                            let Some(received) = socket.waiting(&mut buffer) else { break };
                            on_datagram(job, socket, transfer, received, &buffer, now());
                        }
                    }
                }
            }
            Next::Done(outcome) => return End::Outcome(outcome),
        }
    }
}

/// What can't be sent counts as lost: the transfer repeats it or gives up.
fn note_unsent(job: &Job, sent: io::Result<()>) {
    if let Err(error) = sent {
        tracing::debug!(peer = %job.peer, %error, "TFTP packet not sent");
    }
}

/// Whether large blocks of a transfer arrive.
struct Arrival {
    /// Length of the first one; `None` when it is known, or when the block is so short that it arrives everywhere.
    first: Option<u16>,
    is_lost: bool,
    began: std::time::Instant,
}

impl Arrival {
    fn of(terms: &Terms, size: usize, began: Instant) -> Self {
        let first = u16::try_from(size).unwrap_or(u16::MAX).min(terms.block_size);
        let first = Some(first).filter(|first| *first > tftp::BLOCK_SIZE_DEFAULT);
        Self { first, is_lost: false, began: began.into_std() }
    }

    /// What there is to tell about it.
    fn look(&mut self, transfer: &Transfer, job: &Job) -> Option<TftpEventKind> {
        let block_size = self.first?;
        let (host, now) = (*job.peer.ip(), std::time::Instant::now);
        if transfer.acked_bytes() > 0 {
            self.first = None;
            let was_lost = job.ways.carried(host, block_size, now());
            return was_lost.then_some(TftpEventKind::BlocksArrive);
        }
        if self.is_lost || !transfer.lacks_first() {
            return None;
        }
        self.is_lost = true;
        let is_news = job.ways.lost(host, block_size, self.began, now());
        is_news.then_some(TftpEventKind::BlocksLost { block_size })
    }
}

fn on_datagram(
    job: &mut Job,
    socket: &TransferSocket,
    transfer: &mut Transfer,
    (len, sender): (usize, SocketAddr),
    buffer: &[u8],
    now: Moment,
) {
    let packet = Packet::parse(&buffer[..len]);
    if sender != SocketAddr::V4(job.peer) {
        // RFC 1350 section 4: tell the stranger, don't disturb the transfer.
        if !matches!(packet, Ok(Packet::Error { .. })) && job.n_stranger_answers > 0 {
            job.n_stranger_answers -= 1;
            let _ = socket.try_send(&NotServed::UnknownTransfer.packet(), sender);
        }
        return;
    }
    match packet {
        Ok(Packet::Ack { block }) => {
            transfer.on_ack(block, now);
            if transfer.has_answered() {
                job.place.prove(std::time::Instant::now());
            }
        }
        Ok(Packet::Error { code, message }) => {
            let message = message.get(..64).unwrap_or(message).escape_ascii();
            tracing::debug!(peer = %job.peer, path = job.path, code, %message, "TFTP client ended");
            transfer.on_error();
        }
        _ => {}
    }
}

impl Job {
    fn tell(&self, kind: TftpEventKind) {
        tell(&self.events, TftpEvent { peer: self.peer, path: self.path.clone(), kind });
    }
}

fn tell(events: &mpsc::Sender<TftpEvent>, event: TftpEvent) {
    if events.try_send(event).is_err() {
        tracing::debug!("a TFTP event was dropped: nobody took the earlier ones");
    }
}
