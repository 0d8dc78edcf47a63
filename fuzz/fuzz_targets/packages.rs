//! Packages of an image.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = images::parse_rpm_database(bytes.to_vec());
    let packages = images::parse_packages(bytes);
    for ((name, _), version) in &packages {
        assert!(!name.is_empty() && !version.is_empty());
    }
    assert!(images::package_changes(&packages, &packages).is_empty());
});
