//! A login to a target that answers anything.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut login = iscsi::Login::new(iscsi::Identity {
        initiator: "eui.0".to_owned(),
        target: "iqn.x".to_owned(),
        isid: [0x80, 0, 0, 0, 0, 0],
    });
    let mut rest = bytes;
    while let iscsi::Step::Exchange(request, _) = login.step() {
        let _ = request.to_bytes();
        let Some((header, left)) = rest.split_at_checked(iscsi::HEADER_BYTES) else { return };
        let length = header.get(7).copied().map_or(0, usize::from).min(left.len());
        let (text, left) = left.split_at(length);
        rest = left;
        if login.on_response(header, text).is_err() {
            return;
        }
    }
});
