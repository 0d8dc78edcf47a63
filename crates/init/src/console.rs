//! Lines for people, on every console and in the kernel's log.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often a busy console is tried again, and how long apart; then the line is lost there.
const TRIES_MAX: u32 = 20;
const TRY_AGAIN: Duration = Duration::from_millis(5);

/// Longest line that the kernel takes from a program, with room for its level: 976 bytes until Linux 6.5, 1024 since
/// (kernel/printk/printk.c, LOG_LINE_MAX and PRINTKRB_RECORD_MAX). Longer ones it refuses.
const LOG_LINE_MAX: usize = 960;

/// Hears what the boot waits for.
type OnWait = Box<dyn FnMut(&str) + Send>;

/// Writes lines and ignores every error: a console that hangs up must not end a boot.
#[derive(Clone)]
pub(crate) struct Console {
    consoles: Arc<Mutex<Vec<File>>>,
    kernel_log: Option<Arc<File>>,
    /// Whether paths may be opened at any time: they may not in the keeper.
    opens_paths: bool,
    on_wait: Option<Arc<Mutex<OnWait>>>,
}

impl Console {
    /// Opens all consoles that the kernel has; needs `/dev`, and `/proc` to find more than one.
    pub(crate) fn open() -> Self {
        Self { consoles: Arc::new(Mutex::new(open_all())), opens_paths: true, ..Self::log_only() }
    }

    /// Opens the consoles again: a shell that ends hangs up its terminal for all who have it open
    /// (tty_vhangup_session).
    pub(crate) fn reopen(&self) {
        if let Ok(mut consoles) = self.consoles.lock() {
            *consoles = open_all();
        }
    }

    /// Lets somebody else hear what the boot waits for, too.
    pub(crate) fn on_wait(&mut self, hear: impl FnMut(&str) + Send + 'static) {
        self.on_wait = Some(Arc::new(Mutex::new(Box::new(hear))));
    }

    /// Says what the boot waits for; again now and then, as long as it lasts.
    pub(crate) fn wait(&self, topic: &str, text: &str) {
        self.say(topic, text);
        self.wait_silently(text);
    }

    /// Tells what the boot waits for only to who hears it by [`on_wait`](Self::on_wait): somebody uses the
    /// consoles.
    pub(crate) fn wait_silently(&self, text: &str) {
        if let Some(on_wait) = &self.on_wait
            && let Ok(mut hear) = on_wait.lock()
        {
            hear(text);
        }
    }

    /// Opens the kernel's log without any console: they belong to the real system by then. It stays open, so the
    /// kernel takes ten lines in five seconds, and drops what is more.
    pub(crate) fn log_only() -> Self {
        let kernel_log = open_kernel_log().map(Arc::new);
        Self { consoles: Arc::default(), kernel_log, opens_paths: false, on_wait: None }
    }

    /// `bootlace: TOPIC: TEXT (2.1 s)`.
    pub(crate) fn say(&self, topic: &str, text: &str) {
        let seconds = uptime().as_secs_f64();
        self.line(&format!("bootlace: {topic}: {text} ({seconds:.1} s)"));
    }

    /// One line as it is.
    pub(crate) fn line(&self, line: &str) {
        if let Ok(mut consoles) = self.consoles.lock() {
            for console in consoles.iter_mut() {
                write_patiently(console, format!("{line}\r\n").as_bytes());
            }
        }
        self.log(line);
    }

    /// Writes a line to the kernel's log at level 7 (debug), which the kernel does not repeat on its consoles.
    pub(crate) fn log(&self, line: &str) {
        self.log_at(7, line);
    }

    /// Writes a line to the kernel's log at level 3 (error), which the kernel repeats on its consoles, with
    /// `quiet`, too.
    pub(crate) fn warn(&self, line: &str) {
        self.log_at(3, line);
    }

    fn log_at(&self, level: u8, text: &str) {
        for piece in text.lines().flat_map(pieces) {
            // The kernel counts lines for each time that its log was opened, and says nothing of those that it drops
            // (printk_devkmsg, "ratelimit"). The last words of a failed boot are many at once, and must all be there.
            let opened = if self.opens_paths { open_kernel_log() } else { None };
            let Some(mut log) = opened.as_ref().or(self.kernel_log.as_deref()) else { return };
            let _ = log.write_all(format!("<{level}>{piece}\n").as_bytes());
        }
    }
}

/// Time since the kernel started.
pub(crate) fn uptime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

/// All consoles of the kernel, by their names in `/dev`.
pub(crate) fn names() -> Vec<String> {
    let list = std::fs::read_to_string("/proc/consoles").unwrap_or_default();
    console_names(&list).map(str::to_owned).collect()
}

/// Names out of `/proc/consoles`: the first word of each line.
fn console_names(list: &str) -> impl Iterator<Item = &str> {
    list.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn open_kernel_log() -> Option<File> {
    OpenOptions::new().write(true).open("/dev/kmsg").ok()
}

/// The line in pieces of at most [`LOG_LINE_MAX`] bytes.
fn pieces(mut line: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (piece, rest) = line.split_at(line.floor_char_boundary(LOG_LINE_MAX));
        line = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn open_all() -> Vec<File> {
    let mut consoles: Vec<File> =
        names().iter().filter_map(|name| open_console(&format!("/dev/{name}"))).collect();
    if consoles.is_empty() {
        consoles.extend(open_console("/dev/console"));
    }
    consoles
}

fn open_console(path: &str) -> Option<File> {
    let flags = rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
}

fn write_patiently(console: &mut File, mut bytes: &[u8]) {
    for _ in 0..TRIES_MAX {
        match console.write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(TRY_AGAIN),
            Err(_) => return,
        }
        if bytes.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_console_of_the_kernel_is_used() {
        let list = "ttyS0                -W- (EC p a)    4:64\ntty0                 -WU (E  p  )    4:1\n../x y\n";
        assert_eq!(console_names(list).collect::<Vec<_>>(), ["ttyS0", "tty0"]);
    }

    #[test]
    fn a_long_line_is_logged_in_pieces() {
        assert_eq!(pieces("").count(), 0);
        assert_eq!(pieces("short").collect::<Vec<_>>(), ["short"]);
        let long = format!("x{}", "ä".repeat(1000));
        let all: Vec<&str> = pieces(&long).collect();
        assert_eq!(all.iter().map(|piece| piece.len()).collect::<Vec<_>>(), [959, 960, 82]);
        assert_eq!(all.concat(), long);
    }
}
