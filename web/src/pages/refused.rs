//! What somebody gets who is not known, or may not do what he asks for.

use super::Failure;
use crate::front::{Asked, Refused, encoded};
use crate::problem::{Problem, status_of};
use axum::http::header::{LOCATION, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use service::{Error, Via, Viewer};

/// Why somebody may not, on a page of its own.
fn sentence(error: &Error, asked: &Asked, viewer: &Viewer) -> String {
    let is_no_account = matches!(error, Error::NoAccount) && asked.is_read();
    if is_no_account && matches!(viewer.actor().via(), Via::Directory(_)) {
        return "This page shows an account of this server. Yours is the directory's: its password is changed there, and tokens \
                are for accounts of this server only."
            .to_owned();
    }
    if is_no_account {
        return "This page shows an account: its password, sessions and tokens. You are root here, by a link of bootlace \
                login, and root has no account. Add one for yourself on the page Accounts, and log in with it."
            .to_owned();
    }
    as_sentence(error)
}

/// What is wrong, as it may stand among sentences.
pub(super) fn as_sentence(error: &Error) -> String {
    let text = error.chain();
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    format!("{}.", first.into_iter().chain(letters).collect::<String>())
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self { asked, error, viewer } = self;
        match (error, viewer) {
            (Some(error), _) if asked.is_for_programs() => Problem::from(error).into_response(),
            (Some(error), Some(viewer)) => {
                Failure::with(&viewer, status_of(&error), sentence(&error, &asked, &viewer))
                    .into_response()
            }
            (Some(error), None) => (status_of(&error), error.chain()).into_response(),
            (None, _) if asked.is_for_programs() => {
                let detail = "log in, or send a token: bootlace token add makes one";
                let mut response = Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
                let scheme = HeaderValue::from_static("Bearer");
                response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
                response
            }
            (None, _) => {
                let location = match asked.next() {
                    "/" => "/login".to_owned(),
                    next => format!("/login?next={}", encoded(next)),
                };
                (StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response()
            }
        }
    }
}
