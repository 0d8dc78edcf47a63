//! ATA commands in frames, and their replies.

use crate::SECTOR_BYTES;
use crate::frame::{COMMAND_ATA, Header, TAG, pad_in};
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
    /// Set a feature that changes nothing here: caches and transfer modes of old buses.
    SetFeature(u8),
    /// Tell by [`HEALTH_GOOD`] or [`HEALTH_BAD`] whether the disk is about to fail.
    SmartStatus,
    /// Tell how the disk is, in a sector.
    SmartData,
    /// Watch over the disk's health, which is always done.
    SmartEnable,
    /// A command that is not known, by its number.
    Unknown(u8),
}

impl AtaCommand {
    /// Whether it reads or writes sectors of the disk.
    pub fn is_transfer(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Write { .. })
    }
}

/// LBA registers of all SMART requests, and of the reply to [`AtaCommand::SmartStatus`] if the disk is well.
pub const HEALTH_GOOD: u64 = 0x00c2_4f00;

/// LBA registers of the reply to [`AtaCommand::SmartStatus`] if the disk is about to fail.
pub const HEALTH_BAD: u64 = 0x002c_f400;

// Commands (ATA8-ACS §7; those that are tried once only, ATA-4).
const READ_SECTORS: u8 = 0x20;
const READ_SECTORS_ONCE: u8 = 0x21;
const READ_SECTORS_EXT: u8 = 0x24;
const READ_DMA_EXT: u8 = 0x25;
const READ_DMA: u8 = 0xc8;
const WRITE_SECTORS: u8 = 0x30;
const WRITE_SECTORS_ONCE: u8 = 0x31;
const WRITE_SECTORS_EXT: u8 = 0x34;
const WRITE_DMA_EXT: u8 = 0x35;
const WRITE_DMA: u8 = 0xca;
const WRITE_DMA_FUA_EXT: u8 = 0x3d;
const WRITE_MULTIPLE_FUA_EXT: u8 = 0xce;
const READ_VERIFY: u8 = 0x40;
const READ_VERIFY_EXT: u8 = 0x42;
const FLUSH_CACHE: u8 = 0xe7;
const FLUSH_CACHE_EXT: u8 = 0xea;
const IDENTIFY_DEVICE: u8 = 0xec;
const STANDBY_IMMEDIATE: u8 = 0xe0;
const IDLE_IMMEDIATE: u8 = 0xe1;
const IDLE: u8 = 0xe3;
const CHECK_POWER_MODE: u8 = 0xe5;
const SLEEP: u8 = 0xe6;
const SET_FEATURES: u8 = 0xef;
const SMART: u8 = 0xb0;

/// Features that change nothing here: write cache on, transfer mode, read-ahead off, write cache off, read-ahead on.
const FEATURES_WITHOUT_MEANING: [u8; 5] = [0x02, 0x03, 0x55, 0x82, 0xaa];

const SMART_DATA: u8 = 0xd0;
const SMART_ENABLE: u8 = 0xd8;
const SMART_STATUS: u8 = 0xda;

/// What an initiator asks of a disk, in one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtaRequest<'a> {
    /// The command, with its arguments.
    pub command: AtaCommand,
    /// How many sectors the command is about.
    pub sectors: u8,
    /// The data of a write, else whatever came with the frame (Linux probes with a full frame).
    pub data: &'a [u8],
}

impl<'a> AtaRequest<'a> {
    pub(crate) fn read(fields: &mut Reader<'a>) -> Result<Self, Truncated> {
        let flags = fields.u8("ATA flags")?;
        let feature = fields.u8("feature")?;
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
            READ_SECTORS | READ_SECTORS_ONCE | READ_DMA => AtaCommand::Read { lba: lba28 },
            READ_SECTORS_EXT | READ_DMA_EXT => AtaCommand::Read { lba },
            WRITE_SECTORS | WRITE_SECTORS_ONCE | WRITE_DMA => {
                AtaCommand::Write { lba: lba28, fua: false }
            }
            WRITE_SECTORS_EXT | WRITE_DMA_EXT => AtaCommand::Write { lba, fua: false },
            WRITE_DMA_FUA_EXT | WRITE_MULTIPLE_FUA_EXT => AtaCommand::Write { lba, fua: true },
            READ_VERIFY => AtaCommand::Verify { lba: lba28 },
            READ_VERIFY_EXT => AtaCommand::Verify { lba },
            FLUSH_CACHE | FLUSH_CACHE_EXT => AtaCommand::Flush,
            IDENTIFY_DEVICE => AtaCommand::Identify,
            CHECK_POWER_MODE => AtaCommand::CheckPowerMode,
            STANDBY_IMMEDIATE..=IDLE | SLEEP => AtaCommand::PowerNoOp,
            SET_FEATURES if FEATURES_WITHOUT_MEANING.contains(&feature) => {
                AtaCommand::SetFeature(feature)
            }
            // The two bytes keep a stray command from meaning something (ATA8-ACS §7.53).
            SMART if lba28 & 0x00ff_ff00 == HEALTH_GOOD => match feature {
                SMART_DATA => AtaCommand::SmartData,
                SMART_ENABLE => AtaCommand::SmartEnable,
                SMART_STATUS => AtaCommand::SmartStatus,
                _ => AtaCommand::Unknown(SMART),
            },
            other => AtaCommand::Unknown(other),
        };
        Ok(Self { command, sectors, data: fields.rest() })
    }

    pub(crate) fn emit(&self, frame: &mut Vec<u8>) {
        let feature = match self.command {
            AtaCommand::SetFeature(feature) => feature,
            AtaCommand::SmartStatus => SMART_STATUS,
            AtaCommand::SmartData => SMART_DATA,
            AtaCommand::SmartEnable => SMART_ENABLE,
            _ => 0,
        };
        let (command, lba, write) = match self.command {
            AtaCommand::Read { lba } => (READ_SECTORS_EXT, lba, 0),
            AtaCommand::Write { lba, fua: false } => (WRITE_SECTORS_EXT, lba, FLAG_WRITE),
            AtaCommand::Write { lba, fua: true } => (WRITE_DMA_FUA_EXT, lba, FLAG_WRITE),
            AtaCommand::Verify { lba } => (READ_VERIFY_EXT, lba, 0),
            AtaCommand::Flush => (FLUSH_CACHE_EXT, 0, 0),
            AtaCommand::Identify => (IDENTIFY_DEVICE, 0, 0),
            AtaCommand::CheckPowerMode => (CHECK_POWER_MODE, 0, 0),
            AtaCommand::PowerNoOp => (IDLE_IMMEDIATE, 0, 0),
            AtaCommand::SetFeature(_) => (SET_FEATURES, 0, 0),
            AtaCommand::SmartStatus | AtaCommand::SmartData | AtaCommand::SmartEnable => {
                (SMART, HEALTH_GOOD, 0)
            }
            AtaCommand::Unknown(other) => (other, 0, 0),
        };
        frame.extend_from_slice(&[FLAG_EXTENDED | write, feature, self.sectors, command]);
        frame.extend_from_slice(&lba.to_le_bytes()[..6]);
        frame.extend_from_slice(&[0, 0]);
        frame.extend_from_slice(self.data);
    }

    /// The request's first byte on the disk and its length, or how it is refused: aborted unless it
    /// concerns 1 to `sectors_max` sectors (0 is not 256 as in ATA: no frame could carry that), out
    /// of range if these are not all on a disk of `size_bytes`.
    pub fn range(
        &self,
        lba: u64,
        size_bytes: u64,
        sectors_max: u8,
    ) -> Result<(u64, usize), Status> {
        if self.sectors == 0 || self.sectors > sectors_max {
            return Err(Status::Aborted);
        }
        let length = usize::from(self.sectors) * SECTOR_BYTES;
        let offset = lba.checked_mul(SECTOR_BYTES as u64).ok_or(Status::OutOfRange)?;
        let end = offset.checked_add(length as u64).ok_or(Status::OutOfRange)?;
        if end <= size_bytes { Ok((offset, length)) } else { Err(Status::OutOfRange) }
    }
}

/// How a command ended, as status and error register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The command is done.
    Good,
    /// Sectors outside of the disk (IDNF).
    OutOfRange,
    /// Command or arguments not accepted (ABRT).
    Aborted,
    /// The data can't be read (UNC).
    Unreadable,
}

/// What a disk answers, in one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtaReply<'a> {
    /// How the command ended.
    pub status: Status,
    /// Value of the sector count register: 0, or 0xff for the power mode "active".
    pub sectors: u8,
    /// Value of the LBA registers: 0 but for [`AtaCommand::SmartStatus`].
    pub lba: u64,
    /// Data of a read, of IDENTIFY or of SMART.
    pub data: &'a [u8],
}

impl AtaReply<'_> {
    /// The frame, padded, from the target at `shelf.slot` on the interface `own`.
    pub fn emit(&self, request: &Header, own: Mac, shelf: u16, slot: u8) -> Vec<u8> {
        let mut frame = Vec::new();
        self.emit_in(request, own, shelf, slot, &mut frame);
        frame
    }

    /// Writes the whole frame, padded, into `frame`, whose former content is thrown away: so its memory is used
    /// again.
    pub fn emit_in(&self, request: &Header, own: Mac, shelf: u16, slot: u8, frame: &mut Vec<u8>) {
        self.emit_head_in(request, own, shelf, slot, frame);
        frame.extend_from_slice(self.data);
        pad_in(frame);
    }

    /// Writes the frame's headers into `frame`, whose former content is thrown away. The data are sent from
    /// elsewhere behind them: at least 24 bytes, or there must be padding ([`FRAME_MIN`](crate::FRAME_MIN)).
    pub fn emit_head_in(
        &self,
        request: &Header,
        own: Mac,
        shelf: u16,
        slot: u8,
        frame: &mut Vec<u8>,
    ) {
        // Bits of the registers for status and error.
        const READY: u8 = 0x40;
        const ERROR: u8 = 0x01;
        const UNCORRECTABLE: u8 = 0x40;
        const ID_NOT_FOUND: u8 = 0x10;
        const ABORTED: u8 = 0x04;
        let (status, error) = match self.status {
            Status::Good => (READY, 0),
            Status::OutOfRange => (READY | ERROR, ID_NOT_FOUND),
            Status::Aborted => (READY | ERROR, ABORTED),
            Status::Unreadable => (READY | ERROR, UNCORRECTABLE),
        };
        request.begin_reply_in(own, shelf, slot, COMMAND_ATA, frame);
        frame.extend_from_slice(&[0, error, self.sectors, status]);
        frame.extend_from_slice(&self.lba.to_le_bytes()[..6]);
        frame.extend_from_slice(&[0, 0]);
    }
}

/// Makes a copy of an ATA reply the answer to another request of the same sender.
pub fn retag(reply: &mut [u8], tag: u32) {
    if let Some(field) = reply.get_mut(TAG) {
        field.copy_from_slice(&tag.to_be_bytes());
    }
}
