//! Alerts by HTTP.

use super::PATIENCE;
use super::text::Message;
use crate::config::WebhookConfig;
use crate::outbound::{Failed, connect, encrypt, secret, step};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Of the answer, bytes that are read.
const ANSWER_BYTES_MAX: usize = 4096;

pub(super) async fn send(config: &WebhookConfig, message: &Message) -> Result<(), Failed> {
    let host = config.url.host().unwrap_or_default();
    let bare = host.trim_matches(['[', ']']);
    let is_tls = config.url.scheme_str() == Some("https");
    let port = config.url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let path = config.url.path_and_query().map_or("/", |path| path.as_str());
    let authority = config.url.authority().map_or(host, |authority| authority.as_str());
    let mut request = Request::post(path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("bootlace/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = &config.token_file {
        request = request.header(AUTHORIZATION, format!("Bearer {}", secret(file)?));
    }
    let request = request.body(Full::new(Bytes::from(message.json.to_string())));
    let request = request.map_err(|error| {
        Failed::new("the request can't be made", error.to_string(), "Look at url and token.")
    })?;
    let stream = connect(bare, port, PATIENCE).await?;
    match is_tls {
        true => {
            let ca = config.ca.as_deref();
            exchange(encrypt(stream, bare, ca, PATIENCE).await?, request, host).await
        }
        false => exchange(stream, request, host).await,
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    host: &str,
) -> Result<(), Failed> {
    let what = format!("{host} does not answer as a web server does");
    let help = "Look whether address and port are those of the webhook.";
    step(PATIENCE, &what, async {
        let broken = |error: hyper::Error| Failed::new(&what, wire::error_chain(&error), help);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let answer = async {
            let answer = sender.send_request(request).await.map_err(broken)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_or_else(|_| Bytes::new(), |body| body.to_bytes());
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        let answer = answer.await;
        connection.abort();
        let (status, said) = answer?;
        match status.is_success() {
            true => Ok(()),
            false => Err(refused(host, status, &said)),
        }
    })
    .await
}

fn refused(host: &str, status: StatusCode, said: &str) -> Failed {
    let help = match status.as_u16() {
        401 | 403 => "Look at the token in token_file, or at the secret in the address.",
        404 | 410 => {
            "The address is not that of a webhook any more: take it from that server again."
        }
        300..=399 => "Give the address to which it sends you on.",
        429 | 500.. => "Wait: it is tried again; the log of that server may say more.",
        _ => "Look what that server expects: the book shows what is sent.",
    };
    Failed::new(format!("{host} refuses what is sent"), format!("{status} {said}"), help)
}
