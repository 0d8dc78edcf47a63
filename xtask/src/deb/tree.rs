//! The files of a package, laid out as they will be installed.

use anyhow::{Context, Result};
use lab::text_of;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Below this folder is what will be below `/`.
pub(super) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// An empty one.
    pub(super) fn new(root: PathBuf) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let tree = Self { root };
        tree.make_folder(&tree.root)?;
        Ok(tree)
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    pub(super) fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("can't read {}", from.display()))?;
        self.write(to, content)
    }

    pub(super) fn copy_program(&self, from: &Path, to: &str) -> Result<()> {
        self.copy(from, to)?;
        Ok(fs::set_permissions(self.path(to), Permissions::from_mode(0o755))?)
    }

    pub(super) fn write(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.path(path);
        self.make_folder(path.parent().context("it lies in a folder")?)?;
        fs::write(&path, content).with_context(|| format!("can't write {}", path.display()))?;
        Ok(fs::set_permissions(path, Permissions::from_mode(0o644))?)
    }

    /// Writes it as `path` with `.gz` behind, as Debian wants documents.
    pub(super) fn write_compressed(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let mut gzip = Command::new("gzip");
        gzip.args(["-9", "--no-name"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = gzip.spawn().context("can't start gzip")?;
        let mut input = child.stdin.take().context("gzip has an input")?;
        let output = std::thread::scope(|scope| {
            let content = content.as_ref();
            let written = scope.spawn(move || input.write_all(content));
            let output = child.wait_with_output();
            written.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            output
        })?;
        self.write(&format!("{path}.gz"), output.stdout)
    }

    /// The checksums of all files but those for dpkg itself.
    pub(super) fn sums(&self) -> Result<String> {
        let mut sums = String::new();
        for path in self.files()? {
            let path = path.strip_prefix(&self.root)?;
            if !path.starts_with("DEBIAN") {
                sums += &text_of(Command::new("md5sum").arg(path).current_dir(&self.root))?;
                sums.push('\n');
            }
        }
        Ok(sums)
    }

    /// How much room they take.
    pub(super) fn kibibytes(&self) -> Result<u64> {
        let sizes =
            self.files()?.into_iter().map(|path| Ok(path.metadata()?.size().div_ceil(1024)));
        sizes.sum()
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let (mut folders, mut files) = (vec![self.root.clone()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        Ok(files)
    }

    /// Whatever the umask of whoever packs is.
    pub(super) fn make_folder(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(&self.root)) {
            fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        }
        Ok(())
    }
}
