//! A page of the book as HTML. Nothing of it is more than text: no script, no HTML of its own, nothing from elsewhere.

use super::{PAGES, Page};
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html};
use std::collections::BTreeSet;

/// The addresses of all pages begin so.
const HELP: &str = "/help/";

impl Page {
    /// Where it is.
    pub(crate) fn address(self) -> String {
        format!("{HELP}{}", self.topic)
    }

    /// Where the section below a heading is.
    pub(crate) fn address_of(self, heading: &str) -> String {
        format!("{}#{}", self.address(), anchor(&plain(heading)))
    }

    /// All of it. Headings can be linked to, and so can rows of tables that begin with a word in `code`, such as findings.
    pub(crate) fn html(self) -> String {
        rendered(self, self.text)
    }

    /// Where a link of this page leads to. `None`: to what is not in the program, such as a decision.
    fn target(self, link: &str) -> Option<String> {
        if link.starts_with("https://") || link.starts_with("http://") {
            return Some(link.to_owned());
        }
        let (file, anchor) = match link.split_once('#') {
            Some((file, anchor)) => (file, format!("#{anchor}")),
            None => (link, String::new()),
        };
        if file.is_empty() {
            return Some(anchor);
        }
        let path = beside(self.path, file.strip_suffix(".md")?);
        let page = PAGES.iter().find(|page| page.path == path)?;
        Some(page.address() + &anchor)
    }
}

/// The path of `link`, which stands in the file `path`.
fn beside(path: &str, link: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            other => parts.push(other),
        }
    }
    parts.join("/")
}

/// As git hosts and mdBook make them.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|character| match character {
        ' ' => Some('-'),
        '-' | '_' => Some(character),
        other => other.is_alphanumeric().then(|| other.to_ascii_lowercase()),
    });
    kept.collect()
}

/// What is read of a heading.
fn plain(heading: &str) -> String {
    let mut text = String::new();
    for event in Parser::new(&format!("# {heading}")) {
        if let Event::Text(part) | Event::Code(part) = event {
            text += &part;
        }
    }
    text
}

fn rendered(page: Page, text: &str) -> String {
    let mut events: Vec<Event<'_>> = Parser::new_ext(text, Options::ENABLE_TABLES).collect();
    let mut names = name_headings(&mut events);
    let mut shown = Vec::with_capacity(events.len() + 64);
    // For each link that is open, whether it leads somewhere.
    let mut links = Vec::new();
    let mut is_row_new = false;
    for event in events {
        match event {
            // A name that is taken in an address must not become a tag.
            Event::Html(text) | Event::InlineHtml(text) => shown.push(Event::Text(text)),
            Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
                let target = page.target(&dest_url);
                links.push(target.is_some());
                let link =
                    |target| Tag::Link { link_type, dest_url: CowStr::from(target), title, id };
                shown.extend(target.map(link).map(Event::Start));
            }
            Event::End(TagEnd::Link) => {
                if links.pop() == Some(true) {
                    shown.push(Event::End(TagEnd::Link));
                }
            }
            // Pictures are not in the program: what they show is said.
            Event::Start(Tag::Image { .. }) => shown.push(tag("<em class=\"picture\">")),
            Event::End(TagEnd::Image) => shown.push(tag("</em>")),
            Event::Start(Tag::Table(columns)) => {
                shown.push(tag("<div class=\"wide\" tabindex=\"0\">"));
                shown.push(Event::Start(Tag::Table(columns)));
            }
            Event::End(TagEnd::Table) => {
                shown.push(Event::End(TagEnd::Table));
                shown.push(tag("</div>\n"));
            }
            Event::Start(Tag::CodeBlock(kind)) => {
                shown.push(tag("<div class=\"wide\" tabindex=\"0\">"));
                shown.push(Event::Start(Tag::CodeBlock(kind)));
            }
            Event::End(TagEnd::CodeBlock) => {
                shown.push(Event::End(TagEnd::CodeBlock));
                shown.push(tag("</div>\n"));
            }
            Event::Start(Tag::TableRow) => {
                is_row_new = true;
                shown.push(Event::Start(Tag::TableRow));
            }
            Event::Start(Tag::TableCell) => shown.push(Event::Start(Tag::TableCell)),
            Event::Code(code) => {
                if std::mem::take(&mut is_row_new)
                    && is_word(&code)
                    && names.insert(code.to_string())
                {
                    shown.push(tag(&format!("<a id=\"{code}\"></a>")));
                }
                shown.push(Event::Code(code));
            }
            other => {
                is_row_new = false;
                shown.push(other);
            }
        }
    }
    let mut page = String::with_capacity(text.len() * 2);
    html::push_html(&mut page, shown.into_iter());
    page
}

/// Whether this may stand in an attribute as it is, and is one word.
fn is_word(code: &str) -> bool {
    !code.is_empty()
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn tag(html: &str) -> Event<'static> {
    Event::InlineHtml(CowStr::from(html.to_owned()))
}

/// Gives each heading the name by which links lead to it, and tells all of these.
fn name_headings(events: &mut [Event<'_>]) -> BTreeSet<String> {
    let mut open = None;
    let mut text = String::new();
    let mut names = Vec::new();
    for (at, event) in events.iter().enumerate() {
        match event {
            Event::Start(Tag::Heading { .. }) => open = Some(at),
            Event::End(TagEnd::Heading(_)) => {
                names.extend(open.take().map(|at| (at, anchor(&std::mem::take(&mut text)))));
            }
            Event::Text(part) | Event::Code(part) if open.is_some() => text += part,
            _ => {}
        }
    }
    let mut taken = BTreeSet::new();
    for (at, name) in names {
        // Of headings that are alike, links mean the first.
        let numbered = (1..).map(|n: u32| format!("{name}-{n}"));
        let mut free = std::iter::once(name.clone()).chain(numbered);
        let name = free.find(|name| !taken.contains(name)).unwrap_or_default();
        taken.insert(name.clone());
        if let Some(Event::Start(Tag::Heading { id, .. })) = events.get_mut(at) {
            *id = Some(CowStr::from(name));
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        rendered(Page::of("tls").unwrap(), text)
    }

    #[test]
    fn nothing_of_a_page_is_more_than_text() {
        let page = shown(
            "<script>alert(1)</script>\n\nA <b onclick=\"x\">bold</b> word, `<i>`.\n\n```\n<u>\n```\n",
        );
        assert!(
            !page.contains("<script") && !page.contains("<b ") && !page.contains("<i>"),
            "{page}"
        );
        assert!(page.contains("&lt;script&gt;") && page.contains("&lt;u&gt;"), "{page}");
        let page =
            shown("[a](javascript:alert(1)) [b](data:text/html,x) [c](//evil.example) [d](/users)");
        assert_eq!(page.trim(), "<p>a b c d</p>");
        assert_eq!(shown("| a |\n|---|\n| `x\"><b>` |\n").matches("<b>").count(), 0);
        for page in PAGES {
            let html = page.html();
            for refused in ["<script", "style=", "javascript:", "<img", "onclick"] {
                assert!(!html.contains(refused), "{}: {refused}", page.topic);
            }
        }
    }

    #[test]
    fn links_lead_to_pages_of_this_program() {
        let page = shown(
            "[a](accounts.md#roles) [b](../findings.md) [c](#x) [d](../decisions/0001-x.md) [e](https://a.example/)",
        );
        for link in ["/help/accounts#roles", "/help/findings", "#x", "https://a.example/"] {
            assert!(page.contains(&format!("<a href=\"{link}\">")), "{link}: {page}");
        }
        assert!(page.contains("</a> d <a"), "{page}");
    }

    #[test]
    fn headings_and_rows_have_names() {
        let page = shown(
            "## A `b`: c, d\n\n### no-b\n\n| kind |\n|---|\n| `no-initrd` |\n| x `no` |\n| `no-b` |\n",
        );
        assert!(page.contains("<h2 id=\"a-b-c-d\">"), "{page}");
        assert!(page.contains("<td><a id=\"no-initrd\"></a><code>"), "{page}");
        assert!(!page.contains("id=\"no\""), "{page}");
        assert_eq!(page.matches("id=\"no-b\"").count(), 1, "{page}");
        let page = Page::of("tls").unwrap();
        assert_eq!(page.address_of("A `b`: c"), "/help/tls#a-b-c");
        assert_eq!(page.address_of("1. Begin"), "/help/tls#1-begin");
        let page = shown("### user\n\n### user\n");
        assert!(page.contains("id=\"user\"") && page.contains("id=\"user-1\""), "{page}");
        let picture = shown("![The overview: twelve](pictures/machines.png)");
        assert!(picture.contains("<em class=\"picture\">The overview: twelve</em>"), "{picture}");
    }
}
