//! TFTP requests, options and paths.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tftp::fuzz(bytes);
});
