//! A machine's layer is the one that it had last, and not an older copy, such as one that is below the file system that
//! should be mounted there.

use super::Exports;
use images::{Base, Expected, ForBoot, LastUse, LayerError, LayerMode, WriteLayer};
use model::MachineName;
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
    /// The machine's layer in this boot. `is_boot`: it begins; a machine that runs can't have an older copy, whatever
    /// somebody says.
    ///
    /// Its count of uses is raised on its own disk first, and then noted on this server's: whatever is between them at a
    /// crash, what is there has at least the count that is noted. An older copy has less.
    pub(super) fn layer(
        &self,
        machine: &MachineName,
        base: &Base,
        mode: LayerMode,
        boot: ForBoot,
        expected: Expected,
        is_boot: bool,
    ) -> Result<Arc<WriteLayer>, LayerError> {
        let copy = self.copy(machine, mode, boot)?;
        let other = copy.as_ref().and_then(Copy::other);
        let is_put_back = other.is_some();
        if let Some((found, noted)) = other
            && !(is_boot && self.layers.take_put_back(machine, mode)?)
        {
            return Err(self.layers.other(machine, mode, found, noted));
        }
        let layer = self.layers.open_or_create(machine, base, mode, boot, expected)?;
        let now = match copy {
            Some(Copy { found, noted }) => {
                let beyond = noted.filter(|_| is_put_back).map_or(0, |noted| noted.count);
                let begun = self.layers.begin_use(machine, mode, boot.number, beyond);
                // Such as on a full disk.
                Some(begun.unwrap_or_else(|error| {
                    let error = wire::error_chain(&error);
                    tracing::warn!(%machine, error, "that its layer is in use is not noted");
                    found
                }))
            }
            // It is new. One that is forgotten is known by its boot.
            None if mode == LayerMode::Discard => None,
            None => self.layers.last_use(machine, mode)?,
        };
        if let Some(now) = now {
            self.kept.note(machine, mode, now);
        }
        if is_put_back {
            tracing::warn!(%machine, "an older copy of its layer was put back, and is taken");
            self.kept.keep();
            self.layers.settle_put_back(machine, mode)?;
        }
        Ok(layer)
    }

    /// Whether the machine's layer is the one that it had last, or was put back on purpose, or is to be a new one.
    pub(super) fn check_copy(
        &self,
        machine: &MachineName,
        mode: LayerMode,
        boot: ForBoot,
    ) -> Result<(), LayerError> {
        match self.copy(machine, mode, boot)?.and_then(|copy| copy.other()) {
            Some((found, noted)) if !self.layers.is_put_back(machine, mode)? => {
                Err(self.layers.other(machine, mode, found, noted))
            }
            _ => Ok(()),
        }
    }

    fn copy(
        &self,
        machine: &MachineName,
        mode: LayerMode,
        boot: ForBoot,
    ) -> Result<Option<Copy>, LayerError> {
        let noted = self.kept.last(machine, mode);
        let Some(found) = self.layers.last_use(machine, mode)? else { return Ok(None) };
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
