//! Orders to running machines.

use crate::error::Error;
use crate::people::Operator;
use crate::service::Service;
use crate::store::PowerState;
use initcfg::{PowerOrder, PowerVerb};
use model::{BootId, MachineName};

impl Operator {
    /// Asks a running machine to stop. The boot server tells it within a second, and again until the
    /// machine answers or two minutes have passed.
    ///
    /// # Errors
    /// There is no such machine, he may not work with it, it can't be told, or the database can't be written.
    pub async fn order(&self, name: &MachineName, verb: PowerVerb) -> Result<PowerState, Error> {
        let service = self.service();
        let mac = self.work_with(name)?.mac;
        // Who has proven nothing has no keeper that could check an order.
        let view = service.view();
        let current = service.boots(&view, mac, self.now()).map(|boots| boots.current);
        let current = current.filter(|current| current.proof.is_given);
        let boot = current.ok_or_else(|| Error::NoKeeper(name.clone()))?.boot.id;
        let asked_unix_ms = self.now().unix_ms;
        let action = match verb {
            PowerVerb::Reboot => "machine.reboot",
            PowerVerb::Poweroff => "machine.poweroff",
        };
        let entry = self.actor().does(action, name, Vec::new(), asked_unix_ms);
        let counter = service.database().write(move |tables| {
            tables.put_audit(&entry)?;
            Ok(tables.put_order(mac, boot, verb, asked_unix_ms)?)
        });
        let counter = counter.await?;
        tracing::info!(machine = %name, boot, %verb, "asked to stop");
        Ok(PowerState { counter, verb, asked_unix_ms, obeyed_unix_ms: None })
    }
}

impl Service {
    /// Orders that machines have not obeyed yet, as datagrams, each with its boot.
    pub(crate) fn open_orders(&self) -> Vec<(BootId, String)> {
        let now = self.now();
        let view = self.view();
        let open = view.ordered().filter_map(|mac| {
            let current = self.boots(&view, mac, now)?.current;
            // Once, though each NIC of the machine leads to it.
            if current.boot.mac != mac {
                return None;
            }
            let order = current.order.as_ref().filter(|order| order.is_open(now.unix_ms))?;
            let PowerState { counter, verb, .. } = *order;
            let boot = current.boot.id;
            let line = PowerOrder { boot, counter, verb }.to_string();
            Some((boot, current.proof.token?.seal(&line)))
        });
        open.collect()
    }
}
