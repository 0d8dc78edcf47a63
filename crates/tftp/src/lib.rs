//! TFTP for a boot server, without I/O: packets, paths, options, and the sending side of a transfer.
//!
//! A shell parses a datagram by [`Packet::parse`], looks for the file at its path as [`normalize`] gives it, settles
//! the options by [`Terms::settle`], and then does what a [`Transfer`] says. RFC 1350, 2347, 2348, 2349 and 7440.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod netascii;
mod pace;
mod packet;
mod path;
mod refusal;
mod terms;
mod transfer;

pub use netascii::{NETASCII_MAX, netascii};
pub use packet::{
    Asked, Malformed, Mode, Packet, ReadRequest, ack, data_header, error, read_request,
};
pub use path::{PATH_MAX, is_beneath, normalize};
pub use refusal::NotServed;
pub use terms::{BLOCK_SIZE_DEFAULT, Terms, WINDOW_BLOCKS_MAX, WINDOW_BYTES_MAX};
pub use transfer::{GIVE_UP_AFTER, Next, Outcome, Sent, Transfer};

/// For fuzzing: parses `datagram` in every way that a server would. Must return for any bytes.
pub fn fuzz(datagram: &[u8]) {
    if let Ok(Packet::Read(request)) = Packet::parse(datagram) {
        let _ = normalize(request.path);
        let terms = Terms::settle(&request.asked, request.mode, 70_000, 1468);
        let mut transfer = Transfer::start(&terms, 70_000, wire::Moment::default());
        let _ = transfer.next(wire::Moment::default());
    }
}
