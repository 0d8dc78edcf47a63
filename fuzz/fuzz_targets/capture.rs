//! What is captured of a PC, as it comes to the boot server, and what is ordered of its init.
#![no_main]

use initcfg::{CaptureAbout, CaptureOpener, CaptureOrder, CaptureProof, Token};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut opener = CaptureOpener::new(&Token::new([7; 32]), 42);
    for part in bytes.chunks(7) {
        opener.push(part);
        match opener.piece() {
            Ok(None) => {}
            // Nobody guesses a seal.
            Ok(Some(piece)) => panic!("{piece:?}"),
            Err(_) => break,
        }
    }
    let _ = CaptureAbout::parse(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(proof) = CaptureProof::from_path(text) {
        assert_eq!(CaptureProof::from_path(&proof.to_path()), Some(proof));
    }
    if let Ok(order) = text.parse::<CaptureOrder>() {
        assert_eq!(order.to_string().parse(), Ok(order));
    }
});
