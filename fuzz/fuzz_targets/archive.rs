//! Initrds of anybody: archives and their compression; and what goes into one: init, and the busybox of a host.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = initrd_builder::inspect(bytes);
    let _ = initrd_builder::is_static_program(bytes);
    let _ = initrd_builder::Init::parse(bytes.to_vec());
});
