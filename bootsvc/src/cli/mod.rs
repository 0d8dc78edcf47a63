//! The command line, one file per noun.

mod alert;
mod as_job;
mod backup;
#[cfg(test)]
mod book;
mod debug;
mod disk;
mod doctor;
mod files;
mod help;
mod image;
mod initrd;
mod job;
mod lease;
mod logs;
mod machine;
mod manual;
mod medium;
mod nagios;
mod net;
mod output;
mod output_file;
mod people;
mod room;
mod server;
mod setup;
mod share;
mod status;
mod try_pc;
mod verify;

use crate::log::{self, Program};
use crate::paths::Paths;
use crate::site::Refused;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use hyper::StatusCode;
use model::{ParseChoiceError, RootKind, Setting, WriteMode};
use output::{advise, note, plain, say, table};
use service::Unwritable;
use status::count;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

/// Options of all commands stand behind those of a command, and before `--help`.
const GLOBAL: usize = 900;

/// Network boot for diskless workstations
///
/// Bootlace hands PCs an address, a loader, a kernel and an initrd, and exports their root disks over
/// NBD or AoE. To begin, which asks what it must know:
///
///   bootlace setup
///
/// Then switch on a PC with network boot.
#[derive(Parser)]
#[command(name = "bootlace", version = version(), verbatim_doc_comment, max_term_width = 100)]
#[command(disable_help_subcommand = true, disable_version_flag = true)]
// With few empty lines, so that it fits a screen.
#[command(
    help_template = "{about}\n{usage-heading} {usage}\nCommands:\n{subcommands}\nOptions:\n{options}"
)]
struct Cli {
    /// Keep all configuration and state below DIR, for trials
    #[arg(long, value_name = "DIR", default_value = "/", global = true, display_order = GLOBAL)]
    root: PathBuf,
    /// Log more; give it twice to log what libraries say, too
    // Who looks for it looks longer.
    #[arg(short, long, action = clap::ArgAction::Count, global = true, display_order = GLOBAL)]
    #[arg(hide_short_help = true)]
    verbose: u8,
    /// Print version
    #[arg(short = 'V', long, display_order = GLOBAL, action = clap::ArgAction::Version, hide_short_help = true)]
    version: (),
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Setup),
    /// Start boot server and storage server together
    Up,
    /// Start the boot server: DHCP, TFTP, HTTP, web page
    Serve,
    /// Start the storage server: NBD and AoE
    ///
    /// Sockets passed in LISTEN_FDS (systemd's socket units) outlive it, so that machines that connect
    /// during an upgrade wait instead of being refused. TCP sockets serve NBD, a Unix socket serves the
    /// boot server.
    Storage {
        /// Process of the `bootlace up` that starts it
        #[arg(long, value_name = "PID", hide = true)]
        started_by_up: Option<i32>,
    },
    Share(share::Share),
    /// Check the configuration, and whether the server could start
    Check {
        /// Only tell by the exit code whether Bootlace is configured yet: 0 if it is, or 1
        #[arg(long)]
        configured: bool,
    },
    /// Show machines, their boots, and what needs attention
    Status(status::Status),
    Doctor(doctor::Doctor),
    Logs(logs::Logs),
    /// Collect what a maintainer must know, without secrets
    #[command(subcommand)]
    Debug(debug::Debug),
    Nagios(nagios::Nagios),
    /// Save the site in one file, and restore it
    #[command(subcommand)]
    Backup(backup::Backup),
    /// Import images, and say which version machines get
    #[command(subcommand)]
    Image(image::Image),
    /// List, show and cancel jobs: imports, verifications
    #[command(subcommand)]
    Job(job::Job),
    /// List and change machines
    #[command(subcommand)]
    Machine(machine::Machine),
    /// List and change rooms, from which machines inherit
    #[command(subcommand)]
    Room(room::Room),
    /// Show and change what machines inherit whose room says nothing
    #[command(subcommand)]
    Site(room::SiteSettings),
    /// List, free, fix and import addresses of PCs
    #[command(subcommand)]
    Lease(lease::Lease),
    /// Show how PCs are answered when they boot
    #[command(subcommand)]
    Net(net::Net),
    /// Build, inspect and list initrds
    #[command(subcommand)]
    Initrd(initrd::Initrd),
    /// Make a USB stick or CD that boots PCs whose firmware can't
    #[command(subcommand)]
    Medium(medium::Medium),
    /// Give machines disks beside their roots: their own, shared ones, folders that last, swap space
    #[command(subcommand)]
    Disk(disk::Disk),
    /// Lay files over the roots of machines
    #[command(subcommand)]
    Files(files::Files),
    Try(try_pc::Try),
    /// Print a link that logs a browser in once
    Login,
    /// List and change accounts
    #[command(subcommand)]
    User(people::User),
    /// List, make and remove tokens for scripts
    #[command(subcommand)]
    Token(people::Token),
    Audit(people::Audit),
    /// Tell people by mail or webhook what needs attention
    #[command(subcommand)]
    Alert(alert::Alert),
    Help(help::Help),
    #[command(hide = true)]
    Manual(manual::Manual),
}

/// The release, and the commit that it was built from if whoever built it has told.
fn version() -> &'static str {
    match option_env!("BOOTLACE_COMMIT") {
        Some(commit) => format!("{} (commit {commit})", env!("CARGO_PKG_VERSION")).leak(),
        None => concat!(env!("CARGO_PKG_VERSION"), " (commit unknown)"),
    }
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let parsed = Cli::command().try_get_matches();
    let parsed = parsed.and_then(|found| Ok((only_looks(&found), Cli::from_arg_matches(&found)?)));
    let (only_looks, cli) = match parsed {
        Ok(parsed) => parsed,
        // Help and version, too, are told so.
        Err(told) => return ExitCode::from(print(&told)),
    };
    if let Some(kind) = cli.root.to_str().filter(|_| !cli.root.exists())
        && kind.parse::<RootKind>().is_ok()
    {
        // `machine set --root aoe` would make a site of its own in a folder of that name.
        let text = format!(
            "--root {kind} would be a folder with all state; the kind of a machine's root is --root-kind {kind}"
        );
        let _ = writeln!(io::stderr(), "bootlace: {text}");
        return ExitCode::from(2);
    }
    if only_looks && matches!(cli.root.try_exists(), Ok(false)) {
        let root = cli.root.display().to_string();
        let _ = writeln!(
            io::stderr(),
            "bootlace: there is no site in {}: no such folder",
            plain(&root)
        );
        return ExitCode::FAILURE;
    }
    let program = match cli.command {
        Command::Up | Command::Serve | Command::Storage { .. } => Program::Server,
        Command::Share(_) => Program::Share,
        _ => Program::Command,
    };
    let ration = log::start(program, cli.verbose, &cli.root);
    let paths = Paths::under(&cli.root);
    if let (Program::Server | Program::Command, Err(error)) = (program, paths.check_length()) {
        let _ = writeln!(io::stderr(), "bootlace: {error}");
        return ExitCode::from(2);
    }
    let done = match cli.command {
        Command::Nagios(nagios) => return nagios.run(&paths),
        Command::Up => server::up(&paths, &cli.root, cli.verbose, ration),
        Command::Serve => server::serve(&paths, ration),
        Command::Storage { started_by_up } => server::storage(&paths, started_by_up, ration),
        Command::Share(share) => share.run(),
        Command::Setup(setup) => setup.run(&paths),
        Command::Check { configured: true } => server::check_configured(&paths),
        Command::Check { configured: false } => server::check(&paths),
        Command::Status(status) => status.run(&paths),
        Command::Doctor(doctor) => doctor.run(&paths),
        Command::Logs(logs) => logs.run(&paths),
        Command::Debug(debug) => debug.run(&paths),
        Command::Backup(backup) => backup.run(&paths),
        Command::Image(image) => image.run(&paths),
        Command::Job(job) => job.run(&paths),
        Command::Machine(machine) => machine.run(&paths),
        Command::Room(room) => room.run(&paths),
        Command::Site(site) => site.run(&paths),
        Command::Lease(lease) => lease.run(&paths),
        Command::Net(net) => net.run(&paths),
        Command::Initrd(initrd) => initrd.run(&paths),
        Command::Medium(medium) => medium.run(&paths),
        Command::Disk(disk) => disk.run(&paths),
        Command::Files(files) => files.run(&paths),
        Command::Try(try_pc) => try_pc.run(&paths),
        Command::Manual(manual) => manual.run(),
        Command::Login => people::login(&paths),
        Command::User(user) => user.run(&paths),
        Command::Token(token) => token.run(&paths),
        Command::Help(help) => help.run(&paths),
        Command::Alert(alert) => alert.run(&paths),
        Command::Audit(audit) => audit.run(&paths),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes in one line; standard error may be closed.
            let mut told = wire::error_chain(error.as_ref());
            let mut causes = error.chain().filter_map(|it| it.downcast_ref::<io::Error>());
            if let Some(why) = causes.find_map(|cause| Unwritable::of(cause.kind())) {
                told = format!("{told}: {why}");
            }
            let told = paths.commands().complete(&told);
            let _ = writeln!(io::stderr(), "bootlace: {}", plain(&told));
            exit_code(&error)
        }
    }
}

/// Whether the command only looks at a site, and must make none where there is nothing: its folder is probably misspelt.
fn only_looks(found: &ArgMatches) -> bool {
    let Some((command, found)) = found.subcommand() else { return false };
    match (command, found.subcommand_name()) {
        ("audit" | "logs" | "status", _) | ("backup", Some("create" | "images")) => true,
        ("image", Some("export" | "send")) => true,
        (_, Some(what)) => matches!(what, "hardware" | "log" | "ls" | "show"),
        _ => false,
    }
}

/// Prints what is to be told instead of a command's output; the exit code.
fn print(told: &clap::Error) -> u8 {
    match told.print() {
        Ok(()) => told.exit_code().try_into().unwrap_or(1),
        Err(error) => output::unwritten(&error),
    }
}

/// Options contradict each other, as only their values show.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUsage(String);

/// What scripts tell failures apart by.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<WrongUsage>() {
        return ExitCode::from(2);
    }
    match error.downcast_ref::<Refused>().map(|refused| refused.status) {
        Some(StatusCode::NOT_FOUND) => ExitCode::from(3),
        Some(StatusCode::FORBIDDEN) => ExitCode::from(4),
        _ => ExitCode::FAILURE,
    }
}

/// Takes one of these words, which `--help` lists, for what it means.
fn one_of<T: FromStr<Err = ParseChoiceError> + Clone + Send + Sync + 'static>(
    words: impl IntoIterator<Item: Into<PossibleValue>>,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words).try_map(|word| word.parse())
}

/// Refuses that something is given and inherited at once; `given` are the settings in the order of [`Setting::ALL`].
fn check_inherit(inherit: &[Setting], given: [bool; Setting::ALL.len()]) -> Result<(), WrongUsage> {
    let both =
        Setting::ALL.into_iter().zip(given).find(|(it, given)| *given && inherit.contains(it));
    match both {
        Some((setting, _)) => Err(WrongUsage(format!(
            "--inherit {setting} contradicts what else is said of it: leave one of both out"
        ))),
        None => Ok(()),
    }
}

fn root_kind() -> impl TypedValueParser<Value = RootKind> {
    one_of(RootKind::ALL.map(|kind| PossibleValue::new(kind.word()).help(kind.reach())))
}

fn write_mode() -> impl TypedValueParser<Value = WriteMode> {
    one_of(WriteMode::ALL.map(|mode| PossibleValue::new(mode.word()).help(mode.title())))
}

/// A number by which something is called, as a list of such things shows it.
fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "it is called by its number, such as 3".to_owned())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_its_short_help_fits_a_screen() {
        Cli::command().debug_assert();
        let help = Cli::command().render_help().to_string();
        assert!(help.lines().count() <= 36, "{help}");
    }

    #[test]
    fn what_only_looks_is_known() {
        let looks = |line: &str| {
            let words = ["bootlace"].into_iter().chain(line.split(' '));
            only_looks(&Cli::command().try_get_matches_from(words).unwrap())
        };
        for line in [
            "machine ls",
            "room ls",
            "status",
            "audit",
            "user ls",
            "backup create x",
            "image send x",
        ] {
            assert!(looks(line), "{line}");
        }
        for line in ["serve", "setup", "machine rm pc", "user rm anna", "backup verify x"] {
            assert!(!looks(line), "{line}");
        }
    }

    #[test]
    fn advice_names_all_commands() {
        let cli = Cli::command();
        let shown = cli.get_subcommands().filter(|command| !command.is_hide_set());
        let names: Vec<&str> = shown.map(clap::Command::get_name).collect();
        assert_eq!(names, service::COMMANDS);
    }
}
