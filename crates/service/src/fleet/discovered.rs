//! PCs that ask and are no machines, and which of them are probably another NIC of one.

use crate::live::Life;
use crate::loader::GivenLoader;
use crate::service::Service;
use crate::store::View;
use model::{Machine, MachineName, Seen, is_real_uuid};
use std::collections::HashMap;

/// A PC that asked and is no machine.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Discovered {
    /// What it said. Its address is that of its lease, which may have ended; `None` once another PC has that.
    #[serde(flatten)]
    pub seen: Seen,
    /// The machine of which it is probably another NIC: that one, and no other, has sent the same SMBIOS UUID. It proves
    /// nothing, since anybody can send any, and makers give many boards the same.
    pub probable_machine: Option<MachineName>,
    /// The loader that it gets when it asks the next time; `None`: no boot server says so.
    pub loader: Option<GivenLoader>,
}

/// Who has a UUID.
#[derive(Default)]
struct Owners<'a> {
    machine: Option<&'a Machine>,
    /// Another machine has it, too.
    are_several: bool,
    /// PCs that are no machines.
    n_strangers: usize,
}

impl Service {
    /// PCs that asked for a loader and are no machines, the last first.
    pub fn discovered(&self) -> Vec<Discovered> {
        let view = self.view();
        let strangers = view.discovered();
        let probable: Vec<_> = {
            let owners = owners(&view, &strangers);
            let probable = |seen: &Seen| self.probable_machine(&view, &owners, seen);
            strangers.iter().map(probable).collect()
        };
        let now = self.now();
        let all = strangers.into_iter().zip(probable);
        let mut all: Vec<_> = all
            .map(|(mut seen, probable_machine)| {
                // The one that it was given may be another PC's since.
                seen.address = view.lease(seen.mac).map(|lease| lease.address);
                // Its firmware has asked once, and its loader does so again and again.
                if let Some(wait) = self.waits().get(seen.mac, now.moment) {
                    seen.last_unix = seen.last_unix.max(now.unix_ms_at(wait.at) / 1000);
                }
                let loader = self.given_loader(&view, seen.mac, seen.firmware);
                Discovered { seen, probable_machine, loader }
            })
            .collect();
        all.sort_by_key(|it| (std::cmp::Reverse(it.seen.last_unix), it.seen.mac));
        all
    }

    /// How many PCs asked for a loader and are no machines.
    pub fn n_discovered(&self) -> usize {
        self.view().n_discovered()
    }

    fn probable_machine(
        &self,
        view: &View,
        owners: &HashMap<&str, Owners<'_>>,
        seen: &Seen,
    ) -> Option<MachineName> {
        let owners = owners.get(seen.uuid.as_deref()?)?;
        let machine = owners.machine.filter(|_| !owners.are_several)?;
        // So many PCs with one UUID are boards whose maker has given all the same.
        let fit = machine.macs().count() + owners.n_strangers <= Machine::MACS_MAX;
        let now = self.now();
        let current = self.boots(view, machine.mac, now).map(|boots| &boots.current.boot);
        let ran_meanwhile = current.is_some_and(|boot| {
            self.heartbeats().life(boot.id, now) == Life::Alive
                && boot.started_unix_ms / 1000 < seen.last_unix
        });
        (fit && !ran_meanwhile).then(|| machine.name.clone())
    }
}

/// Who has each UUID that tells PCs apart.
fn owners<'a>(view: &'a View, strangers: &'a [Seen]) -> HashMap<&'a str, Owners<'a>> {
    let real = |seen: &'a Seen| seen.uuid.as_deref().filter(|uuid| is_real_uuid(uuid));
    let mut owners: HashMap<&str, Owners<'_>> = HashMap::new();
    for uuid in strangers.iter().filter_map(real) {
        owners.entry(uuid).or_default().n_strangers += 1;
    }
    for machine in &view.site.machines {
        for uuid in machine.macs().filter_map(|mac| real(view.seen.get(&mac)?)) {
            // Those of machines alone matter to nobody.
            let Some(owners) = owners.get_mut(uuid) else { continue };
            let former = owners.machine.replace(machine);
            owners.are_several |= former.is_some_and(|former| former.name != machine.name);
        }
    }
    owners
}
