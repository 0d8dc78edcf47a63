//! Who gets a machine's disk next, and when: what the boot server asks for, and what proofs bring about.

use super::keys::{Identity, InStorageNetwork, Key, Keys, Waiting};
use super::{Assigned, ExportError, Exports, When, file};
use images::{ForBoot, LayerMode};
use model::{
    BootId, BootIdentity, DiskId, DiskMeant, ExportOrder, ExportSpec, ExportStatus, MachineName,
    RootKind,
};
use std::sync::{Arc, PoisonError};

impl Exports {
    /// Makes the export for one boot, or has it wait: see [`ExportOrder`].
    ///
    /// # Errors
    /// The image is missing, the layer can't be had, or the table can't be written. A former export without
    /// candidate is then closed, but its layer is as it was.
    pub(crate) fn prepare(&self, order: ExportOrder) -> Result<ExportStatus, ExportError> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        self.free_address(&order.spec)?;
        match self.get(&order.spec.disk) {
            Some(former) if former.is_for(order.spec.boot, order.identity) => {
                self.again(&former, order)
            }
            Some(former) if order.key.is_some() => {
                self.wait(order)?;
                Ok(self.status(&former))
            }
            Some(former) => {
                self.close_former(&former)?;
                self.make_anew(order)
            }
            None if order.key.is_some() => {
                self.wait(order.clone())?;
                self.make_anew(order)
            }
            None => self.make_anew(order),
        }
    }

    /// As [`admit`](Self::admit), because the boot server says that the boot is the machine's.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn admit_proven(
        &self,
        disk: &DiskId,
        boot: BootId,
        identity: Option<BootIdentity>,
    ) -> Result<ExportStatus, ExportError> {
        self.admit(disk, boot, identity).map(|assigned| self.status(&assigned))
    }

    /// Gives the disk to the machine's candidate of this boot, if the former boot is silent. If it has it already,
    /// nothing changes.
    ///
    /// # Errors
    /// There is no such candidate, the former boot is not silent, or its export can't be made.
    pub(super) fn admit(
        &self,
        disk: &DiskId,
        boot: BootId,
        identity: Option<BootIdentity>,
    ) -> Result<Assigned, ExportError> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let former = self.get(disk);
        if let Some(one) = former.as_ref().filter(|former| former.is_for(boot, identity)) {
            return Ok(one.clone());
        }
        let candidate = self.read().candidates.get(disk, boot).cloned();
        let Some(order) = candidate.filter(|candidate| {
            super::is_same_boot((candidate.spec.boot, candidate.identity), (boot, identity))
        }) else {
            return Err(ExportError::NoCandidate { disk: disk.clone(), boot });
        };
        if let Some(former) = former {
            if !self.is_silent(&former) {
                return Err(ExportError::Runs { disk: disk.clone(), boot: former.spec.boot });
            }
            self.close_former(&former)?;
        }
        self.make_anew(order)?;
        self.get(disk).ok_or_else(|| ExportError::None(disk.clone()))
    }

    /// Takes the export away, and everything that the machine ever wrote; or, if it is not what is `meant`, nothing.
    ///
    /// # Errors
    /// It is another disk; the table can't be written, the disk is stuck, or the layers are not where they were: then they
    /// come back.
    pub(crate) fn reset(
        &self,
        disk: &DiskId,
        meant: Option<&DiskMeant>,
    ) -> Result<(), ExportError> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meant) = meant {
            self.check_place()?;
            let is_proven = self.check_meant(disk, meant)?;
            // What it runs on may keep nothing, and is its own all the same.
            let is_of_another = |one: &Assigned| {
                let mut owners = meant.owner.iter();
                owners.any(|owner| !owner.macs.contains(&one.spec.mac)) && !self.is_silent(one)
            };
            if !is_proven && self.get(disk).is_some_and(|one| is_of_another(&one)) {
                return Err(ExportError::OtherDisk(disk.clone()));
            }
        }
        let was_waiting = self.write().candidates.remove(disk);
        let former = self.get(disk);
        if let Some(former) = &former {
            self.close_former(former)?;
        }
        let absent = self.write().absent.remove(disk);
        if was_waiting || former.is_some() || absent.is_some() {
            self.save()?;
        }
        self.check_place()?;
        if self.throw_away(disk)? {
            tracing::info!(%disk, "its disk was deleted");
        }
        Ok(())
    }

    /// The boot that has the export has opened it by the key that replaces the former, which is void now.
    ///
    /// # Errors
    /// The keys can't be kept.
    pub(super) fn settle(&self, one: &Assigned) -> Result<(), ExportError> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let is_changed = {
            let mut held = self.write();
            let now = held.exports.get_mut(&one.spec.disk);
            let now = now.filter(|now| now.is_for(one.spec.boot, one.identity));
            let exchanged = now.and_then(|now| {
                now.key = Some(now.exchange.take()?.key);
                Some(())
            });
            exchanged.is_some()
        };
        if is_changed { self.save_keys() } else { Ok(()) }
    }

    /// The boot that has the export asks for it again.
    fn again(&self, former: &Assigned, order: ExportOrder) -> Result<ExportStatus, ExportError> {
        let ExportOrder { spec, key, exchange, identity, has_disk, owner, storage_path, .. } =
            order;
        let identity = former.identity.or(identity);
        let is_used = former.export.connections.was_used();
        let (key, exchange) = match (former.key, key) {
            (key, None) => (key, former.exchange.clone()),
            // Whoever runs without a key can't prove anything: it would lose its disk.
            (None, Some(_)) if former.is_restored || is_used => (None, None),
            // Nor can whoever has opened the disk by the former.
            (Some(one), Some(other)) if one != other && is_used => {
                return Err(ExportError::HasItsDisk(spec.disk));
            }
            // It is exchanged already.
            (Some(_), key) if is_used => (key, former.exchange.clone()),
            (_, key) => (key, exchange),
        };
        // The address only says who may open a disk without a key.
        let address = spec.address;
        let is_same = ExportSpec { address, ..former.spec.clone() } == spec;
        if !is_same || former.export.connections.is_closed() {
            self.close_former(former)?;
            let again = ExportOrder {
                key,
                exchange,
                identity,
                has_disk,
                owner,
                storage_path,
                ..ExportOrder::new(spec)
            };
            return self.make_anew(again);
        }
        let is_as_before = former.spec == spec && former.path == storage_path;
        if !is_as_before || former.key != key || former.exchange != exchange {
            let (export, is_restored) = (Arc::clone(&former.export), former.is_restored);
            let changed = Assigned::new((spec, storage_path), key, export, self.aoe_mac);
            let changed = Assigned { exchange, identity: former.identity, is_restored, ..changed };
            self.write().exports.insert(changed.spec.disk.clone(), changed.clone());
            self.save()?;
            return Ok(self.status(&changed));
        }
        Ok(self.status(former))
    }

    /// Has the boot wait until it has proven itself and the former one is silent.
    fn wait(&self, order: ExportOrder) -> Result<(), ExportError> {
        let ExportSpec { disk, image, version, write_mode, boot, .. } = &order.spec;
        // What would go wrong then is told now.
        let base = self.store.open_base(image, *version)?;
        if let Some(meant) = order.reset_of.as_ref().filter(|_| order.reset) {
            self.check_meant(disk, meant)?;
        }
        if let (Some(mode), false) = (LayerMode::of(*write_mode), order.reset) {
            self.check_place()?;
            let boot = ForBoot { number: *boot, identity: order.identity };
            self.check_copy(disk, mode, boot)?;
            self.check_owner(&order.spec, mode, order.owner.as_ref())?;
            self.layers.check(disk, &base, mode, boot, self.expected(&order))?;
        }
        let (disk, boot) = (disk.clone(), *boot);
        if self.write().candidates.put(order) {
            tracing::info!(%disk, boot, "disk asked for by a new boot");
            self.save_keys()?;
        }
        Ok(())
    }

    /// Makes the export of a boot that has none yet; nobody else has the machine's.
    fn make_anew(&self, order: ExportOrder) -> Result<ExportStatus, ExportError> {
        let expected = self.expected(&order);
        let ExportOrder { spec, key, exchange, reset, reset_of, identity, .. } = order;
        let ExportOrder { owner, storage_path, .. } = order;
        let disk = spec.disk.clone();
        let may_begin = match (reset, LayerMode::of(spec.write_mode)) {
            // Whoever wants that has been told.
            (true, _) => reset_of
                .map_or(Ok(()), |meant| self.check_meant(&disk, &meant).map(drop))
                .and_then(|()| self.throw_away(&disk).map(drop)),
            (false, Some(_)) => self.check_place(),
            (false, None) => Ok(()),
        };
        let when = When::Boots(owner.as_ref());
        let made = may_begin.and_then(|()| self.make(&spec, identity, when, expected));
        self.kept.keep();
        let made = made.map(|export| Assigned {
            exchange,
            identity,
            ..Assigned::new((spec, storage_path), key, export, self.aoe_mac)
        });
        // The machine boots: no former boot of it comes back.
        self.write().absent.remove(&disk);
        if let Ok(assigned) = &made {
            let mut held = self.write();
            held.exports.insert(disk.clone(), assigned.clone());
            held.candidates.on_admitted(&disk, assigned.spec.boot);
            drop(held);
            if disk.is_root() {
                self.end_beside(&disk.machine, assigned.spec.boot);
            }
        }
        // Also when it failed: the former export must not come back with a restart.
        self.save()?;
        let assigned = made?;
        let ExportSpec { disk, image, version, boot, .. } = &assigned.spec;
        let has_key = assigned.key.is_some();
        tracing::info!(%disk, %image, version, boot, has_key, "export ready");
        self.announce(disk);
        Ok(self.status(&assigned))
    }

    /// The machine's root is this boot's: nobody who knows an earlier one's key has anything beside it any more. What is kept stays.
    fn end_beside(&self, machine: &MachineName, boot: BootId) {
        let of_earlier = |one: &Assigned| {
            let disk = &one.spec.disk;
            disk.machine == *machine && !disk.is_root() && one.spec.boot != boot
        };
        for former in self.all().into_iter().filter(of_earlier) {
            let disk = &former.spec.disk;
            if let Err(error) = self.close_former(&former) {
                let error = wire::error_chain(&error);
                tracing::warn!(%disk, error, "an earlier boot of its machine still has it");
            }
        }
        let mut held = self.write();
        held.absent.retain(|disk, one| {
            disk.machine != *machine || disk.is_root() || one.spec.boot == boot
        });
        held.candidates.on_root_admitted(machine, boot);
    }

    /// Throws away what the machine ever wrote, if anything. If this server dies in between, the disk is there, and
    /// known.
    fn throw_away(&self, disk: &DiskId) -> Result<bool, ExportError> {
        self.kept.forget(disk)?;
        Ok(self.layers.reset(disk)?)
    }

    /// Tells of a new export who attaches it over AoE.
    pub(super) fn announce(&self, disk: &DiskId) {
        let Some(new) = self.get(disk).filter(|new| new.spec.root == RootKind::Aoe) else {
            return;
        };
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener(&new.aoe_disk()));
    }

    /// Ends a former boot's export, and takes it out of the table when nothing can be written to its
    /// layer any more.
    fn close_former(&self, former: &Assigned) -> Result<(), ExportError> {
        if !former.export.connections.close() {
            return Err(ExportError::Busy(former.spec.disk.clone()));
        }
        self.write().exports.remove(&former.spec.disk);
        Ok(())
    }

    /// Makes the AoE address free for whom the boot server gives it to. That gives it to one machine at a time: who else
    /// has it here has it no more, as after a restore of the database. If that one is silent its export ends, and its
    /// layer stays.
    fn free_address(&self, spec: &ExportSpec) -> Result<(), ExportError> {
        let Some(other) = self.other_at_address(spec) else { return Ok(()) };
        if !self.is_silent(&other) {
            return Err(ExportError::address_taken(&other.spec));
        }
        self.close_former(&other)?;
        self.write().candidates.remove(&other.spec.disk);
        self.save()?;
        tracing::warn!(
            disk = %other.spec.disk, address = %spec.shelf_slot, new_owner = %spec.disk,
            "its AoE address is another machine's now: its export has ended, and its disk is kept"
        );
        Ok(())
    }

    pub(super) fn other_at_address(&self, spec: &ExportSpec) -> Option<Assigned> {
        // Disks beside a root are attached over NBD only.
        if !spec.disk.is_root() {
            return None;
        }
        let held = self.read();
        let is_other = |one: &&Assigned| {
            one.spec.disk.is_root()
                && one.spec.shelf_slot == spec.shelf_slot
                && one.spec.disk != spec.disk
        };
        held.exports.values().find(is_other).cloned()
    }

    fn status(&self, one: &Assigned) -> ExportStatus {
        self.read().status(one, self.silence(one))
    }

    /// Keeps all on disk. The table comes first: the key of a boot that is new in it is in the file of keys already, as
    /// that of a candidate.
    fn save(&self) -> Result<(), ExportError> {
        let held = self.read();
        let absent = held.absent.values().map(|one| one.spec.clone());
        let specs = held.exports.values().map(|one| one.spec.clone()).chain(absent).collect();
        drop(held);
        file::write(&self.path, specs)?;
        self.save_keys()
    }

    fn save_keys(&self) -> Result<(), ExportError> {
        let held = self.read();
        let key = |one: &Assigned| {
            let (disk, boot) = (one.spec.disk.clone(), one.spec.boot);
            one.key.map(|key| Key { disk, boot, key, exchange: one.exchange.clone() })
        };
        let absent_key = |one: &super::Absent| {
            let (disk, boot) = (one.spec.disk.clone(), one.spec.boot);
            one.key.map(|key| Key { disk, boot, key, exchange: one.exchange.clone() })
        };
        let of_absent = held.absent.values().filter_map(absent_key);
        let key = held.exports.values().filter_map(key).chain(of_absent).collect();
        let assigned = held.exports.values().map(|one| (&one.spec, one.identity));
        let absent = held.absent.values().map(|one| (&one.spec, one.identity));
        let identity = assigned.chain(absent).filter_map(|(spec, identity)| {
            let (disk, boot) = (spec.disk.clone(), spec.boot);
            identity.map(|identity| Identity { disk, boot, identity })
        });
        let identity = identity.collect();
        let candidate = held.candidates.iter().cloned().map(Waiting::from).collect();
        let assigned = held.exports.values().map(|one| (&one.spec, one.path.as_ref()));
        let absent = held.absent.values().map(|one| (&one.spec, one.path.as_ref()));
        let path = assigned.chain(absent).filter_map(|(spec, path)| {
            let (disk, boot) = (spec.disk.clone(), spec.boot);
            path.map(|path| InStorageNetwork { disk, boot, path: path.clone() })
        });
        let path = path.collect();
        drop(held);
        Keys { key, candidate, identity, path }.write(&self.path)
    }
}
