//! Pages and JSON API of a site.
//!
//! Every address is a page and every action a form: POST, 303, page. No script is needed, and none is
//! served. What the pages can do, the API under `/api/v1` can do with the same words.
#![forbid(unsafe_code)]

mod api;
pub mod book;
mod commands;
mod front;
mod guard;
mod health;
mod local;
mod metrics;
mod pages;
mod problem;
pub mod setup;
mod text;
mod timeline;
mod upload;

pub use api::NOTHING_HERE;
pub use front::Browser;
pub use local::LocalAdmin;
pub use problem::Problem;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use front::Front;
use service::Service;
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::csrf::CsrfLayer;

/// Longest body of a request: our forms have a few hundred bytes, kernel parameters 1024 at most.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Pages and API of a site. Who asks stands in the extensions of each request: a [`Browser`] or a [`LocalAdmin`].
///
/// `names` are those by which browsers may call it beside addresses, `localhost` and the host's own name.
pub fn router(service: Service, names: &[String]) -> Router {
    let front = Front::new(service.clone());
    let router = Router::new()
        .route("/", get(pages::overview::show))
        .route("/login", get(pages::login::show).post(pages::login::log_in))
        .route("/logout", post(pages::login::log_out))
        .route("/account", get(pages::account::show))
        .route("/account/password", post(pages::account::change_password))
        .route("/account/sessions/{id}/end", post(pages::account::end_session))
        .route("/account/tokens", post(pages::account::add_token))
        .route("/account/tokens/{id}/remove", post(pages::account::remove_token))
        .route("/users", get(pages::users::show).post(pages::users::add))
        .route("/users/{name}", post(pages::users::change))
        .route("/users/{name}/remove", get(pages::users::ask_remove))
        .route("/audit", get(pages::audit::show))
        .route("/findings", get(pages::findings::show))
        .route("/machines", get(pages::machines::show))
        .merge(pages::machine::router())
        .route("/discovered", get(pages::discovered::show))
        .route("/discovered/{mac}/adopt", post(pages::discovered::adopt))
        .route("/discovered/{mac}/add", post(pages::discovered::add))
        .route("/leases", get(pages::leases::show))
        .route("/leases/{address}/free", post(pages::leases::free))
        .route("/leases/{address}/fix", post(pages::leases::fix))
        .route("/leases/{address}/unfix", post(pages::leases::unfix))
        .merge(pages::disks::router())
        .merge(pages::files::router())
        .route("/images", get(pages::images::show))
        .route("/images/{image}/rollback", post(pages::versions::roll_back))
        .route("/images/{image}/ring", post(pages::versions::ring))
        .route("/images/{image}/{version}", get(pages::version::show).post(pages::versions::change))
        .route("/images/{image}/{version}/fix", post(pages::version::fix))
        .route("/images/{image}/{version}/remove", get(pages::versions::ask_remove))
        .route("/images/import", get(pages::incoming::show).post(pages::incoming::import))
        .route("/images/build", get(pages::building::show).post(pages::building::build))
        .route("/images/edits", get(pages::edits::show).post(pages::edits::begin))
        .route("/images/edits/{machine}/publish", post(pages::edits::publish))
        .route(
            "/images/edits/{machine}/discard",
            get(pages::edits::ask_discard).post(pages::edits::discard),
        )
        .route("/images/upload", post(pages::incoming::upload).layer(DefaultBodyLimit::disable()))
        .route("/images/incoming/remove", post(pages::incoming::remove))
        .route("/jobs", get(pages::jobs::show_all))
        .route("/jobs/{number}", get(pages::jobs::show))
        .route("/jobs/{number}/cancel", post(pages::jobs::cancel))
        .route("/help", get(pages::help::contents))
        .route("/help/{page}", get(pages::help::show))
        .route("/metrics", get(metrics::show))
        .route("/healthz", get(health::is_alive))
        .route("/readyz", get(health::is_ready))
        .route("/assets/app.css", get(pages::style))
        .nest("/api/v1", api::router())
        .fallback(pages::not_found)
        .layer(from_fn_with_state(service, commands::complete))
        .layer(from_fn_with_state(front.clone(), front::identify))
        .layer(from_fn_with_state(front.clone(), front::count_refused))
        .layer(CsrfLayer::new())
        .layer(from_fn_with_state(Arc::from(names), guard::guard));
    problem::limited(router, BODY_BYTES_MAX).layer(CatchPanicLayer::new()).with_state(front)
}
