//! Of what is to be changed, the files that are laid over a root.

use super::found::Change;
use super::tree::Tree;
use super::units::ADMIN;
use crate::error::RootfsError;
use initcfg::{Laid, LaidPath, LaidWhat, OnlyIf, Overlay, content_digest};
use std::collections::BTreeMap;

/// Longest list of checks behind one path.
const ABOUT_MAX: usize = 400;

/// All changes to one file.
#[derive(Default)]
struct Edits<'a> {
    checks: Vec<&'a str>,
    comments: BTreeMap<usize, &'a str>,
    inserts: BTreeMap<usize, Vec<&'a str>>,
    whole: Option<LaidWhat>,
}

/// What is laid over the root for these changes, each with the check that wants it. What can't be laid anywhere is left out.
pub(super) fn overlay(
    tree: &Tree<'_>,
    changes: &[(&str, &Change)],
) -> Result<Overlay, RootfsError> {
    let mut files: BTreeMap<LaidPath, Edits<'_>> = BTreeMap::new();
    for &(check, change) in changes {
        let Some(path) = place(tree, change)? else { continue };
        let edits = files.entry(path).or_default();
        if !edits.checks.contains(&check) {
            edits.checks.push(check);
        }
        let file = |content: &str| LaidWhat::File {
            content: content.as_bytes().to_vec(),
            mode: None,
            owner: None,
        };
        match change {
            Change::CommentOut { line, .. } => {
                edits.comments.entry(*line).or_insert(check);
            }
            Change::InsertAfter { line, text, .. } => {
                edits.inserts.entry(*line).or_default().push(text);
            }
            Change::Mask(_) => {
                edits.whole = Some(LaidWhat::Link { target: "/dev/null".to_owned() });
            }
            Change::Write { text, .. } => edits.whole = Some(file(text)),
            Change::Remove(_) => edits.whole = Some(LaidWhat::Nothing),
        }
    }
    let mut entries = Vec::new();
    for (path, edits) in files {
        let former = tree.bytes(path.as_str())?;
        let only_if = match &former {
            Some(bytes) => OnlyIf::Content(content_digest(bytes)),
            None => OnlyIf::Missing,
        };
        let mut about = edits.checks.join(", ");
        about.truncate(ABOUT_MAX);
        let what = edits.whole.clone().unwrap_or_else(|| LaidWhat::File {
            content: edited(&former.unwrap_or_default(), &edits),
            mode: None,
            owner: None,
        });
        entries.push(Laid { path, only_if, what, about });
    }
    Ok(Overlay { entries })
}

/// Where it is laid; `None`: that is no place for it.
pub(super) fn place(tree: &Tree<'_>, change: &Change) -> Result<Option<LaidPath>, RootfsError> {
    Ok(match change {
        Change::Mask(unit) => LaidPath::new(&format!("{ADMIN}/{unit}")),
        // What is laid over lies in initrds, which everybody in the network can load.
        Change::CommentOut { path, .. } | Change::InsertAfter { path, .. }
            if !tree.exists(path)? || !tree.is_for_all(path)? || has_secret(tree, path)? =>
        {
            None
        }
        Change::CommentOut { path, .. }
        | Change::InsertAfter { path, .. }
        | Change::Remove(path) => match tree.exists(path)? {
            true => LaidPath::new(&tree.real(path)?),
            false => None,
        },
        Change::Write { path, .. } => match tree.exists(path)? {
            true => LaidPath::new(&tree.real(path)?),
            false => LaidPath::new(path),
        },
    })
}

/// What stands before or in a secret, in lines that anybody on the PC may read.
const SECRETS: [&str; 8] =
    ["password", "passwd", "pass=", "passphrase", "psk", "secret", "token", "credential"];

/// Whether a line of the file looks as if it held a password: whoever may log in to the PC may read that, but not everybody in the network.
fn has_secret(tree: &Tree<'_>, path: &str) -> Result<bool, RootfsError> {
    let text = tree.text(path)?.to_ascii_lowercase();
    Ok(SECRETS.iter().any(|secret| text.contains(secret)))
}

fn edited(former: &[u8], edits: &Edits<'_>) -> Vec<u8> {
    let mut text = Vec::with_capacity(former.len() + 256);
    for (index, line) in former.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if let Some(check) = edits.comments.get(&index) {
            text.extend(format!("# Bootlace ({check}): ").as_bytes());
        }
        text.extend(line);
        for more in edits.inserts.get(&index).into_iter().flatten() {
            if !text.ends_with(b"\n") {
                text.push(b'\n');
            }
            text.extend(more.as_bytes());
            text.push(b'\n');
        }
    }
    text
}
