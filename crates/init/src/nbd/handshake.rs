//! The client's side of the NBD handshake (fixed newstyle, NBD_OPT_GO).

use std::io::{self, Read, Write};

const SERVER_MAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_ERROR: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;

/// Longest answer to an option that is read; names and texts have at most 4096 bytes.
const REPLY_SIZE_MAX: u32 = 16 * 1024;

/// Answers to one option that are read; a server sends one per kind of information.
const REPLIES_MAX: usize = 64;

/// What the server has under the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Export {
    pub(super) size_bytes: u64,
    /// Transmission flags, as the kernel wants them.
    pub(super) flags: u16,
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// The server can't be reached, or the connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something else listens there.
    #[error("it does not speak NBD ({0})")]
    NotNbd(&'static str),
    /// The server answers with an error; this is its text, or what the number means.
    #[error("{0}")]
    Refused(String),
}

/// Negotiates until the connection carries requests for the export.
pub(super) fn go(stream: &mut (impl Read + Write), export: &str) -> Result<Export, HandshakeError> {
    let not_nbd = HandshakeError::NotNbd;
    if u64::from_be_bytes(read(stream)?) != SERVER_MAGIC {
        return Err(not_nbd("wrong greeting"));
    }
    if u64::from_be_bytes(read(stream)?) != OPTION_MAGIC {
        return Err(not_nbd("its protocol is too old"));
    }
    let flags = u16::from_be_bytes(read(stream)?);
    if flags & FIXED_NEWSTYLE == 0 {
        return Err(not_nbd("its protocol is too old"));
    }
    let name = export.as_bytes();
    let name_length = u32::try_from(name.len()).unwrap_or(u32::MAX);
    let mut request = Vec::new();
    request.extend(u32::from(flags & (FIXED_NEWSTYLE | NO_ZEROES)).to_be_bytes());
    request.extend(OPTION_MAGIC.to_be_bytes());
    request.extend(OPTION_GO.to_be_bytes());
    // Length of the name, the name, and the number of wanted informations: none, size always comes.
    request.extend((name_length.saturating_add(6)).to_be_bytes());
    request.extend(name_length.to_be_bytes());
    request.extend(name);
    request.extend(0u16.to_be_bytes());
    stream.write_all(&request)?;
    let mut found = None;
    for _ in 0..REPLIES_MAX {
        let (kind, payload) = read_reply(stream)?;
        match kind {
            REPLY_INFO => found = parse_info(&payload).or(found),
            REPLY_ACK => return found.ok_or(not_nbd("it does not tell the size")),
            kind if kind & REPLY_ERROR != 0 => {
                return Err(HandshakeError::Refused(refusal(kind, &payload)));
            }
            _ => return Err(not_nbd("an unknown answer")),
        }
    }
    Err(not_nbd("too many answers"))
}

fn read<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_reply(stream: &mut impl Read) -> Result<(u32, Vec<u8>), HandshakeError> {
    if u64::from_be_bytes(read(stream)?) != REPLY_MAGIC {
        return Err(HandshakeError::NotNbd("a wrong answer"));
    }
    if u32::from_be_bytes(read(stream)?) != OPTION_GO {
        return Err(HandshakeError::NotNbd("an answer to something else"));
    }
    let kind = u32::from_be_bytes(read(stream)?);
    let length = u32::from_be_bytes(read(stream)?);
    if length > REPLY_SIZE_MAX {
        return Err(HandshakeError::NotNbd("a much too long answer"));
    }
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload)?;
    Ok((kind, payload))
}

fn parse_info(payload: &[u8]) -> Option<Export> {
    let kind = u16::from_be_bytes(*payload.first_chunk()?);
    let size_bytes = u64::from_be_bytes(*payload.get(2..)?.first_chunk()?);
    let flags = u16::from_be_bytes(*payload.get(10..)?.first_chunk()?);
    (kind == INFO_EXPORT).then_some(Export { size_bytes, flags })
}

fn refusal(kind: u32, payload: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(payload)
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(200)
        .collect();
    if !text.trim().is_empty() {
        return text.trim().to_owned();
    }
    match kind & !REPLY_ERROR {
        2 => "not allowed for this machine".to_owned(),
        5 => "it wants TLS".to_owned(),
        6 => "it has no disk of this name".to_owned(),
        7 => "it is shutting down".to_owned(),
        other => format!("error {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that has said everything beforehand.
    struct Script {
        says: io::Cursor<Vec<u8>>,
        heard: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.says.read(buffer)
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.heard.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn reply(kind: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = REPLY_MAGIC.to_be_bytes().to_vec();
        for word in [OPTION_GO, kind, payload.len() as u32] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(payload);
        bytes
    }

    fn run(replies: &[Vec<u8>]) -> (Result<Export, HandshakeError>, Vec<u8>) {
        let mut says = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
        says.extend(replies.concat());
        let mut script = Script { says: io::Cursor::new(says), heard: Vec::new() };
        (go(&mut script, "lab-07"), script.heard)
    }

    fn info() -> Vec<u8> {
        let mut payload = vec![0, 0];
        payload.extend(4096u64.to_be_bytes());
        payload.extend(0x2du16.to_be_bytes());
        reply(REPLY_INFO, &payload)
    }

    #[test]
    fn an_export_is_found_by_name() {
        let (found, heard) = run(&[reply(REPLY_INFO, &[0, 1]), info(), reply(REPLY_ACK, &[])]);
        assert_eq!(found.unwrap(), Export { size_bytes: 4096, flags: 0x2d });
        assert_eq!(heard, b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\0\x0c\0\0\0\x06lab-07\0\0");
    }

    #[test]
    fn a_refusal_is_told_in_the_server_s_words() {
        let (found, _) = run(&[reply(REPLY_ERROR | 6, b"no disk\nof this name")]);
        assert_eq!(found.unwrap_err().to_string(), "no disk of this name");
        let (found, _) = run(&[reply(REPLY_ERROR | 2, b"")]);
        assert_eq!(found.unwrap_err().to_string(), "not allowed for this machine");
    }

    #[test]
    fn no_prefix_of_an_answer_panics() {
        let whole = [info(), reply(REPLY_ACK, &[])].concat();
        for end in 0..whole.len() {
            let (found, _) = run(&[whole[..end].to_vec()]);
            assert!(matches!(found, Err(HandshakeError::Io(_))), "{end}");
        }
        let (found, _) = run(&[reply(REPLY_ACK, &[])]);
        assert!(matches!(found, Err(HandshakeError::NotNbd(_))));
        let mut endless = reply(REPLY_INFO, &[]);
        let last = endless.len() - 1;
        endless[last - 3] = 0xff;
        assert!(matches!(run(&[endless]).0, Err(HandshakeError::NotNbd(_))));
    }
}
