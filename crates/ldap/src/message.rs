//! Requests and responses (RFC 4511, 4).

use crate::ber::{
    BOOLEAN, ENUMERATED, INTEGER, Malformed, OCTET_STRING, SEQUENCE, SET, any, put, put_bytes,
    put_number, take, take_number,
};
use crate::filter::Filter;
use alloc::string::String;
use alloc::vec::Vec;
use wire::Reader;

/// Longest message that is taken. An entry with a handful of its attributes has some hundred bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// It was done.
pub const SUCCESS: u32 = 0;
/// More was found than was asked for.
pub const SIZE_LIMIT_EXCEEDED: u32 = 4;
/// There is no entry of that name, or none that one may see.
pub const NO_SUCH_OBJECT: u32 = 32;
/// Name or password is wrong.
pub const INVALID_CREDENTIALS: u32 = 49;
/// The server has too much to do.
pub const BUSY: u32 = 51;
/// The server is not ready.
pub const UNAVAILABLE: u32 = 52;

/// StartTLS (RFC 4511, 4.14).
const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";

/// The version of the protocol.
const VERSION: u32 = 3;

/// Never follow aliases.
const NEVER_DEREFERENCE: u32 = 0;

const BIND: u8 = 0x60;
const BIND_DONE: u8 = 0x61;
const UNBIND: u8 = 0x42;
const SEARCH: u8 = 0x63;
const ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const REFERENCE: u8 = 0x73;
const EXTENDED: u8 = 0x77;
const EXTENDED_DONE: u8 = 0x78;
/// A password, beside other ways to show who one is.
const SIMPLE: u8 = 0x80;
/// Which extended operation it is.
const OPERATION: u8 = 0x80;

/// How far a search goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This entry only.
    Base,
    /// It, and all below it.
    Subtree,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// Encrypt from here on.
    StartTls,
    /// I am this one. With an empty password a server says yes to anybody (RFC 4513, 5.1.2): who asks must not send one.
    Bind {
        /// Distinguished name.
        dn: &'a str,
        /// Password.
        password: &'a str,
    },
    /// Which entries are these?
    Search {
        /// Where to begin.
        base: &'a str,
        /// How far to go.
        scope: Scope,
        /// Entries that are wanted at most.
        entries_max: u32,
        /// Seconds that the server may take.
        seconds_max: u32,
        /// Which.
        filter: &'a Filter,
        /// The name in it.
        name: &'a str,
        /// What of them; `1.1` is nothing.
        attributes: &'a [&'a str],
    },
    /// That was all.
    Unbind,
}

impl Request<'_> {
    /// As it is sent, with a number that no other request of the connection has that waits for its response.
    pub fn to_bytes(&self, id: u32) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, SEQUENCE, |out| {
            put_number(out, INTEGER, id);
            self.put(out);
        });
        out
    }

    fn put(&self, out: &mut Vec<u8>) {
        match *self {
            Self::StartTls => put(out, EXTENDED, |out| put_bytes(out, OPERATION, START_TLS)),
            Self::Bind { dn, password } => put(out, BIND, |out| {
                put_number(out, INTEGER, VERSION);
                put_bytes(out, OCTET_STRING, dn.as_bytes());
                put_bytes(out, SIMPLE, password.as_bytes());
            }),
            Self::Search { base, scope, entries_max, seconds_max, filter, name, attributes } => {
                put(out, SEARCH, |out| {
                    put_bytes(out, OCTET_STRING, base.as_bytes());
                    let scope = match scope {
                        Scope::Base => 0,
                        Scope::Subtree => 2,
                    };
                    put_number(out, ENUMERATED, scope);
                    put_number(out, ENUMERATED, NEVER_DEREFERENCE);
                    put_number(out, INTEGER, entries_max);
                    put_number(out, INTEGER, seconds_max);
                    // Values, and not only the names of attributes.
                    put_bytes(out, BOOLEAN, &[0]);
                    filter.put(out, name);
                    put(out, SEQUENCE, |out| {
                        for attribute in attributes {
                            put_bytes(out, OCTET_STRING, attribute.as_bytes());
                        }
                    });
                });
            }
            Self::Unbind => put_bytes(out, UNBIND, &[]),
        }
    }
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// [`SUCCESS`], or why not.
    pub code: u32,
    /// What the server says to that.
    pub text: String,
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// To a bind.
    Bind(Outcome),
    /// To a search: an entry.
    Entry {
        /// Its distinguished name.
        dn: String,
        /// Attributes with their values, as far as they are text.
        attributes: Vec<(String, Vec<String>)>,
    },
    /// To a search: others know more.
    Reference,
    /// To a search: that was all.
    SearchDone(Outcome),
    /// To StartTLS; with the number 0 nobody has asked: the server ends the connection.
    Extended(Outcome),
    /// Something else, by its tag.
    Other(u8),
}

/// A response, and to which request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The number of the request.
    pub id: u32,
    /// The answer.
    pub response: Response,
}

/// How long the message is that begins so; `None`: more bytes are needed to tell.
///
/// # Errors
/// No message begins so, or it is longer than [`MESSAGE_BYTES_MAX`].
pub fn message_length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    const FIELD: &str = "the message";
    let (Some(&tag), Some(&first)) = (bytes.first(), bytes.get(1)) else {
        return match bytes.first() {
            None | Some(&SEQUENCE) => Ok(None),
            Some(&found) => Err(Malformed::Tag { field: FIELD, found, wanted: SEQUENCE }),
        };
    };
    if tag != SEQUENCE {
        return Err(Malformed::Tag { field: FIELD, found: tag, wanted: SEQUENCE });
    }
    let length = match first {
        ..=0x7f => 2 + usize::from(first),
        0x81..=0x84 => {
            let n_bytes = usize::from(first & 0x7f);
            let Some(field) = bytes.get(2..2 + n_bytes) else { return Ok(None) };
            let length = field.iter().fold(0usize, |length, byte| length << 8 | usize::from(*byte));
            length.saturating_add(2 + n_bytes)
        }
        _ => return Err(Malformed::Length(FIELD)),
    };
    match length <= MESSAGE_BYTES_MAX {
        true => Ok(Some(length)),
        false => Err(Malformed::Length(FIELD)),
    }
}

impl Message {
    /// Reads a whole message.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut message = Reader::new(take(&mut reader, "the message", SEQUENCE)?);
        if reader.remaining() > 0 {
            return Err(Malformed::Trailing(reader.remaining()));
        }
        let id = take_number(&mut message, "the message's number", INTEGER)?;
        // Behind it are controls, of which we have asked for none.
        let (tag, content) = any(&mut message, "the response")?;
        let mut content = Reader::new(content);
        let response = match tag {
            BIND_DONE => Response::Bind(outcome(&mut content)?),
            ENTRY => entry(&mut content)?,
            REFERENCE => Response::Reference,
            SEARCH_DONE => Response::SearchDone(outcome(&mut content)?),
            EXTENDED_DONE => Response::Extended(outcome(&mut content)?),
            other => Response::Other(other),
        };
        Ok(Self { id, response })
    }
}

fn outcome(reader: &mut Reader<'_>) -> Result<Outcome, Malformed> {
    let code = take_number(reader, "the result code", ENUMERATED)?;
    take(reader, "the matched name", OCTET_STRING)?;
    let text = take(reader, "the server's message", OCTET_STRING)?;
    Ok(Outcome { code, text: String::from_utf8_lossy(text).into_owned() })
}

fn entry(reader: &mut Reader<'_>) -> Result<Response, Malformed> {
    let dn = String::from_utf8_lossy(take(reader, "the entry's name", OCTET_STRING)?).into_owned();
    let mut list = Reader::new(take(reader, "the entry's attributes", SEQUENCE)?);
    let mut attributes = Vec::new();
    while list.remaining() > 0 {
        let mut attribute = Reader::new(take(&mut list, "an attribute", SEQUENCE)?);
        let name = take(&mut attribute, "an attribute's name", OCTET_STRING)?;
        let mut values = Reader::new(take(&mut attribute, "an attribute's values", SET)?);
        let mut texts = Vec::new();
        while values.remaining() > 0 {
            let value = take(&mut values, "an attribute's value", OCTET_STRING)?;
            texts.extend(core::str::from_utf8(value).ok().map(String::from));
        }
        attributes.push((String::from_utf8_lossy(name).into_owned(), texts));
    }
    Ok(Response::Entry { dn, attributes })
}
