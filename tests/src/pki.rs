//! Certificates for TLS, under the names that NBD clients look for in a folder.

use crate::lan::SERVER;
use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::fs;
use std::path::Path;

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, which nobody trusts yet.
    pub fn new(name: &str) -> Result<Self> {
        let mut about = CertificateParams::default();
        about.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        about.distinguished_name.push(rcgen::DnType::CommonName, name);
        Ok(Self { issuer: CertifiedIssuer::self_signed(about, KeyPair::generate()?)? })
    }

    /// Puts its own certificate into a folder, as `ca-cert.pem`.
    pub fn trust(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        Ok(fs::write(folder.join("ca-cert.pem"), self.issuer.pem())?)
    }

    /// Puts a new certificate, for this host and a LAN's server, and its key into a folder, as
    /// `WHO-cert.pem` and `WHO-key.pem`.
    pub fn issue(&self, folder: &Path, who: &str) -> Result<()> {
        self.issue_for(folder, who, &["localhost", "127.0.0.1", SERVER])
    }

    /// The same for these names and addresses.
    pub fn issue_for(&self, folder: &Path, who: &str, names: &[&str]) -> Result<()> {
        fs::create_dir_all(folder)?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?.signed_by(&key, &self.issuer)?;
        fs::write(folder.join(format!("{who}-cert.pem")), certificate.pem())?;
        Ok(fs::write(folder.join(format!("{who}-key.pem")), key.serialize_pem())?)
    }
}
