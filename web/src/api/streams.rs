//! Image versions that other servers send and fetch, in the JSON API.

use super::{Answer, Body};
use crate::front::Front;
use axum::body::Body as Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use http_body_util::BodyExt as _;
use http_body_util::channel::Channel;
use model::{ImageName, VersionNumber, VersionState};
use service::{Admin, Arrived, Error, Offer, ReceivingStream, SendingStream, Wanted};
use std::time::Duration;

/// Pieces that wait for who fetches.
const PIECES_MAX: usize = 4;

/// Of what somebody sends after he was refused, so long nothing is made but room for the answer: else the connection's end would take
/// that along.
const PASSED_OVER: Duration = Duration::from_secs(5);

pub(super) fn router() -> Router<Front> {
    Router::new()
        .route("/images/{image}/offer", post(offer))
        .route("/images/{image}/stream", put(receive))
        .route("/images/{image}/{version}/stream", get(send))
}

/// What is wanted of a version that somebody would send.
async fn offer(
    admin: Admin,
    path: Result<Path<ImageName>, PathRejection>,
    body: Body<Offer>,
) -> Answer<Json<Wanted>> {
    let (Path(image), Json(offer)) = (path?, body?);
    Ok(Json(admin.wanted(image, offer).await?))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct How {
    /// For whom it is.
    #[serde(default = "draft")]
    state: VersionState,
}

fn draft() -> VersionState {
    VersionState::Draft
}

/// Receives a version, which is the body.
async fn receive(
    admin: Admin,
    path: Result<Path<ImageName>, PathRejection>,
    query: Result<Query<How>, QueryRejection>,
    request: Request,
) -> Answer<(StatusCode, Json<Arrived>)> {
    let (Path(image), Query(How { state })) = (path?, query?);
    let receiving = admin.receive_stream(image, state)?;
    let mut body = request.into_body();
    let is_all = pass_on(&receiving, &mut body).await;
    if !is_all {
        tokio::spawn(async move {
            let _ = tokio::time::timeout(PASSED_OVER, async {
                while let Some(Ok(_)) = next(&mut body).await {}
            })
            .await;
        });
    }
    let arrived = receiving.finish().await?;
    let status = if arrived.is_known { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(arrived)))
}

/// Passes on all that comes. Who is silent for too long has gone.
async fn pass_on(receiving: &ReceivingStream, body: &mut Bytes) -> bool {
    loop {
        match tokio::time::timeout(ReceivingStream::SILENCE_MAX, next(body)).await {
            Ok(Some(Ok(bytes))) => {
                if !receiving.write(bytes).await {
                    return false;
                }
            }
            Ok(None) => {
                receiving.end().await;
                return true;
            }
            Ok(Some(Err(_))) | Err(_) => return true,
        }
    }
}

/// The next bytes; what follows a body, and is none of it, says nothing here.
async fn next(body: &mut Bytes) -> Option<Result<axum::body::Bytes, axum::Error>> {
    body.frame().await.map(|frame| frame.map(|it| it.into_data().unwrap_or_default()))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    /// Digest of a version that the other side has.
    from: Option<String>,
    #[serde(default)]
    at_bytes: u64,
}

/// Sends a version.
async fn send(
    admin: Admin,
    path: Result<Path<(ImageName, VersionNumber)>, PathRejection>,
    query: Result<Query<Part>, QueryRejection>,
) -> Answer<Response> {
    let (Path((image, VersionNumber(version))), Query(Part { from, at_bytes })) = (path?, query?);
    let mut sending = admin.send_stream(image, version, from, at_bytes).await?;
    // What can be told by a status is told by it.
    let first = sending.next().await.transpose()?;
    let (sender, body) = Channel::new(PIECES_MAX);
    tokio::spawn(take_along(sending, first, sender));
    Ok(([(CONTENT_TYPE, "application/zstd")], Bytes::new(body)).into_response())
}

/// Passes on all that goes. Who takes nothing for too long has gone.
async fn take_along(
    mut sending: SendingStream,
    first: Option<axum::body::Bytes>,
    mut sender: http_body_util::channel::Sender<axum::body::Bytes, Error>,
) {
    let mut next = first.map(Ok);
    while let Some(piece) = next {
        match piece {
            Ok(bytes) => {
                let sent = sender.send_data(bytes);
                match tokio::time::timeout(ReceivingStream::SILENCE_MAX, sent).await {
                    Ok(Ok(())) => {}
                    _ => return sender.abort(Error::Stopping),
                }
            }
            // The connection ends without the end of the body.
            Err(error) => return sender.abort(error),
        }
        next = sending.next().await;
    }
}
