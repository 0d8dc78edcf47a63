//! Logical volumes: a root on LVM, of which init makes a device by what its disk says, without LVM's programs.
//!
//! The disk is read here and not by the boot server: a machine that keeps its disk may have grown its volumes since
//! the import.

mod device_mapper;

use super::disk::{Disk, PARTITION_TIMEOUT};
use crate::failure::Failure;
use crate::modules::{Modules, cannot_load};
use crate::sysfs;
use device_mapper::{Control, Target};
use initcfg::LogicalVolumeName;
use lvm::{Group, LogicalVolume, Scan, ScanError, Unfit, mapped_name};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

/// Where udev looks up what was known of a device before it started.
const UDEV_DATA: &str = "/run/udev/data";

/// By this udev's rules of device mapper know that the device is complete, and name it (`10-dm.rules`).
const UDEV_COMPLETE: &str = "E:DM_UDEV_PRIMARY_SOURCE_FLAG=1\n";

/// Makes devices of the logical volumes in the group of this one, and returns that of this one.
///
/// The others are made too, since fstab may name them, and LVM in the system may not know a network disk.
pub(super) fn activate(
    disk: &Disk,
    name: &LogicalVolumeName,
    modules: &Modules,
) -> Result<String, Failure> {
    modules.load("dm_mod", "").map_err(|error| cannot_load("dm_mod", &error, modules))?;
    let control = Control::open().map_err(|error| {
        Failure::new(
            format!("can't use the device mapper of this kernel: {error}"),
            "this kernel can't be used with a root on LVM: try another version",
        )
    })?;
    let (places, scan) = scan_until_complete(disk, name)?;
    let found = find(&scan, name).ok_or_else(|| no_volume(disk, &scan, name))?;
    let root = make(&control, &places, &scan, found, disk.is_read_only());
    let root = root.map_err(|error| cannot_use(name, &error))?;
    let (group, volume) = found;
    for other in group.volumes.iter().filter(|other| other.id != volume.id) {
        // Whatever is wrong with it, the machine starts without.
        let _ = make(&control, &places, &scan, (group, other), disk.is_read_only());
    }
    Ok(root)
}

/// Makes devices over others that take no writes, whoever asks them to: nothing that is mounted from one changes its disk.
pub(crate) struct ReadOnly(Control);

/// A logical volume, and its device; or why it can't be used.
pub(crate) struct ReadOnlyVolume {
    pub(crate) name: LogicalVolumeName,
    pub(crate) device: Result<String, String>,
}

impl ReadOnly {
    /// Begins.
    pub(crate) fn open(modules: &Modules) -> Result<Self, Failure> {
        modules.load("dm_mod", "").map_err(|error| cannot_load("dm_mod", &error, modules))?;
        Control::open().map(Self).map_err(|error| {
            Failure::new(
                format!("can't use the device mapper of this kernel: {error}"),
                "this kernel can't be used to capture a PC: try another image",
            )
        })
    }

    /// A device over all of another one, which is named as below `/sys/class/block`.
    pub(crate) fn over(&self, name: &str) -> io::Result<String> {
        let sectors = sysfs::number(format!("/sys/class/block/{name}/size"));
        let numbers = sysfs::read(format!("/sys/class/block/{name}/dev"));
        let (Some(sectors), Some(numbers)) = (sectors, numbers) else {
            return Err(io::Error::other("it is gone"));
        };
        let target = Target { sectors, kind: "linear", parameters: format!("{numbers} 0") };
        let named = format!("bootlace-{name}");
        let (_, minor) = self.0.make(&named, &format!("BOOTLACE-{name}"), &[target], true)?;
        Ok(format!("/dev/dm-{minor}"))
    }

    /// All logical volumes on these devices, which are named as below `/sys/class/block`.
    pub(crate) fn volumes(&self, names: &[String]) -> Vec<ReadOnlyVolume> {
        let place = |name: &String| {
            let sectors = sysfs::number(format!("/sys/class/block/{name}/size"))?;
            Some(Place { size_bytes: sectors.checked_mul(512)?, name: name.clone() })
        };
        let places: Vec<Place> = names.iter().filter_map(place).collect();
        let mut scan = Scan::default();
        for (index, place) in places.iter().enumerate() {
            // What can't be read is missing then, by name.
            let _ = look_at(&mut scan, index, place);
        }
        let all = scan.groups().flat_map(|group| group.volumes.iter().map(move |it| (group, it)));
        let made = all.filter_map(|(group, volume)| {
            let name = format!("{}/{}", group.name, volume.name).parse().ok()?;
            let device = make(&self.0, &places, &scan, (group, volume), true);
            Some(ReadOnlyVolume { name, device: device.map_err(|error| error.to_string()) })
        });
        made.collect()
    }
}

/// The disk itself and its partitions, as they are named below `/sys/class/block`.
pub(crate) fn parts(disk: &Disk) -> Vec<String> {
    places(disk).into_iter().map(|place| place.name).collect()
}

/// Removes the devices, so that their disk is free. What is in use stays.
pub(crate) fn deactivate() {
    let Ok(control) = Control::open() else { return };
    for name in sysfs::names("/sys/block").iter().filter(|name| name.starts_with("dm-")) {
        let is_ours = sysfs::read(format!("/sys/block/{name}/dm/uuid"));
        let mapped = sysfs::read(format!("/sys/block/{name}/dm/name"));
        if let (Some(uuid), Some(mapped)) = (is_ours, mapped)
            && uuid.starts_with(UUID_PREFIX)
        {
            let _ = control.remove(&mapped);
        }
    }
}

/// LVM knows its devices by this.
const UUID_PREFIX: &str = "LVM-";

/// A disk or partition as the kernel has it.
struct Place {
    /// Below `/sys/class/block`.
    name: String,
    size_bytes: u64,
}

/// A group and one of its logical volumes.
type Found<'a> = (&'a Group, &'a LogicalVolume);

/// Looks at the disk and its partitions, which the kernel may not have read yet.
fn scan_until_complete(
    disk: &Disk,
    name: &LogicalVolumeName,
) -> Result<(Vec<Place>, Scan), Failure> {
    let started = Instant::now();
    loop {
        // Opening the disk makes the kernel read its partition table.
        let _ = File::open(disk.device());
        let places = places(disk);
        let mut scan = Scan::default();
        for (index, place) in places.iter().enumerate() {
            look_at(&mut scan, index, place).map_err(|error| {
                Failure::new(
                    format!("can't read {} of the root disk: {error}", place.name),
                    "look at the storage server's log: a disk of the server may be failing",
                )
            })?;
        }
        let is_usable = find(&scan, name).is_some_and(|(group, volume)| {
            !matches!(scan.pieces(group, volume), Err(Unfit::Missing(_)))
        });
        if is_usable || started.elapsed() > PARTITION_TIMEOUT {
            return Ok((places, scan));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The disk itself, and its partitions.
fn places(disk: &Disk) -> Vec<Place> {
    let whole = disk.name.replace('/', "!");
    let partitions = sysfs::names(disk.sys("")).into_iter().filter(|name| {
        name.starts_with(&whole) && Path::new(&disk.sys(&format!("{name}/partition"))).exists()
    });
    let names = [whole.clone()].into_iter().chain(partitions);
    let place = |name: String| {
        let sectors = sysfs::number(format!("/sys/class/block/{name}/size"))?;
        Some(Place { size_bytes: sectors.checked_mul(512)?, name })
    };
    names.filter_map(place).collect()
}

fn look_at(scan: &mut Scan, index: usize, place: &Place) -> io::Result<()> {
    let device = format!("/dev/{}", place.name.replace('!', "/"));
    // One that the kernel names and has no node yet is looked at the next time.
    let Ok(file) = File::open(device) else { return Ok(()) };
    let read = |at: u64, buffer: &mut [u8]| file.read_exact_at(buffer, at);
    match scan.add(index, place.size_bytes, read) {
        // A damaged one may be no part of it; if it is, the group is missing.
        Ok(_) | Err(ScanError::Malformed(_)) => Ok(()),
        Err(ScanError::Read(error)) => Err(error),
    }
}

fn find<'a>(scan: &'a Scan, name: &LogicalVolumeName) -> Option<Found<'a>> {
    let groups = scan.groups().filter(|group| group.name == name.group);
    let mut found = groups.filter_map(|group| {
        Some((group, group.volumes.iter().find(|volume| volume.name == name.name)?))
    });
    found.next()
}

/// Makes a device; returns its path.
fn make(
    control: &Control,
    places: &[Place],
    scan: &Scan,
    (group, volume): Found<'_>,
    is_read_only: bool,
) -> io::Result<String> {
    let pieces = scan.pieces(group, volume).map_err(io::Error::other)?;
    let mut targets = Vec::new();
    for piece in pieces {
        let place = places.get(piece.place).map(|place| place.name.as_str()).unwrap_or_default();
        let device = sysfs::read(format!("/sys/class/block/{place}/dev"))
            .ok_or_else(|| io::Error::other(format!("{place} is gone")))?;
        targets.push(Target {
            sectors: piece.size_bytes / 512,
            kind: "linear",
            parameters: format!("{device} {}", piece.offset / 512),
        });
    }
    let mapped = mapped_name(&group.name, &volume.name);
    let uuid = format!("{UUID_PREFIX}{}{}", group.id, volume.id);
    let (major, minor) =
        control.make(&mapped, &uuid, &targets, is_read_only || !volume.is_writable)?;
    tell_udev(major, minor);
    let device = format!("/dev/dm-{minor}");
    // By this name people and programs know it where it is mounted.
    let named = format!("/dev/mapper/{mapped}");
    link(&device, group, volume, &named);
    // It has one of its own, and reads through to the disk's.
    if let Some(read_ahead) = places
        .first()
        .and_then(|disk| sysfs::read(format!("/sys/block/{}/queue/read_ahead_kb", disk.name)))
    {
        sysfs::tune(format!("/sys/block/dm-{minor}/queue/read_ahead_kb"), &read_ahead);
    }
    Ok(if Path::new(&named).exists() { named } else { device })
}

/// Lets the udev of the system name it as LVM's own would be.
fn tell_udev(major: u64, minor: u64) {
    let written = fs::create_dir_all(UDEV_DATA)
        .and_then(|()| fs::write(format!("{UDEV_DATA}/b{major}:{minor}"), UDEV_COMPLETE));
    // Without it names below /dev/mapper are only those that stand there already.
    let _ = written;
}

/// The names that people and fstab use, for systems that make none.
fn link(device: &str, group: &Group, volume: &LogicalVolume, named: &str) {
    let folder = format!("/dev/{}", group.name);
    let target = device.trim_start_matches("/dev/");
    let _ = symlink(format!("../{target}"), named);
    let _ = fs::create_dir_all(&folder);
    let _ = symlink(format!("../{target}"), format!("{folder}/{}", volume.name));
}

fn cannot_use(name: &LogicalVolumeName, error: &io::Error) -> Failure {
    Failure::new(
        format!("can't use the logical volume {name} of the root disk: {error}"),
        "reset the machine's disk on its page, if it keeps one; otherwise import the image again, which says what helps",
    )
}

fn no_volume(disk: &Disk, scan: &Scan, name: &LogicalVolumeName) -> Failure {
    let all = scan.groups().flat_map(|group| {
        group.volumes.iter().map(move |volume| format!("{}/{}", group.name, volume.name))
    });
    let all: Vec<String> = all.collect();
    let found = match all.is_empty() {
        true => "there is none at all".to_owned(),
        false => format!("there are only {}", all.join(", ")),
    };
    Failure::new(
        format!("the root disk {} has no logical volume {name}; {found}", disk.device()),
        "if it was renamed on the machine's own disk, give it its former name or reset the disk; otherwise import the image \
         again",
    )
}
