//! What machines are made of.

use crate::error::Error;
use crate::service::Service;
use crate::store::Hardware;
use model::MachineName;
use std::sync::Arc;

impl Service {
    /// What a machine is made of, as it told last; `None` before its first boot.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn hardware(&self, name: &MachineName) -> Result<Option<Arc<Hardware>>, Error> {
        let view = self.view();
        let machine = view.site.machine(name).ok_or_else(|| Error::NoMachine(name.clone()))?;
        let told = machine.macs().filter_map(|mac| view.hardware.get(&mac));
        Ok(told.max_by_key(|hardware| hardware.boot).cloned())
    }
}
