//! The system on a disk: its root, its kernel, its name.

use crate::block::Block;
use crate::error::ImportError;
use crate::kernel::{Kernel, find_kernel};
use crate::rootfs::Rootfs;
use crate::volumes::{Content, Volume, find_volumes};
use model::FileSystem;
use std::path::Path;
use std::sync::Arc;

/// What an import found on a disk.
pub(crate) struct System {
    pub(crate) volume: Volume,
    pub(crate) file_system: FileSystem,
    pub(crate) kernel_version: String,
    pub(crate) vmlinuz: Vec<u8>,
    pub(crate) os_name: Option<String>,
}

/// Looks into a disk; `path` is what the errors call it.
pub(crate) fn find_system(disk: &Arc<dyn Block>, path: &Path) -> Result<System, ImportError> {
    let volumes = find_volumes(disk.as_ref())
        .map_err(|source| ImportError::Source { path: path.to_owned(), source })?;
    let (volume, root) = find_root(disk, &volumes, path)?;
    let kernel = match find_kernel(&root, &["/", "/boot"]) {
        Some(kernel) => kernel,
        None => kernel_of_boot_partition(disk, &volumes, volume).ok_or_else(|| {
            not_bootable(path, "there is no kernel in it (neither /vmlinuz nor /boot/vmlinuz-*): install one in it, in Debian the package linux-image-amd64")
        })?,
    };
    let modules = format!("/lib/modules/{}", kernel.version);
    if !root.exists(&modules) && !root.exists(&format!("/usr{modules}")) {
        let why = format!(
            "its kernel is {}, but its modules are missing: there is no {modules}",
            kernel.version
        );
        return Err(not_bootable(path, &why));
    }
    Ok(System {
        volume,
        file_system: FileSystem::Ext4,
        kernel_version: kernel.version,
        vmlinuz: kernel.bytes,
        os_name: os_name(&root),
    })
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
        match Rootfs::open(Arc::clone(disk), volume.offset) {
            // A dangling link counts: absolute ones are resolved inside of the image anyway.
            Ok(root) if root.exists("/sbin/init") || root.exists("/usr/lib/systemd/systemd") => {
                return Ok((*volume, root));
            }
            Ok(_) => {}
            Err(error) => damage = damage.or(Some(error)),
        }
    }
    if let Some(error) = damage {
        return Err(not_bootable(path, &format!("its file system can't be read: {error}")));
    }
    for volume in volumes {
        match volume.content {
            Content::Root(FileSystem::Ext4) | Content::Other(_) | Content::Unknown => {}
            Content::Root(file_system) => {
                return Err(ImportError::Unreadable { path: path.to_owned(), file_system });
            }
        }
    }
    if volumes.iter().any(|volume| volume.content == Content::Root(FileSystem::Ext4)) {
        return Err(not_bootable(
            path,
            "there is no /sbin/init in it: a diskless machine would have nothing to start",
        ));
    }
    Err(match volumes {
        [] => ImportError::NoDisk {
            path: path.to_owned(),
            found: "a file without partition table or file system".to_owned(),
            advice: "",
        },
        [Volume { partition: None, content: Content::Other(found), .. }] => {
            ImportError::NoRoot { path: path.to_owned(), found: format!("it is {found}") }
        }
        _ => {
            let list: Vec<String> = volumes
                .iter()
                .map(|volume| {
                    format!("partition {}: {}", volume.partition.unwrap_or(0), volume.content)
                })
                .collect();
            ImportError::NoRoot { path: path.to_owned(), found: list.join(", ") }
        }
    })
}

/// A system with a `/boot` of its own has its kernels at the top of another partition.
fn kernel_of_boot_partition(
    disk: &Arc<dyn Block>,
    volumes: &[Volume],
    root: Volume,
) -> Option<Kernel> {
    volumes
        .iter()
        .filter(|volume| **volume != root && volume.content == Content::Root(FileSystem::Ext4))
        .filter_map(|volume| Rootfs::open(Arc::clone(disk), volume.offset).ok())
        .find_map(|boot| find_kernel(&boot, &["/"]))
}

/// `PRETTY_NAME` of the image's os-release.
fn os_name(root: &Rootfs) -> Option<String> {
    let bytes = root.read("/etc/os-release").or_else(|_| root.read("/usr/lib/os-release")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    let value = value.trim().trim_matches(['"', '\'']);
    let value: String = value.chars().filter(|char| !char.is_control()).take(64).collect();
    (!value.is_empty()).then_some(value)
}

fn not_bootable(path: &Path, why: &str) -> ImportError {
    ImportError::NotBootable { path: path.to_owned(), why: why.to_owned() }
}
