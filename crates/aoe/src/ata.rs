//! ATA commands in frames, and their replies.

use crate::SECTOR_BYTES;
use crate::frame::{COMMAND_ATA, Header, pad};
use alloc::vec::Vec;
use wire::{Mac, Reader, Truncated};

const FLAG_EXTENDED: u8 = 0x40;
const FLAG_WRITE: u8 = 0x01;

/// What an initiator wants of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtaCommand {
    /// Read sectors.
    Read {
        /// First sector.
        lba: u64,
    },
    /// Write sectors.
    Write {
        /// First sector.
        lba: u64,
        /// Durable before the reply, whatever the disk's mode.
        fua: bool,
    },
    /// Check that sectors can be read.
    Verify {
        /// First sector.
        lba: u64,
    },
    /// Make acknowledged writes durable.
    Flush,
    /// Tell what the disk is.
    Identify,
    /// Tell the power mode.
    CheckPowerMode,
    /// Sleep and wake, which a disk made of files ignores.
    PowerNoOp,
    /// Anything else.
    Unknown(u8),
}

/// An ATA request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtaRequest<'a> {
    /// What to do.
    pub command: AtaCommand,
    /// Sectors concerned.
    pub sectors: u8,
    /// The data of a write, else whatever came with the frame (Linux probes with a full frame).
    pub data: &'a [u8],
}

impl<'a> AtaRequest<'a> {
    pub(crate) fn read(fields: &mut Reader<'a>) -> Result<Self, Truncated> {
        let flags = fields.u8("ATA flags")?;
        fields.u8("feature")?;
        let sectors = fields.u8("sector count")?;
        let command = fields.u8("ATA command")?;
        let low: [u8; 6] = fields.array("LBA")?;
        fields.u16("reserved")?;
        let [a, b, c, d, e, f] = low;
        let lba48 = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        // LBA28 has its top four bits in the fourth byte's lower half (ATA-6 §6.2).
        let lba28 = lba48 & 0x0fff_ffff;
        let lba = if flags & FLAG_EXTENDED != 0 { lba48 } else { lba28 };
        let command = match command {
            0x20 | 0x21 | 0xc8 => AtaCommand::Read { lba: lba28 },
            0x24 | 0x25 => AtaCommand::Read { lba },
            0x30 | 0x31 | 0xca => AtaCommand::Write { lba: lba28, fua: false },
            0x34 | 0x35 => AtaCommand::Write { lba, fua: false },
            0x3d | 0xce => AtaCommand::Write { lba, fua: true },
            0x40 => AtaCommand::Verify { lba: lba28 },
            0x42 => AtaCommand::Verify { lba },
            0xe7 | 0xea => AtaCommand::Flush,
            0xec => AtaCommand::Identify,
            0xe5 => AtaCommand::CheckPowerMode,
            0xe0..=0xe3 | 0xe6 => AtaCommand::PowerNoOp,
            other => AtaCommand::Unknown(other),
        };
        Ok(Self { command, sectors, data: fields.rest() })
    }

    pub(crate) fn emit(&self, frame: &mut Vec<u8>) {
        let (command, lba, write) = match self.command {
            AtaCommand::Read { lba } => (0x24, lba, 0),
            AtaCommand::Write { lba, fua: false } => (0x34, lba, FLAG_WRITE),
            AtaCommand::Write { lba, fua: true } => (0x3d, lba, FLAG_WRITE),
            AtaCommand::Verify { lba } => (0x42, lba, 0),
            AtaCommand::Flush => (0xea, 0, 0),
            AtaCommand::Identify => (0xec, 0, 0),
            AtaCommand::CheckPowerMode => (0xe5, 0, 0),
            AtaCommand::PowerNoOp => (0xe1, 0, 0),
            AtaCommand::Unknown(other) => (other, 0, 0),
        };
        frame.extend_from_slice(&[FLAG_EXTENDED | write, 0, self.sectors, command]);
        frame.extend_from_slice(&lba.to_le_bytes()[..6]);
        frame.extend_from_slice(&[0, 0]);
        frame.extend_from_slice(self.data);
    }

    /// The request's first byte on the disk and its length, if it lies on a disk of `size_bytes`,
    /// concerns at least one sector and at most `sectors_max`. A count of 0 is refused, not taken as
    /// 256 as ATA does: no AoE frame could carry that.
    pub fn range(&self, lba: u64, size_bytes: u64, sectors_max: u8) -> Option<(u64, usize)> {
        if self.sectors == 0 || self.sectors > sectors_max {
            return None;
        }
        let length = usize::from(self.sectors) * SECTOR_BYTES;
        let offset = lba.checked_mul(SECTOR_BYTES as u64)?;
        let end = offset.checked_add(length as u64)?;
        (end <= size_bytes).then_some((offset, length))
    }
}

/// How a command ended, as status and error register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Good,
    /// Sectors outside of the disk (IDNF).
    OutOfRange,
    /// Command or arguments not accepted (ABRT).
    Aborted,
    /// The data can't be read (UNC).
    Unreadable,
}

/// A reply to an ATA request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtaReply<'a> {
    /// How it ended.
    pub status: Status,
    /// Value of the sector count register: 0, or 0xff for the power mode "active".
    pub sectors: u8,
    /// Data of a read or of IDENTIFY.
    pub data: &'a [u8],
}

impl AtaReply<'_> {
    /// The frame, padded, from the target at `shelf.slot` on the interface `own`.
    pub fn emit(&self, request: &Header, own: Mac, shelf: u16, slot: u8) -> Vec<u8> {
        const READY: u8 = 0x40;
        const ERROR: u8 = 0x01;
        let (status, error) = match self.status {
            Status::Good => (READY, 0),
            Status::OutOfRange => (READY | ERROR, 0x10),
            Status::Aborted => (READY | ERROR, 0x04),
            Status::Unreadable => (READY | ERROR, 0x40),
        };
        let mut frame = request.begin_reply(own, shelf, slot, COMMAND_ATA, None);
        frame.reserve_exact(12 + self.data.len());
        frame.extend_from_slice(&[0, error, self.sectors, status]);
        frame.extend_from_slice(&[0; 8]);
        frame.extend_from_slice(self.data);
        pad(frame)
    }
}
