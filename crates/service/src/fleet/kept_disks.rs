//! Disks that machines keep, and what the storage server says of them.

use crate::error::Error;
use crate::live::Held;
use crate::service::Service;
use crate::storage_client;
use model::{KeptDisk, Machine, MachineName, Site, Subject, WriteMode};

/// The disk that a machine keeps, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct WrittenDisk {
    /// How much the machine has written to it.
    pub written_bytes: Option<u64>,
    /// When it was begun, in seconds since 1970.
    pub made_unix: Option<u64>,
}

impl Service {
    /// The disk that the machine keeps, or should have, as the storage server says, or said last; `None` if it keeps none.
    ///
    /// # Errors
    /// There is no such machine.
    pub async fn written_disk(&self, name: &MachineName) -> Result<Option<WrittenDisk>, Error> {
        if self.site().machine(name).is_none() {
            return Err(Error::NoMachine(name.clone()));
        }
        let told = storage_client::disks(&self.options().storage_socket).await;
        let is_told = told.is_ok();
        let disks = told.unwrap_or_else(|_| self.exports().last().disks.to_vec());
        let disk = disks.iter().find(|disk| disk.machine == *name).map(|disk| WrittenDisk {
            written_bytes: disk.written_bytes,
            made_unix: disk.made_unix,
        });
        let was_there = !is_told && self.view().kept_disks.contains(name);
        Ok(disk.or_else(|| was_there.then(WrittenDisk::default)))
    }

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

    /// Machines that have kept a disk of which the storage server knows nothing, as after its own was exchanged.
    pub(super) fn unknown_disks(&self, site: &Site) -> Vec<Held> {
        let (view, answer) = (self.view(), self.exports().last());
        if answer.disks_asked.is_none() || answer.error.is_some() {
            return Vec::new();
        }
        let is_there = |name: &MachineName| {
            answer.disks.iter().any(|disk| disk.machine == *name)
                || answer.list.iter().any(|export| export.spec.machine == *name)
        };
        let gone = view.kept_disks.iter().filter(|name| {
            site.machine(name).is_some_and(keeps_disk)
                && !view.disk_deletions.contains_key(*name)
                && !is_there(name)
        });
        let cause = "The storage server knows nothing of the disk that it has kept: the server was probably replaced, or its \
                     state and disks lost";
        gone.map(|name| Held {
            subject: Subject::Machine(name.clone()),
            cause: cause.to_owned(),
            since_unix_ms: None,
        })
        .collect()
    }

    /// Machines that get no disk, as the one of their name is another machine's.
    pub(super) fn disks_of_others(&self, site: &Site) -> Vec<Held> {
        let (view, answer) = (self.view(), self.exports().last());
        let of_another = answer.disks.iter().filter_map(|disk| {
            let noted = disk.owner.as_ref().filter(|_| disk.trouble.is_none())?;
            let machine = site.machine(&disk.machine).filter(|machine| keeps_disk(machine))?;
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

/// Whether the machine is to start with the disk that it has kept.
fn keeps_disk(machine: &Machine) -> bool {
    machine.write_mode == WriteMode::Persistent && !machine.root.is_foreign() && !machine.reset_disk
}
