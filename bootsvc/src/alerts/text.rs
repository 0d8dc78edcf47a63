//! What an alert says.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use service::{Alert, AlertItem};
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Causes that a message tells; the page has all.
const CAUSES_MAX: usize = 20;

/// Names that it gives for each.
const NAMES_MAX: usize = 20;

/// Findings in a webhook's message.
const ITEMS_MAX: usize = 200;

/// A message to people.
pub(crate) struct Message {
    /// One line.
    pub(super) subject: String,
    pub(super) body: String,
    /// The same for programs.
    pub(super) json: Value,
    /// Tells it from all others, as mail wants it.
    pub(super) id: String,
}

impl Message {
    /// Says what is found and what is over.
    pub(crate) fn of(alert: &Alert) -> Self {
        let host = host_name();
        let subject = subject(alert, &host);
        let mut body = String::new();
        for (title, items) in [
            ("", &alert.found),
            ("Over:\n\n", &alert.resolved),
            ("Came and went while no message could be sent:\n\n", &alert.passed),
        ] {
            if !items.is_empty() {
                body.push_str(title);
                tell(&mut body, items, title.is_empty());
            }
        }
        let _ = writeln!(body, "All that is so now: bootlace status on {host}.");
        Self::new(&host, subject, body, alert)
    }

    /// One that only shows that messages arrive.
    pub(crate) fn trial() -> Self {
        let host = host_name();
        let subject = format!("[bootlace {host}] test: alerts arrive");
        let body = format!(
            "This is a test: bootlace alert test on {host} has sent it. Alerts of this server will come to you.\n"
        );
        Self::new(&host, subject, body, &Alert::default())
    }

    fn new(host: &str, subject: String, body: String, alert: &Alert) -> Self {
        let first = |items: &[AlertItem]| items[..items.len().min(ITEMS_MAX)].to_vec();
        let lists = [&alert.found, &alert.resolved, &alert.passed];
        let n_left_out: usize = lists.iter().map(|it| it.len().saturating_sub(ITEMS_MAX)).sum();
        let json = json!({
            "text": format!("{subject}\n\n{body}"),
            "host": host,
            "version": env!("CARGO_PKG_VERSION"),
            "found": first(&alert.found),
            "resolved": first(&alert.resolved),
            "passed": first(&alert.passed),
            "n_left_out": n_left_out,
        });
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        let id = format!("<{now}.{}@{host}>", std::process::id());
        Self { subject, body, json, id }
    }
}

/// `[bootlace HOST] alarm: storage-silent, and 3 more`
fn subject(alert: &Alert, host: &str) -> String {
    let found = alert.found.iter().map(|item| (item.level.word(), item));
    let resolved = alert.resolved.iter().map(|item| ("over", item));
    let passed = alert.passed.iter().map(|item| ("was", item));
    let all: Vec<(&str, &AlertItem)> = found.chain(resolved).chain(passed).collect();
    let Some((word, first)) = all.first() else { return format!("[bootlace {host}]") };
    let name = if first.about == "server" { "" } else { &format!(" {}", first.subject) };
    let more = match all.len() - 1 {
        0 => String::new(),
        n => format!(", and {n} more"),
    };
    plain(&format!("[bootlace {host}] {word}: {}{name}{more}", first.kind))
}

/// Adds a paragraph for each cause.
fn tell(body: &mut String, items: &[AlertItem], is_so: bool) {
    let alike: Vec<&[AlertItem]> =
        items.chunk_by(|one, other| one.kind == other.kind && one.cause == other.cause).collect();
    for group in alike.iter().take(CAUSES_MAX) {
        let [first, ..] = group else { continue };
        let names: Vec<&str> =
            group.iter().take(NAMES_MAX).map(|item| item.subject.as_str()).collect();
        let mut names = names.join(", ");
        if let Some(n) = group.len().checked_sub(NAMES_MAX).filter(|&n| n > 0) {
            let _ = write!(names, " and {n} more");
        }
        let since = group.iter().map(|item| item.since_unix_ms).min().unwrap_or_default();
        let level = first.level.word();
        let line = format!("{level}: {names}: {}", first.cause);
        let _ = writeln!(body, "{}", plain(&line));
        let _ = writeln!(body, "    {}, since {}", first.kind, date(since));
        if is_so {
            let _ = writeln!(body, "    {}", plain(&first.remedy));
        }
        body.push('\n');
    }
    if let Some(n) = alike.len().checked_sub(CAUSES_MAX).filter(|&n| n > 0) {
        let _ = writeln!(body, "And {n} more.\n");
    }
}

fn date(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let time = time.unwrap_or_default().to_zoned(TimeZone::system());
    time.strftime("%Y-%m-%d %H:%M %Z").to_string()
}

/// One line, whatever is in it.
fn plain(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
}

/// What this host calls itself.
pub(super) fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let is_plain = |it: &char| it.is_ascii_alphanumeric() || "-_.".contains(*it);
    let name: String = name.unwrap_or_default().chars().filter(is_plain).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::FindingKind;

    fn item(name: &str, cause: &str) -> AlertItem {
        let kind = FindingKind::MachineFailed;
        AlertItem {
            kind,
            level: kind.level(),
            about: "machine".to_owned(),
            subject: name.to_owned(),
            cause: cause.to_owned(),
            remedy: kind.remedy().to_owned(),
            since_unix_ms: 1_000_000,
        }
    }

    #[test]
    fn thirty_of_one_cause_are_one_paragraph() {
        let names: Vec<String> = (0..30).map(|n| format!("lab-{n:02}")).collect();
        let found = names.iter().map(|name| item(name, "It has no disk.")).collect();
        let resolved = vec![item("lab-99", "It was so.")];
        let message = Message::of(&Alert { found, resolved, passed: vec![] });
        assert!(
            message.subject.ends_with("warning: machine-failed lab-00, and 30 more"),
            "{}",
            message.subject
        );
        assert!(message.body.contains("lab-19 and 10 more: It has no disk."), "{}", message.body);
        assert!(message.body.contains("Over:\n\nwarning: lab-99: It was so."), "{}", message.body);
        assert_eq!(message.json["found"].as_array().unwrap().len(), 30);
    }

    #[test]
    fn many_causes_are_counted_and_no_text_makes_a_line_of_its_own() {
        let found: Vec<_> =
            (0..25).map(|n| item("x\r\nBcc: y@z", &format!("C{n}\r\n.\r\nQUIT"))).collect();
        let message = Message::of(&Alert { found, ..Alert::default() });
        assert!(message.body.contains("And 5 more."), "{}", message.body);
        assert!(!message.subject.contains(['\r', '\n']), "{:?}", message.subject);
        assert!(
            !message.body.lines().any(|line| line.starts_with(['.', 'Q', 'B'])),
            "{}",
            message.body
        );
    }
}
