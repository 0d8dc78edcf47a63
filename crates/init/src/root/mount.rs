//! Mounting the root: its file system, and the layer in memory above one that takes no writes.

use super::disk::{Disk, wait_for_partition};
use crate::failure::Failure;
use crate::modules::{Modules, cannot_load};
use crate::root::{ROOT, lvm};
use initcfg::{FileSystem, LogicalVolumeName, RamSize};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where a root that takes no writes is mounted, below its layer in memory.
const LOWER: &str = "/run/bootlace/root/lower";

/// Where the memory for changes is mounted.
pub(crate) const MEMORY: &str = "/run/bootlace/root/memory";

/// What helps against a disk that was good once: it is the machine's own, or the image's.
const DAMAGE_REMEDY: &str = "reset the machine's disk on its page, if it keeps one; otherwise import a \
                             sound copy of the image";

/// Mount options for a device that takes no writes: no replay of the journal.
pub(crate) const fn read_only_options(file_system: FileSystem) -> &'static str {
    match file_system {
        FileSystem::Ext4 => "noload",
        FileSystem::Xfs => "norecovery",
        FileSystem::Btrfs | FileSystem::Squashfs | FileSystem::Erofs => "",
    }
}

/// Mounts the root file system; returns what it is, for people.
pub(crate) fn mount_root(
    disk: &Disk,
    (partition, logical_volume): (Option<u8>, Option<&LogicalVolumeName>),
    ram: Option<RamSize>,
    modules: &Modules,
) -> Result<String, Failure> {
    let device = match (partition, logical_volume) {
        (_, Some(name)) => lvm::activate(disk, name, modules)?,
        (Some(number), None) => wait_for_partition(disk, number)?,
        (None, None) => disk.device(),
    };
    let start = read_start(&device).map_err(|error| {
        Failure::new(
            format!("can't read the root disk {device}: {error}"),
            "look at the storage server's log: a disk of the server may be failing",
        )
    })?;
    let file_system =
        FileSystem::recognize(&start).ok_or_else(|| no_file_system(&device, &start, partition))?;
    let name = file_system.word();
    let cannot_mount = |error: io::Error| {
        let why = in_words(&error);
        Failure::new(
            format!("can't mount the {name} file system of {device}: {why}"),
            DAMAGE_REMEDY,
        )
    };
    modules.load(name, "").map_err(|error| cannot_load(name, &error, modules))?;
    if ram.is_none() && !disk.is_read_only() && !file_system.is_read_only() {
        let system = mount_system(&device, ROOT, name, MountFlags::empty(), "");
        return Ok(format!("{name}{} on {device}", system.map_err(cannot_mount)?));
    }
    modules.load("overlay", "").map_err(|error| cannot_load("overlay", &error, modules))?;
    if ram.is_none() {
        mount_memory(RamSize::default())?;
    }
    let options = read_only_options(file_system);
    let place = mount_with_memory(&device, name, options).map_err(cannot_mount)?;
    let size = ram.unwrap_or_default();
    Ok(format!("{name}{place} on {device}, read-only, with changes in memory, {size} at most"))
}

/// What the usual errors of a mount mean.
pub(crate) fn in_words(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        // Of checksums that are wrong, of structures that make no sense.
        Some(Errno::UCLEAN | Errno::BADMSG | Errno::INVAL) => {
            format!("it is damaged, the kernel says: {error}")
        }
        Some(Errno::IO) => format!("the disk can't be read: {error}"),
        Some(Errno::NODEV) => "this kernel has no driver for it".to_owned(),
        _ => error.to_string(),
    }
}

/// Sets memory aside for what will be written.
pub(crate) fn mount_memory(size: RamSize) -> Result<(), Failure> {
    let options = format!("mode=755,size={}", size.to_string().to_lowercase());
    std::fs::create_dir_all(MEMORY)
        .and_then(|()| mount_at("tmpfs", MEMORY, "tmpfs", MountFlags::empty(), &options))
        .map_err(|error| {
            Failure::new(
                format!("can't set memory ({size}) aside for what is written: {error}"),
                "this kernel can't be used: try another version",
            )
        })
}

/// Mounts a read-only file system with a layer above it that lives in memory, which is mounted already;
/// returns where on it the system is, for people.
pub(crate) fn mount_with_memory(source: &str, kind: &str, options: &str) -> io::Result<String> {
    std::fs::create_dir_all(LOWER)?;
    let place = mount_system(source, LOWER, kind, MountFlags::RDONLY, options)?;
    let [upper, work] = ["upper", "work"].map(|name| format!("{MEMORY}/{name}"));
    for folder in [&upper, &work] {
        std::fs::create_dir_all(folder)?;
    }
    let options = format!("lowerdir={LOWER},upperdir={upper},workdir={work}");
    mount_at("overlay", ROOT, "overlay", MountFlags::empty(), &options)?;
    Ok(place)
}

/// Mounts the part of a file system that the system is in; returns which that is, for people.
fn mount_system(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> io::Result<String> {
    mount_at(source, target, kind, flags, options)?;
    let Some(subvolume) = (kind == "btrfs").then(|| subvolume_of_system(target)).flatten() else {
        return Ok(String::new());
    };
    unmount(target, UnmountFlags::empty())?;
    let separator = if options.is_empty() { "" } else { "," };
    mount_at(source, target, kind, flags, &format!("{options}{separator}subvol={subvolume}"))?;
    Ok(format!(" (subvolume {subvolume})"))
}

/// Which folder of a file system holds the system, if it is not all of it.
pub(crate) fn subvolume_of_system(mounted: impl AsRef<Path>) -> Option<&'static str> {
    let mounted = mounted.as_ref();
    let is_system = |folder: &Path| folder.join("usr").is_dir();
    let found = FileSystem::SUBVOLUMES.into_iter().find(|name| is_system(&mounted.join(name)));
    if is_system(mounted) { None } else { found }
}

pub(crate) fn mount_at(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> io::Result<()> {
    let options = CString::new(options)?;
    mount(source, target, kind, flags, options.as_c_str())?;
    // The initrd's mounts are shared with nobody; a file system can only be moved out of such a one.
    mount_change(target, MountPropagationFlags::PRIVATE)?;
    Ok(())
}

/// The start of a device, in which the marks of file systems are.
pub(crate) fn read_start(device: &str) -> io::Result<Vec<u8>> {
    let file = File::open(device)?;
    let mut start = vec![0; FileSystem::PROBE_BYTES];
    let mut filled = 0;
    while filled < start.len() {
        match file.read_at(&mut start[filled..], filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    start.truncate(filled);
    Ok(start)
}

fn no_file_system(device: &str, start: &[u8], partition: Option<u8>) -> Failure {
    let has_partitions = start.get(510..512) == Some(&[0x55, 0xaa]) && partition.is_none();
    let is_empty = start.iter().all(|&byte| byte == 0);
    let (found, remedy) = if has_partitions {
        ("it has partitions", "set the number of the root partition for this image")
    } else if start.starts_with(b"LUKS\xba\xbe") {
        ("it is encrypted (LUKS)", "import the image without encryption")
    } else if is_empty {
        ("it is empty", DAMAGE_REMEDY)
    } else {
        ("what is there is something else", "use an image with one of these file systems")
    };
    Failure::new(
        format!("no ext4, xfs, btrfs, squashfs or erofs file system on {device}: {found}"),
        remedy,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with(at: usize, mark: &[u8]) -> Vec<u8> {
        let mut start = vec![0; FileSystem::PROBE_BYTES];
        start[at..at + mark.len()].copy_from_slice(mark);
        start
    }

    #[test]
    fn a_system_in_a_subvolume_is_found() {
        let folder =
            std::env::temp_dir().join(format!("bootlace-subvolume-{}", std::process::id()));
        let make = |path: &str| std::fs::create_dir_all(folder.join(path)).unwrap();
        make("home");
        assert_eq!(subvolume_of_system(&folder), None);
        make("@/usr");
        make("root/.ssh");
        assert_eq!(subvolume_of_system(&folder), Some("@"));
        make("root/usr");
        assert_eq!(subvolume_of_system(&folder), Some("root"));
        make("usr");
        assert_eq!(subvolume_of_system(&folder), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_disk_without_file_system_is_explained() {
        let check = |start: &[u8], partition, expected| {
            let text = no_file_system("/dev/nbd0", start, partition).to_string();
            assert!(text.contains(expected), "{text}");
        };
        check(&disk_with(510, &[0x55, 0xaa]), None, "number of the root partition");
        check(&disk_with(510, &[0x55, 0xaa]), Some(1), "something else");
        check(&disk_with(0, b"LUKS\xba\xbe"), None, "encrypted");
        check(&[], None, "empty");
    }
}
