//! `bootlace help`

use super::{Cli, Refused, WrongUsage, advise, say};
use crate::paths::Paths;
use clap::{Args, CommandFactory as _};
use hyper::StatusCode;
use web::book::{self, PAGES, Page};

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
            [search, words @ ..] if search == "search" => return find(words),
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
    let words = words.join(" ");
    if words.trim().is_empty() {
        let text = "say what to look for: bootlace help search WORDS";
        return Err(WrongUsage(text.to_owned()).into());
    }
    let found = book::search(&words);
    if found.is_empty() {
        return Err(not_found(format!(
            "no line of the book has all of these words: {words}. Try fewer of them"
        )));
    }
    for found in found {
        say(format!("{} (bootlace help {})", found.page.title(), found.page.topic));
        for (heading, line) in found.lines {
            say(format!("  {heading}: {line}"));
        }
        if found.n_more > 0 {
            say(format!("  and {} more lines", found.n_more));
        }
    }
    Ok(())
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
