//! Format, lints and dependencies.

use crate::build::{cargo, run_loudly};
use crate::say;
use anyhow::Result;
use std::process::{Command, Stdio};

pub(crate) fn run() -> Result<()> {
    add_component("rustfmt", "fmt")?;
    add_component("clippy", "clippy")?;
    say("lint: format");
    run_loudly(&mut cargo(&["fmt", "--all", "--check"]), "cargo fmt")?;
    // The same selection of packages twice: then only what the feature changes is checked twice.
    for (what, features) in [("clippy", ""), ("clippy of the init with TLS", "bootlace-init/tls")] {
        say(&format!("lint: {what}"));
        let mut clippy = cargo(&["clippy", "--quiet", "--workspace", "--all-targets"]);
        clippy.args(["--features", features, "--", "-D", "warnings"]);
        run_loudly(&mut clippy, "cargo clippy")?;
    }
    if is_there("deny") {
        say("lint: licenses and sources of dependencies");
        let deny = ["deny", "--log-level", "error", "check", "bans", "licenses", "sources"];
        return run_loudly(&mut cargo(&deny), "cargo deny");
    }
    say("lint: dependencies are not checked, since cargo-deny is not installed");
    Ok(())
}

/// A Rust that was installed with the minimal profile lacks these.
fn add_component(component: &str, subcommand: &str) -> Result<()> {
    if is_there(subcommand) {
        return Ok(());
    }
    say(&format!("installing {component} by rustup, for lint"));
    let mut rustup = Command::new("rustup");
    run_loudly(rustup.args(["component", "add", component]), "rustup component add")
}

fn is_there(subcommand: &str) -> bool {
    let mut command = cargo(&[subcommand, "--version"]);
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
