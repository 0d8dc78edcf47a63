//! The disks that a machine has beside its root in a boot.

use crate::error::Error;
use crate::service::Service;
use crate::storage_client;
use crate::store::{LastBoot, View};
use model::{
    DiskId, DiskKey, DiskWhat, DiskWrites, ExportOrder, ExportSpec, ExportStatus, FurtherDisk,
    ImageVersion, Machine, RootKind, Site, SiteDisk, StoragePath, WriteMode, check_disks,
};
use std::net::{Ipv4Addr, SocketAddrV4};
use wire::Mac;

impl Service {
    /// What the machine is told of them, and who has them.
    pub(super) fn further_disks(
        &self,
        site: &Site,
        machine: &Machine,
        address: Ipv4Addr,
    ) -> (Vec<FurtherDisk>, Vec<SocketAddrV4>) {
        let disks = site.disks_of(machine);
        let told =
            disks.into_iter().map(|(disk, what)| what.as_told(&disk.name)).collect::<Vec<_>>();
        let servers = match told.is_empty() {
            true => Vec::new(),
            false => self.options().network_at(address).map_or_else(Vec::new, |it| it.nbd.clone()),
        };
        (told, servers)
    }

    /// Whether the machine can have those on which something is kept, without which it does not start.
    ///
    /// # Errors
    /// It can't: why, and what helps.
    pub(super) async fn check_further_disks(
        &self,
        site: &Site,
        machine: &Machine,
    ) -> Result<(), String> {
        let disks = site.disks_of(machine);
        check_disks(&disks).map_err(|error| {
            format!("{error}: bootlace disk ls --machine {} shows them all", machine.name)
        })?;
        let kept = disks.iter().filter(|(_, what)| what.writes == DiskWrites::Kept);
        let lacks =
            kept.filter(|(_, what)| !site.chosen(&what.image).is_some_and(ImageVersion::is_data));
        for (disk, what) in lacks {
            let (name, image) = (&disk.name, &what.image);
            let id = DiskId { machine: machine.name.clone(), tag: Some(name.clone()) };
            let kept = storage_client::kept_disk(&self.options().storage_socket, &id).await;
            // It goes on with what it has begun with.
            if !matches!(kept, Ok(Some(_))) {
                return Err(format!(
                    "its disk {name} is to begin with {image}, of which there is no version that machines could have: put that back, \
                     or choose another by bootlace disk put {name}"
                ));
            }
        }
        Ok(())
    }

    /// Has the storage server export them for this boot, of which this is the key. Whatever is not exported is missed by the machine,
    /// which tells.
    pub(super) async fn order_further_disks(
        &self,
        view: &View,
        machine: &Machine,
        known: &LastBoot,
        (mac, address): (Mac, Ipv4Addr),
        key: DiskKey,
    ) {
        let disks = view.site.disks_of(machine);
        self.forget_former_disks(machine, &disks).await;
        for (disk, what) in disks {
            let ordered =
                self.order_further_disk(view, (machine, disk, what), known, (mac, address), key);
            if let Err(error) = ordered.await {
                let (machine, disk) = (&machine.name, &disk.name);
                tracing::warn!(%machine, %disk, error = error.chain(), "a disk beside its root is not exported");
            }
        }
    }

    /// Takes back what is exported of disks that the machine has no more, if nobody uses it and nothing of it is kept.
    async fn forget_former_disks(&self, machine: &Machine, now: &[(&SiteDisk, &DiskWhat)]) {
        let answer = self.exports().last();
        let of_it = answer.further.iter().filter(|export| export.spec.disk.machine == machine.name);
        let is_former = |export: &&ExportStatus| {
            let tag = export.spec.disk.tag.as_ref();
            export.connections == 0
                && export.spec.write_mode != WriteMode::Persistent
                && !now.iter().any(|(disk, _)| Some(&disk.name) == tag)
        };
        for export in of_it.filter(is_former) {
            let (socket, disk) = (&self.options().storage_socket, &export.spec.disk);
            if let Err(error) = storage_client::delete_disk(socket, disk).await {
                let error = wire::error_chain(&error);
                tracing::warn!(%disk, error, "what is exported of a disk that is no more is not taken back");
            }
        }
    }

    async fn order_further_disk(
        &self,
        view: &View,
        (machine, disk, what): (&Machine, &SiteDisk, &DiskWhat),
        known: &LastBoot,
        (mac, address): (Mac, Ipv4Addr),
        key: DiskKey,
    ) -> Result<(), Error> {
        let socket = &self.options().storage_socket;
        let id = DiskId { machine: machine.name.clone(), tag: Some(disk.name.clone()) };
        let chosen = view.site.chosen(&what.image).filter(|version| version.is_data());
        let write_mode = what.write_mode();
        let kept = match write_mode {
            // It stays on the version on which it was begun.
            WriteMode::Persistent => storage_client::kept_disk(socket, &id).await?,
            WriteMode::Discard | WriteMode::Ram => None,
        };
        let (image, version) = match (kept, chosen) {
            (Some(kept), _) => (kept.image, kept.version),
            (None, Some(version)) => (version.image.clone(), version.version),
            (None, None) => {
                return Err(crate::error::DisksError::NoVersion(what.image.image.clone()).into());
            }
        };
        let storage = self.options().network_at(address).and_then(|network| network.storage);
        let order = ExportOrder {
            key: Some(key),
            identity: known.identity,
            owner: match write_mode {
                WriteMode::Persistent => view.as_owner(machine),
                WriteMode::Discard | WriteMode::Ram => None,
            },
            storage_path: storage.map(|storage| StoragePath {
                address: Some(storage.address_of(address)),
                cards: Vec::new(),
            }),
            ..ExportOrder::new(ExportSpec {
                disk: id,
                image,
                version,
                write_mode,
                boot: known.boot.id,
                root: RootKind::Nbd,
                address,
                mac,
                shelf_slot: machine.shelf_slot,
            })
        };
        storage_client::put_export(socket, &order).await?;
        Ok(())
    }
}
