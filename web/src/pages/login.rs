//! Logging in and out.

use super::render;
use crate::front::{Asked, Front, Who, next_page};
use crate::problem::status_of;
use askama::Template;
use axum::Form;
use axum::extract::{Query, State};
use axum::http::header::{LOCATION, RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use service::{Error, NewSession};

#[derive(Default, serde::Deserialize)]
pub(crate) struct Options {
    /// Where to go on.
    #[serde(default)]
    next: String,
    /// The code of a link.
    code: Option<String>,
}

#[derive(serde::Deserialize)]
pub(crate) struct Credentials {
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    next: String,
    /// The code of a link, in place of name and password.
    code: Option<String>,
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    name: String,
    next: String,
    error: String,
    has_account: bool,
    /// Of the link that was followed; empty: of none.
    code: String,
    version: &'static str,
}

impl LoginPage {
    fn new(front: &Front, next: &str) -> Self {
        Self {
            name: String::new(),
            next: next_page(next).to_owned(),
            error: String::new(),
            has_account: front.has_account(),
            code: String::new(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// The form. For who follows a link, which root of the server got, it is a button: programs that show what is behind a link,
/// such as those of mail and chat, only read it, and must not use it up.
pub(crate) async fn show(
    State(front): State<Front>,
    Who(who): Who,
    Query(options): Query<Options>,
) -> Response {
    let mut page = LoginPage::new(&front, &options.next);
    page.code = options.code.unwrap_or_default();
    if who.is_some() && page.code.is_empty() {
        return (StatusCode::SEE_OTHER, [(LOCATION, page.next)]).into_response();
    }
    render(StatusCode::OK, &page)
}

pub(crate) async fn log_in(
    State(front): State<Front>,
    asked: Asked,
    Form(form): Form<Credentials>,
) -> Response {
    let session = match form.code.filter(|code| !code.is_empty()) {
        Some(code) => front.log_in_by_code(&code, &asked).await,
        None => front.log_in(&form.name, form.password, &asked).await,
    };
    let error = match session {
        Ok(session) => return logged_in(&asked, &session, next_page(&form.next)),
        Err(error) => error,
    };
    let mut page = LoginPage::new(&front, &form.next);
    (page.name, page.error) = (form.name, error.chain());
    let mut response = render(status_of(&error), &page);
    let seconds = match error {
        Error::LoginDelayed { seconds } => Some(seconds),
        Error::TooManyLogins => Some(2),
        _ => None,
    };
    if let Some(seconds) = seconds {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn logged_in(asked: &Asked, session: &NewSession, next: &str) -> Response {
    let mut response = (StatusCode::SEE_OTHER, [(LOCATION, next.to_owned())]).into_response();
    response.headers_mut().insert(SET_COOKIE, asked.keep(session));
    response
}

pub(crate) async fn log_out(State(front): State<Front>, asked: Asked, Who(who): Who) -> Response {
    if let Some(actor) = who
        && let Err(error) = front.log_out(&actor).await
    {
        return (status_of(&error), error.chain()).into_response();
    }
    let mut response = (StatusCode::SEE_OTHER, [(LOCATION, "/login")]).into_response();
    response.headers_mut().insert(SET_COOKIE, asked.forget());
    response
}
