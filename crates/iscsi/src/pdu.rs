//! Headers of login PDUs (RFC 7143 §11.12 and §11.13).

use alloc::vec::Vec;
use wire::{Reader, Truncated};

/// Bytes of each header.
pub const HEADER_BYTES: usize = 48;

const LOGIN_REQUEST: u8 = 0x03;
const LOGIN_RESPONSE: u8 = 0x23;
/// Not counted as a command.
const IMMEDIATE: u8 = 0x40;
const TRANSIT: u8 = 0x80;
const CONTINUE: u8 = 0x40;
const OPCODE_MASK: u8 = 0x3f;

/// A phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Both sides say who they are.
    Security,
    /// Both sides say what they can do.
    Operational,
    /// The login is over: commands may be sent.
    Full,
}

impl Phase {
    const fn number(self) -> u8 {
        match self {
            Self::Security => 0,
            Self::Operational => 1,
            Self::Full => 3,
        }
    }

    fn of_number(number: u8) -> Result<Self, Malformed> {
        match number & 3 {
            0 => Ok(Self::Security),
            1 => Ok(Self::Operational),
            3 => Ok(Self::Full),
            other => Err(Malformed::Phase(other)),
        }
    }
}

/// The bytes are no login response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The header is incomplete.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// The PDU is no login response.
    #[error("the target answers a login by PDU {0:#04x}, which makes no sense")]
    Opcode(u8),
    /// The response is of a phase whose number is reserved.
    #[error("the target is in the login phase {0}, which does not exist")]
    Phase(u8),
    /// The target speaks another version than 0, the only one that there is.
    #[error("the target speaks iSCSI version {0} instead of 0")]
    Version(u8),
}

/// Asks to log in. The kernel fills in its own numbers: task, connection, commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginRequest {
    /// The phase that the login is in.
    pub now: Phase,
    /// The phase that shall follow, if this request is to end the one that is now.
    pub next: Option<Phase>,
    /// Names this session among those of the initiator.
    pub isid: [u8; 6],
    /// The session that is logged in to: 0 begins a new one, and ends one that has the
    /// names of initiator, target and session already.
    pub tsih: u16,
    /// Number that the target's next status should have.
    pub expected_status: u32,
    /// Bytes of text that follow.
    pub text_bytes: usize,
}

impl LoginRequest {
    /// The header as it is sent.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let transit = self.next.map_or(0, |next| TRANSIT | next.number());
        // Texts are bounded far below 16 MiB.
        let [_, length @ ..] = u32::try_from(self.text_bytes).unwrap_or(0).to_be_bytes();
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend([IMMEDIATE | LOGIN_REQUEST, transit | self.now.number() << 2, 0, 0, 0]);
        bytes.extend(length);
        bytes.extend(self.isid);
        bytes.extend(self.tsih.to_be_bytes());
        // Task tag, connection, reserved, command number.
        bytes.extend([0; 12]);
        bytes.extend(self.expected_status.to_be_bytes());
        let mut header = [0; HEADER_BYTES];
        header[..bytes.len()].copy_from_slice(&bytes);
        header
    }
}

/// The target's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginResponse {
    /// The phase that the login is in.
    pub now: Phase,
    /// The phase that follows at once, if the target agrees to that.
    pub next: Option<Phase>,
    /// More text follows in another response.
    pub is_continued: bool,
    /// Number that the target gave the session; 0 as long as there is none.
    pub tsih: u16,
    /// Number of this response, by which the initiator acknowledges it.
    pub status_number: u32,
    /// Class and detail of the status; class 0 is success.
    pub status: (u8, u8),
    /// Bytes of text that follow.
    pub text_bytes: usize,
}

impl LoginResponse {
    /// Reads a header.
    ///
    /// # Errors
    /// The header is too short, of another PDU, of another version, or of no phase.
    pub fn parse(header: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Reader::new(header);
        let opcode = fields.u8("opcode")? & OPCODE_MASK;
        if opcode != LOGIN_RESPONSE {
            return Err(Malformed::Opcode(opcode));
        }
        let flags = fields.u8("flags")?;
        fields.u8("highest version")?;
        let version = fields.u8("version")?;
        // The high byte is the length of additional headers, which a login has not.
        let length = fields.u32("length")? & 0x00ff_ffff;
        fields.array::<6>("session name")?;
        let tsih = fields.u16("session")?;
        fields.array::<8>("task")?;
        let status_number = fields.u32("status number")?;
        fields.array::<8>("command numbers")?;
        let status = (fields.u8("status class")?, fields.u8("status detail")?);
        fields.array::<10>("reserved")?;
        if version != 0 {
            return Err(Malformed::Version(version));
        }
        let is_transit = flags & TRANSIT != 0;
        Ok(Self {
            now: Phase::of_number(flags >> 2)?,
            next: if is_transit { Some(Phase::of_number(flags)?) } else { None },
            is_continued: flags & CONTINUE != 0,
            tsih,
            status_number,
            status,
            text_bytes: length as usize,
        })
    }
}
