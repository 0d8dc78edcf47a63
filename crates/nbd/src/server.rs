//! The server's side of the handshake, as a state machine.

use crate::constants::{
    FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, InfoType, NBD_MAGIC, OPT_ABORT, OPT_EXPORT_NAME, OPT_GO,
    OPT_INFO, OPT_LIST, OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT, OPT_STARTTLS,
    OPT_STRUCTURED_REPLY, OPTION_MAGIC, OPTION_REPLY_MAGIC, REP_ACK, REP_ERR_INVALID,
    REP_ERR_POLICY, REP_ERR_TLS_REQD, REP_ERR_TOO_BIG, REP_ERR_UNKNOWN, REP_ERR_UNSUP, REP_INFO,
    REP_META_CONTEXT, REP_SERVER, TransmissionFlags,
};
use crate::structured::ALLOCATION_ID;
use crate::{NAME_MAX, PAYLOAD_MAX};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use wire::{Reader, Truncated};

/// Longest data of one option in bytes. Options of any length are answered; beyond this the client
/// is not one.
pub const OPTION_DATA_MAX: u32 = 64 << 10;

/// Options that one client may send before it must have opened an export.
const OPTIONS_MAX: u32 = 256;

/// What a client learns of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// Size of the disk in bytes.
    pub size_bytes: u64,
    /// What the export can do.
    pub flags: TransmissionFlags,
    /// What the disk is, in a line for people.
    pub description: String,
}

/// What this client may see.
pub trait Exports {
    /// What is told of the export of that name to who only asks (INFO, contexts).
    ///
    /// # Errors
    /// Nothing is; why, in words for people.
    fn look(&self, name: &str) -> Result<ExportInfo, Refusal>;

    /// The client opens the export of that name.
    ///
    /// # Errors
    /// It may not; why, in words for people.
    fn open(&self, name: &str, way: Way) -> Result<ExportInfo, Refusal>;

    /// Names of all exports that the client is told of.
    fn names(&self) -> Vec<String>;
}

/// How a client opens an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By GO.
    Go,
    /// By EXPORT_NAME, the old way.
    ExportName,
}

/// Why a client is not told of an export, or does not get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is none of that name, as far as this client is concerned.
    Unknown(String),
    /// This client must do something else before, or at another time.
    Policy(String),
}

impl Refusal {
    fn reply(&self) -> (u32, &str) {
        match self {
            Self::Unknown(text) => (REP_ERR_UNKNOWN, text),
            Self::Policy(text) => (REP_ERR_POLICY, text),
        }
    }
}

/// What the shell does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send these bytes, then ask again.
    Send(Vec<u8>),
    /// Receive more bytes and hand them to [`Handshake::on_bytes`].
    Receive,
    /// The client begins TLS with its next byte. When that is done, call [`Handshake::on_tls`] and go
    /// on inside of it.
    StartTls,
    /// The client is in transmission on the export of that name.
    Transmit {
        /// Name of the export.
        name: String,
        /// What was agreed on for the transmission.
        agreed: Agreed,
        /// Bytes that the client sent already: the beginning of its first requests.
        early: Vec<u8>,
    },
    /// Close the connection.
    Close(Reason),
}

/// Whether clients encrypt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Clients can't encrypt.
    #[default]
    Off,
    /// Clients may encrypt.
    Optional,
    /// Clients must encrypt; who does not learns nothing but that.
    Required,
}

/// What client and server agreed on beyond the oldest form of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    /// READ is answered in chunks ([`crate::structured`]), and errors are.
    pub structured: bool,
    /// BLOCK_STATUS answers in the context `base:allocation`.
    pub allocation: bool,
}

/// The only context that we know: what is data, and what a hole.
const ALLOCATION: &str = "base:allocation";

/// Why a client is let go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The client ended the handshake (ABORT).
    #[error("the client ended the handshake")]
    Aborted,
    /// The bytes are not NBD's.
    #[error("not an NBD client: {0}")]
    NotNbd(&'static str),
    /// EXPORT_NAME has no way to answer an error but closing.
    #[error("{0}")]
    Refused(String),
    /// The client sent something behind STARTTLS in clear text: somebody on the way may have put it there.
    #[error("the client sent more behind STARTTLS, without encryption")]
    BeforeTls,
    /// EXPORT_NAME without TLS where that is required.
    #[error("the client asked for an export without TLS, which this server requires")]
    WithoutTls,
    /// The client sent more options than any needs.
    #[error("the client sent more than {OPTIONS_MAX} options")]
    TooManyOptions,
}

#[derive(Debug)]
enum State {
    ClientFlags,
    Options,
    /// Data of an option that is too long to keep.
    Skip {
        left: u32,
        option: u32,
    },
    /// STARTTLS was granted; the TLS handshake is the shell's.
    Tls,
    Transmit(String),
    Closed(Reason),
}

/// One handshake, from the first byte of a TCP connection to the client's first request.
///
/// Call [`step`](Self::step) and do what it says until it is [`Step::Transmit`] or [`Step::Close`]: after
/// [`Step::Send`] call `step` again at once; after [`Step::Receive`] hand what comes in, at most
/// [`OPTION_DATA_MAX`] bytes, to [`on_bytes`](Self::on_bytes) first; after [`Step::StartTls`] call [`on_tls`](Self::on_tls) first, when the TLS
/// session is there. The handshake sets no time limit: the shell must not wait for bytes for ever.
#[derive(Debug)]
pub struct Handshake {
    state: State,
    received: Vec<u8>,
    to_send: VecDeque<Vec<u8>>,
    tls: Tls,
    is_encrypted: bool,
    no_zeroes: bool,
    structured: bool,
    /// The export for which the client has chosen `base:allocation`.
    allocation_of: Option<String>,
    n_options: u32,
}

impl Default for Handshake {
    fn default() -> Self {
        Self::new(Tls::Off)
    }
}

impl Handshake {
    /// A handshake that begins with the greeting, for a server that treats clients so about TLS.
    pub fn new(tls: Tls) -> Self {
        let mut greeting = Vec::with_capacity(18);
        greeting.extend_from_slice(&NBD_MAGIC.to_be_bytes());
        greeting.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        greeting.extend_from_slice(&(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes());
        Self {
            state: State::ClientFlags,
            received: Vec::new(),
            to_send: VecDeque::from([greeting]),
            tls,
            is_encrypted: false,
            no_zeroes: false,
            structured: false,
            allocation_of: None,
            n_options: 0,
        }
    }

    /// Takes received bytes, at most [`OPTION_DATA_MAX`] for one [`Step::Receive`].
    pub fn on_bytes(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The TLS session that [`Step::StartTls`] asked for is there: all that follows is inside of it.
    /// What was agreed on in clear text is forgotten. Panics if nothing asked for a session.
    pub fn on_tls(&mut self) {
        assert!(matches!(self.state, State::Tls), "on_tls answers StartTls");
        self.is_encrypted = true;
        self.structured = false;
        self.allocation_of = None;
        self.state = State::Options;
    }

    /// What to do now, for a client that may see these `exports`.
    pub fn step(&mut self, exports: &impl Exports) -> Step {
        loop {
            if let Some(bytes) = self.to_send.pop_front() {
                return Step::Send(bytes);
            }
            let advanced = match &mut self.state {
                State::Transmit(name) => {
                    let name = core::mem::take(name);
                    let allocation = self.allocation_of.as_ref() == Some(&name);
                    let agreed = Agreed { structured: self.structured, allocation };
                    return Step::Transmit {
                        name,
                        agreed,
                        early: core::mem::take(&mut self.received),
                    };
                }
                State::Closed(reason) => return Step::Close(reason.clone()),
                State::Tls => return Step::StartTls,
                State::ClientFlags => self.read_client_flags(),
                State::Skip { .. } => self.skip(),
                State::Options => self.read_option(exports),
            };
            if advanced.is_err() {
                return Step::Receive;
            }
        }
    }

    fn close(&mut self, reason: Reason) {
        self.state = State::Closed(reason);
    }

    fn read_client_flags(&mut self) -> Result<(), Truncated> {
        let flags = Reader::new(&self.received).u32("client flags")?;
        self.received.drain(..4);
        let known = u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        if flags & !known != 0 {
            self.close(Reason::NotNbd("unknown client flags"));
        } else {
            self.no_zeroes = flags & u32::from(FLAG_NO_ZEROES) != 0;
            self.state = State::Options;
        }
        Ok(())
    }

    fn skip(&mut self) -> Result<(), Truncated> {
        let State::Skip { left, option } = self.state else { return Ok(()) };
        let taken = self.received.len().min(left as usize);
        self.received.drain(..taken);
        let left = left - taken as u32;
        self.state = State::Skip { left, option };
        if left > 0 {
            return Err(Truncated { field: "option data", wanted: left as usize, left: 0 });
        }
        self.state = State::Options;
        self.reply(option, REP_ERR_TOO_BIG, b"the option is longer than 64 KiB");
        Ok(())
    }

    fn read_option(&mut self, exports: &impl Exports) -> Result<(), Truncated> {
        let mut fields = Reader::new(&self.received);
        let magic = fields.u64("option magic")?;
        if magic != OPTION_MAGIC {
            self.close(Reason::NotNbd("an option has the wrong magic"));
            return Ok(());
        }
        let (option, length) = (fields.u32("option")?, fields.u32("option length")?);
        if length > OPTION_DATA_MAX {
            self.received.drain(..16);
            if length > PAYLOAD_MAX {
                self.close(Reason::NotNbd("an option is longer than 32 MiB"));
            } else {
                self.state = State::Skip { left: length, option };
            }
            return Ok(());
        }
        let data = fields.bytes("option data", length as usize)?.to_vec();
        self.received.drain(..16 + length as usize);
        self.n_options += 1;
        if self.n_options > OPTIONS_MAX {
            self.close(Reason::TooManyOptions);
            return Ok(());
        }
        self.on_option(option, &data, exports);
        Ok(())
    }

    fn on_option(&mut self, option: u32, data: &[u8], exports: &impl Exports) {
        let needs_tls = self.tls == Tls::Required && !self.is_encrypted;
        match option {
            OPT_EXPORT_NAME if needs_tls => self.close(Reason::WithoutTls),
            _ if needs_tls && !matches!(option, OPT_ABORT | OPT_STARTTLS) => {
                let text = b"this server serves only clients that use TLS";
                self.reply(option, REP_ERR_TLS_REQD, text);
            }
            OPT_STARTTLS => self.on_start_tls(data),
            OPT_EXPORT_NAME => self.on_export_name(data, exports),
            OPT_ABORT => {
                self.reply(option, REP_ACK, &[]);
                self.close(Reason::Aborted);
            }
            OPT_LIST if !data.is_empty() => {
                self.reply(option, REP_ERR_INVALID, b"LIST takes no data");
            }
            OPT_LIST => {
                for name in exports.names() {
                    let mut entry = (name.len() as u32).to_be_bytes().to_vec();
                    entry.extend_from_slice(name.as_bytes());
                    self.reply(option, REP_SERVER, &entry);
                }
                self.reply(option, REP_ACK, &[]);
            }
            OPT_INFO | OPT_GO => match parse_go(data) {
                Ok((name, infos)) => self.on_go(option, name, &infos, exports),
                Err(text) => self.reply(option, REP_ERR_INVALID, text.as_bytes()),
            },
            OPT_STRUCTURED_REPLY if !data.is_empty() => {
                self.reply(option, REP_ERR_INVALID, b"STRUCTURED_REPLY takes no data");
            }
            OPT_STRUCTURED_REPLY => {
                self.structured = true;
                self.reply(option, REP_ACK, &[]);
            }
            OPT_LIST_META_CONTEXT | OPT_SET_META_CONTEXT => {
                if option == OPT_SET_META_CONTEXT {
                    self.allocation_of = None;
                }
                match parse_contexts(data) {
                    _ if !self.structured => {
                        let text = b"structured replies must be negotiated first";
                        self.reply(option, REP_ERR_INVALID, text);
                    }
                    Ok((name, queries)) => self.on_contexts(option, name, &queries, exports),
                    Err(text) => self.reply(option, REP_ERR_INVALID, text.as_bytes()),
                }
            }
            _ => self.reply(option, REP_ERR_UNSUP, b"this server does not know the option"),
        }
    }

    fn on_start_tls(&mut self, data: &[u8]) {
        let (kind, text) = match self.tls {
            _ if self.is_encrypted => (REP_ERR_INVALID, "TLS is in use already"),
            _ if !data.is_empty() => (REP_ERR_INVALID, "STARTTLS takes no data"),
            Tls::Off => (REP_ERR_POLICY, "this server does not serve TLS"),
            // A client waits for the answer before it sends anything.
            _ if !self.received.is_empty() => return self.close(Reason::BeforeTls),
            Tls::Optional | Tls::Required => {
                self.state = State::Tls;
                (REP_ACK, "")
            }
        };
        self.reply(OPT_STARTTLS, kind, text.as_bytes());
    }

    fn on_export_name(&mut self, data: &[u8], exports: &impl Exports) {
        let name = match name_of(data) {
            Ok(name) => name,
            Err(text) => return self.close(Reason::NotNbd(text)),
        };
        match exports.open(name, Way::ExportName) {
            Ok(info) => {
                let mut reply = info.size_bytes.to_be_bytes().to_vec();
                reply.extend_from_slice(&self.flags(&info).0.to_be_bytes());
                if !self.no_zeroes {
                    reply.resize(reply.len() + 124, 0);
                }
                self.to_send.push_back(reply);
                self.state = State::Transmit(name.into());
            }
            Err(refusal) => self.close(Reason::Refused(refusal.reply().1.into())),
        }
    }

    fn on_go(&mut self, option: u32, name: &str, infos: &[u16], exports: &impl Exports) {
        let found = match option {
            OPT_GO => exports.open(name, Way::Go),
            _ => exports.look(name),
        };
        let info = match found {
            Ok(info) => info,
            Err(refusal) => return self.refuse(option, &refusal),
        };
        let mut export = (InfoType::Export as u16).to_be_bytes().to_vec();
        export.extend_from_slice(&info.size_bytes.to_be_bytes());
        export.extend_from_slice(&self.flags(&info).0.to_be_bytes());
        self.reply(option, REP_INFO, &export);
        for (kind, text) in [(InfoType::Name, name), (InfoType::Description, &info.description)] {
            if infos.contains(&(kind as u16)) {
                let mut data = (kind as u16).to_be_bytes().to_vec();
                data.extend_from_slice(text.as_bytes());
                self.reply(option, REP_INFO, &data);
            }
        }
        let mut sizes = (InfoType::BlockSize as u16).to_be_bytes().to_vec();
        for bytes in [1, 4096, PAYLOAD_MAX] {
            sizes.extend_from_slice(&bytes.to_be_bytes());
        }
        self.reply(option, REP_INFO, &sizes);
        self.reply(option, REP_ACK, &[]);
        if option == OPT_GO {
            self.state = State::Transmit(name.into());
        }
    }

    fn on_contexts(&mut self, option: u32, name: &str, queries: &[&str], exports: &impl Exports) {
        if let Err(refusal) = exports.look(name) {
            return self.refuse(option, &refusal);
        }
        let is_list = option == OPT_LIST_META_CONTEXT;
        let is_chosen = queries.contains(&ALLOCATION)
            || is_list && (queries.is_empty() || queries.contains(&"base:"));
        if is_chosen {
            // A list's numbers mean nothing.
            let id = if is_list { 0 } else { ALLOCATION_ID };
            let mut context = id.to_be_bytes().to_vec();
            context.extend_from_slice(ALLOCATION.as_bytes());
            self.reply(option, REP_META_CONTEXT, &context);
            if !is_list {
                self.allocation_of = Some(name.into());
            }
        }
        self.reply(option, REP_ACK, &[]);
    }

    fn flags(&self, info: &ExportInfo) -> TransmissionFlags {
        match self.structured {
            true => info.flags.with(TransmissionFlags::SEND_DF),
            false => info.flags,
        }
    }

    fn refuse(&mut self, option: u32, refusal: &Refusal) {
        let (kind, text) = refusal.reply();
        self.reply(option, kind, text.as_bytes());
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) {
        let mut bytes = Vec::with_capacity(20 + data.len());
        bytes.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
        bytes.extend_from_slice(&option.to_be_bytes());
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
        bytes.extend_from_slice(data);
        self.to_send.push_back(bytes);
    }
}

fn name_of(bytes: &[u8]) -> Result<&str, &'static str> {
    if bytes.len() > NAME_MAX {
        return Err("the export name is longer than 4096 bytes");
    }
    let name = core::str::from_utf8(bytes).map_err(|_| "the export name is not UTF-8")?;
    if name.contains('\0') { Err("the export name contains a NUL") } else { Ok(name) }
}

/// Name and wanted information of INFO and GO.
fn parse_go(data: &[u8]) -> Result<(&str, Vec<u16>), &'static str> {
    let mut fields = Reader::new(data);
    let malformed = |_: Truncated| "the option is truncated";
    let length = fields.u32("name length").map_err(malformed)?;
    let name = name_of(fields.bytes("name", length as usize).map_err(malformed)?)?;
    let count = fields.u16("information requests").map_err(malformed)?;
    let mut infos = Vec::new();
    for _ in 0..count {
        infos.push(fields.u16("information request").map_err(malformed)?);
    }
    if fields.remaining() > 0 { Err("the option has bytes left over") } else { Ok((name, infos)) }
}

/// Export and wanted contexts of LIST_META_CONTEXT and SET_META_CONTEXT.
fn parse_contexts(data: &[u8]) -> Result<(&str, Vec<&str>), &'static str> {
    let mut fields = Reader::new(data);
    let malformed = |_: Truncated| "the option is truncated";
    let length = fields.u32("name length").map_err(malformed)?;
    let name = name_of(fields.bytes("name", length as usize).map_err(malformed)?)?;
    let count = fields.u32("context queries").map_err(malformed)?;
    let mut queries = Vec::new();
    for _ in 0..count {
        let length = fields.u32("query length").map_err(malformed)?;
        queries.push(name_of(fields.bytes("query", length as usize).map_err(malformed)?)?);
    }
    if fields.remaining() > 0 { Err("the option has bytes left over") } else { Ok((name, queries)) }
}
