//! Whether the server is alive, and whether machines can boot: for programs that watch it. Why not stands on the pages,
//! which not everybody may read.

use axum::extract::State;
use axum::http::StatusCode;
use model::{Finding, Level, Subject};
use service::Service;

/// The process answers.
pub(crate) async fn is_alive() -> &'static str {
    "ok\n"
}

/// Whether nothing keeps all machines from booting.
pub(crate) async fn is_ready(State(service): State<Service>) -> (StatusCode, &'static str) {
    let findings = service.findings().await;
    let stops_all =
        |found: &Finding| found.level == Level::Alarm && matches!(found.subject, Subject::Server);
    match findings.iter().any(stops_all) {
        false => (StatusCode::OK, "ready\n"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "not ready: bootlace status says why\n"),
    }
}
