//! Disk files that somebody sends: passed on piece by piece, and never kept in memory.

use axum::body::{Body, Bytes};
use axum::extract::multipart::Field;
use http_body_util::BodyExt as _;
use service::incoming::{IncomingError, IncomingFile};
use service::{Error, Receiving};

/// Where a file comes from.
pub(crate) enum Source<'a> {
    /// It is all that is sent.
    Body(Body),
    /// It is a field of a form.
    Field(Box<Field<'a>>),
}

/// Passes on all that comes. Who is silent for too long, or goes away, has sent nothing.
///
/// # Errors
/// It can't be received, or has ended too early.
pub(crate) async fn receive(
    mut receiving: Receiving,
    mut source: Source<'_>,
) -> Result<IncomingFile, Error> {
    loop {
        let piece = tokio::time::timeout(Receiving::SILENCE_MAX, source.next()).await;
        match piece {
            Ok(Some(Ok(bytes))) => receiving = receiving.write(bytes).await?,
            Ok(None) => return receiving.finish().await,
            Ok(Some(Err(()))) | Err(_) => return Err(IncomingError::CutOff.into()),
        }
    }
}

impl Source<'_> {
    /// The next bytes; `Err`: it has ended too early.
    async fn next(&mut self) -> Option<Result<Bytes, ()>> {
        match self {
            Self::Field(field) => field.chunk().await.map_err(drop).transpose(),
            Self::Body(body) => loop {
                match body.frame().await?.map(|frame| frame.into_data()) {
                    Ok(Ok(bytes)) => return Some(Ok(bytes)),
                    // What follows a body, and is none of it, says nothing here.
                    Ok(Err(_)) => {}
                    Err(_) => return Some(Err(())),
                }
            },
        }
    }
}
