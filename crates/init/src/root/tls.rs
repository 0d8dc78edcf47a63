//! NBD over TLS: the handshake is ours, then the kernel encrypts on the socket (`tls` ULP), so that
//! its NBD driver needs to know nothing of it.

use crate::modules::Modules;
use initcfg::NBD_CA_PATH;
use nix::libc;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{TcpTlsRx, TcpTlsTx, TcpUlp, TlsCryptoInfo};
use rustls::client::Resumption;
use rustls::crypto::ring::{self, cipher_suite::TLS13_AES_128_GCM_SHA256};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, ConnectionTrafficSecrets, RootCertStore};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;

/// Modules of the ciphers; without them, or what they are called in another kernel, AES-GCM is slow or
/// missing. Once the root is lost nothing can be loaded any more, so that the keeper needs them now.
const CIPHERS: [&str; 5] = ["aesni_intel", "ghash_clmulni_intel", "ghash_generic", "ctr", "gcm"];

/// By whom the storage server must be certified.
#[derive(Clone)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
}

impl Tls {
    /// What this initrd says; `None` is that roots come without TLS.
    pub(crate) fn open() -> io::Result<Option<Self>> {
        let pem = match fs::read(NBD_CA_PATH) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        // What kernels have had for longest.
        let provider = rustls::crypto::CryptoProvider {
            cipher_suites: vec![TLS13_AES_128_GCM_SHA256],
            ..ring::default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.enable_secret_extraction = true;
        config.resumption = Resumption::disabled();
        Ok(Some(Self { config: Arc::new(config) }))
    }

    /// Loads the kernel's part.
    pub(crate) fn load_driver(modules: &Modules) -> io::Result<()> {
        for name in CIPHERS {
            let _ = modules.load(name, "");
        }
        modules.load("tls", "")
    }

    /// Does the handshake, and has the kernel encrypt and decrypt from there.
    ///
    /// # Errors
    /// In words for the person who waits.
    pub(crate) fn start(&self, stream: &mut TcpStream, server: Ipv4Addr) -> Result<(), String> {
        let no_tls = |error: rustls::Error| match error {
            rustls::Error::InvalidCertificate(why) => format!(
                "its certificate is of no use: {}. Is it for {server}, and is this machine's clock right?",
                rustls::Error::InvalidCertificate(why)
            ),
            other => format!("TLS failed: {other}"),
        };
        let mut session =
            ClientConnection::new(Arc::clone(&self.config), server.into()).map_err(no_tls)?;
        while session.is_handshaking() {
            session.complete_io(stream).map_err(|error| {
                match error.downcast::<rustls::Error>() {
                    Ok(error) => no_tls(error),
                    Err(error) => format!("TLS broke off: {error}"),
                }
            })?;
        }
        // The server sends no tickets, and nothing else before we do: no byte is left with us.
        let secrets = session.dangerous_extract_secrets().map_err(no_tls)?;
        let kernel = |error| format!("the kernel refuses the TLS session: {error}");
        setsockopt(stream, TcpUlp::default(), b"tls").map_err(kernel)?;
        setsockopt(stream, TcpTlsTx, &for_kernel(secrets.tx)?).map_err(kernel)?;
        setsockopt(stream, TcpTlsRx, &for_kernel(secrets.rx)?).map_err(kernel)
    }
}

/// Keys, and the number of the next record, as the kernel wants them.
fn for_kernel(
    (sequence, secrets): (u64, ConnectionTrafficSecrets),
) -> Result<TlsCryptoInfo, String> {
    let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
        return Err("the server chose another cipher".to_owned());
    };
    let wrong = |_| "a key of the wrong length".to_owned();
    let (salt, iv) = iv.as_ref().split_at(4);
    Ok(TlsCryptoInfo::Aes128Gcm(libc::tls12_crypto_info_aes_gcm_128 {
        info: libc::tls_crypto_info {
            version: libc::TLS_1_3_VERSION,
            cipher_type: libc::TLS_CIPHER_AES_GCM_128,
        },
        iv: iv.try_into().map_err(wrong)?,
        key: key.as_ref().try_into().map_err(wrong)?,
        salt: salt.try_into().map_err(wrong)?,
        rec_seq: sequence.to_be_bytes(),
    }))
}
