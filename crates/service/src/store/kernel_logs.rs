//! Kernel logs of failed boots: a file for each NIC, with the last one.

use crate::error::{Error, io_error};
use model::BootId;
use std::path::{Path, PathBuf};
use wire::Mac;

/// Longest log in bytes that is kept.
const LOG_MAX: usize = 64 << 10;

/// The kernel's log of a boot that failed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct KernelLog {
    /// The boot.
    pub boot: BootId,
    /// Lines as dmesg shows them.
    pub text: String,
}

impl KernelLog {
    /// Keeps the end of a log in place of the former one from this NIC.
    ///
    /// # Errors
    /// The file can't be written.
    pub(crate) async fn keep(
        folder: &Path,
        mac: Mac,
        boot: BootId,
        log: &[u8],
    ) -> Result<(), Error> {
        let text = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_MAX)..]);
        let is_shown = |character: &char| *character == '\n' || !character.is_control();
        let text: String = text.chars().filter(is_shown).collect();
        let path = path(folder, mac);
        tokio::fs::create_dir_all(folder).await.map_err(io_error("make the folder", folder))?;
        let new = path.with_extension("new");
        let content = format!("{boot}\n{text}");
        tokio::fs::write(&new, content).await.map_err(io_error("write", &new))?;
        tokio::fs::rename(&new, &path).await.map_err(io_error("write", &path))
    }

    /// The log from the NIC of this address.
    ///
    /// # Errors
    /// The file can't be read.
    pub(crate) async fn read(folder: &Path, mac: Mac) -> Result<Option<Self>, Error> {
        let path = path(folder, mac);
        let content = match tokio::fs::read_to_string(&path).await {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        Ok(content.split_once('\n').and_then(|(boot, text)| {
            Some(Self { boot: boot.parse().ok()?, text: text.to_owned() })
        }))
    }
}

fn path(folder: &Path, mac: Mac) -> PathBuf {
    folder.join(format!("{}.log", mac.compact()))
}
