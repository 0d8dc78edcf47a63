//! Which file system is on a disk, and mounting it where nobody sees it yet.

use crate::failure::Failure;
use crate::modules::{Modules, cannot_load};
use crate::root::disk::Disk;
use crate::root::mount::{self, read_only_options, read_start};
use crate::sysfs;
use initcfg::{DiskTag, DiskWrites, FileSystem};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where disks are mounted until their folders are in the root.
const STAGING: &str = "/run/bootlace/disks";

/// How long the kernel may take to read a partition table.
const PARTITIONS_TIMEOUT: Duration = Duration::from_secs(5);

/// What helps against a disk that was good once.
const DAMAGE_REMEDY: &str =
    "have its file system checked where the disk is kept, or begin the disk anew, which empties it";

/// A disk's file system, mounted in the initrd only.
#[derive(Debug)]
pub(super) struct Mounted {
    pub(super) at: PathBuf,
    /// For people: `ext4 on /dev/nbd1`.
    pub(super) what: String,
    /// What people should know of it, if there is something.
    pub(super) trouble: Option<String>,
}

/// Mounts the file system of a disk.
pub(super) fn mount(
    disk: &Disk,
    tag: &DiskTag,
    writes: DiskWrites,
    modules: &Modules,
) -> Result<Mounted, Failure> {
    let (device, file_system) = find(disk).map_err(|why| Failure::new(why, DAMAGE_REMEDY))?;
    let name = file_system.word();
    modules.load(name, "").map_err(|error| cannot_load(name, &error, modules))?;
    let is_read_only =
        writes == DiskWrites::Refused || disk.is_read_only() || file_system.is_read_only();
    let (flags, options) = match is_read_only {
        // What can't be written is not mended, either.
        true => (MountFlags::RDONLY, read_only_options(file_system)),
        false => (MountFlags::empty(), ""),
    };
    let at = Path::new(STAGING).join(tag.as_str());
    let mounted = fs::create_dir_all(&at)
        .and_then(|()| mount::mount_at(&device, &at.to_string_lossy(), name, flags, options));
    mounted.map_err(|error| cannot_mount(&error, name, &device, modules))?;
    let what = format!("{name} on {device}{}", if is_read_only { ", read-only" } else { "" });
    let noted = device.rsplit('/').next().unwrap_or_default();
    let n_errors = sysfs::number(format!("/sys/fs/ext4/{noted}/errors_count")).unwrap_or(0);
    let trouble = (n_errors > 0)
        .then(|| format!("its file system has noted {n_errors} errors: {DAMAGE_REMEDY}"));
    Ok(Mounted { at, what, trouble })
}

/// Not in the words by which a root's file system is told, for which the image answers.
fn cannot_mount(error: &io::Error, name: &str, device: &str, modules: &Modules) -> Failure {
    let kernel = modules.kernel();
    match Errno::from_io_error(error) {
        Some(Errno::NODEV) => Failure::new(
            format!("{name} on {device} needs a driver that this boot does not have"),
            format!(
                "the machine's image has no module {name} for its kernel {kernel}, or its initrd is made without: use ext4 for this disk"
            ),
        ),
        _ => {
            let why = mount::in_words(error);
            Failure::new(format!("can't mount {name} on {device}: {why}"), DAMAGE_REMEDY)
        }
    }
}

impl Mounted {
    /// Takes it away from where it is only for the time being; what of it is in the root stays there.
    pub(super) fn leave(&self) {
        // What stays there does no harm.
        let _ = unmount(&self.at, UnmountFlags::empty()).map(|()| fs::remove_dir(&self.at));
    }
}

/// The device with the disk's file system: all of it, or its only partition that has one.
fn find(disk: &Disk) -> Result<(String, FileSystem), String> {
    let device = disk.device();
    let start = read_start(&device).map_err(|error| format!("can't read {device}: {error}"))?;
    if let Some(file_system) = FileSystem::recognize(&start) {
        return Ok((device, file_system));
    }
    if start.get(510..512) != Some(&[0x55, 0xaa]) {
        return Err(match start.iter().all(|&byte| byte == 0) {
            true => format!("{device} is empty: there is no file system on it"),
            false => format!("on {device} is none of ext4, xfs, btrfs, squashfs and erofs"),
        });
    }
    let recognized = |name: String| {
        let device = format!("/dev/{name}");
        let found = read_start(&device).ok().and_then(|start| FileSystem::recognize(&start));
        found.map(|file_system| (device, file_system))
    };
    let partitions: Vec<_> = wait_for_partitions(disk).into_iter().filter_map(recognized).collect();
    match <[_; 1]>::try_from(partitions) {
        Ok([only]) => Ok(only),
        Err(several) => Err(several_partitions(&device, &several)),
    }
}

fn several_partitions(device: &str, found: &[(String, FileSystem)]) -> String {
    let named: Vec<_> = found.iter().map(|(device, kind)| format!("{device} ({kind})")).collect();
    match named.is_empty() {
        true => format!("no partition of {device} has ext4, xfs, btrfs, squashfs or erofs"),
        false => format!(
            "{device} has more than one partition with files, and nothing says which is meant: {}",
            named.join(", ")
        ),
    }
}

/// Names of the partitions, as soon as the kernel has read their table and there are nodes of all.
fn wait_for_partitions(disk: &Disk) -> Vec<String> {
    let started = Instant::now();
    loop {
        // Opening the disk makes the kernel read its partition table.
        let opened = File::open(disk.device());
        let mut names = sysfs::names(disk.sys(""));
        let start = format!("{}p", disk.name);
        names.retain(|name| name.starts_with(&start));
        let is_there = |name: &String| File::open(format!("/dev/{name}")).is_ok();
        if !names.is_empty() && names.iter().all(is_there) || started.elapsed() > PARTITIONS_TIMEOUT
        {
            return names;
        }
        drop(opened);
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_of_which_nobody_knows_what_is_meant_is_explained() {
        let found = ["/dev/nbd1p1", "/dev/nbd1p3"].map(|it| (it.to_owned(), FileSystem::Ext4));
        let text = several_partitions("/dev/nbd1", &found);
        assert!(text.ends_with("is meant: /dev/nbd1p1 (ext4), /dev/nbd1p3 (ext4)"), "{text}");
        let text = several_partitions("/dev/nbd1", &[]);
        assert!(text.starts_with("no partition of /dev/nbd1 has ext4"), "{text}");
    }
}
