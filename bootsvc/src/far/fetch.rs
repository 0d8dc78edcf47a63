//! Fetching a version from there.

use super::{FarError, Place, SILENCE_MAX};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::Method;
use images::{Progress, ReceiveRequest, Received, Stop, Store, StreamError};
use model::{ImageName, VersionState};
use service::piped::{Coming, tell_body};
use tokio::runtime::Runtime;

/// Pieces that wait to be taken.
const PIECES_MAX: usize = 16;

/// Fetches a version of an image into a store, as a draft.
pub(crate) fn fetch(
    runtime: &Runtime,
    place: &Place,
    store: &Store,
    (image, number): (&ImageName, u32),
    stop: &Stop,
    progress: &mut dyn FnMut(Progress),
) -> Result<Received, FarError> {
    let path = format!("/api/v1/images/{image}/{number}/stream");
    let (pieces, input) = Coming::new(PIECES_MAX);
    let from = place.clone();
    let task = runtime.spawn(async move {
        let asked = from.ask(Method::GET, &path, ("text/plain", Empty::<Bytes>::new()));
        let asked = tokio::time::timeout(SILENCE_MAX, asked).await;
        let mut answer = asked.map_err(|_| from.silent())??;
        if !answer.response.status().is_success() {
            return from.read::<serde_json::Value>(answer).await.map(|_| ());
        }
        tell_body(answer.response.body_mut(), &pieces, SILENCE_MAX).await;
        Ok(())
    });
    let request = ReceiveRequest { name: None, state: VersionState::Draft, keeps_partial: false };
    let received = store.receive(input, &request, stop, &mut |_| (), progress);
    let asked = runtime.block_on(task).map_err(|error| FarError::Here(error.into()))?;
    match received {
        Ok(received) => Ok(received),
        Err(StreamError::Read(_) | StreamError::Malformed(_)) if asked.is_err() => {
            Err(asked.err().unwrap_or_else(|| place.silent()))
        }
        Err(error) => Err(FarError::Here(error.into())),
    }
}
