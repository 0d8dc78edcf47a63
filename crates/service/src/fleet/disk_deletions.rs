//! Disks of machines that were removed: the storage server deletes them, if not at once then as soon as it can.

use crate::error::Error;
use crate::service::Service;
use crate::storage_client::{self, StorageError};
use model::{DiskFound, DiskId, DiskMeant, DiskOwner, Machine, MachineName};
use std::collections::BTreeSet;

impl Service {
    /// Has the storage server delete what is left of a removed machine of this name, if anything may be. Until that is
    /// done nobody gets a disk by the name.
    ///
    /// # Errors
    /// The storage server does not do it, or the database can't be written.
    pub(crate) async fn delete_left_disk(&self, machine: &MachineName) -> Result<(), Error> {
        if !self.view().disk_deletions.contains_key(machine) {
            return Ok(());
        }
        let _turn = self.disk_deletions().turn().await;
        if !self.view().disk_deletions.contains_key(machine) {
            return Ok(());
        }
        let meant = self.view().disk_deletions.get(machine).cloned().unwrap_or_default();
        let deleted = match self.delete_meant(machine, &meant).await {
            Err(StorageError::OtherDisk) => {
                let what =
                    "what has the name of a removed machine is not its disk, and is left alone";
                return self.leave_disk(machine, what).await;
            }
            Err(StorageError::GoneDisk) => {
                return self.leave_disk(machine, "the disk of a removed machine is gone").await;
            }
            deleted => deleted,
        };
        let refusal = deleted.as_ref().err().map(StorageError::fact);
        let is_news = self.disk_deletions().tried(machine, refusal.as_deref());
        if let Some(why) = refusal.filter(|_| is_news) {
            tracing::warn!(%machine, why, "the disk of a removed machine is not deleted yet");
        }
        deleted.map_err(|source| Error::DiskLeft { machine: machine.clone(), source })?;
        let name = machine.clone();
        self.database().write(move |tables| Ok(tables.note_disk_deletion(&name)?)).await?;
        self.exports().forget_disk(machine);
        tracing::info!(%machine, "nothing is left of the disk of a removed machine");
        Ok(())
    }

    /// Has the storage server delete what a removed machine had beside its root. What it can't delete now is shown by `disk ls --kept`.
    pub(super) async fn delete_beside(&self, machine: &Machine, owner: Option<&DiskOwner>) {
        self.refresh_exports().await;
        let (socket, answer) = (&self.options().storage_socket, self.exports().last());
        // Another machine's of that name stays.
        let is_its = |noted: &DiskOwner| {
            owner.is_some_and(|owner| machine.macs().any(|mac| noted.is(owner, mac)))
        };
        let of_another = |disk: &DiskId| {
            let mut reports = answer.further_disks.iter().filter(|report| report.disk == *disk);
            reports.any(|report| report.owner.as_ref().is_some_and(|noted| !is_its(noted)))
        };
        let kept = answer.further_disks.iter().map(|report| &report.disk);
        let exported = answer.further.iter().map(|export| &export.spec.disk);
        let disks = kept.chain(exported).filter(|it| it.machine == machine.name);
        let disks: BTreeSet<_> = disks.filter(|disk| !of_another(disk)).collect();
        for disk in disks {
            if let Err(error) = storage_client::delete_disk(socket, disk).await {
                let error = wire::error_chain(&error);
                tracing::warn!(%disk, error, "a disk of a removed machine is not deleted");
            }
        }
        self.exports().ask_for_disks();
    }

    /// Has the storage server delete the disk that is meant, and no other one.
    async fn delete_meant(
        &self,
        machine: &MachineName,
        meant: &DiskMeant,
    ) -> Result<(), StorageError> {
        let socket = &self.options().storage_socket;
        match storage_client::delete_meant(socket, machine, meant).await {
            Err(StorageError::NotKnown) => {}
            deleted => return deleted,
        }
        // An earlier one deletes what has the name.
        let disk = match storage_client::kept_disk(socket, machine).await {
            Ok(disk) => disk,
            // It is damaged.
            Err(StorageError::Refused { .. }) if !meant.must_be_known => None,
            Err(error) => return Err(error),
        };
        let told = storage_client::disks(socket).await.unwrap_or_default();
        let told = told.into_iter().find(|told| told.disk == *machine);
        let id = disk.as_ref().and_then(|disk| disk.id.as_deref());
        let owner = told.as_ref().and_then(|told| told.owner.as_ref());
        match (disk.is_some() || owner.is_some(), meant.is(DiskFound { id, owner })) {
            (true, false) => Err(StorageError::OtherDisk),
            (false, _) if meant.must_be_known => Err(StorageError::GoneDisk),
            _ => storage_client::delete_disk(socket, machine).await,
        }
    }

    /// What was to be deleted is not there any more; if something is there by the name, it is left alone.
    async fn leave_disk(&self, machine: &MachineName, what: &'static str) -> Result<(), Error> {
        let name = machine.clone();
        self.database().write(move |tables| Ok(tables.forget_disk_deletion(&name)?)).await?;
        self.disk_deletions().tried(machine, None);
        tracing::warn!(%machine, "{what}");
        Ok(())
    }

    /// Tries that for all removed machines. What goes wrong is a finding.
    pub(super) async fn delete_left_disks(&self) {
        let view = self.view();
        for machine in view.disk_deletions.keys() {
            if let Err(Error::DiskLeft { source: StorageError::Unreachable { .. }, .. }) =
                self.delete_left_disk(machine).await
            {
                // Nor does it answer to the others.
                return;
            }
        }
    }

    /// Whether the storage server may still have the disk of a removed machine of this name. Never waits.
    pub fn has_left_disk(&self, machine: &MachineName) -> bool {
        self.view().disk_deletions.contains_key(machine)
    }

    /// Removed machines whose disks are still to be deleted, and why.
    pub(super) fn left_disks(&self) -> Vec<(MachineName, String)> {
        let told = |machine: &MachineName| {
            let why = self.disk_deletions().refusal(machine);
            let why = why.or_else(|| self.storage_error());
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            (
                machine.clone(),
                format!("It was removed, and what it may have written is not deleted yet{why}"),
            )
        };
        self.view().disk_deletions.keys().map(told).collect()
    }
}
