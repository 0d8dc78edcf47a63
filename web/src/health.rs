//! Whether the server is alive, and whether machines can boot: for programs that watch it. Why not stands on the pages,
//! which not everybody may read.

use crate::front::Front;
use axum::extract::State;
use axum::http::StatusCode;

/// The process answers.
pub(crate) async fn is_alive() -> &'static str {
    "ok\n"
}

/// Whether nothing keeps all machines from booting.
pub(crate) async fn is_ready(State(front): State<Front>) -> (StatusCode, &'static str) {
    match front.is_ready().await {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready: bootlace status says why\n"),
    }
}
