//! Adding, changing and removing machines.

use super::rooms::{Move, give_up};
use crate::error::{DisksError, Error};
use crate::people::Admin;
use crate::storage_client;
use crate::store::{AuditEntry, ChangeError, FieldChange, Transaction};
use model::{
    BootChoice, Firmware, Follows, ImageChoice, ImageName, KernelArgs, Machine, MachineName, Menu,
    Origin, Origins, RoomName, RootKind, RootUrl, Seat, Setting, ShelfSlot, Site, Tag, WriteMode,
    present,
};
use std::collections::HashMap;
use wire::Mac;

/// What to change of a machine; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MachineChange {
    /// The NIC that it boots from, of several the first. Needed for a new machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Other NICs that it boots from, in place of those that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_macs: Option<Vec<Mac>>,
    /// NICs that it boots from, too, from now on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_macs: Vec<Mac>,
    /// NICs that it boots from no more. If the first is among them, the next one is the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove_macs: Vec<Mac>,
    /// Image to boot; `Some(None)` takes it away.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub image: Option<Option<ImageChoice>>,
    /// How its root disk reaches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<RootKind>,
    /// Where a foreign server has its root; says how it reaches the machine, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_url: Option<RootUrl>,
    /// What becomes of what it writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_mode: Option<WriteMode>,
    /// What can be chosen in its loader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub menu: Option<Menu>,
    /// What it starts the next time, once; `Some(None)`: what it always starts.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub next_boot: Option<Option<BootChoice>>,
    /// Kernel parameters for this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_args: Option<KernelArgs>,
    /// Whether its next boot begins with an empty write layer; then this is `false` again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_disk: Option<bool>,
    /// What it takes from its room or the site from now on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inherit: Vec<Setting>,
    /// The room that it is in; `Some(None)`: none. Whoever moves to another room has no seat there yet.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub room: Option<Option<RoomName>>,
    /// Where it stands in its room; `Some(None)`: nobody knows.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub seat: Option<Option<Seat>>,
    /// Words by which it is found, in place of those that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Tag>>,
}

/// What a machine is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    /// There must be none of its name.
    New,
    /// It is added, or changed.
    Change,
    /// A PC in software is it until it is switched off.
    Trial,
}

/// What the audit log calls that.
pub(super) const TRIAL_BEGINS: &str = "trial.begin";

impl MachineChange {
    /// The same for a machine that is to be so and not otherwise: what is left out is inherited, or gets its default.
    #[must_use]
    pub fn whole(self) -> Self {
        let gives_root = self.root.is_some() || self.root_url.is_some();
        let left_out = Setting::left_out([
            self.image.is_some(),
            gives_root,
            self.write_mode.is_some(),
            self.menu.is_some(),
        ]);
        Self {
            other_macs: Some(self.other_macs.unwrap_or_default()),
            kernel_args: Some(self.kernel_args.unwrap_or_default()),
            reset_disk: Some(self.reset_disk.unwrap_or_default()),
            next_boot: Some(self.next_boot.flatten()),
            inherit: left_out.chain(self.inherit).collect(),
            room: Some(self.room.flatten()),
            seat: Some(self.seat.flatten()),
            tags: Some(self.tags.unwrap_or_default()),
            ..self
        }
    }
}

impl Admin {
    /// Adds a machine, which inherits what `of_it` does not say.
    ///
    /// # Errors
    /// As [`Self::set_machine`], and there is one of this name already.
    pub async fn add_machine(
        &self,
        name: MachineName,
        of_it: MachineChange,
    ) -> Result<Machine, Error> {
        self.write_machine(name, of_it, Writing::New).await
    }

    /// Changes a machine, or adds it if there is none of this name and the change has a MAC.
    ///
    /// What changes takes effect at its next boot.
    ///
    /// # Errors
    /// The MAC is in use or missing, the image does not exist, or the database can't be written.
    pub async fn set_machine(
        &self,
        name: MachineName,
        change: MachineChange,
    ) -> Result<Machine, Error> {
        self.write_machine(name, change, Writing::Change).await
    }

    /// Removes a machine and its disk. Its boots stay in the history of its NIC.
    ///
    /// If the storage server does not delete the disk now, it does so later, and before another machine of that name
    /// gets one; a [finding](model::FindingKind::DiskNotDeleted) says so meanwhile.
    ///
    /// # Errors
    /// There is no such machine, or the database can't be written.
    pub async fn remove_machine(&self, name: MachineName) -> Result<Machine, Error> {
        let entry = self.actor().does("machine.remove", &name, Vec::new(), self.now().unix_ms);
        self.remove_as(name, entry).await
    }

    /// The same, which the audit log tells so; what the machine was is added.
    pub(super) async fn remove_as(
        &self,
        name: MachineName,
        entry: AuditEntry,
    ) -> Result<Machine, Error> {
        let view = self.service().view();
        let owner = view.site.machine(&name).and_then(|machine| view.as_owner(machine));
        let disk = self.service().disk_id(&name).await;
        let written = self.service().written_disk(&name).await?;
        // It stays, and is found as a disk that is left.
        let is_of_another = written.is_some_and(|disk| disk.of_another.is_some());
        let removing = self.service().database().write(move |tables| {
            let machine = tables.machine(&name)?.ok_or(Error::NoMachine(name))?;
            let meant = tables.disk_meant(&machine.name, disk)?;
            tables.delete_machine(&machine.name)?;
            tables.put_audit(&AuditEntry { changes: audited(Some(&machine), None), ..entry })?;
            if !is_of_another {
                tables.want_disk_deletion(&machine.name, &meant)?;
            }
            Ok(machine)
        });
        let removed = removing.await?;
        tracing::info!(machine = %removed.name, macs = ?removed.macs().collect::<Vec<_>>(), "machine removed");
        if is_of_another {
            tracing::warn!(machine = %removed.name, "the disk of its name is another machine's, and stays");
        } else if let Err(error) = self.service().delete_left_disk(&removed.name).await {
            tracing::warn!(machine = %removed.name, error = error.chain(), "its disk is deleted later");
        }
        self.service().delete_beside(&removed, owner.as_ref()).await;
        Ok(removed)
    }

    /// What the storage server has: with a database that was lost or restored its table knows machines that the database
    /// does not. If it does not answer, nothing is known to be held.
    async fn held_addresses(&self) -> HeldAddresses {
        let told = storage_client::exports(&self.service().options().storage_socket).await;
        let specs = told.unwrap_or_default().into_iter().map(|export| export.spec);
        specs.map(|spec| (spec.shelf_slot, spec.disk.machine)).collect()
    }

    pub(super) async fn write_machine(
        &self,
        name: MachineName,
        change: MachineChange,
        writing: Writing,
    ) -> Result<Machine, Error> {
        let (actor, now) = (self.shared_actor(), self.now());
        let held = match self.site().machine(&name) {
            Some(_) => HeldAddresses::default(),
            None => self.held_addresses().await,
        };
        let disk = match change.reset_disk {
            Some(true) => self.service().disk_id(&name).await,
            _ => None,
        };
        let has_menu_password = self.service().has_menu_password();
        let written = self.service().database().write(move |tables| {
            let former = tables.machine(&name)?;
            let resets = change.reset_disk;
            let must_be_new = writing == Writing::New;
            let machine = apply(tables, name, change, (must_be_new, has_menu_password), &held)?;
            tables.put_machine(&machine, now.unix())?;
            if resets.is_some() {
                tables.set_disk_reset_of(&machine.name, disk.as_deref())?;
            }
            let changes = audited(former.as_ref(), Some(&machine));
            if !changes.is_empty() || writing == Writing::Trial {
                let action = match (writing, &former) {
                    (Writing::Trial, _) => TRIAL_BEGINS,
                    (_, Some(_)) => "machine.set",
                    (_, None) => "machine.add",
                };
                tables.put_audit(&actor.does(action, &machine.name, changes, now.unix_ms))?;
            }
            Ok(machine)
        });
        let machine = written.await?;
        let image = machine.image.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
        let macs: Vec<Mac> = machine.macs().collect();
        tracing::info!(machine = %machine.name, ?macs, image, root = %machine.root, "machine stored");
        Ok(machine)
    }
}

/// What the audit log says of a change.
fn audited(former: Option<&Machine>, machine: Option<&Machine>) -> Vec<FieldChange> {
    let mut changes = FieldChange::all(former, machine);
    if former.is_none() || machine.is_none() {
        // The entry is about the name, and nobody has chosen the others.
        changes.retain(|change| !["name", "set_by", "shelf_slot"].contains(&change.field.as_str()));
    }
    changes
}

/// AoE addresses that the storage server has in its table, and whose they are there.
type HeldAddresses = HashMap<ShelfSlot, MachineName>;

/// The machine as it shall be.
fn apply(
    tables: &Transaction<'_>,
    name: MachineName,
    change: MachineChange,
    (must_be_new, has_menu_password): (bool, bool),
    held: &HeldAddresses,
) -> Result<Machine, ChangeError> {
    let mut machine = match tables.machine(&name)? {
        Some(_) if must_be_new => return Err(Error::NameTaken(name).into()),
        Some(machine) => machine,
        // An older Bootlace may have added such machines, which are what they are.
        None if name.means_else() => return Err(Error::NameMeansElse(name).into()),
        None => Machine {
            mac: change.mac.ok_or_else(|| Error::NoMac(name.clone()))?,
            other_macs: Vec::new(),
            shelf_slot: free_shelf_slot(tables, &name, held)?,
            name,
            image: None,
            root: RootKind::default(),
            root_url: None,
            write_mode: WriteMode::default(),
            kernel_args: KernelArgs::default(),
            reset_disk: false,
            room: None,
            seat: None,
            tags: Vec::new(),
            menu: Menu::default(),
            next_boot: None,
            edit: None,
            capture: None,
            set_by: Origins::default(),
        },
    };
    let macs = new_macs(&machine, &change)?;
    for &mac in &macs {
        if !mac.is_of_a_nic() {
            return Err(Error::GroupMac(mac).into());
        }
        if let Some(other) = tables.name_of(mac)?.filter(|other| *other != machine.name) {
            return Err(Error::MacTaken { mac, machine: other }.into());
        }
    }
    if let [first, others @ ..] = &macs[..] {
        (machine.mac, machine.other_macs) = (*first, others.to_vec());
    }
    machine.kernel_args = change.kernel_args.unwrap_or(machine.kernel_args);
    machine.reset_disk = change.reset_disk.unwrap_or(machine.reset_disk);
    let moves = change.room.is_some();
    Move { room: change.room, seat: change.seat, tags: change.tags }.apply(tables, &mut machine)?;
    if moves {
        let all = tables.site_disks()?;
        let disks = model::disks_of(&all, machine.room.as_ref(), &machine.name);
        model::check_disks(&disks).map_err(|source| {
            let (machine, source) = (machine.name.clone(), source.into());
            Error::from(DisksError::Clash { machine, source })
        })?;
    }

    let gives_root = change.root.is_some() || change.root_url.is_some();
    let given =
        [change.image.is_some(), gives_root, change.write_mode.is_some(), change.menu.is_some()];
    give_up(&change.inherit, given, |setting| machine.set_by.give_up(setting))?;
    if let Some(image) = change.image {
        check_image(tables, image.as_ref())?;
        check_architecture(tables, &machine, image.as_ref())?;
        (machine.image, machine.set_by.image) = (image, Origin::Machine);
    }
    if gives_root {
        let former = (machine.root, machine.root_url.take());
        (machine.root, machine.root_url) =
            fitting_root(former, change.root, change.root_url, machine.name.as_str())?;
        machine.set_by.root = Origin::Machine;
    }
    if let Some(mode) = change.write_mode {
        (machine.write_mode, machine.set_by.write_mode) = (mode, Origin::Machine);
    }
    if let Some(menu) = change.menu {
        check_menu(tables, &menu, has_menu_password)?;
        (machine.menu, machine.set_by.menu) = (menu, Origin::Machine);
    }
    if let Some(next) = change.next_boot {
        if let Some(BootChoice::OtherImage(image)) = &next {
            check_image(tables, Some(image))?;
        }
        machine.next_boot = next;
    }
    tables.inherit(&mut machine)?;
    Ok(machine)
}

/// What a menu offers must be there, and somebody must be able to open its locked lines.
pub(super) fn check_menu(
    tables: &Transaction<'_>,
    menu: &Menu,
    has_password: bool,
) -> Result<(), ChangeError> {
    for item in menu.items() {
        if let BootChoice::OtherImage(image) = &item.choice {
            check_image(tables, Some(image))?;
        }
        if item.is_locked && !has_password {
            return Err(Error::NoMenuPassword(item.choice.clone()).into());
        }
    }
    Ok(())
}

/// An image that machines shall boot must be there.
pub(super) fn check_image(
    tables: &Transaction<'_>,
    wanted: Option<&ImageChoice>,
) -> Result<(), ChangeError> {
    let Some(ImageChoice { image, follows }) = wanted else { return Ok(()) };
    let versions = tables.image_versions()?;
    if let Follows::Version(version) = *follows
        && !versions.iter().any(|it| (&it.image, it.version) == (image, version))
    {
        return Err(Error::NoVersion { image: image.clone(), version }.into());
    }
    let mut of_image = versions.iter().filter(|it| it.image == *image).peekable();
    if of_image.peek().is_some() && of_image.all(model::ImageVersion::is_data) {
        return Err(Error::NoSystem(image.clone()).into());
    }
    let mut known: Vec<ImageName> = versions.into_iter().map(|version| version.image).collect();
    known.dedup();
    match known.contains(image) {
        true => Ok(()),
        false => Err(Error::NoImage { image: image.clone(), known }.into()),
    }
}

/// An image that a machine shall boot must be for what it is, as far as its firmware has told.
pub(super) fn check_architecture(
    tables: &Transaction<'_>,
    machine: &Machine,
    image: Option<&ImageChoice>,
) -> Result<(), ChangeError> {
    let Some(image) = image else { return Ok(()) };
    let seen = tables.seen(machine.mac)?.map(|seen| seen.firmware);
    let firmware = tables.last_boot_from(machine.mac)?.map(|boot| boot.firmware).or(seen);
    let versions = tables.image_versions()?;
    let states = tables.image_states()?;
    let site = Site::new(Vec::new(), versions).with_states(states);
    let newest = site.chosen(image);
    match (firmware.and_then(Firmware::architecture), newest.map(|newest| newest.architecture)) {
        (Some(is), Some(image_is)) if is != image_is => Err(Error::OtherArchitecture {
            machine: machine.name.clone(),
            is,
            image: image.image.clone(),
            image_is,
        }
        .into()),
        _ => Ok(()),
    }
}

/// The NICs that the machine shall have, each once, and at least one.
fn new_macs(machine: &Machine, change: &MachineChange) -> Result<Vec<Mac>, Error> {
    let name = &machine.name;
    let others = change.other_macs.as_ref().unwrap_or(&machine.other_macs);
    let wanted = [change.mac.unwrap_or(machine.mac)].into_iter().chain(others.iter().copied());
    let mut macs: Vec<Mac> = Vec::new();
    for mac in wanted.chain(change.add_macs.iter().copied()) {
        if !macs.contains(&mac) {
            macs.push(mac);
        }
    }
    for &mac in &change.remove_macs {
        let Some(index) = macs.iter().position(|its| *its == mac) else {
            return Err(Error::NotItsMac { mac, machine: name.clone(), macs });
        };
        if macs.len() == 1 {
            return Err(Error::LastMac { mac, machine: name.clone() });
        }
        macs.remove(index);
    }
    if macs.len() > Machine::MACS_MAX {
        return Err(Error::TooManyMacs(name.clone()));
    }
    Ok(macs)
}

/// The root of `whose` as it shall be. It and its address go together: each change of one must fit the other.
pub(super) fn fitting_root(
    (former, former_url): (RootKind, Option<RootUrl>),
    kind: Option<RootKind>,
    url: Option<RootUrl>,
    whose: &str,
) -> Result<(RootKind, Option<RootUrl>), Error> {
    let kind = kind.or(url.as_ref().map(RootUrl::kind)).unwrap_or(former);
    if let Some(url) = url.as_ref().filter(|url| url.kind() != kind) {
        return Err(Error::RootUrlOfOtherKind { kind, url: url.clone() });
    }
    // What the storage server has needs no address, and another kind another one.
    let url = url.or(former_url).filter(|url| url.kind() == kind);
    if kind.is_foreign() && url.is_none() {
        return Err(Error::NoRootUrl { whose: whose.to_owned(), kind });
    }
    Ok((kind, url))
}

/// The AoE address of a new machine: the one that it had, if the storage server knows that from a database that was lost or
/// replaced by an older one, or else the first that nobody has.
fn free_shelf_slot(
    tables: &Transaction<'_>,
    name: &MachineName,
    held: &HeldAddresses,
) -> Result<ShelfSlot, ChangeError> {
    let taken: Vec<ShelfSlot> =
        tables.machines()?.into_iter().map(|machine| machine.shelf_slot).collect();
    let is_free = |address: &ShelfSlot| !taken.contains(address);
    let former = held.iter().find(|(address, owner)| *owner == name && is_free(address));
    let first = || (0..).map_while(ShelfSlot::nth).find(|it| is_free(it) && !held.contains_key(it));
    Ok(former.map(|(address, _)| *address).or_else(first).ok_or(Error::NoShelfSlot)?)
}
