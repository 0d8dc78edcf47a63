//! Who serves disks over AoE on an interface.

use crate::packet::raw_socket;
use aoe::{ConfigCommand, ConfigQuery, ETHERTYPE, Header, Request, RequestBody, emit_request};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read as _};
use std::time::{Duration, Instant};
use wire::Mac;

/// Longest frame that Ethernet carries.
const FRAME_BYTES: usize = 1518;

/// Every shelf, and every slot.
const ALL: (u16, u8) = (u16::MAX, u8::MAX);

/// More disks than that are not told.
const DISKS_MAX: usize = 4096;

/// A disk that somebody serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Major address.
    pub shelf: u16,
    /// Minor address.
    pub slot: u8,
    /// Who serves it.
    pub server: Mac,
}

/// Asks everybody behind `interface`, whose hardware address is `own`, and hears answers for so long. Servers on this host
/// don't hear it. Needs root.
///
/// # Errors
/// The interface can't be used.
pub fn search(interface: &str, own: Mac, patience: Duration) -> io::Result<BTreeSet<Found>> {
    let mut socket = raw_socket(interface, ETHERTYPE)?;
    let header =
        Header { destination: Mac::BROADCAST, source: own, shelf: ALL.0, slot: ALL.1, tag: 0 };
    let query = ConfigQuery { command: ConfigCommand::Read, text: b"" };
    socket.send(&emit_request(&Request { header, body: RequestBody::Config(query) }))?;
    let end = Instant::now() + patience;
    let mut found = BTreeSet::new();
    let mut buffer = [0; FRAME_BYTES];
    while found.len() < DISKS_MAX {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut buffer) {
            Ok(length) => found.extend(answer(&buffer[..length], own)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// What an answer to our question tells (AoEr11, 2.2 and 3.2).
pub fn answer(frame: &[u8], own: Mac) -> Option<Found> {
    let is_ours = frame.get(..6)? == own.0;
    let is_config_answer = frame.get(14)? & 0x08 != 0 && *frame.get(19)? == 1;
    let server = Mac(frame.get(6..12)?.try_into().ok()?);
    let shelf = u16::from_be_bytes(frame.get(16..18)?.try_into().ok()?);
    let slot = *frame.get(18)?;
    (is_ours && is_config_answer && !server.is_multicast()).then_some(Found { shelf, slot, server })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_answers_to_us_are_taken() {
        let own = Mac([2, 0, 0, 0, 0, 1]);
        let mut frame = vec![0; 60];
        frame[..6].copy_from_slice(&own.0);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        frame[14] = 0x18;
        frame[16..19].copy_from_slice(&[0, 1, 7]);
        frame[19] = 1;
        let found = Found { shelf: 1, slot: 7, server: Mac([2, 0, 0, 0, 0, 9]) };
        assert_eq!(answer(&frame, own), Some(found));
        for end in 0..20 {
            assert_eq!(answer(&frame[..end], own), None);
        }
        assert_eq!(answer(&frame, Mac([2, 0, 0, 0, 0, 2])), None);
        frame[14] = 0x10;
        assert_eq!(answer(&frame, own), None, "a question");
    }
}
