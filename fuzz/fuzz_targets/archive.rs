//! Initrds of anybody: archives and their compression; and the busybox of a host.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = initrd_builder::inspect(bytes);
    let _ = initrd_builder::is_static_program(bytes);
});
