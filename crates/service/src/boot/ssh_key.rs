//! SSH host keys in OpenSSH's formats.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

const KIND: &[u8] = b"ssh-ed25519";

/// Blocks of the cipher `none` (OpenSSH's `PROTOCOL.key`).
const BLOCK_BYTES: usize = 8;

/// The Ed25519 key of this seed: the private one as the one line that stands between the lines that begin and end an
/// OpenSSH private key file (`PROTOCOL.key`, without a passphrase), and the public one as a line of a `.pub` file
/// (RFC 8709 §4). Both end with the comment.
///
/// The two check words of the private key are those that `check` says; OpenSSH wants only that they are equal.
pub(super) fn ed25519(seed: &[u8; 32], check: u32, comment: &str) -> Option<(String, String)> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
    let public = pair.public_key().as_ref();
    let mut blob = Vec::new();
    put(&mut blob, KIND);
    put(&mut blob, public);

    let mut secret = [check.to_be_bytes(), check.to_be_bytes()].concat();
    put(&mut secret, KIND);
    put(&mut secret, public);
    put(&mut secret, &[seed, public].concat());
    put(&mut secret, comment.as_bytes());
    let padding = secret.len().next_multiple_of(BLOCK_BYTES) - secret.len();
    secret.extend((1..).take(padding));

    let mut private = b"openssh-key-v1\0".to_vec();
    // Cipher, key derivation and its options.
    for field in [&b"none"[..], b"none", b""] {
        put(&mut private, field);
    }
    private.extend(1u32.to_be_bytes());
    put(&mut private, &blob);
    put(&mut private, &secret);
    let public = format!("ssh-ed25519 {} {comment}", STANDARD.encode(blob));
    Some((STANDARD.encode(private), public))
}

/// A string of the SSH protocol (RFC 4251 §5).
fn put(bytes: &mut Vec<u8>, field: &[u8]) {
    let length = u32::try_from(field.len()).expect("fields are shorter than a page");
    bytes.extend(length.to_be_bytes());
    bytes.extend(field);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::process::Command;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a foreign program judges ours")]
    fn openssh_reads_the_key() {
        let (private, public) = ed25519(&[7; 32], 0x0102_0304, "lab-07").unwrap();
        let Ok(_) = Command::new("ssh-keygen").arg("-?").output() else {
            eprintln!("skipped: there is no ssh-keygen here");
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let framed = format!(
            "-----BEGIN OPENSSH PRIVATE KEY-----\n{private}\n-----END OPENSSH PRIVATE KEY-----\n"
        );
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path).unwrap();
        std::io::Write::write_all(&mut file, framed.as_bytes()).unwrap();
        // It derives the public key from the private one.
        let read = Command::new("ssh-keygen").args(["-y", "-f"]).arg(&path).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), public, "{read:?}");
        let signed = Command::new("ssh-keygen")
            .args(["-Y", "sign", "-n", "file", "-f"])
            .args([&path, &path])
            .output()
            .unwrap();
        assert!(signed.status.success(), "{signed:?}");
    }
}
