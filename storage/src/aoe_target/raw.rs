//! The system calls of a packet socket that have no safe wrapper.

mod ring;

pub(super) use ring::Ring;

use super::replies::Reply;
use socket2::{SockAddr, Socket};
use std::io;
use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime};
use wire::Mac;

/// Frames that one call receives or sends: what one initiator may have in flight.
pub(super) const BATCH_MAX: usize = 64;

/// Longest frame that is looked at: a write of 16 sectors. Of longer ones the end is cut off, which is
/// what Linux's probe of a network with jumbo frames wants.
pub(super) const FRAME_BYTES: usize = aoe::ATA_HEADER_BYTES + 16 * aoe::SECTOR_BYTES;

/// Room for one control message with a time stamp, aligned as control messages must be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Memory for received frames.
pub(super) struct Batch {
    frames: Vec<[u8; FRAME_BYTES]>,
    received: Vec<Received>,
}

#[derive(Clone, Copy)]
struct Received {
    length: usize,
    age: Duration,
    packet_type: u8,
}

/// A received frame.
pub(super) struct Frame<'a> {
    pub(super) bytes: &'a [u8],
    /// Time since the network card's driver handed it to the kernel.
    pub(super) age: Duration,
    /// The kernel says that it is not for this host: for another MAC address, or for a VLAN, whose
    /// tag it has taken off.
    pub(super) is_for_others: bool,
    /// The kernel has taken a VLAN's tag off. Known only of frames in a ring.
    pub(super) has_vlan_tag: bool,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self { frames: vec![[0; FRAME_BYTES]; BATCH_MAX], received: Vec::with_capacity(BATCH_MAX) }
    }

    /// Whether more may have come than it holds.
    pub(super) fn is_full(&self) -> bool {
        self.received.len() == BATCH_MAX
    }

    /// All frames, those for others too: on a bridge's port and while somebody captures packets these
    /// come in.
    pub(super) fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.frames.iter().zip(&self.received).map(|(frame, received)| Frame {
            bytes: &frame[..received.length],
            age: received.age,
            is_for_others: received.packet_type == libc::PACKET_OTHERHOST,
            has_vlan_tag: false,
        })
    }
}

/// Waits for a frame and takes all that are there.
pub(super) fn receive(socket: &Socket, batch: &mut Batch) -> io::Result<()> {
    batch.received.clear();
    let mut control = [Control([0; 64]); BATCH_MAX];
    // SAFETY: all zeroes are a valid value of each of these plain C structures.
    let (mut addresses, mut parts, mut messages): (
        [libc::sockaddr_ll; BATCH_MAX],
        [libc::iovec; BATCH_MAX],
        [libc::mmsghdr; BATCH_MAX],
    ) = unsafe { (zeroed(), zeroed(), zeroed()) };
    for index in 0..BATCH_MAX {
        parts[index] =
            libc::iovec { iov_base: batch.frames[index].as_mut_ptr().cast(), iov_len: FRAME_BYTES };
        let header = &mut messages[index].msg_hdr;
        header.msg_name = (&raw mut addresses[index]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        header.msg_iov = &raw mut parts[index];
        header.msg_iovlen = 1;
        header.msg_control = control[index].0.as_mut_ptr().cast();
        header.msg_controllen = size_of::<Control>() as _;
    }
    // SAFETY: every pointer above is to memory of the stated length that outlives the call.
    let count = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            BATCH_MAX as libc::c_uint,
            libc::MSG_WAITFORONE,
            std::ptr::null_mut(),
        )
    };
    if count < 0 {
        return Err(io::Error::last_os_error());
    }
    let now = SystemTime::now();
    for (message, address) in messages.iter().zip(&addresses).take(count as usize) {
        batch.received.push(Received {
            length: (message.msg_len as usize).min(FRAME_BYTES),
            age: age(&message.msg_hdr, now),
            packet_type: address.sll_pkttype,
        });
    }
    Ok(())
}

/// Time since the kernel's time stamp; zero without one, or if the clock was set back meanwhile.
fn age(header: &libc::msghdr, now: SystemTime) -> Duration {
    // SAFETY: the kernel has filled the control buffer of this header and set its length.
    let message = unsafe { libc::CMSG_FIRSTHDR(header) };
    if message.is_null() {
        return Duration::ZERO;
    }
    // SAFETY: CMSG_FIRSTHDR gives null or a whole control message header inside the buffer.
    let (level, kind) = unsafe { ((*message).cmsg_level, (*message).cmsg_type) };
    if level != libc::SOL_SOCKET || kind != libc::SCM_TIMESTAMPNS {
        return Duration::ZERO;
    }
    // SAFETY: a message of this kind carries a timespec, perhaps unaligned.
    let stamp: libc::timespec =
        unsafe { libc::CMSG_DATA(message).cast::<libc::timespec>().read_unaligned() };
    let since_1970 = Duration::new(stamp.tv_sec as u64, stamp.tv_nsec as u32);
    let stamp = SystemTime::UNIX_EPOCH + since_1970;
    now.duration_since(stamp).unwrap_or_default()
}

/// Sends frames, at most [`BATCH_MAX`], and says how many went out before an error.
pub(super) fn send(socket: &Socket, frames: &[Reply]) -> io::Result<usize> {
    // SAFETY: all zeroes are a valid value of each of these plain C structures.
    let (mut parts, mut messages): ([[libc::iovec; 2]; BATCH_MAX], [libc::mmsghdr; BATCH_MAX]) =
        unsafe { (zeroed(), zeroed()) };
    let count = frames.len().min(BATCH_MAX);
    for (index, frame) in frames.iter().take(count).enumerate() {
        parts[index] = frame.parts().map(|part| libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        });
        messages[index].msg_hdr.msg_iov = parts[index].as_mut_ptr();
        messages[index].msg_hdr.msg_iovlen = 2 - usize::from(parts[index][1].iov_len == 0);
    }
    // SAFETY: the first `count` messages point to frames that outlive the call; sending only reads.
    let sent = unsafe {
        libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count as libc::c_uint, 0)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// The address to which a packet socket binds, for AoE on the interface with that index.
pub(super) fn link_address(index: i32) -> SockAddr {
    let link = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: aoe::ETHERTYPE.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let mut storage = socket2::SockAddrStorage::zeroed();
    // SAFETY: the storage is large enough and aligned for every kind of socket address, and all
    // zeroes are a valid sockaddr_ll; the view ends with this statement.
    *unsafe { storage.view_as::<libc::sockaddr_ll>() } = link;
    // SAFETY: the storage holds a sockaddr_ll of exactly this length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

pub(super) fn set_option(
    socket: &Socket,
    level: i32,
    name: i32,
    value: libc::c_int,
) -> io::Result<()> {
    set_option_to(socket, level, name, &value)
}

/// Sets an option to a plain C value.
fn set_option_to<T: Copy>(socket: &Socket, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the pointer is to a value that lives until the call returns, and the length is its own.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the interface take frames to this address, for as long as the socket is open.
pub(super) fn join(socket: &Socket, index: i32, mac: Mac) -> io::Result<()> {
    let mut request = libc::packet_mreq {
        mr_ifindex: index,
        mr_type: libc::PACKET_MR_UNICAST as libc::c_ushort,
        mr_alen: mac.0.len() as libc::c_ushort,
        mr_address: [0; 8],
    };
    request.mr_address[..mac.0.len()].copy_from_slice(&mac.0);
    set_option_to(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
}

/// Index of an interface in this network namespace. (/sys shows the namespace in which it was
/// mounted, so it is not asked.)
pub(super) fn interface_index(socket: &Socket, interface: &str) -> io::Result<i32> {
    let answer = ask(socket, interface, libc::SIOCGIFINDEX)?;
    // SAFETY: the kernel has filled this member in answer to this request.
    Ok(unsafe { answer.ifr_ifru.ifru_ifindex })
}

/// Largest payload of a frame on an interface.
pub(super) fn interface_mtu(socket: &Socket, interface: &str) -> io::Result<u32> {
    let answer = ask(socket, interface, libc::SIOCGIFMTU)?;
    // SAFETY: the kernel has filled this member in answer to this request.
    Ok(u32::try_from(unsafe { answer.ifr_ifru.ifru_mtu }).unwrap_or(0))
}

/// Address of an Ethernet interface; `None` if it is of another kind.
pub(super) fn interface_mac(socket: &Socket, interface: &str) -> io::Result<Option<Mac>> {
    let answer = ask(socket, interface, libc::SIOCGIFHWADDR)?;
    // SAFETY: the kernel has filled this member in answer to this request.
    let address = unsafe { answer.ifr_ifru.ifru_hwaddr };
    let mac = std::array::from_fn(|index| address.sa_data[index] as u8);
    Ok((address.sa_family == libc::ARPHRD_ETHER).then_some(Mac(mac)))
}

/// Whether an interface is up and has a carrier.
pub(super) fn interface_is_running(socket: &Socket, interface: &str) -> io::Result<bool> {
    let answer = ask(socket, interface, libc::SIOCGIFFLAGS)?;
    // SAFETY: the kernel has filled this member in answer to this request.
    let flags = libc::c_int::from(unsafe { answer.ifr_ifru.ifru_flags });
    Ok(flags & libc::IFF_RUNNING != 0)
}

fn ask(socket: &Socket, interface: &str, request: libc::Ioctl) -> io::Result<libc::ifreq> {
    // SAFETY: all zeroes are a valid ifreq.
    let mut query: libc::ifreq = unsafe { zeroed() };
    // The last byte stays the NUL that ends the name.
    let room = query.ifr_name.len() - 1;
    if interface.len() > room {
        return Err(io::ErrorKind::NotFound.into());
    }
    for (to, from) in query.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: these requests read the name and write at most one ifreq.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut query) };
    if result == 0 { Ok(query) } else { Err(io::Error::last_os_error()) }
}
