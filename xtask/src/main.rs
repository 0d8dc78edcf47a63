//! `cargo xtask`: everything that developers and continuous integration run.

mod bench;
mod booted;
mod build;
mod deb;
mod demo;
mod dist;
mod fuzz;
mod interrupt;
mod lint;
mod matrix;
mod pcs;
mod soak;
mod test;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// What can be done with this tree
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Boot a QEMU PC over a virtual LAN and show each stage
    Demo(demo::Demo),
    /// Run lint and every test
    Test(test::Test),
    /// Check format, lints and dependencies
    Lint,
    /// Build bootlace, and the static bootlace-init beside it
    Build(build::Build),
    /// Build what a release consists of: programs, licenses, bill of materials, checksums
    Dist(dist::Dist),
    /// Build the Debian package
    Deb(deb::Deb),
    /// Measure initrd builds, boots, the NBD, AoE and TFTP servers, beside what else there is
    Bench(bench::Bench),
    /// Attack both servers in every way that the threat model names, while machines boot
    Matrix(matrix::Matrix),
    /// Boot a PC of every kind in every kind of network, and print the table
    Pcs(pcs::Pcs),
    /// Kill, cut off and fill up both servers at random under machines whose writes are checked
    Soak(soak::Soak),
    /// The attacker's process
    #[command(hide = true)]
    MatrixAttacker(matrix::Attacker),
    /// Feed random bytes to everything that reads foreign bytes
    Fuzz(fuzz::Fuzz),
    /// Install the Debian packages that the other commands need
    Setup,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Demo(demo) => demo.run(),
        Task::Test(test) => return test.run().unwrap_or_else(failure),
        Task::Lint => lint::run(),
        Task::Build(build) => build.run(),
        Task::Dist(dist) => dist.run(),
        Task::Deb(deb) => deb.run(),
        Task::Bench(bench) => bench.run(),
        Task::Matrix(matrix) => matrix.run(),
        Task::Pcs(pcs) => pcs.run(),
        Task::Soak(soak) => soak.run(),
        Task::MatrixAttacker(attacker) => attacker.run(),
        Task::Fuzz(fuzz) => fuzz.run(),
        Task::Setup => setup(),
    };
    done.map_or_else(failure, |()| ExitCode::SUCCESS)
}

#[expect(clippy::needless_pass_by_value, reason = "`map_or_else` gives it away")]
fn failure(error: anyhow::Error) -> ExitCode {
    eprintln!("xtask: {error:#}");
    ExitCode::FAILURE
}

/// Installs what building and the lab need.
fn setup() -> anyhow::Result<()> {
    lab::install(lab::BUILD, say)?;
    lab::install(lab::PACKAGING, say)?;
    lab::install(lab::LAB, say)?;
    build::add_arm64_target();
    Ok(())
}

/// A line about what is done now.
fn say(text: &str) {
    eprintln!("xtask: {text}");
}
