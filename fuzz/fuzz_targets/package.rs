//! Kernel packages, .deb and .rpm, which are read from files.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // In memory; one for each fuzzer.
    let path = format!("/dev/shm/bootlace-fuzz-package-{}", std::process::id());
    if std::fs::write(&path, bytes).is_ok() {
        let _ = initrd_builder::KernelPackage::open(&[&path]);
    }
});
