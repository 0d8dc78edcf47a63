//! File names that clients write in many ways.

use alloc::string::String;

/// Longest file name that is looked at, in bytes. Linux' `NAME_MAX`; real clients stay below 128.
pub const PATH_MAX: usize = 255;

/// The name as a relative path with single slashes: `grub/grub.cfg` for `\grub//./grub.cfg`.
/// It ends before the first byte that is no printable ASCII: firmware and old shims have garbage behind the name that they were told.
/// `None` if it must not be looked up: empty, too long, or with a `..` component.
pub fn normalize(path: &[u8]) -> Option<String> {
    let is_of_name = |byte: &u8| (b' '..0x7f).contains(byte);
    let end = path.iter().position(|byte| !is_of_name(byte)).unwrap_or(path.len());
    let text = core::str::from_utf8(path.get(..end)?).ok().filter(|it| it.len() <= PATH_MAX)?;
    let mut normal = String::with_capacity(text.len());
    for component in text.split(['/', '\\']) {
        match component {
            "" | "." => continue,
            ".." => return None,
            _ => {
                if !normal.is_empty() {
                    normal.push('/');
                }
                normal.push_str(component);
            }
        }
    }
    (!normal.is_empty()).then_some(normal)
}

/// Whether the normalized `path` lies in the folder `folder` (also normalized).
pub fn is_beneath(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_file_are_one_path() {
        for path in [
            "grub/grub.cfg",
            "/grub/grub.cfg",
            "\\grub\\grub.cfg",
            "//grub/.//./grub.cfg",
            "./grub/grub.cfg/",
        ] {
            assert_eq!(normalize(path.as_bytes()).as_deref(), Some("grub/grub.cfg"), "{path}");
        }
        assert_eq!(normalize(b"..hidden/a..b").as_deref(), Some("..hidden/a..b"));
    }

    #[test]
    fn paths_that_leave_the_root_or_are_no_names_are_refused() {
        for path in ["..", "../etc/passwd", "a/../b", "a\\..\\b", "/..", "", "/", ".", "\na"] {
            assert_eq!(normalize(path.as_bytes()), None, "{path:?}");
        }
        assert_eq!(normalize(&[0xff, 0xfe]), None);
        assert_eq!(normalize(&[b'a'; PATH_MAX + 1]), None);
        assert!(normalize(&[b'a'; PATH_MAX]).is_some());
    }

    #[test]
    fn garbage_behind_a_name_is_no_part_of_it() {
        for garbage in [&b"\xff"[..], b"\xff\xff", b"\x01x", b"\n", b"\xc3\xa4/..", b"\x1b[2J"] {
            let path = [b"/grubx64.efi", garbage].concat();
            assert_eq!(normalize(&path).as_deref(), Some("grubx64.efi"), "{garbage:?}");
        }
    }

    #[test]
    fn a_folder_holds_what_is_in_it() {
        assert!(is_beneath("grub/x", "grub"));
        assert!(!is_beneath("grubby/x", "grub"));
        assert!(!is_beneath("grub", "grub"));
    }
}
