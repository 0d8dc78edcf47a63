//! Filters of searches: read from their text (RFC 4515), written as a search has them (RFC 4511, 4.5.1.7).

use crate::ber::{OCTET_STRING, SEQUENCE, put, put_bytes};
use crate::name::NAME;
use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// Brackets within brackets. People write three.
const DEPTH_MAX: usize = 16;

/// Longest text of a filter, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

const AND: u8 = 0xa0;
const OR: u8 = 0xa1;
const NOT: u8 = 0xa2;
const EQUAL: u8 = 0xa3;
const SUBSTRINGS: u8 = 0xa4;
const AT_LEAST: u8 = 0xa5;
const AT_MOST: u8 = 0xa6;
const PRESENT: u8 = 0x87;
const ABOUT: u8 = 0xa8;
const MATCHES: u8 = 0xa9;

/// Which entries a search finds. `{name}` in its text stands for the name of who logs in, which is put there as bytes when
/// a request is made: nothing that is in a name can be read as a part of the filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Node);

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}, at {at:?}")]
pub struct BadFilter {
    /// What is wrong.
    why: &'static str,
    /// The text from there on, shortened.
    at: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Present(String),
    /// By the tag, which says how.
    Compare(u8, String, Value),
    /// Parts that are not there are empty.
    Substrings(String, Vec<Value>),
    Matches {
        rule: String,
        attribute: String,
        in_dn: bool,
        value: Value,
    },
}

/// Bytes, and places of the name between them: one less than there are pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Value(Vec<Vec<u8>>);

impl Filter {
    /// Reads a filter: `(&(objectClass=person)(uid={name}))`.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, BadFilter> {
        let mut parser = Parser { left: text.trim(), depth: 0 };
        if text.len() > TEXT_BYTES_MAX {
            return Err(parser.failed("a filter has at most 4096 bytes"));
        }
        let node = parser.filter()?;
        match parser.left {
            "" => Ok(Self(node)),
            _ => Err(parser.failed("something stands behind the last bracket")),
        }
    }

    /// Finds every entry.
    pub fn every() -> Self {
        Self(Node::Present("objectClass".to_owned()))
    }

    /// Finds entries that have one of these values.
    pub fn any_of(pairs: &[(&str, &str)]) -> Self {
        let compare = |(attribute, value): &(&str, &str)| {
            let value = Value(vec![value.as_bytes().to_owned()]);
            Node::Compare(EQUAL, (*attribute).to_owned(), value)
        };
        Self(Node::Any(pairs.iter().map(compare).collect()))
    }

    /// Whether it has a place for the name.
    pub fn has_name(&self) -> bool {
        self.0.has_name()
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>, name: &str) {
        self.0.put(out, name);
    }
}

impl Node {
    fn has_name(&self) -> bool {
        match self {
            Self::All(nodes) | Self::Any(nodes) => nodes.iter().any(Self::has_name),
            // Who is not somebody is anybody else.
            Self::Not(_) | Self::Present(_) => false,
            Self::Compare(_, _, value) | Self::Matches { value, .. } => value.has_name(),
            Self::Substrings(_, values) => values.iter().any(Value::has_name),
        }
    }

    fn put(&self, out: &mut Vec<u8>, name: &str) {
        let put_all = |out: &mut Vec<u8>, nodes: &[Self]| {
            nodes.iter().for_each(|node| node.put(out, name));
        };
        match self {
            Self::All(nodes) => put(out, AND, |out| put_all(out, nodes)),
            Self::Any(nodes) => put(out, OR, |out| put_all(out, nodes)),
            Self::Not(node) => put(out, NOT, |out| node.put(out, name)),
            Self::Present(attribute) => put_bytes(out, PRESENT, attribute.as_bytes()),
            Self::Compare(tag, attribute, value) => put(out, *tag, |out| {
                put_bytes(out, OCTET_STRING, attribute.as_bytes());
                put_bytes(out, OCTET_STRING, &value.with(name));
            }),
            Self::Substrings(attribute, values) => put(out, SUBSTRINGS, |out| {
                put_bytes(out, OCTET_STRING, attribute.as_bytes());
                put(out, SEQUENCE, |out| {
                    for (index, value) in values.iter().enumerate() {
                        let value = value.with(name);
                        let tag = match index {
                            0 => 0x80,
                            last if last + 1 == values.len() => 0x82,
                            _ => 0x81,
                        };
                        if !value.is_empty() {
                            put_bytes(out, tag, &value);
                        }
                    }
                });
            }),
            Self::Matches { rule, attribute, in_dn, value } => put(out, MATCHES, |out| {
                if !rule.is_empty() {
                    put_bytes(out, 0x81, rule.as_bytes());
                }
                if !attribute.is_empty() {
                    put_bytes(out, 0x82, attribute.as_bytes());
                }
                put_bytes(out, 0x83, &value.with(name));
                if *in_dn {
                    put_bytes(out, 0x84, &[0xff]);
                }
            }),
        }
    }
}

impl Value {
    fn has_name(&self) -> bool {
        self.0.len() > 1
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty) && !self.has_name()
    }

    fn with(&self, name: &str) -> Vec<u8> {
        self.0.join(name.as_bytes())
    }
}

struct Parser<'a> {
    left: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn failed(&self, why: &'static str) -> BadFilter {
        BadFilter { why, at: self.left.chars().take(24).collect() }
    }

    fn takes(&mut self, letter: char) -> bool {
        let rest = self.left.strip_prefix(letter);
        self.left = rest.unwrap_or(self.left);
        rest.is_some()
    }

    fn filter(&mut self) -> Result<Node, BadFilter> {
        if !self.takes('(') {
            return Err(self.failed("a bracket ( is missing"));
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.failed("there are too many brackets within brackets"));
        }
        let node = if self.takes('&') {
            Node::All(self.filters()?)
        } else if self.takes('|') {
            Node::Any(self.filters()?)
        } else if self.takes('!') {
            Node::Not(Box::new(self.filter()?))
        } else {
            self.item()?
        };
        if !self.takes(')') {
            return Err(self.failed("a bracket ) is missing"));
        }
        self.depth -= 1;
        Ok(node)
    }

    fn filters(&mut self) -> Result<Vec<Node>, BadFilter> {
        let mut nodes = vec![self.filter()?];
        while self.left.starts_with('(') {
            nodes.push(self.filter()?);
        }
        Ok(nodes)
    }

    /// `attribute=value` and the like, up to its bracket.
    fn item(&mut self) -> Result<Node, BadFilter> {
        let end = self.left.find(['(', ')']).unwrap_or(self.left.len());
        let (item, rest) = self.left.split_at(end);
        let Some((before, value)) = item.split_once('=') else {
            return Err(self.failed("attribute=value is missing"));
        };
        let node = match before.char_indices().next_back() {
            Some((at, '~')) => self.compare(ABOUT, &before[..at], value)?,
            Some((at, '>')) => self.compare(AT_LEAST, &before[..at], value)?,
            Some((at, '<')) => self.compare(AT_MOST, &before[..at], value)?,
            Some((at, ':')) => self.matches(&before[..at], value)?,
            _ if value == "*" => Node::Present(self.attribute(before)?),
            _ if value.contains('*') => {
                let values = value.split('*').map(|part| self.value(part));
                let values: Vec<Value> = values.collect::<Result<_, _>>()?;
                let inner = values.get(1..values.len() - 1).unwrap_or_default();
                if inner.iter().any(Value::is_empty) {
                    return Err(self.failed("two ** stand side by side"));
                }
                Node::Substrings(self.attribute(before)?, values)
            }
            _ => self.compare(EQUAL, before, value)?,
        };
        self.left = rest;
        Ok(node)
    }

    fn compare(&self, tag: u8, attribute: &str, value: &str) -> Result<Node, BadFilter> {
        Ok(Node::Compare(tag, self.attribute(attribute)?, self.value(value)?))
    }

    /// `attribute:dn:rule:=value`, of which most may be left out.
    fn matches(&self, before: &str, value: &str) -> Result<Node, BadFilter> {
        let mut parts = before.split(':');
        let attribute = match parts.next().unwrap_or_default() {
            "" => String::new(),
            attribute => self.attribute(attribute)?,
        };
        let (mut in_dn, mut rule) = (false, String::new());
        for part in parts {
            match part {
                "dn" if !in_dn && rule.is_empty() => in_dn = true,
                part if rule.is_empty() => rule = self.attribute(part)?,
                _ => return Err(self.failed("this has too many :")),
            }
        }
        match attribute.is_empty() && rule.is_empty() {
            true => Err(self.failed("an attribute is missing")),
            false => Ok(Node::Matches { rule, attribute, in_dn, value: self.value(value)? }),
        }
    }

    fn attribute(&self, text: &str) -> Result<String, BadFilter> {
        let is_right = |byte: u8| byte.is_ascii_alphanumeric() || b"-.;".contains(&byte);
        match !text.is_empty() && text.bytes().all(is_right) {
            true => Ok(text.to_owned()),
            false => Err(self.failed("this does not begin with the name of an attribute")),
        }
    }

    fn value(&self, text: &'a str) -> Result<Value, BadFilter> {
        let unescaped = |piece: &str| {
            let mut bytes = Vec::new();
            let mut parts = piece.split('\\');
            bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
            for part in parts {
                let code = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
                let hex_digits = part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
                let code = code.filter(|_| hex_digits);
                bytes.push(
                    code.ok_or_else(|| self.failed("\\ must have two hex digits behind it"))?,
                );
                bytes.extend_from_slice(&part.as_bytes()[2..]);
            }
            match text.contains(['*', '\0']) {
                true => Err(self.failed("* and NUL are written as \\2a and \\00 here")),
                false => Ok(bytes),
            }
        };
        text.split(NAME).map(unescaped).collect::<Result<_, _>>().map(Value)
    }
}
