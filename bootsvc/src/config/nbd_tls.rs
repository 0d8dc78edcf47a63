//! TLS of NBD, as `bootlace.toml` has it.

use std::path::PathBuf;

/// `nbd_tls` in `[storage]`: files in PEM format.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(try_from = "NbdTlsText")]
pub(crate) struct NbdTls {
    /// The server's certificate, with those of intermediate authorities behind it. It is read again when the file
    /// changes.
    ///
    /// - Value: the path of a PEM file
    /// - Required
    /// - Example: `certificate = "/etc/bootlace/cert.pem"`
    pub(crate) certificate: PathBuf,
    /// The private key of the certificate. It is read again when the file changes.
    ///
    /// - Value: the path of a PEM file
    /// - Required
    /// - Example: `key = "/etc/bootlace/key.pem"`
    pub(crate) key: PathBuf,
    /// The authorities of which a client that uses TLS must show a certificate. Machines have no certificates, so
    /// this and `machine_ca` exclude each other.
    ///
    /// - Value: the path of a PEM file
    /// - Default: none; clients need no certificate
    /// - Example: `client_ca = "/etc/bootlace/office.pem"`
    pub(crate) client_ca: Option<PathBuf>,
    /// The authority of `certificate`. With it machines attach their NBD roots over TLS, and know the server by it;
    /// the certificate must name the server's IP addresses. A change needs a restart of both servers.
    ///
    /// - Value: the path of a PEM file
    /// - Default: none; machines attach their roots without TLS
    /// - Example: `machine_ca = "/etc/bootlace/ca.pem"`
    pub(crate) machine_ca: Option<PathBuf>,
    /// Whether clients without TLS are refused. Machines would be refused too, so it needs `machine_ca`.
    ///
    /// - Value: `true` or `false`
    /// - Default: `require = false`
    /// - Example: `require = true`
    pub(crate) require: bool,
}

/// As it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NbdTlsText {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    machine_ca: Option<PathBuf>,
    #[serde(default)]
    require: bool,
}

impl TryFrom<NbdTlsText> for NbdTls {
    type Error = &'static str;

    fn try_from(text: NbdTlsText) -> Result<Self, Self::Error> {
        let NbdTlsText { certificate, key, client_ca, machine_ca, require } = text;
        match &machine_ca {
            None if require => {
                Err("with `require` machines would not start, unless they use TLS, too: give \
                 `machine_ca`, or leave `require` out")
            }
            Some(_) if client_ca.is_some() => Err(
                "machines have no certificates of their own: leave out `client_ca` or `machine_ca`",
            ),
            _ => Ok(Self { certificate, key, client_ca, machine_ca, require }),
        }
    }
}

impl NbdTls {
    /// For the storage server.
    pub(crate) fn files(&self) -> storage::TlsConfig {
        storage::TlsConfig {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            client_ca: self.client_ca.clone(),
            is_required: self.require,
        }
    }
}
