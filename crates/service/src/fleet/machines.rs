//! Adding, changing and removing machines.

use crate::error::Error;
use crate::service::Service;
use crate::storage_client;
use crate::store::{ChangeError, Transaction};
use model::{ImageName, KernelArgs, Machine, MachineName, RootKind, RootUrl, ShelfSlot, WriteMode};
use wire::Mac;

/// What to change of a machine; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MachineChange {
    /// The NIC that it boots from, of several the first. Needed for a new machine.
    pub mac: Option<Mac>,
    /// Other NICs that it boots from, in place of those that it has.
    pub other_macs: Option<Vec<Mac>>,
    /// NICs that it boots from, too, from now on.
    pub add_macs: Vec<Mac>,
    /// NICs that it boots from no more. If the first is among them, the next one is the first.
    pub remove_macs: Vec<Mac>,
    /// Image to boot; `Some(None)` takes it away.
    #[serde(deserialize_with = "present")]
    pub image: Option<Option<ImageName>>,
    /// How its root disk reaches it.
    pub root: Option<RootKind>,
    /// Where a foreign server has its root; says how it reaches the machine, too.
    pub root_url: Option<RootUrl>,
    /// What becomes of what it writes.
    pub write_mode: Option<WriteMode>,
    /// Kernel parameters for this machine.
    pub kernel_args: Option<KernelArgs>,
    /// Whether its next boot begins with an empty write layer; then this is `false` again.
    pub reset_disk: Option<bool>,
}

/// Tells `null` from a missing field (RFC 7396).
fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<ImageName>>, D::Error> {
    serde::Deserialize::deserialize(deserializer).map(Some)
}

impl Service {
    /// Makes a machine of a PC that asked.
    ///
    /// # Errors
    /// Name or MAC are in use, the image does not exist, or the database can't be written.
    pub async fn adopt(
        &self,
        mac: Mac,
        name: MachineName,
        image: Option<ImageName>,
        root: RootKind,
    ) -> Result<Machine, Error> {
        let change = MachineChange {
            mac: Some(mac),
            image: Some(image),
            root: Some(root),
            ..MachineChange::default()
        };
        self.write_machine(name, change, true).await
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
        self.write_machine(name, change, false).await
    }

    /// Removes a machine and its disk. Its boots stay in the history of its NIC.
    ///
    /// # Errors
    /// There is no such machine, or the database can't be written.
    pub async fn remove_machine(&self, name: MachineName) -> Result<Machine, Error> {
        let removing = self.database().write(move |tables| {
            let machine = tables.machine(&name)?.ok_or(Error::NoMachine(name))?;
            tables.delete_machine(&machine.name)?;
            Ok(machine)
        });
        let removed = removing.await?;
        tracing::info!(machine = %removed.name, macs = ?removed.macs().collect::<Vec<_>>(), "machine removed");
        // The storage server may be down now; a disk that nobody asks for does no harm.
        let deleted = storage_client::delete_disk(&self.options().storage_socket, &removed.name);
        if let Err(error) = deleted.await {
            tracing::warn!(machine = %removed.name, %error, "the machine's disk stays");
        }
        Ok(removed)
    }

    async fn write_machine(
        &self,
        name: MachineName,
        change: MachineChange,
        must_be_new: bool,
    ) -> Result<Machine, Error> {
        let now = self.now().unix();
        let written = self.database().write(move |tables| {
            let machine = apply(tables, name, change, must_be_new)?;
            tables.put_machine(&machine, now)?;
            Ok(machine)
        });
        let machine = written.await?;
        let image = machine.image.as_ref().map_or("none", ImageName::as_str);
        let macs: Vec<Mac> = machine.macs().collect();
        tracing::info!(machine = %machine.name, ?macs, image, root = %machine.root, "machine stored");
        Ok(machine)
    }
}

/// The machine as it shall be.
fn apply(
    tables: &Transaction<'_>,
    name: MachineName,
    change: MachineChange,
    must_be_new: bool,
) -> Result<Machine, ChangeError> {
    let mut machine = match tables.machine(&name)? {
        Some(_) if must_be_new => return Err(Error::NameTaken(name).into()),
        Some(machine) => machine,
        None => Machine {
            mac: change.mac.ok_or_else(|| Error::NoMac(name.clone()))?,
            other_macs: Vec::new(),
            name,
            image: None,
            root: RootKind::default(),
            root_url: None,
            write_mode: WriteMode::default(),
            shelf_slot: free_shelf_slot(tables)?,
            kernel_args: KernelArgs::default(),
            reset_disk: false,
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
    if let Some(image) = change.image {
        if let Some(image) = &image {
            let mut known: Vec<ImageName> =
                tables.image_versions()?.into_iter().map(|v| v.image).collect();
            known.dedup();
            if !known.contains(image) {
                return Err(Error::NoImage { image: image.clone(), known }.into());
            }
        }
        machine.image = image;
    }
    set_root(&mut machine, change.root, change.root_url)?;
    machine.write_mode = change.write_mode.unwrap_or(machine.write_mode);
    machine.kernel_args = change.kernel_args.unwrap_or(machine.kernel_args);
    machine.reset_disk = change.reset_disk.unwrap_or(machine.reset_disk);
    Ok(machine)
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

/// A root and its address go together: each change of one must fit the other.
fn set_root(
    machine: &mut Machine,
    kind: Option<RootKind>,
    url: Option<RootUrl>,
) -> Result<(), Error> {
    let kind = kind.or(url.as_ref().map(RootUrl::kind)).unwrap_or(machine.root);
    if let Some(url) = url {
        if url.kind() != kind {
            return Err(Error::RootUrlOfOtherKind { kind, url });
        }
        machine.root_url = Some(url);
    }
    // What the storage server has needs no address, and another kind another one.
    machine.root_url = machine.root_url.take().filter(|url| url.kind() == kind);
    if kind.is_foreign() && machine.root_url.is_none() {
        return Err(Error::NoRootUrl { machine: machine.name.clone(), kind });
    }
    machine.root = kind;
    Ok(())
}

/// The first AoE address that no machine has.
fn free_shelf_slot(tables: &Transaction<'_>) -> Result<ShelfSlot, ChangeError> {
    let taken: Vec<ShelfSlot> =
        tables.machines()?.into_iter().map(|machine| machine.shelf_slot).collect();
    let free = (0..).map_while(ShelfSlot::nth).find(|address| !taken.contains(address));
    Ok(free.ok_or(Error::NoShelfSlot)?)
}
