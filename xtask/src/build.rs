//! Building what the demo and the system tests run.

use crate::say;
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What inits are built for.
struct InitTarget {
    target: &'static str,
    /// Behind the names of its inits.
    suffix: &'static str,
    /// The linker, if it is not the C compiler.
    linker: Option<&'static str>,
    /// The C compiler that the one with TLS needs, and the package that has it, if that is not the usual one.
    c_compiler: Option<(&'static str, &'static str)>,
}

const INIT_TARGETS: [InitTarget; 2] = [
    InitTarget { target: "x86_64-unknown-linux-gnu", suffix: "", linker: None, c_compiler: None },
    // Of musl, as its C library comes with the target: no compiler of Debian's is needed for it.
    InitTarget {
        target: ARM64_TARGET,
        suffix: "-arm64",
        linker: Some("rust-lld"),
        c_compiler: Some(("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")),
    },
];

const ARM64_TARGET: &str = "aarch64-unknown-linux-musl";

/// The inits, each with the features that make it.
const INITS: [(&str, &str); 2] = [("bootlace-init", ""), ("bootlace-init-tls", "tls")];

impl InitTarget {
    /// Why an init can't be built here; `None`: it can.
    fn lacks(&self, features: &str) -> Option<String> {
        let is_there = |program: &str| Command::new(program).arg("--version").output().is_ok();
        match self.c_compiler {
            _ if !has_target(self.target) => Some(format!("rustup target add {}", self.target)),
            Some((compiler, package)) if !features.is_empty() && !is_there(compiler) => {
                Some(format!("apt-get install {package}"))
            }
            _ => None,
        }
    }

    fn flags(&self) -> Vec<String> {
        let linker = self.linker.map(|linker| format!("-Clinker={linker}"));
        [STATIC.to_owned()].into_iter().chain(linker).collect()
    }
}

/// Whether the compiler has the standard library for this target.
fn has_target(target: &str) -> bool {
    let output =
        Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output();
    output.is_ok_and(|it| Path::new(String::from_utf8_lossy(&it.stdout).trim()).is_dir())
}

/// Adds the target for arm64 by rustup, where that is there and can.
pub(crate) fn add_arm64_target() {
    if has_target(ARM64_TARGET) {
        return;
    }
    say(&format!("adding the target {ARM64_TARGET} by rustup, for arm64 PCs"));
    let added = Command::new("rustup").args(["target", "add", ARM64_TARGET]).output();
    if !added.is_ok_and(|output| output.status.success()) {
        say("it can't be had here: all that is for arm64 PCs is left out");
    }
}

/// Names of the inits for arm64 that this machine can build.
pub(crate) fn inits_for_arm64() -> Vec<String> {
    let [_, arm64] = &INIT_TARGETS;
    let can_build = INITS.iter().filter(|(_, features)| arm64.lacks(features).is_none());
    can_build.map(|(name, _)| format!("{name}{}", arm64.suffix)).collect()
}

/// Top of the source tree.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A source tree, and where it is built.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    /// The commit, if it is known.
    pub(crate) commit: Option<String>,
    /// When the source was written, in seconds since 1970: the time that goes into archives.
    pub(crate) date: u64,
}

impl Place {
    /// This tree.
    pub(crate) fn here() -> Self {
        Self { root: root(), target: target(), commit: commit(), date: source_date() }
    }

    /// Folders whose names end up in programs, in messages of panics, with what stands for them.
    fn folders(&self) -> [(PathBuf, &'static str); 3] {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let cargo =
            std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
        // The last one that fits counts (rustc, --remap-path-prefix).
        [
            (self.root.clone(), "/bootlace"),
            (self.target.clone(), "/bootlace/target"),
            (cargo, "/cargo"),
        ]
    }

    /// Flags by which the compiler forgets where it was.
    fn same_anywhere(&self) -> Vec<String> {
        let remap =
            |(from, to): (PathBuf, &str)| format!("--remap-path-prefix={}={to}", from.display());
        self.folders().map(remap).into()
    }

    /// The same for C.
    fn same_c(&self, command: &mut Command) {
        let map =
            |(from, to): (PathBuf, &str)| format!("-ffile-prefix-map={}={to}", from.display());
        command.env("CFLAGS", self.folders().map(map).join(" "));
    }
}

/// The release of this source.
pub(crate) fn version() -> &'static str {
    // All packages of the workspace have the same.
    env!("CARGO_PKG_VERSION")
}

/// A cargo command in the source tree, without what `cargo run` has set for us.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    cargo_at(&root(), arguments)
}

/// A cargo command in another source tree.
pub(crate) fn cargo_in(place: &Place, arguments: &[&str]) -> Command {
    let mut command = cargo_at(&place.root, arguments);
    command.env("CARGO_TARGET_DIR", &place.target);
    command
}

fn cargo_at(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root);
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

#[derive(Args)]
pub(crate) struct Build {
    /// Build what is shipped: fast, stripped, with the commit inside
    #[arg(long)]
    release: bool,
}

impl Build {
    pub(crate) fn run(self) -> Result<()> {
        if self.release { run_release() } else { run() }.map(drop)
    }
}

/// Builds `bootlace`, `bootlace-init` and the one with TLS; returns the path of `bootlace`.
pub(crate) fn run() -> Result<PathBuf> {
    say("building bootlace, bootlace-init and bootlace-init-tls (debug)");
    run_loudly(bootlace().arg("--quiet"), "cargo build")?;
    build_inits()?;
    Ok(target().join("debug/bootlace"))
}

/// Builds the release programs, as they are shipped; returns the path of `bootlace`.
pub(crate) fn run_release() -> Result<PathBuf> {
    let place = Place::here();
    release(&place)?;
    Ok(place.target.join("release/bootlace"))
}

/// Builds the release programs of a tree. The same source gives the same bytes, in whatever folder it is.
pub(crate) fn release(place: &Place) -> Result<()> {
    say("building bootlace, bootlace-init and bootlace-init-tls (release)");
    let flags = place.same_anywhere();
    let mut command = cargo_in(place, &BOOTLACE);
    command.args(["--release", "--locked", "--quiet"]);
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join(FLAG_END));
    place.same_c(&mut command);
    if let Some(commit) = &place.commit {
        command.env("BOOTLACE_COMMIT", commit);
    }
    run_loudly(&mut command, "cargo build")?;
    let of_init = place.target.join("init-release");
    for_inits(&of_init, &place.target.join("release"), &flags, |arguments| {
        let mut command = cargo_in(place, arguments);
        command.arg("--locked");
        place.same_c(&mut command);
        command
    })
}

/// Between two compiler flags in `CARGO_ENCODED_RUSTFLAGS`.
const FLAG_END: &str = "\x1f";

/// The compiler flag for programs of the initrd.
const STATIC: &str = "-Ctarget-feature=+crt-static";

/// The commit that is built: as whoever has only an archive of the source says in `BOOTLACE_COMMIT`, or as git knows it.
pub(crate) fn commit() -> Option<String> {
    if let Ok(commit) = std::env::var("BOOTLACE_COMMIT") {
        return Some(commit);
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if is_changed.is_empty() { commit } else { commit + "-changed" })
}

/// When what is built was written, in seconds since 1970: the time that goes into archives.
pub(crate) fn source_date() -> u64 {
    let told = std::env::var("SOURCE_DATE_EPOCH").ok();
    let told = told.or_else(|| git(&["log", "-1", "--format=%ct"]));
    told.and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

/// What git says; `None` without git, or outside of a repository.
fn git(arguments: &[&str]) -> Option<String> {
    // A tree that lies in somebody else's repository is not in that one.
    let mut command = Command::new("git");
    command.args(arguments).current_dir(root()).env("GIT_CEILING_DIRECTORIES", root().parent()?);
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Builds what [`run`] builds and all programs with tests; returns the path of `bootlace`, and cargo's
/// messages about what it has built, a JSON object a line.
pub(crate) fn run_with_tests() -> Result<(PathBuf, String)> {
    say("building bootlace, its init and the tests");
    let mut command = bootlace();
    command.args(["--quiet", "--tests"]);
    command.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = command.output().context("can't start cargo build")?;
    ensure!(output.status.success(), "cargo build failed; it says why above");
    build_inits()?;
    Ok((target().join("debug/bootlace"), String::from_utf8(output.stdout)?))
}

/// How `bootlace` is built. It selects all packages, so that each dependency is built once, with
/// the features that all of them together want, and not once more for each selection.
const BOOTLACE: [&str; 4] = ["build", "--workspace", "--bin", "bootlace"];

fn bootlace() -> Command {
    cargo(&BOOTLACE)
}

/// Builds the static programs of the initrd and puts them beside `bootlace`.
fn build_inits() -> Result<()> {
    // In a folder of their own: other flags in the same one would build everything again each time.
    for_inits(&target().join("init"), &target().join("debug"), &[], cargo)
}

/// Builds the inits for all targets below `folder` by this command with these flags, and puts them into `beside`. What this machine
/// can't build for other machines than itself is left out.
fn for_inits(
    folder: &Path,
    beside: &Path,
    flags: &[String],
    command: impl Fn(&[&str]) -> Command,
) -> Result<()> {
    for target in &INIT_TARGETS {
        let flags = [&target.flags()[..], flags].concat().join(FLAG_END);
        for (name, features) in INITS {
            let place_of_it = beside.join(format!("{name}{}", target.suffix));
            if let Some(remedy) = target.lacks(features).filter(|_| !target.suffix.is_empty()) {
                say(&format!("{name}{} is left out; to have it: {remedy}", target.suffix));
                // One of before would be that of another version.
                let _ = std::fs::remove_file(&place_of_it);
                continue;
            }
            let mut init =
                command(&["build", "--quiet", "--profile", "init", "--package", "bootlace-init"]);
            init.args(["--features", features, "--target", target.target, "--target-dir"]);
            init.arg(folder).env("CARGO_ENCODED_RUSTFLAGS", &flags);
            if let Some((compiler, _)) = target.c_compiler {
                init.env(format!("CC_{}", target.target.replace('-', "_")), compiler);
            }
            run_loudly(&mut init, &format!("cargo build of {name}{}", target.suffix))?;
            place(&folder.join(target.target).join("init/bootlace-init"), &place_of_it)?;
        }
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
