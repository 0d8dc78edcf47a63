//! Disks that machines have beside their roots: those of the site, of rooms, and of machines.

use super::site_files::must_be;
use crate::error::{DisksError, Error};
use crate::people::{Admin, Viewer};
use crate::storage_client;
use crate::store::{FieldChange, Transaction};
use model::{
    DiskId, DiskPurpose, DiskTag, DiskWhat, DiskWrites, FilesOf, FurtherDisk, ImageChoice,
    MachineName, RoomName, Site, SiteDisk, check_disks, disk_folder,
};

/// A disk that machines are to have beside their roots.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDisk {
    /// The machines of this room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomName>,
    /// This machine; with neither, all of the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineName>,
    /// Its name.
    pub name: DiskTag,
    /// With which image it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageChoice>,
    /// It is mounted there; or one of the following three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
    /// These folders of the root are on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carry: Vec<String>,
    /// Machines swap to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub swap: bool,
    /// There is none of this name, whatever the room or the site has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub none: bool,
    /// What becomes of writes to a disk that is mounted; without, all machines read the same, and nobody writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes: Option<DiskWrites>,
}

/// A disk that a machine has beside its root.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MachineDisk {
    /// Which one.
    #[serde(flatten)]
    pub disk: SiteDisk,
    /// How large it is, if that is known.
    pub size_bytes: Option<u64>,
    /// What the machine has written to it, if that is known.
    pub written_bytes: Option<u64>,
    /// It is attached now.
    pub is_used: bool,
    /// Why the machine can't have it, if that is so.
    pub trouble: Option<String>,
}

/// What a machine has written to a disk beside its root that is kept.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeptBeside {
    /// Which disk of which machine: `lab-07+home`.
    pub disk: DiskId,
    /// The version with which it began, if that can be read: `homes/v1`.
    pub stands_on: Option<String>,
    /// How much it is, if that can be read.
    pub written_bytes: Option<u64>,
    /// The machine has such a disk from its next boot on.
    pub is_wanted: bool,
    /// Why the machine can't have it, if that is so.
    pub trouble: Option<String>,
}

impl Viewer {
    /// All disks that machines have beside their roots.
    pub fn site_disks(&self) -> Vec<SiteDisk> {
        self.service().site().disks.clone()
    }

    /// Those that a machine has from its next boot on, by name, and what it has written to them. Asks the storage server.
    ///
    /// # Errors
    /// There is no such machine.
    pub async fn disks_of_machine(&self, name: &MachineName) -> Result<Vec<MachineDisk>, Error> {
        self.service().look_at_exports().await;
        let (site, answer) = (self.service().site(), self.service().exports().last());
        let machine = site.machine(name).ok_or_else(|| Error::NoMachine(name.clone()))?;
        let disks = model::disks_of(&site.disks, machine.room.as_ref(), name);
        let disks = disks.into_iter().map(|(disk, what)| {
            let id = DiskId { machine: name.clone(), tag: Some(disk.name.clone()) };
            let export = answer.further.iter().find(|export| export.spec.disk == id);
            let kept = answer.further_disks.iter().find(|kept| kept.disk == id);
            let kept = kept.filter(|_| what.writes == DiskWrites::Kept);
            let size = || site.chosen(&what.image).map(|version| version.size_bytes);
            MachineDisk {
                disk: disk.clone(),
                size_bytes: export.map(|export| export.size_bytes).or_else(size),
                written_bytes: export
                    .map(|export| export.layer_bytes)
                    .or_else(|| kept?.written_bytes),
                is_used: export.is_some_and(|export| export.connections > 0),
                trouble: kept.and_then(|kept| kept.trouble.clone()),
            }
        });
        Ok(disks.collect())
    }

    /// What machines have written to disks that are kept, whether they still have them or not. Asks the storage server.
    pub async fn kept_disks(&self) -> Vec<KeptBeside> {
        self.service().look_at_exports().await;
        let (site, answer) = (self.service().site(), self.service().exports().last());
        let kept = answer.further_disks.iter().map(|report| {
            let machine = site.machine(&report.disk.machine);
            let has = machine.is_some_and(|machine| {
                let disks = model::disks_of(&site.disks, machine.room.as_ref(), &machine.name);
                disks.iter().any(|(disk, what)| {
                    Some(&disk.name) == report.disk.tag.as_ref() && what.writes == DiskWrites::Kept
                })
            });
            KeptBeside {
                disk: report.disk.clone(),
                stands_on: report
                    .stands_on
                    .as_ref()
                    .map(|it| format!("{}/v{}", it.image, it.version)),
                written_bytes: report.written_bytes,
                is_wanted: has,
                trouble: report.trouble.clone(),
            }
        });
        kept.collect()
    }
}

impl Admin {
    /// Machines have this disk from their next boot on, in place of the one of its name. Returns it, and whether there was none.
    ///
    /// # Errors
    /// See [`DisksError`]; or there is no such room or machine, or the database can't be written.
    pub async fn put_site_disk(&self, new: NewDisk) -> Result<(SiteDisk, bool), Error> {
        let now = self.now();
        let actor = self.shared_actor();
        let disk = checked(new, actor.name(), now.unix_ms / 1000)?;
        let site = self.service().site();
        if let Some(what) = &disk.what {
            check_image(&site, &what.image)?;
        }
        let written = self.service().database().write(move |tables| {
            must_be(tables, &disk.of())?;
            let former = tables.site_disk(&disk.of(), &disk.name)?;
            tables.put_site_disk(&disk)?;
            check_machines(tables, &site)?;
            let subject = subject(&disk.of(), &disk.name);
            let action = if former.is_some() { "disk.set" } else { "disk.add" };
            let changes = changes(former.as_ref(), Some(&disk));
            tables.put_audit(&actor.does(action, &subject, changes, now.unix_ms))?;
            Ok((disk, former.is_none()))
        });
        let (disk, is_new) = written.await?;
        tracing::info!(disk = %disk.name, of = %disk.of(), "machines have a disk beside their roots");
        Ok((disk, is_new))
    }

    /// Throws away what a machine has written to its disk of this name, which may be nobody's any more: with its next boot it begins anew.
    ///
    /// # Errors
    /// The machine uses it now, there is none, or the storage server does not answer.
    pub async fn reset_site_disk(&self, disk: DiskId) -> Result<(), Error> {
        let service = self.service();
        if disk.is_root() {
            return Err(DisksError::IsRoot(disk.machine).into());
        }
        service.refresh_exports().await;
        let answer = service.exports().last();
        if let Some(why) = &answer.error {
            return Err(DisksError::StorageSilent(why.clone()).into());
        }
        let mut exports = answer.further.iter().filter(|export| export.spec.disk == disk);
        // After a restart of the storage server whoever runs may still come back.
        if exports.any(|export| export.connections > 0 || export.is_silent != Some(true)) {
            return Err(DisksError::InUse(disk).into());
        }
        let socket = &service.options().storage_socket;
        let is_kept = storage_client::kept_disk(socket, &disk).await?.is_some();
        let is_there = answer.further.iter().any(|export| export.spec.disk == disk)
            || answer.further_disks.iter().any(|kept| kept.disk == disk);
        if !is_kept && !is_there {
            return Err(DisksError::NothingWritten(disk).into());
        }
        storage_client::delete_disk(socket, &disk).await?;
        let entry = self.actor().does("disk.reset", &disk, Vec::new(), self.now().unix_ms);
        service.database().write(move |tables| Ok(tables.put_audit(&entry)?)).await?;
        service.exports().ask_for_disks();
        tracing::info!(%disk, "what was written to it was thrown away");
        Ok(())
    }

    /// They have theirs of this name no more from their next boot on. What machines have written to it stays on the storage server.
    ///
    /// # Errors
    /// There is none, or the database can't be written.
    pub async fn remove_site_disk(&self, of: FilesOf, name: DiskTag) -> Result<(), Error> {
        let (actor, now_unix_ms) = (self.shared_actor(), self.now().unix_ms);
        let written = self.service().database().write(move |tables| {
            let Some(former) = tables.site_disk(&of, &name)? else {
                return Err(Error::from(DisksError::Missing { of, name }).into());
            };
            tables.delete_site_disk(&of, &name)?;
            let (subject, changes) = (subject(&of, &name), changes(Some(&former), None));
            tables.put_audit(&actor.does("disk.remove", &subject, changes, now_unix_ms))?;
            Ok((of, name))
        });
        let (of, name) = written.await?;
        tracing::info!(disk = %name, %of, "machines have a disk beside their roots no more");
        Ok(())
    }
}

fn changes(old: Option<&SiteDisk>, new: Option<&SiteDisk>) -> Vec<FieldChange> {
    let mut changes = FieldChange::all(old, new);
    // Who and when stand in each entry.
    changes.retain(|change| {
        !["changed_unix", "changed_by", "name", "room", "machine"].contains(&change.field.as_str())
    });
    changes
}

/// How a disk is called in the audit log.
fn subject(of: &FilesOf, name: &DiskTag) -> String {
    format!("disk {name} of {of}")
}

/// Whether each machine can have all of its disks.
fn check_machines(tables: &Transaction<'_>, site: &Site) -> Result<(), crate::store::ChangeError> {
    let (former, all) = (&site.disks, tables.site_disks()?);
    // What could not be before is not made worse by what is asked for.
    // Where no machine is yet, one may come.
    let rooms = site.rooms.iter().map(|room| Some(&room.name)).chain([None]);
    for room in rooms {
        let whose = room.map_or(FilesOf::Site, |room| FilesOf::Room(room.clone()));
        if check_disks(&model::disks_of_room(former, room)).is_err() {
            continue;
        }
        check_disks(&model::disks_of_room(&all, room))
            .map_err(|source| Error::from(DisksError::ClashIn { whose, source: source.into() }))?;
    }
    for machine in &site.machines {
        let of = |all| check_disks(&model::disks_of(all, machine.room.as_ref(), &machine.name));
        if of(former).is_err() {
            continue;
        }
        of(&all).map_err(|source| {
            Error::from(DisksError::Clash { machine: machine.name.clone(), source: source.into() })
        })?;
    }
    Ok(())
}

fn check_image(site: &Site, choice: &ImageChoice) -> Result<(), DisksError> {
    match site.chosen(choice) {
        Some(version) if version.is_data() => Ok(()),
        Some(_) => Err(DisksError::System(choice.image.clone())),
        None => Err(DisksError::NoVersion(choice.image.clone())),
    }
}

fn checked(new: NewDisk, who: &str, now_unix: u64) -> Result<SiteDisk, Error> {
    let NewDisk { room, machine, name, image, mount, carry, swap, none, writes } = new;
    if room.is_some() && machine.is_some() {
        return Err(DisksError::TwoOwners.into());
    }
    let folder = |text: &String| disk_folder(text).map_err(DisksError::from);
    let purpose = match (&mount, carry.as_slice(), swap, none) {
        (Some(mount), [], false, false) => Some(DiskPurpose::Mount(folder(mount)?)),
        (None, [_, ..], false, false) => {
            Some(DiskPurpose::Carry(carry.iter().map(folder).collect::<Result<_, _>>()?))
        }
        (None, [], true, false) => Some(DiskPurpose::Swap),
        (None, [], false, true) => None,
        _ => return Err(DisksError::NotOneThing.into()),
    };
    let writes = match (&purpose, writes) {
        (Some(DiskPurpose::Mount(_)), writes) => writes.unwrap_or(DiskWrites::Refused),
        (Some(DiskPurpose::Carry(_)), None | Some(DiskWrites::Kept)) => DiskWrites::Kept,
        (Some(DiskPurpose::Swap), None | Some(DiskWrites::Forgotten)) => DiskWrites::Forgotten,
        (None, None) => DiskWrites::Refused,
        (Some(DiskPurpose::Carry(_)), _) => {
            let why =
                "what is written to folders that are carried over is kept: that can't be chosen";
            return Err(DisksError::Refused(why).into());
        }
        (Some(DiskPurpose::Swap), _) => {
            let why = "what is swapped out is forgotten with the boot: that can't be chosen";
            return Err(DisksError::Refused(why).into());
        }
        (None, Some(_)) => {
            return Err(
                DisksError::Refused("where there is no disk, nothing is written to it").into()
            );
        }
    };
    let what = match (purpose, image) {
        (Some(purpose), Some(image)) => Some(DiskWhat { image, writes, purpose }),
        (Some(_), None) => return Err(DisksError::NoImage.into()),
        (None, None) => None,
        (None, Some(_)) => {
            return Err(DisksError::Refused("where there is no disk, it has no image").into());
        }
    };
    if let Some(what) = &what {
        let told = what.as_told(&name).to_string();
        // Longer than a machine is told.
        told.parse::<FurtherDisk>().map_err(DisksError::from)?;
    }
    Ok(SiteDisk { name, room, machine, what, changed_unix: now_unix, changed_by: who.to_owned() })
}
