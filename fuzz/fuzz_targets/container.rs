//! Disk images of foreign formats: their tables say where the data is.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let head = &bytes[..bytes.len().min(images::HEAD_BYTES_MAX)];
    let Ok(format) = images::detect(head) else { return };
    let _ = images::inspect(format, &images::Memory::new(bytes.to_vec()));
});
