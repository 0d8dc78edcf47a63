//! Commands on pages and in answers, as they work on this site.

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use service::Service;

/// Longest answer in bytes: that of a site with 4,000 machines has 8 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Completes the commands in an answer for people.
pub(crate) async fn complete(
    State(service): State<Service>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let escape = match kind.map(|kind| kind.split(';').next().unwrap_or(kind)) {
        Some("text/html") => in_html,
        Some("application/json" | "application/problem+json") => in_json,
        _ => return response,
    };
    if service.options().commands == service::Commands::default() {
        return response;
    }
    let (mut head, body) = response.into_parts();
    match to_bytes(body, ANSWER_BYTES_MAX).await.map(|body| String::from_utf8(body.into())) {
        Ok(Ok(text)) => {
            let text = service.options().commands.complete_in(&text, escape);
            head.headers.remove(CONTENT_LENGTH);
            Response::from_parts(head, Body::from(text))
        }
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "This answer is too long.\n").into_response(),
    }
}

fn in_html(text: &str) -> String {
    let entity = |character| match character {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        '\'' => "&#39;".to_owned(),
        other => other.to_string(),
    };
    text.chars().map(entity).collect()
}

fn in_json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}
