//! Kernel modules of foreign packages.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = initrd_builder::ModInfo::parse(bytes);
});
