//! Partition tables and file systems of imported disks.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let disk: std::sync::Arc<dyn images::Block> = std::sync::Arc::new(images::Memory::new(bytes.to_vec()));
    let Ok(volumes) = images::find_volumes(&disk) else { return };
    for volume in volumes {
        if let Ok(rootfs) = images::Rootfs::open(disk.clone(), &volume) {
            let _ = rootfs.check_mounts();
            let _ = rootfs.list("/");
            let _ = rootfs.list("/boot");
            let _ = rootfs.read("/etc/os-release");
        }
    }
});
