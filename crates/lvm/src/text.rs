//! The language in which LVM writes metadata: sections with fields, of which values are numbers, texts and lists.

use crate::Malformed;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

/// Sections inside sections; LVM has four.
const DEPTH_MAX: usize = 16;

/// What stands behind a name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Number(i64),
    Text(String),
    List(Vec<Self>),
    Section(Section),
}

/// Names, and what stands behind them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Section(pub(crate) BTreeMap<String, Node>);

impl Section {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Malformed> {
        // LVM ends its text with a NUL.
        let mut parser = Parser { left: text.strip_suffix(&[0]).unwrap_or(text) };
        let section = parser.section(0)?;
        parser.skip();
        match parser.left.is_empty() {
            true => Ok(section),
            false => Err(Malformed("its metadata go on behind their end")),
        }
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        match self.0.get(name)? {
            Node::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn list(&self, name: &str) -> &[Node] {
        match self.0.get(name) {
            Some(Node::List(list)) => list,
            _ => &[],
        }
    }

    /// Whether a list has this word.
    pub(crate) fn has(&self, name: &str, word: &str) -> bool {
        self.list(name).iter().any(|node| matches!(node, Node::Text(text) if text == word))
    }

    pub(crate) fn section(&self, name: &str) -> Option<&Self> {
        match self.0.get(name)? {
            Node::Section(section) => Some(section),
            _ => None,
        }
    }

    pub(crate) fn sections(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.0.iter().filter_map(|(name, node)| match node {
            Node::Section(section) => Some((name.as_str(), section)),
            _ => None,
        })
    }
}

struct Parser<'a> {
    left: &'a [u8],
}

const CUT: Malformed = Malformed("its metadata are cut off");
const ODD: Malformed = Malformed("its metadata make no sense");

impl Parser<'_> {
    /// Names with what is behind them, up to a brace or the end.
    fn section(&mut self, depth: usize) -> Result<Section, Malformed> {
        let mut section = Section::default();
        loop {
            self.skip();
            if matches!(self.left.first(), None | Some(b'}')) {
                return Ok(section);
            }
            let name = self.word()?;
            self.skip();
            let node = match self.take()? {
                b'=' => self.value(depth)?,
                b'{' if depth < DEPTH_MAX => {
                    let inner = self.section(depth + 1)?;
                    if self.take()? != b'}' {
                        return Err(ODD);
                    }
                    Node::Section(inner)
                }
                _ => return Err(ODD),
            };
            section.0.insert(name, node);
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node, Malformed> {
        self.skip();
        match *self.left.first().ok_or(CUT)? {
            b'"' => self.quoted().map(Node::Text),
            b'[' if depth < DEPTH_MAX => {
                self.take()?;
                let mut list = Vec::new();
                loop {
                    self.skip();
                    match *self.left.first().ok_or(CUT)? {
                        b']' => {
                            self.take()?;
                            return Ok(Node::List(list));
                        }
                        b',' => {
                            self.take()?;
                        }
                        _ => list.push(self.value(depth + 1)?),
                    }
                }
            }
            _ => self.number(),
        }
    }

    /// A whole number; what is behind its point is left out, as nothing that counts here has one.
    fn number(&mut self) -> Result<Node, Malformed> {
        let word = self.word()?;
        let whole = word.split('.').next().unwrap_or_default();
        whole.parse().map(Node::Number).map_err(|_| ODD)
    }

    fn quoted(&mut self) -> Result<String, Malformed> {
        self.take()?;
        let mut bytes = Vec::new();
        loop {
            match self.take()? {
                b'"' => break,
                b'\\' => bytes.push(self.take()?),
                byte => bytes.push(byte),
            }
        }
        String::from_utf8(bytes).map_err(|_| ODD)
    }

    fn word(&mut self) -> Result<String, Malformed> {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.+/#!@".contains(byte);
        let length = self.left.iter().take_while(|byte| is_part(byte)).count();
        let (word, left) = self.left.split_at_checked(length).ok_or(CUT)?;
        self.left = left;
        match core::str::from_utf8(word) {
            Ok(word) if !word.is_empty() => Ok(word.into()),
            _ => Err(if left.is_empty() { CUT } else { ODD }),
        }
    }

    fn take(&mut self) -> Result<u8, Malformed> {
        let (first, left) = self.left.split_first().ok_or(CUT)?;
        self.left = left;
        Ok(*first)
    }

    /// Skips blanks and comments.
    fn skip(&mut self) {
        loop {
            let blanks = self.left.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.left = self.left.get(blanks..).unwrap_or_default();
            if self.left.first() != Some(&b'#') {
                return;
            }
            let line = self.left.iter().take_while(|&&byte| byte != b'\n').count();
            self.left = self.left.get(line..).unwrap_or_default();
        }
    }
}
