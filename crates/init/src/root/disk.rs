//! The attached root disk: its partition, its file system, and where it is mounted.

use crate::failure::Failure;
use crate::modules::{Modules, cannot_load};
use crate::root::ROOT;
use crate::sysfs;
use initcfg::{FileSystem, RamSize};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The parts of a root that is put together from two: read-only and in memory.
const LOWER: &str = "/run/bootlace/root/lower";
pub(crate) const MEMORY: &str = "/run/bootlace/root/memory";

/// Where distributions install on btrfs if not in the default subvolume: Fedora's name, and that of Ubuntu
/// and Arch.
const SUBVOLUMES: [&str; 2] = ["root", "@"];

/// How long the kernel may take to read a partition table.
const PARTITION_TIMEOUT: Duration = Duration::from_secs(15);

/// What helps against a disk that was good once: it is the machine's own, or the image's.
const DAMAGE_REMEDY: &str = "reset the machine's disk on its page, if it keeps one; otherwise import a \
                             sound copy of the image";

/// A block device as the kernel names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Below `/dev`, like `nbd0` or `etherd/e1.7`.
    pub(crate) name: String,
}

impl Disk {
    pub(crate) fn device(&self) -> String {
        format!("/dev/{}", self.name)
    }

    /// A file of the disk below `/sys/block`.
    pub(crate) fn sys(&self, file: &str) -> String {
        format!("/sys/block/{}/{file}", self.name.replace('/', "!"))
    }

    /// Size in bytes; `None` as long as the disk is not there or empty.
    pub(crate) fn size_bytes(&self) -> Option<u64> {
        sysfs::number(self.sys("size")).filter(|&sectors| sectors > 0)?.checked_mul(512)
    }

    fn is_read_only(&self) -> bool {
        sysfs::number(self.sys("ro")) == Some(1)
    }

    fn partition(&self, number: u8) -> String {
        format!("/dev/{}{}{number}", self.name, self.before_number())
    }

    /// What stands between the disk's name and a partition's number: `nbd0p1`, but `sda1`.
    fn before_number(&self) -> &'static str {
        if self.name.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" }
    }
}

/// Mount options for a device that takes no writes: no replay of the journal.
const fn read_only_options(file_system: FileSystem) -> &'static str {
    match file_system {
        FileSystem::Ext4 => "noload",
        FileSystem::Xfs => "norecovery",
        FileSystem::Btrfs | FileSystem::Squashfs | FileSystem::Erofs => "",
    }
}

/// Mounts the root file system; returns what it is, for people.
pub(crate) fn mount_root(
    disk: &Disk,
    partition: Option<u8>,
    ram: Option<RamSize>,
    modules: &Modules,
) -> Result<String, Failure> {
    let device = match partition {
        Some(number) => wait_for_partition(disk, number)?,
        None => disk.device(),
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
fn in_words(error: &io::Error) -> String {
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
fn subvolume_of_system(mounted: impl AsRef<Path>) -> Option<&'static str> {
    let mounted = mounted.as_ref();
    let is_system = |folder: &Path| folder.join("usr").is_dir();
    let found = SUBVOLUMES.into_iter().find(|name| is_system(&mounted.join(name)));
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

fn wait_for_partition(disk: &Disk, number: u8) -> Result<String, Failure> {
    let device = disk.partition(number);
    let started = Instant::now();
    loop {
        // Opening the disk makes the kernel read its partition table.
        let opened = File::open(disk.device());
        if File::open(&device).is_ok() {
            return Ok(device);
        }
        drop(opened);
        if started.elapsed() > PARTITION_TIMEOUT {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let last = disk.name.rsplit('/').next().unwrap_or(&disk.name).to_owned();
    let mut partitions = sysfs::names(disk.sys(""));
    let start = format!("{last}{}", disk.before_number());
    partitions.retain(|name| name.starts_with(&start) || name.contains(&format!("!{start}")));
    let seen = match partitions.is_empty() {
        true => "it has no partitions at all".to_owned(),
        false => format!("it has only {}", partitions.join(", ")),
    };
    Err(Failure::new(
        format!("the root disk {} has no partition {number}; {seen}", disk.device()),
        "set the right partition of the image, or none if the file system fills the whole disk",
    ))
}

fn read_start(device: &str) -> io::Result<Vec<u8>> {
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

    #[test]
    fn aoe_disks_have_a_folder_in_dev_but_not_in_sys() {
        let disk = Disk { name: "etherd/e1.7".to_owned() };
        assert_eq!(disk.device(), "/dev/etherd/e1.7");
        assert_eq!(disk.sys("size"), "/sys/block/etherd!e1.7/size");
        assert_eq!(disk.partition(2), "/dev/etherd/e1.7p2");
        assert_eq!(Disk { name: "sda".to_owned() }.partition(2), "/dev/sda2");
    }
}
