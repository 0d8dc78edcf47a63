//! Foreign clients and hostile ones against a storage server on loopback and in network namespaces.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod aoe;
mod aoe_share;
mod api;
mod beside;
mod copies;
mod descriptors;
mod full;
mod kill;
mod lan;
mod lost;
mod manners;
mod nbd;
mod owners;
mod proof;
mod server;
mod snapshots;
mod tls;

use std::process::{Command, Output};

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program} must be installed: {error}"))
}

fn succeed(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}{errors}");
    text
}
