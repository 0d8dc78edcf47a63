//! What is wrong with a configuration, and where.

use super::Config;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// There is no file yet, or it sets nothing, as the one that a package brings.
    #[error(
        "Bootlace is not configured yet: {what} in {path}; bootlace setup asks what it must know, or write there at \
         least:\n\n  [network]\n  interface = \"enp3s0\"\n  \
         pool = \"10.0.5.100-10.0.5.199\"\n\nwith the interface and a range of free addresses of your \
         boot network"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// What is not there.
        what: &'static str,
    },
    /// The file can't be read.
    #[error("can't read the configuration {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML, or has wrong keys or values. The text shows where.
    #[error("{0}")]
    Wrong(String),
}

/// The message with file, line and the line itself, and where an unknown key belongs or which is the nearest.
pub(super) fn show(path: &Path, text: &str, span: Option<Range<usize>>, message: &str) -> String {
    let start = span.map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..start).unwrap_or_default();
    let number = before.matches('\n').count() + 1;
    let line = text.lines().nth(number - 1);
    let secret = line.filter(|line| may_hold_secret(line));
    let said = match secret {
        Some(_) if message.starts_with("invalid ") => "this can't stand here".to_owned(),
        _ => plain(message, line),
    };
    let mut shown = format!("{}, line {number}: {said}", path.display());
    if let Some(line) = secret {
        let key = line.split('=').next().unwrap_or_default().trim();
        let _ = write!(shown, "\n  {number} | {key} = (not shown: there may be a secret)");
    } else if let Some(line) = line {
        let _ = write!(shown, "\n  {number} | {}", line.trim_end());
    }
    let Some((unknown, known)) = unknown_key(message) else { return shown };
    let alike = |key: &&str| strsim::jaro_winkler(unknown, key);
    if let Some(section) = section_of(unknown) {
        let _ = write!(shown, "\n  `{unknown}` belongs below [{section}]");
    } else if let Some(nearest) = known.into_iter().max_by(|a, b| alike(a).total_cmp(&alike(b))) {
        let _ = write!(shown, "\n  did you mean `{nearest}`?");
    }
    shown
}

/// Whether what is wrong in this line may be a password, or an address that lets in whoever knows it: others read what is said of it.
fn may_hold_secret(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["password", "passwd", "secret", "token", "url", "webhook"]
        .iter()
        .any(|word| line.contains(word))
        && line.contains('=')
}

/// The key that is none, and those that are.
fn unknown_key(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    Some((quoted.next()?, quoted.collect()))
}

/// The section that has such a key.
fn section_of(key: &str) -> Option<String> {
    let sections = toml::from_str::<Config>("none = 0").err()?.message().to_owned();
    let (_, sections) = unknown_key(&sections)?;
    let has_key = |section: &&str| {
        let error = toml::from_str::<Config>(&format!("[{section}]\nnone = 0")).err();
        error.is_some_and(|error| {
            unknown_key(error.message()).is_some_and(|(_, known)| known.contains(&key))
        })
    };
    sections.into_iter().find(has_key).map(str::to_owned)
}

/// Where the table is that begins in this line: below a header, or in braces.
fn place_in(line: &str) -> Option<String> {
    let line = line.trim();
    if let Some(header) = line.strip_prefix('[') {
        let header = header.trim_start_matches('[').split(']').next()?;
        return Some(format!("below [{}]", header.trim()));
    }
    let (key, value) = line.split_once('=')?;
    value.trim_start().starts_with('{').then(|| format!("in the braces of `{}`", key.trim()))
}

/// What a library says of a value, as a person would. Our own messages stay as they are.
fn plain(message: &str, line: Option<&str>) -> String {
    if let Some((unknown, known)) = unknown_key(message) {
        return format!("there is no `{unknown}` here; there are: {}", known.join(", "));
    }
    if let Some(missing) = message.strip_prefix("missing field `") {
        let missing = missing.trim_end_matches('`');
        return match line
            .and_then(place_in)
            .or_else(|| section_of(missing).map(|section| format!("below [{section}]")))
        {
            Some(place) => format!("`{missing}` is missing {place}"),
            None if missing == "network" => "the section [network] is missing".to_owned(),
            None => format!("`{missing}` is missing"),
        };
    }
    if let Some((found, wanted)) = message.split_once(", expected ")
        && let Some(found) =
            found.strip_prefix("invalid type: ").or_else(|| found.strip_prefix("invalid value: "))
    {
        let found = match found {
            "sequence" => "a list",
            "map" => "a table",
            other => other.split_once(' ').map_or(other, |(_, value)| value).trim_matches('`'),
        };
        let table = "a table in braces, like { key = \"value\" }";
        let wanted = match wanted {
            "IPv4 address" => "an address in quotes, like \"10.0.5.1\"".to_owned(),
            "socket address" => "ADDRESS:PORT in quotes, like \"127.0.0.1:8080\"".to_owned(),
            "a string" | "path string" => "text in quotes, like \"this\"".to_owned(),
            "a boolean" => "true or false, without quotes".to_owned(),
            "a sequence" => "a list in brackets, like [\"this\", \"that\"]".to_owned(),
            "a map" => table.to_owned(),
            "u16" => "a number from 0 to 65535, without quotes".to_owned(),
            "u32" => "a number from 0 to 4294967295, without quotes".to_owned(),
            "i64" => "a whole number, without quotes".to_owned(),
            other if other.starts_with("struct ") => table.to_owned(),
            other => other.to_owned(),
        };
        return format!("{found} can't stand here: write {wanted}");
    }
    if let Some(variants) = message.strip_prefix("unknown variant ")
        && let Some((found, variants)) = variants.split_once(", expected ")
    {
        return format!("{found} can't stand here: write {}", variants.replace('`', "\""));
    }
    if message == "duplicate key"
        && line.is_some_and(|line| line.replace([' ', '\t'], "").contains("[network]"))
    {
        return "there is one [network], or [[network]] with two brackets for each of several"
            .into();
    }
    match message {
        "invalid IPv4 address syntax" => {
            "this is not an IPv4 address: write four numbers with dots, like \"10.0.5.1\""
        }
        "invalid socket address syntax" => {
            "this is not an address with a port: write ADDRESS:PORT, like \"127.0.0.1:8080\""
        }
        "duplicate key" => "this is there twice: leave one of them out",
        other if other.starts_with("string values must be quoted") => {
            "text needs quotes, and straight ones: \"this\""
        }
        other => other,
    }
    .to_owned()
}
