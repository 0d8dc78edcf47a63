//! Kernel logs of boots that failed, for people.

use crate::error::Error;
use crate::service::Service;
use crate::store::KernelLog;
use model::MachineName;

impl Service {
    /// The log of a machine's last failed boot, if there is one.
    ///
    /// # Errors
    /// There is no such machine, or the file can't be read.
    pub async fn kernel_log(&self, name: &MachineName) -> Result<Option<KernelLog>, Error> {
        let site = self.site();
        let machine = site.machine(name).ok_or_else(|| Error::NoMachine(name.clone()))?;
        let mut last: Option<KernelLog> = None;
        for mac in machine.macs() {
            let log = KernelLog::read(&self.options().kernel_logs, mac).await?;
            last = last.into_iter().chain(log).max_by_key(|log| log.boot);
        }
        Ok(last)
    }
}
