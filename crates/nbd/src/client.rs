//! The client's side of the handshake: asks for one export with NBD_OPT_INFO, and opens it with NBD_OPT_GO.

use crate::constants::{
    FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, InfoType, NBD_MAGIC, OPT_GO, OPT_INFO, OPT_STARTTLS,
    OPTION_MAGIC, OPTION_REPLY_MAGIC, REP_ACK, REP_FLAG_ERROR, REP_INFO, TransmissionFlags,
};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use wire::{Reader, Truncated};

/// Longest option reply that is read, in bytes.
const REPLY_MAX: u32 = 64 << 10;

/// Longest words of a server that are kept, in characters: those that end a handshake, which people read, and those that
/// answer INFO, which may hold a file of the machine.
const WORDS_MAX: usize = 512;
const ANSWER_MAX: usize = 16 << 10;

/// What the server said about the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    /// Size of the disk in bytes.
    pub size_bytes: u64,
    /// What the export can do.
    pub flags: TransmissionFlags,
    /// Smallest block that it accepts, in bytes; 512 if the server said nothing smaller.
    pub block_min_bytes: u32,
}

/// What the shell does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send these bytes, then ask again.
    Send(Vec<u8>),
    /// Receive exactly so many bytes and hand them to [`Handshake::on_bytes`].
    Receive(usize),
    /// Begin TLS on the connection, call [`Handshake::on_tls`], and go on inside of it.
    StartTls,
    /// INFO is answered: call [`Handshake::open`] with the name to open, or [`Handshake::ask`]. A server that says no, or
    /// under which condition, does so in words, of which at most 2048 characters are here; `None` is that it told of the
    /// export.
    Answered(Option<String>),
    /// The connection is in transmission: the next byte sent is a request's.
    Done(Export),
}

/// Bytes that the shell moves for [`Handshake::run`].
#[derive(Debug)]
pub enum Transfer<'a> {
    /// Send all of these.
    Send(&'a [u8]),
    /// Fill all of this with what comes.
    Receive(&'a mut [u8]),
}

/// What the shell decides or does: those of [`Step`] that are more than moving bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// See [`Step::StartTls`].
    StartTls,
    /// See [`Step::Answered`].
    Answered(Option<String>),
    /// See [`Step::Done`].
    Done(Export),
}

/// The export can't be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The peer is no NBD server of the fixed newstyle.
    #[error("the peer does not speak NBD (fixed newstyle)")]
    NotNbd,
    /// The server's bytes contradict the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
    /// The server does not encrypt; its words, if it gave any.
    #[error("the server refuses TLS: {text} (reply {code:#x})")]
    NoTls {
        /// The server's reply type, NBD_REP_ERR_*.
        code: u32,
        /// The server's message, at most 512 characters; may be empty.
        text: String,
    },
    /// The server refused; its words, if it gave any.
    #[error("the server refused the export: {text} (reply {code:#x})")]
    Refused {
        /// The server's reply type, NBD_REP_ERR_*.
        code: u32,
        /// The server's message, at most 512 characters; may be empty.
        text: String,
    },
}

impl From<Truncated> for HandshakeError {
    fn from(_: Truncated) -> Self {
        Self::Protocol("a field is truncated")
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Greeting,
    SendStartTls {
        flags: u16,
    },
    StartTls,
    /// INFO or GO is to be sent, behind the client's flags if these are not sent yet.
    SendOption {
        option: u32,
        flags: Option<u16>,
    },
    ReplyHeader,
    ReplyData {
        kind: u32,
        length: u32,
    },
    Answered,
    Done,
}

/// One handshake, from the first byte of a TCP connection to the first request.
///
/// Call [`step`](Self::step) and do what it says until it is [`Step::Done`]: after [`Step::Send`] call `step` again
/// at once; after [`Step::Receive`] hand exactly so many bytes to [`on_bytes`](Self::on_bytes) first; after
/// [`Step::StartTls`] call [`on_tls`](Self::on_tls) first, when the TLS session is there; after [`Step::Answered`]
/// call [`open`](Self::open) or [`ask`](Self::ask) first. After an error of `step` or `on_bytes` the connection is of no use any more.
#[derive(Debug)]
pub struct Handshake {
    export: String,
    has_tls: bool,
    state: State,
    /// The option to which replies are awaited.
    option: u32,
    /// With which words the server has answered INFO by an error.
    no: Option<String>,
    size_and_flags: Option<(u64, TransmissionFlags)>,
    block_min_bytes: u32,
}

impl Handshake {
    /// A handshake that asks for `export` (at most [`crate::NAME_MAX`] bytes) before it opens it.
    pub fn new(export: &str) -> Self {
        Self {
            export: export.into(),
            has_tls: false,
            state: State::Greeting,
            option: OPT_INFO,
            no: None,
            size_and_flags: None,
            block_min_bytes: 512,
        }
    }

    /// A handshake that does all that inside of TLS. It fails with
    /// [`HandshakeError::NoTls`] if the server has none.
    pub fn with_tls(export: &str) -> Self {
        Self { has_tls: true, ..Self::new(export) }
    }

    /// Takes all steps up to one that is more than moving bytes, which `carry` does: do what it says, and call this again.
    ///
    /// # Errors
    /// What `carry` says; or the server refuses or does not keep to the protocol. The connection is of no use then.
    pub fn run<E: From<HandshakeError>>(
        &mut self,
        mut carry: impl FnMut(Transfer<'_>) -> Result<(), E>,
    ) -> Result<Turn, E> {
        loop {
            match self.step()? {
                Step::Send(bytes) => carry(Transfer::Send(&bytes))?,
                Step::Receive(length) => {
                    let mut bytes = vec![0; length];
                    carry(Transfer::Receive(&mut bytes))?;
                    self.on_bytes(&bytes)?;
                }
                Step::StartTls => return Ok(Turn::StartTls),
                Step::Answered(said) => return Ok(Turn::Answered(said)),
                Step::Done(export) => return Ok(Turn::Done(export)),
            }
        }
    }

    /// The TLS session that [`Step::StartTls`] asked for is there. Panics if nothing asked for one.
    pub fn on_tls(&mut self) {
        assert!(matches!(self.state, State::StartTls), "on_tls answers StartTls");
        self.state = State::SendOption { option: OPT_INFO, flags: None };
    }

    /// Opens `export` (at most [`crate::NAME_MAX`] bytes). Panics if [`Step::Answered`] has not come before.
    pub fn open(&mut self, export: &str) {
        assert!(matches!(self.state, State::Answered), "open follows Answered");
        self.export = export.into();
        self.size_and_flags = None;
        self.state = State::SendOption { option: OPT_GO, flags: None };
    }

    /// Asks for `export` once more before it opens it, by another name. Panics if [`Step::Answered`] has not come before.
    pub fn ask(&mut self, export: &str) {
        assert!(matches!(self.state, State::Answered), "ask follows Answered");
        self.export = export.into();
        self.no = None;
        self.state = State::SendOption { option: OPT_INFO, flags: None };
    }

    /// What to do now.
    ///
    /// # Errors
    /// The server has agreed, but never said how large the export is.
    pub fn step(&mut self) -> Result<Step, HandshakeError> {
        match self.state {
            State::Greeting => Ok(Step::Receive(18)),
            State::SendStartTls { flags } => {
                self.state = State::ReplyHeader;
                self.option = OPT_STARTTLS;
                let mut bytes = u32::from(flags).to_be_bytes().to_vec();
                bytes.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
                bytes.extend_from_slice(&OPT_STARTTLS.to_be_bytes());
                bytes.extend_from_slice(&0u32.to_be_bytes());
                Ok(Step::Send(bytes))
            }
            State::StartTls => Ok(Step::StartTls),
            State::SendOption { option, flags } => {
                self.state = State::ReplyHeader;
                self.option = option;
                let mut bytes = Vec::new();
                if let Some(flags) = flags {
                    bytes.extend_from_slice(&u32::from(flags).to_be_bytes());
                }
                bytes.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
                bytes.extend_from_slice(&option.to_be_bytes());
                let name = self.export.as_bytes();
                bytes.extend_from_slice(&(name.len() as u32 + 8).to_be_bytes());
                bytes.extend_from_slice(&(name.len() as u32).to_be_bytes());
                bytes.extend_from_slice(name);
                bytes.extend_from_slice(&1u16.to_be_bytes());
                bytes.extend_from_slice(&(InfoType::BlockSize as u16).to_be_bytes());
                Ok(Step::Send(bytes))
            }
            State::ReplyHeader => Ok(Step::Receive(20)),
            State::ReplyData { length, .. } => Ok(Step::Receive(length as usize)),
            State::Answered => Ok(Step::Answered(self.no.clone())),
            State::Done => {
                let (size_bytes, flags) = self
                    .size_and_flags
                    .ok_or(HandshakeError::Protocol("it acknowledged without the export's size"))?;
                Ok(Step::Done(Export { size_bytes, flags, block_min_bytes: self.block_min_bytes }))
            }
        }
    }

    /// Takes the bytes that [`Step::Receive`] asked for, all of them and no more.
    ///
    /// # Errors
    /// The peer is no NBD server, breaks the protocol, or refuses.
    pub fn on_bytes(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        let mut fields = Reader::new(bytes);
        match self.state {
            State::Greeting => {
                let is_nbd = fields.u64("magic")? == NBD_MAGIC;
                if !is_nbd || fields.u64("option magic")? != OPTION_MAGIC {
                    return Err(HandshakeError::NotNbd);
                }
                let flags = fields.u16("handshake flags")?;
                if flags & FLAG_FIXED_NEWSTYLE == 0 {
                    return Err(HandshakeError::NotNbd);
                }
                let flags = flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
                self.state = match self.has_tls {
                    true => State::SendStartTls { flags },
                    false => State::SendOption { option: OPT_INFO, flags: Some(flags) },
                };
            }
            State::ReplyHeader => {
                if fields.u64("reply magic")? != OPTION_REPLY_MAGIC {
                    return Err(HandshakeError::Protocol("an option reply has the wrong magic"));
                }
                if fields.u32("option")? != self.option {
                    return Err(HandshakeError::Protocol("a reply to another option"));
                }
                let (kind, length) = (fields.u32("reply type")?, fields.u32("reply length")?);
                if length > REPLY_MAX {
                    return Err(HandshakeError::Protocol("an option reply is longer than 64 KiB"));
                }
                self.state = State::ReplyData { kind, length };
                if length == 0 {
                    self.on_reply(kind, &[])?;
                }
            }
            State::ReplyData { kind, .. } => self.on_reply(kind, bytes)?,
            State::SendStartTls { .. }
            | State::StartTls
            | State::SendOption { .. }
            | State::Answered
            | State::Done => {
                return Err(HandshakeError::Protocol("bytes that nobody asked for"));
            }
        }
        Ok(())
    }

    fn on_reply(&mut self, kind: u32, data: &[u8]) -> Result<(), HandshakeError> {
        self.state = State::ReplyHeader;
        let mut fields = Reader::new(data);
        let (is_tls, is_info) = (self.option == OPT_STARTTLS, self.option == OPT_INFO);
        match kind {
            REP_ACK if is_tls => self.state = State::StartTls,
            REP_ACK if is_info => self.state = State::Answered,
            REP_ACK => self.state = State::Done,
            REP_INFO if !is_tls => {
                let info = fields.u16("info type")?;
                if info == InfoType::Export as u16 {
                    let size = fields.u64("export size")?;
                    let flags = TransmissionFlags(fields.u16("transmission flags")?);
                    self.size_and_flags = Some((size, flags));
                } else if info == InfoType::BlockSize as u16 {
                    self.block_min_bytes = fields.u32("minimum block size")?.max(512);
                }
            }
            error if error & REP_FLAG_ERROR != 0 => {
                let words_max = if is_info { ANSWER_MAX } else { WORDS_MAX };
                let (code, text) =
                    (error, String::from_utf8_lossy(data).chars().take(words_max).collect());
                if is_info {
                    self.no = Some(text);
                    self.state = State::Answered;
                    return Ok(());
                }
                return Err(match is_tls {
                    true => HandshakeError::NoTls { code, text },
                    false => HandshakeError::Refused { code, text },
                });
            }
            _ => return Err(HandshakeError::Protocol("a reply of an unknown type")),
        }
        Ok(())
    }
}
