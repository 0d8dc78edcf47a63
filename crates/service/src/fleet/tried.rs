//! PCs that were tried on the server itself, of which nothing is to stay.

use crate::error::Error;
use crate::people::Actor;
use crate::service::Service;
use model::{Machine, Subject};
use std::collections::BTreeSet;
use wire::Mac;

impl Service {
    /// Forgets PCs that were tried: machines of which `is_machine` says so, with their disks, and discovered PCs, boots and leases
    /// of NICs of which `is_nic` does, and which are no other machine's.
    ///
    /// # Errors
    /// The database can't be written.
    pub async fn forget_tried(
        &self,
        is_nic: impl Fn(Mac) -> bool,
        is_machine: impl Fn(&Machine) -> bool,
    ) -> Result<(), Error> {
        let view = self.view();
        let is_tried =
            |mac: Mac| is_nic(mac) && view.site.machine_by_mac(mac).is_none_or(&is_machine);
        let tried = view.site.machines.iter().filter(|it| is_machine(it));
        let names: Vec<_> = tried.map(|machine| machine.name.clone()).collect();
        let seen: BTreeSet<Mac> =
            view.discovered().iter().map(|seen| seen.mac).filter(|mac| is_tried(*mac)).collect();
        let leases: Vec<_> =
            view.leases().filter(|it| is_tried(it.mac)).map(|it| it.address).collect();
        let admin = self.admin(&Actor::command(0))?;
        let macs = view.site.machines.iter().flat_map(Machine::macs);
        let macs = macs.chain(view.boots.keys().copied()).filter(|mac| is_tried(*mac));
        let macs: BTreeSet<Mac> = macs.chain(seen).collect();
        for finding in self.findings().await {
            let is_of_tried = match &finding.subject {
                Subject::Pc(mac) => is_tried(*mac),
                Subject::Machine(name) => names.contains(name),
                Subject::Server | Subject::Version(..) | Subject::Address(_) => false,
            };
            if is_of_tried {
                self.resolved(finding.kind, &finding.subject);
            }
        }
        for name in names {
            admin.remove_machine(name).await?;
        }
        if macs.is_empty() && leases.is_empty() {
            return Ok(());
        }
        let forgetting = self.database().write(move |tables| {
            for address in leases {
                tables.delete_lease(address)?;
            }
            for mac in macs {
                tables.delete_sighting(mac)?;
                tables.delete_boots_of(mac)?;
            }
            Ok(())
        });
        forgetting.await
    }
}
