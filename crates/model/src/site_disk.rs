//! Disks that machines have beside their roots: those of the site, of rooms, and of machines.

use crate::{FilesOf, ImageChoice, MachineName, RoomName, WriteMode};
use alloc::string::String;
use alloc::vec::Vec;
use initcfg::{DiskPurpose, DiskTag, DiskWrites, FURTHER_DISKS_MAX, FurtherDisk};

/// A disk that machines have beside their roots from their next boot on. A room's counts more than the site's of the same name, and a
/// machine's more than its room's.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SiteDisk {
    /// Its name.
    pub name: DiskTag,
    /// The room whose machines have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomName>,
    /// The machine that has it; with neither, all of the site have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineName>,
    /// What it is; `None`: they have none of this name, whatever the room or the site has.
    #[serde(flatten)]
    pub what: Option<DiskWhat>,
    /// When it was changed last, seconds since 1970.
    pub changed_unix: u64,
    /// Who did that.
    pub changed_by: String,
}

/// What a disk beside a root is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DiskWhat {
    /// The image with which it begins.
    pub image: ImageChoice,
    /// What becomes of writes to it.
    pub writes: DiskWrites,
    /// What machines do with it.
    #[serde(flatten)]
    pub purpose: DiskPurpose,
}

/// Why machines can't have their disks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DisksClash {
    /// Two would be at one place.
    #[error(
        "the disk {tag} would be at {folder}, and the disk {other} is at {other_folder}, which is the same or within the other"
    )]
    SamePlace {
        /// The disk.
        tag: DiskTag,
        /// Where it would be.
        folder: String,
        /// The one that is there.
        other: DiskTag,
        /// Where that is.
        other_folder: String,
    },
    /// There are too many.
    #[error("a machine would have {0} disks beside its root, and {FURTHER_DISKS_MAX} is the most")]
    TooMany(usize),
}

impl SiteDisk {
    /// Whose it is.
    pub fn of(&self) -> FilesOf {
        match (&self.machine, &self.room) {
            (Some(machine), _) => FilesOf::Machine(machine.clone()),
            (None, Some(room)) => FilesOf::Room(room.clone()),
            (None, None) => FilesOf::Site,
        }
    }
}

impl DiskWhat {
    /// How a machine is told of it.
    pub fn as_told(&self, tag: &DiskTag) -> FurtherDisk {
        FurtherDisk { tag: tag.clone(), writes: self.writes, purpose: self.purpose.clone() }
    }

    /// Where it is in the machine's root.
    pub fn folders(&self) -> &[String] {
        self.purpose.folders()
    }

    /// How the storage server is told.
    pub const fn write_mode(&self) -> WriteMode {
        match self.writes {
            DiskWrites::Refused => WriteMode::Ram,
            DiskWrites::Forgotten => WriteMode::Discard,
            DiskWrites::Kept => WriteMode::Persistent,
        }
    }
}

/// Of the disks of a site those that a machine in this room has, by name.
pub fn disks_of<'a>(
    all: &'a [SiteDisk],
    room: Option<&RoomName>,
    machine: &MachineName,
) -> Vec<(&'a SiteDisk, &'a DiskWhat)> {
    nearest(all, room, Some(machine))
}

/// Of the disks of a site those that a machine in this room has which has none of its own, by name.
pub fn disks_of_room<'a>(
    all: &'a [SiteDisk],
    room: Option<&RoomName>,
) -> Vec<(&'a SiteDisk, &'a DiskWhat)> {
    nearest(all, room, None)
}

fn nearest<'a>(
    all: &'a [SiteDisk],
    room: Option<&RoomName>,
    machine: Option<&MachineName>,
) -> Vec<(&'a SiteDisk, &'a DiskWhat)> {
    let concerns = |disk: &&SiteDisk| match (&disk.machine, &disk.room) {
        (Some(only), _) => Some(only) == machine,
        (None, Some(only)) => Some(only) == room,
        (None, None) => true,
    };
    let mut disks: Vec<&SiteDisk> = all.iter().filter(concerns).collect();
    disks.sort_by(|one, other| (&one.name, other.of()).cmp(&(&other.name, one.of())));
    disks.dedup_by(|later, first| later.name == first.name);
    disks.into_iter().filter_map(|disk| Some((disk, disk.what.as_ref()?))).collect()
}

/// Whether a machine can have all of these disks at once.
///
/// # Errors
/// See [`DisksClash`].
pub fn check_disks(disks: &[(&SiteDisk, &DiskWhat)]) -> Result<(), DisksClash> {
    if disks.len() > FURTHER_DISKS_MAX {
        return Err(DisksClash::TooMany(disks.len()));
    }
    let mut places: Vec<(&str, &DiskTag)> = Vec::new();
    for (disk, what) in disks {
        for folder in what.folders() {
            let is_within = |inner: &str, outer: &str| {
                inner
                    .strip_prefix(outer)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            let clash = places
                .iter()
                .find(|(other, _)| is_within(folder, other) || is_within(other, folder));
            if let Some((other_folder, other)) = clash {
                return Err(DisksClash::SamePlace {
                    tag: disk.name.clone(),
                    folder: folder.clone(),
                    other: (*other).clone(),
                    other_folder: (*other_folder).into(),
                });
            }
            places.push((folder, &disk.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, of: &str, told: Option<&str>) -> SiteDisk {
        let what = told.map(|told| {
            let told: FurtherDisk = alloc::format!("{name} {told}").parse().unwrap();
            DiskWhat { image: "data".parse().unwrap(), writes: told.writes, purpose: told.purpose }
        });
        SiteDisk {
            name: name.parse().unwrap(),
            room: of.strip_prefix("room ").map(|room| room.parse().unwrap()),
            machine: of.strip_prefix("machine ").map(|machine| machine.parse().unwrap()),
            what,
            changed_unix: 0,
            changed_by: "root".into(),
        }
    }

    fn of_machine(all: &[SiteDisk], room: &str, machine: &str) -> Vec<String> {
        let disks = disks_of(all, Some(&room.parse().unwrap()), &machine.parse().unwrap());
        disks.iter().map(|(disk, what)| alloc::format!("{}", what.as_told(&disk.name))).collect()
    }

    #[test]
    fn what_is_nearer_to_the_machine_counts() {
        let all = [
            disk("home", "", Some("kept carry /home")),
            disk("home", "room lab-1", Some("kept carry /home /etc/cups")),
            disk("home", "machine pc-9", None),
            disk("books", "", Some("ro mount /srv/books")),
            disk("swap", "room lab-2", Some("forgotten swap")),
        ];
        let books = "books ro mount /srv/books";
        assert_eq!(of_machine(&all, "lab-1", "pc-1"), [books, "home kept carry /home /etc/cups"]);
        assert_eq!(of_machine(&all, "lab-1", "pc-9"), [books]);
        let of_other = of_machine(&all, "lab-2", "pc-2");
        assert_eq!(of_other, [books, "home kept carry /home", "swap forgotten swap"]);
    }

    #[test]
    fn two_disks_have_two_places() {
        let all = [
            disk("home", "", Some("kept carry /home /srv/a")),
            disk("data", "", Some("kept mount /srv/a/b")),
        ];
        let disks = disks_of(&all, None, &"pc-1".parse().unwrap());
        let error = alloc::format!("{}", check_disks(&disks).unwrap_err());
        assert!(error.contains("/srv/a/b") && error.contains("the disk data"), "{error}");
        let beside =
            [disk("a", "", Some("ro mount /srv/a")), disk("b", "", Some("ro mount /srv/ab"))];
        assert_eq!(check_disks(&disks_of(&beside, None, &"pc-1".parse().unwrap())), Ok(()));
        let many: Vec<SiteDisk> = (0..9)
            .map(|n| disk(&alloc::format!("d{n}"), "", Some(&alloc::format!("ro mount /srv/{n}"))))
            .collect();
        let many = disks_of(&many, None, &"pc-1".parse().unwrap());
        assert_eq!(check_disks(&many), Err(DisksClash::TooMany(9)));
    }
}
