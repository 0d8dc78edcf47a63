//! Kernel logs of failed boots: the last one from each NIC of a machine.

use crate::error::{Error, io_error};
use crate::service::Service;
use model::{BootId, MachineName};
use std::path::PathBuf;
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

impl Service {
    /// Keeps the log of a machine's boot in place of the former one from this NIC. Of strangers, and of boots that the
    /// machine is not in, nothing is kept: whether it was.
    ///
    /// # Errors
    /// The file can't be written.
    pub async fn keep_kernel_log(&self, mac: Mac, boot: BootId, log: &[u8]) -> Result<bool, Error> {
        if !self.is_machines_last(mac, boot) {
            return Ok(false);
        }
        let text = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_MAX)..]);
        let is_shown = |character: &char| *character == '\n' || !character.is_control();
        let text: String = text.chars().filter(is_shown).collect();
        let path = self.kernel_log_path(mac);
        if let Some(folder) = path.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(io_error("make the folder", folder))?;
        }
        let new = path.with_extension("new");
        let content = format!("{boot}\n{text}");
        tokio::fs::write(&new, content).await.map_err(io_error("write", &new))?;
        tokio::fs::rename(&new, &path).await.map_err(io_error("write", &path))?;
        Ok(true)
    }

    /// The log of a machine's last failed boot, if there is one.
    ///
    /// # Errors
    /// There is no such machine, or the file can't be read.
    pub async fn kernel_log(&self, name: &MachineName) -> Result<Option<KernelLog>, Error> {
        let site = self.site();
        let machine = site.machine(name).ok_or_else(|| Error::NoMachine(name.clone()))?;
        let mut last: Option<KernelLog> = None;
        for mac in machine.macs() {
            let path = self.kernel_log_path(mac);
            let content = match tokio::fs::read_to_string(&path).await {
                Ok(content) => content,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io_error("read", &path)(error)),
            };
            let log = content.split_once('\n').and_then(|(boot, text)| {
                Some(KernelLog { boot: boot.parse().ok()?, text: text.to_owned() })
            });
            last = last.into_iter().chain(log).max_by_key(|log| log.boot);
        }
        Ok(last)
    }

    fn kernel_log_path(&self, mac: Mac) -> PathBuf {
        self.options().kernel_logs.join(format!("{}.log", mac.compact()))
    }
}
