//! Frames that a setup hears: ARP, LLDP and the spanning tree.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut heard = bootsvc::net::overheard::Overheard::default();
    for frame in bytes.chunks(300) {
        heard.hear(frame);
    }
});
