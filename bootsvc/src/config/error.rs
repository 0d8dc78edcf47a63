//! What is wrong with a configuration, and where.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// There is no file yet.
    #[error(
        "there is no configuration {path}; write at least:\n\n  [network]\n  interface = \"enp3s0\"\n  \
         pool = \"10.0.5.100-10.0.5.199\"\n\nwith the interface and a range of free addresses of your \
         boot network"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
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

/// The message with file, line and the line itself, and the nearest key if one is unknown.
pub(super) fn show(path: &Path, text: &str, span: Option<Range<usize>>, message: &str) -> String {
    let start = span.map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..start).unwrap_or_default();
    let number = before.matches('\n').count() + 1;
    let mut shown = format!("{}, line {number}: {message}", path.display());
    if let Some(line) = text.lines().nth(number - 1) {
        let _ = write!(shown, "\n  {number} | {}", line.trim_end());
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field")
        && let Some(unknown) = quoted.next()
    {
        let nearest = quoted.max_by(|a, b| {
            strsim::jaro_winkler(unknown, a).total_cmp(&strsim::jaro_winkler(unknown, b))
        });
        if let Some(nearest) = nearest {
            let _ = write!(shown, "\n  did you mean `{nearest}`?");
        }
    }
    shown
}
