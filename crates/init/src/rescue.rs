//! The rescue shell: a boot stops in it before its root is attached, or when it has failed. The boot server
//! has put busybox behind the initrd, and says which password opens the shell.
//!
//! `init rescue [SECONDS]` asks on every console, and ends when somebody leaves the shell, or when nobody
//! types anything for so long. `init rescue-shell` becomes the shell.

use crate::boot_server::host_segment;
use crate::console;
use initcfg::{RESCUE_BUSYBOX, RescuePassword, Tag, Token};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, QueueSelector, tcflush, tcgetattr,
    tcsetattr,
};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the shell does now, for the boot server.
const STATE_PATH: &str = "/run/bootlace/rescue";

/// What the shell does before anybody has come.
const WAITING: &str = "the rescue shell waits for its password on the machine's console";

/// Longest line that is read as a password.
const LINE_MAX: usize = 256;

/// The first wrong password costs so long, each further one twice as much.
const DELAY_FIRST: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(64);

/// For ever, as far as a channel can wait.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 86_400);

fn busybox() -> PathBuf {
    Path::new("/").join(RESCUE_BUSYBOX)
}

/// What the boot server wants of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// The boot goes as usual.
    No,
    /// The boot stops in the shell.
    Yes,
    /// The boot was to stop, but the loader or the kernel has lost the shell.
    Lost,
}

/// Whether this boot has a rescue shell.
pub(crate) fn offer() -> Offer {
    match (host_segment::rescue(), busybox().is_file()) {
        (None, _) => Offer::No,
        (Some(_), true) => Offer::Yes,
        (Some(_), false) => Offer::Lost,
    }
}

/// Starts asking for the password; without a limit for as long as it takes.
pub(crate) fn start(limit: Option<Duration>) -> io::Result<Child> {
    let mut command = Command::new("/init");
    command.arg("rescue").args(limit.map(|limit| limit.as_secs().to_string()));
    command.stdin(Stdio::null()).spawn()
}

/// What the shell does now, for the boot server.
pub(crate) fn state() -> String {
    fs::read_to_string(STATE_PATH).unwrap_or_else(|_| WAITING.to_owned())
}

/// What happens on a console.
enum Event {
    /// Somebody has typed a line.
    Typed,
    /// Somebody has the shell.
    Opened,
    /// Somebody has left the shell, or wants none.
    Left,
}

/// `init rescue [SECONDS]`.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let Some((token, hash)) = host_segment::rescue() else { return ExitCode::FAILURE };
    let limit = arguments.first().and_then(|seconds| seconds.parse().ok());
    let mut limit = limit.map_or(FOR_EVER, Duration::from_secs);
    make_links();
    let gate = Arc::new(Gate { token, hash, attempts: Mutex::default(), shell: Mutex::new(()) });
    let (events, heard) = mpsc::channel();
    for name in console::names() {
        let (gate, events) = (Arc::clone(&gate), events.clone());
        std::thread::spawn(move || {
            // A console that can't be read offers no shell; there may be others.
            let _ = serve(&name, &gate, &events);
        });
    }
    drop(events);
    loop {
        match heard.recv_timeout(limit) {
            Ok(Event::Typed) => {}
            Ok(Event::Opened) => limit = FOR_EVER,
            Ok(Event::Left) | Err(RecvTimeoutError::Timeout) => return ExitCode::SUCCESS,
            Err(RecvTimeoutError::Disconnected) => return ExitCode::FAILURE,
        }
    }
}

/// What the consoles share.
struct Gate {
    token: Token,
    hash: Tag,
    attempts: Mutex<Attempts>,
    /// Held by the console that has the shell: who leaves it lets the boot go on.
    shell: Mutex<()>,
}

/// Counts wrong passwords on all consoles.
#[derive(Default)]
struct Attempts {
    wrong: u32,
}

impl Attempts {
    /// How long nobody may try again after one more.
    fn delay(&mut self) -> Duration {
        let delay = DELAY_FIRST.saturating_mul(1 << self.wrong.min(16)).min(DELAY_MAX);
        self.wrong += 1;
        delay
    }
}

/// Asks on one console until the shell was there and is left, or nobody wants it.
fn serve(name: &str, gate: &Gate, events: &Sender<Event>) -> io::Result<()> {
    let mut terminal = open(name)?;
    let usual = tcgetattr(&terminal)?;
    let mut hidden = usual.clone();
    hidden.local_modes.insert(LocalModes::ICANON);
    hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ISIG);
    hidden.input_modes.insert(InputModes::ICRNL);
    loop {
        tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
        terminal
            .write_all(b"\r\nBootlace rescue shell. Ctrl-D continues without it.\r\nPassword: ")?;
        let mut line = [0; LINE_MAX];
        let length = terminal.read(&mut line)?;
        if length == 0 {
            // Somebody may be in the shell on another console.
            if gate.shell.try_lock().is_ok() {
                let _ = events.send(Event::Left);
                return Ok(());
            }
            continue;
        }
        let _ = events.send(Event::Typed);
        if !gate.is_right(&line[..length]) {
            terminal.write_all(b"\r\nThat is not the password of this boot.\r\n")?;
            tcflush(&terminal, QueueSelector::IFlush)?;
            continue;
        }
        let Ok(_shell) = gate.shell.try_lock() else {
            terminal.write_all(b"\r\nThe shell is open on another console.\r\n")?;
            continue;
        };
        let _ = events.send(Event::Opened);
        let _ = fs::write(STATE_PATH, format!("the rescue shell is open on {name}"));
        tcsetattr(&terminal, OptionalActions::Flush, &usual)?;
        terminal.write_all(
            b"\r\nThe network is up if it could be set up. Type exit to continue.\r\n",
        )?;
        shell(name, &terminal)?.wait()?;
        let _ = events.send(Event::Left);
        return Ok(());
    }
}

impl Gate {
    /// Takes longer with each wrong password, on all consoles together.
    fn is_right(&self, line: &[u8]) -> bool {
        let password = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
        // What can't be one, like noise on a serial line, is no attempt.
        let Some(password): Option<RescuePassword> = password else { return false };
        let Ok(mut attempts) = self.attempts.lock() else { return false };
        if password.hash(&self.token) == self.hash {
            return true;
        }
        let delay = attempts.delay();
        std::thread::sleep(delay);
        false
    }
}

/// Opens a console for reading, too. Not blocking at first: a serial line may wait for a modem.
fn open(name: &str) -> io::Result<File> {
    let flags = i32::try_from((OFlags::NOCTTY | OFlags::NONBLOCK).bits()).unwrap_or_default();
    let path = format!("/dev/{name}");
    let terminal = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    let mut modes = tcgetattr(&terminal)?;
    modes.control_modes.insert(ControlModes::CLOCAL | ControlModes::CREAD);
    tcsetattr(&terminal, OptionalActions::Now, &modes)?;
    fcntl_setfl(&terminal, OFlags::empty())?;
    Ok(terminal)
}

fn shell(name: &str, terminal: &File) -> io::Result<Child> {
    let term = if name.starts_with("ttyS") { "vt100" } else { "linux" };
    Command::new("/init")
        .arg("rescue-shell")
        .env_clear()
        // Our modprobe, which knows how this initrd keeps its modules, comes before busybox's.
        .env("PATH", "/sbin:/bin")
        .env("HOME", "/")
        .env("TERM", term)
        .env("PS1", "rescue:\\w# ")
        .stdin(terminal.try_clone()?)
        .stdout(terminal.try_clone()?)
        .stderr(terminal.try_clone()?)
        .spawn()
}

/// `init rescue-shell`: takes the terminal on its standard input, and becomes the shell.
pub(crate) fn become_shell() -> ExitCode {
    let _ = rustix::process::setsid();
    // Without it there is no Ctrl-C; the shell says so itself.
    let _ = rustix::process::ioctl_tiocsctty(io::stdin());
    let error = Command::new(busybox()).arg("sh").exec();
    let _ = writeln!(io::stderr(), "can't start {}: {error}", busybox().display());
    ExitCode::FAILURE
}

/// One name in `/bin` for each program that busybox is.
fn make_links() {
    let list = Command::new(busybox()).arg("--list").stderr(Stdio::null()).output();
    let list = list.map(|output| output.stdout).unwrap_or_default();
    for name in String::from_utf8_lossy(&list).lines().filter(|name| !name.contains('/')) {
        let _ = symlink(busybox(), Path::new("/bin").join(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_passwords_take_longer_and_longer() {
        let mut attempts = Attempts::default();
        let seconds: Vec<u64> = (0..9).map(|_| attempts.delay().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        attempts.wrong = u32::MAX - 1;
        assert_eq!(attempts.delay(), DELAY_MAX);
    }

    #[test]
    fn only_the_right_password_opens_it() {
        let (token, right) = (Token::new([7; 32]), RescuePassword::new(4711));
        let hash = right.hash(&token);
        let gate = Gate { token, hash, attempts: Mutex::default(), shell: Mutex::new(()) };
        assert!(gate.is_right(format!("{}\n", right.as_str()).as_bytes()));
        for noise in [&b"\xff\xff\n"[..], b"\n", b"root\n"] {
            assert!(!gate.is_right(noise));
        }
        assert_eq!(gate.attempts.lock().unwrap().wrong, 0, "noise is no attempt");
    }
}
