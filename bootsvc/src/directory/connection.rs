//! A connection to a directory: one request after the other.

use crate::config::LdapConfig;
use crate::outbound::{Failed, Patience, connect, encrypt, step};
use ldap::{Filter, MESSAGE_BYTES_MAX, Message, Outcome, Request, Response, SUCCESS, Scope};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What a directory may say in one connection.
const ANSWERS_BYTES_MAX: usize = 512 << 10;

/// As much is read at once.
const READ_BYTES: usize = 4096;

const HELP: &str = "Look whether url is the directory's, with the right port: mostly 636 for ldaps://, and 389 for ldap://.";

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An entry that was found.
pub(super) struct Entry {
    pub(super) dn: String,
    pub(super) attributes: Vec<(String, Vec<String>)>,
}

pub(super) struct Connection<S> {
    stream: S,
    /// How the directory is called.
    name: String,
    patience: Patience,
    id: u32,
    received: Vec<u8>,
    n_bytes_left: usize,
}

/// Opens a connection that is encrypted as the configuration says; notes each step that is done.
pub(super) async fn open(
    config: &LdapConfig,
    patience: Patience,
    done: &mut Vec<String>,
) -> Result<Connection<Box<dyn Stream>>, Failed> {
    let LdapConfig { url, starttls, ca, .. } = config;
    let mut stream = connect(&url.host, url.port, patience).await?;
    done.push(match stream.peer_addr() {
        Ok(address) => format!("connected to {address}"),
        Err(_) => format!("connected to {url}"),
    });
    if *starttls {
        let mut clear = Connection::new(stream, config, patience);
        clear.start_tls().await?;
        stream = clear.stream;
    }
    if !url.is_tls && !*starttls {
        return Ok(Connection::new(Box::new(stream), config, patience));
    }
    let stream = encrypt(stream, &url.host, ca.as_deref(), patience).await?;
    done.push(format!("encrypted, with a certificate for {}", url.host));
    Ok(Connection::new(Box::new(stream), config, patience))
}

impl<S: Stream> Connection<S> {
    fn new(stream: S, config: &LdapConfig, patience: Patience) -> Self {
        let name = config.url.to_string();
        Self {
            stream,
            name,
            patience,
            id: 0,
            received: Vec::new(),
            n_bytes_left: ANSWERS_BYTES_MAX,
        }
    }

    /// The directory agrees to begin TLS.
    async fn start_tls(&mut self) -> Result<(), Failed> {
        let what = format!("no TLS with {}", self.name);
        let help = "Set TLS up at the directory, or write an url that begins with ldaps://.";
        let outcome = match self.ask(&what, HELP, Request::StartTls).await?.pop() {
            Some(Response::Extended(outcome)) => outcome,
            other => return Err(strange(&what, other.as_ref())),
        };
        if outcome.code != SUCCESS {
            return Err(Failed::new(what, said(&outcome), help));
        }
        // Somebody between could have put it there.
        if !self.received.is_empty() {
            return Err(Failed::new(what, "it has said more in clear text", help));
        }
        Ok(())
    }

    /// Whether this is the password of this entry.
    pub(super) async fn bind(&mut self, dn: &str, password: &str) -> Result<Outcome, Failed> {
        // A directory would say yes to that (RFC 4513, 5.1.2), and whoever calls this has looked.
        assert!(!dn.is_empty() && !password.is_empty(), "nobody binds without name and password");
        let what = format!("{} does not tell whether the password is right", self.name);
        match self.ask(&what, HELP, Request::Bind { dn, password }).await?.pop() {
            Some(Response::Bind(outcome)) => Ok(outcome),
            other => Err(strange(&what, other.as_ref())),
        }
    }

    /// What is found, and how the search ended.
    pub(super) async fn search(
        &mut self,
        (base, scope): (&str, Scope),
        entries_max: u32,
        (filter, name): (&Filter, &str),
        attributes: &[&str],
    ) -> Result<(Vec<Entry>, Outcome), Failed> {
        let what = format!("{} does not answer a search", self.name);
        let seconds_max = u32::try_from(super::DEADLINE.as_secs()).unwrap_or(1);
        let request =
            Request::Search { base, scope, entries_max, seconds_max, filter, name, attributes };
        let mut responses = self.ask(&what, HELP, request).await?;
        let outcome = match responses.pop() {
            Some(Response::SearchDone(outcome)) => outcome,
            other => return Err(strange(&what, other.as_ref())),
        };
        let entry = |response| match response {
            Response::Entry { dn, attributes } => Some(Entry { dn, attributes }),
            _ => None,
        };
        Ok((responses.into_iter().filter_map(entry).collect(), outcome))
    }

    /// Says goodbye, if that can be said at once.
    pub(super) async fn close(mut self) {
        let bytes = Request::Unbind.to_bytes(self.id + 1);
        let _ = step(self.patience, "", async {
            let _ = self.stream.write_all(&bytes).await;
            let _ = self.stream.shutdown().await;
            Ok(())
        })
        .await;
    }

    /// All responses to a request, of which the last ends it.
    async fn ask(
        &mut self,
        what: &str,
        help: &str,
        request: Request<'_>,
    ) -> Result<Vec<Response>, Failed> {
        self.id += 1;
        let bytes = request.to_bytes(self.id);
        step(self.patience, what, async {
            let broken = |error: std::io::Error| Failed::new(what, error.to_string(), help);
            self.stream.write_all(&bytes).await.map_err(broken)?;
            self.stream.flush().await.map_err(broken)?;
            let mut responses = Vec::new();
            loop {
                let message = self.message(what, help).await?;
                match message.response {
                    Response::Extended(outcome) if message.id == 0 => {
                        let cause = format!("it ends the connection: {}", said(&outcome));
                        return Err(Failed::new(what, cause, help));
                    }
                    response if message.id == self.id => {
                        let is_last =
                            !matches!(response, Response::Entry { .. } | Response::Reference);
                        responses.push(response);
                        if is_last {
                            return Ok(responses);
                        }
                    }
                    other => return Err(strange(what, Some(&other))),
                }
            }
        })
        .await
    }

    async fn message(&mut self, what: &str, help: &str) -> Result<Message, Failed> {
        let no_ldap = |error: ldap::Malformed| {
            Failed::new(what, format!("it does not speak LDAP here: {error}"), help)
        };
        loop {
            let length = ldap::message_length(&self.received).map_err(no_ldap)?;
            if let Some(length) = length.filter(|length| *length <= self.received.len()) {
                let rest = self.received.split_off(length);
                let message = std::mem::replace(&mut self.received, rest);
                return Message::parse(&message).map_err(no_ldap);
            }
            let mut part = [0; READ_BYTES];
            let n_bytes = self.stream.read(&mut part).await;
            let n_bytes = n_bytes.map_err(|error| Failed::new(what, error.to_string(), help))?;
            self.n_bytes_left = self.n_bytes_left.saturating_sub(n_bytes);
            if n_bytes == 0 {
                return Err(Failed::new(what, "it closes the connection", help));
            }
            if self.n_bytes_left == 0 {
                return Err(Failed::new(what, "it says far too much", help));
            }
            self.received.extend_from_slice(&part[..n_bytes]);
        }
    }
}

const _: () = assert!(MESSAGE_BYTES_MAX < ANSWERS_BYTES_MAX, "one message can always be read");

/// What the directory says to a request that it does not carry out.
pub(super) fn said(outcome: &Outcome) -> String {
    match outcome.text.trim() {
        "" => format!("result code {}", outcome.code),
        text => format!("result code {}, {text}", outcome.code),
    }
}

fn strange(what: &str, response: Option<&Response>) -> Failed {
    let cause = match response {
        Some(
            Response::Bind(outcome) | Response::SearchDone(outcome) | Response::Extended(outcome),
        ) => {
            format!("it answers something else: {}", said(outcome))
        }
        _ => "it answers something else".to_owned(),
    };
    Failed::new(what, cause, HELP)
}
