//! Image versions that another server has sent: what is compressed, and what is in it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = images::check_stream(bytes, &images::Stop::default(), &mut |_| ());
    let plain = zstd::encode_all(bytes, 1).unwrap_or_default();
    let _ = images::check_stream(&plain[..], &images::Stop::default(), &mut |_| ());
});
