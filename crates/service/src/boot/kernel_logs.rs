//! Kernel logs of boots that failed, as init sends them.

use crate::error::Error;
use crate::service::Service;
use crate::store::KernelLog;
use model::BootId;
use wire::Mac;

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
        KernelLog::keep(&self.options().kernel_logs, mac, boot, log).await?;
        Ok(true)
    }
}
