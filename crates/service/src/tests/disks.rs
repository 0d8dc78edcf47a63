//! A storage server that only takes notes.

use super::options;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use model::{Admit, BootId, DiskFound, DiskMeant, ExportOrder, KeptDisk, WriteMode};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Orders since a disk was thrown away.
pub(super) type Asked = Arc<Mutex<Vec<ExportOrder>>>;

/// Who has the disk.
#[derive(Clone, Copy, Default)]
pub(super) struct Holder {
    /// This boot; `None`: whoever asked last.
    pub(super) boot: Option<BootId>,
    /// It runs: nobody else gets the disk.
    pub(super) runs: bool,
}

/// Answers the storage API, and tells which exports were asked for since a disk was thrown away.
pub(super) fn start_storage(root: &Path) -> Asked {
    start_disks(root).0
}

/// The same for a test that says who has the disk.
pub(super) fn start_disks(root: &Path) -> (Asked, Arc<Mutex<Holder>>) {
    let socket = options(root).storage_socket;
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    let (asked, holder) = <(Asked, Arc<Mutex<Holder>>)>::default();
    let state = (Arc::clone(&asked), Arc::clone(&holder));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let state = state.clone();
            let answer = move |request| {
                let state = state.clone();
                async move { Ok::<_, Infallible>(answer(request, &state.0, &state.1).await) }
            };
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer)),
            );
        }
    });
    (asked, holder)
}

async fn answer(
    request: Request<Incoming>,
    asked: &Asked,
    holder: &Mutex<Holder>,
) -> Response<Full<Bytes>> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut asked = asked.lock().unwrap();
    let mut holder = holder.lock().unwrap();
    let held = |asked: &[ExportOrder], holder: &Holder| -> Option<Value> {
        let is_held = |order: &&ExportOrder| holder.boot.is_none_or(|boot| order.spec.boot == boot);
        let told = |order| {
            let mut status = status(order);
            status["is_silent"] = (!holder.runs).into();
            status
        };
        asked.iter().rfind(is_held).map(told)
    };
    let answer = match (method, path.rsplit('/').next()) {
        (Method::POST, Some("delete")) => {
            let meant: DiskMeant = serde_json::from_slice(&body).unwrap();
            let disk: Option<KeptDisk> =
                serde_json::from_value(kept_disk(&asked, &holder)).unwrap();
            let owner = asked.last().and_then(|order| order.owner.as_ref());
            let found = DiskFound { id: disk.as_ref().and_then(|disk| disk.id.as_deref()), owner };
            if disk.is_some() && !meant.is(found) {
                let mut refused = Response::new(Full::new(Bytes::from("it is another one")));
                *refused.status_mut() = StatusCode::PRECONDITION_FAILED;
                return refused;
            }
            asked.clear();
            Value::Null
        }
        (Method::GET, Some("disks")) => told(&asked, &holder),
        (Method::DELETE, _) => {
            asked.clear();
            Value::Null
        }
        (Method::POST, Some("admit")) => {
            let Admit { boot, .. } = serde_json::from_slice(&body).unwrap();
            if holder.runs && holder.boot != Some(boot) {
                let mut refused = Response::new(Full::new(Bytes::from("it runs")));
                *refused.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                return refused;
            }
            holder.boot = Some(boot);
            held(&asked, &holder).unwrap()
        }
        (Method::PUT, _) => {
            let order: ExportOrder = serde_json::from_slice(&body).unwrap();
            if order.reset && !asked.iter().any(|former| former.spec.boot == order.spec.boot) {
                asked.clear();
            }
            asked.push(order);
            status(asked.last().unwrap())
        }
        _ if path.starts_with("/v1/disks/") => kept_disk(&asked, &holder),
        (_, Some("exports")) => Value::Array(held(&asked, &holder).into_iter().collect()),
        _ => Value::Null,
    };
    Response::new(Full::new(Bytes::from(answer.to_string())))
}

fn status(order: &ExportOrder) -> Value {
    let counters = model::ExportCounters::default();
    json!({
        "spec": order.spec, "identity": order.identity, "size_bytes": 4096, "connections": 1, "idle_seconds": null,
        "layer_bytes": 0, "counters": counters,
    })
}

/// All disks that are kept.
fn told(asked: &[ExportOrder], holder: &Holder) -> Value {
    let disk = kept_disk(asked, holder);
    let last = asked.last().filter(|_| !disk.is_null());
    let report = last.map(|order| {
        json!({
            "machine": order.spec.disk, "stands_on": disk, "trouble": null, "owner": order.owner,
        })
    });
    Value::Array(report.into_iter().collect())
}

/// A persistent disk stays what it was when it was made. Which one it is isn't known while a boot has it that was asked for
/// before a reset which has not been done.
fn kept_disk(asked: &[ExportOrder], holder: &Holder) -> Value {
    let mut specs = asked.iter().map(|order| &order.spec);
    let is_known = holder.boot.is_none_or(|boot| specs.clone().any(|spec| spec.boot == boot));
    let first = specs.find(|spec| spec.write_mode == WriteMode::Persistent);
    let disk = first.map(|spec| KeptDisk {
        image: spec.image.clone(),
        version: spec.version,
        id: is_known.then(|| format!("of boot {}", spec.boot)),
    });
    serde_json::to_value(disk).unwrap()
}
