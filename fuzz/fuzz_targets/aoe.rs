//! Frames that anybody on the LAN can send.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = aoe::Request::parse(bytes) {
        // What is understood is emitted and understood alike, up to names of the same command.
        let emitted = aoe::emit_request(&request);
        let again = aoe::Request::parse(&emitted).expect("what is emitted is well formed");
        assert_eq!(request.header, again.header);
        if let aoe::RequestBody::Mask(aoe::MaskRequest::Edit(directives)) = request.body {
            directives.iter().for_each(drop);
        }
    }
});
