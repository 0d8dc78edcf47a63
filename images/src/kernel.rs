//! The kernel of a system, and which version it is.

use crate::rootfs::{EntryKind, Rootfs};
use std::cmp::Ordering;

/// A kernel, and the version that it says it is.
pub(crate) struct Kernel {
    pub(crate) version: String,
    pub(crate) bytes: Vec<u8>,
}

/// The kernel that the links name, or else the newest, in these folders.
pub(crate) fn find_kernel(root: &Rootfs, folders: &[&str]) -> Option<Kernel> {
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

fn read_kernel(root: &Rootfs, path: &str) -> Option<Kernel> {
    let bytes = root.read(path).ok()?;
    let name = path.rsplit('/').next().unwrap_or(path);
    let version = kernel_version(&bytes)
        .or_else(|| name.strip_prefix("vmlinuz-").map(str::to_owned))
        .filter(|version| is_plain(version))?;
    Some(Kernel { version, bytes })
}

/// Whether a version can become a part of paths and command lines.
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
