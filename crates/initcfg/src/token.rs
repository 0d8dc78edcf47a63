//! The secret that a boot server and one boot of one machine share, and what it proves.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::str::FromStr;

/// Length of a token in bytes.
const TOKEN_BYTES: usize = 32;

/// Length of a tag in bytes: nobody guesses one of 2¹²⁸.
const TAG_BYTES: usize = 16;

/// What stands between a line and its tag.
const TAG_MARK: &str = "\ntag ";

/// Bytes that [`Token::seal`] adds to a line.
pub const SEAL_BYTES: usize = TAG_MARK.len() + 2 * TAG_BYTES;

/// A secret of one boot, known to the boot server and to the machine's init and keeper only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token([u8; TOKEN_BYTES]);

/// Proves that somebody who knows the token has written a text.
#[derive(Clone, Copy)]
pub struct Tag([u8; TAG_BYTES]);

/// The text is no token or tag: it must be so many hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {0} hexadecimal digits")]
pub struct NotHex(usize);

impl Token {
    /// The token with these bytes, which must be random.
    pub const fn new(random: [u8; TOKEN_BYTES]) -> Self {
        Self(random)
    }

    /// The bytes of the secret, to be kept where nobody else reads them.
    pub const fn as_bytes(&self) -> &[u8; TOKEN_BYTES] {
        &self.0
    }

    /// The tag of a text (keyed BLAKE3).
    pub fn tag(&self, text: &[u8]) -> Tag {
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&blake3::keyed_hash(&self.0, text).as_bytes()[..TAG_BYTES]);
        Tag(tag)
    }

    /// The line with its tag below it, as a datagram.
    pub fn seal(&self, line: &str) -> String {
        alloc::format!("{line}{TAG_MARK}{}", self.tag(line.as_bytes()))
    }
}

/// Splits a datagram into the line and its tag. What has no tag, or none that can be understood, is all
/// line.
pub fn unseal(datagram: &[u8]) -> (&[u8], Option<Tag>) {
    let Some(end) = datagram.len().checked_sub(SEAL_BYTES) else { return (datagram, None) };
    let (line, seal) = datagram.split_at(end);
    let tag = core::str::from_utf8(seal)
        .ok()
        .and_then(|seal| seal.strip_prefix(TAG_MARK))
        .and_then(|tag| tag.parse().ok());
    if tag.is_some() { (line, tag) } else { (datagram, None) }
}

/// What the tag of a text covers that is given to the boot server by HTTP: the path, too, so that nobody
/// gives it again at another one.
pub fn upload(path: &str, text: &[u8]) -> Vec<u8> {
    [path.as_bytes(), b"\n", text].concat()
}

impl Tag {
    /// The bytes of the tag.
    pub const fn as_bytes(&self) -> &[u8; TAG_BYTES] {
        &self.0
    }
}

/// Takes the same time wherever the first difference is.
impl PartialEq for Tag {
    fn eq(&self, other: &Self) -> bool {
        let differences = self.0.iter().zip(&other.0).map(|(one, other)| one ^ other);
        core::hint::black_box(differences.fold(0, |all, bits| all | bits)) == 0
    }
}

impl Eq for Tag {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({self})")
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl Token {
    /// The token in hexadecimal digits, as the host segment has it. Not `Display`: a secret must not get into a
    /// log by accident.
    pub fn to_hex(&self) -> String {
        to_hex(&self.0)
    }
}

impl FromStr for Token {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        from_hex(text).map(Self)
    }
}

impl FromStr for Tag {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        from_hex(text).map(Self)
    }
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], NotHex> {
    let wrong = NotHex(2 * N);
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong);
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = core::str::from_utf8(digits).map_err(|_| wrong)?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = Token::new([7; TOKEN_BYTES]);

    #[test]
    fn only_who_knows_the_token_can_seal_a_line() {
        let line = "bootlace/1 alive 42 52:54:00:00:00:01";
        let datagram = TOKEN.seal(line);
        assert_eq!(datagram.len(), line.len() + SEAL_BYTES);
        let (unsealed, tag) = unseal(datagram.as_bytes());
        assert_eq!(unsealed, line.as_bytes());
        assert_eq!(tag, Some(TOKEN.tag(line.as_bytes())));
        assert_ne!(tag, Some(TOKEN.tag(b"bootlace/1 alive 43 52:54:00:00:00:01")));
        assert_ne!(tag, Some(Token::new([8; TOKEN_BYTES]).tag(line.as_bytes())));
    }

    #[test]
    fn an_upload_is_good_at_its_path_only() {
        let text = b"pci:v1\n";
        let tag = TOKEN.tag(&upload("/kernel-log/42", text));
        for path in ["/hardware/42", "/kernel-log/4", "/kernel-log/421"] {
            assert_ne!(tag, TOKEN.tag(&upload(path, text)), "{path}");
        }
        assert_ne!(tag, TOKEN.tag(text), "as a line of another kind");
    }

    #[test]
    fn what_has_no_whole_tag_is_all_line() {
        let datagram = TOKEN.seal("line");
        for end in 0..datagram.len() {
            assert_eq!(unseal(&datagram.as_bytes()[..end]), (&datagram.as_bytes()[..end], None));
        }
        for wrong in [datagram.replace("tag", "tax"), datagram.replace("\ntag ", "\ntag +")] {
            assert_eq!(unseal(wrong.as_bytes()), (wrong.as_bytes(), None));
        }
        assert_eq!(unseal(&[0xff; 60]).1, None);
    }

    #[test]
    fn a_token_is_read_back_and_never_shown() {
        assert_eq!(TOKEN.to_hex().parse(), Ok(TOKEN));
        for end in 0..2 * TOKEN_BYTES {
            assert_eq!(TOKEN.to_hex()[..end].parse::<Token>(), Err(NotHex(64)));
        }
        assert_eq!("é".repeat(32).parse::<Token>(), Err(NotHex(64)));
        assert!(!alloc::format!("{TOKEN:?}").contains("07"));
    }
}
