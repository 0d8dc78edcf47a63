//! Where state lives, below one root.

use service::Commands;
use std::fs;
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

/// What is where a folder should be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAFolder {
    /// A symbolic link that leads nowhere.
    #[error(
        "{} is a link to {}, which is not there: its file system is probably not mounted. Mount it, or remove the link if the \
         folder is to begin empty",
        .link.display(), .target.display()
    )]
    Dangling { link: PathBuf, target: PathBuf },
    /// Something else.
    #[error("{} is no folder, and one must be there: move it away", .0.display())]
    Other(PathBuf),
}

/// Whether `folder` is one, or can be made.
///
/// # Errors
/// Something else is in its place, or in that of one above it.
fn check_folder(folder: &Path) -> Result<(), NotAFolder> {
    let Some(there) = folder.ancestors().find(|it| fs::symlink_metadata(it).is_ok()) else {
        return Ok(());
    };
    match fs::metadata(there) {
        Ok(file) if !file.is_dir() => Err(NotAFolder::Other(there.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(NotAFolder::Dangling {
            link: there.to_owned(),
            target: fs::read_link(there).unwrap_or_default(),
        }),
        // What may not be seen is for who opens it to say.
        _ => Ok(()),
    }
}

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

    /// Below which they are.
    pub(crate) fn root(&self) -> &Path {
        &self.root
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

    /// Whether the servers' own folders, and those of images and layers, are folders, or can be made.
    ///
    /// # Errors
    /// The first that is not.
    pub(crate) fn check_folders(&self) -> Result<(), NotAFolder> {
        let [state, cache, run] = self.own();
        let all = [state, self.images(), self.layers(), cache, run];
        all.iter().try_for_each(|folder| check_folder(folder))
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

    /// Disk files that wait to be imported.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.state().join("incoming")
    }

    /// Long work, as others see it.
    pub(crate) fn jobs(&self) -> PathBuf {
        self.state().join("jobs")
    }

    /// What machines write.
    pub(crate) fn layers(&self) -> PathBuf {
        self.state().join("layers")
    }

    /// What building of images keeps: root's own, unlike all else.
    pub(crate) fn builder(&self) -> PathBuf {
        self.root.join("var/cache/bootlace-builder")
    }

    /// Where building of images is ordered by whoever may not do it himself.
    pub(crate) fn builder_socket(&self) -> PathBuf {
        self.root.join("run/bootlace-builder.sock")
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

    /// What no machine may get a copy of, with what is made again.
    pub(crate) fn unshared(&self) -> [PathBuf; 4] {
        [self.state(), self.cache(), self.builder(), self.root.join("etc/bootlace")]
    }

    /// Socket of the storage API.
    pub(crate) fn storage_socket(&self) -> PathBuf {
        self.run().join("storage.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_or_a_link_to_nothing_is_no_folder() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        paths.check_folders().unwrap();
        fs::create_dir_all(paths.state()).unwrap();
        fs::write(root.path().join("run"), "").unwrap();
        assert_eq!(paths.check_folders(), Err(NotAFolder::Other(root.path().join("run"))));
        fs::remove_dir(paths.state()).unwrap();
        std::os::unix::fs::symlink("/gone/away", paths.state()).unwrap();
        let told = paths.check_folders().unwrap_err().to_string();
        assert!(told.contains("is a link to /gone/away") && told.contains("Mount it"), "{told}");
        let below = check_folder(&paths.images()).unwrap_err();
        assert!(matches!(below, NotAFolder::Dangling { link, .. } if link == paths.state()));
    }
}
