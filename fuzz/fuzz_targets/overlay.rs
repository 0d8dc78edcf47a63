//! What is laid over a root, and as what it comes to a machine.
#![no_main]

use initcfg::{FilesAsked, Overlay, Token, open_files};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Nobody guesses a seal.
    assert!(open_files(&Token::new([7; 32]), 42, bytes).is_err());
    if let Some(asked) = std::str::from_utf8(bytes).ok().and_then(FilesAsked::from_path) {
        assert_eq!(FilesAsked::from_path(&asked.to_path()), Some(asked));
    }
    if let Ok(overlay) = Overlay::parse(bytes) {
        // What can be read can be written, and is the same then.
        let written = overlay.to_file().unwrap();
        assert_eq!(Overlay::parse(&written), Ok(overlay));
    }
});
