//! Certificates for NBD over TLS: read from PEM files, and again when they change.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, RootCertStore, ServerConfig};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// By what clients know this server, and what it wants of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The server's certificate, and those of intermediate authorities behind it.
    pub certificate: PathBuf,
    /// The private key of that certificate.
    pub key: PathBuf,
    /// Clients must show a certificate of one of these authorities; `None` lets in those without one.
    pub client_ca: Option<PathBuf>,
    /// Clients without TLS are refused.
    pub is_required: bool,
}

impl TlsConfig {
    /// Whether the files can be used.
    ///
    /// # Errors
    /// One can't be read, or is of no use.
    pub fn check(&self) -> Result<(), TlsError> {
        load(self).map(drop)
    }

    /// Whether clients that trust the authorities in a file take the server for each of the addresses.
    ///
    /// # Errors
    /// One of the files can't be read, or they don't.
    pub fn check_names(&self, authorities: &Path, addresses: &[IpAddr]) -> Result<(), TlsError> {
        let chain = certificates(&self.certificate)?;
        check_names(&chain, certificates(authorities)?, addresses).map_err(|error| {
            let why = format!("machines would refuse it: {}", plain(&error, authorities));
            TlsError { path: self.certificate.clone(), why }
        })
    }
}

/// Whether clients that trust these authorities take the server for each of the addresses.
///
/// # Errors
/// Clients don't; the text says why.
fn check_names(
    chain: &[CertificateDer<'_>],
    authorities: Vec<CertificateDer<'static>>,
    addresses: &[IpAddr],
) -> Result<(), (IpAddr, rustls::Error)> {
    let Some((certificate, intermediates)) = chain.split_first() else { return Ok(()) };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    addresses.iter().try_for_each(|&address| {
        let name = ServerName::from(address);
        let now = UnixTime::now();
        let verifier = verifier.as_ref().map_err(|error| rustls::Error::General(error.to_string()));
        verifier
            .and_then(|it| it.verify_server_cert(certificate, intermediates, &name, &[], now))
            .map(drop)
            .map_err(|error| (address, error))
    })
}

/// Why the certificate is refused by who asks for that address, in words.
fn plain((address, error): &(IpAddr, rustls::Error), authorities: &Path) -> String {
    let rustls::Error::InvalidCertificate(why) = error else { return error.to_string() };
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired: make a new one".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet: is this server's clock right".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("it does not name {address}: make one with subjectAltName=IP:{address}")
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!("it is not from the authority in {}", authorities.display())
        }
        _ => in_words(error),
    }
}

/// As people know it.
fn in_words(error: &rustls::Error) -> String {
    let told = error.to_string();
    // What it is exactly is known to the library behind the library only.
    if told.contains("UnsupportedCertVersion") {
        return "it is a certificate of X.509 version 1, which nobody takes any more: make one of version 3, which has \
                subjectAltName (openssl req -x509 -addext, or openssl x509 -req -extfile)"
            .to_owned();
    }
    told
}

/// Whether a key is encrypted in the format of old OpenSSL, whose first lines are no base64.
fn has_password(key: &Path) -> bool {
    fs::read_to_string(key).is_ok_and(|text| text.contains("Proc-Type: 4,ENCRYPTED"))
}

fn with_password(what: &str) -> String {
    format!("{what}, store it without: openssl pkey -in FILE -out NEW")
}

/// A certificate or key is of no use.
#[derive(Debug, thiserror::Error)]
#[error("can't use {path} for TLS: {why}")]
pub struct TlsError {
    path: PathBuf,
    why: String,
}

/// Certificates and keys in use.
pub struct Credentials {
    config: TlsConfig,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    stamps: Stamps,
    server: Arc<ServerConfig>,
}

/// What changes when somebody renews a file: its number, size, and time of change.
type Stamps = Vec<Option<(u64, u64, i64, i64)>>;

impl Credentials {
    /// Reads the files, if there is TLS at all.
    ///
    /// # Errors
    /// One can't be read, or is of no use.
    pub fn from(config: Option<TlsConfig>) -> Result<Option<Arc<Self>>, TlsError> {
        let Some(config) = config else { return Ok(None) };
        let stamps = stamps(&config);
        let server = Arc::new(load(&config)?);
        Ok(Some(Arc::new(Self { config, loaded: Mutex::new(Loaded { stamps, server }) })))
    }

    pub(crate) const fn is_required(&self) -> bool {
        self.config.is_required
    }

    /// What is in the files now; if that is of no use, what was in them before.
    pub fn current(&self) -> Arc<ServerConfig> {
        let stamps = stamps(&self.config);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.stamps != stamps {
            loaded.stamps = stamps;
            match load(&self.config) {
                Ok(server) => {
                    loaded.server = Arc::new(server);
                    tracing::info!("TLS certificates read again");
                }
                // Somebody may be about to replace the second file, too.
                Err(error) => tracing::warn!(%error, "the former TLS certificate stays in use"),
            }
        }
        Arc::clone(&loaded.server)
    }
}

fn stamps(config: &TlsConfig) -> Stamps {
    let files = [Some(&config.certificate), Some(&config.key), config.client_ca.as_ref()];
    let stamp = |path: &PathBuf| {
        let data = fs::metadata(path).ok()?;
        Some((data.ino(), data.size(), data.ctime(), data.ctime_nsec()))
    };
    files.into_iter().flatten().map(stamp).collect()
}

fn load(config: &TlsConfig) -> Result<ServerConfig, TlsError> {
    let refuse = |path: &Path, why: String| TlsError { path: path.to_owned(), why };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse(&config.certificate, error.to_string()))?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| refuse(path, in_words(&error)))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(
                verifier.map_err(|error| refuse(path, error.to_string()))?,
            )
        }
    };
    let chain = certificates(&config.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|error| {
        let why = match error {
            _ if has_password(&config.key) => with_password("it has a password"),
            pem::Error::NoItemsFound => {
                with_password("there is no private key in PEM format in it. If it has a password")
            }
            other => pem_text(&other),
        };
        refuse(&config.key, why)
    })?;
    let mut server = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => refuse(
            &config.key,
            format!("it is not the key of the certificate {}", config.certificate.display()),
        ),
        other => refuse(&config.certificate, in_words(&other)),
    })?;
    // Disks stay connected for days: there is nothing to resume. And a kernel that is handed a session
    // takes nothing but data.
    server.send_tls13_tickets = 0;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(server)
}

/// A file with certificates of authorities (PEM), as it is.
///
/// # Errors
/// The file can't be read, or there is no certificate in it.
pub fn read_authorities(path: &Path) -> Result<Vec<u8>, TlsError> {
    certificates(path)?;
    fs::read(path).map_err(|error| TlsError { path: path.to_owned(), why: error.to_string() })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let why = match read {
        Ok(certificates) if Vec::is_empty(&certificates) => {
            "there is no certificate in PEM format in it".to_owned()
        }
        Ok(certificates) => return Ok(certificates),
        Err(error) => pem_text(&error),
    };
    Err(TlsError { path: path.to_owned(), why })
}

fn pem_text(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        other => format!("it is not PEM: {other}"),
    }
}
