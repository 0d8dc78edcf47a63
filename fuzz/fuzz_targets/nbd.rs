//! An NBD client's handshake and first requests, in pieces of changing size; a server's handshake.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    serve(bytes);
    open(bytes);
});

fn serve(bytes: &[u8]) {
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
}

fn open(mut rest: &[u8]) {
    let mut handshake = nbd::client::Handshake::new("x");
    loop {
        match handshake.step() {
            Ok(nbd::client::Step::Send(_)) => {}
            Ok(nbd::client::Step::Receive(bytes)) => {
                let Some((piece, left)) = rest.split_at_checked(bytes) else { return };
                if handshake.on_bytes(piece).is_err() {
                    return;
                }
                rest = left;
            }
            Ok(nbd::client::Step::Done(_)) | Err(_) => return,
        }
    }
}

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
