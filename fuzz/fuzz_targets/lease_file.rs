//! Files in which other DHCP servers keep their leases.
#![no_main]

use dhcp::{LeaseFile, LeaseFormat};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let known = LeaseFormat::of(bytes);
    for format in LeaseFormat::ALL.into_iter().chain(known) {
        let Ok(file) = LeaseFile::parse(bytes, format, 1_800_000_000) else { continue };
        for lease in &file.leases {
            assert!(lease.mac.is_of_a_nic());
            assert!(lease.ends_unix.is_none_or(|ends| ends > 1_800_000_000));
        }
    }
});
