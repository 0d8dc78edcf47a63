//! The PC's own disks: which there are, what is on them, and mounting it so that nothing is written, whatever its file systems would like
//! to.

use super::content::{Content, Files, PROBE_BYTES};
use crate::console::Console;
use crate::failure::Failure;
use crate::modules::Modules;
use crate::root::disk::Disk;
use crate::root::lvm::{self, ReadOnly};
use crate::root::mount;
use crate::sysfs;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where their file systems are mounted.
const MOUNTS: &str = "/run/bootlace/capture";

/// How long disks may take to be found: old ones need ten seconds to turn.
const DISKS_TIMEOUT: Duration = Duration::from_secs(30);

/// For so long no other disk may have come.
const DISKS_SETTLED: Duration = Duration::from_secs(4);

/// What is no disk of the PC, by the beginning of its name.
const NOT_LOCAL: [&str; 10] =
    ["loop", "ram", "zram", "dm-", "nbd", "etherd", "sr", "fd", "md", "mtdblock"];

/// A partition, a disk without any, or a logical volume.
#[derive(Debug)]
pub(super) struct Part {
    /// `sda2`, or `vg0/root`.
    pub(super) name: String,
    pub(super) content: Content,
    /// By which it is read, and can't be written.
    device: String,
    size_bytes: u64,
}

/// All parts of all disks of this PC, as soon as no more come.
pub(super) fn find(modules: &Modules, console: &Console) -> Result<Vec<Part>, Failure> {
    let disks = wait_for_disks(console)?;
    // Those that are for disks of every kind; where they are inside of the kernel there is nothing to load.
    for name in ["sd_mod", "mmc_block"] {
        let _ = modules.load(name, "");
    }
    let read_only = ReadOnly::open(modules)?;
    let mut names = Vec::new();
    for disk in disks {
        let parts = lvm::parts(&Disk { name: disk.clone() });
        match parts.len() {
            0 | 1 => names.push(disk),
            _ => names.extend(parts.into_iter().skip(1)),
        }
    }
    let mut parts = Vec::new();
    for name in &names {
        match read_only.over(name).and_then(|device| look(name.clone(), device)) {
            Ok(part) => parts.push(part),
            Err(error) => console.say("capture", &format!("{name} can't be read: {error}")),
        }
    }
    let is_lvm = |name: &&String| {
        parts.iter().any(|part| part.name == **name && part.content == Content::Lvm)
    };
    let physical: Vec<String> = names.iter().filter(is_lvm).cloned().collect();
    for volume in read_only.volumes(&physical) {
        let name = volume.name.to_string();
        match volume.device.map_err(io::Error::other).and_then(|it| look(name.clone(), it)) {
            Ok(part) => parts.push(part),
            Err(error) => {
                console.say("capture", &format!("{name} can't be used: {error}"));
            }
        }
    }
    Ok(parts)
}

/// Waits until the drivers have found disks, and no more come.
fn wait_for_disks(console: &Console) -> Result<Vec<String>, Failure> {
    let started = Instant::now();
    let (mut disks, mut since) = (Vec::new(), started);
    console.wait("capture", "waits for this PC's disks");
    loop {
        let found = local_disks();
        for disk in &found {
            // Opening a disk makes the kernel read its partition table.
            let _ = File::open(format!("/dev/{}", disk.replace('!', "/")));
        }
        if found != disks {
            (disks, since) = (found, Instant::now());
        }
        if !disks.is_empty() && since.elapsed() > DISKS_SETTLED {
            return Ok(disks);
        }
        if started.elapsed() > DISKS_TIMEOUT {
            return match disks.is_empty() {
                false => Ok(disks),
                true => Err(Failure::new(
                    "no disk is found in this PC",
                    "look in its setup whether its disk is switched on, and whether it is set to RAID (Intel RST) instead of AHCI; \
                     or take another image's kernel by --with: this one may have no driver for it",
                )),
            };
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn local_disks() -> Vec<String> {
    let mut names = sysfs::names("/sys/block");
    names.retain(|name| {
        let is_other = NOT_LOCAL.iter().any(|it| name.starts_with(it));
        // Of memory cards that are soldered in, for their firmware.
        let is_of_firmware = name.starts_with("mmcblk") && name.contains(['b', 'r']) && {
            let rest = name.trim_start_matches("mmcblk");
            rest.contains("boot") || rest.contains("rpmb")
        };
        let has_size = sysfs::number(format!("/sys/block/{name}/size")).unwrap_or(0) > 0;
        !is_other && !is_of_firmware && has_size
    });
    names
}

fn look(name: String, device: String) -> io::Result<Part> {
    let mut start = Vec::new();
    File::open(&device)?.take(PROBE_BYTES as u64).read_to_end(&mut start)?;
    let sys = device.trim_start_matches("/dev/mapper/").trim_start_matches("/dev/");
    let sectors = sysfs::number(format!("/sys/class/block/{sys}/size"));
    let sectors = sectors.or_else(|| {
        let target = fs::read_link(&device).ok()?;
        let minor = target.file_name()?.to_str()?.to_owned();
        sysfs::number(format!("/sys/class/block/{minor}/size"))
    });
    let size_bytes = sectors.unwrap_or(0).saturating_mul(512);
    Ok(Part { name, content: Content::of(&start), device, size_bytes })
}

/// Why a file system is not mounted.
#[derive(Debug)]
pub(super) enum NotMounted {
    /// Its journal holds what is not at its place yet: its system was not shut down.
    Unclean,
    /// Something else, in words.
    Because(String),
}

impl Part {
    /// The file system that is on it.
    pub(super) fn files(&self) -> Option<&Files> {
        match &self.content {
            Content::Files(files) => Some(files),
            _ => None,
        }
    }

    /// Mounts its file system; of btrfs this subvolume, or the one with the system. Returns where.
    pub(super) fn mount(
        &self,
        subvolume: Option<&str>,
        modules: &Modules,
    ) -> Result<PathBuf, NotMounted> {
        let Some(files) = self.files() else {
            return Err(NotMounted::Because("no file system is on it".to_owned()));
        };
        let kind = files.kind.word();
        let because = |error: io::Error| match Errno::from_io_error(&error) {
            // What each of ext4, XFS and btrfs says where a journal would have to be written back, and can't.
            Some(Errno::ROFS) => NotMounted::Unclean,
            _ => NotMounted::Because(mount::in_words(&error)),
        };
        modules.load(kind, "").map_err(because)?;
        let of_volume = subvolume.unwrap_or_default().replace('/', "-");
        let target = format!("{MOUNTS}/{}@{of_volume}", self.name.replace('/', "-"));
        fs::create_dir_all(&target).map_err(because)?;
        // XFS refuses a second file system with the same identity, as a copy has it.
        let base = if kind == "xfs" { "nouuid" } else { "" };
        let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
        let mount_as = |options: &str| mount::mount_at(&self.device, &target, kind, flags, options);
        let Some(subvolume) = subvolume.filter(|_| kind == "btrfs") else {
            mount_as(base).map_err(because)?;
            if kind == "btrfs"
                && let Some(subvolume) = mount::subvolume_of_system(&target)
            {
                unmount(target.as_str(), UnmountFlags::empty())
                    .map_err(|error| because(error.into()))?;
                mount_as(&format!("subvol={subvolume}")).map_err(because)?;
            }
            return Ok(target.into());
        };
        mount_as(&format!("subvol={subvolume}")).map_err(because)?;
        Ok(target.into())
    }

    /// For people: `sda2 (ext4, 40 GB)`.
    pub(super) fn in_words(&self) -> String {
        let what = match &self.content {
            Content::Files(files) => files.kind.word().to_owned(),
            Content::Lvm => "LVM".to_owned(),
            Content::Swap => "swap".to_owned(),
            Content::Hibernated => "the memory of a system that sleeps".to_owned(),
            Content::Unfit(why) => (*why).to_owned(),
            Content::Fat => "FAT".to_owned(),
            Content::Other => "nothing that is known".to_owned(),
        };
        format!("{} ({what}, {})", self.name, size(self.size_bytes))
    }

    /// Whether fstab means it by this.
    pub(super) fn is_called(&self, source: &str) -> bool {
        if let Some(uuid) = source.strip_prefix("UUID=") {
            return self.files().is_some_and(|files| files.uuid.eq_ignore_ascii_case(uuid));
        }
        if let Some(label) = source.strip_prefix("LABEL=") {
            return self.files().is_some_and(|files| files.label == label);
        }
        let Some(device) = source.strip_prefix("/dev/") else { return false };
        if let Some(uuid) = device.strip_prefix("disk/by-uuid/") {
            return self.is_called(&format!("UUID={uuid}"));
        }
        let mapped = device.strip_prefix("mapper/").is_some_and(|mapped| {
            let volume = self.name.split_once('/');
            volume.is_some_and(|(group, volume)| ::lvm::mapped_name(group, volume) == mapped)
        });
        mapped || device == self.name
    }
}

/// Leaves a file system again.
pub(super) fn leave(mounted: &Path) {
    // What stays mounted is read-only, and ends with the machine.
    let _ = unmount(mounted, UnmountFlags::empty());
}

/// For people: `40 GB`.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..10_000_000 => format!("{} kB", bytes / 1000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use initcfg::FileSystem;

    fn part(name: &str, uuid: &str, label: &str) -> Part {
        let (uuid, label) = (uuid.to_owned(), label.to_owned());
        let content = Content::Files(Files { kind: FileSystem::Ext4, uuid, label });
        let (name, device) = (name.to_owned(), String::new());
        Part { name, content, device, size_bytes: 40_000_000_000 }
    }

    #[test]
    fn fstab_has_many_names_for_a_partition() {
        let sda2 = part("sda2", "ab-cd", "root");
        for source in ["UUID=AB-CD", "LABEL=root", "/dev/sda2", "/dev/disk/by-uuid/ab-cd"] {
            assert!(sda2.is_called(source), "{source}");
        }
        for source in ["UUID=ab", "LABEL=", "/dev/sda", "/dev/mapper/sda2", "PARTUUID=ab-cd", "x"] {
            assert!(!sda2.is_called(source), "{source}");
        }
        let volume = part("my-vg/root", "1", "");
        assert!(volume.is_called("/dev/mapper/my--vg-root") && volume.is_called("/dev/my-vg/root"));
        assert_eq!(sda2.in_words(), "sda2 (ext4, 40 GB)");
        assert_eq!(size(5_000), "5 kB");
        assert_eq!(size(512_000_000), "512 MB");
    }
}
