//! Disks that machines keep, and what the storage server says of them.

use crate::live::Held;
use crate::service::Service;
use model::{Machine, Site, Subject, WriteMode};

impl Service {
    /// Machines that get no disk, as the one of their name is another machine's.
    pub(super) fn disks_of_others(&self, site: &Site) -> Vec<Held> {
        let (view, answer) = (self.view(), self.exports().last());
        let keeps = |machine: &&Machine| {
            machine.write_mode == WriteMode::Persistent
                && !machine.root.is_foreign()
                && !machine.reset_disk
        };
        let of_another = answer.disks.iter().filter_map(|disk| {
            let noted = disk.owner.as_ref().filter(|_| disk.trouble.is_none())?;
            let machine = site.machine(&disk.machine).filter(keeps)?;
            let asked = view.as_owner(machine)?;
            let is_his = machine.macs().any(|mac| noted.is(&asked, mac));
            if is_his || view.disk_deletions.contains(&machine.name) {
                return None;
            }
            let cause = format!(
                "It gets no disk: the one of its name is of another machine that had this name ({noted}), and not of this one \
                 ({asked}). An older database was probably restored"
            );
            Some(Held { subject: Subject::Machine(machine.name.clone()), cause, since_unix_ms: None })
        });
        of_another.collect()
    }
}
