//! What a PC says on its serial port, and what we type there.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Text kept of one PC. A boot says about 60 kB; a loop of failing boots must not eat the memory.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// Lines of the tail that errors show.
const TAIL_LINES: usize = 30;

/// A serial port. What was matched once is not matched again, as when reading a stream.
#[derive(Clone)]
pub struct Console {
    shared: Arc<Shared>,
}

struct Shared {
    transcript: Mutex<Transcript>,
    changed: Condvar,
    keyboard: Mutex<Box<dyn Write + Send>>,
}

#[derive(Default)]
struct Transcript {
    /// Without escape sequences and carriage returns.
    text: String,
    /// Where text begins that nobody has waited for yet.
    unread: usize,
    /// When the text grew to which length.
    arrivals: Vec<(Duration, usize)>,
    escape: Escape,
    has_ended: bool,
}

/// Where in an escape sequence (ECMA-48) the stream is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    Outside,
    Started,
    Inside,
}

impl Console {
    /// Reads `screen` until it ends, into memory and into the log file.
    pub(crate) fn start(
        mut screen: impl Read + Send + 'static,
        keyboard: impl Write + Send + 'static,
        log: &Path,
    ) -> Result<Self> {
        let mut log =
            File::create(log).with_context(|| format!("can't write {}", log.display()))?;
        let started = Instant::now();
        let shared = Arc::new(Shared {
            transcript: Mutex::default(),
            changed: Condvar::new(),
            keyboard: Mutex::new(Box::new(keyboard)),
        });
        let console = Self { shared };
        let reader = console.clone();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            loop {
                let length = screen.read(&mut chunk).unwrap_or(0);
                let mut transcript = reader.transcript();
                if length == 0 {
                    transcript.has_ended = true;
                } else {
                    // The log is a comfort: a full disk must not end the test.
                    let _ = log.write_all(&chunk[..length]);
                    transcript.append(&chunk[..length], started.elapsed());
                }
                drop(transcript);
                reader.shared.changed.notify_all();
                if length == 0 {
                    return;
                }
            }
        });
        Ok(console)
    }

    /// Waits until the PC has said this after what was waited for before.
    ///
    /// # Errors
    /// It is not said in time, or the PC ends; the error shows the end of what was said.
    pub fn wait_for(&self, text: &str, timeout: Duration) -> Result<()> {
        self.wait_for_any(&[text], timeout).map(drop)
    }

    /// Waits for the first of several texts and returns its index.
    ///
    /// # Errors
    /// None is said in time, or the PC ends; the error shows the end of what was said.
    pub fn wait_for_any(&self, texts: &[&str], timeout: Duration) -> Result<usize> {
        let deadline = Instant::now() + timeout;
        let mut transcript = self.transcript();
        loop {
            if let Some((index, end)) = transcript.find(texts) {
                transcript.unread = end;
                return Ok(index);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if transcript.has_ended || left.is_zero() {
                let why = if transcript.has_ended {
                    "the PC was switched off before".to_owned()
                } else {
                    format!("not within {} s", timeout.as_secs())
                };
                let tail = transcript.tail(TAIL_LINES);
                drop(transcript);
                bail!("waited on the console for {texts:?}: {why}. The console's end:\n{tail}");
            }
            let waited = self.shared.changed.wait_timeout(transcript, left);
            transcript = waited.map_or_else(|poison| poison.into_inner().0, |(guard, _)| guard);
        }
    }

    /// Types a line.
    ///
    /// # Errors
    /// The PC has ended.
    pub fn send_line(&self, line: &str) -> Result<()> {
        let mut keyboard = self.shared.keyboard.lock().unwrap_or_else(PoisonError::into_inner);
        keyboard
            .write_all(format!("{line}\r").as_bytes())
            .and_then(|()| keyboard.flush())
            .context("can't type on the console: the PC is off")
    }

    /// Types a command for a root shell and returns what it printed.
    ///
    /// # Errors
    /// The shell does not come back in time.
    pub fn shell(&self, command: &str, timeout: Duration) -> Result<String> {
        // Marks that the echo of the command line itself does not contain.
        let line = format!("echo '<'out'<'; {command}; echo '>'out'>'$?'>'");
        self.send_line(&line)?;
        self.wait_for("<out<\n", timeout)?;
        let start = self.transcript().unread;
        self.wait_for(">out>", timeout)?;
        let transcript = self.transcript();
        let end = transcript.unread - ">out>".len();
        Ok(transcript.text.get(start..end).unwrap_or_default().trim().to_owned())
    }

    /// Logs in as root, who has no password in our images.
    ///
    /// # Errors
    /// The prompts don't come in time.
    pub fn log_in(&self, timeout: Duration) -> Result<()> {
        self.send_line("root")?;
        self.wait_for("# ", timeout)?;
        // Bracketed paste, prompts and messages of the kernel only get between us and the text.
        let quiet = "bind 'set enable-bracketed-paste off' 2>/dev/null; dmesg -n emerg";
        self.send_line(&format!("{quiet}; PS1='ready\\n'"))?;
        self.wait_for("\nready\n", timeout)
    }

    /// The last lines.
    pub fn tail(&self, n_lines: usize) -> String {
        self.transcript().tail(n_lines)
    }

    /// Everything said so far.
    pub fn text(&self) -> String {
        self.transcript().text.clone()
    }

    /// When this was first said, counted from power-on.
    pub fn time_of(&self, text: &str) -> Option<Duration> {
        let transcript = self.transcript();
        let end = transcript.text.find(text)? + text.len();
        transcript.arrivals.iter().find(|(_, length)| *length >= end).map(|(time, _)| *time)
    }

    /// Whether the PC has ended.
    pub fn has_ended(&self) -> bool {
        self.transcript().has_ended
    }

    fn transcript(&self) -> MutexGuard<'_, Transcript> {
        self.shared.transcript.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transcript {
    fn append(&mut self, bytes: &[u8], time: Duration) {
        if self.text.len() >= TEXT_BYTES_MAX {
            return;
        }
        for byte in bytes {
            self.escape = match (self.escape, byte) {
                (_, 0x1b) => Escape::Started,
                (Escape::Started, b'[') => Escape::Inside,
                (Escape::Inside, 0x20..=0x3f) => Escape::Inside,
                (Escape::Started | Escape::Inside, _) => Escape::Outside,
                (Escape::Outside, b'\r' | 0) => Escape::Outside,
                (Escape::Outside, byte) => {
                    // Not ASCII is decoration here (systemd's bullets).
                    self.text.push(if byte.is_ascii() { char::from(*byte) } else { '.' });
                    Escape::Outside
                }
            };
        }
        self.arrivals.push((time, self.text.len()));
    }

    /// The first of the texts to be said: its index, and where it ends.
    fn find(&self, texts: &[&str]) -> Option<(usize, usize)> {
        let unread = self.text.get(self.unread..)?;
        let found = |(index, text): (usize, &&str)| {
            unread.find(text).map(|at| (at, index, self.unread + at + text.len()))
        };
        let (_, index, end) = texts.iter().enumerate().filter_map(found).min()?;
        Some((index, end))
    }

    fn tail(&self, n_lines: usize) -> String {
        let lines: Vec<&str> = self.text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(n_lines)..].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(said: &'static [u8]) -> (tempfile::TempDir, Console) {
        let folder = tempfile::tempdir().unwrap();
        let console = Console::start(said, Vec::new(), &folder.path().join("log")).unwrap();
        (folder, console)
    }

    #[test]
    fn what_was_waited_for_is_read() {
        let (_folder, console) = console(b"one\r\n\x1b[0;32mtwo\x1b[0m one\r\n");
        let soon = Duration::from_secs(5);
        console.wait_for("one\ntwo", soon).unwrap();
        console.wait_for("one", soon).unwrap();
        let error = console.wait_for("one", soon).unwrap_err().to_string();
        assert!(error.contains("switched off") && error.contains("two one"), "{error}");
        assert!(console.time_of("two").is_some());
    }

    #[test]
    fn the_first_of_several_wins() {
        let (_folder, console) = console(b"failed: no disk, login: ");
        let texts = ["login:", "failed"];
        assert_eq!(console.wait_for_any(&texts, Duration::from_secs(5)).unwrap(), 1);
    }
}
