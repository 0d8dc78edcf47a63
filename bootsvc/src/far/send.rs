//! Sending a version there.

use super::{FarError, Place, SILENCE_MAX};
use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::channel::Channel;
use hyper::Method;
use images::{Progress, SendRequest, Sent, Stop, Store, StreamError};
use model::{ImageName, ImageVersion, VersionState};
use service::piped::Leaving;
use service::{Arrived, Offer, Wanted};
use std::io::{self, BufWriter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Bytes that go at once.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait to go.
const PIECES_MAX: usize = 8;

/// So often it is tried again without one byte more having come there.
const TRIES_MAX: u32 = 6;
/// Until it is tried again; it doubles each time.
const PAUSE: Duration = Duration::from_secs(1);

/// Until a version that was sent is on the disk there, and its initrd built.
const ANSWER_MAX: Duration = Duration::from_secs(900);

/// How often it is looked whether to stop.
const LOOKS: Duration = Duration::from_millis(200);

/// What became of a version that was sent.
#[derive(Debug)]
pub(crate) enum Delivered {
    /// It is there as this version.
    New(ImageVersion, Sent),
    /// It was there already, as this one.
    Known(u32),
}

/// Sends a version, as what differs from one that is there if there is any, and goes on when the connection breaks. `tell` hears how many
/// bytes of how many are done, and what happens, for people.
pub(crate) fn deliver(
    runtime: &Runtime,
    place: &Place,
    store: &Arc<Store>,
    (image, number): (&ImageName, u32),
    state: VersionState,
    stop: &Stop,
    tell: &mut dyn FnMut(Told<'_>),
) -> Result<Delivered, FarError> {
    let here = |error: images::StoreError| FarError::Here(error.into());
    let version = store.version(image, number).map_err(here)?;
    let versions = store.list().map_err(here)?;
    let mut others: Vec<_> =
        versions.into_iter().filter(|it| it.image == *image && it.version != number).collect();
    // What was there just before differs least.
    others.sort_by_key(|it| (it.version > number, it.version.abs_diff(number)));
    let offer = Offer {
        digest: version.digest.clone(),
        size_bytes: version.size_bytes,
        has: others.iter().map(|it| it.digest.clone()).collect(),
    };
    let (mut n_tries, mut reached) = (0, 0);
    loop {
        if stop.is_stopping() {
            return Err(FarError::Here(StreamError::Stopped.into()));
        }
        let tried = runtime.block_on(async {
            let wanted: Wanted =
                place.call(Method::POST, &format!("/api/v1/images/{image}/offer"), &offer).await?;
            if let Some(known) = wanted.known {
                return Ok(Delivered::Known(known));
            }
            if wanted.at_bytes > reached {
                (n_tries, reached) = (0, wanted.at_bytes);
            }
            let from = wanted.from.and_then(|digest| others.iter().find(|it| it.digest == digest));
            let request = SendRequest {
                image: image.clone(),
                version: number,
                from: from.map(|from| from.version),
                at_bytes: wanted.at_bytes,
            };
            let total = version.size_bytes;
            once(place, store, request, (state, total), stop, tell).await
        });
        match tried {
            Err(FarError::Away(failed)) if n_tries < TRIES_MAX => {
                let pause = PAUSE * 2_u32.pow(n_tries);
                n_tries += 1;
                let seconds = pause.as_secs();
                tell(Told::Line(&format!("{failed}; trying again in {seconds} s")));
                let end = std::time::Instant::now() + pause;
                while std::time::Instant::now() < end && !stop.is_stopping() {
                    std::thread::sleep(LOOKS);
                }
            }
            other => return other,
        }
    }
}

/// What a person is told.
pub(crate) enum Told<'a> {
    /// A line.
    Line(&'a str),
    /// How many bytes of how many.
    Bytes(u64, u64),
}

async fn once(
    place: &Place,
    store: &Arc<Store>,
    request: SendRequest,
    (state, total_bytes): (VersionState, u64),
    stop: &Stop,
    tell: &mut dyn FnMut(Told<'_>),
) -> Result<Delivered, FarError> {
    let path = format!("/api/v1/images/{}/stream?state={state}", request.image);
    let (leaving, mut pieces) = Leaving::new(PIECES_MAX);
    let done = Arc::new(AtomicU64::new(request.at_bytes));
    // What is sent no more is read no more.
    let broken = Stop::default();
    let work = tokio::task::spawn_blocking({
        let (store, done, broken) = (Arc::clone(store), Arc::clone(&done), broken.clone());
        move || {
            let out = BufWriter::with_capacity(PIECE_BYTES, leaving);
            store.send(&request, out, &broken, &mut |it: Progress| {
                done.store(it.done_bytes, Ordering::Relaxed);
            })
        }
    });
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(1);
    let pump = async {
        while let Some(bytes) = pieces.recv().await {
            match tokio::time::timeout(SILENCE_MAX, sender.send_data(bytes)).await {
                Ok(Ok(())) => {}
                // The answer says why.
                Ok(Err(_)) => return std::future::pending().await,
                Err(_) => return Err(place.silent()),
            }
        }
        let sent = work.await.context("sending died").map_err(FarError::Here)?;
        let sent = sent.map_err(|error| FarError::Here(error.into()))?;
        drop(sender);
        Ok(sent)
    };
    let asked = place.ask(Method::PUT, &path, ("application/zstd", body));
    let watch = async {
        loop {
            tokio::time::sleep(LOOKS).await;
            tell(Told::Bytes(done.load(Ordering::Relaxed), total_bytes));
            if stop.is_stopping() {
                return FarError::Here(StreamError::Stopped.into());
            }
        }
    };
    let mut sent = None;
    let answered = {
        let (mut pump, mut asked) = (std::pin::pin!(pump), std::pin::pin!(asked));
        let mut watch = std::pin::pin!(watch);
        let mut deadline = std::pin::pin!(tokio::time::sleep(ANSWER_MAX));
        loop {
            tokio::select! {
                answer = &mut asked => break answer,
                done = &mut pump, if sent.is_none() => match done {
                    Ok(all) => {
                        sent = Some(all);
                        deadline.as_mut().reset(tokio::time::Instant::now() + ANSWER_MAX);
                    }
                    Err(error) => break Err(error),
                },
                () = &mut deadline, if sent.is_some() => break Err(place.silent()),
                error = &mut watch => break Err(error),
            }
        }
    };
    broken.stop();
    let arrived: Arrived = place.read(answered?).await?;
    Ok(match arrived.is_known {
        true => Delivered::Known(arrived.version.version),
        false => Delivered::New(arrived.version, sent.unwrap_or_default()),
    })
}
