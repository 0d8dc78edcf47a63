//! The audit log.

use super::{Failure, Frame, Page, When, render};
use crate::front::encoded;
use askama::Template;
use axum::extract::Query;
use axum::http::StatusCode;
use service::Admin;

/// Entries on the page.
const ENTRIES: u32 = 100;

#[derive(serde::Deserialize)]
pub(crate) struct Options {
    /// Only entries with smaller numbers.
    before: Option<u64>,
    /// Only entries about this.
    #[serde(default)]
    about: String,
}

struct Entry {
    when: When,
    who: String,
    via: String,
    address: String,
    action: String,
    subject: String,
    /// As it stands in an address.
    subject_query: String,
    changes: Vec<Change>,
}

struct Change {
    field: String,
    old: String,
    new: String,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct Audit {
    frame: Frame,
    entries: Vec<Entry>,
    about: String,
    about_query: String,
    before: Option<u64>,
}

pub(crate) async fn show(admin: Admin, Query(options): Query<Options>) -> Page {
    let about = (!options.about.is_empty()).then(|| options.about.clone());
    let read = admin.audit(options.before, about, ENTRIES).await;
    let read = read.map_err(|error| Failure::new(&admin, &error))?;
    let now = admin.now();
    let entries = read.entries.into_iter().map(|entry| Entry {
        when: When::ms(entry.at_unix_ms, now),
        who: entry.who,
        via: entry.via,
        address: entry.address.unwrap_or_default(),
        action: entry.action,
        subject_query: encoded(&entry.subject),
        subject: entry.subject,
        changes: entry
            .changes
            .into_iter()
            .map(|change| Change {
                field: change.field,
                old: change.old.unwrap_or_else(|| "nothing".to_owned()),
                new: change.new.unwrap_or_else(|| "nothing".to_owned()),
            })
            .collect(),
    });
    let page = Audit {
        frame: Frame::new(&admin, "audit", "Audit log"),
        entries: entries.collect(),
        about_query: encoded(&options.about),
        about: options.about,
        before: read.before,
    };
    Ok(render(StatusCode::OK, &page))
}
