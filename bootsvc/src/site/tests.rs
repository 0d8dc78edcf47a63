//! Commands with a boot server, without one, and in between.

use super::*;
use crate::boot_socket::IMAGES;
use axum::routing::get;
use model::{FindingKind, Subject};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// A boot server, as far as commands see it. Ends when this is dropped.
pub(crate) struct Server {
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
    pub(crate) service: Option<Service>,
}

impl Server {
    pub(crate) fn start(paths: &Paths) -> Self {
        let lock = StateLock::try_take(paths, true).unwrap().expect("somebody has the state");
        let service = Service::open(Options { init: None, ..Options::under(&paths.root) }).unwrap();
        let router = boot_socket::router(service.clone(), paths.for_copies());
        let mut server = Self::answering(paths, router, Some(lock));
        server.service = Some(service);
        server
    }

    fn answering(paths: &Paths, router: Router, lock: Option<StateLock>) -> Self {
        let (stop, socket) = (CancellationToken::new(), paths.boot_socket());
        let (ready, is_ready) = mpsc::channel();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            runtime().unwrap().block_on(async {
                let listener = boot_socket::bind(&socket, None).unwrap();
                ready.send(()).unwrap();
                // Some of them never end by themselves.
                tokio::select! {
                    () = boot_socket::serve(listener, router, stopped.clone()) => {}
                    () = stopped.cancelled() => {}
                }
            });
            drop(lock);
        });
        is_ready.recv().unwrap();
        Self { stop, thread: Some(thread), service: None }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn site(paths: &Paths) -> anyhow::Result<Site> {
    Site::enter(paths, None)
}

fn place() -> (TempDir, Paths) {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::under(folder.path());
    (folder, paths)
}

fn add(site: &Site, name: &str, mac: &str) -> anyhow::Result<Value> {
    let change = serde_json::json!({ "mac": mac });
    site.send(Method::PATCH, &format!("/api/v1/machines/{name}"), &change)
}

const MAC: &str = "52:54:00:00:00:01";

#[test]
fn commands_see_what_is_only_in_the_memory_of_the_boot_server() {
    let (_folder, paths) = place();
    assert!(connect(&paths).unwrap().is_none(), "none runs");
    let server = Server::start(&paths);
    let service = server.service.as_ref().unwrap();
    service.found(FindingKind::ClockSet, &Subject::Server, "the clock was set");
    let mode = fs::metadata(paths.boot_socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let site = site(&paths).unwrap();
    assert!(site.has_server());
    let told: Value = site.get("/api/v1/findings").unwrap();
    let findings = told["findings"].as_array().unwrap();
    assert!(findings.iter().any(|finding| finding["kind"] == "clock-set"), "{told}");
    drop(server);
    assert!(connect(&paths).unwrap().is_none(), "a leftover is nobody");
    let _next = Server::start(&paths);
}

#[test]
fn who_is_off_on_the_page_is_off_on_the_command_line() {
    let (_folder, paths) = place();
    let server = Server::start(&paths);
    let service = server.service.clone().unwrap();
    let mac: wire::Mac = MAC.parse().unwrap();
    let on_page = runtime().unwrap().block_on(async {
        let change = service::MachineChange { mac: Some(mac), ..Default::default() };
        let root = service.admin(&service::Actor::command(0)).unwrap();
        root.set_machine("lab-01".parse().unwrap(), change).await.unwrap();
        let boot = service.boot_started(mac, wire::Firmware::Bios).await.unwrap();
        let up = service::NewStage::noticed(model::Stage::Up, "");
        service.stage(mac, Some(boot), up).await.unwrap();
        let heartbeat = initcfg::Heartbeat { boot, mac, is_last: true, ram_used_percent: None };
        service.heartbeat(heartbeat, None);
        service.machines()[0].state.word.to_string()
    });
    drop(service);
    let word = || {
        let machines: Value = site(&paths).unwrap().get("/api/v1/machines").unwrap();
        machines[0]["state"]["word"].as_str().unwrap().to_owned()
    };
    assert_eq!((on_page.as_str(), word().as_str()), ("off", "off"));
    drop(server);
    assert_eq!(word(), "up", "the disk shows no signs of life");
}

#[test]
fn both_ways_give_the_same_answers_and_the_same_errors() {
    let answers = |has_server: bool| {
        let (_folder, paths) = place();
        let server = has_server.then(|| Server::start(&paths));
        let site = site(&paths).unwrap();
        assert_eq!(site.has_server(), has_server);
        let said = |answer: anyhow::Result<Value>| match answer {
            Ok(value) => value.to_string(),
            Err(error) => {
                let status = error.downcast_ref::<Refused>().unwrap().status;
                format!("{status}: {error:#}")
            }
        };
        let all = [
            said(site.get("/api/v1/machines")),
            said(add(&site, "lab-01", MAC)),
            said(add(&site, "lab-02", MAC)),
            said(site.send(Method::PATCH, "/api/v1/machines/lab-03", &serde_json::json!({}))),
            said(site.get("/api/v1/machines/lab-03")),
            said(site.get("/api/v1/nothing")),
            said(site.send(Method::POST, "/api/v1/machines/lab-01/stall", &"resume")),
            said(site.get("/api/v1/initrds")),
            said(site.work(IMAGES, &serde_json::json!({ "image": "none", "version": 1 }))),
            said(site.send(Method::DELETE, "/api/v1/machines/lab-01", &())),
        ];
        drop((site, server));
        all.map(|text| text.replace(&paths.root.display().to_string(), "ROOT"))
    };
    let alone = answers(false);
    assert_eq!(alone, answers(true));
    assert!(alone[1].contains("lab-01"), "{alone:?}");
    assert!(alone[2].starts_with("409") && alone[2].contains("belongs to the machine lab-01"));
    assert!(alone[3].starts_with("404") && alone[3].contains("give the MAC"), "{alone:?}");
    assert!(alone[5].starts_with("501") && alone[8].starts_with("404"), "{alone:?}");
    assert_eq!(alone[9], "null");
}

#[test]
fn a_command_waits_for_another_one_and_for_a_server_that_starts() {
    let (_folder, paths) = place();
    let first = site(&paths).unwrap();
    let second = std::thread::spawn({
        let paths = paths.clone();
        move || add(&site(&paths).unwrap(), "lab-01", MAC).unwrap()
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(!second.is_finished(), "two have the state at once");
    drop(first);
    second.join().unwrap();

    // A server has the state before it answers.
    let lock = StateLock::try_take(&paths, true).unwrap().unwrap();
    let command = std::thread::spawn({
        let paths = paths.clone();
        move || site(&paths).unwrap().has_server()
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(!command.is_finished());
    let service = Service::open(Options { init: None, ..Options::under(&paths.root) }).unwrap();
    let router = boot_socket::router(service, paths.for_copies());
    let _server = Server::answering(&paths, router, Some(lock));
    assert!(command.join().unwrap(), "it has gone past the server");
}

#[test]
fn who_keeps_the_state_is_named_and_a_server_that_hangs_holds_nobody() {
    let (_folder, paths) = place();
    let lock = StateLock::try_take(&paths, false).unwrap().unwrap();
    let begun = Instant::now();
    let refused = site(&paths).err().unwrap().to_string();
    let who = format!("another bootlace command (process {})", std::process::id());
    assert!(refused.starts_with(&who), "{refused}");
    assert!(begun.elapsed() < 2 * crate::state_lock::WAIT_MAX);
    drop(lock);

    let hangs = Router::new().route("/api/v1/status", get(std::future::pending::<()>));
    let _server = Server::answering(&paths, hangs, None);
    let site = site(&paths).unwrap();
    let asked = site.ask::<Value>(Method::GET, "/api/v1/status", None, Duration::from_millis(50));
    let error = asked.unwrap_err().to_string();
    assert!(error.contains("has not answered within") && error.contains("restart it"), "{error}");
}

#[test]
fn a_server_of_another_version_is_named_where_it_matters() {
    let (_folder, paths) = place();
    let more = serde_json::json!([{ "name": "lab-01", "new-field": 1 }]);
    let newer = Router::new().route("/api/v1/machines", get(async || axum::Json(more))).layer(
        axum::middleware::map_response(async |mut response: axum::response::Response| {
            let version = axum::http::HeaderValue::from_static("9.9.9");
            response.headers_mut().insert(boot_socket::VERSION_HEADER, version);
            response
        }),
    );
    let server = Server::answering(&paths, newer, None);
    /// What this program knows of it.
    #[derive(serde::Deserialize)]
    struct Known {
        name: String,
    }
    let known: Vec<Known> = site(&paths).unwrap().get("/api/v1/machines").unwrap();
    assert_eq!(known[0].name, "lab-01");
    let error = site(&paths).unwrap().get::<Value>("/api/v1/initrds").unwrap_err().to_string();
    let words = "the running boot server is of version 9.9.9, and this command of version";
    assert!(error.starts_with(words) && error.ends_with("restart the boot server"), "{error}");
    drop(server);
    let older = Router::new();
    let _server = Server::answering(&paths, older, None);
    let error = site(&paths).unwrap().get::<Value>("/api/v1/initrds").unwrap_err().to_string();
    assert!(error.starts_with("the running boot server is an older one"), "{error}");
}

#[test]
fn what_is_asked_over_the_network_is_not_asked_by_a_local_admin() {
    let (_folder, paths) = place();
    let service = Service::open(Options { init: None, ..Options::under(&paths.root) }).unwrap();
    let router = TowerToHyperService::new(boot_socket::router(service, paths.for_copies()));
    let status = |peer: Option<Peer>| {
        let mut request = Request::get("/api/v1/status").body(Full::new(Bytes::new())).unwrap();
        if let Some(peer) = peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        let called = hyper::service::Service::call(&router, request);
        runtime().unwrap().block_on(called).unwrap().status()
    };
    assert_eq!(status(None), 403);
    assert_eq!(status(Some(Peer(None))), 403);
    assert_eq!(status(Some(Peer(Some(LocalAdmin { uid: 0 })))), 200);
}
