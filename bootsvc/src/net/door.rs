//! A TCP listener that sends clients away when this process runs short of descriptors.

use nix::sys::resource::{Resource, getrlimit};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Descriptors that clients can't have: for sockets that listen, the database, files that are read, and questions
/// to the storage server.
const ASIDE: u64 = 128;

/// When accepting fails for another reason it is tried again after this time.
const RETRY: Duration = Duration::from_millis(100);

/// Who takes descriptors, each for so many 24ths of those that clients may have: who fills the one must not keep
/// everybody out of the others. What is left is for places that are just given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Share {
    /// Boot clients over HTTP.
    Http = 12,
    /// TFTP transfers.
    Tftp = 8,
    /// Browsers.
    Pages = 3,
}

impl Share {
    /// How many of these clients may be here at once: so many, if there are descriptors for them.
    pub fn clients_max(self, wanted: usize) -> usize {
        self.of(usize::try_from(client_number_max()).unwrap_or(0), wanted)
    }

    fn of(self, descriptors: usize, wanted: usize) -> usize {
        wanted.min(descriptors * usize::from(self as u8) / 24)
    }
}

/// The highest number of a descriptor that a client may have. A process gets the smallest number that is free, so
/// it tells how many are in use.
pub fn client_number_max() -> RawFd {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    RawFd::try_from(limit.saturating_sub(ASIDE)).unwrap_or(RawFd::MAX)
}

/// The listener, and what is called for each client that was sent away.
pub struct Door<F> {
    listener: TcpListener,
    on_refused: F,
    number_max: RawFd,
    /// Given up for a moment to send a client away when there is no other descriptor: it would wait for good.
    spare: Option<File>,
}

impl<F: FnMut()> Door<F> {
    /// Lets clients of this listener in.
    pub fn new(listener: TcpListener, on_refused: F) -> Self {
        Self { listener, on_refused, number_max: client_number_max(), spare: spare() }
    }

    /// The listener itself.
    pub fn listener(&self) -> &TcpListener {
        &self.listener
    }

    /// The next client that there is room for.
    pub async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) if stream.as_raw_fd() <= self.number_max => {
                    return (stream, peer);
                }
                Ok(too_many) => {
                    drop(too_many);
                    (self.on_refused)();
                }
                Err(error) if is_out_of_descriptors(&error) => {
                    self.spare = None;
                    // Somebody else in this process may have been faster.
                    let sent_away = tokio::time::timeout(RETRY, self.listener.accept()).await;
                    drop(sent_away);
                    self.spare = spare();
                    (self.on_refused)();
                }
                Err(error) => {
                    // A client that went away: the next accept may do.
                    tracing::debug!(%error, "can't accept a connection");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::resource::setrlimit;
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::AsyncReadExt as _;

    #[test]
    fn with_few_descriptors_each_kind_of_client_has_its_share() {
        let all = [(Share::Http, 1024), (Share::Tftp, 1024), (Share::Pages, 256)];
        let places = |limit: u64| {
            let descriptors = limit.saturating_sub(ASIDE) as usize;
            all.map(|(share, wanted)| share.of(descriptors, wanted))
        };
        assert_eq!(places(65_536), [1024, 1024, 256]);
        assert_eq!(places(1024), [448, 298, 112]);
        assert_eq!(places(512), [192, 128, 48]);
        assert_eq!(places(64), [0, 0, 0]);
        assert!(all.iter().map(|(share, _)| *share as u8).sum::<u8>() < 24);
    }

    /// Set only in the process that has few descriptors.
    const CHILD: &str = "BOOTLACE_TEST_DOOR";

    #[test]
    fn clients_beyond_the_descriptors_are_sent_away() {
        let name = "net::door::tests::child_with_few_descriptors";
        let test = std::env::current_exe().unwrap();
        let mut child = Command::new(test);
        let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
    }

    /// Not a test of its own.
    #[test]
    fn child_with_few_descriptors() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let limit = ASIDE + 60;
        setrlimit(Resource::RLIMIT_NOFILE, limit, limit).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(few());
    }

    /// Both ends of a connection are in this process.
    async fn few() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let n_refused = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&n_refused);
        let mut door = Door::new(listener, move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let inside = tokio::spawn(async move {
            let mut inside = Vec::new();
            while inside.len() < 1000 {
                inside.push(door.next().await);
            }
        });
        let is_closed = async || {
            let mut client = TcpStream::connect(address).await.unwrap();
            let read = tokio::time::timeout(Duration::from_millis(300), client.read_u8()).await;
            (read.is_ok(), client)
        };
        let mut clients = Vec::new();
        for _ in 0..ASIDE {
            let Ok(client) = TcpStream::connect(address).await else { break };
            clients.push(client);
        }
        let (closed, client) = is_closed().await;
        assert!(closed && n_refused.load(Ordering::Relaxed) > 0, "too many were let in");
        drop(client);
        // Now take all that there are, but one for a client.
        let mut files: Vec<File> = std::iter::from_fn(spare).collect();
        files.pop();
        let before = n_refused.load(Ordering::Relaxed);
        let (closed, client) = is_closed().await;
        assert!(closed && n_refused.load(Ordering::Relaxed) > before, "a client waits for good");
        drop((client, files, clients));
        inside.abort();
    }
}
