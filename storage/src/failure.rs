//! What the storage API says when it does not do what it was asked.

use crate::table::ExportError;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use images::{LayerError, RootfsError};

pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// A file of a snapshot can't be had.
    pub(crate) fn of_files(error: &RootfsError) -> Self {
        let status = match error {
            RootfsError::NotFound(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::CONFLICT,
        };
        Self { status, text: wire::error_chain(error) }
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        let status = match error {
            ExportError::Image(_)
            | ExportError::Layer(LayerError::NoSnapshot { .. } | LayerError::NoDisk(_))
            | ExportError::None(_)
            | ExportError::NoCandidate { .. } => StatusCode::NOT_FOUND,
            ExportError::Layer(_)
            | ExportError::OtherFolder { .. }
            | ExportError::AddressTaken { .. }
            | ExportError::HasItsDisk(_) => StatusCode::CONFLICT,
            ExportError::OtherDisk(_) => StatusCode::PRECONDITION_FAILED,
            ExportError::NoDisk(_) => StatusCode::GONE,
            ExportError::Busy(_) | ExportError::Runs { .. } => StatusCode::SERVICE_UNAVAILABLE,
            ExportError::Table { .. }
            | ExportError::Damaged { .. }
            | ExportError::Forgotten { .. }
            | ExportError::NoRandomness => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, text: wire::error_chain(&error) }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(serde_json::json!({ "error": self.text }))).into_response()
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ExportError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.into()),
        Err(error) => {
            let text = format!("the storage server has a bug: {error}");
            Err(Failure { status: StatusCode::INTERNAL_SERVER_ERROR, text })
        }
    }
}
