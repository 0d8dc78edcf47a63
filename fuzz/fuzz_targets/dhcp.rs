//! DHCP requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = dhcp::Request::parse(bytes);
});
