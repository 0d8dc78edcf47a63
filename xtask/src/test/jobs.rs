//! Which jobs there are: from what cargo has built.

use super::job::Job;
use crate::build::{self, cargo};
use anyhow::{Context, Result, ensure};
use lab::text_of;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Tests with QEMU PCs by the start of their names, in the order in which they begin: those that take
/// longest first, so that at the end no processor waits for a long one.
const LONG: &[&str] = &[
    "tests outage::",
    "tests arm64::",
    "tests killed::",
    "tests boot::bios_pc_boots_over_aoe",
    "tests nics::",
    "tests handover::",
    "tests boot::",
    "tests foreign::",
    "tests restarted::",
    "tests failures::",
    "tests segment::",
    "tests mtu::",
    "tests file_systems::",
    "tests ram::",
    "tests rescue::",
    "tests nbd_tls_root::",
    "tests vlan::",
    "tests two_addresses::",
    "tests own_dhcp::",
    "tests package::",
    "tests partitions::",
    "tests sanboot::",
];

/// A program with tests that cargo has built.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    path: PathBuf,
    folder: PathBuf,
    /// Whether it is a file in `tests/` of its package, which tests by processes and sockets.
    is_integration: bool,
}

/// All jobs, in the order in which they should start; `messages` are those of `cargo build`. With a filter,
/// only tests whose name contains it.
pub(crate) fn all(messages: &str, filter: Option<&str>) -> Result<Vec<Job>> {
    let mut jobs = vec![doc_tests(filter)];
    for program in messages.lines().filter_map(program) {
        if program.is_integration {
            jobs.extend(one_by_one(&program, filter)?);
        } else {
            jobs.push(at_once(&program, filter));
        }
    }
    let rank = |job: &Job| LONG.iter().position(|start| job.name.starts_with(start));
    for start in LONG.iter().filter(|_| filter.is_none()) {
        let is_there = jobs.iter().any(|job| job.name.starts_with(start));
        ensure!(is_there, "LONG in xtask names {start:?}, and there is no such test");
    }
    for job in &mut jobs {
        job.is_long = rank(job).is_some();
    }
    jobs.sort_by_key(|job| rank(job).unwrap_or(LONG.len()));
    Ok(jobs)
}

/// The program in a message of cargo, if it is one with tests.
fn program(message: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message["executable"].as_str()?.into();
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    let is_integration = message["target"]["kind"][0] == "test";
    (message["profile"]["test"] == true).then_some(Program { path, folder, is_integration })
}

impl Program {
    /// The package's folder in the tree.
    fn package(&self) -> String {
        self.folder.strip_prefix(build::root()).unwrap_or(&self.folder).display().to_string()
    }

    fn job(&self, name: &str, arguments: &[&str]) -> Job {
        Job {
            name: format!("{} {name}", self.package()),
            program: self.path.clone(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            folder: self.folder.clone(),
            is_long: false,
        }
    }
}

/// Each test in a process of its own: it can be timed, and is no danger to others.
fn one_by_one(program: &Program, filter: Option<&str>) -> Result<Vec<Job>> {
    let mut list = Command::new(&program.path);
    list.args(["--list", "--format", "terse"]).args(filter).current_dir(&program.folder);
    let list = text_of(&mut list).context("a program does not list its tests")?;
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    // Without capture, what was said until it hung is known, too.
    let job = |name| program.job(name, &["--exact", name, "--quiet", "--nocapture"]);
    Ok(names.map(job).collect())
}

/// Unit tests are many and quick.
fn at_once(program: &Program, filter: Option<&str>) -> Job {
    let mut arguments = vec!["--quiet", "--show-output"];
    arguments.extend(filter);
    program.job("unit tests", &arguments)
}

fn doc_tests(filter: Option<&str>) -> Job {
    let command = cargo(&["test", "--quiet", "--workspace", "--doc", "--no-fail-fast", "--"]);
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    Job {
        name: "documentation".to_owned(),
        program: command.get_program().into(),
        arguments: arguments.chain(filter.map(str::to_owned)).collect(),
        folder: build::root(),
        is_long: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_with_tests_are_told_from_others() {
        let message = |kind: &str, is_test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/x/storage/Cargo.toml",
                "target":{{"kind":["{kind}"],"name":"it"}},"profile":{{"test":{is_test}}},
                "executable":"/x/target/debug/deps/it-1"}}"#
            )
        };
        let found = |kind| {
            let folder = "/x/storage".into();
            let is_integration = kind == "test";
            Some(Program { path: "/x/target/debug/deps/it-1".into(), folder, is_integration })
        };
        assert_eq!(program(&message("test", true)), found("test"));
        assert_eq!(program(&message("lib", true)), found("lib"));
        assert_eq!(program(&message("bin", false)), None);
        assert_eq!(program(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
