//! Who is let in, and what each may do.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod routes;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use model::{FindingKind, Firmware, Right, Role};
use routes::{Needs, OPERATE, ROUTES};
use service::{AccountKeeper, Actor, Certificate, Clock, NewSession, Now, Options, Service};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tower::ServiceExt as _;
use web::{Browser, LocalAdmin};
use wire::Moment;

const PASSWORD: &str = "three blue doors";
const FAR: Browser =
    Browser { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7)), is_encrypted: true };
const NEAR: Browser = Browser { address: IpAddr::V4(Ipv4Addr::LOCALHOST), is_encrypted: false };
const MAC: &str = "52:54:00:00:00:01";

struct Site {
    router: Router,
    service: Service,
    _folder: tempfile::TempDir,
}

/// By what somebody shows who he is.
#[derive(Clone)]
enum Proof {
    Nothing,
    Cookie(String),
    Token(String),
    Command,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn location(&self) -> &str {
        self.headers.get(header::LOCATION).map_or("", |value| value.to_str().unwrap())
    }

    /// The secret and the attributes of the session's cookie.
    fn cookie(&self) -> (&str, &str) {
        let set = self.headers[header::SET_COOKIE].to_str().unwrap();
        set.split_once('=').unwrap().1.split_once(';').unwrap()
    }
}

impl Site {
    async fn new() -> Self {
        Self::with_clock(Clock::system()).await
    }

    async fn with_clock(clock: Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { init: None, clock, ..Options::under(folder.path()) };
        let service = Service::open(options).unwrap();
        let names = ["boot.example".to_owned()];
        let router = web::router(service.clone(), &names);
        let site = Self { router, service, _folder: folder };
        for (name, role) in [("anna", Role::Admin), ("tom", Role::Teacher), ("vera", Role::Viewer)]
        {
            let name = name.parse().unwrap();
            site.root().add_user(name, role, PASSWORD.to_owned()).await.unwrap();
        }
        site
    }

    fn root(&self) -> AccountKeeper {
        self.service.account_keeper(&Actor::command(0)).unwrap()
    }

    async fn log_in(&self, name: &str) -> NewSession {
        let from = Some(FAR.address);
        self.service.log_in(name, PASSWORD.to_owned(), from, "Firefox/1").await.unwrap()
    }

    async fn send(&self, browser: Browser, proof: &Proof, mut request: Request<Body>) -> Answer {
        match proof {
            Proof::Nothing => {}
            Proof::Cookie(secret) => {
                let name = if browser.is_encrypted { "__Host-session" } else { "session" };
                let cookie = format!("{name}={secret}").parse().unwrap();
                request.headers_mut().insert(header::COOKIE, cookie);
            }
            Proof::Token(secret) => {
                let value = format!("Bearer {secret}").parse().unwrap();
                request.headers_mut().insert(header::AUTHORIZATION, value);
            }
            Proof::Command => drop(request.extensions_mut().insert(LocalAdmin { uid: 0 })),
        }
        request.extensions_mut().insert(browser);
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: head.status, headers: head.headers, body }
    }

    async fn get(&self, proof: &Proof, path: &str) -> Answer {
        self.send(FAR, proof, Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, proof: &Proof, path: &str, form: &str) -> Answer {
        self.send(FAR, proof, form_request(path, form)).await
    }

    async fn add_machine(&self) {
        let mac = MAC.parse().unwrap();
        let change = service::MachineChange { mac: Some(mac), ..Default::default() };
        self.root().set_machine("lab-07".parse().unwrap(), change).await.unwrap();
        self.service.boot_started(mac, Firmware::UefiX64).await.unwrap();
    }
}

fn form_request(path: &str, form: &str) -> Request<Body> {
    Request::post(path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(form.to_owned()))
        .unwrap()
}

/// Routes as the sources name them.
fn routes_of(source: &str, prefix: &str) -> Vec<(String, String)> {
    let mut routes = Vec::new();
    for route in source.split(".route(").skip(1) {
        let mut quoted = route.split('"');
        let path = quoted.nth(1).unwrap();
        let handlers = route.split("\n        .").next().unwrap();
        let handlers = handlers.split("\n}").next().unwrap();
        for (word, method) in [
            ("get(", "GET"),
            ("post(", "POST"),
            ("put(", "PUT"),
            ("patch(", "PATCH"),
            ("delete(", "DELETE"),
        ] {
            let is_method = |(at, _): (usize, &str)| {
                let before = handlers[..at].chars().next_back();
                before.is_none_or(|letter| " .:(\n".contains(letter))
            };
            if handlers.match_indices(word).any(is_method) {
                routes.push((method.to_owned(), format!("{prefix}{path}")));
            }
        }
    }
    routes
}

#[test]
fn every_route_is_in_the_table() {
    let sources = [
        (include_str!("../src/lib.rs"), ""),
        (include_str!("../src/pages/machine/mod.rs"), "/machines/{name}"),
        (include_str!("../src/api.rs"), "/api/v1"),
        (include_str!("../src/pages/disks.rs"), ""),
        (include_str!("../src/api/disks.rs"), "/api/v1"),
        (include_str!("../src/pages/files.rs"), ""),
        (include_str!("../src/api/files.rs"), "/api/v1"),
        (include_str!("../src/api/captures.rs"), "/api/v1"),
        (include_str!("../src/api/edits.rs"), "/api/v1"),
        (include_str!("../src/api/images.rs"), "/api/v1"),
        (include_str!("../src/api/jobs.rs"), "/api/v1"),
        (include_str!("../src/api/leases.rs"), "/api/v1"),
        (include_str!("../src/api/rooms.rs"), "/api/v1"),
        (include_str!("../src/api/streams.rs"), "/api/v1"),
        (include_str!("../src/api/people.rs"), "/api/v1"),
        (include_str!("../src/api/snapshots.rs"), "/api/v1"),
    ];
    let found: BTreeSet<(String, String)> =
        sources.into_iter().flat_map(|(source, prefix)| routes_of(source, prefix)).collect();
    let known: BTreeSet<(String, String)> =
        ROUTES.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert!(found.len() > 70, "the sources are not understood any more");
    assert_eq!(found, known, "say in ROUTES what the new ones need");
}

#[tokio::test]
async fn each_route_does_for_each_what_he_may_and_no_more() {
    let site = Site::new().await;
    let mut everybody = vec![("nobody", Proof::Nothing, None, false)];
    for (name, right) in [("anna", Right::Admin), ("tom", Right::Operate), ("vera", Right::Read)] {
        everybody.push((name, Proof::Cookie(String::new()), Some(right), true));
        let token = site.root().add_token(name.to_owned(), right, None).await.unwrap();
        everybody.push(("a token", Proof::Token(token.secret), Some(right), false));
    }
    everybody.push(("a command", Proof::Command, Some(Right::Admin), false));
    let mut sessions = std::collections::BTreeMap::new();
    for &(method, pattern, needs) in ROUTES {
        let path = pattern
            .replace("{name}", "nothing")
            .replace("{mac}", "02:00:00:00:00:01")
            .replace("{id}", "999999")
            .replace("{number}", "999999")
            .replace("{page}", "nothing")
            .replace("{image}", "nothing")
            .replace("{number}", "999999")
            .replace("{version}", "999999");
        let path = path.strip_suffix('/').filter(|it| !it.is_empty()).unwrap_or(&path).to_owned();
        // It would be a wrong password, which makes others wait.
        if (method, pattern) == ("POST", "/login") {
            continue;
        }
        for (name, proof, right, has_account) in &everybody {
            let proof = match proof {
                // Logging out ends it.
                Proof::Cookie(_) => {
                    if !sessions.contains_key(name) {
                        sessions.insert(*name, site.log_in(name).await.secret);
                    }
                    Proof::Cookie(sessions[name].clone())
                }
                other => other.clone(),
            };
            let form = if path.starts_with("/api/") { "{}" } else { "" };
            let kind = match path.starts_with("/api/") {
                true => "application/json",
                false => "application/x-www-form-urlencoded",
            };
            let request = Request::builder()
                .method(method)
                .uri(&path)
                .header(header::CONTENT_TYPE, kind)
                .body(Body::from(form))
                .unwrap();
            let answer = site.send(FAR, &proof, request).await;
            let what = format!("{method} {path} by {name} ({right:?}): {}", answer.status);
            if path == "/logout" {
                sessions.clear();
            }
            let is_for_programs = path.starts_with("/api/") || path == "/metrics";
            let to_login = answer.location().starts_with("/login");
            let is_allowed = match needs {
                Needs::Nothing => continue,
                Needs::Right(needed) => right.is_some_and(|right| right >= needed),
                Needs::Keeper => *right == Some(Right::Admin) && *name != "a token",
                Needs::Account => *has_account,
            };
            match (is_allowed, right) {
                (true, _) if path == "/api/v1/login-links" && *name != "a command" => {
                    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}");
                }
                (true, _) => {
                    let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
                    assert!(!refused.contains(&answer.status) && !to_login, "{what}");
                    assert!(!answer.status.is_server_error() || path.contains("rescue"), "{what}");
                }
                (false, Some(_)) => assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}"),
                (false, None) if is_for_programs => {
                    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}");
                    assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
                }
                (false, None) => {
                    assert!(to_login && answer.status == StatusCode::SEE_OTHER, "{what}")
                }
            }
        }
    }
}

/// A machine in a room, whose system can be told to stop.
async fn running_machine(site: &Site, n: u8, room: Option<&str>) -> String {
    let (root, name) = (site.root(), format!("pc-{n}"));
    if let Some(room) = room {
        root.set_room(room.parse().unwrap(), service::RoomChange::default()).await.unwrap();
    }
    let mac = wire::Mac([2, 0, 0, 0, 0, n]);
    let room = Some(room.map(|room| room.parse().unwrap()));
    let change = service::MachineChange { mac: Some(mac), room, ..Default::default() };
    root.set_machine(name.parse().unwrap(), change).await.unwrap();
    let boot = site.service.boot_started(mac, Firmware::UefiX64).await.unwrap();
    let address = Ipv4Addr::new(10, 77, 0, n);
    let lease = model::Lease { mac, address, expires_unix: u64::MAX >> 1, host_name: None };
    site.service.commit_lease(lease).await.unwrap();
    let file = site.service.host_file(address, service::Link::Neighbour(mac), boot).await;
    let token = initcfg::HostConfig::parse(file.unwrap().unwrap().as_bytes()).unwrap().token;
    assert!(site.service.believes(mac, boot, b"alive", Some(token.tag(b"alive"))).await);
    let up = service::NewStage::noticed(model::Stage::Up, "");
    site.service.stage(mac, None, up).await.unwrap();
    name
}

#[tokio::test]
async fn each_route_that_works_with_machines_is_bound_to_the_rooms_of_a_teacher() {
    let noon = "2026-11-30T12:00:00Z".parse::<jiff::Timestamp>().unwrap().as_millisecond() as u64;
    let now = Now { unix_ms: noon, ..Clock::system().now() };
    let clock = Clock::from_fn(move || now).in_zone(jiff::tz::TimeZone::UTC);
    let site = Site::with_clock(clock).await;
    let his = running_machine(&site, 1, Some("r101")).await;
    let others = running_machine(&site, 2, Some("r102")).await;
    let of_nobody = running_machine(&site, 3, None).await;
    let tom = Proof::Cookie(site.log_in("tom").await.secret);
    let anna = Proof::Cookie(site.log_in("anna").await.secret);
    let form = "name=bert&role=teacher&password=five+red+boats&rooms=these&room=r101&hours=";
    assert_eq!(site.post(&anna, "/users", form).await.location(), "/users?done=added");
    let form = "name=bert&password=five+red+boats";
    let login = site.post(&Proof::Nothing, "/login", form).await;
    let bert = Proof::Cookie(login.cookie().0.to_owned());
    let token = site.post(&bert, "/account/tokens", "label=bell&scope=operate&days=1").await.body;
    let token = token.split("<code>bl_").nth(1).unwrap().split('<').next().unwrap().to_owned();
    let berts_token = Proof::Token(format!("bl_{token}"));
    let rooms = ["r101".parse().unwrap()].into_iter().collect();
    let token = site.root().add_token_for("x".into(), Right::Operate, rooms, None).await.unwrap();
    let bound_token = Proof::Token(token.secret);
    let bound = [("bert", &bert), ("his token", &berts_token), ("a token", &bound_token)];

    let operate: Vec<_> = ROUTES.iter().filter(|(_, _, needs)| *needs == OPERATE).collect();
    assert!(operate.len() >= 5);
    let ask = async |proof: &Proof, method: &str, pattern: &str, machine: &str| {
        let path = pattern.replace("{name}", machine);
        let is_api = path.starts_with("/api/");
        let kind = if is_api { "application/json" } else { "application/x-www-form-urlencoded" };
        let body = if is_api { r#"{"verb":"reboot"}"# } else { "" };
        let request = Request::builder().method(method).uri(&path);
        let request = request.header(header::CONTENT_TYPE, kind).body(Body::from(body)).unwrap();
        site.send(FAR, proof, request).await
    };
    for (who, proof) in bound {
        for (method, pattern, _) in &operate {
            let done = ask(proof, method, pattern, &his).await;
            let is_done = done.status.is_success() || done.status == StatusCode::SEE_OTHER;
            assert!(is_done, "{method} {pattern} by {who}: {} {}", done.status, done.body);
            for (machine, place) in [(&others, "in the room r102"), (&of_nobody, "in no room")] {
                let refused = ask(proof, method, pattern, machine).await;
                let what = format!("{method} {pattern} of {machine} by {who}: {}", refused.body);
                assert_eq!(refused.status, StatusCode::FORBIDDEN, "{what}");
                assert!(refused.body.contains(place) && refused.body.contains("in r101"), "{what}");
            }
            let unknown = ask(proof, method, pattern, "nothing").await;
            assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{method} {pattern} by {who}");
        }
    }
    // Nothing that was refused was asked of a machine.
    for machine in [&others, &of_nobody] {
        let view = site.get(&bert, &format!("/api/v1/machines/{machine}")).await;
        assert!(
            view.status == StatusCode::OK && view.body.contains(r#""power":null"#),
            "{}",
            view.body
        );
    }

    // Buttons are where they do something.
    for (proof, machine, has) in [
        (&bert, &his, true),
        (&bert, &others, false),
        (&bert, &of_nobody, false),
        (&tom, &others, true),
        (&anna, &others, true),
    ] {
        let page = site.get(proof, &format!("/machines/{machine}")).await.body;
        assert_eq!(page.contains("/reboot\""), has, "{machine}: {page}");
        assert_eq!(page.contains("/poweroff\""), has, "{machine}");
        assert_eq!(page.contains("it works with machines in r101"), !has, "{machine}");
    }
    let account = site.get(&bert, "/account").await.body;
    assert!(account.contains("It works with machines in r101."), "{account}");
    let me = site.get(&bert, "/api/v1/me").await.body;
    assert!(me.contains(r#""rooms":["r101"],"hours":null"#), "{me}");

    // Outside of his hours he looks at all of them.
    let hours = "what=reach&rooms=these&room=r101&hours=mon-fri+7:00-12:00";
    assert_eq!(site.post(&anna, "/users/bert", hours).await.location(), "/users?done=reach");
    for (method, pattern, _) in &operate {
        for (who, proof) in &bound[..2] {
            let refused = ask(proof, method, pattern, &his).await;
            let what = format!("{method} {pattern} by {who}: {}", refused.body);
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{what}");
            assert!(
                refused.body.contains("at mon 12:00") && refused.body.contains("7:00-12:00"),
                "{what}"
            );
        }
    }
    let page = site.get(&bert, &format!("/machines/{his}")).await;
    assert!(page.status == StatusCode::OK && !page.body.contains("/reboot\""), "{}", page.body);
}

#[tokio::test]
async fn rooms_and_hours_of_teachers_are_set_on_the_page_and_by_the_api() {
    let site = Site::new().await;
    let anna = Proof::Cookie(site.log_in("anna").await.secret);
    for room in ["r101", "r102"] {
        let change = service::RoomChange::default();
        site.root().set_room(room.parse().unwrap(), change).await.unwrap();
    }
    let page = site.get(&anna, "/users").await.body;
    assert_eq!(page.matches("what\" value=\"reach\"").count(), 1, "only tom is a teacher: {page}");
    let tom = || site.root().users().into_iter().find(|user| user.name.as_str() == "tom").unwrap();
    let set = async |form: &str| site.post(&anna, "/users/tom", form).await;
    set("what=reach&rooms=these&room=r101&room=r102&hours=sat+8:00-12:00").await;
    assert_eq!(tom().reach.rooms.to_string(), "r101, r102");
    for (form, words) in [
        ("what=reach&hours=", "all rooms"),
        ("what=reach&rooms=these&room=R+1&hours=", "name of a room"),
        ("what=reach&rooms=these&room=r999&hours=", "no room r999"),
        ("what=reach&rooms=all&hours=at+noon", "mon-fri 7:00-18:00"),
    ] {
        let refused = set(form).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{form}");
        assert!(refused.body.contains(words), "{form}: {}", refused.body);
    }
    let page = site.get(&anna, "/users").await.body;
    assert!(page.contains("value=\"r101\" checked") && page.contains("sat 8:00-12:00"), "{page}");
    set("what=reach&rooms=these&hours=").await;
    assert_eq!((tom().reach.rooms.to_string().as_str(), tom().reach.hours), ("no room", None));
    set("what=reach&rooms=all&hours=").await;
    assert_eq!(tom().reach, model::Reach::EVERYWHERE);
    // What was typed is not lost.
    let form = "name=bert&role=teacher&password=short&rooms=these&room=r102&hours=sun+1:00-2:00";
    let weak = site.post(&anna, "/users", form).await.body;
    assert!(weak.contains("value=\"r102\" checked") && weak.contains("sun 1:00-2:00"), "{weak}");

    let patch = async |body: &str| {
        let request =
            Request::patch("/api/v1/users/tom").header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Body::from(body.to_owned())).unwrap();
        site.send(FAR, &Proof::Command, request).await
    };
    assert_eq!(
        patch(r#"{"rooms":["r101"],"hours":"sat 8:00-9:00"}"#).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(patch(r#"{"hours":null}"#).await.status, StatusCode::NO_CONTENT);
    let users = site.get(&anna, "/api/v1/users").await.body;
    assert!(
        users.contains(r#""name":"tom","role":"teacher","rooms":["r101"],"hours":null"#),
        "{users}"
    );
    for (body, words) in [
        (r#"{"rooms":"r101"}"#, "a list of names of rooms"),
        (r#"{"rooms":null,"hours":"24/7"}"#, "can't be hours"),
        (r#"{"rooms":["r101","r999"]}"#, "no room r999"),
    ] {
        let refused = patch(body).await;
        assert!(
            refused.status.is_client_error() && refused.body.contains(words),
            "{}",
            refused.body
        );
    }
    assert_eq!(tom().reach.rooms.to_string(), "r101", "what was refused has changed nothing");
    let log = site.get(&anna, "/audit?about=tom").await.body;
    assert!(log.contains("user.reach") && log.contains("all rooms → r101"), "{log}");
}

#[tokio::test]
async fn somebody_logs_in_goes_on_where_he_wanted_to_and_logs_out() {
    let site = Site::new().await;
    let nobody = Proof::Nothing;
    let wanted = site.get(&nobody, "/machines?state=failed").await;
    assert_eq!(wanted.location(), "/login?next=/machines%3Fstate%3Dfailed");
    let form = site.get(&nobody, wanted.location()).await;
    assert!(form.body.contains("value=\"/machines?state=failed\""), "{}", form.body);
    let wrong = site.post(&nobody, "/login", "name=anna&password=wrong&next=/machines").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert!(wrong.body.contains("name or password is wrong") && !wrong.body.contains("wrong\""));
    let unknown = site.post(&nobody, "/login", "name=nobody&password=wrong&next=/machines").await;
    let same = |answer: &Answer, name: &str| answer.body.replace(&format!("\"{name}\""), "");
    assert_eq!(same(&wrong, "anna"), same(&unknown, "nobody"), "it tells who has an account");

    let form = format!("name=anna&password={}&next=/machines", PASSWORD.replace(' ', "+"));
    let done = site.post(&nobody, "/login", &form).await;
    assert_eq!((done.status, done.location()), (StatusCode::SEE_OTHER, "/machines"));
    let set = done.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(set.starts_with("__Host-session="), "{set}");
    for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
        assert!(done.cookie().1.split("; ").any(|it| it.trim() == attribute), "{attribute}: {set}");
    }
    assert!(!set.contains("Domain"), "{set}");
    let anna = Proof::Cookie(done.cookie().0.to_owned());
    let page = site.get(&anna, "/machines").await;
    assert!(page.status == StatusCode::OK && page.body.contains(">anna</a>"), "{}", page.body);
    assert!(page.body.contains("action=\"/logout\"") && !page.body.contains("<script"));
    let out = site.post(&anna, "/logout", "").await;
    assert_eq!(out.location(), "/login");
    assert!(out.headers[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(site.get(&anna, "/machines").await.status, StatusCode::SEE_OTHER, "it goes on");

    let evil = site.post(&nobody, "/login", &form.replace("/machines", "//evil.example")).await;
    assert_eq!(evil.location(), "/", "it leads elsewhere");
}

#[tokio::test]
async fn a_session_that_somebody_else_has_given_to_the_browser_is_not_taken() {
    let site = Site::new().await;
    let form = format!("name=vera&password={}", PASSWORD.replace(' ', "+"));
    let given = Proof::Cookie("chosen-by-somebody-else".to_owned());
    let done = site.post(&given, "/login", &form).await;
    assert_ne!(done.cookie().0, "chosen-by-somebody-else");
    assert_eq!(site.get(&given, "/").await.status, StatusCode::SEE_OTHER);
    let other = site.post(&given, "/login", &form).await;
    assert_ne!(done.cookie().0, other.cookie().0, "each login has its own");
    // A cookie that came in plain text is none over TLS, and the other way round.
    let plain = site.send(NEAR, &Proof::Nothing, form_request("/login", &form)).await;
    let set = plain.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(set.starts_with("session=") && !set.contains("Secure"), "{set}");
    let get = Request::get("/").header(header::COOKIE, format!("session={}", done.cookie().0));
    let answer = site.send(FAR, &Proof::Nothing, get.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn strangers_pages_can_neither_log_in_nor_read() {
    let site = Site::new().await;
    let anna = Proof::Cookie(site.log_in("anna").await.secret);
    for path in ["/login", "/logout", "/users", "/machines/lab-07/remove"] {
        let mut request = form_request(path, "");
        let headers = request.headers_mut();
        headers.insert(header::HOST, "10.0.0.1:8443".parse().unwrap());
        headers.insert(header::ORIGIN, "https://evil.example".parse().unwrap());
        let answer = site.send(FAR, &anna, request).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(site.get(&anna, "/").await.status, StatusCode::OK, "somebody was logged out");
    for (host, status) in [
        ("boot.example:8443", StatusCode::OK),
        ("10.0.0.1", StatusCode::OK),
        ("evil.example", StatusCode::MISDIRECTED_REQUEST),
        ("boot.example.evil.example", StatusCode::MISDIRECTED_REQUEST),
    ] {
        let request = Request::get("/").header(header::HOST, host).body(Body::empty()).unwrap();
        assert_eq!(site.send(FAR, &anna, request).await.status, status, "{host}");
    }
}

#[tokio::test]
async fn guessing_is_slowed_down_and_says_until_when() {
    let now = Clock::system().now();
    let site = Site::with_clock(Clock::from_fn(move || now)).await;
    for _ in 0..4 {
        let refused = site.post(&Proof::Nothing, "/login", "name=anna&password=wrong").await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    }
    let form = format!("name=anna&password={}", PASSWORD.replace(' ', "+"));
    let waits = site.post(&Proof::Nothing, "/login", &form).await;
    assert_eq!(waits.status, StatusCode::TOO_MANY_REQUESTS, "{}", waits.body);
    assert_eq!(waits.headers[header::RETRY_AFTER], "1");
    assert!(waits.headers.get(header::SET_COOKIE).is_none());
}

#[tokio::test]
async fn who_only_looks_sees_no_secret_and_no_button_that_he_may_not_press() {
    let site = Site::new().await;
    site.add_machine().await;
    let busybox = std::path::Path::new("/bin/busybox").exists();
    if !busybox {
        eprintln!("skipped: no busybox for a rescue shell");
        return;
    }
    let rescue = site.root().want_rescue(&"lab-07".parse().unwrap()).await.unwrap();
    let password = rescue.password.unwrap();
    for (name, sees) in [("anna", true), ("tom", false), ("vera", false)] {
        let proof = Proof::Cookie(site.log_in(name).await.secret);
        for path in [
            "/machines/lab-07?edit",
            "/api/v1/machines/lab-07",
            "/api/v1/machines",
            "/",
            "/machines",
        ] {
            let answer = site.get(&proof, path).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            let is_shown = answer.body.contains(&password);
            assert!(!is_shown || sees, "{name} reads a password at {path}");
        }
        let page = site.get(&proof, "/machines/lab-07?edit").await.body;
        assert_eq!(page.contains(&password), sees, "{name}");
        for action in
            ["Remove this machine", "action=\"/machines/lab-07\"", "/rescue/off", "/users"]
        {
            assert_eq!(page.contains(action), sees, "{name}: {action}");
        }
    }
}

#[tokio::test]
async fn an_account_is_managed_on_its_page() {
    let site = Site::new().await;
    let (here, there) = (site.log_in("vera").await, site.log_in("vera").await);
    let vera = Proof::Cookie(here.secret);
    let page = site.get(&vera, "/account").await;
    assert!(page.body.contains("this one") && page.body.contains("Firefox"), "{}", page.body);
    let service::Via::Session(id) = there.actor.via() else { panic!("{there:?}") };
    let end = format!("/account/sessions/{id}/end");
    assert_eq!(site.post(&vera, &end, "").await.location(), "/account?done=ended");
    let there = Proof::Cookie(there.secret);
    assert_eq!(site.get(&there, "/").await.status, StatusCode::SEE_OTHER, "it goes on");

    let more = site.post(&vera, "/account/tokens", "label=x&scope=admin&days=1").await;
    assert_eq!(more.status, StatusCode::FORBIDDEN, "{}", more.body);
    let made = site.post(&vera, "/account/tokens", "label=night&scope=read&days=1").await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let secret = made.body.split("<code>bl_").nth(1).unwrap().split('<').next().unwrap();
    let token = Proof::Token(format!("bl_{secret}"));
    assert_eq!(site.get(&token, "/api/v1/status").await.status, StatusCode::OK);
    assert!(!site.get(&vera, "/account").await.body.contains(secret), "it is shown again");
    let id = site.root().tokens()[0].id;
    site.post(&vera, &format!("/account/tokens/{id}/remove"), "").await;
    assert_eq!(site.get(&token, "/api/v1/status").await.status, StatusCode::UNAUTHORIZED);

    let form = format!("former={}&new=four+green+hats&again=", PASSWORD.replace(' ', "+"));
    let unequal = site.post(&vera, "/account/password", &format!("{form}other")).await;
    assert!(unequal.body.contains("must be the same"), "{}", unequal.body);
    let changed = site.post(&vera, "/account/password", &format!("{form}four+green+hats")).await;
    assert_eq!(changed.location(), "/account?done=password");
    let again = site.post(&Proof::Nothing, "/login", "name=vera&password=four+green+hats").await;
    assert_eq!(again.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn accounts_are_managed_and_what_was_done_is_in_the_log() {
    let site = Site::new().await;
    let anna = Proof::Cookie(site.log_in("anna").await.secret);
    let weak = site.post(&anna, "/users", "name=bert&role=teacher&password=short&rooms=all").await;
    assert!(weak.body.contains("at least 10 characters"), "{}", weak.body);
    assert!(weak.body.contains("value=\"bert\""), "what was typed is lost");
    let added = site
        .post(&anna, "/users", "name=bert&role=teacher&password=five+red+boats&rooms=all")
        .await;
    assert_eq!(added.location(), "/users?done=added");
    let lowered = site.post(&anna, "/users/anna", "what=role&role=viewer").await;
    assert!(lowered.body.contains("only administrator"), "{}", lowered.body);
    site.post(&anna, "/users/bert", "what=role&role=viewer").await;
    assert!(site.get(&anna, "/users/bert/remove").await.body.contains("Remove bert?"));
    site.post(&anna, "/users/bert", "what=remove").await;
    let log = site.get(&anna, "/audit?about=bert").await.body;
    for words in ["user.add", "user.role", "user.remove", "teacher → viewer", "anna"] {
        assert!(log.contains(words), "{words} is not in {log}");
    }
    assert!(!log.contains("five red boats"));
    let year = jiff::Zoned::now().strftime("<time>%Y-").to_string();
    assert!(log.contains(&year), "a phone shows no titles: {log}");
    let api = site.get(&anna, "/api/v1/audit?subject=bert&n=1").await.body;
    let api: serde_json::Value = serde_json::from_str(&api).unwrap();
    assert_eq!(api["entries"][0]["action"], "user.remove");
    assert!(api["before"].is_u64(), "{api}");
}

#[tokio::test]
async fn a_link_from_the_server_logs_a_browser_in_once() {
    let site = Site::new().await;
    let request = Request::post("/api/v1/login-links").body(Body::empty()).unwrap();
    let link = site.send(FAR, &Proof::Command, request).await;
    assert_eq!(link.status, StatusCode::CREATED, "{}", link.body);
    let link: serde_json::Value = serde_json::from_str(&link.body).unwrap();
    let path = link["path"].as_str().unwrap();
    let code = path.strip_prefix("/login?").unwrap();
    // Programs that show what is behind a link read it.
    for _ in 0..2 {
        let looked_at = site.get(&Proof::Nothing, path).await;
        assert_eq!(looked_at.status, StatusCode::OK);
        assert!(
            looked_at.body.contains("logs you in as root of this server, once"),
            "{}",
            looked_at.body
        );
    }
    let done = site.post(&Proof::Nothing, "/login", code).await;
    assert_eq!((done.status, done.location()), (StatusCode::SEE_OTHER, "/"));
    let root = Proof::Cookie(done.cookie().0.to_owned());
    let page = site.get(&root, "/users").await;
    assert!(page.status == StatusCode::OK && page.body.contains("<span>root</span>"));
    // Who only looks is told what this is, and what to do.
    let account = site.get(&root, "/account").await;
    assert_eq!(account.status, StatusCode::FORBIDDEN);
    assert!(account.body.contains("root has no account. Add one for yourself"), "{}", account.body);
    assert!(!account.body.contains("Nothing was changed"), "{}", account.body);
    let again = site.post(&Proof::Nothing, "/login", code).await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED);
    assert!(again.body.contains("has been used"), "{}", again.body);
}

#[tokio::test]
async fn figures_are_for_programs_on_the_server_and_for_those_with_a_token() {
    let site = Site::new().await;
    let get = || Request::get("/metrics").body(Body::empty()).unwrap();
    assert_eq!(site.send(NEAR, &Proof::Nothing, get()).await.status, StatusCode::OK);
    assert_eq!(site.send(FAR, &Proof::Nothing, get()).await.status, StatusCode::UNAUTHORIZED);
    for (name, value) in [
        ("x-forwarded-for", "10.0.0.9"),
        ("x-real-ip", "10.0.0.9"),
        ("forwarded", "for=10.0.0.9"),
        ("via", "1.1 proxy"),
        ("host", "boot.example"),
        ("host", "10.0.0.1:8080"),
    ] {
        let mut passed_on = get();
        passed_on.headers_mut().insert(name, value.parse().unwrap());
        let answer = site.send(NEAR, &Proof::Nothing, passed_on).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{name}: a proxy lets everybody in");
    }
    for host in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080"] {
        let mut here = get();
        here.headers_mut().insert(header::HOST, host.parse().unwrap());
        assert_eq!(site.send(NEAR, &Proof::Nothing, here).await.status, StatusCode::OK, "{host}");
    }
    let status = Request::get("/api/v1/status").body(Body::empty()).unwrap();
    let answer = site.send(NEAR, &Proof::Nothing, status).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "only the figures");
    let token = site.root().add_token("prometheus".into(), Right::Read, None).await.unwrap();
    let answer = site.send(FAR, &Proof::Token(token.secret), get()).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn a_proxy_that_passes_on_another_name_is_told_of() {
    let site = Site::new().await;
    let post = |host: &str| {
        Request::post("/login")
            .header(header::HOST, host)
            .header(header::ORIGIN, "https://boot.example")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(format!("name=anna&password={}", PASSWORD.replace(' ', "+"))))
            .unwrap()
    };
    let refused = site.send(NEAR, &Proof::Nothing, post("127.0.0.1:8080")).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    for word in ["https://boot.example", "127.0.0.1:8080", "Host header", "names"] {
        assert!(refused.body.contains(word), "{word}: {}", refused.body);
    }
    assert!(refused.headers.contains_key(header::CONTENT_SECURITY_POLICY));
    let passed = site.send(NEAR, &Proof::Nothing, post("boot.example")).await;
    assert_eq!(passed.status, StatusCode::SEE_OTHER, "{}", passed.body);
}

#[tokio::test]
async fn figures_say_when_certificates_expire_and_findings_that_they_have() {
    let site = Site::new().await;
    let cause = "Browsers refuse the page: the certificate /etc/web.pem has expired on 2026-11-27";
    let certificate = |file: &str, is_for_pages, trouble| Certificate {
        file: file.to_owned(),
        is_for_pages,
        ends_unix: Some(1_800_000_000),
        trouble,
    };
    site.service.note_certificates(vec![
        certificate("/etc/nbd \"1\".pem", false, None),
        certificate(
            "/etc/web.pem",
            true,
            Some((FindingKind::WebCertificateInvalid, cause.to_owned())),
        ),
    ]);
    let get = Request::get("/metrics").body(Body::empty()).unwrap();
    let text = site.send(NEAR, &Proof::Nothing, get).await.body;
    for line in [
        r#"bootlace_certificate_expiry_timestamp_seconds{for="web",file="/etc/web.pem"} 1800000000"#,
        r#"bootlace_certificate_expiry_timestamp_seconds{for="nbd",file="/etc/nbd \"1\".pem"} 1800000000"#,
        r#"bootlace_findings{kind="web-certificate-invalid",level="alarm"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let anna = Proof::Cookie(site.log_in("anna").await.secret);
    assert!(site.get(&anna, "/findings").await.body.contains(cause));
}

#[tokio::test]
async fn a_page_that_is_left_open_does_not_keep_its_session() {
    let hours = Arc::new(AtomicU64::new(0));
    let now = {
        let hours = Arc::clone(&hours);
        move || Now {
            moment: Moment::from_millis(0),
            unix_ms: (1_000_000 + hours.load(Ordering::Relaxed) * 3600) * 1000,
        }
    };
    let site = Site::with_clock(Clock::from_fn(now)).await;
    let anna = Proof::Cookie(site.log_in("anna").await.secret);
    let asks = async |path: &str, at_hours: u64| {
        hours.store(at_hours, Ordering::Relaxed);
        site.get(&anna, path).await.status
    };
    assert_eq!(asks("/machines?state=up&reload", 6).await, StatusCode::OK);
    assert_eq!(asks("/machines", 11).await, StatusCode::OK);
    // Nobody waits until that is stored; what is written after it does.
    site.root().set_role("vera".parse().unwrap(), Role::Teacher).await.unwrap();
    assert_eq!(asks("/?reload", 22).await, StatusCode::OK, "a person was here 11 hours ago");
    assert_ne!(asks("/", 24).await, StatusCode::OK);
    let page = site.get(&Proof::Command, "/machines?state=off").await.body;
    let again = page.split("http-equiv=\"refresh\"").nth(1).unwrap();
    let again = again.split('>').next().unwrap();
    assert!(again.contains("url=?state=off&") && again.contains("reload\""), "{again}");
}
