//! How the files that a site lays over a machine's root reach it: sealed by the secret of the boot, so that they may come over a
//! network where others listen. What is sealed is an [`Overlay`](crate::Overlay).

use crate::{OVERLAY_MAX, Tag, Token};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};

/// Where a boot's files are on the boot server; the number of the boot and a proof follow ([`FilesAsked`]).
pub const FILES_PATH: &str = "/files/";

/// Random bytes that each sealing needs: so many that none comes twice.
pub const FILES_NONCE_BYTES: usize = 24;

/// What the sealing adds at the end.
const SEAL_BYTES: usize = 16;

const FIRST_LINE: &[u8] = b"bootlace-files/1\n";

/// Longest sealed file in bytes.
pub const FILES_SEALED_MAX: usize = FIRST_LINE.len() + FILES_NONCE_BYTES + OVERLAY_MAX + SEAL_BYTES;

/// For what the key is that is made of the boot's secret.
const KEY_CONTEXT: &str = "bootlace 2026-11-30 files that are laid over the root of a machine";

/// Who asks for the files of a boot, and the proof that he knows its secret: he could not read them without, but nobody makes the
/// server seal them as often as he likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilesAsked {
    /// The boot.
    pub boot: u64,
    /// Of [`FilesAsked::text`].
    pub tag: Tag,
}

/// The bytes are not the files of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilesError {
    /// They begin otherwise.
    #[error("not a bootlace-files/1 file")]
    NotOurs,
    /// They are longer than [`FILES_SEALED_MAX`].
    #[error("too long")]
    TooLong,
    /// They are cut off, were changed, or are sealed by another secret.
    #[error("cut off, changed on the way, or not for this boot")]
    NotSealed,
}

impl FilesAsked {
    /// With the proof by this secret.
    pub fn new(boot: u64, token: &Token) -> Self {
        Self { boot, tag: token.tag(&Self::text(boot)) }
    }

    /// What the proof covers.
    pub fn text(boot: u64) -> Vec<u8> {
        alloc::format!("{FILES_PATH}{boot}").into_bytes()
    }

    /// Where the files are.
    pub fn to_path(self) -> String {
        alloc::format!("{FILES_PATH}{}/{}", self.boot, self.tag)
    }

    /// What a path asks for; `None`: it is another one.
    pub fn from_path(path: &str) -> Option<Self> {
        let (boot, tag) = path.strip_prefix(FILES_PATH)?.split_once('/')?;
        Some(Self { boot: boot.parse().ok()?, tag: tag.parse().ok()? })
    }
}

fn cipher(token: &Token) -> XChaCha20Poly1305 {
    let key = blake3::derive_key(KEY_CONTEXT, token.as_bytes());
    XChaCha20Poly1305::new(&Key::from(key))
}

/// Seals what is laid over the root in this boot; `None`: it is too long. The nonce must be random.
pub fn seal_files(
    token: &Token,
    boot: u64,
    nonce: [u8; FILES_NONCE_BYTES],
    overlay: &[u8],
) -> Option<Vec<u8>> {
    if overlay.len() > OVERLAY_MAX {
        return None;
    }
    let payload = Payload { msg: overlay, aad: &FilesAsked::text(boot) };
    let sealed = cipher(token).encrypt(&XNonce::from(nonce), payload).ok()?;
    Some([FIRST_LINE, &nonce, &sealed].concat())
}

/// What was sealed for this boot.
///
/// # Errors
/// See [`FilesError`].
pub fn open_files(token: &Token, boot: u64, file: &[u8]) -> Result<Vec<u8>, FilesError> {
    if file.len() > FILES_SEALED_MAX {
        return Err(FilesError::TooLong);
    }
    let rest = file.strip_prefix(FIRST_LINE).ok_or(FilesError::NotOurs)?;
    let (nonce, sealed) =
        rest.split_first_chunk::<FILES_NONCE_BYTES>().ok_or(FilesError::NotSealed)?;
    let payload = Payload { msg: sealed, aad: &FilesAsked::text(boot) };
    let nonce = XNonce::from(nonce.to_owned());
    cipher(token).decrypt(&nonce, payload).map_err(|_| FilesError::NotSealed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const TOKEN: Token = Token::new([7; 32]);
    const NONCE: [u8; FILES_NONCE_BYTES] = [9; FILES_NONCE_BYTES];

    #[test]
    fn only_this_boot_with_its_secret_reads_what_was_sealed_for_it() {
        let text = b"bootlace-overlay/1\nend\n";
        let sealed = seal_files(&TOKEN, 42, NONCE, text).unwrap();
        assert_eq!(open_files(&TOKEN, 42, &sealed), Ok(text.to_vec()));
        assert!(!sealed.windows(7).any(|part| part == b"overlay"));
        for end in 0..sealed.len() {
            assert!(open_files(&TOKEN, 42, &sealed[..end]).is_err(), "{end}");
        }
        for at in FIRST_LINE.len()..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open_files(&TOKEN, 42, &changed), Err(FilesError::NotSealed), "{at}");
        }
        assert_eq!(open_files(&TOKEN, 43, &sealed), Err(FilesError::NotSealed));
        let other = Token::new([8; 32]);
        assert_eq!(open_files(&other, 42, &sealed), Err(FilesError::NotSealed));
        assert_eq!(open_files(&TOKEN, 42, b"GIF89a"), Err(FilesError::NotOurs));
    }

    #[test]
    fn the_longest_fits_and_no_longer_one_is_read() {
        let longest = vec![b'x'; OVERLAY_MAX];
        let sealed = seal_files(&TOKEN, 1, NONCE, &longest).unwrap();
        assert_eq!(sealed.len(), FILES_SEALED_MAX);
        assert_eq!(open_files(&TOKEN, 1, &sealed), Ok(longest));
        assert_eq!(seal_files(&TOKEN, 1, NONCE, &vec![0; OVERLAY_MAX + 1]), None);
        let longer = [&sealed[..], b"x"].concat();
        assert_eq!(open_files(&TOKEN, 1, &longer), Err(FilesError::TooLong));
    }

    #[test]
    fn a_path_says_which_boot_and_proves_it() {
        let asked = FilesAsked::new(42, &TOKEN);
        assert_eq!(FilesAsked::from_path(&asked.to_path()), Some(asked));
        assert_eq!(asked.tag, TOKEN.tag(b"/files/42"));
        let path = asked.to_path();
        for end in 0..path.len() {
            assert_eq!(FilesAsked::from_path(&path[..end]), None, "{end}");
        }
        assert_eq!(FilesAsked::from_path("/files/42"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = open_files(&TOKEN, 42, &bytes);
            let _ = open_files(&TOKEN, 42, &[FIRST_LINE, &bytes].concat());
        }
    }
}
