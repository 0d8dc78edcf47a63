//! What is laid over a root.
#![no_main]

use initcfg::Overlay;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(overlay) = Overlay::parse(bytes) {
        // What can be read can be written, and is the same then.
        let written = overlay.to_file().unwrap();
        assert_eq!(Overlay::parse(&written), Ok(overlay));
    }
});
