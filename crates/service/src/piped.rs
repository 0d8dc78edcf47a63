//! Bytes between a task and a thread that reads or writes as of a file: a stream on its way from or to the network.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;
use tokio::sync::mpsc;

/// What a task tells a thread.
#[derive(Debug)]
pub enum Piece {
    /// The next bytes.
    Bytes(Bytes),
    /// All was told.
    End,
    /// No more comes, and why.
    Broken(String),
}

/// What a task tells, for a thread that waits for it. It ends only where the task says so.
#[derive(Debug)]
pub struct Coming {
    pieces: mpsc::Receiver<Piece>,
    bytes: Bytes,
    has_ended: bool,
}

impl Coming {
    /// Up to `pieces_max` pieces wait to be taken.
    pub fn new(pieces_max: usize) -> (mpsc::Sender<Piece>, Self) {
        let (teller, pieces) = mpsc::channel(pieces_max);
        (teller, Self { pieces, bytes: Bytes::new(), has_ended: false })
    }
}

impl Read for Coming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let broken = |why: String| io::Error::new(ErrorKind::ConnectionAborted, why);
        while self.bytes.is_empty() && !self.has_ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.bytes = bytes,
                Some(Piece::End) => self.has_ended = true,
                Some(Piece::Broken(why)) => return Err(broken(why)),
                None => {
                    let told = "the connection broke, or nothing came for a minute";
                    return Err(broken(told.to_owned()));
                }
            }
        }
        let n = self.bytes.len().min(into.len());
        into[..n].copy_from_slice(&self.bytes.split_to(n));
        Ok(n)
    }
}

/// Tells a thread the body of an answer, until that or the thread ends, or nothing comes for so long.
pub async fn tell_body(body: &mut Incoming, pieces: &mpsc::Sender<Piece>, silence: Duration) {
    loop {
        let piece = match tokio::time::timeout(silence, body.frame()).await {
            Ok(Some(Ok(frame))) => Piece::Bytes(frame.into_data().unwrap_or_default()),
            Ok(None) => Piece::End,
            Ok(Some(Err(error))) => Piece::Broken(wire::error_chain(&error)),
            Err(_) => Piece::Broken(format!("nothing came for {} s", silence.as_secs())),
        };
        let is_last = !matches!(piece, Piece::Bytes(_));
        if pieces.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

/// What a thread writes, for a task that takes it.
#[derive(Debug)]
pub struct Leaving(mpsc::Sender<Bytes>);

impl Leaving {
    /// Up to `pieces_max` pieces wait to be taken.
    pub fn new(pieces_max: usize) -> (Self, mpsc::Receiver<Bytes>) {
        let (leaving, pieces) = mpsc::channel(pieces_max);
        (Self(leaving), pieces)
    }
}

impl Write for Leaving {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
