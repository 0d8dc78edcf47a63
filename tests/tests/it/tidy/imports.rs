//! Which modules of a crate use which, read from its source: `crate::…` and, in files that lie beside
//! `lib.rs`, `super::…`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Arrows between the modules at the top of a crate (files or folders beside `lib.rs`), each with a file that
/// draws it. Tests don't count.
pub(super) type Arrows = BTreeMap<(String, String), PathBuf>;

/// Reads a crate; `sources` are its files.
pub(super) fn arrows(folder: &Path, sources: &[PathBuf]) -> Arrows {
    let files: Vec<(&PathBuf, String)> = sources
        .iter()
        .filter_map(|path| Some((path, module_of(path.strip_prefix(folder).ok()?)?)))
        .collect();
    let modules: BTreeSet<&str> = files.iter().map(|(_, module)| module.as_str()).collect();
    // What the crate's root gives out under a shorter name still comes from its module.
    let root = ["lib.rs", "main.rs"].map(|name| std::fs::read_to_string(folder.join(name)));
    let given_out: BTreeMap<String, String> =
        root.iter().flatten().flat_map(|text| given_out(&code(text), &modules)).collect();
    let mut arrows = Arrows::new();
    for (path, module) in &files {
        let text = code(&std::fs::read_to_string(path).expect("sources are UTF-8"));
        let is_at_top = path.parent() == Some(folder)
            || path.ends_with("mod.rs") && path.parent().and_then(Path::parent) == Some(folder);
        let mut used = names_after(&text, "crate::");
        if is_at_top {
            used.extend(names_after(&text, "super::"));
        }
        for name in used {
            let used = if modules.contains(name) { Some(name) } else { None };
            if let Some(used) = used.or_else(|| given_out.get(name).map(String::as_str))
                && used != module
            {
                arrows.insert((module.clone(), used.to_owned()), (*path).clone());
            }
        }
    }
    arrows
}

/// A way from a module back to itself, if there is one, without those arrows.
pub(super) fn circle(arrows: &Arrows, but: &[&str]) -> Option<Vec<String>> {
    let starts: BTreeSet<&String> = arrows.keys().map(|(from, _)| from).collect();
    starts.into_iter().find_map(|start| {
        // Breadth first, so that the way is short.
        let mut ways = vec![vec![start.clone()]];
        let mut seen = BTreeSet::new();
        while !ways.is_empty() {
            let mut longer = Vec::new();
            for way in ways {
                let last = way.last().expect("a way has a start");
                for (_, to) in arrows.keys().filter(|(from, _)| from == last) {
                    if but.contains(&last.as_str()) && but.contains(&to.as_str()) {
                        continue;
                    }
                    let next = [&way[..], std::slice::from_ref(to)].concat();
                    if to == start {
                        return Some(next);
                    }
                    if seen.insert(to.clone()) {
                        longer.push(next);
                    }
                }
            }
            ways = longer;
        }
        None
    })
}

/// The code of a file without comments, and without its tests at the end.
pub(super) fn code(text: &str) -> String {
    let end = text.find("\n#[cfg(test)]\nmod ").filter(|at| text[*at..].contains("{\n"));
    let text = &text[..end.unwrap_or(text.len())];
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The module at the top that a file belongs to; none for the root itself and for its tests.
fn module_of(path: &Path) -> Option<String> {
    let first = path.iter().next()?.to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!["lib", "main", "tests"].contains(&name)).then(|| name.to_owned())
}

/// Names that the root takes from modules by `use`, with the module of each.
fn given_out(root: &str, modules: &BTreeSet<&str>) -> Vec<(String, String)> {
    let uses = root.split("use ").skip(1).filter_map(|rest| rest.split(';').next());
    uses.flat_map(|path| {
        let path = path.strip_prefix("crate::").unwrap_or(path);
        let (module, names) = path.split_once("::").unwrap_or((path, ""));
        let names = names.split(|c: char| !is_of_name(c)).filter(|name| !name.is_empty());
        names
            .filter(|_| modules.contains(module))
            .map(|name| (name.to_owned(), module.to_owned()))
            .collect::<Vec<_>>()
    })
    .collect()
}

/// The names that follow `start` somewhere: one, or the first of each path in braces.
fn names_after<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices(start) {
        // `super::super::x` is no name of a file beside the root, nor is `some_crate::x` ours.
        if text[..at].ends_with(|c: char| is_of_name(c) || c == ':' || c == '$') {
            continue;
        }
        let rest = &text[at + start.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(firsts(group)),
            None => names.extend(name(rest)),
        }
    }
    names
}

/// The first names of the paths in a group, which ends with the brace that closes it.
fn firsts(group: &str) -> Vec<&str> {
    let (mut depth, mut is_new, mut names) = (0, true, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_new = true,
            _ if is_new && is_of_name(character) => {
                names.extend(name(&group[at..]));
                is_new = false;
            }
            _ => {}
        }
    }
    names
}

fn name(text: &str) -> Option<&str> {
    text.split(|c: char| !is_of_name(c)).next().filter(|name| !name.is_empty())
}

fn is_of_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

#[test]
fn imports_are_read_in_all_forms() {
    let text = "use crate::{\n    a::{self, A},\n    b::{C, d::E}, f,\n};\nuse crate::g;\n\
                let x = crate::h::i();\nuse other_crate::j;\n// crate::k\n";
    assert_eq!(names_after(&code(text), "crate::"), ["a", "b", "f", "g", "h"]);
    assert_eq!(names_after("use super::super::a;", "super::"), ["super"]);
    let modules = BTreeSet::from(["error", "fleet"]);
    let given_out = given_out("pub use crate::fleet::state::{A, b};\npub use x::Y;", &modules);
    let names: Vec<&str> = given_out.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["state", "A", "b"]);
}

#[test]
fn a_circle_is_found_unless_it_is_excepted() {
    let arrow = |from: &str, to: &str| ((from.to_owned(), to.to_owned()), PathBuf::new());
    let arrows = Arrows::from([arrow("a", "b"), arrow("b", "c"), arrow("c", "b")]);
    assert_eq!(circle(&arrows, &[]).unwrap(), ["b", "c", "b"]);
    assert_eq!(circle(&arrows, &["b", "c"]), None);
    assert_eq!(circle(&Arrows::from([arrow("a", "b"), arrow("b", "c")]), &[]), None);
}
