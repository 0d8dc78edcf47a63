//! What is captured on its way to the boot server: sealed in pieces, as one HTTP request of which nobody knows the length before.

use crate::boot_server::http;
use initcfg::{
    BootConfig, CAPTURE_PIECE_MAX, CAPTURE_RANDOM_BYTES, CaptureAbout, CaptureProof, CaptureSealer,
    Token,
};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The server writes what comes to its disk, which may be busy for a while.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);

/// When all is sent it has so long to say that it has it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// Who breaks off has mostly said why.
const REASON_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest answer that is read.
const ANSWER_MAX: u64 = 4096;

/// A stream that is open. What is written to it is the archive.
pub(super) struct Sending {
    stream: TcpStream,
    sealer: CaptureSealer,
    piece: Vec<u8>,
}

impl Sending {
    /// Begins, with what it is.
    pub(super) fn begin(
        config: &BootConfig,
        token: &Token,
        about: &CaptureAbout,
    ) -> io::Result<Self> {
        let mut stream = http::connect(config.server)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let mut random = [0; CAPTURE_RANDOM_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let sealer = CaptureSealer::new(token, config.boot, random);
        let path = CaptureProof::new(config.boot, token).to_path();
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
            config.server
        );
        stream.write_all(head.as_bytes())?;
        let mut sending = Self { stream, sealer, piece: Vec::with_capacity(CAPTURE_PIECE_MAX) };
        let start = sending.sealer.start();
        sending.chunk(&start)?;
        sending.piece = about.to_piece();
        sending.seal(false)?;
        Ok(sending)
    }

    /// All is written: returns when the server has it.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.seal(true)?;
        self.stream.write_all(b"0\r\n\r\n")?;
        self.stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        match self.answer()? {
            (204, _) => Ok(()),
            (_, why) => Err(io::Error::other(why)),
        }
    }

    /// Why the server has broken off, if it says so; otherwise this.
    pub(super) fn reason(mut self, error: io::Error) -> io::Error {
        let _ = self.stream.set_read_timeout(Some(REASON_TIMEOUT));
        match self.answer() {
            Ok((_, why)) => io::Error::other(why),
            Err(_) => error,
        }
    }

    fn answer(&mut self) -> io::Result<(u16, String)> {
        let mut answer = Vec::new();
        let read = (&self.stream).take(ANSWER_MAX).read_to_end(&mut answer);
        // It may be reset behind what it has said.
        if answer.is_empty() {
            read?;
        }
        parse_answer(&answer).ok_or_else(|| io::Error::other("its answer is no HTTP"))
    }

    fn seal(&mut self, is_last: bool) -> io::Result<()> {
        let sealed = self.sealer.seal(&self.piece, is_last);
        self.piece.clear();
        self.chunk(&sealed.ok_or_else(|| io::Error::other("a piece is too long"))?)
    }

    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        self.stream.write_all(&chunk)
    }
}

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == CAPTURE_PIECE_MAX {
            self.seal(false)?;
        }
        let n = bytes.len().min(CAPTURE_PIECE_MAX - self.piece.len());
        self.piece.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Status and text of an answer.
fn parse_answer(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let status = text.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim();
    let body = match body {
        "" => format!("the boot server answers {status}"),
        body => body.replace('\n', " "),
    };
    Some((status, body))
}

#[cfg(test)]
mod tests {
    use super::parse_answer;

    #[test]
    fn the_server_says_why() {
        let answer = b"HTTP/1.1 409 Conflict\r\nContent-Length: 9\r\n\r\nno room.\n";
        assert_eq!(parse_answer(answer), Some((409, "no room.".to_owned())));
        let empty = parse_answer(b"HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(empty, Some((204, "the boot server answers 204".to_owned())));
        for end in 0..answer.len() {
            let _ = parse_answer(&answer[..end]);
        }
        assert_eq!(parse_answer(b"SSH-2.0"), None);
    }
}
