//! `qemu-img`, for formats of others.

use crate::block::{Block, check_range};
use crate::progress::{Progress, Step};
use crate::source::Format;
use crate::stop::Stop;
use crate::tethered::{self, NOT_FOUND};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The tool; in Debian's package `qemu-utils`.
const PROGRAM: &str = "qemu-img";
/// What we keep of its complaints.
const STDERR_BYTES_MAX: u64 = 4096;
/// How long after it was told to stop the program is ended.
const STOP_LATENCY: Duration = Duration::from_millis(50);
/// What is looked at of a disk is fetched in pieces of this size.
const PIECE_BYTES: u64 = 4 << 20;
/// Pieces that are kept: a kernel has up to 5.
const PIECES_MAX: usize = 16;
const SECTOR_BYTES: u64 = 512;

/// The conversion did not happen.
pub(crate) enum Failed {
    DiskFull,
    /// It was told to.
    Stopped,
    /// Text for people.
    Other(String),
}

/// A disk image that `qemu-img` can read.
#[derive(Clone)]
pub(crate) struct Image {
    format: Format,
    path: PathBuf,
    file: Arc<File>,
    stop: Stop,
}

/// The image, as the program has it: on its standard input, so that no other file can have come in its place since it was looked at.
const INPUT: &str = "/dev/stdin";

impl Image {
    /// The format is given, so that `qemu-img` does not guess. `path` is what `file` is called in sentences.
    pub(crate) fn new(format: Format, path: &Path, file: File, stop: &Stop) -> Self {
        Self { format, path: path.to_owned(), file: Arc::new(file), stop: stop.clone() }
    }

    /// Converts it into a sparse raw disk at `target`, which must not exist.
    pub(crate) fn convert(
        &self,
        target: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Failed> {
        let target = std::path::absolute(target)
            .map_err(|error| Failed::Other(format!("can't use {}: {error}", target.display())))?;
        self.run(
            |command| {
                command
                    .args(["convert", "-p", "-f", self.format.name(), "-O", "raw", "-S", "4k"])
                    .arg(INPUT)
                    .arg(&target);
            },
            progress,
        )
    }

    /// Copies `length` bytes of the disk in it, from `offset` on, to `target`: both whole sectors.
    ///
    /// (`qemu-img dd` would be simpler, but what `count=` means with `skip=` differs from release to release.)
    fn copy_piece(&self, offset: u64, length: u64, target: &Path) -> Result<(), Failed> {
        let format = self.format.name();
        let mut options = OsString::from(format!(
            "driver=raw,offset={offset},size={length},file.driver={format},"
        ));
        if self.format == Format::Vpc {
            // As its tables have it, which may be more than its cylinders.
            options.push("file.force_size_calc=current_size,");
        }
        options.push("file.file.driver=file,file.file.filename=");
        options.push(INPUT);
        self.run(
            |command| {
                command
                    .args(["convert", "--image-opts", "-O", "raw", "-S", "4k"])
                    .arg(&options)
                    .arg(target);
            },
            &mut |_| (),
        )
    }

    fn run(
        &self,
        arguments: impl Fn(&mut Command),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Failed> {
        let mut child = self.start(arguments)?;
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        // Both pipes are emptied at once: a program whose pipe is full never ends.
        let (status, complaint) = std::thread::scope(|scope| {
            let complaint = scope.spawn(|| stderr.map(read_start).unwrap_or_default());
            let (sender, percents) = channel();
            // The sender goes with the thread: then the program has closed its output.
            scope.spawn(move || {
                if let Some(stdout) = stdout {
                    follow(stdout, &sender);
                }
            });
            loop {
                match percents.recv_timeout(STOP_LATENCY) {
                    Ok(hundredths) => progress(Progress {
                        step: Step::Copy,
                        done_bytes: hundredths,
                        total_bytes: 10_000,
                    }),
                    Err(RecvTimeoutError::Timeout) => {}
                    // It ends.
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                if self.stop.is_stopping() {
                    // It may have ended just now.
                    let _ = child.kill();
                    break;
                }
            }
            (child.wait(), complaint.join().unwrap_or_default())
        });
        if self.stop.is_stopping() {
            return Err(Failed::Stopped);
        }
        let status =
            status.map_err(|error| Failed::Other(format!("can't wait for {PROGRAM}: {error}")))?;
        self.verdict(status, &complaint)
    }

    fn start(&self, arguments: impl Fn(&mut Command)) -> Result<Child, Failed> {
        let started = tethered::start(PROGRAM, &[], |command| {
            arguments(command);
            command
                .env("LC_ALL", "C")
                .stdin(Stdio::from(self.file.try_clone()?))
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            Ok(())
        });
        started.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.not_installed(),
            _ => Failed::Other(format!("can't start {PROGRAM}: {error}")),
        })
    }

    fn verdict(&self, status: ExitStatus, complaint: &str) -> Result<(), Failed> {
        if status.success() {
            Ok(())
        } else if status.code() == Some(NOT_FOUND) {
            Err(self.not_installed())
        } else if complaint.contains("No space left on device") {
            Err(Failed::DiskFull)
        } else {
            let path = self.path.display();
            let complaint = complaint.trim().replace(INPUT, &path.to_string());
            Err(Failed::Other(format!("{PROGRAM} can't convert {path}: {complaint}")))
        }
    }

    fn not_installed(&self) -> Failed {
        Failed::Other(format!(
            "reading {} files needs the program {PROGRAM}, which is not installed: install the package qemu-utils, \
             or import a raw disk",
            self.format.name()
        ))
    }
}

/// The disk in an image, to be looked at before it is converted. Each first look at a place starts a program, which
/// takes some 30 ms.
pub(crate) struct Peek {
    image: Image,
    size_bytes: u64,
    /// Where pieces are put for a moment; removed with this.
    scratch: PathBuf,
    pieces: Mutex<HashMap<u64, Vec<u8>>>,
}

impl Peek {
    pub(crate) fn new(image: Image, size_bytes: u64, scratch: PathBuf) -> Self {
        Self { image, size_bytes, scratch, pieces: Mutex::default() }
    }

    /// The size is a number of whole sectors in all formats; what is too much is left out.
    fn fetch(&self, piece: u64) -> io::Result<Vec<u8>> {
        let _ = fs::remove_file(&self.scratch);
        let offset = piece * PIECE_BYTES;
        let whole_sectors = self.size_bytes - self.size_bytes % SECTOR_BYTES;
        let length = whole_sectors.saturating_sub(offset).min(PIECE_BYTES);
        self.image.copy_piece(offset, length, &self.scratch).map_err(|failed| match failed {
            Failed::DiskFull => io::ErrorKind::StorageFull.into(),
            Failed::Stopped => io::ErrorKind::Interrupted.into(),
            Failed::Other(text) => io::Error::other(text),
        })?;
        let mut bytes = fs::read(&self.scratch)?;
        // The disk may end in the middle of it.
        bytes.resize(PIECE_BYTES as usize, 0);
        Ok(bytes)
    }
}

impl Drop for Peek {
    fn drop(&mut self) {
        // Nothing was looked at, or it goes with its folder.
        let _ = fs::remove_file(&self.scratch);
    }
}

impl Block for Peek {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(offset, buffer.len() as u64, self.size_bytes)?;
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < buffer.len() {
            let place = offset + done as u64;
            let piece = place / PIECE_BYTES;
            if !pieces.contains_key(&piece) {
                if pieces.len() >= PIECES_MAX {
                    pieces.clear();
                }
                pieces.insert(piece, self.fetch(piece)?);
            }
            let bytes = &pieces[&piece][(place % PIECE_BYTES) as usize..];
            let length = bytes.len().min(buffer.len() - done);
            buffer[done..done + length].copy_from_slice(&bytes[..length]);
            done += length;
        }
        Ok(())
    }
}

/// Turns what the program prints into hundredths of a percent, until it ends.
fn follow(mut stdout: ChildStdout, percents_done: &Sender<u64>) {
    let mut percents = Percents::default();
    let mut bytes = [0; 256];
    while let Ok(n_bytes @ 1..) = stdout.read(&mut bytes) {
        if let Some(hundredths) = percents.on_bytes(&bytes[..n_bytes])
            && percents_done.send(hundredths).is_err()
        {
            break;
        }
    }
}

/// The start of what the program complains about; the rest is read and dropped.
fn read_start(mut stderr: ChildStderr) -> String {
    let mut start = Vec::new();
    // A complaint that can't be read is no help; the exit code counts.
    let _ = stderr.by_ref().take(STDERR_BYTES_MAX).read_to_end(&mut start);
    let _ = io::copy(&mut stderr, &mut io::sink());
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
