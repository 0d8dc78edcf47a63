//! Which kernel of a system is taken: the one that its links name, or else the newest that is complete.

use crate::boot_header::{self, BootHeader};
use crate::entry::EntryKind;
use crate::error::RootfsError;
use crate::rootfs::Rootfs;
use flate2::read::GzDecoder;
use std::cmp::Ordering;
use std::io::Read as _;

/// Kernels that are looked at; no system keeps so many.
const KERNELS_MAX: usize = 32;
/// What an unpacked kernel may have.
const UNPACKED_BYTES_MAX: u64 = 512 << 20;

/// A kernel, and the version that it says it is.
pub(crate) struct Kernel {
    pub(crate) version: String,
    pub(crate) bytes: Vec<u8>,
}

/// What was found where kernels are looked for.
#[derive(Default)]
pub(crate) struct Search {
    pub(crate) kernel: Option<Kernel>,
    /// What was passed over, and why, for people: `/boot/vmlinuz-7.0: it is empty`.
    pub(crate) passed_over: Vec<String>,
}

/// Looks for a kernel in these folders, and in those of modules below `/`.
///
/// `trouble` says why a kernel of this version is of no use; `None`: it is.
///
/// # Errors
/// A folder or a file can't be read: what is damaged is not passed over.
pub(crate) fn find_kernel(
    root: &Rootfs,
    folders: &[&str],
    trouble: &dyn Fn(&str) -> Result<Option<String>, RootfsError>,
) -> Result<Search, RootfsError> {
    let mut paths: Vec<String> = Vec::new();
    for folder in folders {
        // Dangling where the system has none of that name, or where it was removed by half.
        let link = join(folder, "vmlinuz");
        if root.exists(&link)? {
            paths.push(root.canonicalize(&link)?);
        }
    }
    let n_named = paths.len();
    for path in candidates(root, folders)? {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    let mut search = Search::default();
    let mut kernels = Vec::new();
    for (index, path) in paths.into_iter().take(KERNELS_MAX).enumerate() {
        match read_kernel(root, &path)?.map(|kernel| kernel.version) {
            Ok(version) => kernels.push((index.min(n_named), version, path)),
            Err(why) => search.passed_over.push(format!("{path}: {why}")),
        }
    }
    // Those that links name first, in their order.
    kernels.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| compare_versions(&b.1, &a.1)));
    for (_, version, path) in kernels {
        if let Some(why) = trouble(&version)? {
            search.passed_over.push(format!("{path}: {why}"));
            continue;
        }
        match read_kernel(root, &path)? {
            Ok(kernel) => {
                search.kernel = Some(kernel);
                break;
            }
            Err(why) => search.passed_over.push(format!("{path}: {why}")),
        }
    }
    Ok(search)
}

/// Files that may be kernels, by name.
fn candidates(root: &Rootfs, folders: &[&str]) -> Result<Vec<String>, RootfsError> {
    let mut paths = Vec::new();
    for folder in folders {
        if !root.exists(folder)? {
            continue;
        }
        for entry in root.list(folder)? {
            let path = join(folder, &entry.name);
            match entry.kind {
                EntryKind::File if is_kernel_name(&entry.name) => paths.push(path),
                EntryKind::Link if is_kernel_name(&entry.name) && root.exists(&path)? => {
                    paths.push(root.canonicalize(&path)?);
                }
                // As kernel-install makes it (Boot Loader Specification, type 1): TOKEN/VERSION/linux, where the
                // token is mostly the machine's id, but may be anything.
                EntryKind::Folder if *folder == "/boot" => {
                    for version in root.list(&path)? {
                        let kernel = join(&join(&path, &version.name), "linux");
                        if version.kind == EntryKind::Folder && root.exists(&kernel)? {
                            paths.push(kernel);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    // Fedora's packages bring the kernel beside its modules.
    for modules in ["/lib/modules", "/usr/lib/modules"] {
        if !root.exists(modules)? {
            continue;
        }
        for version in root.list(modules)? {
            let kernel = join(&join(modules, &version.name), "vmlinuz");
            if version.kind == EntryKind::Folder && root.exists(&kernel)? {
                paths.push(root.canonicalize(&kernel)?);
            }
        }
    }
    Ok(paths)
}

fn is_kernel_name(name: &str) -> bool {
    let is_kernel =
        ["vmlinuz-", "kernel-", "linux-", "bzImage"].iter().any(|prefix| name.starts_with(prefix))
            || name == "vmlinuz.gz";
    let is_other = ["rescue", ".old", ".bak", "-bak", ".hmac", ".sig", ".img"];
    is_kernel && !is_other.iter().any(|word| name.contains(word))
}

fn join(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}

/// A kernel that PCs can start, all of it; or why it is none.
fn read_kernel(root: &Rootfs, path: &str) -> Result<Result<Kernel, String>, RootfsError> {
    Ok(check_kernel(root.read(path)?))
}

fn check_kernel(bytes: Vec<u8>) -> Result<Kernel, String> {
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) { unpack(&bytes)? } else { bytes };
    if let Some(flaw) = flaw(&bytes, bytes.len() as u64) {
        return Err(flaw);
    }
    match boot_header::kernel_version(&bytes).filter(|version| is_plain(version)) {
        Some(version) => Ok(Kernel { version, bytes }),
        None => Err("it does not say which version it is".to_owned()),
    }
}

/// Why PCs can't start a kernel that begins so and has so many bytes, as far as that shows; `None`: they can.
pub(crate) fn flaw(start: &[u8], n_bytes: u64) -> Option<String> {
    let needed = match BootHeader::parse(start) {
        Ok(header) => header.size_bytes,
        Err(not_bootable) => return Some(not_bootable.to_string()),
    };
    (n_bytes < needed).then(|| {
        format!("it is cut off: it says that it has {needed} bytes, and there are {n_bytes}")
    })
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut unpacked = Vec::new();
    let mut decoder = GzDecoder::new(bytes).take(UNPACKED_BYTES_MAX);
    match decoder.read_to_end(&mut unpacked) {
        Ok(_) => Ok(unpacked),
        Err(_) => Err("it is gzip data that is cut off or damaged".to_owned()),
    }
}

/// Whether a version can become a part of paths and command lines.
fn is_plain(version: &str) -> bool {
    !version.is_empty()
        && version.len() <= 64
        && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-_~".contains(&byte))
        && !version.starts_with('.')
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
    fn versions_are_parts_of_paths() {
        assert!(
            is_plain("6.1.0-56-amd64") && !is_plain("../x") && !is_plain("a b") && !is_plain("")
        );
    }

    #[test]
    fn names_of_kernels() {
        for name in
            ["vmlinuz-6.1.0-56-amd64", "vmlinuz-linux", "kernel-6.6", "bzImage", "vmlinuz.gz"]
        {
            assert!(is_kernel_name(name), "{name}");
        }
        for name in
            ["vmlinuz-0-rescue-0123", "vmlinuz-6.1.dpkg-bak", "initrd.img-6.1", "config-6.1"]
        {
            assert!(!is_kernel_name(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn versions_have_one_order(a in "[0-9.a-]{0,8}", b in "[0-9.a-]{0,8}") {
            prop_assert_eq!(compare_versions(&a, &b), compare_versions(&b, &a).reverse());
        }
    }
}
