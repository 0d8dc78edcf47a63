//! TLS of the web page: whether there is any, and with which certificate.

mod authority;
mod names;

pub(crate) use authority::{Authority, PAGE_CERTIFICATE, fingerprint};
pub(crate) use names::names;

use crate::config::WebConfig;
use crate::paths::Paths;
use anyhow::{Context, bail};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use storage::TlsConfig;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether our own certificate has become old, or the server has another address.
const LOOK_INTERVAL: Duration = Duration::from_secs(3600);

/// How browsers are talked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WebTls {
    /// Plain HTTP, which only this host can hear.
    Off,
    /// By a certificate of our own authority, below this folder.
    Own(PathBuf),
    /// By these files.
    Files(TlsConfig),
}

impl WebTls {
    /// For pages on this address.
    ///
    /// # Errors
    /// The settings contradict each other, or everybody on the network could listen.
    pub(crate) fn of(web: &WebConfig, paths: &Paths, listen: SocketAddr) -> anyhow::Result<Self> {
        let is_loopback = listen.ip().to_canonical().is_loopback();
        match (&web.certificate, &web.key, web.tls) {
            (Some(_), Some(_), Some(false)) => {
                bail!("[web] has a certificate, and tls = false: leave out one of both")
            }
            (Some(certificate), Some(key), _) => Ok(Self::Files(TlsConfig {
                certificate: certificate.clone(),
                key: key.clone(),
                client_ca: None,
                is_required: true,
            })),
            (None, None, Some(false)) if !is_loopback => bail!(
                "the web page would send passwords over the network in plain text, as [web] has tls = false and listens on \
                 {listen}: leave out tls = false, or listen on 127.0.0.1"
            ),
            (None, None, tls) => Ok(match tls.unwrap_or(!is_loopback) {
                true => Self::Own(paths.state().join("web")),
                false => Self::Off,
            }),
            _ => {
                bail!("[web] has a certificate or a key, and needs both: give certificate and key")
            }
        }
    }

    /// The files in use; `None`: there is no TLS. Our own authority is made if there is none, and so is its certificate.
    ///
    /// # Errors
    /// The files can't be written.
    pub(crate) fn files(
        &self,
        web: &WebConfig,
        listen: SocketAddr,
    ) -> anyhow::Result<Option<TlsConfig>> {
        match self {
            Self::Off => Ok(None),
            Self::Files(files) => Ok(Some(files.clone())),
            Self::Own(folder) => {
                let authority = Authority::open_or_make(folder).with_context(|| {
                    format!("no certificate can be made in {}", folder.display())
                })?;
                authority.renew(&names(web, listen))?;
                tracing::info!(
                    authority = %authority.certificate().display(),
                    sha256 = authority.fingerprint(),
                    "the web page has a certificate of its own authority"
                );
                Ok(Some(authority.files()))
            }
        }
    }

    /// Keeps our own certificate fresh until `stop`.
    pub(crate) async fn keep(&self, web: &WebConfig, listen: SocketAddr, stop: CancellationToken) {
        let Self::Own(folder) = self else { return stop.cancelled().await };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            let (folder, names) = (folder.clone(), names(web, listen));
            let renewed = tokio::task::spawn_blocking(move || {
                Authority::open_or_make(&folder)?.renew(&names)
            });
            if let Ok(Err(error)) = renewed.await {
                tracing::error!("the web page's certificate can't be renewed: {error:#}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn only_who_is_on_this_host_hears_plain_text() {
        let paths = Paths::under(Path::new("/x"));
        let of = |listen: &str, web: WebConfig| WebTls::of(&web, &paths, listen.parse().unwrap());
        let plain = || WebConfig::default();
        let own = WebTls::Own("/x/var/lib/bootlace/web".into());
        for listen in ["127.0.0.1:8080", "[::1]:8080", "127.0.0.2:80", "[::ffff:127.0.0.1]:80"] {
            assert_eq!(of(listen, plain()).unwrap(), WebTls::Off, "{listen}");
        }
        for listen in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:443", "[2001:db8::1]:443"] {
            assert_eq!(of(listen, plain()).unwrap(), own, "{listen}");
            let off = WebConfig { tls: Some(false), ..plain() };
            assert!(of(listen, off).unwrap_err().to_string().contains("in plain text"), "{listen}");
        }
        let on = WebConfig { tls: Some(true), ..plain() };
        assert_eq!(of("127.0.0.1:8080", on).unwrap(), own);
        let half = WebConfig { key: Some("k.pem".into()), ..plain() };
        assert!(of("10.0.0.1:443", half).unwrap_err().to_string().contains("needs both"));
        let files =
            WebConfig { certificate: Some("c.pem".into()), key: Some("k.pem".into()), ..plain() };
        assert!(matches!(of("127.0.0.1:8080", files.clone()).unwrap(), WebTls::Files(_)));
        assert!(of("127.0.0.1:8080", WebConfig { tls: Some(false), ..files }).is_err());
    }
}
