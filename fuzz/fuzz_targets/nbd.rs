//! An NBD client's handshake and first requests, in pieces of changing size.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut handshake = nbd::server::Handshake::new();
    let mut rest = bytes;
    loop {
        match handshake.step(&OneExport) {
            nbd::server::Step::Send(_) => {}
            nbd::server::Step::Receive => {
                let Some(first) = rest.first() else { return };
                let (piece, left) = rest.split_at(rest.len().min(1 + usize::from(*first)));
                handshake.on_bytes(piece);
                rest = left;
            }
            nbd::server::Step::Transmit { early, .. } => {
                let _ = nbd::Request::parse(&early);
                return;
            }
            nbd::server::Step::Close(_) => return,
        }
    }
});

struct OneExport;

impl nbd::server::Exports for OneExport {
    fn find(&self, name: &str) -> Result<nbd::server::ExportInfo, String> {
        if name != "x" {
            return Err("there is only x".to_owned());
        }
        let flags = nbd::TransmissionFlags(1);
        Ok(nbd::server::ExportInfo { size_bytes: 1 << 20, flags, description: String::new() })
    }

    fn names(&self) -> Vec<String> {
        vec!["x".to_owned()]
    }
}
