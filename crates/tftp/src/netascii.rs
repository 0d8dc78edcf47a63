//! Text mode, which only old tools still ask for.

use alloc::vec::Vec;

/// Longest file that is converted, in bytes. Text mode is for small text files; a kernel in text
/// mode is a mistake of the client's command line, and converting costs memory per transfer.
pub const NETASCII_MAX: usize = 1 << 20;

/// `content` with network line ends: LF becomes CR LF, CR becomes CR NUL (RFC 1350 section 1, RFC 854).
/// `None` if it is longer than [`NETASCII_MAX`].
pub fn netascii(content: &[u8]) -> Option<Vec<u8>> {
    if content.len() > NETASCII_MAX {
        return None;
    }
    let mut text = Vec::with_capacity(content.len() + content.len() / 32);
    for &byte in content {
        match byte {
            b'\n' => text.extend_from_slice(b"\r\n"),
            b'\r' => text.extend_from_slice(b"\r\0"),
            _ => text.push(byte),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_become_network_line_ends() {
        assert_eq!(netascii(b"a\nb\rc\r\n").as_deref(), Some(&b"a\r\nb\r\0c\r\0\r\n"[..]));
        assert_eq!(netascii(&alloc::vec![0; NETASCII_MAX + 1]), None);
    }
}
