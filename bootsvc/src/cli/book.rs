//! What the book and the README say to type is what this program understands.

use super::Cli;
use crate::config::Config;
use clap::Parser as _;
use clap::error::ErrorKind;
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};
use std::path::{Path, PathBuf};

/// What stands for something else in a command, with something that could stand there.
const EXAMPLES: [(&str, &str); 6] = [
    ("DIR", "/tmp/trial"),
    ("FILE", "debian-12.qcow2"),
    ("IMAGE", "debian-12"),
    ("MAC", "52:54:00:12:34:56"),
    ("NAME", "lab-07"),
    ("NEW-MAC", "52:54:00:12:34:57"),
];

#[test]
fn commands_are_understood() {
    let mut n_commands = 0;
    for (page, text) in pages() {
        let (blocks, spans) = code(&text);
        let lines = blocks.iter().filter(|(language, _)| language.is_empty());
        let lines = lines.flat_map(|(_, block)| whole_lines(block)).map(|line| (line, true));
        let all = lines.chain(spans.into_iter().map(|span| (span, false)));
        for (line, is_whole) in all.filter(|(line, _)| line.starts_with("bootlace ")) {
            n_commands += 1;
            if let Err(error) = Cli::try_parse_from(words(&line)) {
                // A command may be named in a sentence without all that it needs.
                let is_named_only = matches!(
                    error.kind(),
                    ErrorKind::MissingRequiredArgument
                        | ErrorKind::MissingSubcommand
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                );
                let is_help =
                    matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
                assert!(
                    is_help || (is_named_only && !is_whole),
                    "{}: `{line}` is not understood:\n{error}",
                    page.display()
                );
            }
        }
    }
    assert!(n_commands > 50, "only {n_commands} were found");
}

#[test]
fn configurations_are_read() {
    let mut n_snippets = 0;
    for (page, text) in pages() {
        let (blocks, _) = code(&text);
        for (_, snippet) in blocks.iter().filter(|(language, _)| language == "toml") {
            n_snippets += 1;
            // Most snippets show a section, and not the two lines that every configuration has.
            let mut whole: toml::Table =
                toml::from_str(snippet).unwrap_or_else(|error| panic!("{snippet}\n{error}"));
            let network = whole.entry("network").or_insert(toml::Table::new().into());
            // Where there are several, the book shows them whole.
            if let Some(network) = network.as_table_mut() {
                for (key, value) in [("interface", "enp3s0"), ("pool", "10.0.5.100-10.0.5.199")] {
                    network.entry(key).or_insert(value.into());
                }
            }
            let whole = toml::to_string(&whole).expect("a table is TOML");
            if let Err(error) = toml::from_str::<Config>(&whole) {
                panic!("{} has\n{snippet}\n{error}", page.display());
            }
        }
    }
    assert!(n_snippets > 8, "only {n_snippets} were found");
}

#[test]
fn findings_are_those_of_the_book() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/findings.md");
    let page = std::fs::read_to_string(page).expect("findings have a page");
    let told: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let row = |kind: &model::FindingKind| {
        let (word, level) = (kind.word(), kind.level().word());
        format!("| `{word}` | {level} | {} | {} |", kind.passes(), kind.remedy())
    };
    let kinds: Vec<String> = model::FindingKind::ALL.iter().map(row).collect();
    assert_eq!(told, kinds, "docs/findings.md");
}

/// All pages that tell users what to type.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders = vec![root.join("docs")];
    let mut files = vec![root.join("README.md")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("docs is readable") {
            let path = entry.expect("docs is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                files.push(path);
            }
        }
    }
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("pages are UTF-8");
        (path, text)
    };
    files.into_iter().map(read).collect()
}

/// Blocks of code with their languages, and code inside of sentences.
fn code(text: &str) -> (Vec<(String, String)>, Vec<String>) {
    let (mut blocks, mut spans) = (Vec::new(), Vec::new());
    let mut block: Option<(String, String)> = None;
    for event in Parser::new_ext(text, pulldown_cmark::Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                let language = match kind {
                    CodeBlockKind::Fenced(language) => language.to_string(),
                    CodeBlockKind::Indented => String::new(),
                };
                block = Some((language, String::new()));
            }
            Event::End(TagEnd::CodeBlock) => blocks.extend(block.take()),
            Event::Text(text) => {
                if let Some((_, content)) = &mut block {
                    content.push_str(&text);
                }
            }
            Event::Code(span) => spans.push(span.to_string()),
            _ => {}
        }
    }
    (blocks, spans)
}

/// Lines of a block, each with those that continue it.
fn whole_lines(block: &str) -> Vec<String> {
    block.replace("\\\n", " ").lines().map(str::to_owned).collect()
}

/// Words as a shell would have them, with examples for what is to be filled in.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for character in line.split(" #").next().unwrap_or_default().chars() {
        match (quote, character) {
            // What follows is another program, or a file.
            (None, '|' | '>') => break,
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None, ' ') => words.push(String::new()),
            (_, other) => {
                if let Some(word) = words.last_mut() {
                    word.push(other);
                }
            }
        }
    }
    words.retain(|word| !word.is_empty() && word != "…");
    for word in &mut words {
        if let Some((_, example)) = EXAMPLES.iter().find(|(name, _)| name == word) {
            (*example).clone_into(word);
        }
    }
    words
}
