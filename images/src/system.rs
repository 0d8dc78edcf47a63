//! The system on a disk: its root, its kernel, its name.

use crate::block::Block;
use crate::error::{ImportError, RootfsError};
use crate::kernel::{Search, find_kernel};
use crate::logical::Useless;
use crate::partitions::trouble;
use crate::rootfs::{CheckError, Rootfs};
use crate::stop::Stop;
use crate::volumes::{Content, FAT, ISO, LUKS, LVM, RAID, Volume, look, volumes_of_large_sectors};
use model::{Architecture, FileSystem};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What an import found on a disk.
pub(crate) struct System {
    pub(crate) volume: Volume,
    /// Where its kernel is, if that is not the root.
    pub(crate) boot: Option<Volume>,
    pub(crate) file_system: FileSystem,
    pub(crate) kernel_version: String,
    pub(crate) architecture: Architecture,
    pub(crate) vmlinuz: Vec<u8>,
    pub(crate) os_name: Option<String>,
    /// Kernels that were passed over, and why, for people.
    pub(crate) passed_over: Vec<String>,
    /// What does not keep machines from starting now.
    pub(crate) warnings: Vec<String>,
}

/// Looks into a disk; `path` is what the errors call it.
pub(crate) fn find_system(disk: &Arc<dyn Block>, path: &Path) -> Result<System, ImportError> {
    let (volumes, useless) = look(disk).map_err(source_error(path))?;
    let (volume, file_system, root) = find_root(disk, &volumes, &useless, path)?;
    let others = other_systems(disk, &volumes, &volume);
    let in_root = |error: RootfsError| unreadable(path, &volume, &error);
    let drivers = drivers_of(file_system, &volume);
    let trouble = |version: &str| modules_trouble(&root, &drivers, version);
    let mut search = find_kernel(&root, &["/boot", "/"], &trouble).map_err(in_root)?;
    let boot = match search.kernel {
        Some(_) => None,
        None => look_elsewhere(disk, &volumes, &volume, &trouble, &mut search, path)?,
    };
    let Some(kernel) = search.kernel else {
        return Err(not_bootable(path, &no_kernel(&search.passed_over)));
    };
    let os_name = os_name(&root).map_err(in_root)?;
    let warning = root.has_errors().then(|| warning(&volume));
    Ok(System {
        volume,
        boot,
        file_system,
        kernel_version: kernel.version,
        architecture: kernel.architecture,
        vmlinuz: kernel.bytes,
        os_name,
        passed_over: search.passed_over,
        warnings: warning.into_iter().chain(others).collect(),
    })
}

/// Looks for the file system of a disk that is no system's: a machine mounts it beside its root. It has no kernel.
pub(crate) fn find_data(disk: &Arc<dyn Block>, path: &Path) -> Result<System, ImportError> {
    let (volumes, _) = look(disk).map_err(source_error(path))?;
    let refused = |why: &str| ImportError::Refused { path: path.to_owned(), why: why.to_owned() };
    let mut found = volumes.iter().filter_map(|volume| match volume.content {
        Content::Root(kind) => Some((volume, kind)),
        _ => None,
    });
    let (volume, file_system) = match (found.next(), found.next()) {
        (Some(only), None) => only,
        (None, _) => {
            return Err(refused(
                "there is no ext4, XFS, btrfs, SquashFS or EROFS on it that a machine could mount",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(refused(
                "there are several file systems on it: a disk beside the root has one only. Import an archive or a folder of the \
                 files instead",
            ));
        }
    };
    if volume.logical.is_some() {
        let why = "its file system is in a logical volume, which machines attach of roots only: import an archive or a folder of \
                   the files instead";
        return Err(refused(why));
    }
    let root = Rootfs::open(Arc::clone(disk), volume);
    let root = root.map_err(|error| unreadable(path, volume, &error))?;
    let warnings = root.has_errors().then(|| warning(volume)).into_iter().collect();
    Ok(System {
        volume: volume.clone(),
        boot: None,
        file_system,
        kernel_version: String::new(),
        architecture: Architecture::default(),
        vmlinuz: Vec::new(),
        os_name: None,
        passed_over: Vec::new(),
        warnings,
    })
}

/// Looks at the whole file system of the root.
pub(crate) fn check_root(
    disk: &Arc<dyn Block>,
    volume: &Volume,
    path: &Path,
    stop: &Stop,
) -> Result<(), ImportError> {
    let root = Rootfs::open(Arc::clone(disk), volume);
    let root = root.map_err(|error| unreadable(path, volume, &error))?;
    root.check(stop).map_err(|error| match error {
        CheckError::Stopped => ImportError::Stopped,
        CheckError::Damaged(error) => unreadable(path, volume, &error),
    })
}

fn warning(volume: &Volume) -> String {
    format!(
        "Linux has met errors in the file system of {}, and nobody has repaired them: run `e2fsck -f` on it, and import \
         it again",
        place_of(volume)
    )
}

/// Why the kernel of this version can't bring the system up, by its modules; `None`: it can, as far as can be told.
fn modules_trouble(
    root: &Rootfs,
    drivers: &[Driver],
    version: &str,
) -> Result<Option<String>, RootfsError> {
    // Of a kernel that was removed the folder may stay, with what others have put there (DKMS).
    for library in ["/lib/modules", "/usr/lib/modules"] {
        let folder = format!("{library}/{version}");
        let built_in = format!("{folder}/modules.builtin");
        let has_list = root.exists(&built_in)?;
        if !has_list && !root.exists(&format!("{folder}/kernel"))? {
            continue;
        }
        if !has_list {
            return Ok(None);
        }
        for driver in drivers {
            if !has_driver(root, &folder, &built_in, driver)? {
                let title = &driver.title;
                return Ok(Some(format!(
                    "it has no {title}, neither inside nor in {folder}, and could not mount its root"
                )));
            }
        }
        return Ok(None);
    }
    Ok(Some(format!("its modules are missing: there are none in /lib/modules/{version}")))
}

/// A driver without which a machine does not reach its root.
struct Driver {
    /// The module.
    name: &'static str,
    /// Where it has its place in the tree.
    folder: &'static str,
    /// For people.
    title: String,
}

/// The drivers without which a machine does not reach its root in this volume.
fn drivers_of(file_system: FileSystem, volume: &Volume) -> Vec<Driver> {
    let driver = |name, folder| Driver { name, folder, title: String::from(name) };
    let word = file_system.word();
    let folder = match file_system {
        FileSystem::Ext4 => "fs/ext4",
        FileSystem::Xfs => "fs/xfs",
        FileSystem::Btrfs => "fs/btrfs",
        FileSystem::Squashfs => "fs/squashfs",
        FileSystem::Erofs => "fs/erofs",
    };
    let mut drivers = vec![driver(word, folder)];
    if file_system.is_read_only() {
        drivers.push(driver("overlay", "fs/overlayfs"));
    }
    if volume.logical.is_some() {
        let title = "device mapper (dm-mod)".to_owned();
        drivers.push(Driver { title, ..driver("dm-mod", "drivers/md") });
    }
    drivers
}

/// Whether a kernel has a driver, which mostly has its place in the tree; what is elsewhere stands in the index, and is there.
fn has_driver(
    root: &Rootfs,
    folder: &str,
    built_in: &str,
    driver: &Driver,
) -> Result<bool, RootfsError> {
    let file = format!("{}.ko", driver.name);
    let paths_in = |list: &str| -> Result<Vec<String>, RootfsError> {
        let list = root.read(list)?;
        let list = String::from_utf8_lossy(&list);
        let paths = list.lines().map(|line| line.split(':').next().unwrap_or_default());
        let is_it = |path: &&str| path.rsplit('/').next().is_some_and(|it| it.starts_with(&file));
        Ok(paths.filter(is_it).map(str::to_owned).collect())
    };
    let place = format!("{folder}/kernel/{}", driver.folder);
    let is_in_place = root.exists(&place)?
        && root.list(&place)?.iter().any(|entry| entry.name.starts_with(&file));
    let index = format!("{folder}/modules.dep");
    if is_in_place || !paths_in(built_in)?.is_empty() {
        return Ok(true);
    }
    if !root.exists(&index)? {
        return Ok(false);
    }
    // depmod of old wrote whole paths.
    for path in paths_in(&index)? {
        let whole = if path.starts_with('/') { path } else { format!("{folder}/{path}") };
        if root.exists(&whole)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A system with a `/boot` of its own has its kernels at the top of another partition. Returns which.
fn look_elsewhere(
    disk: &Arc<dyn Block>,
    volumes: &[Volume],
    root: &Volume,
    trouble: &dyn Fn(&str) -> Result<Option<String>, RootfsError>,
    search: &mut Search,
    path: &Path,
) -> Result<Option<Volume>, ImportError> {
    for volume in volumes.iter().filter(|volume| *volume != root) {
        let place = place_of(volume);
        match volume.content {
            Content::Root(_) | Content::Other(FAT) => {}
            Content::Other(_) | Content::Unknown => continue,
        }
        let boot = match Rootfs::open(Arc::clone(disk), volume) {
            Ok(boot) => boot,
            Err(error) => {
                search.passed_over.push(format!("{place}: {error}"));
                continue;
            }
        };
        let found = find_kernel(&boot, &["/"], trouble)
            .map_err(|error| unreadable(path, volume, &error))?;
        let named = found.passed_over.iter().map(|passed_over| format!("{place}, {passed_over}"));
        search.passed_over.extend(named);
        if found.kernel.is_some() {
            search.kernel = found.kernel;
            return Ok(Some(volume.clone()));
        }
    }
    Ok(None)
}

fn no_kernel(passed_over: &[String]) -> String {
    let start = "there is no kernel in it that machines could boot";
    let advice = "install one in it, in Debian the package linux-image-amd64";
    if passed_over.is_empty() {
        return format!(
            "{start} (neither /vmlinuz nor /boot/vmlinuz-*, nor /lib/modules/*/vmlinuz): {advice}"
        );
    }
    format!("{start}: {advice}. What was looked at: {}", passed_over.join("; "))
}

/// What a file system is to machines.
enum Role {
    /// A root that can be started.
    Root(Rootfs),
    /// A root whose `/usr`, with the init in it, is somewhere else.
    WithoutUsr,
    /// A `/usr`: there is an init in it, and nothing of what a root has at its top.
    Usr,
    /// Neither.
    Other,
}

fn role_of(root: Rootfs) -> Result<Role, RootfsError> {
    // A dangling link does not count: absolute ones are resolved inside of the image anyway.
    let has_init = root.exists("/sbin/init")? || root.exists("/usr/lib/systemd/systemd")?;
    // Each has it at its top, and no root does.
    let mut can_be_usr = root.exists("/share")?;
    for of_root in ["/dev", "/proc", "/sys", "/usr"] {
        can_be_usr &= !root.exists(of_root)?;
    }
    Ok(match has_init {
        true if can_be_usr => Role::Usr,
        true => Role::Root(root),
        // In a /usr of its own it is at the top.
        false if can_be_usr && root.exists("/lib/systemd/systemd")? => Role::Usr,
        false if root.exists("/etc")? && root.exists("/usr")? => Role::WithoutUsr,
        false => Role::Other,
    })
}

/// The first file system with a root in it that can be started.
fn find_root(
    disk: &Arc<dyn Block>,
    volumes: &[Volume],
    useless: &[Useless],
    path: &Path,
) -> Result<(Volume, FileSystem, Rootfs), ImportError> {
    let (mut damage, mut without_usr, mut usr) = (None, None, None);
    for volume in volumes {
        let Content::Root(file_system) = volume.content else { continue };
        match Rootfs::open(Arc::clone(disk), volume).and_then(role_of) {
            Ok(Role::Root(root)) => return Ok((volume.clone(), file_system, root)),
            Ok(Role::WithoutUsr) => without_usr = without_usr.or(Some(volume)),
            Ok(Role::Usr) => usr = usr.or(Some(volume)),
            Ok(Role::Other) => {}
            Err(error) => damage = damage.or(Some(unreadable(path, volume, &error))),
        }
    }
    Err(match (damage, usr) {
        (Some(damage), _) => damage,
        (None, Some(usr)) => not_bootable(path, &usr_alone(without_usr, usr)),
        (None, None) => no_root(disk.as_ref(), volumes, useless, path)?,
    })
}

/// What is said of roots on the disk beside the one that machines get. One that can't be read is none.
fn other_systems(disk: &Arc<dyn Block>, volumes: &[Volume], taken: &Volume) -> Option<String> {
    let others = volumes
        .iter()
        .filter(|volume| *volume != taken && matches!(volume.content, Content::Root(_)));
    let others = others.filter_map(|volume| {
        let Ok(Role::Root(root)) = Rootfs::open(Arc::clone(disk), volume).and_then(role_of) else {
            return None;
        };
        let place = place_of(volume);
        let name = os_name(&root).ok().flatten();
        Some(name.map_or_else(|| place.clone(), |name| format!("{place} ({name})")))
    });
    let others: Vec<String> = others.collect();
    (!others.is_empty()).then(|| {
        format!(
            "there is more than one system on the disk: machines start the first, in {}, and not what is in {}. To get another \
             one, import its partition: `losetup -fP --show FILE` makes devices of all",
            place_of(taken),
            others.join(" and ")
        )
    })
}

fn usr_alone(without_usr: Option<&Volume>, usr: &Volume) -> String {
    let usr = place_of(usr);
    match without_usr {
        Some(root) => format!(
            "its root in {} has its /usr in {usr}, and machines attach one file system: copy the files of both into one, \
             delete /usr from its /etc/fstab, and import that",
            place_of(root)
        ),
        None => format!(
            "{usr} is a /usr, whose root is not on this disk: import the disk with the root"
        ),
    }
}

/// What is there instead of a root that could be read, and what helps.
fn no_root(
    disk: &dyn Block,
    volumes: &[Volume],
    useless: &[Useless],
    path: &Path,
) -> Result<ImportError, ImportError> {
    let is_root = |volume: &Volume| matches!(volume.content, Content::Root(_));
    if let [only] = volumes
        && is_root(only)
    {
        return Ok(not_bootable(
            path,
            "there is no /sbin/init in it: a diskless machine would have nothing to start",
        ));
    }
    let no_root =
        |found: String, advice| ImportError::NoRoot { path: path.to_owned(), found, advice };
    if !useless.is_empty() {
        let found = useless.iter().map(ToString::to_string);
        let found: Vec<String> = listed(volumes).into_iter().chain(found).collect();
        let mut help: Vec<&str> = useless.iter().map(|useless| useless.help.as_str()).collect();
        help.dedup();
        return Ok(no_root(found.join(", "), format!(". What helps: {}", help.join("; "))));
    }
    if let Some(trouble) = trouble(disk).map_err(source_error(path))? {
        return Ok(no_root(trouble, String::new()));
    }
    let large = volumes_of_large_sectors(disk).map_err(source_error(path))?;
    if !volumes.iter().any(is_root) && large.iter().any(is_root) {
        return Ok(no_root(
            "its partition table seems to be one for sectors of 4096 bytes (a 4Kn disk), and machines get disks \
             with sectors of 512"
                .to_owned(),
            ": import the root partition alone".to_owned(),
        ));
    }
    Ok(match volumes {
        [] => ImportError::NoDisk {
            path: path.to_owned(),
            found: "a file without partition table or file system".to_owned(),
            advice: "",
        },
        [Volume { partition: None, content: Content::Other(found), .. }] => {
            no_root(format!("it is {found}"), advice(volumes).to_owned())
        }
        _ => no_root(listed(volumes).join(", "), advice(volumes).to_owned()),
    })
}

/// What is in each volume, none of which is a root.
fn listed(volumes: &[Volume]) -> Vec<String> {
    let told = volumes.iter().map(|volume| match volume.content {
        Content::Root(file_system) => {
            format!("{}: {file_system} without /sbin/init", place_of(volume))
        }
        content => format!("{}: {content}", place_of(volume)),
    });
    told.collect()
}

/// What may have a root inside that can't be seen.
const CONTAINERS: [&str; 4] = [LVM, RAID, LUKS, "ZFS"];

fn advice(volumes: &[Volume]) -> &'static str {
    let has = |names: &[&str]| {
        volumes
            .iter()
            .any(|volume| matches!(volume.content, Content::Other(name) if names.contains(&name)))
    };
    if has(&CONTAINERS) || has(&["F2FS", "ReiserFS", "JFS", "bcachefs", "NILFS2"]) {
        ". Copy the files of the root to a plain ext4 disk with `mkfs.ext4 -d FOLDER DISK.raw SIZE`, and import that"
    } else if has(&[ISO]) {
        ". Install a system from it, on a disk or in a virtual machine, and import that disk"
    } else {
        ""
    }
}

fn place_of(volume: &Volume) -> String {
    match (volume.partition, &volume.logical) {
        (Some(number), _) => format!("partition {number}"),
        (None, Some(logical)) => format!("the logical volume {}", logical.name()),
        (None, None) => "the whole disk".to_owned(),
    }
}

/// `PRETTY_NAME` of the image's os-release; a system without one has no name.
fn os_name(root: &Rootfs) -> Result<Option<String>, RootfsError> {
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
        if !root.exists(path)? {
            continue;
        }
        let bytes = root.read(path)?;
        let text = String::from_utf8_lossy(&bytes);
        let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let value = value.unwrap_or_default().trim().trim_matches(['"', '\'']);
        let value: String = value.chars().filter(|char| !char.is_control()).take(64).collect();
        return Ok((!value.is_empty()).then_some(value));
    }
    Ok(None)
}

fn unreadable(path: &Path, volume: &Volume, error: &RootfsError) -> ImportError {
    let place = match (volume.partition, &volume.logical) {
        (None, None) => "its file system".to_owned(),
        _ => format!("its file system in {}", place_of(volume)),
    };
    not_bootable(path, &format!("{place} can't be read: {error}"))
}

fn source_error(path: &Path) -> impl Fn(io::Error) -> ImportError {
    let path = path.to_owned();
    move |source| ImportError::Source { path: path.clone(), source }
}

fn not_bootable(path: &Path, why: &str) -> ImportError {
    ImportError::NotBootable { path: path.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fat;
    use crate::memory::Memory;
    use std::fs;
    use std::process::Command;

    /// A kernel that says that it is of this version.
    fn kernel(version: &str) -> Vec<u8> {
        let mut bytes = vec![0; 3072];
        for (at, value) in [(0x1f1, &[1u8][..]), (0x1f4, &[128]), (0x202, b"HdrS\x0f\x02")] {
            bytes[at..at + value.len()].copy_from_slice(value);
        }
        (bytes[0x20e], bytes[0x236]) = (0x80, 1);
        bytes[0x280..0x280 + version.len()].copy_from_slice(version.as_bytes());
        bytes
    }

    /// A disk with two partitions: this one, and an ext4 root with these folders and no kernel.
    fn disk(boot: &[u8], folders: &[&str]) -> Arc<dyn Block> {
        let folder = tempfile::tempdir().unwrap();
        let (files, image) = (folder.path().join("files"), folder.path().join("root.raw"));
        for path in folders.iter().copied().chain(["sbin"]) {
            fs::create_dir_all(files.join(path)).unwrap();
        }
        fs::write(files.join("sbin/init"), "init").unwrap();
        let made = Command::new("mkfs.ext4").arg("-qFd").args([&files, &image]).arg("4M").output();
        assert!(made.unwrap().status.success());
        let mut bytes = vec![0; 1 << 20];
        let mut at = 1 << 20;
        for (index, (kind, part)) in
            [(0x0c, boot.to_vec()), (0x83, fs::read(&image).unwrap())].into_iter().enumerate()
        {
            let entry = 446 + index * 16;
            bytes[entry + 4] = kind;
            bytes[entry + 8..entry + 12].copy_from_slice(&(at as u32 / 512).to_le_bytes());
            let sectors = (part.len() as u32).div_ceil(512);
            bytes[entry + 12..entry + 16].copy_from_slice(&sectors.to_le_bytes());
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(1 << 20), 0);
            at = bytes.len();
        }
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        Arc::new(Memory::new(bytes))
    }

    #[test]
    fn a_kernel_is_found_in_the_partition_of_the_firmware() {
        let folders = ["usr/lib/modules/6.1.0-56-amd64/kernel"];
        for n_clusters in [100, 5000, 66_000] {
            let boot = fat::example(n_clusters, "vmlinuz-linux", &kernel("6.1.0-56-amd64 (x)"));
            let system = find_system(&disk(&boot, &folders), Path::new("disk")).unwrap();
            assert_eq!(system.kernel_version, "6.1.0-56-amd64", "{n_clusters}");
            assert!(system.vmlinuz == kernel("6.1.0-56-amd64 (x)"));
            assert_eq!(system.volume.partition, Some(2));
        }
    }

    #[test]
    fn a_folder_that_others_left_is_not_that_of_a_kernel() {
        let boot = fat::example(100, "vmlinuz-linux", &kernel("6.1.0-56-amd64 (x)"));
        let found = |folder| find_system(&disk(&boot, &[folder]), Path::new("disk"));
        let error = found("lib/modules/6.1.0-56-amd64/updates/dkms").err().unwrap().to_string();
        assert!(error.contains("partition 1, /vmlinuz-linux: its modules are missing"), "{error}");
        assert!(found("lib/modules/6.1.0-56-amd64/kernel").is_ok());
    }
}
