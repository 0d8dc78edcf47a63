//! Disks that machines keep, and what the storage server says of them.

use crate::error::Error;
use crate::live::Held;
use crate::service::Service;
use crate::storage_client;
use model::{KeptDisk, Machine, MachineName, Site, Subject, WriteMode};

impl Service {
    /// The random identity of the disk that the machine keeps, as the storage server says, or said last; `None` if it keeps
    /// none, or that is not known.
    pub(super) async fn disk_id(&self, machine: &MachineName) -> Option<String> {
        match storage_client::kept_disk(&self.options().storage_socket, machine).await {
            Ok(disk) => disk?.id,
            Err(_) => {
                let answer = self.exports().last();
                answer.disks.iter().find(|disk| disk.machine == *machine)?.stands_on.clone()?.id
            }
        }
    }

    /// Notes that a machine's reset is done, if the disk that it means is not the one that the machine has now: it was done
    /// before an older database was restored, or the disk was exchanged.
    pub(crate) async fn settle_reset(&self, machine: &MachineName) -> Result<(), Error> {
        let name = machine.clone();
        let meant = self.database().read(move |tables| tables.disk_reset_of(&name)).await?;
        let Some(meant) = meant else { return Ok(()) };
        let now = storage_client::kept_disk(&self.options().storage_socket, machine).await?;
        if let Some(KeptDisk { id: Some(id), .. }) = now
            && id != meant
        {
            let name = machine.clone();
            self.database().write(move |tables| Ok(tables.disk_was_reset(&name)?)).await?;
            tracing::warn!(%machine, "the disk that was to be reset is gone; the one that is there is left alone");
        }
        Ok(())
    }

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
            if is_his || view.disk_deletions.contains_key(&machine.name) {
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
