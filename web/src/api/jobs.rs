//! Jobs in the JSON API.

use super::Answer;
use crate::front::Front;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use service::jobs::Job;
use service::{Admin, Viewer};

type NumberPath = Result<Path<u64>, PathRejection>;

pub(super) fn router() -> Router<Front> {
    Router::new().route("/jobs", get(jobs)).route("/jobs/{number}", get(job).delete(cancel))
}

async fn jobs(service: Viewer) -> Answer<Json<Vec<Job>>> {
    Ok(Json(service.jobs().await?))
}

/// A job with its log.
#[derive(serde::Serialize)]
struct WithLog {
    #[serde(flatten)]
    job: Job,
    /// Lines for people.
    log: String,
}

async fn job(service: Viewer, number: NumberPath) -> Answer<Json<WithLog>> {
    let Path(number) = number?;
    let (job, log) = service.job(number).await?;
    Ok(Json(WithLog { job, log }))
}

/// Has a job stop, which it soon does.
async fn cancel(admin: Admin, number: NumberPath) -> Answer<(StatusCode, Json<Job>)> {
    let Path(number) = number?;
    Ok((StatusCode::ACCEPTED, Json(admin.cancel_job(number).await?)))
}
