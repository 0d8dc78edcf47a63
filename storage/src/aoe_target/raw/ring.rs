//! Received frames in memory that the kernel shares with us: no system call and no copy for each
//! (`TPACKET_V2`; version 3 holds frames back for a millisecond).

use super::{FRAME_BYTES, Frame, set_option_to};
use socket2::Socket;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

/// Room that the kernel needs before a frame: its header, and Ethernet's.
const HEAD_BYTES: usize = 80;

/// Room for a frame.
const SLOT_BYTES: usize = (HEAD_BYTES + FRAME_BYTES).next_multiple_of(libc::TPACKET_ALIGNMENT);

/// Slots don't cross blocks. Each block is a piece of unbroken memory, if there is one.
const BLOCK_BYTES: usize = 256 << 10;
const BLOCK_SLOTS: usize = BLOCK_BYTES / SLOT_BYTES;

/// 3968 slots in 32 MiB: sixty machines may each have 64 frames in flight.
const BLOCKS: usize = 128;
const SLOTS: usize = BLOCKS * BLOCK_SLOTS;

/// Where in a slot the sender's address is, and the kind of frame.
const ADDRESS: usize = size_of::<libc::tpacket2_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);

pub(in crate::aoe_target) struct Ring {
    memory: NonNull<u8>,
    next: usize,
}

// SAFETY: the memory belongs to this value alone; the kernel does not care which thread uses it.
unsafe impl Send for Ring {}

impl Ring {
    /// Has the socket receive into a ring, for as long as the ring is there.
    pub(in crate::aoe_target) fn new(socket: &Socket) -> io::Result<Self> {
        let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
        set_option_to(socket, libc::SOL_PACKET, libc::PACKET_VERSION, &version)?;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK_BYTES as libc::c_uint,
            tp_block_nr: BLOCKS as libc::c_uint,
            tp_frame_size: SLOT_BYTES as libc::c_uint,
            tp_frame_nr: SLOTS as libc::c_uint,
        };
        set_option_to(socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        // SAFETY: a new mapping anywhere, of exactly the ring's length.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                BLOCKS * BLOCK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            let none = libc::tpacket_req {
                tp_block_size: 0,
                tp_block_nr: 0,
                tp_frame_size: 0,
                tp_frame_nr: 0,
            };
            set_option_to(socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &none)?;
            return Err(error);
        }
        let memory = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { memory, next: 0 })
    }

    /// Gives the next frame to `take` if there is one, and its place back to the kernel; whether
    /// there was one.
    pub(in crate::aoe_target) fn take(
        &mut self,
        now: SystemTime,
        take: impl FnOnce(&Frame<'_>),
    ) -> bool {
        let offset = self.next / BLOCK_SLOTS * BLOCK_BYTES + self.next % BLOCK_SLOTS * SLOT_BYTES;
        // SAFETY: `next` is below SLOTS, so the whole slot lies inside the mapping.
        let slot = unsafe { self.memory.add(offset) };
        // SAFETY: a slot begins with the status, aligned, which the kernel writes by atomic stores.
        let status = unsafe { AtomicU32::from_ptr(slot.cast().as_ptr()) };
        let flags = status.load(Ordering::Acquire);
        if flags & libc::TP_STATUS_USER == 0 {
            return false;
        }
        // SAFETY: the slot is ours by its status, and begins with this header.
        let header = unsafe { slot.cast::<libc::tpacket2_hdr>().read() };
        // SAFETY: the kernel has put an address behind the header.
        let address = unsafe { slot.add(ADDRESS).cast::<libc::sockaddr_ll>().read() };
        let start = usize::from(header.tp_mac).min(SLOT_BYTES);
        let length = (header.tp_snaplen as usize).min(SLOT_BYTES - start).min(FRAME_BYTES);
        // SAFETY: start and length are inside the slot, which the kernel leaves alone until its status
        // is changed below.
        let bytes = unsafe { std::slice::from_raw_parts(slot.add(start).as_ptr(), length) };
        let since_1970 = Duration::new(u64::from(header.tp_sec), header.tp_nsec);
        let stamp = SystemTime::UNIX_EPOCH + since_1970;
        take(&Frame {
            bytes,
            age: now.duration_since(stamp).unwrap_or_default(),
            is_for_others: address.sll_pkttype == libc::PACKET_OTHERHOST,
            has_vlan_tag: flags & libc::TP_STATUS_VLAN_VALID != 0,
        });
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % SLOTS;
        true
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: this mapping was made in `new`, and nothing else points into it.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), BLOCKS * BLOCK_BYTES) };
    }
}
