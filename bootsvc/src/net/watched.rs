//! A connection whose other end must take what it is sent.

use super::places::Place;
use socket2::SockRef;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// A client that takes nothing for so long is let go. Slow ones take something all the time: at this, with
/// [`UNSENT_BYTES`], 30 kbit/s are enough.
pub(super) const SILENT_READER_MAX: Duration = Duration::from_secs(20);

/// Bytes that the kernel takes from us beyond what is on its way. That is what a client that reads nothing costs,
/// as the files themselves are in memory once; and it is a millisecond of a gigabit.
const UNSENT_BYTES: u32 = 128 << 10;

/// Sets what connections that `listener` accepts hold at most.
pub(super) fn bound(listener: &tokio::net::TcpListener) {
    let socket = SockRef::from(listener);
    let set = socket
        .set_tcp_notsent_lowat(UNSENT_BYTES)
        .and_then(|()| socket.set_tcp_user_timeout(Some(SILENT_READER_MAX)))
        .and_then(|()| socket.set_tcp_nodelay(true));
    if let Err(error) = set {
        tracing::warn!(%error, "what slow HTTP clients hold in memory is not bounded");
    }
}

/// Ends a connection at once: what was not sent is forgotten, and the other end may open it again.
pub(super) fn reset(stream: &TcpStream) {
    // An error means that it has ended.
    let _ = stream.set_zero_linger();
}

/// A connection in its [`Place`], in which each byte that is taken is progress.
pub(super) struct Watched {
    stream: TcpStream,
    place: Place,
    /// Runs while the client takes nothing.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    pub(super) fn new(stream: TcpStream, place: Place) -> Self {
        Self { stream, place, patience: None }
    }

    fn on_write(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            self.patience = None;
            self.place.on_progress(Instant::now());
            return Poll::Ready(written);
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(SILENT_READER_MAX)));
        ready!(patience.as_mut().poll(context));
        reset(&self.stream);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "it takes nothing")))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.on_write(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.on_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.place.is_lost() {
            reset(&self.stream);
        }
    }
}
