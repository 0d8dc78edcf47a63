//! The site as the boot path sees it: an immutable view.

use crate::{
    DiskWhat, ImageChoice, ImageName, ImageVersion, Machine, MachineName, Ring, Room, RoomName,
    Settings, SiteDisk, VersionState, disks_of,
};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use wire::{Firmware, Mac};

/// A PC that asked, by one of its NICs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Seen {
    /// NIC that asked.
    pub mac: Mac,
    /// Firmware that asked.
    pub firmware: Firmware,
    /// Address it was given.
    pub address: Option<Ipv4Addr>,
    /// SMBIOS UUID, if it sent one (option 97).
    pub uuid: Option<String>,
    /// When it asked first, seconds since 1970.
    pub first_unix: u64,
    /// When it asked last, seconds since 1970.
    pub last_unix: u64,
}

/// How full the pool of addresses is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AddressPool {
    /// Addresses that any PC may have: those of the pool that are reserved for no NIC.
    pub n_addresses: u32,
    /// Those that machines have.
    pub n_machines: u32,
    /// Those that PCs have which are no machines, were offered, or have declined.
    pub n_strangers: u32,
    /// Those that PCs may have which are no machines.
    pub n_strangers_max: u32,
    /// Those that rest, since somebody uses them who has no lease.
    pub n_declined: u32,
    /// Devices that asked for one within the last hour and got none, since they don't boot from the network.
    #[serde(default)]
    pub n_left_out: u32,
}

/// Machines and images, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// All machines, by name.
    pub machines: Vec<Machine>,
    /// All image versions, by image and version.
    pub images: Vec<ImageVersion>,
    /// For whom they are. One that is not here is released.
    pub states: BTreeMap<(ImageName, u32), VersionState>,
    /// Versions that a room tries before all get them, by image; those that have ended, too.
    pub rings: Vec<Ring>,
    /// All rooms, by name.
    pub rooms: Vec<Room>,
    /// What machines inherit whose room says nothing.
    pub settings: Settings,
    /// Disks beside roots.
    pub disks: Vec<SiteDisk>,
    /// Where in `machines` the one with each NIC is.
    by_mac: BTreeMap<Mac, usize>,
}

impl Site {
    /// A site with these machines, by name, and these image versions; it has no rooms.
    pub fn new(machines: Vec<Machine>, images: Vec<ImageVersion>) -> Self {
        let of_each = machines.iter().enumerate();
        let by_mac = of_each.flat_map(|(index, it)| it.macs().map(move |mac| (mac, index)));
        let by_mac = by_mac.collect();
        Self { machines, images, by_mac, ..Self::default() }
    }

    /// This site, with these disks beside roots.
    #[must_use]
    pub fn with_disks(self, disks: Vec<SiteDisk>) -> Self {
        Self { disks, ..self }
    }

    /// The disks that the machine has beside its root when it boots, by name. Where an image is changed, or the PC's own disks are
    /// captured, there are none.
    pub fn disks_of(&self, machine: &Machine) -> Vec<(&SiteDisk, &DiskWhat)> {
        match machine.edit.is_none() && machine.capture.is_none() {
            true => disks_of(&self.disks, machine.room.as_ref(), &machine.name),
            false => Vec::new(),
        }
    }

    /// This site, with image versions that are for these.
    #[must_use]
    pub fn with_states(self, states: BTreeMap<(ImageName, u32), VersionState>) -> Self {
        Self { states, ..self }
    }

    /// This site, with versions that a room tries before all get them, by image.
    #[must_use]
    pub fn with_rings(self, rings: Vec<Ring>) -> Self {
        Self { rings, ..self }
    }

    /// This site, with these rooms, by name, and settings. What machines inherit they have already.
    #[must_use]
    pub fn with_rooms(self, rooms: Vec<Room>, settings: Settings) -> Self {
        Self { rooms, settings, ..self }
    }

    /// The room with this name.
    pub fn room(&self, name: &RoomName) -> Option<&Room> {
        self.rooms.iter().find(|room| room.name == *name)
    }

    /// The room that a machine is in.
    pub fn room_of(&self, machine: &Machine) -> Option<&Room> {
        self.room(machine.room.as_ref()?)
    }

    /// The machine that boots from this NIC, among others perhaps.
    pub fn machine_by_mac(&self, mac: Mac) -> Option<&Machine> {
        self.machines.get(*self.by_mac.get(&mac)?)
    }

    /// All NICs of the machine that has this one; of a PC that is no machine just this one.
    pub fn macs_beside(&self, mac: Mac) -> Vec<Mac> {
        self.machine_by_mac(mac).map_or_else(|| Vec::from([mac]), |it| it.macs().collect())
    }

    /// The machine with this name.
    pub fn machine(&self, name: &MachineName) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.name == *name)
    }

    /// A certain version of an image.
    pub fn version(&self, image: &ImageName, version: u32) -> Option<&ImageVersion> {
        self.images.iter().find(|have| have.image == *image && have.version == version)
    }

    /// As [`by_image`](Self::by_image), of those that machines can boot.
    pub fn systems_by_image(&self) -> impl Iterator<Item = &[ImageVersion]> {
        self.by_image().filter(|versions| !versions[0].is_data())
    }

    /// The versions of each image, the oldest first; of each there is one.
    pub fn by_image(&self) -> impl Iterator<Item = &[ImageVersion]> {
        self.images.chunk_by(|one, other| one.image == other.image)
    }

    /// The version to which machines go back that follow what is released: the newest that was released before. What is retired was
    /// taken back.
    pub fn released_before(&self, image: &ImageName) -> Option<&ImageVersion> {
        let is_released = |version: &&ImageVersion| {
            version.image == *image && self.state(version) == VersionState::Released
        };
        self.images.iter().rev().filter(is_released).nth(1)
    }

    /// The version that is meant: the newest of those that may be.
    pub fn chosen(&self, choice: &ImageChoice) -> Option<&ImageVersion> {
        self.images
            .iter()
            .filter(|it| it.image == choice.image && choice.takes(it.version, self.state(it)))
            .max_by_key(|version| version.version)
    }

    /// The version that a machine is to boot: that of its choice, or a newer one that its room tries before all get it.
    pub fn chosen_for(&self, machine: &Machine) -> Option<&ImageVersion> {
        let chosen = self.chosen(machine.image.as_ref()?);
        let ring = self.rings.iter().find(|ring| ring.is_for(machine));
        let tried = ring.and_then(|ring| self.version(&ring.image, ring.version));
        // Whoever says something else of it later says so to the room, too.
        let tried = tried.filter(|version| self.state(version) == VersionState::Test);
        [chosen, tried].into_iter().flatten().max_by_key(|version| version.version)
    }

    /// For whom a version is.
    pub fn state(&self, version: &ImageVersion) -> VersionState {
        let key = (version.image.clone(), version.version);
        self.states.get(&key).copied().unwrap_or_default()
    }
}
