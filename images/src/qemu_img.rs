//! `qemu-img`, for formats of others.

use crate::progress::{Progress, Step};
use crate::source::Format;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

/// The tool; in Debian's package `qemu-utils`.
const PROGRAM: &str = "qemu-img";
/// What we keep of its complaints.
const STDERR_BYTES_MAX: u64 = 4096;

/// The conversion did not happen.
pub(crate) enum Failed {
    DiskFull,
    /// Text for people.
    Other(String),
}

/// Converts `source` into a sparse raw disk at `target`, which must not exist.
///
/// The format is given, so that `qemu-img` does not guess; the name is absolute, so that it is never
/// taken for a protocol (`nbd:…`).
pub(crate) fn convert(
    format: Format,
    source: &Path,
    target: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Failed> {
    let source = source
        .canonicalize()
        .map_err(|error| Failed::Other(format!("can't find {}: {error}", source.display())))?;
    let target = std::path::absolute(target)
        .map_err(|error| Failed::Other(format!("can't use {}: {error}", target.display())))?;
    let mut child = Command::new(PROGRAM)
        .args(["convert", "-p", "-f", format.name(), "-O", "raw", "-S", "4k"])
        .arg(&source)
        .arg(&target)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Failed::Other(format!(
                "reading {} files needs the program {PROGRAM}, which is not installed: install the package \
                 qemu-utils, or import a raw disk",
                format.name()
            )),
            _ => Failed::Other(format!("can't start {PROGRAM}: {error}")),
        })?;

    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    // Both pipes are emptied at once: a program whose pipe is full never ends.
    let complaint = std::thread::scope(|scope| {
        let complaint = scope.spawn(|| stderr.map(read_start).unwrap_or_default());
        if let Some(stdout) = stdout {
            follow(stdout, progress);
        }
        complaint.join().unwrap_or_default()
    });
    let status = child
        .wait()
        .map_err(|error| Failed::Other(format!("can't wait for {PROGRAM}: {error}")))?;
    if status.success() {
        return Ok(());
    }
    if complaint.contains("No space left on device") {
        return Err(Failed::DiskFull);
    }
    let complaint = complaint.trim();
    Err(Failed::Other(format!("{PROGRAM} can't convert {}: {complaint}", source.display())))
}

/// Turns what the program prints into progress, until it ends.
fn follow(mut stdout: impl Read, progress: &mut dyn FnMut(Progress)) {
    let mut percents = Percents::default();
    let mut bytes = [0; 256];
    while let Ok(n_bytes @ 1..) = stdout.read(&mut bytes) {
        if let Some(hundredths) = percents.on_bytes(&bytes[..n_bytes]) {
            progress(Progress { step: Step::Copy, done_bytes: hundredths, total_bytes: 10_000 });
        }
    }
}

/// The start of what the program complains about; the rest is read and dropped.
fn read_start(mut stderr: impl Read) -> String {
    let mut start = Vec::new();
    // A complaint that can't be read is no help; the exit code counts.
    let _ = stderr.by_ref().take(STDERR_BYTES_MAX).read_to_end(&mut start);
    let _ = std::io::copy(&mut stderr, &mut std::io::sink());
    String::from_utf8_lossy(&start).into_owned()
}

/// Reads `(12.34/100%)` out of the program's output.
#[derive(Default)]
struct Percents {
    number: String,
}

impl Percents {
    /// The last complete number in these bytes, in hundredths of a percent.
    fn on_bytes(&mut self, bytes: &[u8]) -> Option<u64> {
        let mut last = None;
        for &byte in bytes {
            match byte {
                b'(' => self.number.clear(),
                b'/' => {
                    last = self.number.parse::<f64>().ok().map(|percent| (percent * 100.0) as u64);
                }
                _ if self.number.len() < 16 => self.number.push(char::from(byte)),
                _ => {}
            }
        }
        last.map(|hundredths| hundredths.min(10_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_pieces() {
        let mut percents = Percents::default();
        assert_eq!(percents.on_bytes(b"    (0.00/100%)\r    (12."), Some(0));
        assert_eq!(percents.on_bytes(b"34/100%)\r"), Some(1234));
        assert_eq!(percents.on_bytes(b"(100.00/100%)"), Some(10_000));
        assert_eq!(percents.on_bytes(b"(999999999999999999999999/"), Some(10_000));
        assert_eq!(percents.on_bytes(b"(x/"), None);
    }
}
