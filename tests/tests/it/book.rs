//! The book: links lead somewhere, every page can be found, and what it says of the code is so.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Pages beside the book that have links.
const OTHER_PAGES: [&str; 3] = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"];

#[test]
fn links_lead_to_pages_and_headings_that_exist() {
    let pages = pages();
    for (path, page) in &pages {
        for link in &page.links {
            let broken = |why: &str| panic!("{}: the link {link} {why}", shown(path));
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                _ => normal(&path.parent().expect("pages lie in a folder").join(file)),
            };
            if !target.exists() {
                broken("leads to no file");
            }
            // mdBook knows nothing beside the book.
            if path.starts_with(docs()) && !target.starts_with(docs()) {
                broken("leads out of docs/");
            }
            let has_anchor = || {
                pages.get(&target).is_some_and(|page| page.anchors.iter().any(|it| it == anchor))
            };
            if !anchor.is_empty() && !has_anchor() {
                broken("leads to no heading");
            }
        }
    }
}

#[test]
fn every_page_is_in_the_summary_once_and_has_one_title() {
    let pages = pages();
    let summary = docs().join("SUMMARY.md");
    let mut listed = BTreeSet::new();
    for link in &pages[&summary].links {
        assert!(listed.insert(normal(&docs().join(link))), "SUMMARY.md names {link} twice");
    }
    for (path, page) in pages.iter().filter(|(path, _)| path.starts_with(docs())) {
        assert_eq!(page.n_titles, 1, "{} must have one title", shown(path));
        if *path != summary {
            assert!(listed.contains(path), "SUMMARY.md does not name {}", shown(path));
        }
    }
}

#[test]
fn decisions_are_listed_with_their_titles() {
    let pages = pages();
    let folder = docs().join("decisions");
    let list = std::fs::read_to_string(folder.join("README.md")).expect("decisions have a list");
    let summary = std::fs::read_to_string(docs().join("SUMMARY.md")).expect("SUMMARY.md");
    for (path, page) in pages.iter().filter(|(path, _)| path.parent() == Some(&folder)) {
        let name = path.file_name().expect("pages have names").to_string_lossy();
        if name != "README.md" {
            let (title, _) = page.text.split_once('\n').expect("pages have lines");
            let title = title.trim_start_matches("# ");
            let is_in = |text: &str, link: &str| text.contains(&format!("[{title}]({link})"));
            assert!(is_in(&list, &name), "decisions/README.md: [{title}]({name})");
            let link = format!("decisions/{name}");
            assert!(is_in(&summary, &link), "SUMMARY.md: [{title}]({link})");
        }
    }
}

#[test]
fn limits_are_those_of_the_code() {
    let code = code();
    let rows = rows(&docs().join("limits.md"));
    let named: Vec<_> = rows.iter().filter(|row| !row[2].spans.is_empty()).collect();
    assert!(named.len() > 40, "only {} limits have a name", named.len());
    let mut wrong = Vec::new();
    for row in named {
        let (limit, name) = (&row[1].text, &row[2].spans[0]);
        let definition = format!("const {name}: ");
        let values: Vec<u64> = code
            .split(&definition)
            .skip(1)
            .filter_map(|rest| value(rest.split_once("= ")?.1.split(';').next()?, name))
            .collect();
        if !values.iter().any(|&value| spellings(value).contains(limit)) {
            wrong.push(format!("{name} is {values:?}, the book says {limit}"));
        }
    }
    assert!(wrong.is_empty(), "limits.md is out of date: {wrong:#?}");
}

#[test]
fn quirks_name_tests_that_exist() {
    let code = code();
    let rows = rows(&docs().join("quirks.md"));
    let tests: Vec<_> = rows.iter().filter_map(|row| row.last()).flat_map(|it| &it.spans).collect();
    assert!(tests.len() > 40, "only {} tests are named", tests.len());
    let missing: Vec<_> =
        tests.into_iter().filter(|test| !code.contains(&format!("fn {test}("))).collect();
    assert!(missing.is_empty(), "quirks.md names tests that are not there: {missing:#?}");
}

#[test]
fn figures_for_prometheus_have_their_names() {
    let folder = root().join("web");
    let mut text = std::fs::read_to_string(folder.join("templates/metrics.txt")).expect("template");
    text += &std::fs::read_to_string(folder.join("src/metrics.rs")).expect("source");
    let page = std::fs::read_to_string(docs().join("how-to/monitoring.md")).expect("page");
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c| !is_name(c)).filter(|word| word.starts_with("bootlace_"));
        words.map(str::to_owned).collect()
    };
    let served = names(&text);
    let parts = ["_bucket", "_sum", "_count"];
    let served: BTreeSet<_> =
        served.into_iter().filter(|name| !parts.iter().any(|part| name.ends_with(part))).collect();
    assert_eq!(names(&page), served);
}

#[test]
fn the_api_has_the_paths_and_methods_of_the_book() {
    let mut sources = files(&root().join("web/src/api"), "rs");
    sources.push(root().join("web/src/api.rs"));
    let read = |path| std::fs::read_to_string(path).expect("source");
    let source: String = sources.into_iter().map(read).collect();
    let routes = source.split(".route(\"").skip(1).filter_map(|rest| {
        let (path, rest) = rest.split_once("\", ")?;
        // `get(show).put(add)`: what stands before a parenthesis is a method.
        let mut methods: Vec<_> = rest.split("))").next()?.split('(').collect();
        methods.pop();
        let methods = methods.into_iter().filter_map(|call| call.rsplit('.').next());
        Some((path.to_owned(), methods.map(str::to_uppercase).collect::<Vec<_>>().join(", ")))
    });
    let routes: BTreeMap<String, String> = routes.collect();
    let rows = rows(&docs().join("how-to/scripts.md"));
    let told = rows.into_iter().map(|mut row| (row.remove(0).text, row.remove(0).text));
    assert_eq!(told.collect::<BTreeMap<_, _>>(), routes);
}

#[test]
fn messages_and_stages_are_those_of_the_code() {
    let code = code();
    let messages = rows(&docs().join("messages.md"));
    assert!(messages.len() > 40, "only {} messages are explained", messages.len());
    let stages = rows(&docs().join("booting.md"));
    let messages = messages.iter().map(|row| &row[0].text);
    let said = messages.chain(stages.iter().flat_map(|row| [&row[0].text, &row[1].text]));
    // `…` stands for what differs from case to case.
    let pieces = said.flat_map(|text| text.split('…')).map(str::trim);
    let unknown: Vec<_> = pieces.filter(|piece| piece.len() > 2 && !code.contains(piece)).collect();
    assert!(unknown.is_empty(), "nothing in the code says what the book has: {unknown:#?}");
}

/// What is looked at of a page.
struct Page {
    text: String,
    links: Vec<String>,
    /// Of its headings, as git hosts and mdBook make them.
    anchors: Vec<String>,
    n_titles: usize,
}

fn pages() -> BTreeMap<PathBuf, Page> {
    let mut files = files(&docs(), "md");
    files.extend(OTHER_PAGES.map(|name| root().join(name)));
    files.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

fn read(path: &Path) -> Page {
    let text = std::fs::read_to_string(path).expect("pages are UTF-8");
    let (mut links, mut anchors, mut n_titles) = (Vec::new(), Vec::new(), 0);
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                links.push(dest_url.to_string());
            }
            Event::Start(Tag::Heading { level, .. }) => {
                // The summary's other titles are the parts of the book.
                n_titles += usize::from(level == HeadingLevel::H1 && anchors.is_empty());
                heading = Some(String::new());
            }
            Event::End(TagEnd::Heading(_)) => {
                anchors.extend(heading.take().map(|text| anchor(&text)));
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            _ => {}
        }
    }
    Page { text, links, anchors, n_titles }
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|character| match character {
        ' ' => Some('-'),
        '-' | '_' => Some(character),
        other => other.is_alphanumeric().then(|| other.to_ascii_lowercase()),
    });
    kept.collect()
}

/// A cell of a table.
#[derive(Default)]
struct Cell {
    text: String,
    /// What is marked as code.
    spans: Vec<String>,
}

/// All rows of all tables of a page, without their headings.
fn rows(path: &Path) -> Vec<Vec<Cell>> {
    let text = std::fs::read_to_string(path).expect("pages are UTF-8");
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    let mut is_row = false;
    for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
        let cell = rows.last_mut().and_then(|row| row.last_mut());
        match event {
            Event::Start(Tag::TableRow) => {
                rows.push(Vec::new());
                is_row = true;
            }
            Event::End(TagEnd::TableRow) => is_row = false,
            Event::Start(Tag::TableCell) if is_row => {
                rows.last_mut().expect("cells lie in rows").push(Cell::default());
            }
            Event::Text(text) if is_row => cell.expect("text lies in a cell").text += &text,
            Event::Code(text) if is_row => {
                let cell = cell.expect("code lies in a cell");
                cell.text += &text;
                cell.spans.push(text.to_string());
            }
            _ => {}
        }
    }
    rows
}

/// The sources of all that runs, with strings that are broken over lines put together again.
fn code() -> String {
    let folders =
        ["bootsvc", "crates", "images", "initrd-builder", "storage", "tests", "web", "xtask"];
    let mut all = String::new();
    for folder in folders {
        for extension in ["rs", "html"] {
            for file in files(&root().join(folder), extension) {
                all += &std::fs::read_to_string(file).expect("sources are UTF-8");
            }
        }
    }
    let mut pieces = all.split("\\\n");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    pieces.for_each(|piece| text += piece.trim_start());
    text.replace("\\\"", "\"")
}

/// The value of a constant: a number, a product, a shift, a sum, or a time in milliseconds.
fn value(text: &str, name: &str) -> Option<u64> {
    let in_ms = |factor: u64, inner: &str| Some(factor * value(inner.strip_suffix(')')?, "")?);
    if let Some(inner) = text.strip_prefix("Duration::from_secs(") {
        return in_ms(1000, inner);
    }
    if let Some(inner) = text.strip_prefix("Duration::from_millis(") {
        return in_ms(1, inner);
    }
    let number = |text: &str| -> Option<u64> {
        let digits = text.trim().replace('_', "");
        match digits.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => digits.parse().ok(),
        }
    };
    let number = match (text.split_once(" << "), text.contains(" * ")) {
        (Some((number_of, shift)), _) => number(number_of)? << number(shift)?,
        (None, true) => text.split(" * ").map(number).product::<Option<u64>>()?,
        (None, false) => number(text)?,
    };
    Some(if name.ends_with("_SECONDS") { number * 1000 } else { number })
}

/// How the book may write a limit.
fn spellings(value: u64) -> Vec<String> {
    let mut all = vec![value.to_string(), format!("{value} bytes"), format!("{value} ms")];
    for (shift, unit) in [(10, "KiB"), (20, "MiB"), (30, "GiB"), (40, "TiB")] {
        all.extend(value.is_multiple_of(1 << shift).then(|| format!("{} {unit}", value >> shift)));
    }
    all.extend(value.is_multiple_of(1000).then(|| format!("{} s", value / 1000)));
    all
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the tree is readable") {
            let path = entry.expect("the tree is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The path without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn docs() -> PathBuf {
    root().join("docs")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").into()
}
