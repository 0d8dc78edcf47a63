//! Backups, whoever made them.
#![no_main]

use std::io;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let read = |bytes: &[u8]| {
        service::backup::read_backup(bytes, |_, _, content| {
            io::copy(content, &mut io::sink()).map(drop)
        })
    };
    let _ = read(bytes);
    // Most of what a fuzzer makes does not unpack: what it makes may be the content, too.
    if let Ok(packed) = zstd::encode_all(bytes, 1) {
        let _ = read(&packed);
    }
});
