//! The servers of this site, as far as they run.

use crate::boot_socket;
use crate::check::Verdict;
use crate::paths::Paths;
use model::StorageHealth;
use nix::sys::socket::{getsockopt, sockopt};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long the storage server may take to say that it is there.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Both servers.
pub(crate) struct Ours {
    pub(crate) boot: Server,
    pub(crate) storage: Server,
    /// Of which version the storage server is; `None`: none tells.
    pub(crate) storage_version: Option<String>,
}

/// What is known of one.
pub(crate) enum Server {
    /// It does not run.
    Absent,
    /// It runs, as this process if it tells.
    Runs(Option<u32>),
    /// It runs, and does not answer.
    Hangs(Option<u32>),
    /// This user may not know.
    Unseen,
}

impl Ours {
    pub(crate) fn find(paths: &Paths) -> Self {
        let (boot, storage) = (paths.boot_socket(), paths.storage_socket());
        let mut storage_version = None;
        Self {
            boot: Server::at(&boot, |stream| Server::Runs(peer(stream))),
            storage: Server::at(&storage, |stream| match health(stream) {
                Ok(health) => {
                    storage_version = Some(health.version).filter(|it| !it.is_empty());
                    Server::Runs(health.pid.or_else(|| peer(stream)))
                }
                Err(_) => Server::Hangs(peer(stream)),
            }),
            storage_version,
        }
    }

    /// Whether this process is one of them, and which.
    pub(super) fn name(&self, process: u32) -> Option<&'static str> {
        let named = [(&self.boot, "boot server"), (&self.storage, "storage server")];
        named.into_iter().find(|(it, _)| it.process() == Some(process)).map(|(_, name)| name)
    }

    /// What a person must know of the storage server. The boot server is asked by who needs it.
    pub(super) fn storage_verdict(&self) -> Option<Verdict> {
        match &self.storage {
            Server::Absent => None,
            Server::Runs(_) => Some(Verdict::Right("storage server: it runs, and answers".into())),
            Server::Hangs(process) => {
                let process =
                    process.map_or_else(String::new, |process| format!(" (process {process})"));
                Some(Verdict::Wrong(format!(
                    "storage server: it runs{process}, and has not answered within {} s, so machines probably wait for \
                     their disks: restart it",
                    ANSWER_DEADLINE.as_secs()
                )))
            }
            Server::Unseen => Some(Verdict::Unseen("whether the storage server answers".into())),
        }
    }
}

impl Server {
    fn at(socket: &Path, ask: impl FnOnce(&UnixStream) -> Self) -> Self {
        match boot_socket::connect(socket) {
            Ok(stream) => ask(&stream),
            Err(error) => match error.kind() {
                ErrorKind::PermissionDenied => Self::Unseen,
                // Too many wait already.
                ErrorKind::WouldBlock => Self::Hangs(None),
                _ => Self::Absent,
            },
        }
    }

    /// The process that it is.
    pub(crate) fn process(&self) -> Option<u32> {
        match self {
            Self::Runs(process) | Self::Hangs(process) => *process,
            Self::Absent | Self::Unseen => None,
        }
    }
}

/// The process that listens there, as the kernel tells.
fn peer(stream: &UnixStream) -> Option<u32> {
    let pid = getsockopt(stream, sockopt::PeerCredentials).ok()?.pid();
    u32::try_from(pid).ok().filter(|pid| *pid > 0)
}

fn health(mut stream: &UnixStream) -> io::Result<StorageHealth> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    stream.set_write_timeout(Some(ANSWER_DEADLINE))?;
    stream.write_all(b"GET /v1/health HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    Ok(serde_json::from_str(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_storage_server_that_does_not_answer_is_told_of() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        assert!(Ours::find(&paths).storage_verdict().is_none(), "none runs");
        std::fs::create_dir_all(paths.run()).unwrap();
        // As one that is stopped: the kernel takes up the connection.
        let _listener = UnixListener::bind(paths.storage_socket()).unwrap();
        let ours = Ours::find(&paths);
        let Some(Verdict::Wrong(told)) = ours.storage_verdict() else { panic!("it is right") };
        let process = format!("(process {})", std::process::id());
        assert!(told.contains(&process) && told.contains("restart it"), "{told}");
        assert_eq!(ours.name(std::process::id()), Some("storage server"));
    }
}
