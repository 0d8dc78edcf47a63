//! Query Config: how initiators find targets.

use crate::frame::{COMMAND_CONFIG, ErrorCode, Header, VERSION, pad};
use alloc::vec::Vec;
use wire::{Mac, Reader, Truncated};

/// What a target says of its own version; nobody asks for more.
const FIRMWARE_VERSION: u16 = 1;

/// Longest config string in bytes.
pub(crate) const CONFIG_STRING_MAX: usize = 1024;

// Commands (AoEr11 §3.2).
const READ: u8 = 0;
const TEST: u8 = 1;
const PREFIX: u8 = 2;
const SET: u8 = 3;
const FORCE_SET: u8 = 4;

/// What shall happen with the config string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigCommand {
    /// The config string is to be told.
    Read,
    /// Answer only if it is the given one.
    Test,
    /// Answer only if it begins with the given one.
    Prefix,
    /// The config string is to be set if it is empty.
    Set,
    /// The config string is to be set, whatever it is.
    ForceSet,
    /// A command that AoEr11 does not know, by its number.
    Unknown(u8),
}

/// A query by an initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigQuery<'a> {
    /// What the target is asked to do.
    pub command: ConfigCommand,
    /// The string that it is compared with, or set to.
    pub text: &'a [u8],
}

impl<'a> ConfigQuery<'a> {
    pub(crate) fn read(fields: &mut Reader<'a>) -> Result<Self, Truncated> {
        fields.u16("buffer count")?;
        fields.u16("firmware version")?;
        fields.u8("sector count")?;
        let command = match fields.u8("config command")? & 0x0f {
            READ => ConfigCommand::Read,
            TEST => ConfigCommand::Test,
            PREFIX => ConfigCommand::Prefix,
            SET => ConfigCommand::Set,
            FORCE_SET => ConfigCommand::ForceSet,
            other => ConfigCommand::Unknown(other),
        };
        let length = usize::from(fields.u16("config string length")?).min(CONFIG_STRING_MAX);
        Ok(Self { command, text: fields.bytes("config string", length)? })
    }

    /// How a target with the config string `own`, which the network may not change, answers.
    pub fn verdict(&self, own: &[u8]) -> Verdict {
        let is_answered = match self.command {
            ConfigCommand::Read => true,
            ConfigCommand::Test => own == self.text,
            ConfigCommand::Prefix => own.starts_with(self.text),
            // To set what is set already is granted (AoEr11 §3.2).
            ConfigCommand::Set | ConfigCommand::ForceSet if own == self.text => true,
            ConfigCommand::Set | ConfigCommand::ForceSet => {
                return Verdict::Refuse(ErrorCode::ConfigPresent);
            }
            ConfigCommand::Unknown(_) => return Verdict::Refuse(ErrorCode::BadArgument),
        };
        if is_answered { Verdict::Answer } else { Verdict::Silence }
    }

    pub(crate) fn emit(&self, frame: &mut Vec<u8>) {
        let command = match self.command {
            ConfigCommand::Read => READ,
            ConfigCommand::Test => TEST,
            ConfigCommand::Prefix => PREFIX,
            ConfigCommand::Set => SET,
            ConfigCommand::ForceSet => FORCE_SET,
            ConfigCommand::Unknown(other) => other,
        };
        frame.extend_from_slice(&[0, 0, 0, 0, 0, command]);
        frame.extend_from_slice(&(self.text.len() as u16).to_be_bytes());
        frame.extend_from_slice(self.text);
    }
}

/// What a target does with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The target answers with its config string.
    Answer,
    /// The query was not meant for this target, which stays silent.
    Silence,
    /// The target answers with an error.
    Refuse(ErrorCode),
}

/// A target's answer, also sent unasked as an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigReply<'a> {
    /// Frames that the target keeps; more in flight may be dropped. Linux needs at least 2.
    pub buffer_count: u16,
    /// Most sectors of one ATA frame.
    pub sector_count: u8,
    /// The config string, at most 1024 bytes.
    pub text: &'a [u8],
}

impl ConfigReply<'_> {
    /// The answer to `request` of the target at `shelf.slot` on the interface `own`.
    pub fn emit(&self, request: &Header, own: Mac, shelf: u16, slot: u8) -> Vec<u8> {
        let mut frame = request.begin_reply(own, shelf, slot, COMMAND_CONFIG, None);
        frame.extend_from_slice(&self.buffer_count.to_be_bytes());
        frame.extend_from_slice(&FIRMWARE_VERSION.to_be_bytes());
        frame.push(self.sector_count);
        frame.push(VERSION << 4);
        frame.extend_from_slice(&(self.text.len() as u16).to_be_bytes());
        frame.extend_from_slice(self.text);
        pad(frame)
    }

    /// The frame that tells `initiator`, unasked, that the target at `shelf.slot` is served on the interface `own`.
    pub fn announce(&self, initiator: Mac, own: Mac, shelf: u16, slot: u8) -> Vec<u8> {
        let asked = Header { destination: own, source: initiator, shelf, slot, tag: 0 };
        self.emit(&asked, own, shelf, slot)
    }
}
