//! Disks of machines that were removed: the storage server deletes them, if not at once then as soon as it can.

use crate::error::Error;
use crate::service::Service;
use crate::storage_client::{self, StorageError};
use crate::store::DeletionOf;
use model::{KeptDisk, MachineName};

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
        let of = self.view().disk_deletions.get(machine).cloned().flatten();
        let deleted = match self.is_meant(machine, of.as_ref()).await {
            Ok(false) => return self.leave_disk(machine).await,
            Ok(true) => storage_client::delete_disk(&self.options().storage_socket, machine).await,
            Err(error) => Err(error),
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

    /// Whether a deletion means what the storage server has by the name now. What is not known is deleted, if the order did
    /// not come with a backup.
    async fn is_meant(
        &self,
        machine: &MachineName,
        of: Option<&DeletionOf>,
    ) -> Result<bool, StorageError> {
        let Some(of) = of else { return Ok(true) };
        match storage_client::kept_disk(&self.options().storage_socket, machine).await {
            Ok(Some(KeptDisk { id: Some(id), .. })) => Ok(id == of.id),
            // It is damaged.
            Err(StorageError::Refused { .. }) if !of.is_restored => Ok(true),
            Ok(_) => Ok(!of.is_restored),
            Err(error) => Err(error),
        }
    }

    /// What was to be deleted is not there any more, and what is there by the name is left alone.
    async fn leave_disk(&self, machine: &MachineName) -> Result<(), Error> {
        let name = machine.clone();
        self.database().write(move |tables| Ok(tables.forget_disk_deletion(&name)?)).await?;
        self.disk_deletions().tried(machine, None);
        tracing::warn!(%machine, "the disk of a removed machine is gone; another one that has its name is left alone");
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
