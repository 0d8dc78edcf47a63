//! The book.

use super::{Failure, Frame, Page, render};
use crate::book::{self, Found, PAGES};
use askama::Template;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use service::Viewer;

#[derive(serde::Deserialize)]
pub(crate) struct Options {
    /// Words to look for.
    #[serde(default)]
    q: String,
}

#[derive(Template)]
#[template(path = "help.html")]
struct Contents {
    frame: Frame,
    q: String,
    found: Vec<FoundPage>,
    pages: &'static [book::Page],
}

/// Where words were found.
struct FoundPage {
    title: &'static str,
    address: String,
    lines: Vec<FoundLine>,
    n_more: usize,
}

struct FoundLine {
    heading: &'static str,
    address: String,
    text: String,
}

impl From<Found> for FoundPage {
    fn from(found: Found) -> Self {
        let line = |(heading, text)| {
            let address = found.page.address_of(heading);
            FoundLine { heading, address, text }
        };
        Self {
            title: found.page.title(),
            address: found.page.address(),
            lines: found.lines.into_iter().map(line).collect(),
            n_more: found.n_more,
        }
    }
}

/// What there is, or where words stand.
pub(crate) async fn contents(viewer: Viewer, Query(options): Query<Options>) -> Page {
    let q = options.q.trim().to_owned();
    let page = Contents {
        frame: Frame::new(&viewer, "help", "Help"),
        found: book::search(&q).into_iter().map(FoundPage::from).collect(),
        q,
        pages: PAGES,
    };
    Ok(render(StatusCode::OK, &page))
}

#[derive(Template)]
#[template(path = "help_page.html")]
struct Topic {
    frame: Frame,
    /// The page of the book, of which everything is escaped.
    html: String,
}

/// A page of it.
pub(crate) async fn show(viewer: Viewer, Path(topic): Path<String>) -> Page {
    let Some(page) = book::Page::of(&topic) else {
        let detail = "The book has no such page. Help shows all there are.".to_owned();
        return Err(Failure::with(&viewer, StatusCode::NOT_FOUND, detail));
    };
    let frame = Frame::new(&viewer, "help", page.title());
    Ok(render(StatusCode::OK, &Topic { frame, html: page.html() }))
}
