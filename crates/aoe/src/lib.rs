//! ATA over Ethernet (AoEr11), both ends: frames, the ATA subset that initiators use, IDENTIFY.
//!
//! Bytes go in, values come out. Nothing here performs I/O or panics on foreign bytes.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod access;
mod ata;
mod config;
mod frame;
mod identify;

pub use access::{
    Directive, Directives, LISTED_MACS_MAX, MaskError, MaskReply, MaskRequest, ReserveRequest,
    emit_reservation,
};
pub use ata::{AtaCommand, AtaReply, AtaRequest, HEALTH_BAD, HEALTH_GOOD, Status, retag};
pub use config::{ConfigCommand, ConfigQuery, ConfigReply, Verdict};
pub use frame::{
    ErrorCode, FRAME_MIN, Header, Malformed, Request, RequestBody, emit_error, emit_request,
};
pub use identify::{Identity, identify, smart_data};

/// Ethernet type of AoE.
pub const ETHERTYPE: u16 = 0x88a2;

/// Bytes of a sector.
pub const SECTOR_BYTES: usize = 512;

/// Bytes before the data of an ATA frame: Ethernet, AoE and ATA headers.
pub const ATA_HEADER_BYTES: usize = 36;

/// How many sectors one frame carries on a network of `mtu` bytes: 2 at 1500, and 8 or 16 beyond,
/// so that a full frame covers whole 4 KiB blocks. 17, which would fit at 9000, misaligns every
/// second block and makes the server read before it writes.
pub const fn sectors_per_frame(mtu: u32) -> u8 {
    // The MTU does not count the Ethernet header of 14 bytes.
    let payload = mtu.saturating_sub(ATA_HEADER_BYTES as u32 - 14);
    let sectors = payload / SECTOR_BYTES as u32;
    match sectors {
        0 => 1,
        1..8 => sectors as u8,
        8..16 => 8,
        _ => 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_carry_whole_blocks() {
        for (mtu, sectors) in [(0, 1), (1500, 2), (4132, 8), (9000, 16), (65_535, 16)] {
            assert_eq!(sectors_per_frame(mtu), sectors, "MTU {mtu}");
        }
    }
}
