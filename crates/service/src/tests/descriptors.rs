//! A storage server that refuses machines for lack of descriptors.

use super::options;
use crate::service::Service;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use model::FindingKind;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[tokio::test]
async fn what_the_storage_server_refuses_is_found_when_it_is_more_than_before() {
    let root = tempfile::tempdir().unwrap();
    let socket = options(root.path()).storage_socket;
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    // Of before this boot server was started.
    let n_refused = Arc::new(AtomicU64::new(3));
    let told = Arc::clone(&n_refused);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let n_refused = told.load(Ordering::Relaxed);
            let answer = move |request: Request<hyper::body::Incoming>| async move {
                let text = match request.uri().path() {
                    "/v1/descriptors" => {
                        format!("{{\"limit\":1024,\"refused_connections\":{n_refused}}}")
                    }
                    _ => "[]".to_owned(),
                };
                Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from(text)))
            };
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer)),
            );
        }
    });
    let service = Service::open(options(root.path())).unwrap();
    let found = async || {
        service.refresh_exports().await;
        let findings = service.findings().await;
        findings.into_iter().find(|finding| finding.kind == FindingKind::NoDescriptors)
    };
    assert_eq!(found().await, None, "it may be long ago");
    assert_eq!(found().await, None);
    n_refused.store(4, Ordering::Relaxed);
    let cause = found().await.unwrap().cause;
    assert!(cause.contains("only 1024 file descriptors"), "{cause}");
}
