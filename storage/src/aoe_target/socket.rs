//! A raw Ethernet socket on one interface.

use super::raw::{self, Batch, Frame, Ring};
use super::replies::Reply;
use crate::admission::AoePlace;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Socket, Type};
use std::io;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use wire::Mac;

/// Thirty machines may each have 64 frames in flight; the kernel's default holds 100 in all.
const RECEIVE_BUFFER_BYTES: usize = 16 << 20;

/// How long a network card may keep us from sending. Then the frame is dropped.
const SEND_TIME: Duration = Duration::from_millis(200);

/// AoE can't be served on an interface.
#[derive(Debug, thiserror::Error)]
#[error("can't serve AoE on {interface}: can't {action}")]
pub struct SocketError {
    interface: String,
    action: &'static str,
    source: io::Error,
}

impl SocketError {
    pub(super) fn new(interface: &str, action: &'static str, source: io::Error) -> Self {
        Self { interface: interface.into(), action, source }
    }
}

pub(super) struct PacketSocket {
    socket: Socket,
    interface: String,
    link: RwLock<Link>,
    /// Addresses that this socket has beside the interface's own.
    joined: RwLock<Vec<Mac>>,
    /// How long [`PacketSocket::receive`] waits.
    patience: Timespec,
}

/// Where received frames are.
pub(super) enum Inbox {
    Ring(Ring),
    /// What a kernel without the ring, or without memory for it, gets.
    Batch(Batch),
}

/// Whether there is such an interface now.
pub(crate) fn is_there(interface: &str) -> bool {
    let asking = Socket::new(Domain::IPV4, Type::DGRAM, None);
    asking.and_then(|socket| raw::interface_index(&socket, interface)).is_ok()
}

impl Inbox {
    fn best(socket: &Socket, interface: &str) -> Self {
        match Ring::new(socket) {
            Ok(ring) => Self::Ring(ring),
            Err(error) => {
                tracing::info!(interface, %error, "AoE works without a ring");
                Self::plain(socket)
            }
        }
    }

    fn plain(socket: &Socket) -> Self {
        force_receive_buffer(socket);
        Self::Batch(Batch::new())
    }
}

/// What an administrator may change at any time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    index: i32,
    pub(super) mac: Mac,
    pub(super) mtu: u32,
    pub(super) is_running: bool,
}

/// Whom a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addressee {
    All,
    /// The disks that are served from this address.
    One(Mac),
    /// Hosts on a VLAN of which this interface is no part.
    Vlan,
}

impl Addressee {
    pub(super) fn includes(self, own: Mac) -> bool {
        self == Self::All || self == Self::One(own)
    }
}

impl PacketSocket {
    /// Opens the interface; [`receive`](Self::receive) waits at most `patience`.
    pub(super) fn open(interface: &str, patience: Duration) -> Result<(Self, Inbox), SocketError> {
        Self::open_with(interface, patience, Inbox::best)
    }

    fn open_with(
        interface: &str,
        patience: Duration,
        inbox: impl FnOnce(&Socket, &str) -> Inbox,
    ) -> Result<(Self, Inbox), SocketError> {
        let failed = |action| move |source| SocketError::new(interface, action, source);
        // Protocol 0 hears nothing until it is bound, so no other interface's frames are taken.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)
            .map_err(failed("open a packet socket (root or CAP_NET_RAW is needed)"))?;
        let link = read_link(&socket, interface).map_err(failed("use the interface"))?;
        let configure = || {
            // Without this the socket hears the frames that it sends itself.
            raw::set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
            raw::set_option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
            socket.set_read_timeout(Some(patience))?;
            socket.set_write_timeout(Some(SEND_TIME))
        };
        configure().map_err(failed("configure the socket"))?;
        // A socket that hears something already would lose that by getting a ring.
        let inbox = inbox(&socket, interface);
        socket.bind(&raw::link_address(link.index)).map_err(failed("bind to it"))?;
        let socket = Self {
            socket,
            interface: interface.into(),
            link: RwLock::new(link),
            joined: RwLock::default(),
            patience: Timespec::try_from(patience).unwrap_or_default(),
        };
        Ok((socket, inbox))
    }

    pub(super) fn interface(&self) -> &str {
        &self.interface
    }

    /// Address, MTU and carrier, as they were when they were read last.
    pub(super) fn link(&self) -> Link {
        *self.link.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address from which a disk is served: its own, or else the interface's.
    pub(super) fn mac_of(&self, place: &AoePlace) -> Mac {
        place.mac.unwrap_or_else(|| self.link().mac)
    }

    /// Reads address, MTU and carrier again, and binds again if the interface was removed and is back.
    /// Whether something has changed.
    pub(super) fn refresh(&self) -> io::Result<bool> {
        let new = read_link(&self.socket, &self.interface)?;
        let former = self.link();
        if new == former {
            return Ok(false);
        }
        if new.index != former.index {
            self.socket.bind(&raw::link_address(new.index))?;
            for &mac in self.joined.read().unwrap_or_else(PoisonError::into_inner).iter() {
                raw::join(&self.socket, new.index, mac)?;
            }
        }
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(true)
    }

    /// Whom a frame to this address is for; `None` if it is for another host.
    pub(super) fn addressee(&self, destination: Mac, frame: &Frame<'_>) -> Option<Addressee> {
        let own = self.link().mac;
        let is_for_others = frame.is_for_others;
        match destination {
            Mac::BROADCAST if frame.has_vlan_tag => Some(Addressee::Vlan),
            to if frame.has_vlan_tag => {
                (to == own || self.has_joined(to)).then_some(Addressee::Vlan)
            }
            // What the kernel does not take for this host though the address is has a VLAN's tag.
            Mac::BROADCAST if !is_for_others => Some(Addressee::All),
            to if to == own && !is_for_others => Some(Addressee::One(to)),
            to if to == own || to == Mac::BROADCAST => Some(Addressee::Vlan),
            // The kernel takes all frames to it for others', so without a ring a VLAN's can't be told.
            to => self.has_joined(to).then_some(Addressee::One(to)),
        }
    }

    /// Lets frames to this address in, too.
    pub(super) fn join(&self, mac: Mac) {
        if self.has_joined(mac) {
            return;
        }
        self.joined.write().unwrap_or_else(PoisonError::into_inner).push(mac);
        if let Err(error) = raw::join(&self.socket, self.link().index, mac) {
            tracing::warn!(interface = self.interface, %mac, %error, "address can't be joined");
        }
    }

    fn has_joined(&self, mac: Mac) -> bool {
        self.joined.read().unwrap_or_else(PoisonError::into_inner).contains(&mac)
    }

    /// Waits for frames and takes some that are there, perhaps none; whether more may be there.
    pub(super) fn receive(
        &self,
        inbox: &mut Inbox,
        mut take: impl FnMut(&Frame<'_>),
    ) -> io::Result<bool> {
        match inbox {
            Inbox::Ring(ring) => {
                let mut count = take_from(ring, &mut take);
                if count == 0 && self.wait()? {
                    count = take_from(ring, &mut take);
                }
                Ok(count == raw::BATCH_MAX)
            }
            Inbox::Batch(batch) => match raw::receive(&self.socket, batch) {
                Ok(()) => {
                    batch.frames().for_each(|frame| take(&frame));
                    Ok(batch.is_full())
                }
                Err(error) if is_no_error(&error) => Ok(false),
                Err(error) => Err(error),
            },
        }
    }

    /// Whether a frame has come.
    fn wait(&self) -> io::Result<bool> {
        let mut descriptors = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut descriptors, Some(&self.patience)) {
            Ok(count) => {
                if descriptors[0].revents().contains(PollFlags::ERR)
                    && let Some(error) = self.socket.take_error()?
                {
                    return Err(error);
                }
                Ok(count > 0)
            }
            Err(error) if is_no_error(&error.into()) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends frames. One that can't be sent is dropped: the initiator asks again.
    pub(super) fn send(&self, mut frames: &[Reply]) {
        while !frames.is_empty() {
            let done = raw::send(&self.socket, frames).unwrap_or_else(|error| {
                tracing::debug!(interface = self.interface, %error, "AoE frame not sent");
                1
            });
            frames = &frames[done.clamp(1, frames.len())..];
        }
    }
}

/// Takes at most a batch; how many.
fn take_from(ring: &mut Ring, take: &mut impl FnMut(&Frame<'_>)) -> usize {
    let now = SystemTime::now();
    (0..raw::BATCH_MAX).take_while(|_| ring.take(now, &mut *take)).count()
}

/// Nothing came, or a signal.
fn is_no_error(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn read_link(socket: &Socket, interface: &str) -> io::Result<Link> {
    let index = raw::interface_index(socket, interface)?;
    let mac = raw::interface_mac(socket, interface)?.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "it is not an Ethernet interface")
    })?;
    let mtu = raw::interface_mtu(socket, interface)?;
    Ok(Link { index, mac, mtu, is_running: raw::interface_is_running(socket, interface)? })
}

fn force_receive_buffer(socket: &Socket) {
    let bytes = RECEIVE_BUFFER_BYTES as libc::c_int;
    if raw::set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
        // Without CAP_NET_ADMIN the system's limit holds: fewer machines at once.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use std::process::Command;
    use std::time::Instant;

    fn ip(words: &str) {
        let status = Command::new("ip").args(words.split(' ')).status().unwrap();
        assert!(status.success(), "ip {words}");
    }

    fn frame(length: usize) -> Vec<u8> {
        let mut frame = vec![length as u8; length];
        frame[..6].copy_from_slice(&Mac::BROADCAST.0);
        frame[12..14].copy_from_slice(&aoe::ETHERTYPE.to_be_bytes());
        frame
    }

    #[test]
    fn a_ring_and_a_plain_socket_receive_the_same() {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        ip("link add one mtu 9000 type veth peer name two mtu 9000");
        ip("link set one up");
        ip("link set two up");
        let patience = Duration::from_millis(50);
        let (sender, _) = PacketSocket::open("one", patience).unwrap();
        let ring = PacketSocket::open_with("two", patience, |socket, _| {
            Inbox::Ring(Ring::new(socket).unwrap())
        });
        let plain = PacketSocket::open_with("two", patience, |socket, _| Inbox::plain(socket));
        let mut receivers = [ring.unwrap(), plain.unwrap()];
        // More than a batch, and one that is cut off.
        let lengths: Vec<usize> = (60..160).chain([1514, 8228, 9014]).collect();
        // Around the whole ring, and some more.
        for round in 0..45 {
            let frames: Vec<Reply> = lengths.iter().map(|&it| frame(it).into()).collect();
            sender.send(&frames);
            for (socket, inbox) in &mut receivers {
                let mut received = Vec::new();
                let deadline = Instant::now() + Duration::from_secs(5);
                while received.len() < lengths.len() && Instant::now() < deadline {
                    let take = |frame: &Frame<'_>| {
                        assert!(frame.age < Duration::from_secs(5) && !frame.is_for_others);
                        received.push(frame.bytes.to_vec());
                    };
                    socket.receive(inbox, take).unwrap();
                }
                let wanted =
                    lengths.iter().map(|&it| frame(it)[..it.min(raw::FRAME_BYTES)].to_vec());
                assert!(wanted.eq(received), "round {round}");
            }
        }
    }
}
