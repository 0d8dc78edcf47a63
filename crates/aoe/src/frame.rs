//! The header that all frames share, and what a request asks for.

use crate::{AtaRequest, ConfigQuery, ETHERTYPE, MaskRequest, ReserveRequest};
use alloc::vec::Vec;
use wire::{Mac, Reader, Truncated};

/// Shortest Ethernet frame in bytes, without checksum. Shorter replies vanish for some tools.
pub const FRAME_MIN: usize = 60;

pub(crate) const VERSION: u8 = 1;
const FLAG_RESPONSE: u8 = 0x08;
const FLAG_ERROR: u8 = 0x04;

/// Where the tag is in a frame.
pub(crate) const TAG: core::ops::Range<usize> = 20..24;

pub(crate) const COMMAND_ATA: u8 = 0;
pub(crate) const COMMAND_CONFIG: u8 = 1;
pub(crate) const COMMAND_MASK: u8 = 2;
pub(crate) const COMMAND_RESERVE: u8 = 3;

/// What every request says, and its reply repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Ethernet address of the receiver.
    pub destination: Mac,
    /// Ethernet address of the sender.
    pub source: Mac,
    /// Major address; 0xffff means every shelf.
    pub shelf: u16,
    /// Minor address; 0xff means every slot.
    pub slot: u8,
    /// Number that the reply repeats untouched. Initiators use all 32 bits in their own ways.
    pub tag: u32,
}

impl Header {
    /// Whether the request is for the target at `shelf.slot`.
    pub fn is_for(&self, shelf: u16, slot: u8) -> bool {
        (self.shelf == shelf || self.shelf == u16::MAX)
            && (self.slot == slot || self.slot == u8::MAX)
    }

    /// Whether the request is for many targets at once, as discovery is.
    pub fn is_wildcard(&self) -> bool {
        self.shelf == u16::MAX || self.slot == u8::MAX
    }

    /// Begins the reply of the target at `shelf.slot`, whose interface is `own`, in `to`, whose former content is
    /// thrown away.
    pub(crate) fn begin_reply_in(
        &self,
        own: Mac,
        shelf: u16,
        slot: u8,
        command: u8,
        to: &mut Vec<u8>,
    ) {
        let header = Self { destination: self.source, source: own, shelf, slot, tag: self.tag };
        to.clear();
        header.write(FLAG_RESPONSE, 0, command, to);
    }

    /// Begins the reply of the target at `shelf.slot`, whose interface is `own`.
    pub(crate) fn begin_reply(
        &self,
        own: Mac,
        shelf: u16,
        slot: u8,
        command: u8,
        error: Option<ErrorCode>,
    ) -> Vec<u8> {
        let flag = if error.is_some() { FLAG_ERROR } else { 0 };
        let header = Self { destination: self.source, source: own, shelf, slot, tag: self.tag };
        header.emit(FLAG_RESPONSE | flag, error.map_or(0, |code| code as u8), command)
    }

    pub(crate) fn emit(&self, flags: u8, error: u8, command: u8) -> Vec<u8> {
        let mut frame = Vec::with_capacity(FRAME_MIN);
        self.write(flags, error, command, &mut frame);
        frame
    }

    fn write(&self, flags: u8, error: u8, command: u8, frame: &mut Vec<u8>) {
        frame.extend_from_slice(&self.destination.0);
        frame.extend_from_slice(&self.source.0);
        frame.extend_from_slice(&ETHERTYPE.to_be_bytes());
        frame.push(VERSION << 4 | flags);
        frame.push(error);
        frame.extend_from_slice(&self.shelf.to_be_bytes());
        frame.push(self.slot);
        frame.push(command);
        frame.extend_from_slice(&self.tag.to_be_bytes());
    }
}

/// Why a target refuses a request (AoEr11 §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ErrorCode {
    /// The command is not known.
    UnrecognizedCommand = 1,
    /// An argument is out of range.
    BadArgument = 2,
    /// The target can't be used now.
    Unavailable = 3,
    /// The config string is set already.
    ConfigPresent = 4,
    /// The version is not 1.
    UnsupportedVersion = 5,
    /// The target is reserved for others.
    Reserved = 6,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestBody<'a> {
    /// An ATA command.
    Ata(AtaRequest<'a>),
    /// Query or change the config string.
    Config(ConfigQuery<'a>),
    /// Query or change who is answered.
    Mask(MaskRequest<'a>),
    /// Query or change for whom the target is reserved.
    Reserve(ReserveRequest<'a>),
    /// A vendor's command.
    Other(u8),
}

impl RequestBody<'_> {
    fn command(&self) -> u8 {
        match self {
            Self::Ata(_) => COMMAND_ATA,
            Self::Config(_) => COMMAND_CONFIG,
            Self::Mask(_) => COMMAND_MASK,
            Self::Reserve(_) => COMMAND_RESERVE,
            Self::Other(other) => *other,
        }
    }
}

/// A frame that an initiator sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Who asks which target.
    pub header: Header,
    /// What is asked for.
    pub body: RequestBody<'a>,
}

/// The frame is no request that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The frame ends inside a field.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// The frame has another ethertype.
    #[error("ethertype {0:#06x} is not AoE")]
    NotAoe(u16),
    /// The frame is a reply, which targets ignore.
    #[error("a response, not a request")]
    Response,
    /// The frame is of a version that nobody speaks.
    #[error("AoE version {0} is not 1")]
    Version(u8),
    /// The sender's address is a group's.
    #[error("the sender's address {0} is a multicast address")]
    Source(Mac),
}

impl<'a> Request<'a> {
    /// Reads a whole Ethernet frame. Padding behind the request is ignored.
    pub fn parse(frame: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Reader::new(frame);
        let destination = Mac(fields.array("destination")?);
        let source = Mac(fields.array("source")?);
        let ethertype = fields.u16("ethertype")?;
        if ethertype != ETHERTYPE {
            return Err(Malformed::NotAoe(ethertype));
        }
        if source.is_multicast() {
            return Err(Malformed::Source(source));
        }
        let version_flags = fields.u8("version")?;
        if version_flags & FLAG_RESPONSE != 0 {
            return Err(Malformed::Response);
        }
        if version_flags >> 4 != VERSION {
            return Err(Malformed::Version(version_flags >> 4));
        }
        fields.u8("error")?;
        let shelf = fields.u16("shelf")?;
        let slot = fields.u8("slot")?;
        let command = fields.u8("command")?;
        let tag = fields.u32("tag")?;
        let body = match command {
            COMMAND_ATA => RequestBody::Ata(AtaRequest::read(&mut fields)?),
            COMMAND_CONFIG => RequestBody::Config(ConfigQuery::read(&mut fields)?),
            COMMAND_MASK => RequestBody::Mask(MaskRequest::read(&mut fields)?),
            COMMAND_RESERVE => RequestBody::Reserve(ReserveRequest::read(&mut fields)?),
            other => RequestBody::Other(other),
        };
        Ok(Self { header: Header { destination, source, shelf, slot, tag }, body })
    }
}

/// The reply that refuses `request`, padded.
pub fn emit_error(
    request: &Request<'_>,
    own: Mac,
    shelf: u16,
    slot: u8,
    code: ErrorCode,
) -> Vec<u8> {
    let command = request.body.command();
    pad(request.header.begin_reply(own, shelf, slot, command, Some(code)))
}

/// A request frame, as an initiator sends it, padded. For clients in software.
pub fn emit_request(request: &Request<'_>) -> Vec<u8> {
    let command = request.body.command();
    let mut frame = request.header.emit(0, 0, command);
    match &request.body {
        RequestBody::Ata(ata) => ata.emit(&mut frame),
        RequestBody::Config(config) => config.emit(&mut frame),
        RequestBody::Mask(mask) => mask.emit(&mut frame),
        RequestBody::Reserve(reserve) => reserve.emit(&mut frame),
        RequestBody::Other(_) => {}
    }
    pad(frame)
}

pub(crate) fn pad(mut frame: Vec<u8>) -> Vec<u8> {
    pad_in(&mut frame);
    frame
}

pub(crate) fn pad_in(frame: &mut Vec<u8>) {
    if frame.len() < FRAME_MIN {
        frame.resize(FRAME_MIN, 0);
    }
}
