//! PCs that were tried on the server itself, of which nothing is to stay.

use crate::error::Error;
use crate::people::Actor;
use crate::service::Service;
use model::{Machine, Subject};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use wire::Mac;

impl Service {
    /// Forgets PCs that were tried: machines of which `is_machine` says so, with their disks, discovered PCs and boots of NICs of
    /// which `is_nic` does, and which are no other machine's, and leases of addresses of which `is_address` does.
    ///
    /// # Errors
    /// The database can't be written.
    pub async fn forget_tried(
        &self,
        is_nic: impl Fn(Mac) -> bool,
        is_machine: impl Fn(&Machine) -> bool,
        is_address: impl Fn(Ipv4Addr) -> bool,
    ) -> Result<(), Error> {
        let view = self.view();
        let is_tried =
            |mac: Mac| is_nic(mac) && view.site.machine_by_mac(mac).is_none_or(&is_machine);
        let tried = view.site.machines.iter().filter(|it| is_machine(it));
        let names: Vec<_> = tried.map(|machine| machine.name.clone()).collect();
        let seen: BTreeSet<Mac> =
            view.discovered().iter().map(|seen| seen.mac).filter(|mac| is_tried(*mac)).collect();
        let leases: Vec<_> =
            view.leases().map(|it| it.address).filter(|it| is_address(*it)).collect();
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
        // What can't be forgotten now keeps nothing else.
        let mut failed = None;
        for name in names {
            failed = admin.remove_machine(name).await.err().or(failed);
        }
        if macs.is_empty() && leases.is_empty() {
            return failed.map_or(Ok(()), Err);
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
        forgetting.await?;
        failed.map_or(Ok(()), Err)
    }
}
