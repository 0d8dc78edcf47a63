//! What a person with a browser, and a script with the API, notice.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![expect(clippy::disallowed_methods, reason = "tests lay out the state of a site themselves")]

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use initcfg::Heartbeat;
use model::{FindingKind, Firmware, Stage};
use service::{NewStage, Options, Service, Sighting};
use std::path::Path;
use tower::ServiceExt as _;
use web::LocalAdmin;

/// As much of one as is looked at.
fn static_program() -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(64 + 56, 0);
    let machine: u8 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    for (offset, value) in [(16, 2), (18, machine), (32, 64), (54, 56), (56, 1), (64, 1)] {
        bytes[offset] = value;
    }
    bytes
}

struct Site {
    router: Router,
    service: Service,
    folder: tempfile::TempDir,
}

impl Site {
    /// A site with these images, each with one version.
    fn new(images: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let busybox = folder.path().join("busybox");
        std::fs::write(&busybox, static_program()).unwrap();
        let rescue_busybox = Some(busybox);
        let options = Options { init: None, rescue_busybox, ..Options::under(folder.path()) };
        for image in images {
            add_image(&options.images, image);
        }
        let service = Service::open(options).unwrap();
        Self { router: web::router(service.clone(), &[]), service, folder }
    }

    /// Sends it as a command of root.
    async fn send(&self, mut request: Request<Body>) -> (StatusCode, HeaderMap, String) {
        request.extensions_mut().insert(LocalAdmin { uid: 0 });
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let (status, _, body) = self.send(Request::get(path).body(Body::empty()).unwrap()).await;
        (status, body)
    }

    async fn post(&self, path: &str, form: &str) -> (StatusCode, String, String) {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form.to_owned()))
            .unwrap();
        let (status, headers, body) = self.send(request).await;
        let location = headers.get(header::LOCATION).map_or("", |value| value.to_str().unwrap());
        (status, location.to_owned(), body)
    }

    async fn json(&self, method: &str, path: &str, body: &str) -> (StatusCode, serde_json::Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        let (status, _, body) = self.send(request).await;
        (status, serde_json::from_str(&body).unwrap_or_default())
    }

    async fn unknown_pc_asks(&self, mac: &str) {
        self.unknown_pc_with_uuid_asks(mac, None).await;
    }

    async fn unknown_pc_with_uuid_asks(&self, mac: &str, uuid: Option<&str>) {
        let mac = mac.parse().unwrap();
        let sighting = Sighting {
            mac,
            firmware: Firmware::UefiX64,
            address: None,
            uuid: uuid.map(str::to_owned),
            host_name: None,
        };
        self.service.saw(sighting).await.unwrap();
        self.service.boot_started(mac, Firmware::UefiX64).await.unwrap();
    }
}

fn add_image(images: &Path, name: &str) {
    let folder = images.join(name).join("1");
    std::fs::create_dir_all(&folder).unwrap();
    let about = format!(
        "image = \"{name}\"\nversion = 1\ndigest = \"00\"\nsize_bytes = 4096\nfile_system = \"ext4\"\n\
         kernel_version = \"6.1.0\"\nimported_unix = 0\n"
    );
    std::fs::write(folder.join("image.toml"), about).unwrap();
}

const MAC: &str = "52:54:00:00:00:01";

#[tokio::test]
async fn an_unknown_pc_appears_is_adopted_and_gets_another_image() {
    let site = Site::new(&["debian-12", "kiosk"]);
    let (_, page) = site.get("/discovered").await;
    assert!(page.contains("No unknown PCs yet") && page.contains("http-equiv=\"refresh\""));

    site.unknown_pc_asks(MAC).await;
    let (_, page) = site.get("/discovered").await;
    assert!(page.contains(MAC) && page.contains("UEFI x64") && page.contains("value=\"pc-01\""));
    assert!(!page.contains("http-equiv=\"refresh\""), "a form must not be loaded away");

    let adopt = format!("/discovered/{MAC}/adopt");
    let (status, location, _) = site.post(&adopt, "name=lab-07&image=debian-12&root=aoe").await;
    assert_eq!(
        (status, location.as_str()),
        (StatusCode::SEE_OTHER, "/machines/lab-07?done=adopted")
    );
    let (status, page) = site.get(&location).await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("Adopted.") && page.contains("loading"), "{page}");
    assert!(
        page.contains(">Rescue shell at its next boot<"),
        "for who waits at the machine: {page}"
    );
    assert!(site.service.discovered().is_empty());

    let form = "image=kiosk&root=nbd&write_mode=persistent&kernel_args=quiet+splash";
    let (status, location, _) = site.post("/machines/lab-07", form).await;
    assert_eq!((status, location.as_str()), (StatusCode::SEE_OTHER, "/machines/lab-07?done=saved"));
    let (_, page) = site.get("/machines").await;
    assert!(page.contains("kiosk · v1"), "{page}");
    let machine = site.service.site().machines[0].clone();
    assert_eq!(
        (machine.root.to_string(), machine.kernel_args.as_str()),
        ("nbd".into(), "quiet splash")
    );
    assert_eq!(machine.shelf_slot.to_string(), "1.0");

    site.post("/machines/lab-07", "root=aoe").await;
    let machine = site.service.site().machines[0].clone();
    assert_eq!(
        (machine.root.to_string(), machine.image.unwrap().image.as_str()),
        ("aoe".into(), "kiosk")
    );

    let (status, page) = site.get("/machines/lab-07/reset").await;
    assert!(status == StatusCode::OK && page.contains("Everything it has written is lost"));
    let (_, location, _) = site.post("/machines/lab-07/reset", "").await;
    let (_, page) = site.get(&location).await;
    assert!(page.contains("will be reset") && page.contains(">Keep it<"), "{page}");
    assert!(site.service.site().machines[0].reset_disk);
    let (_, location, _) = site.post("/machines/lab-07/keep", "").await;
    let (_, page) = site.get(&location).await;
    assert!(page.contains("stays as it is") && !page.contains(">Keep it<"), "{page}");
    assert!(!site.service.site().machines[0].reset_disk);
    let (_, location, _) = site.post("/machines/lab-07/rescue", "").await;
    let (_, page) = site.get(&location).await;
    let (_, rescue) = site.json("PUT", "/api/v1/machines/lab-07/rescue", "").await;
    let shown = format!("the password is <code>{}</code>", rescue["password"].as_str().unwrap());
    assert!(page.contains(&shown), "{page}");
    assert!(page.contains(">Boot as usual<"), "{page}");
    let (_, location, _) = site.post("/machines/lab-07/rescue/off", "").await;
    let (_, page) = site.get(&location).await;
    assert!(page.contains("boots as usual") && !page.contains("the password is"), "{page}");
    let (status, page) = site.get("/machines/lab-07/remove").await;
    assert!(status == StatusCode::OK && page.contains("Remove lab-07?"));
    let (status, location, _) = site.post("/machines/lab-07/remove", "").await;
    assert_eq!(
        (status, location.as_str()),
        (StatusCode::SEE_OTHER, "/machines?done=removed-later"),
        "no storage server runs"
    );
    assert!(site.service.site().machines.is_empty());
    assert_eq!(site.service.discovered().len(), 1, "it is unknown again");
}

#[tokio::test]
async fn a_root_on_another_server_is_offered_where_its_address_can_be_typed() {
    let site = Site::new(&["debian-12"]);
    site.unknown_pc_asks(MAC).await;
    site.json("PUT", "/api/v1/machines/pc-1", r#"{"mac": "52:54:00:00:00:02"}"#).await;
    let offered = |page: &str| {
        ["nbd", "aoe", "nfs", "iscsi"].map(|kind| page.contains(&format!("value=\"{kind}\"")))
    };
    let (_, new) = site.get("/discovered").await;
    assert_eq!(offered(&new), [true, true, false, false], "{new}");
    let (_, known) = site.get("/machines/pc-1?edit").await;
    assert_eq!(offered(&known), [true; 4], "{known}");
}

#[tokio::test]
async fn a_root_on_another_server_is_set_on_the_page() {
    let site = Site::new(&["debian-12"]);
    let mac = r#"{"mac": "52:54:00:00:00:01"}"#;
    site.json("PUT", "/api/v1/machines/pc-1", mac).await;
    let form = "image=debian-12&root=nfs&root_url=";
    let (status, _, page) = site.post("/machines/pc-1", form).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(page.contains("pc-1 has no address of its nfs root"), "{page}");
    let (_, _, page) = site.post("/machines/pc-1", &format!("{form}nfs://server/srv")).await;
    assert!(page.contains("its server must be an IPv4 address"), "{page}");
    let (status, ..) = site.post("/machines/pc-1", &format!("{form}nfs://10.0.0.5/srv")).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let (_, page) = site.get("/machines/pc-1").await;
    assert!(page.contains("--root-url &#39;nfs://10.0.0.5/srv&#39;"), "{page}");
    assert!(page.contains("eui.525400fffe000001"), "{page}");
    // The field keeps its text, which counts for nothing with NBD.
    let (status, ..) = site.post("/machines/pc-1", "root=nbd&root_url=nfs://10.0.0.5/srv").await;
    assert_eq!(status, StatusCode::SEE_OTHER);

    let iscsi = "iscsi://10.0.0.5/iqn.2026-11.example:disk/1";
    let body = format!(r#"{{"mac": "52:54:00:00:00:01", "root_url": "{iscsi}"}}"#);
    let (_, machine) = site.json("PUT", "/api/v1/machines/pc-1", &body).await;
    assert_eq!(
        (machine["root"].as_str(), machine["root_url"].as_str()),
        (Some("iscsi"), Some(iscsi))
    );
}

#[tokio::test]
async fn a_refused_form_keeps_what_was_typed() {
    let site = Site::new(&["debian-12"]);
    site.unknown_pc_asks(MAC).await;
    site.unknown_pc_asks("52:54:00:00:00:02").await;
    let adopt = format!("/discovered/{MAC}/adopt");
    let (status, _, page) = site.post(&adopt, "name=Bad%22Name&image=debian-12&root=aoe").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        page.contains("value=\"Bad&#34;Name\"") && page.contains("lower-case letters"),
        "{page}"
    );
    assert!(page.contains("<option value=\"aoe\" selected>"));

    site.post(&adopt, "name=lab-07&image=debian-12&root=nbd").await;
    let other = "/discovered/52:54:00:00:00:02/adopt";
    let (status, _, page) = site.post(other, "name=lab-07").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(page.contains("there is a machine lab-07 already"), "{page}");

    for (form, says) in [
        ("image=gone", "there is no image gone: choose one of debian-12"),
        ("image=debian-12&root=fc", "use nbd, aoe, nfs, iscsi, other-nbd or other-aoe"),
        ("image=debian-12&write_mode=x", "use discard, persistent or ram"),
        ("image=debian-12&kernel_args=bootlace.root%3Dnbd", "are set by the boot server"),
    ] {
        let (status, _, page) = site.post("/machines/lab-07", form).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{form}");
        assert!(page.contains(says) && page.contains("Not saved"), "{form}: {page}");
    }
    assert_eq!(site.service.site().machines[0].image.as_ref().unwrap().image.as_str(), "debian-12");
}

#[tokio::test]
async fn a_boot_is_watched_without_a_script() {
    let site = Site::new(&["debian-12"]);
    site.unknown_pc_asks(MAC).await;
    site.post(&format!("/discovered/{MAC}/adopt"), "name=lab-07&image=debian-12").await;
    let mac = MAC.parse().unwrap();
    for stage in [Stage::Dhcp, Stage::Loader, Stage::Config] {
        site.service.stage(mac, None, NewStage::noticed(stage, "<b>bold</b>")).await.unwrap();
    }
    let (_, page) = site.get("/machines/lab-07").await;
    assert!(page.contains("http-equiv=\"refresh\" content=\"2; url=?reload\""), "{page}");
    // A page that is loaded again and again has nothing to type.
    for field in ["<input", "<select", "<textarea"] {
        assert!(!page.contains(field), "{page}");
    }
    assert!(page.contains("Loader (TFTP)") && page.contains("so far"), "{page}");
    assert!(
        page.contains("&#60;b&#62;") && !page.contains("<b>bold"),
        "details are strangers' text"
    );
    let (_, page) = site.get("/machines/lab-07?edit").await;
    assert!(!page.contains("http-equiv=\"refresh\"") && page.contains("<form"));

    let failed = NewStage::noticed(Stage::Failed, "no driver for this card");
    site.service.stage(mac, None, failed).await.unwrap();
    let (_, page) = site.get("/").await;
    assert!(page.contains("Needs attention") && page.contains("no driver for this card"), "{page}");
    let (_, page) = site.get("/machines?state=failed").await;
    assert!(page.contains("lab-07") && page.contains("✕"));
    let (_, page) = site.get("/machines?state=up").await;
    assert!(!page.contains("/machines/lab-07") && page.contains("None now"), "{page}");
}

#[tokio::test]
async fn what_is_found_is_the_same_on_page_api_and_metrics() {
    let site = Site::new(&["debian-12"]);
    site.unknown_pc_asks(MAC).await;
    site.post(&format!("/discovered/{MAC}/adopt"), "name=lab-07&image=debian-12").await;
    let (_, page) = site.get("/findings").await;
    assert!(page.contains("storage-silent") && !page.contains("words-refused"), "{page}");

    let subject = site.service.subject_of(MAC.parse().unwrap());
    for _ in 0..3 {
        let cause = "probably <b>somebody</b> speaks in its name";
        site.service.found(FindingKind::WordsRefused, &subject, cause);
    }
    for path in ["/", "/findings"] {
        let (_, page) = site.get(path).await;
        assert!(
            page.contains("<a href=\"/machines/lab-07\"><strong>lab-07</strong></a>: probably")
        );
        assert!(page.contains("&#60;b&#62;somebody") && page.contains("3 times, "), "{page}");
        assert!(page.contains("Look for the PC that has the machine"), "what helps: {page}");
    }
    let (_, body) = site.json("GET", "/api/v1/findings", "").await;
    let kinds: Vec<_> = body["findings"].as_array().unwrap().iter().map(|it| &it["kind"]).collect();
    assert_eq!(kinds[0], "storage-silent", "the worst is first: {body}");
    let finding = body["findings"].as_array().unwrap().iter().find(|it| it["count"] == 3).unwrap();
    let fields =
        ["kind", "level", "about", "subject"].map(|field| finding[field].as_str().unwrap());
    assert_eq!(fields, ["words-refused", "warning", "machine", "lab-07"]);
    let (_, status) = site.json("GET", "/api/v1/status", "").await;
    assert_eq!(but_when_last_seen(&status), but_when_last_seen(&body));
    let (_, metrics) = site.get("/metrics").await;
    for line in [
        "bootlace_findings{kind=\"words-refused\",level=\"warning\"} 1",
        "bootlace_findings_total{kind=\"words-refused\"} 3",
        "bootlace_findings{kind=\"clock-set\",level=\"notice\"} 0",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} is not in\n{metrics}");
    }

    site.service.resolved(FindingKind::WordsRefused, &subject);
    let (_, page) = site.get("/findings").await;
    assert!(!page.contains("words-refused"), "{page}");
}

/// The findings of an answer of the API. What still holds was last seen at each answer anew.
fn but_when_last_seen(body: &serde_json::Value) -> Vec<serde_json::Value> {
    let mut findings = body["findings"].as_array().unwrap().clone();
    for finding in &mut findings {
        finding.as_object_mut().unwrap().remove("last_unix_ms").unwrap();
    }
    findings
}

#[tokio::test]
async fn a_running_machine_is_stopped_after_a_question() {
    let site = Site::new(&["debian-12"]);
    site.unknown_pc_asks(MAC).await;
    site.post(&format!("/discovered/{MAC}/adopt"), "name=lab-07&image=debian-12").await;
    let api = "/api/v1/machines/lab-07/power";
    let (status, body) = site.json("POST", api, "{\"verb\":\"reboot\"}").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    assert!(body["detail"].as_str().unwrap().contains("can't be told to stop"), "{body}");

    let (mac, boot, token) = prove_last_boot(&site).await;
    site.service.stage(mac, None, NewStage::noticed(Stage::Up, "")).await.unwrap();

    let (_, page) = site.get("/machines/lab-07").await;
    assert!(page.contains("Restart…") && page.contains("Shut down…"), "{page}");
    assert!(!page.contains(&token.to_hex()));
    let (_, page) = site.get("/machines/lab-07/reboot").await;
    assert!(page.contains("Restart lab-07?") && page.contains("not been saved is lost"));
    let (status, location, _) = site.post("/machines/lab-07/reboot", "").await;
    assert_eq!(
        (status, location.as_str()),
        (StatusCode::SEE_OTHER, "/machines/lab-07?done=reboot")
    );
    let (_, page) = site.get("/machines/lab-07").await;
    assert!(page.contains("It was asked to restart") && page.contains("no answer yet"));

    let (status, body) = site.json("POST", api, "{\"verb\":\"explode\"}").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    let (status, body) = site.json("POST", api, "{\"verb\":\"poweroff\"}").await;
    assert_eq!((status, &body["counter"]), (StatusCode::ACCEPTED, &2.into()), "{body}");
    site.service.obeyed(mac, boot, 2).await.unwrap();
    let (_, page) = site.get("/machines/lab-07").await;
    assert!(page.contains("asked to shut down") && page.contains(": it is doing so."), "{page}");
    let (_, body) = site.json("GET", "/api/v1/machines/lab-07", "").await;
    assert_eq!(body["power"]["verb"], "poweroff");
    assert!(!body.to_string().contains(&token.to_hex()));
}

/// The PC fetches the secret of its last boot, and shows that it has it.
async fn prove_last_boot(site: &Site) -> (wire::Mac, model::BootId, initcfg::Token) {
    let (mac, address) = (MAC.parse().unwrap(), std::net::Ipv4Addr::new(10, 77, 0, 100));
    let lease = model::Lease { mac, address, expires_unix: u64::MAX >> 1, host_name: None };
    site.service.commit_lease(lease).await.unwrap();
    let boot = site.service.boot_of(mac).unwrap().id;
    let link = service::Link::Neighbour(mac);
    let file = site.service.host_file(address, link, boot).await.unwrap().unwrap();
    let token = initcfg::HostConfig::parse(file.as_bytes()).unwrap().token;
    assert!(site.service.believes(mac, boot, b"alive", Some(token.tag(b"alive"))).await);
    (mac, boot, token)
}

#[tokio::test]
async fn a_boot_in_the_name_of_a_running_machine_is_shown_beside_it() {
    let site = Site::new(&["debian-12"]);
    site.unknown_pc_asks(MAC).await;
    site.post(&format!("/discovered/{MAC}/adopt"), "name=lab-07&image=debian-12").await;
    let (mac, boot, _) = prove_last_boot(&site).await;
    assert!(site.service.is_admitted(mac, boot).await, "the machine runs in no earlier boot");
    site.service.stage(mac, None, NewStage::noticed(Stage::Up, "")).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    site.unknown_pc_asks(MAC).await;
    let (_, page) = site.get("/machines/lab-07").await;
    assert!(!page.contains("began to boot while it runs"), "it may be itself: {page}");
    site.service.heartbeat(Heartbeat { boot, mac, is_last: false, ram_used_percent: None }, None);
    let (_, page) = site.get("/machines/lab-07").await;
    assert!(page.contains("began to boot while it runs") && page.contains("Restart…"), "{page}");
    assert!(page.contains(&format!("number {boot} ")), "{page}");
    let (_, body) = site.json("GET", "/api/v1/machines/lab-07", "").await;
    assert_eq!((&body["boot"]["id"], &body["state"]["word"]), (&boot.into(), &"up".into()));
    assert!(body["candidate"]["id"].as_u64().unwrap() > boot, "{body}");
}

#[tokio::test]
async fn a_machine_has_several_network_cards() {
    let site = Site::new(&["debian-12"]);
    let dock = "52:54:00:00:00:02";
    site.unknown_pc_asks(MAC).await;
    site.post(&format!("/discovered/{MAC}/adopt"), "name=lab-07&image=debian-12").await;
    let (_, page) = site.get("/machines/lab-07?edit").await;
    assert!(page.contains(&format!(">{MAC}</textarea>")) && !page.contains("Network cards"));

    let form = format!("macs={MAC}%0D%0A%0D%0A52-54-00-00-00-02+&image=debian-12");
    let (status, ..) = site.post("/machines/lab-07", &form).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    site.unknown_pc_asks(dock).await;
    assert!(site.service.discovered().is_empty());
    let (_, page) = site.get("/machines/lab-07?edit").await;
    assert!(page.contains(&format!(">{MAC}\n{dock}</textarea>")), "{page}");
    assert!(page.contains("Network cards") && page.contains(&format!("from <code>{dock}</code>")));
    assert!(page.contains(&format!("<td data-label=\"From\"><code>{MAC}</code></td>")), "{page}");
    for mac in ["525400fffe000001", "525400fffe000002"] {
        assert!(page.contains(&format!("eui.{mac}")), "each card is another initiator");
    }
    let (_, page) = site.get("/machines/lab-07/remove").await;
    assert!(page.contains(&format!("{MAC}, {dock}")), "{page}");
    let machine = "/api/v1/machines/lab-07";
    let (_, body) = site.json("GET", machine, "").await;
    assert_eq!((&body["mac"], &body["other_macs"][0]), (&MAC.into(), &dock.into()));
    assert_eq!((&body["nics"][1]["mac"], &body["boot"]["mac"]), (&dock.into(), &dock.into()));

    // What is wrong is said where it was typed, and nothing is lost.
    let taken = "{\"mac\":\"52:54:00:00:00:03\"}";
    site.json("PUT", "/api/v1/machines/lab-08", taken).await;
    for (macs, says) in [
        ("", "a machine needs the MAC"),
        ("52:54:00:00:00:01+nonsense", "nonsense is not a MAC address"),
        ("52:54:00:00:00:01,52:54:00:00:00:03", "belongs to the machine lab-08"),
        ("ff:ff:ff:ff:ff:ff", "no network card has it"),
    ] {
        let (status, _, page) = site.post("/machines/lab-07", &format!("macs={macs}")).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{macs}");
        let (_, error) = page.split_once("id=\"macs-error\">").unwrap();
        assert!(error.split("</span>").next().unwrap().contains(says), "{page}");
    }
    assert_eq!(site.service.site().machines[0].macs().count(), 2);

    let change = |body: &'static str| site.json("PATCH", machine, body);
    let (status, body) = change("{\"remove_macs\":[\"52:54:00:00:00:04\"]}").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(body["detail"].as_str().unwrap().contains("is not a MAC of lab-07"), "{body}");
    let (status, _) = change("{\"add_macs\":[\"52:54:00:00:00:03\"]}").await;
    assert_eq!(status, StatusCode::CONFLICT);
    let (status, body) = change("{\"remove_macs\":[\"52:54:00:00:00:01\"]}").await;
    assert_eq!((status, &body["mac"]), (StatusCode::OK, &dock.into()), "{body}");
    let (_, body) = change("{\"remove_macs\":[\"52:54:00:00:00:02\"]}").await;
    assert!(body["detail"].as_str().unwrap().contains("only MAC of lab-07"), "{body}");
    let (_, body) = change("{\"other_macs\":[\"52:54:00:00:00:05\"]}").await;
    assert_eq!(body["other_macs"][0], "52:54:00:00:00:05");
    let whole = format!("{{\"mac\":\"{MAC}\"}}");
    let (_, body) = site.json("PUT", machine, &whole).await;
    assert_eq!((&body["mac"], body["other_macs"].as_array().unwrap().len()), (&MAC.into(), 0));
}

#[tokio::test]
async fn a_second_network_card_is_proposed_and_confirmed_by_one_click() {
    let site = Site::new(&["debian-12"]);
    let (dock, uuid) = ("52:54:00:00:00:02", Some("b9a7c1de-52f0-11ec-8d3f-0242ac130003"));
    site.unknown_pc_with_uuid_asks(MAC, uuid).await;
    let (_, page) = site.get("/discovered").await;
    assert!(!page.contains("Probably"), "{page}");
    site.post(&format!("/discovered/{MAC}/adopt"), "name=lab-07&image=debian-12").await;
    site.unknown_pc_with_uuid_asks(dock, uuid).await;

    let (_, page) = site.get("/discovered").await;
    assert!(page.contains("Probably a second network card of <a href=\"/machines/lab-07\">"));
    assert!(page.contains("Add it to lab-07") && page.contains("value=\"lab-08\""), "{page}");
    let (_, body) = site.json("GET", "/api/v1/discovered", "").await;
    assert_eq!((&body[0]["mac"], &body[0]["probable_machine"]), (&dock.into(), &"lab-07".into()));
    let add = format!("/discovered/{dock}/add");
    for (form, expected) in [("machine=lab-09", StatusCode::NOT_FOUND), ("", StatusCode::NOT_FOUND)]
    {
        assert_eq!(site.post(&add, form).await.0, expected, "{form}");
    }
    let (status, location, _) = site.post(&add, "machine=lab-07").await;
    assert_eq!((status, location.as_str()), (StatusCode::SEE_OTHER, "/machines/lab-07?done=card"));
    let (_, page) = site.get(&location).await;
    assert!(page.contains("The network card is added.") && page.contains(dock), "{page}");
    assert!(site.service.discovered().is_empty());
}

#[tokio::test]
async fn the_api_does_what_the_pages_do() {
    let site = Site::new(&["debian-12"]);
    let machine = "/api/v1/machines/lab-07";
    let (status, body) = site.json("GET", machine, "").await;
    assert_eq!((status, &body["status"]), (StatusCode::NOT_FOUND, &404.into()));
    assert!(body["detail"].as_str().unwrap().contains("there is no machine lab-07"));
    let (status, body) = site.json("PUT", machine, "{\"image\":\"debian-12\"}").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    let whole = format!("{{\"mac\":\"{MAC}\",\"image\":\"debian-12\",\"root\":\"aoe\"}}");
    let (status, body) = site.json("PUT", machine, &whole).await;
    assert_eq!((status, &body["shelf_slot"]), (StatusCode::CREATED, &"1.0".into()), "{body}");
    let (status, body) = site.json("PATCH", machine, "{\"image\":null}").await;
    assert_eq!(
        (status, &body["image"], &body["root"]),
        (StatusCode::OK, &().into(), &"aoe".into())
    );
    let (status, body) = site.json("PATCH", machine, "{\"rot\":\"aoe\"}").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(body["detail"].as_str().unwrap().contains("unknown field `rot`"), "{body}");
    let taken = format!("{{\"mac\":\"{MAC}\"}}");
    let (status, body) = site.json("PUT", "/api/v1/machines/lab-08", &taken).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    let (status, body) = site.json("PATCH", "/api/v1/machines/lab-08", "{\"image\":null}").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{body}");
    assert!(body["detail"].as_str().unwrap().contains("give the MAC"), "{body}");
    let added = "{\"mac\":\"52:54:00:00:00:08\"}";
    let (status, body) = site.json("PATCH", "/api/v1/machines/lab-08", added).await;
    assert_eq!((status, &body["name"]), (StatusCode::CREATED, &"lab-08".into()), "{body}");
    site.json("DELETE", "/api/v1/machines/lab-08", "").await;
    let (_, body) = site.json("GET", "/api/v1/initrds", "").await;
    assert_eq!((&body[0]["image"], &body[0]["state"]), (&"debian-12".into(), &"missing".into()));
    let (status, _) = site.json("PUT", "/api/v1/machines/Bad%20Name", &taken).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);

    let never_seen = "/api/v1/discovered/52:54:00:00:00:0f/adopt";
    let (status, body) = site.json("POST", never_seen, "{\"name\":\"lab-0f\"}").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{body}");
    assert!(body["detail"].as_str().unwrap().contains("PUT /api/v1/machines/lab-0f"), "{body}");
    site.unknown_pc_asks("52:54:00:00:00:02").await;
    let (_, body) = site.json("GET", "/api/v1/discovered", "").await;
    assert_eq!(
        (&body[0]["mac"], &body[0]["firmware"]),
        (&"52:54:00:00:00:02".into(), &"uefi-x64".into())
    );
    let adopt = "/api/v1/discovered/52:54:00:00:00:02/adopt";
    let (status, body) = site.json("POST", adopt, "{\"name\":\"lab-08\"}").await;
    assert_eq!((status, &body["shelf_slot"]), (StatusCode::CREATED, &"1.1".into()));
    let (_, body) = site.json("GET", "/api/v1/machines", "").await;
    assert_eq!((body.as_array().unwrap().len(), &body[1]["state"]["word"]), (2, &"loading".into()));
    let (_, body) = site.json("GET", "/api/v1/images", "").await;
    assert_eq!(body[0]["initrd"], "missing");
    let (_, body) = site.json("GET", "/api/v1/status", "").await;
    assert_eq!(
        (&body["n_machines"], &body["machines"]["loading"]),
        (&2.into(), &1.into()),
        "{body}"
    );
    let (status, _) = site.json("DELETE", machine, "").await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn figures_are_there_for_prometheus() {
    let site = Site::new(&[]);
    let (status, text) = site.get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for line in ["bootlace_storage_up 0", "bootlace_machines{state=\"up\"} 0"] {
        assert!(text.lines().any(|found| found == line), "{text}");
    }
    // Each figure says what it is.
    let named = |line: &str| {
        let name = line.split(['{', ' ']).next().unwrap();
        let parts = ["_bucket", "_sum", "_count"].into_iter();
        let of = parts
            .filter_map(|part| name.strip_suffix(part))
            .find(|histogram| text.contains(&format!("# TYPE {histogram} histogram")));
        of.unwrap_or(name).to_owned()
    };
    let figures = text.lines().filter(|line| !line.starts_with('#'));
    for name in figures.map(named) {
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
    }
    // What is shipped for Prometheus and Grafana asks for figures that there are, some only with a storage server.
    let known = text.clone() + include_str!("../templates/metrics.txt");
    for (shipped, name) in [
        (include_str!("../../packaging/prometheus/bootlace.rules.yml"), "alert rules"),
        (include_str!("../../packaging/grafana/bootlace.json"), "dashboard"),
    ] {
        let words = shipped.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let asked: Vec<String> =
            words.filter(|word| word.starts_with("bootlace_")).map(named).collect();
        assert!(asked.len() > 5, "{name}: {asked:?}");
        for figure in asked {
            assert!(known.contains(&format!("# TYPE {figure} ")), "{name}: {figure}");
        }
    }
}

#[tokio::test]
async fn boots_are_counted_by_how_they_ended_and_how_long_they_took() {
    let site = Site::new(&["debian-12"]);
    site.unknown_pc_asks(MAC).await;
    site.post(&format!("/discovered/{MAC}/adopt"), "name=lab-07&image=debian-12").await;
    let mac = MAC.parse().unwrap();
    for stage in [Stage::Dhcp, Stage::Loader, Stage::Config, Stage::Up, Stage::Up] {
        site.service.stage(mac, None, NewStage::noticed(stage, "")).await.unwrap();
    }
    let (_, text) = site.get("/metrics").await;
    for line in [
        "bootlace_boots_total{end=\"up\"} 1",
        "bootlace_boots_total{end=\"failed\"} 0",
        "bootlace_boot_seconds_bucket{le=\"+Inf\"} 1",
        "bootlace_boot_stage_seconds_count{stage=\"loader\"} 1",
        "bootlace_boot_stage_seconds_count{stage=\"attach\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn who_watches_the_server_learns_whether_machines_can_boot_and_nothing_else() {
    let site = Site::new(&[]);
    assert_eq!(site.get("/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
    // There is no storage server.
    let (status, text) = site.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(text, "not ready: bootlace status says why\n");
}

#[tokio::test]
async fn strangers_pages_can_neither_post_nor_read() {
    let site = Site::new(&[]);
    let cross_site = Request::post("/machines/lab-07/remove")
        .header(header::HOST, "127.0.0.1:8080")
        .header(header::ORIGIN, "http://evil.example")
        .body(Body::empty())
        .unwrap();
    assert_eq!(site.send(cross_site).await.0, StatusCode::FORBIDDEN);
    let rebound =
        Request::get("/").header(header::HOST, "evil.example").body(Body::empty()).unwrap();
    assert_eq!(site.send(rebound).await.0, StatusCode::MISDIRECTED_REQUEST);
    let fine =
        Request::get("/").header(header::HOST, "127.0.0.1:8080").body(Body::empty()).unwrap();
    let (status, headers, body) = site.send(fine).await;
    assert_eq!(status, StatusCode::OK);
    let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'self'"));
    assert!(!body.contains("style=") && !body.contains("<script"), "the policy forbids them");
    let (status, body) = site.get("/nowhere").await;
    assert!(status == StatusCode::NOT_FOUND && body.contains("There is no such page"));
    let (status, _) = site.get("/machines/%2e%2e").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn empty_pages_say_what_comes_next() {
    let site = Site::new(&[]);
    for (path, says) in [
        ("/", " image import debian-12.qcow2"),
        ("/machines", "network boot first in its boot order"),
        ("/discovered", "switch on a PC"),
        ("/images", " image import"),
    ] {
        let (status, page) = site.get(path).await;
        assert!(status == StatusCode::OK && page.contains(says), "{path}: {page}");
    }
    let (status, style) = site.get("/assets/app.css").await;
    assert!(status == StatusCode::OK && style.len() < 16 * 1024);
}

#[tokio::test]
async fn a_room_gives_its_machines_what_they_do_not_say_themselves() {
    let site = Site::new(&["debian-12", "kiosk"]);
    let room = "/api/v1/rooms/r101";
    let (status, body) = site.json("PUT", room, r#"{"image": "debian-12", "size": "3.8"}"#).await;
    assert_eq!((status, body["size"].as_str()), (StatusCode::CREATED, Some("3.8")));
    site.unknown_pc_asks(MAC).await;
    let adopt = format!("/api/v1/discovered/{MAC}/adopt");
    let body = r#"{"name": "lab-07", "room": "r101", "seat": "2.5", "tags": ["cad", "art"]}"#;
    let (status, machine) = site.json("POST", &adopt, body).await;
    assert_eq!((status, machine["image"].as_str()), (StatusCode::CREATED, Some("debian-12")));
    assert_eq!(machine["set_by"]["image"], "room");
    assert_eq!(machine["tags"], serde_json::json!(["art", "cad"]));

    let (_, page) = site.get("/machines/lab-07?edit").await;
    assert!(
        page.contains("from the room r101: debian-12") && page.contains("default: NBD"),
        "{page}"
    );
    // Who saves the form as it is makes nothing the machine's own.
    let form = "image=%3D&root=%3D&write_mode=%3D&root_url=&kernel_args=quiet";
    let (status, location, _) = site.post("/machines/lab-07", form).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    site.json("PATCH", room, r#"{"image": "kiosk", "write_mode": "ram"}"#).await;
    let (_, page) = site.get(&location).await;
    let (_, machine) = site.json("GET", "/api/v1/machines/lab-07", "").await;
    assert_eq!((&machine["image"], &machine["write_mode"]), (&"kiosk".into(), &"ram".into()));
    assert!(page.contains("--room r101 --seat 2.5 --tag art --tag cad"), "{page}");
    assert!(page.contains("kiosk, version 1 <span class=\"muted\">from the room r101<"), "{page}");

    site.post("/machines/lab-07", "image=debian-12&root=%3D&write_mode=%3D").await;
    let (_, machine) = site.json("GET", "/api/v1/machines/lab-07", "").await;
    assert_eq!(machine["set_by"]["image"], "machine");
    assert_eq!((&machine["image"], &machine["write_mode"]), (&"debian-12".into(), &"ram".into()));

    let (_, rooms) = site.json("GET", "/api/v1/rooms", "").await;
    assert_eq!(rooms[0]["machines"], serde_json::json!(["lab-07"]));
    for (method, path, body, status) in [
        ("DELETE", room, "", StatusCode::CONFLICT),
        ("PATCH", "/api/v1/rooms/r102", "{}", StatusCode::NOT_FOUND),
        ("PATCH", room, r#"{"seats": "1.1"}"#, StatusCode::UNPROCESSABLE_ENTITY),
        ("PATCH", room, r#"{"size": "1.1"}"#, StatusCode::UNPROCESSABLE_ENTITY),
        ("PUT", room, r#"{"name": "r102"}"#, StatusCode::UNPROCESSABLE_ENTITY),
        ("PATCH", "/api/v1/site", r#"{"image": "gone"}"#, StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let (answered, problem) = site.json(method, path, body).await;
        assert_eq!(answered, status, "{method} {path}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 20), "{problem}");
    }
    // What PUT leaves out the room says no more.
    let (_, body) = site.json("PUT", room, r#"{"kernel_args": "splash"}"#).await;
    assert_eq!(
        (&body["image"], &body["size"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    let (_, body) = site.json("PATCH", "/api/v1/site", r#"{"write_mode": "persistent"}"#).await;
    assert_eq!(body, serde_json::json!({"write_mode": "persistent"}));
    let (_, machine) = site.json("GET", "/api/v1/machines/lab-07", "").await;
    assert_eq!(
        (&machine["write_mode"], &machine["set_by"]["write_mode"]),
        (&"persistent".into(), &"site".into())
    );
}

#[tokio::test]
async fn commands_on_pages_and_in_answers_work_as_they_are_printed() {
    let site = Site::new(&[]);
    let root = site.folder.path().display();
    let (_, page) = site.get("/images").await;
    let import = format!("bootlace --root {root} image import debian-12.qcow2");
    assert!(page.contains(&import) && !page.contains("bootlace image"), "{page}");
    let (status, problem) = site.json("GET", "/api/v1/machines/lab-07", "").await;
    let ls = format!("bootlace --root {root} machine ls");
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(problem["detail"].as_str().unwrap().contains(&ls), "{problem}");
}

#[tokio::test]
async fn a_version_of_which_nothing_is_known_any_more_is_told_on_the_images_page() {
    let site = Site::new(&["debian-12"]);
    let folder = site.service.options().images.join("debian-12/2");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("image.toml"), "").unwrap();
    let (_, body) = site.json("GET", "/api/v1/images/damaged", "").await;
    assert_eq!((&body[0]["version"], &body[1]["version"]), (&1.into(), &2.into()), "{body}");
    let (_, body) = site.json("GET", "/api/v1/images", "").await;
    assert!(body[0]["damage"].as_str().unwrap().ends_with("vmlinuz is gone"), "{body}");
    let (_, page) = site.get("/images").await;
    assert!(page.contains("No machine can boot debian-12 v2:"), "{page}");
    assert!(page.contains("image.toml is damaged: it is empty. Import the image again"), "{page}");
}

#[tokio::test]
async fn a_damaged_image_version_is_told_on_its_page_and_on_those_of_its_machines() {
    let site = Site::new(&["debian-12"]);
    site.unknown_pc_asks(MAC).await;
    site.post(&format!("/discovered/{MAC}/adopt"), "name=lab-07&image=debian-12").await;
    let running = site.service.clone();
    let server = tokio::spawn(async move { running.run().await });
    let mut pages = (String::new(), String::new());
    for _ in 0..100 {
        pages = (site.get("/images").await.1, site.get("/machines/lab-07").await.1);
        if pages.0.contains("vmlinuz is gone") && pages.1.contains("vmlinuz is gone") {
            server.abort();
            assert!(
                pages.1.contains("It can&#39;t start: debian-12 version 1 is damaged"),
                "{}",
                pages.1
            );
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("nobody is told: {} {}", pages.0, pages.1);
}
