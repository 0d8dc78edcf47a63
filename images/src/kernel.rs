//! The system on a disk: its root, its kernel, its name.

use crate::block::Block;
use crate::error::ImportError;
use crate::rootfs::{EntryKind, Rootfs};
use crate::volumes::{Content, Volume, find_volumes};
use model::FileSystem;
use std::cmp::Ordering;
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

struct Kernel {
    version: String,
    bytes: Vec<u8>,
}

/// The kernel that the links name, or else the newest, in these folders.
fn find_kernel(root: &Rootfs, folders: &[&str]) -> Option<Kernel> {
    for folder in folders {
        let link = format!("{}/vmlinuz", folder.trim_end_matches('/'));
        if let Ok(target) = root.canonicalize(&link)
            && let Some(kernel) = read_kernel(root, &target)
        {
            return Some(kernel);
        }
    }
    let mut candidates = Vec::new();
    for folder in folders {
        for entry in root.list(folder).unwrap_or_default() {
            let is_file = matches!(entry.kind, EntryKind::File | EntryKind::Link);
            if let Some(version) = entry.name.strip_prefix("vmlinuz-")
                && is_file
                && !version.contains("rescue")
            {
                let path = format!("{}/{}", folder.trim_end_matches('/'), entry.name);
                candidates.push((version.to_owned(), path));
            }
        }
    }
    candidates.sort_by(|(a, _), (b, _)| compare_versions(b, a));
    candidates.iter().find_map(|(_, path)| read_kernel(root, path))
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

fn read_kernel(root: &Rootfs, path: &str) -> Option<Kernel> {
    let bytes = root.read(path).ok()?;
    let name = path.rsplit('/').next().unwrap_or(path);
    let version = kernel_version(&bytes)
        .or_else(|| name.strip_prefix("vmlinuz-").map(str::to_owned))
        .filter(|version| is_plain(version))?;
    Some(Kernel { version, bytes })
}

/// It becomes a part of paths and command lines.
fn is_plain(version: &str) -> bool {
    !version.is_empty()
        && version.len() <= 64
        && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-_~".contains(&byte))
        && !version.starts_with('.')
}

/// The release that an x86 kernel says it is (Linux `Documentation/arch/x86/boot.rst`, `kernel_version`).
///
/// `None` if the bytes are no such kernel. Never panics.
pub fn kernel_version(bytes: &[u8]) -> Option<String> {
    if bytes.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let pointer = u16::from_le_bytes([*bytes.get(0x20e)?, *bytes.get(0x20f)?]);
    if pointer == 0 {
        return None;
    }
    let text = bytes.get(usize::from(pointer) + 0x200..)?;
    let length = text.iter().take(64).position(|&byte| byte == b' ' || byte == 0)?;
    str::from_utf8(&text[..length]).ok().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Orders `6.1.0-9` before `6.1.0-10`: runs of digits are numbers.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (a_digits, b_digits) = (digits(a), digits(b));
        let order = if a_digits > 0 && b_digits > 0 {
            let number = |run: &[u8]| -> Vec<u8> {
                run.iter().copied().skip_while(|&byte| byte == b'0').collect()
            };
            let (x, y) = (number(&a[..a_digits]), number(&b[..b_digits]));
            a = &a[a_digits..];
            b = &b[b_digits..];
            x.len().cmp(&y.len()).then(x.cmp(&y))
        } else {
            match (a.split_first(), b.split_first()) {
                (None, None) => return Ordering::Equal,
                (None, Some(_)) => return Ordering::Less,
                (Some(_), None) => return Ordering::Greater,
                (Some((x, a_rest)), Some((y, b_rest))) => {
                    (a, b) = (a_rest, b_rest);
                    x.cmp(y)
                }
            }
        };
        if order != Ordering::Equal {
            return order;
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_newest_kernel_is_not_the_last_by_letters() {
        let mut versions =
            ["6.1.0-10-amd64", "6.1.0-9-amd64", "6.12.1", "6.1.0", "5.20.0", "6.1.010-amd64"];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(
            versions,
            ["5.20.0", "6.1.0", "6.1.0-9-amd64", "6.1.0-10-amd64", "6.1.010-amd64", "6.12.1"]
        );
    }

    #[test]
    fn a_kernel_names_its_version() {
        let mut bytes = vec![0; 0x400];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e] = 0x80;
        bytes[0x280..0x2a0].copy_from_slice(b"6.1.0-56-amd64 (debian-kernel@li");
        assert_eq!(kernel_version(&bytes).as_deref(), Some("6.1.0-56-amd64"));
        for length in 0..0x28f {
            assert_eq!(kernel_version(&bytes[..length]), None, "{length}");
        }
        assert!(
            is_plain("6.1.0-56-amd64") && !is_plain("../x") && !is_plain("a b") && !is_plain("")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(pointer in any::<u16>(), bytes in proptest::collection::vec(any::<u8>(), 0..0x500)) {
            let mut bytes = bytes;
            let _ = kernel_version(&bytes);
            if bytes.len() > 0x210 {
                bytes[0x202..0x206].copy_from_slice(b"HdrS");
                bytes[0x20e..0x210].copy_from_slice(&pointer.to_le_bytes());
                let _ = kernel_version(&bytes);
            }
        }

        #[test]
        fn versions_have_one_order(a in "[0-9.a-]{0,8}", b in "[0-9.a-]{0,8}") {
            prop_assert_eq!(compare_versions(&a, &b), compare_versions(&b, &a).reverse());
        }
    }
}
