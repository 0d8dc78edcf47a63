//! Requests, each over a connection of its own.

use super::{FarError, Place, SILENCE_MAX};
use crate::outbound::{Failed, Patience, connect, encrypt_trusting};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Longest answer that is no image.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// For finding and connecting.
const PATIENCE: Patience = Patience::Each(Duration::from_secs(20));

/// What comes back, and the connection, which lives as long as this.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    connection: JoinHandle<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Place {
    /// Asks for something, and waits for the head of the answer, however long that takes.
    pub(super) async fn ask<B>(
        &self,
        method: Method,
        path: &str,
        (kind, body): (&str, B),
    ) -> Result<Answer, FarError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.authority)
            .header(AUTHORIZATION, &self.token)
            .header(CONTENT_TYPE, kind)
            .header(USER_AGENT, concat!("bootlace/", env!("CARGO_PKG_VERSION")))
            .body(body);
        let request = request.map_err(|error| FarError::Here(error.into()))?;
        let stream = connect(&self.host, self.port, PATIENCE).await.map_err(FarError::Away)?;
        let (mut sender, connection) = if self.is_tls {
            let stream =
                encrypt_trusting(stream, &self.host, self.authorities.clone(), PATIENCE).await;
            let stream = TokioIo::new(stream.map_err(|error| match () {
                // Nobody knows whether it is the right one: that does not pass by itself.
                () if error.to_string().contains("certificate") => FarError::Refused(format!(
                    "{error}. Copy /var/lib/bootlace/web/authority.pem from that server, and name it by --ca"
                )),
                () => FarError::Away(error),
            })?);
            let shaken = hyper::client::conn::http1::handshake(stream).await;
            let (sender, connection) = shaken.map_err(|error| self.broken(&error))?;
            (sender, tokio::spawn(async move { drop(connection.await) }))
        } else {
            let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
            let (sender, connection) = shaken.map_err(|error| self.broken(&error))?;
            (sender, tokio::spawn(async move { drop(connection.await) }))
        };
        match sender.send_request(request).await {
            Ok(response) => Ok(Answer { response, connection }),
            Err(error) => {
                connection.abort();
                Err(self.broken(&error))
            }
        }
    }

    /// The same of something small.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, FarError> {
        let body = serde_json::to_vec(body).map_err(|error| FarError::Here(error.into()))?;
        let asked = self.ask(method, path, ("application/json", Full::new(Bytes::from(body))));
        let answer =
            tokio::time::timeout(SILENCE_MAX, asked).await.map_err(|_| self.silent())??;
        self.read(answer).await
    }

    /// The same without anything.
    pub(super) async fn just<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
    ) -> Result<T, FarError> {
        let asked = self.ask(method, path, ("text/plain", Empty::<Bytes>::new()));
        let answer =
            tokio::time::timeout(SILENCE_MAX, asked).await.map_err(|_| self.silent())??;
        self.read(answer).await
    }

    /// The answer, if it is one of those that are hoped for.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        mut answer: Answer,
    ) -> Result<T, FarError> {
        let status = answer.response.status();
        let body = Limited::new(answer.response.body_mut(), ANSWER_BYTES_MAX).collect();
        let body = tokio::time::timeout(SILENCE_MAX, body).await.map_err(|_| self.silent())?;
        let body = body.map_err(|error| {
            let what = format!("the answer of {} broke off", self.url);
            FarError::Away(Failed::new(what, wire::error_chain(error.as_ref()), LOOK))
        })?;
        let body = body.to_bytes();
        if !status.is_success() {
            return Err(self.refused(status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| {
            FarError::Refused(format!(
                "what answers at {} is no Bootlace that this program understands ({error}): look at the address, and at the versions of \
                 both",
                self.url
            ))
        })
    }

    /// Why it does not want that.
    pub(super) fn refused(&self, status: StatusCode, body: &[u8]) -> FarError {
        #[derive(serde::Deserialize)]
        struct Problem {
            detail: String,
        }
        let url = &self.url;
        let told = serde_json::from_slice::<Problem>(body).map(|it| it.detail);
        let told = told.unwrap_or_else(|_| status.to_string());
        match status {
            StatusCode::UNAUTHORIZED => FarError::Refused(format!(
                "{url} does not know the token: it was removed, has expired, or is another server's. There, bootlace token add images \
                 --scope admin makes one"
            )),
            // It broke off, as it sees it; or it is busy, or ends.
            StatusCode::BAD_REQUEST | StatusCode::SERVICE_UNAVAILABLE => {
                FarError::Away(Failed::new(format!("{url} says"), told, LOOK))
            }
            _ => FarError::Refused(format!("{url} says: {told}")),
        }
    }

    pub(super) fn silent(&self) -> FarError {
        let seconds = SILENCE_MAX.as_secs();
        let why = format!("nothing came or went for {seconds} s");
        FarError::Away(Failed::new(format!("{} is silent", self.url), why, LOOK))
    }

    fn broken(&self, error: &hyper::Error) -> FarError {
        let what = format!("the connection to {} broke", self.url);
        FarError::Away(Failed::new(what, wire::error_chain(error), LOOK))
    }
}

/// What helps.
const LOOK: &str = "Look whether that server runs, and what its log says.";
