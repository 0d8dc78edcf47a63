//! A site as the boot server uses it, with a storage server that only takes notes.

mod boots;
mod bounds;
mod candidates;
mod descriptors;
mod initrds;
mod secrets;
mod state;
mod time;

use crate::initrds::{InitrdState, Recipe};
use crate::{Error, MachineChange, NewStage, Options, Service, Sighting, StateWord};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use model::{ExportOrder, Firmware, Lease, Network, RootKind, Stage, WriteMode};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::{Arc, Mutex};
use wire::Mac;

const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 101);

fn options(root: &Path) -> Options {
    let server = Ipv4Addr::new(10, 77, 0, 1);
    let network = Network {
        server,
        prefix: 24,
        router: None,
        dns: vec![],
        domain: None,
        mtu: None,
        vlan: None,
        nbd: vec![SocketAddrV4::new(server, 10809)],
        kernel_args: "".parse().unwrap(),
        own_dhcp: false,
        ram: Default::default(),
    };
    Options { init: None, network: Some(network), ..Options::under(root) }
}

fn add_image(root: &Path, name: &str, version: u32) {
    let folder = options(root).images.join(name).join(version.to_string());
    std::fs::create_dir_all(&folder).unwrap();
    let about = format!(
        "image = \"{name}\"\nversion = {version}\ndigest = \"00\"\nsize_bytes = 4096\n\
         file_system = \"ext4\"\nkernel_version = \"6.1.0\"\nimported_unix = 0\n"
    );
    std::fs::write(folder.join("image.toml"), about).unwrap();
}

/// Pretends that the initrds are built.
fn pretend_initrds(service: &Service) {
    for version in &service.site().images {
        let ready = InitrdState::Ready { path: "/dev/null".into(), size_bytes: 0 };
        let recipe = Recipe {
            image: version.image.clone(),
            version: version.version,
            roots: [RootKind::Nfs].into(),
            fit: None,
        };
        service.initrds().shelf().put(recipe, ready);
    }
}

/// Answers the storage API, and tells which exports were asked for since a disk was thrown away.
fn start_storage(root: &Path) -> Arc<Mutex<Vec<ExportOrder>>> {
    let socket = options(root).storage_socket;
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    let asked: Arc<Mutex<Vec<ExportOrder>>> = Arc::default();
    let notes = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let notes = Arc::clone(&notes);
            let answer = move |request: Request<hyper::body::Incoming>| {
                let notes = Arc::clone(&notes);
                async move {
                    let answer = |text: String| {
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
                    };
                    if request.method() == hyper::Method::DELETE {
                        notes.lock().unwrap().clear();
                    }
                    if request.uri().path().starts_with("/v1/disks/") {
                        return answer(kept_disk(&notes.lock().unwrap()));
                    }
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let Ok(order) = serde_json::from_slice::<ExportOrder>(&body) else {
                        return answer("[]".to_owned());
                    };
                    let spec = order.spec.clone();
                    notes.lock().unwrap().push(order);
                    let counters = model::ExportCounters::default();
                    let status = serde_json::json!({
                        "spec": spec, "size_bytes": 4096, "connections": 0, "idle_seconds": null,
                        "layer_bytes": 0, "counters": counters,
                    });
                    answer(status.to_string())
                }
            };
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer)),
            );
        }
    });
    asked
}

/// A persistent disk stays what it was when it was made.
fn kept_disk(asked: &[ExportOrder]) -> String {
    let mut specs = asked.iter().map(|order| &order.spec);
    let first = specs.find(|spec| spec.write_mode == WriteMode::Persistent);
    let disk =
        first.map(|spec| model::KeptDisk { image: spec.image.clone(), version: spec.version });
    serde_json::to_string(&disk).unwrap()
}

async fn lease(service: &Service, mac: Mac, address: Ipv4Addr) {
    let lease = Lease { mac, address, expires_unix: u64::MAX >> 1, host_name: None };
    service.commit_lease(lease).await.unwrap();
}

async fn reached(service: &Service, stage: Stage) {
    service.stage(MAC, None, NewStage::noticed(stage, "")).await.unwrap();
}

/// What the PC's screen shows while it waits; empty if it boots.
async fn screen(service: &Service) -> String {
    service.loader_config(ADDRESS).await.waiting.unwrap_or_default()
}
