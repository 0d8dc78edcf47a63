//! What a test needs of the machine it runs on. Without it, it says so and is skipped.

use crate::site::bootlace_binary;
use std::path::Path;

/// Something that not every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Root, for network namespaces and raw sockets.
    Root,
    /// Permission to take minutes: `RUN_SLOW_TESTS=1`, which `cargo xtask test` sets.
    SlowTests,
    /// A program on the search path.
    Program(&'static str),
    /// A file of a package that the set-up installs.
    File(&'static str),
    /// The init for arm64 beside the program under test. Not each machine can have the compiler's target, and a test that is left
    /// out for that fails nowhere.
    InitForArm64,
    /// A variable of the environment, which `cargo xtask test` sets.
    Variable(&'static str),
}

/// Whether all needs are met. Says on standard error what is skipped and why; with
/// `CI_REQUIRE_ALL=1` that is a failure.
///
/// # Panics
/// If something is missing and `CI_REQUIRE_ALL=1` is set.
pub fn require(test: &str, needs: &[Need]) -> bool {
    let Some(missing) = needs.iter().find(|need| !is_met(**need)) else { return true };
    let text = match missing {
        Need::Root => "it needs root".to_owned(),
        Need::SlowTests => "it is slow: set RUN_SLOW_TESTS=1".to_owned(),
        Need::Program(name) => format!("there is no program {name}: cargo xtask setup"),
        Need::File(path) => format!("there is no {path}: cargo xtask setup"),
        Need::Variable(name) => format!("{name} is not set: cargo xtask test sets it"),
        Need::InitForArm64 => {
            eprintln!("skipped: {test}: there is no init for arm64: {INSTALL_ARM64_TARGET}");
            return false;
        }
    };
    assert!(std::env::var_os("CI_REQUIRE_ALL").is_none(), "{test} can't run: {text}");
    eprintln!("skipped: {test}: {text}");
    false
}

/// How the compiler's target is had that the init for arm64 is built for.
pub const INSTALL_ARM64_TARGET: &str =
    "rustup target add aarch64-unknown-linux-musl, and cargo xtask build";

fn is_met(need: Need) -> bool {
    match need {
        Need::Root => nix::unistd::geteuid().is_root(),
        Need::SlowTests => std::env::var_os("RUN_SLOW_TESTS").is_some_and(|value| value == "1"),
        Need::Variable(name) => std::env::var_os(name).is_some(),
        Need::File(path) => Path::new(path).exists(),
        Need::InitForArm64 => bootlace_binary()
            .is_ok_and(|program| program.with_file_name("bootlace-init-arm64").is_file()),
        Need::Program(name) => {
            let path = std::env::var("PATH").unwrap_or_default();
            let administration = ["/usr/sbin", "/sbin"];
            path.split(':')
                .chain(administration)
                .any(|folder| Path::new(folder).join(name).exists())
        }
    }
}
