//! The memory test that PCs can start.

use std::path::{Path, PathBuf};

/// Memtest86+ by kind of firmware as GRUB names it (`i386-pc`, `x86_64-efi`), where Debian's package memtest86+ puts it.
const FILES: [(&str, &str); 2] =
    [("i386-pc", "/boot/memtest86+x64.bin"), ("x86_64-efi", "/boot/memtest86+x64.efi")];

/// The program for this kind of firmware, as GRUB names that, if this host has it.
pub fn memory_test(platform: &str) -> Option<PathBuf> {
    let (_, file) = FILES.iter().find(|(of, _)| *of == platform)?;
    Some(Path::new(file)).filter(|file| file.is_file()).map(Path::to_owned)
}

/// Whether this host has it for all.
pub fn has_memory_test() -> bool {
    FILES.iter().all(|(platform, _)| memory_test(platform).is_some())
}
