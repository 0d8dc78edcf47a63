//! Images that are changed by booting them: one machine gets a disk that it keeps, on a version, and what it leaves there becomes the
//! next version.

use super::machines::check_architecture;
use crate::error::{CaptureError, EditError, Error};
use crate::jobs::{Job, Order, PublishOrder};
use crate::people::{Admin, Viewer};
use crate::service::Service;
use crate::storage_client::{SnapshotDownload, StorageError, snapshots};
use crate::store::FieldChange;
use model::{
    Capture, Edit, Follows, ImageChoice, ImageName, Machine, MachineName, SnapshotOrder,
    VersionState, is_note,
};

/// What the snapshot is called that becomes a version.
const SNAPSHOT_NOTE: &str = "what is published";

/// An image that somebody wants to change.
#[derive(Clone, Debug)]
pub struct NewEdit {
    /// The image.
    pub image: ImageName,
    /// On which version it begins; `None`: the newest that is released or to be tested, or else the newest one.
    pub version: Option<u32>,
    /// The machine that boots it.
    pub machine: MachineName,
}

/// What is changed where.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct EditView {
    /// The machine.
    pub machine: MachineName,
    /// What it changes.
    #[serde(flatten)]
    pub edit: Edit,
    /// Whether it runs, perhaps still on something else.
    pub runs: bool,
    /// How much it has written, if it has booted since.
    pub written_bytes: Option<u64>,
    /// Versions that were made since it began, whose changes are not in it.
    pub newer: Vec<u32>,
}

/// What becomes of what was changed.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The machine on which it was changed.
    pub machine: MachineName,
    /// What people want to remember about the version.
    pub note: Option<String>,
    /// For whom it is.
    pub state: VersionState,
    /// Whether files are laid over it against what hurts in it.
    pub fixes: bool,
    /// Whether it may be that another version was made since.
    pub anyway: bool,
}

impl Viewer {
    /// Images that are being changed, by machine. Asks the storage server.
    pub async fn edits(&self) -> Vec<EditView> {
        let service = self.service();
        service.look_at_exports().await;
        let site = service.site();
        let edited = site.machines.iter().filter(|machine| machine.edit.is_some());
        edited.filter_map(|machine| service.edit_view(machine)).collect()
    }
}

impl Admin {
    /// Has a machine change an image from its next boot on, whatever it boots otherwise.
    ///
    /// # Errors
    /// There is no such machine or version, machines can't start with it, or the machine changes one already or keeps a disk.
    pub async fn begin_edit(&self, wanted: NewEdit) -> Result<EditView, Error> {
        let NewEdit { image, version, machine: name } = wanted;
        let service = self.service();
        service.check_machine(&name)?;
        let site = service.site();
        let of = |follows| ImageChoice { image: image.clone(), follows };
        let found = match version {
            Some(number) => site.version(&image, number),
            None => site
                .chosen(&of(Follows::Test))
                .or_else(|| site.images.iter().rev().find(|have| have.image == image)),
        };
        let base = match (found, version) {
            (Some(found), _) => found.clone(),
            (None, Some(version)) => return Err(Error::NoVersion { image, version }),
            (None, None) => {
                let known = site.images.iter().map(|version| version.image.clone()).collect();
                return Err(Error::NoImage { image, known });
            }
        };
        if base.is_data() {
            return Err(Error::NoSystem(image));
        }
        service.check_boots(&base)?;
        // Of an earlier machine of this name, or of what was changed on it before.
        service.delete_left_disk(&name).await?;
        if service.written_disk(&name).await?.is_some() {
            return Err(EditError::HasDisk(name).into());
        }
        let (actor, now) = (self.shared_actor(), self.now());
        let by = self.actor().name().to_owned();
        let edit = Edit { image, version: base.version, by, since_unix: now.unix() };
        let stored = service.database().write(move |tables| {
            let mut machine =
                tables.machine(&name)?.ok_or_else(|| Error::NoMachine(name.clone()))?;
            if let Some(Edit { image, version, by, .. }) = machine.edit {
                return Err(
                    Error::from(EditError::Begun { machine: name, image, version, by }).into()
                );
            }
            if let Some(Capture { image, by, .. }) = machine.capture {
                return Err(Error::from(CaptureError::Begun { machine: name, image, by }).into());
            }
            check_architecture(tables, &machine, Some(&edit.choice()))?;
            // A machine that an older Bootlace has added has no place yet, beside which it stands.
            tables.put_machine(&machine, now.unix())?;
            tables.put_edit(&name, &edit)?;
            let told = format!("{}/v{}", edit.image, edit.version);
            let change = FieldChange { field: "edit".to_owned(), old: None, new: Some(told) };
            tables.put_audit(&actor.does("image.edit", &name, vec![change], now.unix_ms))?;
            machine.edit = Some(edit);
            Ok(machine)
        });
        let machine = stored.await?;
        service.initrds().look_again();
        tracing::info!(machine = %machine.name, image = %base.image, version = base.version, "an image is changed on it");
        service.edit_view(&machine).ok_or_else(|| EditError::None(machine.name).into())
    }

    /// Throws away what was changed. Where its machine still runs on it, that goes when it is off.
    ///
    /// # Errors
    /// The machine changes nothing, or the database can't be written.
    pub async fn discard_edit(&self, machine: &MachineName) -> Result<EditView, Error> {
        let (found, _) = self.service().edit_on(machine)?;
        self.service().refresh_exports().await;
        let none = || EditError::None(machine.clone());
        let view = self.service().edit_view(&found).ok_or_else(none)?;
        self.end_edit(machine, "image.discard").await?;
        Ok(view)
    }

    /// Has the boot server make what was changed the next version of the image.
    ///
    /// # Errors
    /// The machine changes nothing, still runs or has written nothing, another version was made since, or the storage server does
    /// not do its part.
    pub async fn publish_edit(&self, wanted: Publication) -> Result<Job, Error> {
        let Publication { machine, note, state, fixes, anyway } = wanted;
        if !note.as_deref().is_none_or(is_note) {
            return Err(Error::BadNote);
        }
        let service = self.service();
        let (found, edit) = service.edit_on(&machine)?;
        service.refresh_exports().await;
        if let Some(why) = service.storage_error() {
            return Err(Error::Snapshot(why));
        }
        if service.may_run_on_disk(&machine) {
            return Err(EditError::Runs(machine).into());
        }
        if found.reset_disk {
            return Err(EditError::ResetOrdered(machine).into());
        }
        let Edit { image, version, .. } = edit.clone();
        match service.versions_since(&edit).last() {
            Some(&newest) if !anyway => {
                return Err(EditError::Newer { machine, image, version, newest }.into());
            }
            _ => {}
        }
        let snapshot = self.snapshot_of_edit(&machine).await?;
        let order = PublishOrder {
            machine: machine.clone(),
            image,
            changes_of: version,
            snapshot,
            note,
            state,
            fixes,
        };
        let changes = FieldChange::all(None, Some(&order));
        let (by, now) = (self.actor().name().to_owned(), self.now());
        let entry = self.actor().does("image.publish", &order.image, changes, now.unix_ms);
        self.order(Order::Publish(order), entry, &by, now).await
    }

    /// The machine's disk as it is now; if nothing was written since the last snapshot, that one.
    async fn snapshot_of_edit(&self, machine: &MachineName) -> Result<u32, Error> {
        let socket = &self.service().options().storage_socket;
        let unchanged = || Error::from(EditError::Unchanged(machine.clone()));
        let before = match snapshots::list(socket, machine).await {
            Err(StorageError::Refused { status: 404, .. }) => return Err(unchanged()),
            listed => listed?.snapshots,
        };
        if let Some(back) = before.iter().find(|info| info.is_next) {
            let (machine, snapshot) = (machine.clone(), back.snapshot.number);
            return Err(EditError::RollbackOrdered { machine, snapshot }.into());
        }
        let order = SnapshotOrder { note: Some(SNAPSHOT_NOTE.to_owned()) };
        match snapshots::make(socket, machine, &order).await {
            Ok(Some(made)) => return Ok(made.number),
            Ok(None) => {}
            Err(StorageError::Refused { status: 404, .. }) => return Err(unchanged()),
            Err(StorageError::Refused { message, .. }) => return Err(Error::Snapshot(message)),
            Err(error) => return Err(error.into()),
        }
        let list = snapshots::list(socket, machine).await?.snapshots;
        list.last().map(|info| info.snapshot.number).ok_or_else(unchanged)
    }

    /// What was published is a version now, or what was changed is to be thrown away. A machine that has begun to run on it again keeps
    /// it if it was published; whether it does so no more.
    ///
    /// # Errors
    /// The database can't be written.
    pub async fn edit_is_published(&self, machine: &MachineName) -> Result<bool, Error> {
        let site = self.service().site();
        if site.machine(machine).is_none_or(|machine| machine.edit.is_none()) {
            return Ok(true);
        }
        self.service().refresh_exports().await;
        if self.service().may_run_on_disk(machine) {
            tracing::warn!(%machine, "it runs again on what was published, and goes on changing it");
            return Ok(false);
        }
        self.end_edit(machine, "image.published").await?;
        Ok(true)
    }

    /// The machine boots what it has booted before, and its disk goes.
    async fn end_edit(&self, machine: &MachineName, action: &'static str) -> Result<(), Error> {
        let disk = self.service().disk_id(machine).await;
        let (name, entry) =
            (machine.clone(), self.actor().does(action, machine, Vec::new(), self.now().unix_ms));
        let ended = self.service().database().write(move |tables| {
            let meant = tables.disk_meant(&name, disk)?;
            let Some(former) = tables.machine(&name)?.and_then(|machine| machine.edit) else {
                return Ok(false);
            };
            tables.delete_edit(&name)?;
            tables.want_disk_deletion(&name, &meant)?;
            let told = format!("{}/v{}", former.image, former.version);
            let change = FieldChange { field: "edit".to_owned(), old: Some(told), new: None };
            tables.put_audit(&crate::store::AuditEntry { changes: vec![change], ..entry })?;
            Ok(true)
        });
        if !ended.await? {
            return Ok(());
        }
        tracing::info!(%machine, "no image is changed on it any more");
        if let Err(error) = self.service().delete_left_disk(machine).await {
            tracing::warn!(%machine, error = error.chain(), "its disk is deleted later");
        }
        Ok(())
    }
}

impl Service {
    /// What is changed on this machine.
    fn edit_on(&self, name: &MachineName) -> Result<(Machine, Edit), Error> {
        let site = self.site();
        let machine = site.machine(name).ok_or_else(|| Error::NoMachine(name.clone()))?;
        let edit = machine.edit.clone().ok_or_else(|| EditError::None(name.clone()))?;
        Ok((machine.clone(), edit))
    }

    fn edit_view(&self, machine: &Machine) -> Option<EditView> {
        let edit = machine.edit.clone()?;
        let answer = self.exports().last();
        let disk = answer.disks.iter().find(|disk| disk.disk == machine.name);
        Some(EditView {
            machine: machine.name.clone(),
            runs: self.may_run_on_disk(&machine.name),
            written_bytes: disk.and_then(|disk| disk.written_bytes),
            newer: self.versions_since(&edit),
            edit,
        })
    }

    /// Versions of its image that were made since it began and may be for somebody, the oldest first.
    fn versions_since(&self, edit: &Edit) -> Vec<u32> {
        let site = self.site();
        let is_newer = |it: &&model::ImageVersion| {
            it.image == edit.image
                && it.version > edit.version
                && it.imported_unix >= edit.since_unix
                && site.state(it) != VersionState::Retired
        };
        let newer = site.images.iter().filter(is_newer);
        newer.map(|version| version.version).collect()
    }

    /// Whether the machine may still use the disk that the storage server has for it, as that said last.
    fn may_run_on_disk(&self, machine: &MachineName) -> bool {
        let answer = self.exports().last();
        let export = answer.list.iter().find(|export| export.spec.disk == *machine);
        export.is_some_and(|export| export.connections > 0 || export.is_silent != Some(true))
    }
}

/// What a machine has changed of the version on which its disk stands, up to a snapshot, as records of "rbd diff v1".
///
/// # Errors
/// The storage server at this socket has no such snapshot, or does not answer.
pub async fn snapshot_changes(
    storage_socket: &std::path::Path,
    machine: &MachineName,
    snapshot: u32,
) -> Result<SnapshotDownload, StorageError> {
    snapshots::changes(storage_socket, machine, snapshot).await
}
