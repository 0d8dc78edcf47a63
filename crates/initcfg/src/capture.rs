//! Capture of a PC: what init is to send of the PC's own disks, and how that reaches the boot server: as a tar archive in pieces, each
//! sealed by the secret of the boot, so that nobody else reads them, puts others in their place, or leaves the end away.

use crate::{ParseChoiceError, Tag, Token};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use core::fmt;
use core::str::FromStr;

/// Where a boot puts what it captures, by HTTP `PUT` on the boot server; the number of the boot and a proof follow
/// ([`CaptureProof`]).
pub const CAPTURE_PATH: &str = "/capture/";

/// Most bytes of one piece, before it is sealed.
pub const CAPTURE_PIECE_MAX: usize = 256 << 10;

/// Longest text of an order, which goes to the kernel's command line, of which there are 2048 bytes.
const ORDER_MAX: usize = 512;

/// Longest description of what is sent.
const ABOUT_MAX: usize = 16 << 10;

/// Remarks that a description has at most.
const REMARKS_MAX: usize = 32;

/// Random bytes that each stream begins with; the number of the piece follows them in its nonce.
pub const CAPTURE_RANDOM_BYTES: usize = 16;

const FIRST_LINE: &[u8] = b"bootlace-capture/1\n";
const HEAD_BYTES: usize = 4;
const SEAL_BYTES: usize = 16;
/// In the head of the last piece.
const LAST: u32 = 1 << 31;
const KEY_CONTEXT: &str = "bootlace 2026-11-30 what is captured of a PC";

/// What a PC does when it has sent everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureEnd {
    /// It restarts, and is what it was.
    Restart,
    /// It switches itself off.
    PowerOff,
}

/// What init is to send. Displayed as it stands on the kernel's command line: `restart,disk=sda2,without=/home`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureOrder {
    /// What the PC does afterwards.
    pub then: CaptureEnd,
    /// Where the root is: `sda2`, or `vg0/root` for a logical volume; `None`: there must be one only.
    pub disk: Option<String>,
    /// Folders whose content stays away, each with a slash before it and none at its end.
    pub without: Vec<String>,
}

impl fmt::Display for CaptureOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.then {
            CaptureEnd::Restart => "restart",
            CaptureEnd::PowerOff => "poweroff",
        })?;
        if let Some(disk) = &self.disk {
            write!(f, ",disk={disk}")?;
        }
        self.without.iter().try_for_each(|folder| write!(f, ",without={folder}"))
    }
}

impl FromStr for CaptureOrder {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let wanted = "what to capture, of at most 512 letters: restart or poweroff, then ,disk=sda2 or ,disk=GROUP/VOLUME, and \
                      ,without=/FOLDER as often as you like, of letters, digits and the signs . _ - + @ : /";
        let refused = || ParseChoiceError::new(text, wanted);
        if text.len() > ORDER_MAX {
            return Err(refused());
        }
        let mut words = text.split(',');
        let then = match words.next() {
            Some("restart") => CaptureEnd::Restart,
            Some("poweroff") => CaptureEnd::PowerOff,
            _ => return Err(refused()),
        };
        let mut order = Self { then, disk: None, without: Vec::new() };
        for word in words {
            if let Some(disk) = word.strip_prefix("disk=") {
                let disk = disk.strip_prefix("/dev/").unwrap_or(disk);
                if order.disk.is_some() || disk.starts_with('/') || !is_plain(disk) {
                    return Err(refused());
                }
                order.disk = Some(disk.to_owned());
            } else {
                let folder = word.strip_prefix("without=").ok_or_else(refused)?;
                let folder = folder.trim_end_matches('/');
                if !folder.starts_with('/') || !is_plain(folder) {
                    return Err(refused());
                }
                order.without.push(folder.to_owned());
            }
        }
        Ok(order)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for CaptureOrder {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for CaptureOrder {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether no loader and no kernel reads anything else in it than what it is.
fn is_plain(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+@:/".contains(&byte);
    let is_step = |part: &str| matches!(part, "." | "..");
    !text.is_empty() && text.bytes().all(is_plain) && !text.split('/').any(is_step)
}

/// Which boot sends, and the proof that it knows its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureProof {
    /// The boot.
    pub boot: u64,
    /// Of [`CaptureProof::text`].
    pub tag: Tag,
}

impl CaptureProof {
    /// With the proof by this secret.
    pub fn new(boot: u64, token: &Token) -> Self {
        Self { boot, tag: token.tag(&Self::text(boot)) }
    }

    /// What the proof covers.
    pub fn text(boot: u64) -> Vec<u8> {
        format!("{CAPTURE_PATH}{boot}").into_bytes()
    }

    /// Where it sends.
    pub fn to_path(self) -> String {
        format!("{CAPTURE_PATH}{}/{}", self.boot, self.tag)
    }

    /// What a path says; `None`: it is another one.
    pub fn from_path(path: &str) -> Option<Self> {
        let (boot, tag) = path.strip_prefix(CAPTURE_PATH)?.split_once('/')?;
        Some(Self { boot: boot.parse().ok()?, tag: tag.parse().ok()? })
    }
}

/// What is sent, for people and for whoever makes room: the first piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureAbout {
    /// What the files take where they are.
    pub used_bytes: u64,
    /// Where they are: `Debian GNU/Linux 12 on sda2 (ext4)`.
    pub what: String,
    /// What stays away, and why.
    pub remarks: Vec<String>,
}

impl CaptureAbout {
    /// The piece.
    pub fn to_piece(&self) -> Vec<u8> {
        let line = |key: &str, value: &str| format!("{key}={}\n", value.replace('\n', " "));
        let mut text = format!("used={}\n{}", self.used_bytes, line("what", &self.what));
        for remark in self.remarks.iter().take(REMARKS_MAX) {
            let line = line("remark", remark);
            if text.len() + line.len() < ABOUT_MAX {
                text.push_str(&line);
            }
        }
        text.into_bytes()
    }

    /// Reads the piece; `None`: it is none. Keys that are not known are ignored.
    pub fn parse(piece: &[u8]) -> Option<Self> {
        let text = core::str::from_utf8(piece.get(..piece.len().min(ABOUT_MAX))?).ok()?;
        let pairs = || text.lines().filter_map(|line| line.split_once('='));
        let one = |key| pairs().find(|(name, _)| *name == key).map(|(_, value)| value);
        let remarks = pairs().filter(|(key, _)| *key == "remark").take(REMARKS_MAX);
        Some(Self {
            used_bytes: one("used")?.parse().ok()?,
            what: one("what")?.to_owned(),
            remarks: remarks.map(|(_, value)| value.to_owned()).collect(),
        })
    }
}

/// The bytes are not what this boot captures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// They begin otherwise.
    #[error("not a bootlace-capture/1 stream")]
    NotOurs,
    /// A piece is longer than [`CAPTURE_PIECE_MAX`].
    #[error("a piece is too long")]
    TooLong,
    /// A piece was changed on the way, or is sealed by another secret.
    #[error("changed on the way, or not of this boot")]
    NotSealed,
    /// Something follows the last piece.
    #[error("something follows its end")]
    AfterEnd,
}

/// What both ends have in common.
struct Pieces {
    cipher: XChaCha20Poly1305,
    boot: u64,
    random: [u8; CAPTURE_RANDOM_BYTES],
    n_pieces: u64,
}

impl Pieces {
    fn new(token: &Token, boot: u64, random: [u8; CAPTURE_RANDOM_BYTES]) -> Self {
        let key = blake3::derive_key(KEY_CONTEXT, token.as_bytes());
        let cipher = XChaCha20Poly1305::new(&Key::from(key));
        Self { cipher, boot, random, n_pieces: 0 }
    }

    /// The nonce of the next piece, and what is proven beside it: of which boot it is, how long, and whether it is the last.
    fn next(&mut self, head: [u8; HEAD_BYTES]) -> (XNonce, Vec<u8>) {
        let mut nonce = [0; CAPTURE_RANDOM_BYTES + 8];
        nonce[..CAPTURE_RANDOM_BYTES].copy_from_slice(&self.random);
        nonce[CAPTURE_RANDOM_BYTES..].copy_from_slice(&self.n_pieces.to_le_bytes());
        self.n_pieces += 1;
        let mut beside = CaptureProof::text(self.boot);
        beside.extend(head);
        (XNonce::from(nonce), beside)
    }
}

/// Seals the pieces of a stream.
pub struct CaptureSealer(Pieces);

impl CaptureSealer {
    /// For this boot with its secret; `random` must be that, and is used once.
    pub fn new(token: &Token, boot: u64, random: [u8; CAPTURE_RANDOM_BYTES]) -> Self {
        Self(Pieces::new(token, boot, random))
    }

    /// What the stream begins with.
    pub fn start(&self) -> Vec<u8> {
        [FIRST_LINE, &self.0.random].concat()
    }

    /// The next piece as it is sent; `None`: it has more than [`CAPTURE_PIECE_MAX`] bytes.
    pub fn seal(&mut self, piece: &[u8], is_last: bool) -> Option<Vec<u8>> {
        if piece.len() > CAPTURE_PIECE_MAX {
            return None;
        }
        let head = (piece.len() as u32 | if is_last { LAST } else { 0 }).to_le_bytes();
        let (nonce, beside) = self.0.next(head);
        let payload = Payload { msg: piece, aad: &beside };
        let sealed = self.0.cipher.encrypt(&nonce, payload).ok()?;
        Some([&head[..], &sealed].concat())
    }
}

/// Opens the pieces of a stream, of which bytes come as they come.
pub struct CaptureOpener {
    token: Token,
    boot: u64,
    pieces: Option<Pieces>,
    waiting: Vec<u8>,
    has_ended: bool,
}

impl CaptureOpener {
    /// For this boot with its secret.
    pub fn new(token: &Token, boot: u64) -> Self {
        Self { token: *token, boot, pieces: None, waiting: Vec::new(), has_ended: false }
    }

    /// These bytes have come. At most a piece and what is added here is kept, if [`piece`](Self::piece) is called until it has no more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// Whether the last piece was opened. A stream that ends before is cut off.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The next piece; `None`: it has not come yet.
    ///
    /// # Errors
    /// See [`CaptureError`]; nothing more can be had then.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>, CaptureError> {
        if self.has_ended {
            return if self.waiting.is_empty() { Ok(None) } else { Err(CaptureError::AfterEnd) };
        }
        let pieces = match &mut self.pieces {
            Some(pieces) => pieces,
            None => {
                let n_first = self.waiting.len().min(FIRST_LINE.len());
                if self.waiting[..n_first] != FIRST_LINE[..n_first] {
                    return Err(CaptureError::NotOurs);
                }
                let random = self.waiting.get(FIRST_LINE.len()..);
                let random = random.and_then(|rest| rest.first_chunk().copied());
                let Some(random) = random else { return Ok(None) };
                self.waiting.drain(..FIRST_LINE.len() + CAPTURE_RANDOM_BYTES);
                self.pieces.insert(Pieces::new(&self.token, self.boot, random))
            }
        };
        let Some((head, rest)) = self.waiting.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let (word, head) = (u32::from_le_bytes(*head), *head);
        let length = (word & !LAST) as usize;
        if length > CAPTURE_PIECE_MAX {
            return Err(CaptureError::TooLong);
        }
        let Some(sealed) = rest.get(..length + SEAL_BYTES) else { return Ok(None) };
        let (nonce, beside) = pieces.next(head);
        let payload = Payload { msg: sealed, aad: &beside };
        let piece = pieces.cipher.decrypt(&nonce, payload);
        let piece = piece.map_err(|_| CaptureError::NotSealed)?;
        self.waiting.drain(..HEAD_BYTES + length + SEAL_BYTES);
        self.has_ended = word & LAST != 0;
        Ok(Some(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use proptest::prelude::*;

    const TOKEN: Token = Token::new([7; 32]);

    fn stream() -> Vec<u8> {
        let mut sealer = CaptureSealer::new(&TOKEN, 42, [9; CAPTURE_RANDOM_BYTES]);
        let mut bytes = sealer.start();
        for (piece, is_last) in [(&b"about"[..], false), (b"", false), (b"tar", true)] {
            bytes.extend(sealer.seal(piece, is_last).unwrap());
        }
        bytes
    }

    /// All pieces, and whether that was all.
    fn open(token: &Token, boot: u64, bytes: &[u8]) -> Result<(Vec<Vec<u8>>, bool), CaptureError> {
        let mut opener = CaptureOpener::new(token, boot);
        let mut pieces = Vec::new();
        for part in bytes.chunks(5) {
            opener.push(part);
            while let Some(piece) = opener.piece()? {
                pieces.push(piece);
            }
        }
        opener.piece()?;
        Ok((pieces, opener.has_ended()))
    }

    #[test]
    fn what_was_sealed_is_opened_by_the_same_boot_only() {
        let stream = stream();
        let all = vec![b"about".to_vec(), Vec::new(), b"tar".to_vec()];
        assert_eq!(open(&TOKEN, 42, &stream), Ok((all, true)));
        assert_eq!(open(&TOKEN, 43, &stream), Err(CaptureError::NotSealed));
        assert_eq!(open(&Token::new([8; 32]), 42, &stream), Err(CaptureError::NotSealed));
        assert!(!stream.windows(5).any(|part| part == b"about"));
        let longer = [&stream[..], b"x"].concat();
        assert_eq!(open(&TOKEN, 42, &longer), Err(CaptureError::AfterEnd));
    }

    #[test]
    fn no_prefix_is_all_and_no_change_is_taken() {
        let stream = stream();
        for end in 0..stream.len() {
            assert!(matches!(open(&TOKEN, 42, &stream[..end]), Ok((_, false))), "{end}");
        }
        for at in 0..stream.len() {
            let mut changed = stream.clone();
            changed[at] ^= 0x40;
            let opened = open(&TOKEN, 42, &changed);
            assert!(!matches!(opened, Ok((_, true))), "{at}: {opened:?}");
        }
        // Two pieces that change their places.
        let begin = FIRST_LINE.len() + CAPTURE_RANDOM_BYTES;
        let first = HEAD_BYTES + 5 + SEAL_BYTES;
        let second = HEAD_BYTES + SEAL_BYTES;
        let mut swapped = stream.clone();
        swapped[begin..begin + first + second].rotate_left(first);
        assert_eq!(open(&TOKEN, 42, &swapped), Err(CaptureError::NotSealed));
    }

    #[test]
    fn a_piece_has_a_longest() {
        let mut sealer = CaptureSealer::new(&TOKEN, 1, [0; CAPTURE_RANDOM_BYTES]);
        assert!(sealer.seal(&vec![0; CAPTURE_PIECE_MAX], false).is_some());
        assert!(sealer.seal(&vec![0; CAPTURE_PIECE_MAX + 1], false).is_none());
        let head = (CAPTURE_PIECE_MAX as u32 + 1).to_le_bytes();
        let bytes = [&sealer.start()[..], &head].concat();
        assert_eq!(open(&TOKEN, 1, &bytes), Err(CaptureError::TooLong));
    }

    #[test]
    fn an_order_is_one_word_of_the_command_line() {
        for text in
            ["restart", "poweroff,disk=sda2", "restart,disk=vg0/root,without=/home,without=/srv/a"]
        {
            assert_eq!(text.parse::<CaptureOrder>().unwrap().to_string(), text);
        }
        let order: CaptureOrder = "restart,disk=/dev/nvme0n1p2,without=/home/".parse().unwrap();
        assert_eq!(order.to_string(), "restart,disk=nvme0n1p2,without=/home");
        for wrong in [
            "",
            "halt",
            "restart,",
            "restart,disk=",
            "restart,disk=sda1,disk=sda2",
            "restart,disk=../x",
            "restart,without=home",
            "restart,without=/",
            "restart,without=/a b",
            "restart,without=/../x",
            "restart,without=/$x",
            &format!("restart,without=/{}", "x".repeat(600)),
        ] {
            assert!(wrong.parse::<CaptureOrder>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_says_which_boot_and_proves_it() {
        let proof = CaptureProof::new(42, &TOKEN);
        let path = proof.to_path();
        assert_eq!(CaptureProof::from_path(&path), Some(proof));
        for end in 0..path.len() {
            assert_eq!(CaptureProof::from_path(&path[..end]), None, "{end}");
        }
    }

    #[test]
    fn what_is_sent_is_described_in_lines() {
        let remarks = vec!["/home: somebody wants it so".to_owned(), "a\nb".to_owned()];
        let about = CaptureAbout { used_bytes: 5, what: "Debian = 12".to_owned(), remarks };
        let piece = about.to_piece();
        let read = CaptureAbout::parse(&piece).unwrap();
        assert_eq!((read.used_bytes, read.what.as_str()), (5, "Debian = 12"));
        assert_eq!(read.remarks, ["/home: somebody wants it so", "a b"]);
        for end in 0..piece.len() {
            let _ = CaptureAbout::parse(&piece[..end]);
        }
        assert_eq!(CaptureAbout::parse(b"used=x\nwhat=y\n"), None);
        let many = CaptureAbout { remarks: vec!["x".repeat(2000); 100], ..about };
        assert!(many.to_piece().len() <= ABOUT_MAX);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, at in 0..200usize, text: String) {
            let _ = open(&TOKEN, 42, &bytes);
            let mut stream = stream();
            let at = at.min(stream.len());
            stream.splice(at.., bytes.clone());
            let _ = open(&TOKEN, 42, &stream);
            let _ = CaptureAbout::parse(&bytes);
            let _ = text.parse::<CaptureOrder>();
        }
    }
}
