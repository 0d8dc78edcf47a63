//! What others answer to the doctor: who serves disks over AoE, and files by HTTP.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::Mac;

fuzz_target!(|bytes: &[u8]| {
    let own = Mac([2, 0, 0, 0, 0, 1]);
    if let Some(found) = fakeclient::aoe_search::answer(bytes, own) {
        assert!(bytes.len() >= 20 && !found.server.is_multicast());
    }
    if let Ok(body) = fakeclient::http_file::read_answer(bytes, 1 << 20) {
        assert!(body.len() < bytes.len());
    }
});
