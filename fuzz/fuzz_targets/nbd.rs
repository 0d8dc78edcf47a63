//! An NBD client's handshake and first requests, in pieces of changing size, with and without TLS (what is
//! inside of it comes in clear text here); a server's handshake; the name of a machine's disk, and a challenge.
#![no_main]

use nbd::server::Tls;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for tls in [Tls::Off, Tls::Optional, Tls::Required] {
        serve(tls, bytes);
    }
    open(nbd::client::Handshake::new("x"), bytes);
    open(nbd::client::Handshake::with_tls("x"), bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        name(text);
    }
});

fn name(text: &str) {
    let _ = initcfg::Nonce::of_challenge(text);
    if let Some(name) = initcfg::DiskName::parse(text) {
        let again = name.to_string();
        assert_eq!(initcfg::DiskName::parse(&again), Some(name));
    }
}

fn serve(tls: Tls, bytes: &[u8]) {
    let mut handshake = nbd::server::Handshake::new(tls);
    let mut is_encrypted = false;
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
            nbd::server::Step::StartTls => {
                assert!(tls != Tls::Off && !is_encrypted);
                is_encrypted = true;
                handshake.on_tls();
            }
            nbd::server::Step::Transmit { early, .. } => {
                assert!(is_encrypted || tls != Tls::Required);
                let _ = nbd::Request::parse(&early);
                return;
            }
            nbd::server::Step::Close(_) => return,
        }
    }
}

fn open(mut handshake: nbd::client::Handshake, mut rest: &[u8]) {
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
            Ok(nbd::client::Step::StartTls) => handshake.on_tls(),
            Ok(nbd::client::Step::Answered(_)) => handshake.open("y"),
            Ok(nbd::client::Step::Done(_)) | Err(_) => return,
        }
    }
}

struct OneExport;

impl nbd::server::Exports for OneExport {
    fn look(&self, name: &str) -> Result<nbd::server::ExportInfo, nbd::server::Refusal> {
        if name != "x" {
            return Err(nbd::server::Refusal::Unknown("there is only x".to_owned()));
        }
        let flags = nbd::TransmissionFlags(1);
        Ok(nbd::server::ExportInfo { size_bytes: 1 << 20, flags, description: String::new() })
    }

    fn open(
        &self,
        name: &str,
        _: nbd::server::Way,
    ) -> Result<nbd::server::ExportInfo, nbd::server::Refusal> {
        self.look(name)
    }

    fn names(&self) -> Vec<String> {
        vec!["x".to_owned()]
    }
}
