//! Building what the demo and the system tests run.

use crate::say;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The only target that there is an initrd for yet.
const INIT_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Top of the source tree.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A cargo command in the source tree, without what `cargo run` has set for us.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    without_ours(&mut command);
    command
}

/// Takes away what `cargo run` has set for us: seen by build scripts, it would make cargo build everything again.
pub(crate) fn without_ours(command: &mut Command) {
    for variable in
        ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"]
    {
        command.env_remove(variable);
    }
}

/// Runs a command that says itself what is wrong.
pub(crate) fn run_loudly(command: &mut Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("can't start {what}"))?;
    ensure!(status.success(), "{what} failed ({status}); it says why above");
    Ok(())
}

/// Builds `bootlace`, `bootlace-init` and the one with TLS; returns the path of `bootlace`.
pub(crate) fn run() -> Result<PathBuf> {
    build(&[], "debug")
}

/// Builds the release programs, as they are shipped, for measurements; returns the path of `bootlace`.
pub(crate) fn run_release() -> Result<PathBuf> {
    build(&["--release"], "release")
}

fn build(options: &[&str], profile: &str) -> Result<PathBuf> {
    say(&format!("building bootlace, bootlace-init and bootlace-init-tls ({profile})"));
    run_loudly(bootlace(options).arg("--quiet"), "cargo build")?;
    build_inits(profile)?;
    Ok(target().join(profile).join("bootlace"))
}

/// Builds what [`run`] builds and all programs with tests; returns the path of `bootlace`, and cargo's
/// messages about what it has built, a JSON object a line.
pub(crate) fn run_with_tests() -> Result<(PathBuf, String)> {
    say("building bootlace, its init and the tests");
    let mut command = bootlace(&["--quiet", "--tests"]);
    command.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = command.output().context("can't start cargo build")?;
    ensure!(output.status.success(), "cargo build failed; it says why above");
    build_inits("debug")?;
    Ok((target().join("debug/bootlace"), String::from_utf8(output.stdout)?))
}

/// The command that builds `bootlace`. It selects all packages, so that each dependency is built once, with
/// the features that all of them together want, and not once more for each selection.
fn bootlace(options: &[&str]) -> Command {
    let mut command = cargo(&["build", "--workspace", "--bin", "bootlace"]);
    command.args(options);
    command
}

/// Builds the static programs of the initrd and puts them beside `bootlace`.
fn build_inits(profile: &str) -> Result<()> {
    // In a folder of their own: other flags in the same one would build everything again each time.
    let of_init = target().join("init");
    for (name, features) in [("bootlace-init", ""), ("bootlace-init-tls", "tls")] {
        let mut init =
            cargo(&["build", "--quiet", "--profile", "init", "--package", "bootlace-init"]);
        init.args(["--features", features, "--target", INIT_TARGET, "--target-dir"]).arg(&of_init);
        init.env("RUSTFLAGS", "-Ctarget-feature=+crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS");
        run_loudly(&mut init, &format!("cargo build of {name}"))?;
        let built = of_init.join(INIT_TARGET).join("init/bootlace-init");
        place(&built, &target().join(profile).join(name))?;
    }
    Ok(())
}

/// Copies the file if it differs. By rename: a running server may be reading the old one.
fn place(from: &Path, to: &Path) -> Result<()> {
    let new = std::fs::read(from).with_context(|| format!("can't read {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let temporary = to.with_extension("new");
    std::fs::copy(from, &temporary)
        .and_then(|_| std::fs::rename(&temporary, to))
        .with_context(|| format!("can't write {}", to.display()))
}
