//! NBD over TLS: what goes wrong on the way to it.

use crate::lan::CLIENT_MAC;
use crate::server::{Server, spec};
use crate::succeed;
use model::{Claim, DiskKey, DiskName, Nonce, SECRET_SUFFIX};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::{Address, Durability, Share, ShareConfig, TlsConfig, Writes};
use tempfile::TempDir;

/// As `openssl x509 -req` makes it without extensions, and its key.
const X509_V1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBFTCBvQIUSvROkPfmTOkZITbCiMzztmPMtSswCgYIKoZIzj0EAwIwDTELMAkG
A1UEAwwCdjEwIBcNMjYxMTI4MTg0NzA1WhgPMjEyNjExMDQxODQ3MDVaMA0xCzAJ
BgNVBAMMAnYxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEOKJrDzb1EJ+P4KHB
FbqMHS+livY5rJrdxk8XU4snurYO6T5lfxfoQuJsHo3X9sjEvog9ExsZ0hdCvspC
FCSGAjAKBggqhkjOPQQDAgNHADBEAiBU/z5YyELoGmhleotSYuxTMyNy0KUNKT7Z
rxJf+8GOQgIgD2/NnY15kEQE74jR+hkx53jt4NWPqMHg084LrRWSrZw=
-----END CERTIFICATE-----
";
const X509_V1_KEY: &str = "\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEII/KDNaxJxfvd7FPcB30tcGivPei3QWyBmnHuXBymOivoAoGCCqGSM49
AwEHoUQDQgAEOKJrDzb1EJ+P4KHBFbqMHS+livY5rJrdxk8XU4snurYO6T5lfxfo
QuJsHo3X9sjEvog9ExsZ0hdCvspCFCSGAg==
-----END EC PRIVATE KEY-----
";

/// As `openssl ec -aes128` made it once; its content is none.
const OLD_ENCRYPTED_KEY: &str = "\
-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,1F8A23C1D1A0A7A2C0FFEE0123456789

5TbK8Vb8c2FtcGxl
-----END EC PRIVATE KEY-----
";

const ACK: &[u8] = &[0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0];

/// A certificate for `localhost` in `cert.pem`, its key in `key.pem`.
fn files(folder: &Path) -> TlsConfig {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    TlsConfig { certificate, key, client_ca: None, is_required: false }
}

fn config(folder: &Path, tls: TlsConfig) -> ShareConfig {
    let file = folder.join("disk");
    std::fs::write(&file, vec![0x11; 1 << 20]).unwrap();
    ShareConfig {
        file,
        name: "lab".into(),
        writes: Writes::Refuse,
        durability: Durability::Durable,
        nbd: vec![Address::Tcp("127.0.0.1:0".parse().unwrap())],
        nbd_sockets: vec![],
        tls: Some(tls),
        aoe: vec![],
        allow: vec![],
    }
}

fn start() -> (TempDir, Share) {
    let folder = tempfile::tempdir().unwrap();
    let tls = files(folder.path());
    let share = Share::start(config(folder.path(), tls)).unwrap();
    (folder, share)
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    [b"IHAVEOPT", &number.to_be_bytes()[..], &(data.len() as u32).to_be_bytes(), data].concat()
}

/// A client that has sent its flags and `options`.
fn connect(share: &Share, options: &[u8]) -> TcpStream {
    let uri = &share.addresses()[0];
    let address: SocketAddr =
        uri.trim_start_matches("nbd://").trim_end_matches("/lab").parse().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.read_exact(&mut [0; 18]).unwrap();
    stream.write_all(&[&[0, 0, 0, 3], options].concat()).unwrap();
    stream
}

/// A client whose STARTTLS was granted.
fn connect_to_tls(share: &Share) -> TcpStream {
    let mut stream = connect(share, &option(5, b""));
    let mut reply = [0; 20];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply[8..], ACK);
    stream
}

/// All that the server still sends before it closes.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut rest);
    rest
}

#[test]
fn what_is_sent_in_clear_text_behind_starttls_opens_nothing() {
    let (_folder, share) = start();
    let go = option(7, b"\0\0\0\x03lab\0\0");
    let mut together = connect(&share, &[option(5, b""), go.clone()].concat());
    assert_eq!(rest(&mut together), b"", "it must not even get an ACK");

    let mut later = connect_to_tls(&share);
    later.write_all(&go).unwrap();
    let said = rest(&mut later);
    assert!(said.len() <= 7, "a TLS alert, and nothing else: {said:?}");
}

#[test]
fn a_tls_handshake_has_ten_seconds_in_all() {
    let (_folder, share) = start();
    let began = Instant::now();
    let mut silent = connect_to_tls(&share);
    let mut slow = connect_to_tls(&share);
    let dripping = std::thread::spawn(move || {
        // A record of a ClientHello that never gets whole.
        let bytes = [&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 200]].concat();
        for byte in bytes {
            std::thread::sleep(Duration::from_millis(200));
            if slow.write_all(&[byte]).is_err() {
                return;
            }
        }
    });
    assert_eq!(rest(&mut silent), b"");
    dripping.join().unwrap();
    let took = began.elapsed();
    assert!((9..14).contains(&took.as_secs()), "{took:?}");
}

#[test]
fn the_end_does_not_wait_for_a_tls_handshake() {
    let (_folder, share) = start();
    let _silent = connect_to_tls(&share);
    let began = Instant::now();
    drop(share);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn files_that_are_of_no_use_are_named_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let good = files(folder.path());
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let other = files(&other);
    let text = folder.path().join("text");
    std::fs::write(&text, "no PEM").unwrap();
    let nowhere = folder.path().join("nowhere");
    let (first, first_key) = (folder.path().join("v1"), folder.path().join("v1-key"));
    std::fs::write(&first, X509_V1).unwrap();
    std::fs::write(&first_key, X509_V1_KEY).unwrap();
    let v1 = TlsConfig { certificate: first.clone(), key: first_key, ..good.clone() };
    let old = folder.path().join("old");
    std::fs::write(&old, OLD_ENCRYPTED_KEY).unwrap();
    for (tls, path, word) in [
        (v1, &first, "make one of version 3"),
        (TlsConfig { key: old.clone(), ..good.clone() }, &old, "openssl pkey"),
        (TlsConfig { certificate: nowhere.clone(), ..good.clone() }, &nowhere, "No such file"),
        (TlsConfig { certificate: text.clone(), ..good.clone() }, &text, "no certificate in PEM"),
        (TlsConfig { certificate: good.key.clone(), ..good.clone() }, &good.key, "no certificate"),
        (TlsConfig { key: text.clone(), ..good.clone() }, &text, "openssl pkey"),
        (TlsConfig { key: other.key.clone(), ..good.clone() }, &other.key, "not the key of"),
        (TlsConfig { client_ca: Some(text.clone()), ..good.clone() }, &text, "no certificate"),
    ] {
        let error = Share::start(config(folder.path(), tls)).err().unwrap().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains(word), "{error}");
    }
    assert!(good.check().is_ok());
    // Machines would look for an address in it, and trust another authority.
    let address = ["127.0.0.1".parse().unwrap()];
    let error = good.check_names(&good.certificate, &address).unwrap_err().to_string();
    assert!(error.contains("does not name 127.0.0.1"), "{error}");
    let error = good.check_names(&other.certificate, &address).unwrap_err().to_string();
    let refused = format!("not from the authority in {}", other.certificate.display());
    assert!(error.contains(&refused), "{error}");
}

#[test]
fn a_machine_s_disk_can_be_had_with_tls_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let tls = files(folder.path());
    std::fs::copy(&tls.certificate, folder.path().join("ca-cert.pem")).unwrap();
    let server = Server::start_with_tls(tls);
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let uri = server.uri("lab-01");
    succeed("nbdinfo", &[&uri]);
    let encrypted = uri.replace("nbd://127.0.0.1", "nbds://localhost");
    let encrypted = format!("{encrypted}?tls-certificates={}", folder.path().display());
    let info = succeed("nbdinfo", &[&encrypted]);
    assert!(info.contains("with TLS"), "{info}");
}

/// Reads an option's reply: its kind and data.
fn reply(stream: &mut (impl Read + ?Sized)) -> (u32, String) {
    let number = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let mut head = [0; 20];
    stream.read_exact(&mut head).unwrap();
    let mut data = vec![0; number(&head[16..]) as usize];
    stream.read_exact(&mut data).unwrap();
    (number(&head[12..]), String::from_utf8_lossy(&data).into_owned())
}

type Encrypted = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

fn named(name: &str) -> Vec<u8> {
    [&(name.len() as u32).to_be_bytes()[..], name.as_bytes(), &[0, 0]].concat()
}

/// The name by which boot 1 of lab-01 proves itself.
fn proven(key: &DiskKey, nonce: &Nonce, generation: u32) -> String {
    let proof = key.prove(nonce, "lab-01", 1, generation);
    let claim = Some(Claim { boot: 1, proof });
    DiskName { machine: "lab-01", generation, claim }.to_string()
}

/// Who trusts the server's certificate.
fn trusting(tls: &TlsConfig) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&tls.certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// Begins TLS after a question in clear text; also returns what the server answered to that.
fn encrypt(server: &Server, config: &Arc<rustls::ClientConfig>, name: &str) -> (String, Encrypted) {
    let mut stream = server.connect();
    stream.read_exact(&mut [0; 18]).unwrap();
    stream.write_all(&[&[0, 0, 0, 3], &option(6, &named(name))[..]].concat()).unwrap();
    let outside = reply(&mut stream).1;
    stream.write_all(&option(5, b"")).unwrap();
    assert_eq!(reply(&mut stream).0, 1, "STARTTLS is granted");
    let session =
        rustls::ClientConnection::new(Arc::clone(config), "localhost".try_into().unwrap()).unwrap();
    (outside, rustls::StreamOwned::new(session, stream))
}

/// Who asks for the disk with this key.
fn put(server: &Server, boot: u64, key: &DiskKey, more: &str) {
    let order = spec("lab-01", "nbd", "127.0.0.1", CLIENT_MAC, boot, "discard");
    let order = order.replacen('{', &format!("{{\"key\":\"{}\",{more}", key.to_hex()), 1);
    let made = server.ask("PUT", "/v1/exports/lab-01", &order);
    assert!(made.starts_with("HTTP/1.1 200"), "{made}");
}

/// What replaces the key that came over the plain network is told to who proves himself by that, and inside of TLS.
#[test]
fn a_key_is_exchanged_inside_of_tls_only() {
    let folder = tempfile::tempdir().unwrap();
    let tls = files(folder.path());
    let config = trusting(&tls);
    let server = Server::start_with_tls(tls);
    let (former, next) = (DiskKey::new([1; 32]), DiskKey::new([2; 32]));
    let exchange = format!(
        "\"exchange\":{{\"key\":\"{}\",\"text\":\"the machine's own\\n\"}},",
        next.to_hex()
    );
    put(&server, 1, &former, &exchange);
    let own = "the machine's own\n";
    let ask = |stream: &mut dyn ReadWrite, name: &str| {
        stream.write_all(&option(6, &named(name))).unwrap();
        reply(stream).1
    };
    // In clear text nobody is told, whatever he proves.
    let mut plain = server.connect();
    plain.read_exact(&mut [0; 18]).unwrap();
    plain.write_all(&[0, 0, 0, 3]).unwrap();
    let nonce = Nonce::of_challenge(&ask(&mut plain, "lab-01")).unwrap();
    let secret = |key: &DiskKey, nonce: &Nonce| proven(key, nonce, 1) + SECRET_SUFFIX;
    assert!(Nonce::of_challenge(&ask(&mut plain, &secret(&former, &nonce))).is_some());

    let (_, mut stream) = encrypt(&server, &config, "lab-01");
    let nonce = Nonce::of_challenge(&ask(&mut stream, "lab-01")).unwrap();
    let said = ask(&mut stream, &secret(&DiskKey::new([3; 32]), &nonce));
    assert!(Nonce::of_challenge(&said).is_some(), "{said}");
    assert_eq!(ask(&mut stream, &secret(&former, &nonce)), own);
    // Its answer may be lost: it is told again, after a restart of the server, too.
    assert_eq!(ask(&mut stream, &secret(&former, &nonce)), own);
    drop(stream);
    let server = server.restart();
    let (_, mut stream) = encrypt(&server, &config, "lab-01");
    let nonce = Nonce::of_challenge(&ask(&mut stream, "lab-01")).unwrap();
    assert_eq!(ask(&mut stream, &secret(&former, &nonce)), own);
    stream.write_all(&option(7, &named(&proven(&next, &nonce, 1)))).unwrap();
    assert_eq!(reply(&mut stream).0, 3, "the disk's size");

    // The former is void: it was heard on the wire.
    let (_, mut thief) = encrypt(&server, &config, "lab-01");
    let nonce = Nonce::of_challenge(&ask(&mut thief, "lab-01")).unwrap();
    assert!(Nonce::of_challenge(&ask(&mut thief, &secret(&former, &nonce))).is_some());
    thief.write_all(&option(7, &named(&proven(&former, &nonce, 9)))).unwrap();
    assert!(reply(&mut thief).1.contains("the disk is not given"));
    let kept = std::fs::read_to_string(server.folder().join("exports-keys.toml")).unwrap();
    assert!(!kept.contains(&former.to_hex()) && kept.contains(&next.to_hex()));
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// Somebody on the way has asked in clear text, for whatever he means to do with the answer.
#[test]
fn a_challenge_in_clear_text_is_void_inside_of_tls() {
    let folder = tempfile::tempdir().unwrap();
    let tls = files(folder.path());
    let config = trusting(&tls);
    let server = Server::start_with_tls(tls);
    let key = DiskKey::new([1; 32]);
    put(&server, 1, &key, "");
    let info = option(6, &named("lab-01"));
    let go = |nonce: &Nonce| option(7, &named(&proven(&key, nonce, 1)));
    let connect = || {
        let (outside, stream) = encrypt(&server, &config, "lab-01");
        (Nonce::of_challenge(&outside).unwrap(), stream)
    };
    let (outside, mut stream) = connect();
    stream.write_all(&go(&outside)).unwrap();
    let (kind, text) = reply(&mut stream);
    assert!(kind >> 31 == 1 && text.contains("the disk is not given"), "{text}");

    let (outside, mut stream) = connect();
    stream.write_all(&info).unwrap();
    let inside = Nonce::of_challenge(&reply(&mut stream).1).unwrap();
    assert_ne!(inside, outside);
    stream.write_all(&go(&inside)).unwrap();
    assert_eq!(reply(&mut stream).0, 3, "the disk's size");
}
