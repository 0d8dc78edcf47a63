//! The book, as a browser has it.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use model::FindingKind;
use service::{Commands, Options, Service};
use std::collections::BTreeMap;
use tower::ServiceExt as _;
use web::LocalAdmin;
use web::book::{PAGES, search};

struct Site {
    router: Router,
    _folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Commands as the book has them, and not as they work below this folder.
        let commands = Commands::default();
        let options = Options { init: None, commands, ..Options::under(folder.path()) };
        let service = Service::open(options).unwrap();
        Self { router: web::router(service, &[]), _folder: folder }
    }

    async fn get(&self, path: &str) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        request.extensions_mut().insert(LocalAdmin { uid: 0 });
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }
}

/// The values of an attribute.
fn attributes<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!(" {name}=\"");
    page.split(begin.as_str()).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[tokio::test]
async fn every_link_of_every_page_leads_somewhere() {
    let site = Site::new();
    let mut pages = BTreeMap::new();
    let mut to_read = vec!["/help".to_owned()];
    let mut n_links = 0;
    let mut anchors = Vec::new();
    while let Some(path) = to_read.pop() {
        if pages.contains_key(&path) {
            continue;
        }
        let (status, headers, page) = site.get(&path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{policy}");
        if path.starts_with("/help") {
            for link in attributes(&page, "href") {
                n_links += 1;
                if link.starts_with("http://")
                    || link.starts_with("https://")
                    || link.starts_with("data:")
                {
                    continue;
                }
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = if file.is_empty() { path.clone() } else { file.to_owned() };
                assert!(target.starts_with('/'), "{path}: {link}");
                if !anchor.is_empty() {
                    anchors.push((path.clone(), target.clone(), anchor.to_owned()));
                }
                to_read.push(target);
            }
        }
        pages.insert(path, page);
    }
    assert!(n_links > 500 && anchors.len() > 60, "{n_links} links, {} to headings", anchors.len());
    for (path, target, anchor) in anchors {
        let ids = attributes(&pages[&target], "id");
        let n = ids.iter().filter(|id| **id == anchor).count();
        assert_eq!(n, 1, "{path}: {target}#{anchor}");
    }
    for page in PAGES {
        assert!(
            pages.contains_key(&format!("/help/{}", page.topic)),
            "nothing leads to {}",
            page.topic
        );
    }
}

#[tokio::test]
async fn a_search_finds_what_the_command_finds() {
    let site = Site::new();
    let escaped = |text: &str| {
        let text = text.replace('&', "&#38;").replace('<', "&#60;").replace('>', "&#62;");
        text.replace('"', "&#34;").replace('\'', "&#39;")
    };
    for words in ["PXE-E53", "kernel panic", "secure boot violation", "root"] {
        let (_, _, page) = site.get(&format!("/help?q={}", words.replace(' ', "+"))).await;
        let found = search(words);
        assert!(!found.is_empty(), "{words}");
        for found in found {
            assert!(page.contains(&escaped(found.page.title())), "{words}: {}", found.page.topic);
            for (_, line) in found.lines {
                assert!(page.contains(&escaped(&line)), "{words}: {line}\n{page}");
            }
        }
        for link in attributes(&page, "href").iter().filter(|link| link.starts_with("/help/")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let (status, _, target) = site.get(path).await;
            assert_eq!(status, StatusCode::OK, "{link}");
            assert!(anchor.is_empty() || attributes(&target, "id").contains(&anchor), "{link}");
        }
    }
    let (_, _, page) = site.get("/help?q=%3Cscript%3Ealert(1)%3C/script%3E").await;
    assert!(page.contains("Try fewer of them") && !page.contains("<script"));
    let (_, _, page) = site.get("/help?q=").await;
    assert!(page.contains("Glossary") && page.contains("/help/symptoms"));
}

#[tokio::test]
async fn findings_and_failures_lead_to_what_helps() {
    let site = Site::new();
    let (_, _, page) = site.get("/help/findings").await;
    let ids = attributes(&page, "id");
    for kind in FindingKind::ALL {
        assert!(ids.contains(&kind.word()), "{kind}");
    }
    let (status, _, page) = site.get("/help/nothing").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(page.contains("The book has no such page") && page.contains("href=\"/help/symptoms\""));
    let (status, _, page) = site.get("/nothing").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(page.contains("href=\"/help\"") && page.contains("href=\"/help/symptoms\""));
}
