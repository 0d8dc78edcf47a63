//! PCs that are tried on the server itself, of which nothing is to stay but who did it.

use super::machines::{MachineChange, TRIAL_BEGINS, Writing};
use crate::error::Error;
use crate::people::{Actor, Admin};
use crate::service::Service;
use crate::store::AuditEntry;
use model::{Machine, MachineName, Subject, is_tried_mac, is_tried_name};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use wire::Mac;

/// What the audit log calls it when a machine that was tried is forgotten.
const TRIAL_ENDS: &str = "trial.end";

/// Of the entries about such a machine so many are looked through for who began it.
const ENTRIES_MAX: u32 = 20;

impl Admin {
    /// Has a PC in software be this machine until it is [forgotten](Service::forget_tried).
    ///
    /// # Errors
    /// There is one of that name that is somebody's own, or as [`Self::set_machine`].
    pub async fn begin_trial(
        &self,
        name: MachineName,
        of_it: MachineChange,
    ) -> Result<Machine, Error> {
        let site = self.site();
        match site.machine(&name).filter(|machine| !machine.is_tried()) {
            Some(own) => Err(Error::NotForTrials { name, mac: own.mac }),
            None => self.write_machine(name, of_it.whole(), Writing::Trial).await,
        }
    }
}

impl Service {
    /// Whether somebody tries the machine or PC, so that nobody else need know what becomes of it.
    pub(crate) fn is_tried(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Pc(mac) => is_tried_mac(*mac),
            Subject::Machine(name) => {
                is_tried_name(name) && self.site().machine(name).is_none_or(Machine::is_tried)
            }
            Subject::Server | Subject::Version(..) | Subject::Address(_) => false,
        }
    }

    /// Forgets PCs that were tried: machines with their disks, discovered PCs and boots of NICs that are no other machine's, and
    /// leases of addresses of which `is_address` says so. The audit log tells that it is over, in the name of who began it.
    ///
    /// # Errors
    /// The database can't be written.
    pub async fn forget_tried(&self, is_address: impl Fn(Ipv4Addr) -> bool) -> Result<(), Error> {
        let view = self.view();
        let is_tried = |mac: Mac| {
            is_tried_mac(mac) && view.site.machine_by_mac(mac).is_none_or(Machine::is_tried)
        };
        let tried = view.site.machines.iter().filter(|it| it.is_tried());
        let names: Vec<_> = tried.map(|machine| machine.name.clone()).collect();
        let seen: BTreeSet<Mac> =
            view.discovered().iter().map(|seen| seen.mac).filter(|mac| is_tried(*mac)).collect();
        let leases: Vec<_> =
            view.leases().map(|it| it.address).filter(|it| is_address(*it)).collect();
        let admin = self.admin(&Actor::command(0))?;
        let macs = view.site.machines.iter().flat_map(Machine::macs);
        let macs = macs.chain(view.boots.keys().copied()).filter(|mac| is_tried(*mac));
        let macs: BTreeSet<Mac> = macs.chain(seen).collect();
        for finding in self.live_findings().list(self.now()) {
            if self.is_tried(&finding.subject) {
                self.resolved(finding.kind, &finding.subject);
            }
        }
        // What can't be forgotten now keeps nothing else.
        let mut failed = None;
        for name in names {
            failed = admin.end_trial(name).await.err().or(failed);
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

impl Admin {
    /// Removes the machine. Nobody asks for that: whoever began it has switched it off, or is gone.
    async fn end_trial(&self, name: MachineName) -> Result<(), Error> {
        let subject = name.to_string();
        let known = self
            .service()
            .database()
            .read(move |tables| tables.audit(None, Some(&subject), ENTRIES_MAX));
        let begun = known.await?.into_iter().find(|entry| entry.action == TRIAL_BEGINS);
        let now_unix_ms = self.now().unix_ms;
        let by_us = self.actor().does(TRIAL_ENDS, &name, Vec::new(), now_unix_ms);
        let entry = match begun {
            Some(AuditEntry { who, via, address, .. }) => AuditEntry { who, via, address, ..by_us },
            // An earlier release noted it otherwise.
            None => by_us,
        };
        self.remove_as(name, entry).await.map(drop)
    }
}
