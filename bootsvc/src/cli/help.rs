//! `bootlace help`

use super::{Cli, Refused, advise, say};
use crate::help::{PAGES, Page};
use crate::paths::Paths;
use clap::{Args, CommandFactory as _};
use hyper::StatusCode;

/// Lines that a search shows of one page.
const LINES_MAX: usize = 8;

/// Characters of such a line.
const CHARS_MAX: usize = 300;

/// Show a page of the book, or look for words of a screen in it
///
/// The whole book is in this program. Without a topic it lists them.
///
///   bootlace help symptoms
///   bootlace help search PXE-E53
///   bootlace help machine set
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Help {
    /// A topic; `search` and the words to look for; or a command, for what it can do
    #[arg(value_name = "TOPIC")]
    words: Vec<String>,
}

impl Help {
    pub(super) fn run(&self, paths: &Paths) -> anyhow::Result<()> {
        match self.words.as_slice() {
            [] => list(),
            [search, words @ ..] if search == "search" && !words.is_empty() => return find(words),
            [topic] if Page::of(topic).is_some() => {
                if let Some(page) = Page::of(topic) {
                    advise(paths, page.text);
                }
            }
            words => return of_command(words),
        }
        Ok(())
    }
}

fn list() {
    say("Topics of the book, each shown by bootlace help TOPIC:\n");
    for page in PAGES {
        say(format!("  {:<22} {}", page.topic, page.title()));
    }
    say(
        "\nWords of a screen or a message are looked for by bootlace help search WORDS, options of a command are shown by",
    );
    say("bootlace help COMMAND, and all commands by bootlace --help.");
}

fn find(words: &[String]) -> anyhow::Result<()> {
    // Somebody may have quoted them.
    let words: Vec<String> =
        words.iter().flat_map(|word| word.split_whitespace()).map(str::to_owned).collect();
    let mut is_found = false;
    for page in PAGES {
        let lines = page.lines_with(&words);
        if lines.is_empty() {
            continue;
        }
        is_found = true;
        say(format!("{} (bootlace help {})", page.title(), page.topic));
        for (heading, line) in lines.iter().take(LINES_MAX) {
            let short: String = line.trim().chars().take(CHARS_MAX).collect();
            say(format!("  {heading}: {short}"));
        }
        if let Some(n) = lines.len().checked_sub(LINES_MAX).filter(|&n| n > 0) {
            say(format!("  and {n} more lines"));
        }
    }
    match is_found {
        true => Ok(()),
        false => Err(not_found(format!(
            "no line of the book has all of these words: {}. Try fewer of them",
            words.join(" ")
        ))),
    }
}

fn of_command(words: &[String]) -> anyhow::Result<()> {
    let mut found = Cli::command();
    found.build();
    for word in words {
        let Some(next) = found.get_subcommands().find(|it| it.get_name() == word).cloned() else {
            return Err(not_found(format!(
                "there is neither a topic nor a command {}; bootlace help lists the topics, and bootlace help search WORDS looks \
                 in all of them",
                words.join(" ")
            )));
        };
        found = next;
    }
    say(found.render_long_help());
    Ok(())
}

fn not_found(text: String) -> anyhow::Error {
    Refused::new(StatusCode::NOT_FOUND, text).into()
}
