//! PCs that are captured, on the machine's page and in the API.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use service::{Options, Service};
use tower::ServiceExt as _;
use web::LocalAdmin;

async fn ask(
    service: &Service,
    (method, url): (&str, &str),
    kind: &str,
    body: &str,
) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(url).header(header::CONTENT_TYPE, kind);
    let request = request.extension(LocalAdmin { uid: 0 }).body(Body::from(body.to_owned()));
    let answer = web::router(service.clone(), &[]).oneshot(request.unwrap()).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a_server_without_any_image_says_what_to_do_first() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { init: None, ..Options::under(folder.path()) };
    let service = Service::open(options).unwrap();
    let json = "application/json";
    let machine = r#"{"mac": "52:54:00:00:00:01"}"#;
    let made = ask(&service, ("PUT", "/api/v1/machines/lab-07"), json, machine).await;
    assert_eq!(made.0, StatusCode::CREATED);
    let (_, page) = ask(&service, ("GET", "/machines/lab-07"), json, "").await;
    assert!(page.contains("action=\"/machines/lab-07/capture\""), "{page}");
    let form = "application/x-www-form-urlencoded";
    let posted = ask(&service, ("POST", "/machines/lab-07/capture"), form, "image=office").await;
    let ordered = r#"{"image": "office", "machine": "lab-07", "order": "restart"}"#;
    let told = ask(&service, ("POST", "/api/v1/captures"), json, ordered).await;
    for (status, told) in [posted, told] {
        assert!(status.is_client_error(), "{status} {told}");
        assert!(told.contains("make one first"), "{told}");
    }
    let wrong = r#"{"image": "office", "machine": "lab-07", "order": "restart,disk=../sda"}"#;
    let (status, told) = ask(&service, ("POST", "/api/v1/captures"), json, wrong).await;
    assert!(status.is_client_error() && told.contains("what to capture"), "{status} {told}");
    let (status, told) = ask(&service, ("DELETE", "/api/v1/captures/lab-07"), json, "").await;
    assert!(status.is_client_error() && told.contains("is not to be captured"), "{status} {told}");
    let (_, list) = ask(&service, ("GET", "/api/v1/captures"), json, "").await;
    assert_eq!(list, "[]");
}
