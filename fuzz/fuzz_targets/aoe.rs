//! Frames that anybody on the LAN can send.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = aoe::Request::parse(bytes);
});
