//! Another Bootlace: image versions are sent there, and fetched from there, by its API.

mod connection;
mod fetch;
mod list;
mod send;

pub(crate) use fetch::fetch;
pub(crate) use list::{Listed, remove, versions};
pub(crate) use send::{Delivered, Told, deliver};

use crate::outbound::{Failed, authorities, secret};
use anyhow::{Context as _, bail};
use hyper::Uri;
use hyper::header::HeaderValue;
use rustls::pki_types::CertificateDer;
use std::path::PathBuf;
use std::time::Duration;

/// Who is silent for so long has gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Another Bootlace, as a person has named it.
#[derive(Clone, Debug)]
pub(crate) struct FarServer {
    /// `https://boot2:8443`.
    pub(crate) url: String,
    /// Its first line is the token of an administrator there.
    pub(crate) token_file: PathBuf,
    /// The authority of its certificate; `None`: those that this host trusts.
    pub(crate) ca: Option<PathBuf>,
}

/// The same, looked at.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// For people.
    pub(crate) url: String,
    authority: String,
    host: String,
    port: u16,
    is_tls: bool,
    token: HeaderValue,
    /// Beside those that this host trusts.
    authorities: Vec<CertificateDer<'static>>,
}

/// Why it did not come to an end.
#[derive(Debug)]
pub(crate) enum FarError {
    /// It does not answer, or not any more: perhaps it does later.
    Away(Failed),
    /// It does not want that, and says why.
    Refused(String),
    /// Something is wrong here.
    Here(anyhow::Error),
}

impl From<FarError> for anyhow::Error {
    fn from(error: FarError) -> Self {
        match error {
            FarError::Away(failed) => anyhow::anyhow!("{failed}. {}", failed.help),
            FarError::Refused(told) => anyhow::anyhow!(told),
            FarError::Here(error) => error,
        }
    }
}

impl FarServer {
    /// Looks at the address, and reads the token.
    pub(crate) fn place(&self) -> anyhow::Result<Place> {
        let url = self.url.trim_end_matches('/').to_owned();
        let wrong = || {
            format!("{url}: give the address of the other server's pages, like https://boot2:8443")
        };
        let uri: Uri = url.parse().with_context(wrong)?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!(wrong()),
        };
        let authority = uri.authority().with_context(wrong)?;
        if authority.as_str().contains('@')
            || !matches!(uri.path(), "" | "/")
            || uri.query().is_some()
        {
            bail!(wrong());
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let is_here =
            host == "localhost" || host.parse().is_ok_and(|it: std::net::IpAddr| it.is_loopback());
        if !is_tls && !is_here {
            bail!(
                "{url}: without TLS everybody on the network could read the token and the image: use https"
            );
        }
        let token =
            secret(&self.token_file).map_err(|error| anyhow::anyhow!("{error}. {}", error.help))?;
        let mut token = HeaderValue::from_str(&format!("Bearer {token}"))
            .with_context(|| format!("{} holds no token", self.token_file.display()))?;
        token.set_sensitive(true);
        // Read by who has named it, who may be root, and used by whoever reads images.
        let authorities = self.ca.as_deref().map(authorities).transpose();
        let authorities = authorities
            .map_err(|error| anyhow::anyhow!("{error}. {}", error.help))?
            .unwrap_or_default();
        Ok(Place {
            authority: authority.to_string(),
            port: authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            host,
            is_tls,
            token,
            authorities,
            url,
        })
    }
}
