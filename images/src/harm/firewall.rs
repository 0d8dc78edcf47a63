//! Firewalls: whether what the storage server answers comes through, as far as their files show.

use super::System;
use super::found::{Change, Checked, Found};
use crate::error::RootfsError;

/// Files that one rule set may include.
const INCLUDES_MAX: usize = 32;

/// Braces in braces; nft(8) itself has no use for more than four.
const DEPTH_MAX: usize = 64;

/// A chain of nft(8) that drops what no rule takes.
#[derive(Debug, PartialEq, Eq)]
struct Chain {
    is_output: bool,
    /// Index of the line with its policy.
    policy: usize,
}

/// What is known within a pair of braces.
#[derive(Default)]
struct Braces {
    is_output: Option<bool>,
    drops: Option<usize>,
    has_established: bool,
    jumps: bool,
    last_word: String,
}

/// Chains that packets of this system meet, and that let no answers in. What can't be understood is none.
fn deaf_chains(text: &str) -> Vec<Chain> {
    let mut open: Vec<Braces> = Vec::new();
    let (mut found, mut established_somewhere) = (Vec::new(), false);
    let mut take_word = |open: &mut Vec<Braces>, word: &str, line: usize| {
        established_somewhere |= word == "established";
        let Some(braces) = open.last_mut() else { return };
        match (braces.last_word.as_str(), word) {
            ("hook", "input") => braces.is_output = Some(false),
            ("hook", "output") => braces.is_output = Some(true),
            ("policy", "drop") => braces.drops = Some(line),
            (_, "established") => braces.has_established = true,
            (_, "jump" | "goto") => braces.jumps = true,
            _ => {}
        }
        word.clone_into(&mut braces.last_word);
    };
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let mut word = String::new();
        for letter in line.chars().chain([' ']) {
            let is_end =
                letter.is_whitespace() || matches!(letter, ';' | ',' | ':' | '"' | '{' | '}');
            if !is_end {
                word.push(letter);
                continue;
            }
            if !word.is_empty() {
                take_word(&mut open, &word, index);
                word.clear();
            }
            match letter {
                '{' if open.len() == DEPTH_MAX => return Vec::new(),
                '{' => open.push(Braces::default()),
                '}' => {
                    let Some(closed) = open.pop() else { continue };
                    // `ct state { established, related }`
                    if let Some(outer) = open.last_mut().filter(|_| closed.is_output.is_none()) {
                        outer.has_established |= closed.has_established;
                    }
                    if let (Some(is_output), Some(policy)) = (closed.is_output, closed.drops)
                        && !closed.has_established
                    {
                        found.push((Chain { is_output, policy }, closed.jumps));
                    }
                }
                _ => {}
            }
        }
    }
    // What it jumps to may let them in.
    let is_deaf = |(_, jumps): &(Chain, bool)| !(*jumps && established_somewhere);
    found.into_iter().filter(is_deaf).map(|(chain, _)| chain).collect()
}

/// The rule set that nftables.service loads, with what it includes.
fn rule_files(system: &System<'_>) -> Result<Vec<(String, String)>, RootfsError> {
    let starts = ["/etc/nftables.conf", "/etc/sysconfig/nftables.conf"];
    let mut todo: Vec<String> = starts.map(str::to_owned).to_vec();
    let mut files: Vec<(String, String)> = Vec::new();
    while let Some(path) = todo.pop() {
        if files.len() == INCLUDES_MAX || files.iter().any(|(done, _)| *done == path) {
            continue;
        }
        let text = system.tree.text(&path)?;
        for line in text.lines() {
            let Some(rest) = line.trim().strip_prefix("include") else { continue };
            let included = rest.trim().trim_matches(['"', ';', '\'']);
            if !included.starts_with('/') {
                continue;
            }
            match included.rsplit_once('/') {
                Some((folder, pattern)) if pattern.starts_with('*') => {
                    let more = system.tree.list(folder)?;
                    let more = more.iter().filter(|entry| entry.name.ends_with(&pattern[1..]));
                    let more = more.map(|entry| format!("{folder}/{}", entry.name));
                    todo.extend(more.take(INCLUDES_MAX));
                }
                _ => todo.push(included.to_owned()),
            }
        }
        files.push((path, text));
    }
    Ok(files)
}

/// Rules of nftables.
pub(super) fn nftables(system: &System<'_>) -> Checked {
    if !system.units.start("nftables.service") {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (path, text) in rule_files(system)? {
        for Chain { is_output, policy } in deaf_chains(&text) {
            found.push(match is_output {
                false => {
                    let what = "what comes in is dropped, answers to what this machine has asked as well";
                    let rule = "ct state established,related accept".to_owned();
                    // In a line of its own the rule must not come into the middle of a chain's head.
                    let line = text.lines().nth(policy).unwrap_or_default();
                    let is_whole = line.trim_end().ends_with(';') || line.trim_end().ends_with("drop");
                    let change = Change::InsertAfter { path: path.clone(), line: policy, text: rule };
                    let one = Found::new(what).at(&path).in_line(policy);
                    if is_whole { one.changing(change) } else { one }
                }
                true => {
                    let what = "what goes out is dropped unless a rule lets it, and none lets go on what has begun";
                    Found::new(what).at(&path).in_line(policy)
                }
            });
        }
    }
    Ok(found)
}

/// Rules of iptables that are restored at boot.
pub(super) fn iptables(system: &System<'_>) -> Checked {
    let places = [
        ("netfilter-persistent.service", "/etc/iptables/rules.v4"),
        ("iptables.service", "/etc/sysconfig/iptables"),
        ("iptables.service", "/etc/iptables/iptables.rules"),
    ];
    let mut found = Vec::new();
    for (unit, path) in places {
        if !system.units.start(unit) {
            continue;
        }
        let text = system.tree.text(path)?;
        found.extend(closed_tables(&text).into_iter().map(|(chain, index)| {
            let what = format!("{chain} takes nothing that belongs to what has begun");
            let rule = format!("-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
            let change = Change::InsertAfter { path: path.to_owned(), line: index, text: rule };
            Found::new(what).at(path).in_line(index).changing(change)
        }));
    }
    Ok(found)
}

/// Chains of the table `filter` that end with a no, without a rule for what has begun; each with the index of the line that declares it.
fn closed_tables(text: &str) -> Vec<(&'static str, usize)> {
    let is_filter = |index: usize| {
        let before = text.lines().take(index + 1);
        before
            .filter(|line| line.starts_with('*'))
            .last()
            .is_some_and(|line| line.trim() == "*filter")
    };
    let mut found = Vec::new();
    for chain in ["INPUT", "OUTPUT"] {
        let declared = text.lines().position(|line| line.starts_with(&format!(":{chain} ")));
        let Some(index) = declared.filter(|index| is_filter(*index)) else { continue };
        let of_chain = || {
            let after = text.lines().skip(index).take_while(|line| line.trim() != "COMMIT");
            after.filter(|line| line.starts_with(&format!("-A {chain} ")))
        };
        let drops = text.lines().nth(index).is_some_and(|line| line.contains(" DROP"));
        let refuses = of_chain().any(|rule| {
            let words: Vec<&str> = rule.split_ascii_whitespace().collect();
            matches!(words[2..], ["-j", "DROP" | "REJECT", ..])
        });
        // What it jumps to may let it in.
        let goes_on = of_chain().any(|rule| rule.contains("ESTABLISHED"))
            || text.contains("ESTABLISHED") && of_chain().any(jumps);
        if (drops || refuses) && !goes_on {
            found.push((chain, index));
        }
    }
    found
}

/// Whether a rule leads to a chain of somebody's own.
fn jumps(rule: &str) -> bool {
    let mut words = rule.split_ascii_whitespace().skip_while(|word| !matches!(*word, "-j" | "-g"));
    let target = words.nth(1).unwrap_or("LOG");
    !matches!(target, "ACCEPT" | "DROP" | "REJECT" | "LOG" | "RETURN")
}

/// ufw, which lets answers in by itself, but may let nothing out.
pub(super) fn ufw(system: &System<'_>) -> Checked {
    let is_on = |line: &str| line.trim().eq_ignore_ascii_case("ENABLED=yes");
    let text = system.tree.text("/etc/ufw/ufw.conf")?;
    if !text.lines().any(is_on) || !system.units.start("ufw.service") {
        return Ok(Vec::new());
    }
    let path = "/etc/default/ufw";
    let text = system.tree.text(path)?;
    let closed = text.lines().position(|line| {
        let value = line.trim().strip_prefix("DEFAULT_OUTPUT_POLICY=").unwrap_or_default();
        matches!(value.trim_matches('"'), "DROP" | "REJECT")
    });
    let told = |index| Found::new("ufw lets nothing out that no rule lets").at(path).in_line(index);
    Ok(closed.map(told).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_chain_is_deaf_that_drops_and_takes_no_answers() {
        let check = |text: &str, expected: &[(bool, usize)]| {
            let found = deaf_chains(text);
            let found: Vec<(bool, usize)> =
                found.iter().map(|it| (it.is_output, it.policy)).collect();
            assert_eq!(found, expected, "{text}");
        };
        let chain = |rules: &str| {
            format!(
                "table inet filter {{\n chain input {{\n  type filter hook input priority 0; policy drop;\n{rules}\n }}\n}}\n"
            )
        };
        check(&chain("  iif lo accept"), &[(false, 2)]);
        check(&chain("  ct state established,related accept"), &[]);
        check(&chain("  ct state { related, established } accept"), &[]);
        check(&chain("  ct state vmap { invalid : drop, established : accept }"), &[]);
        check(&chain("  # ct state established accept"), &[(false, 2)]);
        let jump = format!(
            "{}\ntable inet x {{ chain y {{ ct state established accept }} }}",
            chain("  jump y")
        );
        check(&jump, &[]);
        // Debian's.
        check(
            "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter;\n\t}\n}\n",
            &[],
        );
        check(
            "table inet f { chain o { type filter hook output priority 0; policy drop; } }",
            &[(true, 0)],
        );
        check(
            "table inet f { chain o { type filter hook forward priority 0; policy drop; } }",
            &[],
        );
        check(&"{".repeat(1000), &[]);
        check("}}}", &[]);
    }

    #[test]
    fn a_table_is_closed_that_drops_what_has_begun() {
        let check = |text: &str, expected: &[(&str, usize)]| {
            assert_eq!(closed_tables(text), expected, "{text}")
        };
        let table = |rules: &str| {
            format!("*filter\n:INPUT DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n{rules}\nCOMMIT\n")
        };
        check(&table("-A INPUT -i lo -j ACCEPT"), &[("INPUT", 1)]);
        check(&table("-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT"), &[]);
        check(
            &table("-A INPUT -j mine\n-A mine -m conntrack --ctstate ESTABLISHED -j ACCEPT"),
            &[],
        );
        check("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j REJECT\nCOMMIT\n", &[("INPUT", 1)]);
        check("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp --dport 23 -j REJECT\nCOMMIT\n", &[]);
        check("*nat\n:INPUT DROP [0:0]\nCOMMIT\n", &[]);
        check("-A INPUT", &[]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[{};:,#\\n a-zA-Z*-]{0,200}", wild: String) {
            let _ = deaf_chains(&text);
            let _ = closed_tables(&text);
            let _ = deaf_chains(&wild);
            let _ = closed_tables(&wild);
        }
    }
}
