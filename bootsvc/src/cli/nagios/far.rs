//! The same check from another host: over the pages' API, with a token that only reads.

use super::{Glance, Told, Verdict};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

/// Largest file with a token.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Longest answer: findings of a site with thousands of machines.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// What a server says that is no Bootlace, as far as it is shown.
const SAID_CHARS_MAX: usize = 100;

/// The pages of a Bootlace.
pub(super) struct Far {
    /// `https://boot1:8443`, as somebody typed it.
    pub(super) url: String,
    pub(super) token_file: PathBuf,
    /// The authority of its certificate; `None`: those that this host trusts.
    pub(super) ca: Option<PathBuf>,
    /// For all of it.
    pub(super) timeout: Duration,
}

/// Why the check does not know how the site is.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) verdict: Verdict,
    pub(super) text: String,
}

/// It can't be told.
fn unknown(text: impl Into<String>) -> Trouble {
    Trouble { verdict: Verdict::Unknown, text: text.into() }
}

/// Nobody serves there, so that no PC can boot.
fn down(text: impl Into<String>) -> Trouble {
    Trouble { verdict: Verdict::Critical, text: text.into() }
}

/// Where the pages are.
struct Place {
    /// As it stands in the request.
    authority: String,
    host: String,
    port: u16,
    is_tls: bool,
}

#[derive(Deserialize)]
struct Findings {
    findings: Vec<Told>,
}

impl Far {
    /// How the site is, as its pages say.
    pub(super) fn ask(&self) -> Result<(Glance, Vec<Told>), Trouble> {
        let place = Place::parse(&self.url)?;
        let token = token(&self.token_file)?;
        let tls = if place.is_tls { Some(client(self.ca.as_deref())?) } else { None };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| unknown(format!("no threads: {error}")))?;
        let asked = runtime.block_on(async {
            tokio::time::timeout(self.timeout, self.talk(&place, tls, token)).await
        });
        // Nobody waits for a name server that does not answer.
        runtime.shutdown_background();
        asked.unwrap_or_else(|_| {
            let seconds = self.timeout.as_secs();
            Err(down(format!(
                "{} has not answered within {seconds} s: it is overloaded or hangs, or a firewall drops what is sent to it",
                self.url
            )))
        })
    }

    async fn talk(
        &self,
        place: &Place,
        tls: Option<ClientConfig>,
        token: HeaderValue,
    ) -> Result<(Glance, Vec<Told>), Trouble> {
        let stream = connect(place).await?;
        let Some(tls) = tls else { return self.exchange(stream, place, &token).await };
        let name = ServerName::try_from(place.host.clone())
            .map_err(|_| unknown(format!("{} is no name of a host", place.host)))?;
        let connected = TlsConnector::from(Arc::new(tls)).connect(name, stream).await;
        let stream = connected.map_err(|error| self.no_tls(place, &error))?;
        self.exchange(stream, place, &token).await
    }

    /// Why there is no TLS with it.
    fn no_tls(&self, place: &Place, error: &std::io::Error) -> Trouble {
        let Place { authority, host, .. } = place;
        let cause = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        let Some(rustls::Error::InvalidCertificate(wrong)) = cause else {
            return unknown(match cause {
                Some(rustls::Error::InvalidMessage(_)) => {
                    format!("{authority} does not speak TLS: look at address and port")
                }
                _ => format!("no TLS with {authority}: {}", wire::error_chain(error)),
            });
        };
        unknown(match wrong {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!(
                    "the certificate of {authority} has expired, or the clock of this host is wrong"
                )
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => format!(
                "the certificate of {authority} is not good yet: the clock of one of both hosts is wrong"
            ),
            // With another authority of the same name, as one that was made anew, the signature is wrong.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => match &self.ca {
                None => format!(
                    "the certificate of {authority} is of an authority that this host does not know: copy \
                     /var/lib/bootlace/web/authority.pem from that server, and name it by --ca"
                ),
                Some(ca) => format!(
                    "the certificate of {authority} is not of the authority in {}: somebody else answers there, or it has \
                     another one now",
                    ca.display()
                ),
            },
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!(
                    "the certificate of {authority} is not for the name {host}: use one that it is for, or add {host} to names below [web] there"
                )
            }
            wrong => format!("the certificate of {authority} is not good: {wrong}"),
        })
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        place: &Place,
        token: &HeaderValue,
    ) -> Result<(Glance, Vec<Told>), Trouble> {
        let mut builder = http1::Builder::new();
        let shaken = builder.max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| self.no_answer(&error))?;
        let asked = async {
            let glance = self.get(&mut sender, place, token, "/api/v1/status").await?;
            let found: Findings = self.get(&mut sender, place, token, "/api/v1/findings").await?;
            Ok((glance, found.findings))
        };
        // The connection must be driven while something is asked; it ends with this function.
        let (mut asked, mut connection) = (std::pin::pin!(asked), std::pin::pin!(connection));
        tokio::select! {
            answer = &mut asked => answer,
            _ = &mut connection => asked.await,
        }
    }

    async fn get<T: DeserializeOwned>(
        &self,
        sender: &mut SendRequest<Empty<Bytes>>,
        place: &Place,
        token: &HeaderValue,
        path: &str,
    ) -> Result<T, Trouble> {
        let request = Request::get(path)
            .header(HOST, &place.authority)
            .header(AUTHORIZATION, token)
            .header(USER_AGENT, concat!("bootlace/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new());
        let request = request.map_err(|error| unknown(format!("{}: {error}", self.url)))?;
        let ready = sender.ready().await;
        ready.map_err(|error| self.no_answer(&error))?;
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|error| self.no_answer(&error))?;
        let (head, body) = answer.into_parts();
        if head.status != StatusCode::OK {
            return Err(self.refused(head.status, head.headers.get(LOCATION)));
        }
        let body =
            Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| {
                match error.is::<LengthLimitError>() {
                    true => self.something_else(&format!(
                        "it sends more than {} MiB",
                        ANSWER_BYTES_MAX >> 20
                    )),
                    false => down(format!(
                        "the answer of {} broke off: {}",
                        self.url,
                        wire::error_chain(error.as_ref())
                    )),
                }
            })?;
        serde_json::from_slice(&body.to_bytes())
            .map_err(|error| self.something_else(&error.to_string()))
    }

    fn refused(&self, status: StatusCode, location: Option<&HeaderValue>) -> Trouble {
        let Self { url, token_file, .. } = self;
        let file = token_file.display();
        unknown(match status {
            StatusCode::UNAUTHORIZED => format!(
                "{url} does not know the token in {file}: it was removed, has expired, or is another server's. On that server, \
                 bootlace token add nagios --scope read makes one"
            ),
            StatusCode::FORBIDDEN => format!("the token in {file} may not read at {url}"),
            StatusCode::MISDIRECTED_REQUEST => format!(
                "{url} does not go by this name: use another one, or add it to names below [web] in its bootlace.toml"
            ),
            status if status.is_redirection() => {
                let to = location.and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
                format!("{url} sends on to {}: give the address of the pages themselves", cut(to))
            }
            status if status.is_server_error() => {
                return down(format!("{url} answers {status}: look at the log of that server"));
            }
            status => return self.something_else(&format!("it answers {status}")),
        })
    }

    fn something_else(&self, why: &str) -> Trouble {
        unknown(format!(
            "what answers at {} is no Bootlace that this program understands ({}): look at address and port, and at the \
             versions of both",
            self.url,
            cut(why)
        ))
    }

    fn no_answer(&self, error: &hyper::Error) -> Trouble {
        let why = wire::error_chain(error);
        match error.is_parse() || error.is_parse_too_large() {
            true => self.something_else(&why),
            false => {
                down(format!("{} has closed the connection without an answer: {why}", self.url))
            }
        }
    }
}

impl Place {
    fn parse(url: &str) -> Result<Self, Trouble> {
        let wrong = |why: &str| {
            unknown(format!(
                "--url {}: {why}; give the address of the pages, like https://boot1:8443",
                cut(url)
            ))
        };
        let uri: Uri = url.parse().map_err(|_| wrong("this is no address"))?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("it begins neither with https:// nor with http://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("nobody logs in there by name and password"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("nothing may follow host and port"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let is_here = host == "localhost" || host.parse().is_ok_and(|it: IpAddr| it.is_loopback());
        if !is_tls && !is_here {
            return Err(wrong("without TLS everybody on the network could read the token"));
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { authority: authority.to_string(), host, port, is_tls })
    }
}

/// The first of the host's addresses that answers.
async fn connect(place: &Place) -> Result<TcpStream, Trouble> {
    let Place { host, port, authority, .. } = place;
    let found = lookup_host((host.as_str(), *port)).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(found) => found.collect(),
        Err(error) => {
            return Err(unknown(format!("the address of {host} can't be found: {error}")));
        }
    };
    let mut failed = unknown(format!("{host} has no address"));
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                let help = "no boot server runs there, or its pages are elsewhere";
                failed = down(format!("{authority} can't be connected to ({error}): {help}"));
            }
        }
    }
    Err(failed)
}

fn client(ca: Option<&Path>) -> Result<ClientConfig, Trouble> {
    let mut roots = RootCertStore::empty();
    match ca {
        None => {
            let known = rustls_native_certs::load_native_certs().certs;
            roots.add_parsable_certificates(known);
        }
        Some(ca) => {
            let read = CertificateDer::pem_file_iter(ca).and_then(Iterator::collect);
            let read: Vec<CertificateDer<'static>> = read.map_err(|error| {
                unknown(format!("{} can't be read as certificates: {error}", ca.display()))
            })?;
            if roots.add_parsable_certificates(read).0 == 0 {
                return Err(unknown(format!("there is no certificate in {}", ca.display())));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| unknown(format!("no TLS: {error}")))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The header that shows the token.
fn token(file: &Path) -> Result<HeaderValue, Trouble> {
    let shown = file.display();
    let mut text = String::new();
    let read = File::open(file).and_then(|it| it.take(TOKEN_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| {
        unknown(format!(
            "{shown} can't be read: {error}; it must be readable to the user that runs this check"
        ))
    })?;
    let line = text.lines().next().unwrap_or_default().trim();
    let is_token = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_graphic());
    let value = HeaderValue::from_str(&format!("Bearer {line}")).ok().filter(|_| is_token);
    let mut value =
        value.ok_or_else(|| unknown(format!("the first line of {shown} is no token")))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What others say, as far as it is shown.
fn cut(text: &str) -> String {
    let plain = text.chars().map(|it| if it.is_control() { ' ' } else { it });
    plain.take(SAID_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
