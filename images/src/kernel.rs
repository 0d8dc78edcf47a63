//! Which kernel of a system is taken: the one that its links name, or else the newest that is complete.

use crate::boot_header::{self, BootHeader};
use crate::entry::EntryKind;
use crate::error::RootfsError;
use crate::rootfs::Rootfs;
use flate2::read::GzDecoder;
use model::Architecture;
use std::cmp::Ordering;
use std::io::Read as _;

/// Kernels that are looked at; no system keeps so many.
const KERNELS_MAX: usize = 32;
/// What an unpacked kernel may have.
const UNPACKED_BYTES_MAX: u64 = 512 << 20;

/// A kernel, and the version that it says it is.
pub(crate) struct Kernel {
    pub(crate) version: String,
    pub(crate) architecture: Architecture,
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
    let mut not_taken = Vec::new();
    for path in candidates(root, folders, &mut not_taken)? {
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
    kernels.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| compare_releases(&b.1, &a.1)));
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
    // Nobody wonders about these where there is a better one.
    if search.kernel.is_none() {
        search.passed_over.extend(not_taken);
    }
    Ok(search)
}

/// Where the Boot Loader Specification has kernels that are one file with their initrd (type 2).
const UNIFIED: &str = "EFI/Linux";

/// Files that may be kernels, by name; `not_taken` gets those that are none to start, and why.
fn candidates(
    root: &Rootfs,
    folders: &[&str],
    not_taken: &mut Vec<String>,
) -> Result<Vec<String>, RootfsError> {
    let mut paths = Vec::new();
    for folder in folders {
        if !root.exists(folder)? {
            continue;
        }
        for entry in root.list(folder)? {
            let path = join(folder, &entry.name);
            match entry.kind {
                EntryKind::File | EntryKind::Link => match named(&entry.name) {
                    Named::Kernel if entry.kind == EntryKind::File => paths.push(path),
                    Named::Kernel if root.exists(&path)? => paths.push(root.canonicalize(&path)?),
                    Named::NotMeant(why) => not_taken.push(format!("{path}: {why}")),
                    Named::Kernel | Named::Other => {}
                },
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
    for folder in folders.iter().map(|folder| join(folder, UNIFIED)) {
        if root.exists(&folder)? {
            let files = root.list(&folder)?.into_iter().filter(|it| it.name.ends_with(".efi"));
            not_taken.extend(files.map(|file| {
                let path = join(&folder, &file.name);
                format!("{path}: it is one file with its own initrd: install its kernel as a file of its own, too")
            }));
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

/// What a file is by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Kernel,
    /// A kernel, and not the one that is meant to be started; why.
    NotMeant(&'static str),
    /// Something else.
    Other,
}

fn named(name: &str) -> Named {
    let is_kernel =
        ["vmlinuz-", "kernel-", "linux-", "bzImage"].iter().any(|prefix| name.starts_with(prefix))
            || name == "vmlinuz.gz";
    let is_no_file_of_kernel = [".hmac", ".sig", ".img"].iter().any(|word| name.contains(word));
    if !is_kernel || is_no_file_of_kernel {
        return Named::Other;
    }
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if has(&["rescue"]) {
        Named::NotMeant("it is for rescue")
    } else if has(&[".old", "-old.", ".bak", "-bak"]) || name.ends_with("-old") {
        Named::NotMeant("it is a former one, by its name")
    } else if has(&[".dpkg-", ".rpm", ".ucf-", ";"]) {
        Named::NotMeant("it is of a package that was not installed to its end")
    } else {
        Named::Kernel
    }
}

fn join(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}

/// A kernel that PCs can start, all of it; or why it is none.
fn read_kernel(root: &Rootfs, path: &str) -> Result<Result<Kernel, String>, RootfsError> {
    match root.read(path) {
        Ok(bytes) => Ok(check_kernel(bytes)),
        Err(RootfsError::NoFile { why, .. }) => Ok(Err(why.to_owned())),
        Err(error) => Err(error),
    }
}

fn check_kernel(bytes: Vec<u8>) -> Result<Kernel, String> {
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) { unpack(&bytes)? } else { bytes };
    // Our loader for arm64 starts none that unpacks itself.
    let bytes = match boot_header::zboot(&bytes) {
        Some(("gzip", packed)) => unpack(packed)?,
        Some((packer, _)) => {
            return Err(format!(
                "it unpacks itself (EFI zboot), and is packed by {packer}: only gzip is understood here"
            ));
        }
        None => bytes,
    };
    let header = check_size(&bytes, bytes.len() as u64)?;
    match boot_header::kernel_version(&bytes).filter(|version| is_plain(version)) {
        Some(version) => Ok(Kernel { version, architecture: header.architecture, bytes }),
        None => Err("it does not say which version it is".to_owned()),
    }
}

/// Why PCs can't start a kernel that begins so and has so many bytes, as far as that shows; `None`: they can.
pub(crate) fn flaw(start: &[u8], n_bytes: u64) -> Option<String> {
    check_size(start, n_bytes).err()
}

fn check_size(start: &[u8], n_bytes: u64) -> Result<BootHeader, String> {
    let header = BootHeader::parse(start).map_err(|not_bootable| not_bootable.to_string())?;
    let needed = header.size_bytes;
    match n_bytes < needed {
        true => Err(format!(
            "it is cut off: it says that it has {needed} bytes, and there are {n_bytes}"
        )),
        false => Ok(header),
    }
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

/// Orders kernels by their release, as GRUB's menu does: `6.1.0-9` before `6.1.0-10`, since runs of digits are numbers, and
/// what leads to a release (`-rc`, `~rc`) before that. Those for finding faults come before all others.
fn compare_releases(a: &str, b: &str) -> Ordering {
    let is_normal = |release: &str| !release.ends_with("+debug");
    is_normal(a).cmp(&is_normal(b)).then_with(|| compare_versions(&ranked(a), &ranked(b)))
}

/// A release in which what comes before one is written with the sign that sorts so.
fn ranked(release: &str) -> String {
    let words = ["-rc", "-pre", "-test", "-git", "-old"];
    words
        .into_iter()
        .fold(release.to_owned(), |release, word| release.replace(word, &word.replace('-', "~")))
}

/// By runs of digits and single other characters; `~` is before everything, and the end too.
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
                (Some((b'~', a_rest)), Some((b'~', b_rest))) => {
                    (a, b) = (a_rest, b_rest);
                    Ordering::Equal
                }
                (Some((b'~', _)), _) => Ordering::Less,
                (_, Some((b'~', _))) => Ordering::Greater,
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
        let in_order = [
            "6.12.1-300.fc41.x86_64+debug",
            "5.20.0",
            "6.1.0-rc9",
            "6.1.0",
            "6.1.0-9-amd64",
            "6.1.0-10-amd64",
            "6.1.010-amd64",
            "6.12.1",
            "6.12.1-300.fc41.x86_64",
            "6.19~rc4+deb14-amd64",
            "6.19-amd64",
            "7.1.0-rc2-arch",
            "7.1.0-arch1",
        ];
        let mut releases = in_order;
        releases.reverse();
        releases.sort_by(|a, b| compare_releases(a, b));
        assert_eq!(releases, in_order);
    }

    #[test]
    fn versions_are_parts_of_paths() {
        assert!(
            is_plain("6.1.0-56-amd64") && !is_plain("../x") && !is_plain("a b") && !is_plain("")
        );
    }

    #[test]
    fn names_of_kernels() {
        for name in [
            "vmlinuz-6.1.0-56-amd64",
            "vmlinuz-linux",
            "kernel-6.6",
            "bzImage",
            "vmlinuz.gz",
            "vmlinuz-6.6.32-gentoo-dist.efi",
            "vmlinuz-6.1-olddefconfig",
        ] {
            assert_eq!(named(name), Named::Kernel, "{name}");
        }
        for name in [
            "vmlinuz-0-rescue-0123",
            "vmlinuz-6.1.dpkg-bak",
            "vmlinuz-6.1.0-11-amd64.dpkg-new",
            "vmlinuz-6.1.0-11-amd64;65a1b2c3",
            "vmlinuz-6.6.32-gentoo-dist-old.efi",
            "vmlinuz-6.6.32-old",
        ] {
            assert!(matches!(named(name), Named::NotMeant(_)), "{name}");
        }
        for name in ["initrd.img-6.1", "config-6.1", ".vmlinuz-6.1.hmac", "kernel-6.1.img"] {
            assert_eq!(named(name), Named::Other, "{name}");
        }
    }

    proptest! {
        #[test]
        fn versions_have_one_order(a in "[0-9.a~-]{0,8}", b in "[0-9.a~-]{0,8}") {
            prop_assert_eq!(compare_releases(&a, &b), compare_releases(&b, &a).reverse());
        }
    }
}
