//! Alerts by SMTP.

use super::PATIENCE;
use super::text::Message;
use crate::config::{MailConfig, MailTls};
use crate::outbound::{Failed, HELP_TLS, authorities, connect, encrypt, secret, step};
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, AsyncTokioStream, Certificate, TlsParameters,
};
use lettre::transport::smtp::commands::{Data, Mail, Quit, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What a mail server may say in all, also as TLS: a hundred recipients take some thousand bytes.
const ANSWERS_BYTES_MAX: usize = 256 << 10;

/// How long it is waited for a farewell that changes nothing.
const FAREWELL: Duration = Duration::from_secs(2);

/// Sends it. Returns which recipients were refused, if others were not.
pub(super) async fn send(config: &MailConfig, message: &Message) -> Result<Vec<Failed>, Failed> {
    let mail = compose(config, message)?;
    let password = config.password_file.as_deref().map(secret).transpose()?;
    let mut connection = open(config).await?;
    if let (Some(user), Some(password)) = (&config.user, password) {
        let what = format!("{} refuses the login as {user}", config.host);
        let credentials = Credentials::new(user.clone(), password);
        let help = "Look at user and at the first line of password_file; some servers want a password for programs.";
        let mechanisms = [Mechanism::Plain, Mechanism::Login];
        step(PATIENCE, &what, async {
            let done = connection.auth(&mechanisms, &credentials).await;
            done.map_err(|error| failed(&what, &error, help))
        })
        .await?;
    }
    let what = format!("{} refuses the sender {}", config.host, config.from.email);
    let help = "Look at from: many servers take only addresses of their own, and only after a login (user and password_file).";
    command(&mut connection, &what, help, Mail::new(Some(config.from.email.clone()), vec![]))
        .await?;
    let mut refused = Vec::new();
    for to in &config.to {
        let what = format!("{} refuses the recipient {}", config.host, to.email);
        let help = "Look at to; for addresses elsewhere the server may want a login (user and password_file).";
        let rcpt = Rcpt::new(to.email.clone(), vec![]);
        if let Err(error) = command(&mut connection, &what, help, rcpt).await {
            refused.push(error.about(to.email.to_string()));
        }
    }
    if refused.len() == config.to.len() {
        farewell(&mut connection).await;
        return Err(refused.swap_remove(0));
    }
    let what = format!("{} refuses the message", config.host);
    let help =
        "Look into the log of the mail server: it may hold the message for unwanted advertising.";
    command(&mut connection, &what, help, Data).await?;
    step(PATIENCE, &what, async {
        connection.message(&mail).await.map_err(|error| failed(&what, &error, help))
    })
    .await?;
    farewell(&mut connection).await;
    Ok(refused)
}

/// A connection that is ready for commands, encrypted if it is to be.
async fn open(config: &MailConfig) -> Result<AsyncSmtpConnection, Failed> {
    let MailConfig { host, port, tls, ca, .. } = config;
    let stream = connect(host, *port, PATIENCE).await?;
    let hello = hello(&stream);
    let peer = stream.peer_addr().unwrap_or_else(|_| SocketAddr::from(([0; 4], *port)));
    let stream: Box<dyn AsyncTokioStream> = match tls {
        MailTls::Tls => {
            Box::new(Bounded::new(encrypt(stream, host, ca.as_deref(), PATIENCE).await?, peer))
        }
        MailTls::Starttls | MailTls::None => Box::new(Bounded::new(stream, peer)),
    };
    let what = format!("{host} does not answer as a mail server does on port {port}");
    let help = "Look whether host and port are those of the mail server, and tls as it wants it: mostly \"starttls\" for port \
                587, and \"tls\" for port 465.";
    let mut connection = step(PATIENCE, &what, async {
        let opened = AsyncSmtpConnection::connect_with_transport(stream, &hello).await;
        opened.map_err(|error| failed(&what, &error, help))
    })
    .await?;
    if *tls == MailTls::Starttls {
        let what = format!("no TLS with {host}");
        if !connection.can_starttls() {
            farewell(&mut connection).await;
            let help = "Write tls = \"tls\" and its port, mostly 465, if it has one; tls = \"none\" sends in clear text.";
            return Err(Failed::new(what, "it does not offer STARTTLS", help));
        }
        let parameters = parameters(config)?;
        step(PATIENCE, &what, async {
            let upgraded = connection.starttls(parameters, &hello).await;
            upgraded.map_err(|error| failed(&what, &error, HELP_TLS))
        })
        .await?;
    }
    Ok(connection)
}

fn parameters(config: &MailConfig) -> Result<TlsParameters, Failed> {
    let what = format!("no TLS with {}", config.host);
    let wrong = |error: Error| failed(&what, &error, HELP_TLS);
    let mut builder = TlsParameters::builder(config.host.clone());
    if let Some(ca) = &config.ca {
        for certificate in authorities(ca)? {
            let certificate = Certificate::from_der(certificate.to_vec()).map_err(wrong)?;
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build_rustls().map_err(wrong)
}

async fn command(
    connection: &mut AsyncSmtpConnection,
    what: &str,
    help: &str,
    command: impl std::fmt::Display,
) -> Result<(), Failed> {
    step(PATIENCE, what, async {
        let done = connection.command(command).await;
        done.map(drop).map_err(|error| failed(what, &error, help))
    })
    .await
}

async fn farewell(connection: &mut AsyncSmtpConnection) {
    let _ = tokio::time::timeout(FAREWELL, connection.command(Quit)).await;
}

fn failed(what: &str, error: &Error, help: &str) -> Failed {
    let said = wire::error_chain(error);
    let help = match error.is_transient() {
        true => "Wait: the server asks to try again later, which happens by itself.",
        false => help,
    };
    Failed::new(what, said, help)
}

/// How we introduce ourselves: RFC 5321 section 4.1.3 allows an address where there is no whole name.
fn hello(stream: &TcpStream) -> ClientId {
    match (super::text::host_name(), stream.local_addr().map(|address| address.ip())) {
        (name, _) if name.contains('.') => ClientId::Domain(name),
        (_, Ok(IpAddr::V4(address))) => ClientId::Ipv4(address),
        (_, Ok(IpAddr::V6(address))) => ClientId::Ipv6(address),
        (name, Err(_)) => ClientId::Domain(name),
    }
}

fn compose(config: &MailConfig, message: &Message) -> Result<Vec<u8>, Failed> {
    let mut builder = lettre::Message::builder()
        .from(config.from.clone())
        .subject(message.subject.clone())
        .header(ContentType::TEXT_PLAIN)
        .message_id(Some(message.id.clone()));
    for to in &config.to {
        builder = builder.to(to.clone());
    }
    let wrong =
        |cause: String| Failed::new("the message can't be made", cause, "Look at from and to.");
    let mut mail = builder.body(message.body.clone()).map_err(|error| wrong(error.to_string()))?;
    // RFC 3834: nobody's absence is to be told to us.
    let name = HeaderName::new_from_ascii_str("Auto-Submitted");
    mail.headers_mut().insert_raw(HeaderValue::new(name, "auto-generated".to_owned()));
    Ok(mail.formatted())
}

/// A connection on which a mail server says so much and no more: `lettre` keeps a line until it ends.
#[derive(Debug)]
struct Bounded<S> {
    stream: S,
    peer: SocketAddr,
    left: usize,
}

impl<S> Bounded<S> {
    fn new(stream: S, peer: SocketAddr) -> Self {
        Self { stream, peer, left: ANSWERS_BYTES_MAX }
    }
}

impl<S> AsyncTokioStream for Bounded<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Sync + std::fmt::Debug,
{
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let n_read = buffer.filled().len() - before;
        match self.left.checked_sub(n_read) {
            Some(left) => self.left = left,
            None => {
                return Poll::Ready(Err(io::Error::other(
                    "it says more than any mail server does",
                )));
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
