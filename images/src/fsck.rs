//! `e2fsck`, for a disk that a machine has written to: its journal is replayed, and what its power switch has left is mended.

use crate::stop::Stop;
use crate::tethered::{self, NOT_FOUND};
use crate::volumes::{Content, Volume};
use model::FileSystem;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// The tool; in Debian's package `e2fsprogs`.
const PROGRAM: &str = "e2fsck";
/// It has found nothing.
const CLEAN: i32 = 0;
/// It has mended what it found.
const MENDED: i32 = 1;
/// What we keep of what it says.
const TOLD_BYTES_MAX: u64 = 4096;
/// Lines of it that people are told.
const TOLD_LINES_MAX: usize = 6;
/// How long after it was told to stop the program is ended.
const STOP_LATENCY: Duration = Duration::from_millis(50);

/// What became of it.
#[derive(Debug)]
pub(crate) enum Checked {
    /// All is well, now at least; what is to be told of it.
    Well(Vec<String>),
    /// Nobody knows, and why.
    NotKnown(String),
}

/// Why the disk can't be used.
#[derive(Debug)]
pub(crate) enum Failed {
    Stopped,
    /// Text for people.
    Damaged(String),
}

/// Checks a file system of the disk at `path`, which nobody else uses, and mends what can be mended without a question.
pub(crate) fn check(path: &Path, volume: &Volume, stop: &Stop) -> Result<Checked, Failed> {
    let Content::Root(kind) = volume.content else { return Ok(Checked::Well(Vec::new())) };
    if kind != FileSystem::Ext4 {
        return Ok(Checked::NotKnown(format!("whether its {kind} is whole was not looked at")));
    }
    if volume.logical.is_some() {
        let why = "whether its ext4 is whole was not looked at, as it is in a logical volume";
        return Ok(Checked::NotKnown(why.to_owned()));
    }
    let mut child = match start(path, volume.offset) {
        Ok(child) => child,
        Err(error) => return Ok(Checked::NotKnown(not_started(&error))),
    };
    let told = child.stdout.take().map(|stdout| {
        std::thread::spawn(move || {
            let (mut told, mut stdout) = (Vec::new(), stdout);
            // What can't be read is no help; the exit code counts.
            let _ = stdout.by_ref().take(TOLD_BYTES_MAX).read_to_end(&mut told);
            let _ = io::copy(&mut stdout, &mut io::sink());
            String::from_utf8_lossy(&told).into_owned()
        })
    });
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => std::thread::sleep(STOP_LATENCY),
            Err(error) => return Ok(Checked::NotKnown(not_started(&error))),
        }
        if stop.is_stopping() {
            // It may have ended just now.
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failed::Stopped);
        }
    };
    let told = told.and_then(|told| told.join().ok()).unwrap_or_default();
    match status.code() {
        Some(CLEAN) => Ok(Checked::Well(Vec::new())),
        Some(MENDED) => Ok(Checked::Well(lines(&told))),
        Some(NOT_FOUND) => Ok(Checked::NotKnown(not_started(&io::ErrorKind::NotFound.into()))),
        _ => {
            let lines = lines(&told).join("; ");
            Err(Failed::Damaged(format!(
                "its file system is damaged, so that {PROGRAM} can't mend it by itself: {lines}"
            )))
        }
    }
}

fn start(path: &Path, offset: u64) -> io::Result<Child> {
    let (folder, name) = (path.parent(), path.file_name().unwrap_or_default());
    let mut disk = name.to_owned();
    disk.push(format!("?offset={offset}"));
    tethered::start(PROGRAM, &["--no-new-privs"], |command| {
        command.args(["-f", "-p"]).arg(&disk).env("LC_ALL", "C");
        // Its folder's name may have a question mark, too.
        command.current_dir(folder.unwrap_or(Path::new(".")));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Ok(())
    })
}

fn not_started(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "whether its file system is whole was not looked at: install the package e2fsprogs, which has {PROGRAM}"
        ),
        _ => format!("whether its file system is whole was not looked at: {PROGRAM}: {error}"),
    }
}

/// What it has said, without the name of the disk in each line.
fn lines(told: &str) -> Vec<String> {
    let lines = told.lines().map(|line| match line.split_once("?offset=") {
        Some((_, rest)) => rest.split_once(": ").map_or(rest, |(_, told)| told).trim(),
        None => line.trim(),
    });
    let lines = lines.filter(|line| !line.is_empty() && !line.contains("contiguous"));
    lines.take(TOLD_LINES_MAX).map(model::one_line).map(|line| line.to_string()).collect()
}
