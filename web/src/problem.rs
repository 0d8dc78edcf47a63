//! Errors of the API: RFC 9457 problem documents.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use service::incoming::IncomingError;
use service::jobs::JobError;
use service::{Error, StreamError, Unwritable, VersionError};
use std::future::ready;

/// How much of a request these routes read, and what is told who sends more. A limit within another one is the one that counts.
pub(crate) fn limited<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    n_bytes_max: usize,
) -> Router<S> {
    router
        .layer(DefaultBodyLimit::max(n_bytes_max))
        .layer(map_response(move |response| ready(in_our_words(response, n_bytes_max))))
}

/// A response says already how much is read.
#[derive(Clone, Copy)]
struct SaysHowMuch;

/// Who refuses what is too long does not know what the limit is, and says so in his library's words.
fn in_our_words(response: Response, n_bytes_max: usize) -> Response {
    let is_told = response.extensions().get::<SaysHowMuch>().is_some();
    if response.status() != StatusCode::PAYLOAD_TOO_LARGE || is_told {
        return response;
    }
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_problem = kind.is_some_and(|kind| kind == PROBLEM_TYPE);
    // Limits are whole ones, and their units in the book binary.
    let (n, unit) = match n_bytes_max >> 20 {
        0 => (n_bytes_max >> 10, "KiB"),
        n => (n, "MiB"),
    };
    let told = format!(
        "this is longer than the {n} {unit} that are read of such a request; nothing of it was done"
    );
    let mut response = match is_problem {
        true => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, told).into_response(),
        false => (StatusCode::PAYLOAD_TOO_LARGE, told).into_response(),
    };
    response.extensions_mut().insert(SaysHowMuch);
    response
}

/// What a problem document is.
const PROBLEM_TYPE: &str = "application/problem+json";

/// Why a request of the API was not carried out.
#[derive(Debug)]
pub struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) detail: String,
}

impl Problem {
    /// `detail` is the sentence for the person who asked.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }
}

/// The HTTP status of an error.
pub(crate) fn status_of(error: &Error) -> StatusCode {
    match error {
        _ if error.is_not_found() => StatusCode::NOT_FOUND,
        Error::NotAllowed { .. }
        | Error::NotThisMachine { .. }
        | Error::NotNow { .. }
        | Error::NoAccount
        | Error::NotByToken
        | Error::NotKeeper
        | Error::OwnPassword
        | Error::OnlyOnServer => StatusCode::FORBIDDEN,
        Error::LoginRefused | Error::LoginCodeVoid => StatusCode::UNAUTHORIZED,
        Error::LoginDelayed { .. } => StatusCode::TOO_MANY_REQUESTS,
        Error::TooManyLogins | Error::DirectoryAway => StatusCode::SERVICE_UNAVAILABLE,
        Error::NameTaken(_)
        | Error::NotForTrials { .. }
        | Error::UserTaken(_)
        | Error::MacTaken { .. } => StatusCode::CONFLICT,
        Error::Version(VersionError::NoCheck(_)) => StatusCode::UNPROCESSABLE_ENTITY,
        Error::Version(_) | Error::Edit(_) | Error::Snapshot(_) => StatusCode::CONFLICT,
        Error::NotInSnapshots(_) => StatusCode::NOT_FOUND,
        Error::BadSnapshotNote => StatusCode::UNPROCESSABLE_ENTITY,
        Error::Lease(error) if error.is_conflict() => StatusCode::CONFLICT,
        Error::Room(error) if error.is_conflict() => StatusCode::CONFLICT,
        Error::Job(JobError::HasEnded { .. }) | Error::Incoming(IncomingError::Taken(_)) => {
            StatusCode::CONFLICT
        }
        Error::Job(JobError::TooMany) | Error::Incoming(IncomingError::TooMany) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Error::Incoming(IncomingError::NoRoom { .. })
        | Error::Stream(StreamError::NoRoom { .. } | StreamError::DiskFull { .. }) => {
            StatusCode::INSUFFICIENT_STORAGE
        }
        Error::Stream(StreamError::Read(_)) => StatusCode::BAD_REQUEST,
        Error::Stream(
            StreamError::Busy
            | StreamError::NoBase { .. }
            | StreamError::Gap { .. }
            | StreamError::Stopped,
        ) => StatusCode::CONFLICT,
        Error::Stream(StreamError::Malformed(_) | StreamError::Newer(_)) => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Error::Incoming(IncomingError::CutOff) => StatusCode::BAD_REQUEST,
        _ if error.is_wrong_input() => StatusCode::UNPROCESSABLE_ENTITY,
        Error::Unwritable { why: Unwritable::Full, .. } => StatusCode::INSUFFICIENT_STORAGE,
        Error::Busy | Error::Stopping | Error::Storage(_) | Error::DiskLeft { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self { status: status_of(&error), detail: error.chain() }
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        match rejection.status() {
            // Whoever has set the limit says what it is.
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too long"),
            status => {
                let text = rejection.body_text();
                // What people read begins behind what the library does.
                let told =
                    text.strip_prefix("Failed to deserialize the JSON body into the target type: ");
                Self::new(status, told.unwrap_or(&text))
            }
        }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self { status: rejection.status(), detail: rejection.body_text() }
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self { status: rejection.status(), detail: rejection.body_text() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let headers = [(header::CONTENT_TYPE, PROBLEM_TYPE)];
        (self.status, headers, body.to_string()).into_response()
    }
}
