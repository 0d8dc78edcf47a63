//! Files that are laid over machines' roots, on their page and in the API.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use service::{Options, Service};
use tower::ServiceExt as _;
use web::LocalAdmin;

struct Site {
    service: Service,
    _folder: tempfile::TempDir,
}

const BOUNDARY: &str = "xxxxx";

/// A form as a browser sends it.
fn form(fields: &[(&str, &str)]) -> String {
    let mut body = String::new();
    for (name, value) in fields {
        body += &format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        );
    }
    body + &format!("--{BOUNDARY}--\r\n")
}

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { init: None, ..Options::under(folder.path()) };
        let site = Self { service: Service::open(options).unwrap(), _folder: folder };
        let room = site.ask("PUT", "/api/v1/rooms/r101", "application/json", "{}").await;
        assert_eq!(room.0, StatusCode::CREATED);
        let machine = r#"{"mac": "52:54:00:00:00:01", "room": "r101"}"#;
        let machine = site.ask("PUT", "/api/v1/machines/lab-07", "application/json", machine).await;
        assert_eq!(machine.0, StatusCode::CREATED);
        site
    }

    async fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> (StatusCode, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(body.to_owned()))
            .unwrap();
        request.extensions_mut().insert(LocalAdmin { uid: 0 });
        let response = web::router(self.service.clone(), &[]).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        self.ask("GET", path, "", "").await
    }

    async fn put(&self, body: &str) -> (StatusCode, String) {
        self.ask("PUT", "/api/v1/files", "application/json", body).await
    }

    async fn send(&self, fields: &[(&str, &str)]) -> (StatusCode, String) {
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        self.ask("POST", "/files", &kind, &form(fields)).await
    }
}

#[tokio::test]
async fn a_file_is_laid_shown_and_taken_away_by_the_api() {
    let site = Site::new().await;
    assert_eq!(site.put(r#"{"path": "/etc/x", "text": "site"}"#).await.0, StatusCode::CREATED);
    let of_room = r#"{"path": "/etc/x", "text": "room", "room": "r101", "mode": "0640"}"#;
    assert_eq!(site.put(of_room).await.0, StatusCode::CREATED);
    assert_eq!(site.put(of_room).await.0, StatusCode::OK);
    let secret = r#"{"path": "/etc/key", "base64": "aHVudGVyMg==", "secret": true}"#;
    assert_eq!(site.put(secret).await.0, StatusCode::CREATED);
    let (_, laid) = site.get("/api/v1/machines/lab-07/files").await;
    let laid: serde_json::Value = serde_json::from_str(&laid).unwrap();
    assert_eq!((&laid[1]["room"], &laid[1]["mode"]), (&"r101".into(), &"0640".into()));
    assert_eq!(laid[1]["covers"][0]["room"], serde_json::Value::Null);
    let (_, one) = site.get("/api/v1/files/file?path=/etc/x&room=r101").await;
    assert!(one.contains(r#""text":"room""#), "{one}");
    for path in ["/api/v1/files", "/api/v1/files/file?path=/etc/key", "/files", "/audit"] {
        let (status, told) = site.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(!told.contains("hunter2") && !told.contains("aHVudGVy"), "{path}: {told}");
        assert!(told.contains("/etc/key"), "{path}: {told}");
    }
    for wrong in [
        r#"{"path": "/etc/x"}"#,
        r#"{"path": "/proc/x", "text": ""}"#,
        r#"{"path": "/x", "text": "", "mode": "u+x"}"#,
        r#"{"path": "/x", "text": "", "colour": "red"}"#,
        r#"{"path": "/x", "text": "{{bootlace.x}}", "template": true}"#,
    ] {
        assert_eq!(site.put(wrong).await.0, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
    }
    let remove = async || site.ask("DELETE", "/api/v1/files/file?path=/etc/x", "", "").await.0;
    assert_eq!(remove().await, StatusCode::NO_CONTENT);
    assert_eq!(remove().await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_file_is_laid_on_the_page_and_its_lines_end_as_in_linux() {
    let site = Site::new().await;
    assert!(site.get("/files").await.1.contains("Nothing is laid"));
    let fields =
        [("of", "room:r101"), ("path", "/etc/x"), ("kind", "file"), ("text", "a\r\n<b>\r\n")];
    let (status, told) = site.send(&fields).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{told}");
    let (_, one) = site.get("/api/v1/files/file?path=/etc/x&room=r101").await;
    assert!(one.contains(r#""text":"a\n<b>\n""#), "{one}");
    let (_, form) = site.get("/files/edit?of=room:r101&path=/etc/x").await;
    assert!(form.contains("a\n&#60;b&#62;\n") && !form.contains("<b>"), "{form}");
    let (_, page) = site.get("/machines/lab-07").await;
    assert!(page.contains("Files laid over its root") && page.contains("/etc/x"), "{page}");
    // What is wrong is told, and what was typed stays; but for a secret.
    let wrong = [("of", "site"), ("path", "/proc/x"), ("kind", "file"), ("text", "hunter2")];
    let (status, told) = site.send(&wrong).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(told.contains("nothing can be laid at") && told.contains("hunter2"), "{told}");
    let (_, told) = site.send(&[&wrong[..], &[("secret", "yes")]].concat()).await;
    assert!(told.contains("nothing can be laid at") && !told.contains("hunter2"), "{told}");
    let form = "application/x-www-form-urlencoded";
    let body = "of=room%3Ar101&path=%2Fetc%2Fx";
    let (status, _) = site.ask("POST", "/files/remove", form, body).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert!(site.get("/files").await.1.contains("Nothing is laid"));
}
