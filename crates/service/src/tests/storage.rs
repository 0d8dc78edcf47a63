//! What the storage server can't do for its clients.

use super::options;
use crate::service::Service;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use model::FindingKind;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

/// A storage server that answers these questions with these texts, and others with an empty list.
struct Storage {
    answers: Arc<Mutex<Vec<(&'static str, String)>>>,
    service: Service,
    _root: tempfile::TempDir,
}

impl Storage {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let socket = options(root.path()).storage_socket;
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let answers = Arc::<Mutex<Vec<(&'static str, String)>>>::default();
        let told = Arc::clone(&answers);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answers = told.lock().unwrap().clone();
                let answer = move |request: Request<hyper::body::Incoming>| {
                    let answer = answers.iter().find(|(path, _)| *path == request.uri().path());
                    let text = answer.map_or("[]".to_owned(), |(_, text)| text.clone());
                    async { Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from(text))) }
                };
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service_fn(answer)),
                );
            }
        });
        let service = Service::open(options(root.path())).unwrap();
        Self { answers, service, _root: root }
    }

    /// What is found of this kind when the storage server says this: about what, and why.
    async fn found(
        &self,
        kind: FindingKind,
        path: &'static str,
        answer: &str,
    ) -> Vec<(String, String)> {
        *self.answers.lock().unwrap() = vec![(path, answer.to_owned())];
        self.service.refresh_exports().await;
        let findings = self.service.findings().await.into_iter();
        let findings = findings.filter(|finding| finding.kind == kind);
        findings.map(|finding| (finding.subject.to_string(), finding.cause)).collect()
    }
}

#[tokio::test]
async fn what_the_storage_server_refuses_is_found_when_it_is_more_than_before() {
    let storage = Storage::start();
    let found = async |n: u64| {
        let answer = format!("{{\"limit\":1024,\"refused_connections\":{n}}}");
        storage.found(FindingKind::NoDescriptors, "/v1/descriptors", &answer).await
    };
    assert_eq!(found(3).await, [], "it may be long ago");
    assert_eq!(found(3).await, []);
    let cause = &found(4).await[0].1;
    assert!(cause.contains("only 1024 file descriptors"), "{cause}");
}

#[tokio::test]
async fn whom_it_can_t_serve_over_nbd_is_found_with_who_it_was() {
    let storage = Storage::start();
    let found = async |kind, refused: u64, short: u64, let_go: &str, not_proven: &str| {
        let answer = format!(
            "{{\"refused_connections\":{refused},\"short_of_memory\":{short},\"let_go\":[{let_go}],\
              \"not_proven\":[{not_proven}]}}"
        );
        storage.found(kind, "/v1/nbd", &answer).await
    };
    let known = "{\"address\":\"10.0.0.8\",\"count\":5}";
    assert_eq!(found(FindingKind::NbdFull, 5, 5, known, known).await, [], "it may be long ago");
    let full = found(FindingKind::NbdFull, 7, 5, known, known).await;
    assert!(full[0].1.contains("refused 2 more"), "{full:?}");
    assert_eq!(found(FindingKind::NbdMemoryShort, 7, 5, known, known).await, []);
    assert_eq!(found(FindingKind::NbdMemoryShort, 7, 6, known, known).await.len(), 1);
    let more = "{\"address\":\"10.0.0.8\",\"count\":6}";
    let crowded = found(FindingKind::NbdCrowded, 7, 6, more, known).await;
    assert_eq!(crowded[0].0, "10.0.0.8");
    // The server has started again, and counts from 0.
    let other = "{\"address\":\"10.0.0.9\",\"count\":2,\"machine\":\"lab-07\"}";
    let not_proven = found(FindingKind::DiskNotProven, 0, 0, "", other).await;
    let [(host, cause)] = &not_proven[..] else { panic!("{not_proven:?}") };
    assert_eq!(host, "10.0.0.9");
    assert!(
        cause.contains("2 times") && cause.contains("lab-07") && cause.contains("probably"),
        "{cause}"
    );
    assert_eq!(found(FindingKind::NbdFull, 1, 0, "", "").await.len(), 1);
}

#[tokio::test]
async fn that_no_machine_gets_a_disk_is_found() {
    let storage = Storage::start();
    let kind = FindingKind::LayersElsewhere;
    let found = storage.found(kind, "/v1/place", "\"the folder is another one\"").await;
    let cause = "No machine gets a disk: the folder is another one.".to_owned();
    assert_eq!(found, [("server".to_owned(), cause)]);
    assert_eq!(storage.found(kind, "/v1/place", "null").await, []);
}
