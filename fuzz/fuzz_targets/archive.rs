//! Initrds of anybody: archives and their compression.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = initrd_builder::inspect(bytes);
});
