//! `bootlace`: network boot for diskless workstations.

use std::process::ExitCode;

fn main() -> ExitCode {
    bootsvc::cli::run()
}
