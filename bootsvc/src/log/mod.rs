//! What is logged, and where to.

mod journal;
mod ration;

pub(crate) use journal::root_field;
pub(crate) use ration::Ration;

use journal::Journal;

use std::io::IsTerminal as _;
use std::path::Path;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The crates whose logs are told apart by `-v`.
const OUR_CRATES: [&str; 5] = ["bootsvc", "service", "storage", "web", "images"];

/// Who logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// A server: to standard error, what a person should know.
    Server,
    /// `bootlace share`: what goes wrong between it and its clients has no other place.
    Share,
    /// Other commands print a result or an error, and log if asked to.
    Command,
}

/// Starts logging, for the site below `root`. What comes back says what is left out, if somebody lets it.
pub(crate) fn start(program: Program, verbose: u8, root: &Path) -> Ration {
    let all = |level: LevelFilter| Targets::new().with_default(level);
    let default = match (verbose, program) {
        (0, Program::Share) => all(LevelFilter::WARN),
        (0, Program::Command) => all(LevelFilter::OFF),
        (0, Program::Server) => all(LevelFilter::INFO),
        (1, _) => {
            all(LevelFilter::INFO).with_targets(OUR_CRATES.map(|name| (name, LevelFilter::DEBUG)))
        }
        _ => all(LevelFilter::TRACE),
    };
    // Like RUST_LOG: `debug`, or `info,storage=debug`.
    let wanted = std::env::var("BOOTLACE_LOG").ok().and_then(|text| text.parse().ok());
    let ration = Ration::default();
    let journal = Some(root).filter(|_| program == Program::Server).and_then(Journal::of_stderr);
    let text = journal.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            // It would panic when standard error is a terminal that was closed.
            .log_internal_errors(false)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(verbose > 1)
    });
    // One of both is there.
    let lines = Layer::and_then(journal, text).with_filter(ration.clone());
    tracing_subscriber::registry().with(wanted.unwrap_or(default)).with(lines).init();
    ration
}
