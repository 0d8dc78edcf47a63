//! Swap space: its header, and switching it on.

mod swapon;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;

/// Priorities: what is highest is used first, and what the system itself adds is below these.
pub(super) const ON_DISK: u16 = 10;
pub(super) const IN_MEMORY: u16 = 100;

/// Where the fields of the header begin (`include/linux/swap.h`, `union swap_header`): version, the last page, and
/// behind the number of bad pages what it is called by.
const VERSION_AT: usize = 1024;
const LAST_PAGE_AT: usize = 1028;
const UUID_AT: usize = 1036;
const LABEL_AT: usize = 1052;

/// The mark at the end of the first page.
const MARK: &[u8] = b"SWAPSPACE2";

const LABEL: &[u8] = b"bootlace";

/// The kernel refuses fewer pages.
const PAGES_MIN: u64 = 10;

/// Makes swap space of a whole device of so many bytes, and uses it. Nothing that was on it counts.
pub(super) fn start(device: &str, size_bytes: u64, priority: u16) -> io::Result<()> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let header = header(rustix::param::page_size(), size_bytes, uuid.trim())
        .ok_or_else(|| io::Error::other("it is too small"))?;
    let file = OpenOptions::new().write(true).open(device)?;
    file.write_all_at(&header, 0)?;
    file.sync_all()?;
    swapon::swapon(device, priority)
}

/// The first page; `None`: there is too little room, or the UUID is none.
fn header(page_bytes: usize, size_bytes: u64, uuid: &str) -> Option<Vec<u8>> {
    let n_pages = size_bytes / page_bytes as u64;
    let last_page = u32::try_from(n_pages.checked_sub(1)?).unwrap_or(u32::MAX);
    let digits: Vec<u8> = uuid.bytes().filter(|byte| *byte != b'-').collect();
    let uuid = digits.chunks_exact(2).map(|pair| {
        std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
    });
    let uuid: Vec<u8> = uuid.collect::<Option<_>>()?;
    if n_pages < PAGES_MIN || uuid.len() != 16 {
        return None;
    }
    let mut page = vec![0; page_bytes];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    put(VERSION_AT, &1_u32.to_ne_bytes());
    put(LAST_PAGE_AT, &last_page.to_ne_bytes());
    put(UUID_AT, &uuid);
    put(LABEL_AT, LABEL);
    put(page_bytes - MARK.len(), MARK);
    Some(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const UUID: &str = "2c3c4a6f-8d1e-4a4b-9c55-0123456789ab";

    #[test]
    fn others_read_the_header_as_swap_space() {
        let path = std::env::temp_dir().join(format!("bootlace-swap-{}", std::process::id()));
        fs::write(&path, header(4096, 1 << 20, UUID).unwrap()).unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
        let blkid = Command::new("blkid").args(["-p", "-o", "export"]).arg(&path).output();
        fs::remove_file(&path).unwrap();
        let told = String::from_utf8(blkid.unwrap().stdout).unwrap();
        for line in ["TYPE=swap", "LABEL=bootlace", &format!("UUID={UUID}"), "VERSION=1"] {
            assert!(told.lines().any(|told| told == line), "{line}: {told}");
        }
    }

    #[test]
    fn pages_are_the_machines_and_what_is_too_small_is_refused() {
        for page_bytes in [4096, 16_384, 65_536] {
            let page = header(page_bytes, 100 * page_bytes as u64 + 5, UUID).unwrap();
            assert_eq!(page.len(), page_bytes);
            assert!(page.ends_with(MARK));
            assert_eq!(page[LAST_PAGE_AT..UUID_AT - 4], 99_u32.to_ne_bytes());
            assert_eq!(header(page_bytes, 9 * page_bytes as u64, UUID), None);
        }
        for wrong in ["", "2c3c4a6f", "2c3c4a6f-8d1e-4a4b-9c55-0123456789zz"] {
            assert_eq!(header(4096, 1 << 20, wrong), None);
        }
    }
}
