//! A machine's layer is the one that it had last, and not an older copy, such as one that is below the file system that
//! should be mounted there; and not that of another machine that had its name.

use super::{ExportError, Exports, When};
use images::{Base, Expected, ForBoot, LastUse, LayerError, LayerMode, WriteLayer};
use model::{BootIdentity, DiskFound, DiskId, DiskMeant, DiskOwner, ExportSpec};
use std::sync::Arc;

/// The layer that is there, and what was noted of it.
struct Copy {
    found: LastUse,
    noted: Option<LastUse>,
}

impl Copy {
    /// Both, if they are of two layers.
    fn other(&self) -> Option<(LastUse, LastUse)> {
        let noted = self.noted.as_ref().filter(|noted| self.found.is_not(noted))?;
        Some((self.found.clone(), noted.clone()))
    }
}

impl Exports {
    /// The machine's layer in this boot. A machine that runs can't have an older copy, whatever somebody says.
    ///
    /// Its count of uses is raised on its own disk first, and then noted on this server's: whatever is between them at a
    /// crash, what is there has at least the count that is noted. An older copy has less.
    pub(super) fn layer(
        &self,
        spec: &ExportSpec,
        identity: Option<BootIdentity>,
        base: &Base,
        mode: LayerMode,
        expected: Expected,
        when: When<'_>,
    ) -> Result<Arc<WriteLayer>, LayerError> {
        let disk = &spec.disk;
        let boot = ForBoot { number: spec.boot, identity };
        let copy = self.copy(disk, mode, boot)?;
        let other = copy.as_ref().and_then(Copy::other);
        let is_put_back = other.is_some();
        let owner = match when {
            When::Boots(owner) => owner,
            When::Runs => None,
        };
        self.check_owner(spec, mode, owner)?;
        if let Some((found, noted)) = other
            && !(matches!(when, When::Boots(_)) && self.layers.take_put_back(disk, mode)?)
        {
            return Err(self.layers.other(disk, mode, found, noted));
        }
        if mode == LayerMode::Persistent && matches!(when, When::Boots(_)) {
            self.roll_back_for(disk, boot.number)?;
        }
        let layer = self.layers.open_or_create(disk, base, mode, boot, expected)?;
        let now = match copy {
            Some(Copy { found, noted }) => {
                let beyond = noted.filter(|_| is_put_back).map_or(0, |noted| noted.count);
                let begun = self.layers.begin_use(disk, mode, boot.number, beyond);
                // Such as on a full disk.
                Some(begun.unwrap_or_else(|error| {
                    let error = wire::error_chain(&error);
                    tracing::warn!(%disk, error, "that its layer is in use is not noted");
                    found
                }))
            }
            // It is new. One that is forgotten is known by its boot.
            None if mode == LayerMode::Discard => None,
            None => self.layers.last_use(disk, mode)?,
        };
        if let Some(now) = now {
            self.kept.note(disk, mode, now);
        }
        if is_put_back {
            tracing::warn!(%disk, "an older copy of its layer was put back, and is taken");
            self.kept.keep();
            self.layers.settle_put_back(disk, mode)?;
        }
        if let Some(owner) = owner.filter(|_| mode == LayerMode::Persistent) {
            self.note_owner(disk, owner)?;
        }
        Ok(layer)
    }

    /// Notes whose the machine's persistent layer is. What a person has said of that has been done then.
    fn note_owner(&self, disk: &DiskId, owner: &DiskOwner) -> Result<(), LayerError> {
        let noted = match self.layers.owner(disk) {
            Ok(noted) => noted,
            // A person has said that it is to be had all the same.
            Err(LayerError::OwnerUnknown(_)) => None,
            Err(error) => return Err(error),
        };
        if noted.as_ref() != Some(owner)
            && let Err(error) = self.layers.note_owner(disk, owner)
        {
            // Such as on a full disk.
            let error = wire::error_chain(&error);
            tracing::warn!(%disk, error, "whose its layer is, is not noted");
            return Ok(());
        }
        if self.layers.is_taken_over(disk)? {
            let former = noted.map_or_else(String::new, |noted| noted.to_string());
            tracing::warn!(%disk, former, "it has taken over the disk of another machine of its name");
            self.layers.settle_take_over(disk)?;
        }
        Ok(())
    }

    /// Whether the machine's layer, if it keeps one, is its own, and not that of another machine that had its name, as far as
    /// is known; or somebody has said that it is to have it.
    pub(super) fn check_owner(
        &self,
        spec: &ExportSpec,
        mode: LayerMode,
        owner: Option<&DiskOwner>,
    ) -> Result<(), LayerError> {
        let (LayerMode::Persistent, Some(asked)) = (mode, owner) else { return Ok(()) };
        let error = match self.layers.owner(&spec.disk) {
            Ok(Some(noted)) if !noted.is(asked, spec.mac) => {
                self.layers.other_owner(&spec.disk, noted, asked.clone())
            }
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if self.layers.is_taken_over(&spec.disk)? { Ok(()) } else { Err(error) }
    }

    /// Whether what is to be thrown away is the disk that the machine has here, if it has any. Returns whether something proves that,
    /// or only nothing speaks against it.
    ///
    /// # Errors
    /// It is not, or that can't be told.
    pub(super) fn check_meant(
        &self,
        disk: &DiskId,
        meant: &DiskMeant,
    ) -> Result<bool, ExportError> {
        let about = match self.layers.about(disk, LayerMode::Persistent) {
            Ok(about) => about.map(|about| about.id),
            // By whose it is, it may still be told.
            Err(LayerError::Damaged { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let is_there = self.layers.has_folder(disk)?;
        let noted = || self.kept.last(disk, LayerMode::Persistent).map(|last| last.id);
        let id = if is_there { about } else { noted() };
        let is_same = meant.id.is_some() && meant.id == id;
        let owner = match self.layers.owner(disk) {
            Ok(owner) => owner,
            // Of what says nothing at all, nothing is to be kept.
            Err(_) if is_same || is_there && id.is_none() && !meant.must_be_known => None,
            Err(error) => return Err(error.into()),
        };
        let found = DiskFound { id: id.as_deref(), owner: owner.as_ref() };
        if (is_there || id.is_some()) && !meant.is(found) {
            return Err(ExportError::OtherDisk(disk.clone()));
        }
        if meant.must_be_known && !is_there && !is_same {
            return Err(ExportError::NoDisk(disk.clone()));
        }
        Ok(is_same || owner.is_some() && meant.owner.is_some())
    }

    /// Whether the machine's layer is the one that it had last, or was put back on purpose, or is to be a new one.
    pub(super) fn check_copy(
        &self,
        disk: &DiskId,
        mode: LayerMode,
        boot: ForBoot,
    ) -> Result<(), LayerError> {
        match self.copy(disk, mode, boot)?.and_then(|copy| copy.other()) {
            Some((found, noted)) if !self.layers.is_put_back(disk, mode)? => {
                Err(self.layers.other(disk, mode, found, noted))
            }
            _ => Ok(()),
        }
    }

    fn copy(
        &self,
        disk: &DiskId,
        mode: LayerMode,
        boot: ForBoot,
    ) -> Result<Option<Copy>, LayerError> {
        let noted = self.kept.last(disk, mode);
        let Some(found) = self.layers.last_use(disk, mode)? else { return Ok(None) };
        if mode == LayerMode::Persistent {
            return Ok(Some(Copy { found, noted }));
        }
        // That of another boot is thrown away; and another one in the same boot is seen by its identity.
        let is_same_boot = found.boot == boot.number
            && boot.identity.is_none_or(|identity| identity.to_string() == found.id);
        let noted = noted.filter(|noted| noted.id == found.id);
        Ok(is_same_boot.then_some(Copy { found, noted }))
    }
}
