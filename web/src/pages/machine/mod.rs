//! One machine: what it shows, its settings, and what is done to it.

mod actions;
mod settings;
mod show;
mod snapshots;

use crate::front::Front;
use axum::Router;
use axum::routing::{get, post};

/// All addresses of one machine. What may lose something asks first, by GET.
pub(crate) fn router() -> Router<Front> {
    let routes = Router::new()
        .route("/", get(show::show).post(settings::save))
        .route("/log", get(show::kernel_log))
        .route("/screen", get(show::screen))
        .route("/remove", get(actions::ask_remove).post(actions::remove))
        .route("/reset", get(actions::ask_reset).post(actions::reset))
        .route("/keep", post(actions::keep))
        .route("/reboot", get(actions::ask_reboot).post(actions::reboot))
        .route("/poweroff", get(actions::ask_poweroff).post(actions::poweroff))
        .route("/resume-writes", post(actions::resume_writes))
        .route("/fail-writes", get(actions::ask_fail_writes).post(actions::fail_writes))
        .route("/next", post(actions::set_next))
        .route("/rescue", post(actions::want_rescue))
        .route("/capture", post(actions::capture))
        .route("/capture/off", post(actions::cancel_capture))
        .route("/snapshots", get(snapshots::show).post(snapshots::make))
        .route("/snapshots/change", post(snapshots::change))
        .route("/snapshots/{number}/remove", get(snapshots::ask_remove))
        .route("/snapshots/{number}/files", get(snapshots::files))
        .route("/snapshots/{number}/file", get(snapshots::file))
        .route("/rescue/off", post(actions::forget_rescue));
    Router::new().nest("/machines/{name}", routes)
}
