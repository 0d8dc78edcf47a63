//! A disk that can be full.

use crate::command::{run, text_of};
use anyhow::Result;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system in memory, until it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts it at `path`; `size` as `tmpfs` takes it, such as `64m`.
    ///
    /// # Errors
    /// Not root.
    pub fn mount(path: &Path, size: &str) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        let options = format!("size={size},mode=0755");
        text_of(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Something in it that lies on another disk.
    ///
    /// # Errors
    /// A folder can't be made or mounted.
    pub fn lies_outside(&self, name: &str, outside: &Path) -> Result<()> {
        let inside = self.path.join(name);
        std::fs::create_dir_all(&inside)?;
        std::fs::create_dir_all(outside)?;
        run(Command::new("mount").arg("--bind").args([outside, &inside]))
    }

    /// The file that takes the room.
    pub fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    /// Leaves not one block free.
    ///
    /// # Errors
    /// Something else keeps it from that.
    pub fn fill(&self) -> Result<()> {
        let mut filler = File::options().create(true).append(true).open(self.filler())?;
        loop {
            match filler.write_all(&[1; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // With what is mounted in it.
        let _ = Command::new("umount").args(["-R", "-l"]).arg(&self.path).status();
    }
}
