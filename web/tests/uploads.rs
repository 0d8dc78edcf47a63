//! Disk files that are sent, and how long what is sent may be.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![expect(clippy::disallowed_methods, reason = "what is on the disk is looked at from outside")]

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, channel::Channel};
use service::{Options, Service};
use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use tower::ServiceExt as _;
use web::LocalAdmin;

struct Site {
    router: Router,
    incoming: PathBuf,
    _folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { init: None, ..Options::under(folder.path()) };
        let incoming = options.incoming.clone();
        let service = Service::open(options).unwrap();
        Self { router: web::router(service, &[]), incoming, _folder: folder }
    }

    async fn send(&self, mut request: Request<Body>) -> (StatusCode, String) {
        request.extensions_mut().insert(LocalAdmin { uid: 0 });
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn put(&self, name: &str, body: impl Into<Body>) -> (StatusCode, String) {
        let path = format!("/api/v1/incoming/{name}");
        self.send(Request::put(path).body(body.into()).unwrap()).await
    }

    async fn upload(&self, form: &str) -> (StatusCode, String) {
        self.send(form_request(form)).await
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.incoming).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|it| it.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn form_request(form: &str) -> Request<Body> {
    Request::post("/images/upload")
        .header(header::CONTENT_TYPE, "multipart/form-data; boundary=edge")
        .header(header::HOST, "10.0.0.1:8443")
        .body(Body::from(form.to_owned()))
        .unwrap()
}

fn form(file_name: &str, content: &str) -> String {
    format!(
        "--edge\r\nContent-Disposition: form-data; name=\"disk\"; filename=\"{file_name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n{content}\r\n--edge--\r\n"
    )
}

#[tokio::test]
async fn a_browser_sends_a_file_that_is_then_imported() {
    let site = Site::new();
    let (status, body) = site.upload(&form("a.raw", "disk\r\n--edg")).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{body}");
    assert_eq!(fs::read(site.incoming.join("a.raw")).unwrap(), b"disk\r\n--edg");
    let (status, body) = site.upload(&form("C:\\\\disks\\\\b.raw", "x")).await;
    assert_eq!(
        (status, site.files()),
        (StatusCode::SEE_OTHER, vec!["a.raw".into(), "b.raw".into()]),
        "{body}"
    );
    // The name is taken.
    let (status, body) = site.upload(&form("a.raw", "other")).await;
    assert!(
        status == StatusCode::CONFLICT && body.contains("there is a file a.raw already"),
        "{body}"
    );
    assert_eq!(fs::read(site.incoming.join("a.raw")).unwrap(), b"disk\r\n--edg");

    let wanted = |file: &str| {
        let body = format!("{{\"file\":\"{file}\",\"image\":\"debian\"}}");
        let request = Request::post("/api/v1/images");
        request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body)).unwrap()
    };
    let (status, body) = site.send(wanted("a.raw")).await;
    assert!(status == StatusCode::ACCEPTED && body.contains("\"state\":\"waiting\""), "{body}");
    assert!(body.contains("debian from a.raw"), "{body}");
    assert_eq!(site.send(wanted("none.raw")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(site.send(wanted("../state.db")).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let (_, page) = site.send(Request::get("/images/import").body(Body::empty()).unwrap()).await;
    assert!(page.contains("b.raw, 1 bytes"), "{page}");
    let request = Request::delete("/api/v1/incoming/b.raw").body(Body::empty()).unwrap();
    assert_eq!(site.send(request).await.0, StatusCode::NO_CONTENT);
    assert_eq!(site.files(), ["a.raw"]);
}

#[tokio::test]
async fn what_is_cut_off_or_no_file_leaves_nothing() {
    let site = Site::new();
    let whole = form("a.raw", "content of a disk");
    for length in 0..whole.len() - "--\r\n".len() {
        let (status, _) = site.upload(&whole[..length]).await;
        assert!(status.is_client_error(), "{length}: {status}");
        assert_eq!(site.files(), [""; 0], "{length}");
    }
    for name in ["", ".", "..", ".hidden", "a/..", "a\u{1}b", &"x".repeat(300)] {
        let (status, body) = site.upload(&form(name, "x")).await;
        assert!(status.is_client_error(), "{name}: {body}");
        assert_eq!(site.files(), [""; 0], "{name}");
    }
    for name in ["..%2Fstate.db", ".x", "%2e%2e", "a%00b"] {
        assert_eq!(site.put(name, "x").await.0, StatusCode::UNPROCESSABLE_ENTITY, "{name}");
    }
    // More than 64 KiB, in pieces, of which the last never comes.
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
    let sending = tokio::spawn(async move {
        for _ in 0..100 {
            sender.send_data(Bytes::from(vec![7; 10_000])).await.unwrap();
        }
        sender.abort(std::io::Error::other("gone"));
    });
    let (status, body) = site.put("big", Body::new(body)).await;
    assert!(status == StatusCode::BAD_REQUEST && body.contains("only a part"), "{body}");
    sending.await.unwrap();
    assert_eq!(site.files(), [""; 0]);
    let (status, _) = site.put("big", vec![7; 1_000_000]).await;
    assert_eq!((status, site.files()), (StatusCode::CREATED, vec!["big".to_owned()]));
}

#[tokio::test]
async fn a_strangers_page_sends_nothing_and_two_of_one_name_are_one() {
    let site = Site::new();
    let mut request = form_request(&form("a.raw", "x"));
    request.headers_mut().insert(header::ORIGIN, "https://evil.example".parse().unwrap());
    assert_eq!(site.send(request).await.0, StatusCode::FORBIDDEN);
    let (mut slow, body) = Channel::<Bytes, Infallible>::new(1);
    let mut request = Request::put("/api/v1/incoming/a.raw").body(Body::new(body)).unwrap();
    request.extensions_mut().insert(LocalAdmin { uid: 0 });
    let sending = tokio::spawn(site.router.clone().oneshot(request));
    slow.send_data(Bytes::from_static(b"first")).await.unwrap();
    while site.files().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(site.put("a.raw", "second").await.0, StatusCode::CONFLICT);
    // Others are not held up.
    assert_eq!(site.put("b.raw", "other").await.0, StatusCode::CREATED);
    let listed = Request::get("/api/v1/incoming").body(Body::empty()).unwrap();
    assert!(!site.send(listed).await.1.contains("a.raw"), "a part is no file");
    drop(slow);
    assert_eq!(sending.await.unwrap().unwrap().status(), StatusCode::CREATED);
    assert_eq!(fs::read(site.incoming.join("a.raw")).unwrap(), b"first");
}

#[tokio::test]
async fn what_is_too_long_is_refused_in_our_words_with_the_limit_that_counts() {
    let site = Site::new();
    let long = |n_bytes: usize| "x".repeat(n_bytes);
    let json = |n_bytes: usize| format!(r#"{{"leases": [], "kernel_args": "{}"}}"#, long(n_bytes));
    for (request, body, limit) in [
        (Request::post("/login"), format!("name=anna&password={}", long(100_000)), "64 KiB"),
        (Request::patch("/api/v1/machines/lab-07"), json(100_000), "64 KiB"),
        (Request::post("/api/v1/leases"), json(17 << 20), "16 MiB"),
        (Request::put("/api/v1/machines/lab-07/screen"), long(9 << 20), "8 MiB"),
    ] {
        let kind = if limit == "64 KiB" && body.starts_with("name") {
            "application/x-www-form-urlencoded"
        } else {
            "application/json"
        };
        let request = request.header(header::CONTENT_TYPE, kind).body(Body::from(body)).unwrap();
        let (status, told) = site.send(request).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(told.contains(limit), "{limit}: {told}");
    }
}
