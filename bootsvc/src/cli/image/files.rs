//! What is imported: a file, a folder, or what comes on standard input.

use super::super::output::note;
use crate::builder::HeldBack;
use anyhow::{Context as _, bail};
use images::Source;
use nix::unistd::dup;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

/// What tar answers where files changed while it read them.
const CHANGED: i32 = 1;

/// Longest complaint of tar that is passed on.
const COMPLAINT_BYTES_MAX: u64 = 4096;

/// A folder's files on their way into an import.
pub(super) struct Files(JoinHandle<Option<String>>);

impl Files {
    /// Why not all of them could be read, when the import is over and its source is closed. That it wanted no more is no reason.
    pub(super) fn end(self) -> Option<String> {
        self.0.join().unwrap_or_else(|_| Some("reading the folder has failed".to_owned()))
    }
}

/// Opens what is to be imported, as whoever this process is now.
/// Of a folder that holds this server's own `state`, that is left out: secrets of all machines, and the image that is being made.
pub(super) fn open(file: &Path, state: &[PathBuf]) -> anyhow::Result<(Source, Option<Files>)> {
    let context = || format!("{} was not imported", file.display());
    if file == Path::new("-") {
        let stdin = dup(io::stdin()).context("can't read standard input")?;
        return Ok((Source::pipe(File::from(stdin), "standard input")?, None));
    }
    if file.is_dir() {
        let (source, files) = archive_of(file, state).with_context(context)?;
        return Ok((source, Some(files)));
    }
    Ok((Source::open(file).with_context(context)?, None))
}

fn archive_of(folder: &Path, state: &[PathBuf]) -> anyhow::Result<(Source, Files)> {
    let mut command = Command::new("tar");
    command.args(["--create", "--format=posix", "--numeric-owner", "--one-file-system"]);
    command.args(["--anchored", "--no-wildcards"]);
    let real = folder.canonicalize()?;
    for own in state.iter().filter_map(|own| own.canonicalize().ok()) {
        if own == real {
            bail!("{} is this server's own state, and no system", folder.display());
        }
        if let Ok(inside) = own.strip_prefix(&real) {
            command.arg("--exclude").arg(Path::new(".").join(inside));
            note(format!("left out: {}, which is this server's own", own.display()));
        }
    }
    let started = command
        .args(["--xattrs", "--xattrs-include=*", "--directory"])
        .arg(folder)
        .arg(".")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut tar = match started {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("reading a folder needs the program tar, which is not installed")
        }
        other => other.context("can't start tar")?,
    };
    let stdout = tar.stdout.take().context("tar has no output")?;
    let (archive, into) = io::pipe()?;
    let reader = std::thread::spawn(move || pass_on(tar, stdout, HeldBack::new(into)));
    let name = folder.display().to_string();
    Ok((Source::pipe(File::from(OwnedFd::from(archive)), &name)?, Files(reader)))
}

fn pass_on(mut tar: Child, mut stdout: ChildStdout, mut into: HeldBack) -> Option<String> {
    let complaint = tar.stderr.take().map(|stderr| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let mut stderr = stderr;
            let _ = stderr.by_ref().take(COMPLAINT_BYTES_MAX).read_to_end(&mut text);
            let _ = io::copy(&mut stderr, &mut io::sink());
            String::from_utf8_lossy(&text).trim().to_owned()
        })
    });
    let copied = io::copy(&mut stdout, &mut into);
    drop(stdout);
    let status = match tar.wait() {
        Ok(status) => status,
        Err(error) => return Some(format!("can't wait for tar: {error}")),
    };
    let complaint = complaint.and_then(|thread| thread.join().ok()).unwrap_or_default();
    // Who imports it has had enough, and says why.
    copied.ok()?;
    if !status.success() && status.code() != Some(CHANGED) {
        return Some(format!("tar could not read all of the folder: {complaint}"));
    }
    let _ = into.finish();
    None
}
