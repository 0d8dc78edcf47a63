//! Where state lives, below one root.

use service::Commands;
use std::path::{Path, PathBuf};

/// Longest path of a Unix socket: what `sockaddr_un` has room for, less the byte that ends it (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// The folder for `--root` is too deep.
#[derive(Debug, thiserror::Error)]
#[error(
    "the socket {} would have a path of {} characters, and Linux takes {SOCKET_PATH_MAX}: choose a shorter folder for --root",
    .0.display(), .0.as_os_str().len()
)]
pub(crate) struct TooLong(PathBuf);

/// The places of one installation.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    /// `/`, or the folder given by `--root`.
    pub(crate) root: PathBuf,
}

impl Paths {
    /// The places below `root`.
    pub(crate) fn under(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Whether the servers' sockets can be where they belong.
    ///
    /// # Errors
    /// The path of one is too long.
    pub(crate) fn check_length(&self) -> Result<(), TooLong> {
        let sockets = [self.boot_socket(), self.storage_socket()];
        let long = sockets.into_iter().find(|it| it.as_os_str().len() > SOCKET_PATH_MAX);
        long.map_or(Ok(()), |path| Err(TooLong(path)))
    }

    /// Where copies of the state may lie for a moment, the first that has room: on the disk, and in memory.
    pub(crate) fn for_copies(&self) -> [PathBuf; 2] {
        [self.cache(), self.run()]
    }

    /// How commands begin that are printed as advice.
    pub(crate) fn commands(&self) -> Commands {
        Commands::of(&self.root)
    }

    /// The daemon's settings.
    pub(crate) fn config(&self) -> PathBuf {
        self.root.join("etc/bootlace/bootlace.toml")
    }

    /// What must not be lost.
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("var/lib/bootlace")
    }

    /// The database.
    pub(crate) fn database(&self) -> PathBuf {
        self.state().join("state.db")
    }

    /// Held by whoever has the state open.
    pub(crate) fn state_lock(&self) -> PathBuf {
        self.state().join("state.lock")
    }

    /// The image store.
    pub(crate) fn images(&self) -> PathBuf {
        self.state().join("images")
    }

    /// What machines write.
    pub(crate) fn layers(&self) -> PathBuf {
        self.state().join("layers")
    }

    /// What can be made again.
    pub(crate) fn cache(&self) -> PathBuf {
        self.root.join("var/cache/bootlace")
    }

    /// What ends with the host's uptime.
    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run/bootlace")
    }

    /// Socket of the boot server for commands on this host.
    pub(crate) fn boot_socket(&self) -> PathBuf {
        self.run().join("boot.sock")
    }

    /// The folders that only the servers write to.
    pub(crate) fn own(&self) -> [PathBuf; 3] {
        [self.state(), self.cache(), self.run()]
    }

    /// Socket of the storage API.
    pub(crate) fn storage_socket(&self) -> PathBuf {
        self.run().join("storage.sock")
    }
}
