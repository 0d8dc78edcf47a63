//! The system on a disk: its root, its kernel, its name.

use crate::block::Block;
use crate::error::{ImportError, RootfsError};
use crate::kernel::{Search, find_kernel};
use crate::partitions::trouble;
use crate::rootfs::Rootfs;
use crate::volumes::{
    Content, FAT, ISO, LUKS, LVM, RAID, Volume, find_volumes, volumes_of_large_sectors,
};
use model::FileSystem;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What an import found on a disk.
pub(crate) struct System {
    pub(crate) volume: Volume,
    pub(crate) file_system: FileSystem,
    pub(crate) kernel_version: String,
    pub(crate) vmlinuz: Vec<u8>,
    pub(crate) os_name: Option<String>,
    /// Kernels that were passed over, and why, for people.
    pub(crate) passed_over: Vec<String>,
}

/// Looks into a disk; `path` is what the errors call it.
pub(crate) fn find_system(disk: &Arc<dyn Block>, path: &Path) -> Result<System, ImportError> {
    let volumes = find_volumes(disk.as_ref()).map_err(source_error(path))?;
    let (volume, root) = find_root(disk, &volumes, path)?;
    let in_root = |error: RootfsError| unreadable(path, &volume, &error);
    let has_modules = |version: &str| -> Result<bool, RootfsError> {
        let folder = format!("/lib/modules/{version}");
        Ok(root.exists(&folder)? || root.exists(&format!("/usr{folder}"))?)
    };
    let mut search = find_kernel(&root, &["/boot", "/"], &has_modules).map_err(in_root)?;
    if search.kernel.is_none() {
        look_elsewhere(disk, &volumes, volume, &has_modules, &mut search, path)?;
    }
    let Some(kernel) = search.kernel else {
        return Err(not_bootable(path, &no_kernel(&search.passed_over)));
    };
    Ok(System {
        volume,
        file_system: FileSystem::Ext4,
        kernel_version: kernel.version,
        vmlinuz: kernel.bytes,
        os_name: os_name(&root).map_err(in_root)?,
        passed_over: search.passed_over,
    })
}

/// A system with a `/boot` of its own has its kernels at the top of another partition.
fn look_elsewhere(
    disk: &Arc<dyn Block>,
    volumes: &[Volume],
    root: Volume,
    has_modules: &dyn Fn(&str) -> Result<bool, RootfsError>,
    search: &mut Search,
    path: &Path,
) -> Result<(), ImportError> {
    for volume in volumes.iter().filter(|volume| **volume != root) {
        let place = place_of(volume);
        match volume.content {
            Content::Root(FileSystem::Ext4) => {}
            // The usual places of /boot; what is in the others is no kernel.
            Content::Root(file_system) => {
                search
                    .passed_over
                    .push(format!("{place}: it is {file_system}, which can't be read"));
                continue;
            }
            Content::Other(FAT) => {
                search.passed_over.push(format!(
                    "{place}: it is FAT, which can't be read; if the kernel is there, copy it to /boot of the root"
                ));
                continue;
            }
            Content::Other(_) | Content::Unknown => continue,
        }
        let boot = match Rootfs::open(Arc::clone(disk), volume) {
            Ok(boot) => boot,
            Err(error) => {
                search.passed_over.push(format!("{place}: {error}"));
                continue;
            }
        };
        let found = find_kernel(&boot, &["/"], has_modules)
            .map_err(|error| unreadable(path, volume, &error))?;
        let named = found.passed_over.iter().map(|passed_over| format!("{place}, {passed_over}"));
        search.passed_over.extend(named);
        if found.kernel.is_some() {
            search.kernel = found.kernel;
            break;
        }
    }
    Ok(())
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

/// The first ext4 file system with an init in it.
fn find_root(
    disk: &Arc<dyn Block>,
    volumes: &[Volume],
    path: &Path,
) -> Result<(Volume, Rootfs), ImportError> {
    let mut damage = None;
    for volume in volumes {
        if volume.content != Content::Root(FileSystem::Ext4) {
            continue;
        }
        let opened = Rootfs::open(Arc::clone(disk), volume).and_then(|root| {
            // A dangling link does not count: absolute ones are resolved inside of the image anyway.
            let has_init = root.exists("/sbin/init")? || root.exists("/usr/lib/systemd/systemd")?;
            Ok(has_init.then_some(root))
        });
        match opened {
            Ok(Some(root)) => return Ok((*volume, root)),
            Ok(None) => {}
            Err(error) => damage = damage.or(Some(unreadable(path, volume, &error))),
        }
    }
    Err(match damage {
        Some(damage) => damage,
        None => no_root(disk.as_ref(), volumes, path)?,
    })
}

/// What is there instead of a root that could be read, and what helps.
fn no_root(disk: &dyn Block, volumes: &[Volume], path: &Path) -> Result<ImportError, ImportError> {
    let is_ext4 = |volume: &Volume| volume.content == Content::Root(FileSystem::Ext4);
    let holds_others = volumes
        .iter()
        .any(|volume| matches!(volume.content, Content::Other(name) if CONTAINERS.contains(&name)));
    let foreign = volumes.iter().find_map(|volume| match volume.content {
        Content::Root(file_system) if !is_ext4(volume) => Some(file_system),
        _ => None,
    });
    // A /boot may be XFS where the root is in a container.
    if let Some(file_system) = foreign.filter(|_| !holds_others) {
        return Ok(ImportError::Unreadable { path: path.to_owned(), file_system });
    }
    if let [only] = volumes
        && is_ext4(only)
    {
        return Ok(not_bootable(
            path,
            "there is no /sbin/init in it: a diskless machine would have nothing to start",
        ));
    }
    let no_root =
        |found: String, advice| ImportError::NoRoot { path: path.to_owned(), found, advice };
    if let Some(trouble) = trouble(disk).map_err(source_error(path))? {
        return Ok(no_root(trouble, ""));
    }
    let large = volumes_of_large_sectors(disk).map_err(source_error(path))?;
    if !volumes.iter().any(is_ext4) && large.iter().any(is_ext4) {
        return Ok(no_root(
            "its partition table seems to be one for sectors of 4096 bytes (a 4Kn disk), and machines get disks \
             with sectors of 512"
                .to_owned(),
            ": import the root partition alone",
        ));
    }
    Ok(match volumes {
        [] => ImportError::NoDisk {
            path: path.to_owned(),
            found: "a file without partition table or file system".to_owned(),
            advice: "",
        },
        [Volume { partition: None, content: Content::Other(found), .. }] => {
            no_root(format!("it is {found}"), advice(volumes))
        }
        _ => {
            let list: Vec<String> = volumes
                .iter()
                .map(|volume| match volume.content {
                    Content::Root(FileSystem::Ext4) => {
                        format!("{}: ext4 without /sbin/init", place_of(volume))
                    }
                    content => format!("{}: {content}", place_of(volume)),
                })
                .collect();
            no_root(list.join(", "), advice(volumes))
        }
    })
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
    match volume.partition {
        Some(number) => format!("partition {number}"),
        None => "the whole disk".to_owned(),
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
    let place = match volume.partition {
        Some(number) => format!("its file system in partition {number}"),
        None => "its file system".to_owned(),
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
