//! Snapshots of the disks that machines keep: of their roots, and of those beside them.

use crate::error::Error;
use crate::people::Admin;
use crate::service::Service;
use crate::storage_client::{SnapshotDownload, StorageError, snapshots};
use crate::store::FieldChange;
use model::{
    DiskId, MachineName, Snapshot, SnapshotFiles, SnapshotList, SnapshotOrder, SnapshotPath,
};

impl Service {
    /// Snapshots of the machine's disk, the oldest first; none if it keeps no disk.
    ///
    /// # Errors
    /// There is no such machine, or the storage server does not tell.
    pub(crate) async fn snapshots(&self, disk: &DiskId) -> Result<SnapshotList, Error> {
        self.check_machine(&disk.machine)?;
        match snapshots::list(&self.options().storage_socket, disk).await {
            // It has no disk, or the server is an earlier one.
            Err(StorageError::Refused { status: 404, .. }) => Ok(SnapshotList::default()),
            told => told.map_err(said),
        }
    }

    pub(super) fn check_machine(&self, name: &MachineName) -> Result<(), Error> {
        match self.site().machine(name) {
            Some(_) => Ok(()),
            None => Err(Error::NoMachine(name.clone())),
        }
    }
}

impl Admin {
    /// Makes a snapshot of the machine's disk while it runs; `None`: nothing was written since the last one.
    ///
    /// # Errors
    /// There is no such machine or disk, or the storage server does not do it.
    pub async fn make_snapshot(
        &self,
        disk: &DiskId,
        order: &SnapshotOrder,
    ) -> Result<Option<Snapshot>, Error> {
        self.service().check_machine(&disk.machine)?;
        if order.note.as_deref().is_some_and(|note| !model::is_note(note)) {
            return Err(Error::BadSnapshotNote);
        }
        let made = snapshots::make(&self.service().options().storage_socket, disk, order).await;
        let made = made.map_err(said)?;
        if let Some(made) = &made {
            self.note_snapshot("machine.snapshot", disk, None, Some(made.number)).await;
        }
        Ok(made)
    }

    /// Deletes a snapshot.
    ///
    /// # Errors
    /// There is none, or the storage server does not do it.
    pub async fn remove_snapshot(&self, disk: &DiskId, number: u32) -> Result<(), Error> {
        self.service().check_machine(&disk.machine)?;
        let socket = &self.service().options().storage_socket;
        snapshots::remove(socket, disk, number).await.map_err(said)?;
        self.note_snapshot("machine.snapshot-rm", disk, Some(number), None).await;
        Ok(())
    }

    /// Has the machine's disk go back to a snapshot when it boots next.
    ///
    /// # Errors
    /// There is none, or the storage server does not do it.
    pub async fn roll_back(&self, disk: &DiskId, number: u32) -> Result<(), Error> {
        self.service().check_machine(&disk.machine)?;
        let socket = &self.service().options().storage_socket;
        snapshots::roll_back(socket, disk, number).await.map_err(said)?;
        self.note_snapshot("machine.rollback", disk, None, Some(number)).await;
        Ok(())
    }

    /// Has it stay what it is; whether it was to go back.
    ///
    /// # Errors
    /// It has no disk, or the storage server does not do it.
    pub async fn withdraw_roll_back(&self, disk: &DiskId) -> Result<bool, Error> {
        self.service().check_machine(&disk.machine)?;
        let socket = &self.service().options().storage_socket;
        let was_asked = snapshots::withdraw(socket, disk).await.map_err(said)?;
        if was_asked {
            self.note_snapshot("machine.rollback-undo", disk, None, None).await;
        }
        Ok(was_asked)
    }

    /// What is in a folder of a snapshot.
    ///
    /// # Errors
    /// There is no such snapshot or folder, or it can't be read.
    pub async fn snapshot_files(
        &self,
        disk: &DiskId,
        number: u32,
        asked: &SnapshotPath,
    ) -> Result<SnapshotFiles, Error> {
        self.service().check_machine(&disk.machine)?;
        let socket = &self.service().options().storage_socket;
        snapshots::look(socket, disk, number, asked).await.map_err(said)
    }

    /// A file of a snapshot, as it comes.
    ///
    /// # Errors
    /// There is no such snapshot or file, or it can't be read.
    pub async fn snapshot_file(
        &self,
        disk: &DiskId,
        number: u32,
        asked: &SnapshotPath,
    ) -> Result<SnapshotDownload, Error> {
        self.service().check_machine(&disk.machine)?;
        let socket = &self.service().options().storage_socket;
        let file = snapshots::read(socket, disk, number, asked).await.map_err(said)?;
        let change = FieldChange {
            field: "file".to_owned(),
            old: None,
            new: Some(model::one_line(&asked.path).chars().take(200).collect()),
        };
        let number =
            FieldChange { field: "snapshot".to_owned(), old: None, new: Some(number.to_string()) };
        self.note_done("machine.fetch", disk, vec![number, change]).await;
        Ok(file)
    }

    async fn note_snapshot(
        &self,
        action: &'static str,
        disk: &DiskId,
        old: Option<u32>,
        new: Option<u32>,
    ) {
        let text = |number: Option<u32>| number.map(|number| number.to_string());
        let change = FieldChange { field: "snapshot".to_owned(), old: text(old), new: text(new) };
        self.note_done(action, disk, vec![change]).await;
    }

    /// Notes what was done. That it was can't be taken back if it can't be noted, and is in the log then.
    async fn note_done(&self, action: &'static str, disk: &DiskId, changes: Vec<FieldChange>) {
        let entry = self.actor().does(action, disk, changes, self.now().unix_ms);
        let database = self.service().database();
        if let Err(error) = database.write(move |tables| Ok(tables.put_audit(&entry)?)).await {
            let (who, error) = (self.actor().name(), error.chain());
            tracing::error!(machine = %disk, action, who, error, "this is done, and is not in the audit log");
        }
    }
}

/// What the storage server says is for who asks.
fn said(error: StorageError) -> Error {
    match error {
        StorageError::Refused { status: 404, message } => Error::NotInSnapshots(message),
        StorageError::Refused { status: 400 | 409, message } => Error::Snapshot(message),
        other => other.into(),
    }
}
