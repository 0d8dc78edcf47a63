//! Kernels out of imported disks, and heads of foreign disk images.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = images::kernel_version(bytes);
    let _ = images::BootHeader::parse(bytes);
    let _ = initrd_builder::Processor::of_kernel(bytes);
    let _ = images::detect(bytes);
    let _ = images::Header::parse(bytes);
});
