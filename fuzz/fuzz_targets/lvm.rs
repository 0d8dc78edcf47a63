//! Labels and metadata of LVM.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut scan = lvm::Scan::default();
    let _ = scan.add(0, bytes.len() as u64, |at, buffer: &mut [u8]| {
        let at = usize::try_from(at).map_err(|_| ())?;
        let end = at.checked_add(buffer.len()).ok_or(())?;
        buffer.copy_from_slice(bytes.get(at..end).ok_or(())?);
        Ok::<(), ()>(())
    });
    for group in scan.groups() {
        for volume in &group.volumes {
            let _ = scan.pieces(group, volume);
        }
    }
});
