//! `init await-login`: tells the boot server that the system is up, where no systemd can do it: a program
//! runs that lets people log in.

use crate::boot_server::reporter::{Reporter, SEQUENCE_LATER, Target};
use crate::boot_server::token::later_token;
use crate::keeper::companion;
use initcfg::{BootConfig, Stage};
use rustix::fs::{Dir, Mode, OFlags, openat};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

/// A system that takes longer has another way to let people in.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

const POLL: Duration = Duration::from_secs(1);

/// How long the boot server is tried.
const REPORT_TIMEOUT: Duration = Duration::from_secs(60);

/// Names of the programs, as far as the kernel keeps them.
const LOGINS: &[&str] = &[
    "agetty", "getty", "mingetty", "login", "sshd", "dropbear", "lightdm", "gdm", "gdm3", "sddm",
    "xdm", "greetd",
];

/// Starts it beside the real system. It needs nothing of any disk.
pub(crate) fn start() -> io::Result<()> {
    // The `@` of the keeper, for the same reason.
    let arguments = ["await-login".to_owned()];
    companion::start("@bootlace-up", &arguments, Stdio::null()).map(drop)
}

/// Ends when it has told, or after half an hour.
pub(crate) fn run() -> ExitCode {
    let token = later_token();
    let config = std::fs::read_to_string("/proc/cmdline").ok();
    let config = config.and_then(|line| BootConfig::parse(&line).ok());
    // Opened while it is there: the real system's root is not this process's.
    let (Some(config), Ok(processes)) = (config, File::open("/proc")) else {
        return ExitCode::FAILURE;
    };
    if companion::say_ready().is_err() {
        return ExitCode::FAILURE;
    }
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        std::thread::sleep(POLL);
        if let Some(name) = running(&processes, LOGINS) {
            let mut reporter = Reporter::start(Target::from(&config), token, SEQUENCE_LATER);
            reporter.report(Stage::Up, &format!("{name} runs"));
            reporter.finish(REPORT_TIMEOUT);
            return ExitCode::SUCCESS;
        }
    }
    ExitCode::FAILURE
}

/// The first of these programs that runs.
fn running(processes: &File, programs: &[&'static str]) -> Option<&'static str> {
    let entries = Dir::read_from(processes).ok()?;
    entries.flatten().find_map(|entry| {
        let folder = entry.file_name();
        folder.to_bytes().first()?.is_ascii_digit().then_some(())?;
        let name = name_of(processes, folder).ok()?;
        programs.iter().copied().find(|program| *program == name.trim_end())
    })
}

fn name_of(processes: &File, folder: &CStr) -> io::Result<String> {
    let folder = openat(processes, folder, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let file = openat(folder.as_fd(), "comm", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut name = String::new();
    File::from(file).read_to_string(&mut name)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_running_program_is_seen_by_its_name() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let processes = File::open("/proc").unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut seen = None;
        while seen.is_none() && Instant::now() < deadline {
            seen = running(&processes, &["sleep"]);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(seen, Some("sleep"));
        assert_eq!(running(&processes, &["no such program"]), None);
    }
}
