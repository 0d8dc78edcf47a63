//! `init boot`: all the work up to a complete root below `/sysroot`.

mod stages;
mod this_machine;

use crate::boot_server::reporter::{Reporter, STATE_PATH, Target};
use crate::boot_server::token::TokenCell;
use crate::boot_server::{host_segment, kernel_log, reporter};
use crate::console::Console;
use crate::failure::Failure;
use initcfg::{BootConfig, CaptureEnd, NBD_CA_PATH, Root, Stage};
use stages::Reached;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use this_machine::ThisMachine;

/// With these the process ends when there is no root to switch to, and nothing has failed.
pub(crate) const RESTART: u8 = 10;
pub(crate) const POWER_OFF: u8 = 11;

/// How long the last reports may hold up the hand-over; a server that is there answers in a millisecond.
const LAST_REPORTS_TIMEOUT: Duration = Duration::from_millis(500);

/// Reports of waiting are sent beside those of stages, of which there are fewer than this.
const SEQUENCE_WAITING: u32 = 50;

/// How long the boot server may take to note a failure, before the person at the machine gets the
/// whole remaining minute to read.
const FAILURE_REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the secret that comes over the plain network is exchanged inside of TLS, before anything is proven by it.
fn is_exchanged(config: &BootConfig) -> bool {
    matches!(config.root, Root::Nbd { .. }) && Path::new(NBD_CA_PATH).exists()
}

/// Does everything, says everything, and exits with success if there is a root to switch to.
pub(crate) fn run() -> ExitCode {
    let mut console = Console::open();
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let config = match BootConfig::parse(&command_line) {
        Ok(config) => config,
        Err(error) => {
            let failure = Failure::new(
                error.to_string(),
                "start the machine over the network, with the loader of the boot server",
            );
            failure.show(&console, None);
            return ExitCode::FAILURE;
        }
    };
    let target = Target::from(&config);
    // Early, so that PID 1 can tell the server if this process dies.
    if let Some(folder) = Path::new(STATE_PATH).parent() {
        let _ = fs::create_dir_all(folder).and_then(|()| fs::write(STATE_PATH, target.to_line()));
    }
    let token = TokenCell::default();
    let host = host_segment::read(config.boot);
    if let Some(host) = host.as_ref().filter(|_| !is_exchanged(&config)) {
        host_segment::keep_token(host, &token);
    }
    let mut waits = Reporter::start(target, Arc::clone(&token), SEQUENCE_WAITING);
    console.on_wait(move |text| waits.report_wait(text));
    let reporter = Reporter::start(target, Arc::clone(&token), 1);
    let mut machine = ThisMachine::new(console, reporter, command_line, host, token);
    match stages::run(&mut machine, &config) {
        Ok(reached) => {
            machine.reporter.finish(LAST_REPORTS_TIMEOUT);
            let Reached::Captured(then) = reached else { return ExitCode::SUCCESS };
            reporter::report_later(&["off".to_owned()]);
            ExitCode::from(match then {
                CaptureEnd::Restart => RESTART,
                CaptureEnd::PowerOff => POWER_OFF,
            })
        }
        Err(failure) => {
            failure.show(&machine.console, Some(&config));
            machine.reporter.report(Stage::Failed, &failure.to_string());
            machine.reporter.finish(FAILURE_REPORT_TIMEOUT);
            // Before there is an address this fails at once, and the screen has said what counts.
            let _ = kernel_log::send(config.server, config.boot, machine.token.get());
            ExitCode::FAILURE
        }
    }
}
