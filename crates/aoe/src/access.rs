//! MAC Mask List and Reserve/Release: who may use a target.

use crate::frame::{COMMAND_MASK, COMMAND_RESERVE, Header, pad};
use alloc::vec::Vec;
use wire::{Mac, Reader, Truncated};

/// Most addresses that a reply lists, which fit a frame of any MTU from 1500 on.
pub const LISTED_MACS_MAX: usize = 128;

const MAC_BYTES: usize = 6;

// Commands about the mask, and its directives (AoEr11 §3.3).
const MASK_READ: u8 = 0;
const MASK_EDIT: u8 = 1;
const DIRECTIVE_NOTHING: u8 = 0;
const DIRECTIVE_ADD: u8 = 1;
const DIRECTIVE_DELETE: u8 = 2;

// Commands about the reservation (AoEr11 §3.4).
const RESERVE_READ: u8 = 0;
const RESERVE_SET: u8 = 1;
const RESERVE_FORCE_SET: u8 = 2;

/// What shall happen with the list of those that a target answers (AoEr11 §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskRequest<'a> {
    /// The list is to be told.
    Read,
    /// The list is to be changed.
    Edit(Directives<'a>),
    /// A command that AoEr11 does not know, by its number.
    Unknown(u8),
}

/// Changes of the mask, as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directives<'a>(&'a [[u8; 8]]);

/// One change of the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Nothing is changed.
    Nothing,
    /// This address is answered from now on.
    Add(Mac),
    /// This address is not answered any more.
    Delete(Mac),
    /// A directive that AoEr11 does not know, by its number.
    Unknown(u8),
}

impl<'a> Directives<'a> {
    /// The directives, in the order in which they must be obeyed.
    pub fn iter(&self) -> impl Iterator<Item = Directive> + use<'a> {
        self.0.iter().map(|&[_, command, a, b, c, d, e, f]| {
            let mac = Mac([a, b, c, d, e, f]);
            match command {
                DIRECTIVE_NOTHING => Directive::Nothing,
                DIRECTIVE_ADD => Directive::Add(mac),
                DIRECTIVE_DELETE => Directive::Delete(mac),
                other => Directive::Unknown(other),
            }
        })
    }
}

impl<'a> MaskRequest<'a> {
    pub(crate) fn read(fields: &mut Reader<'a>) -> Result<Self, Truncated> {
        fields.u8("reserved")?;
        let command = fields.u8("mask command")?;
        fields.u8("mask error")?;
        let count = usize::from(fields.u8("directive count")?);
        let (directives, _) = fields.bytes("directives", count * 8)?.as_chunks();
        Ok(match command {
            MASK_READ => Self::Read,
            MASK_EDIT => Self::Edit(Directives(directives)),
            other => Self::Unknown(other),
        })
    }

    pub(crate) fn emit(&self, frame: &mut Vec<u8>) {
        let (command, directives) = match self {
            Self::Read => (MASK_READ, &[][..]),
            Self::Edit(Directives(directives)) => (MASK_EDIT, *directives),
            Self::Unknown(other) => (*other, &[][..]),
        };
        frame.extend_from_slice(&[0, command, 0, directives.len() as u8]);
        frame.extend_from_slice(directives.as_flattened());
    }
}

/// Why a mask was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MaskError {
    /// No reason that AoEr11 has a number for, such as that the network may not change it.
    Unspecified = 1,
    /// A directive that is not known.
    BadDirective = 2,
}

/// The answer to a mask request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskReply<'a> {
    /// The addresses that are answered; all if the list is empty.
    List(&'a [Mac]),
    /// The directive of this index can't be obeyed, and nothing was changed.
    Refused {
        /// Index of the directive, from 0.
        index: u8,
        /// Why the directive can't be obeyed.
        why: MaskError,
    },
}

impl MaskReply<'_> {
    /// The answer to `request` of the target at `shelf.slot` on the interface `own`.
    pub fn emit(&self, request: &Header, own: Mac, shelf: u16, slot: u8, edit: bool) -> Vec<u8> {
        let mut frame = request.begin_reply(own, shelf, slot, COMMAND_MASK, None);
        let command = if edit { MASK_EDIT } else { MASK_READ };
        match self {
            Self::List(macs) => {
                let macs = listed(macs);
                frame.extend_from_slice(&[0, command, 0, macs.len() as u8]);
                for mac in macs {
                    frame.extend_from_slice(&[0, 0]);
                    frame.extend_from_slice(&mac.0);
                }
            }
            Self::Refused { index, why } => {
                frame.extend_from_slice(&[0, command, *why as u8, *index]);
            }
        }
        pad(frame)
    }
}

/// What shall happen with the list of those that may use a target alone (AoEr11 §3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveRequest<'a> {
    /// The list is to be told.
    Read,
    /// Make it this, if it is empty or the sender is in it; with `force` whatever it is.
    Set {
        /// Addresses as they came.
        macs: &'a [[u8; MAC_BYTES]],
        /// Whether the list is set whoever is in it.
        force: bool,
    },
    /// A command that AoEr11 does not know, by its number.
    Unknown(u8),
}

impl<'a> ReserveRequest<'a> {
    pub(crate) fn read(fields: &mut Reader<'a>) -> Result<Self, Truncated> {
        let command = fields.u8("reserve command")?;
        let count = usize::from(fields.u8("address count")?);
        let (macs, _) = fields.bytes("addresses", count * MAC_BYTES)?.as_chunks();
        Ok(match command {
            RESERVE_READ => Self::Read,
            RESERVE_SET => Self::Set { macs, force: false },
            RESERVE_FORCE_SET => Self::Set { macs, force: true },
            other => Self::Unknown(other),
        })
    }

    pub(crate) fn emit(&self, frame: &mut Vec<u8>) {
        let (command, macs) = match self {
            Self::Read => (RESERVE_READ, &[][..]),
            Self::Set { macs, force: false } => (RESERVE_SET, *macs),
            Self::Set { macs, force: true } => (RESERVE_FORCE_SET, *macs),
            Self::Unknown(other) => (*other, &[][..]),
        };
        frame.extend_from_slice(&[command, macs.len() as u8]);
        frame.extend_from_slice(macs.as_flattened());
    }
}

/// The answer that tells for whom the target is reserved: nobody if `macs` is empty.
pub fn emit_reservation(
    macs: &[Mac],
    request: &Header,
    own: Mac,
    shelf: u16,
    slot: u8,
    command: u8,
) -> Vec<u8> {
    let mut frame = request.begin_reply(own, shelf, slot, COMMAND_RESERVE, None);
    let macs = listed(macs);
    frame.extend_from_slice(&[command, macs.len() as u8]);
    macs.iter().for_each(|mac| frame.extend_from_slice(&mac.0));
    pad(frame)
}

fn listed(macs: &[Mac]) -> &[Mac] {
    macs.get(..LISTED_MACS_MAX).unwrap_or(macs)
}
