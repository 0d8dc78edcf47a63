//! `bootlace image receive`

use super::super::as_job::{Work, as_job, caller};
use super::super::output::{advise, note};
use super::{new_state, record};
use crate::boot_socket::{NewVersion, Recorded};
use crate::paths::Paths;
use crate::privileges::{become_command, is_owner};
use crate::site::{Site, connect};
use anyhow::{Context as _, bail};
use clap::Args;
use images::{
    Progress, ReceiveRequest, Received, Step, Stop, Store, StreamAbout, StreamError, check_stream,
};
use model::{ImageName, ImageVersion, Size, VersionState};
use service::jobs::{JobKind, NewJob};
use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Receive a version that another Bootlace has sent
///
/// It becomes the next version of its image, a draft unless --state says otherwise. Its disk must have the digest that it had there, or
/// nothing is kept. A version that is known already changes nothing.
///
/// Example: bootlace image receive debian-12.stream
#[derive(Args)]
pub(in crate::cli) struct Receive {
    /// The stream of bootlace image send; without, or with -, standard input
    file: Option<PathBuf>,
    /// Make it a version of this image; without, of the one that it was
    #[arg(long)]
    name: Option<ImageName>,
    /// For whom it is: released, test (machines that follow NAME/test) or draft (nobody yet)
    #[arg(long, value_name = "STATE", default_value = "draft", value_parser = new_state)]
    state: VersionState,
    /// Keep what has come if it breaks off, and go on with what an earlier one has kept
    #[arg(long)]
    resume: bool,
    /// Only read it, and tell whether it is whole
    #[arg(long, conflicts_with_all = ["name", "resume"])]
    check: bool,
}

impl Receive {
    pub(in crate::cli) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let file = self.file.as_deref().filter(|file| *file != Path::new("-"));
        let what = file.map_or("standard input".to_owned(), |file| file.display().to_string());
        let input: Box<dyn Read> = match file {
            Some(file) => {
                let failed = || format!("can't read {}", file.display());
                Box::new(File::open(file).with_context(failed)?)
            }
            None if io::stdin().is_terminal() => {
                bail!("name the file with the stream, or send it to standard input")
            }
            None => Box::new(io::stdin().lock()),
        };
        if self.check {
            let about = check_stream(input, &Stop::default(), &mut |_| ())
                .with_context(|| format!("{what} can't be received"))?;
            super::super::say(format!("{what} is whole: {}", of(&about)));
            return Ok(());
        }
        if !is_owner(&paths.state()) {
            bail!(
                "a version that is received goes to {}, which only root and the servers' user may write to: use sudo",
                paths.images().display()
            );
        }
        // The boot server is to see who has called, and not who this process becomes.
        let (server, by) = (connect(paths)?, caller());
        become_command(paths)?;
        let new = NewJob { kind: JobKind::ImageReceive, what: format!("from {what}"), by };
        let request =
            ReceiveRequest { name: self.name, state: self.state, keeps_partial: self.resume };
        as_job(paths, new, |work| receive_now(paths, server, input, &request, work))?;
        if self.state != VersionState::Released {
            advise(
                paths,
                "bootlace image ls shows what machines get, and bootlace image release makes it what they get.",
            );
        }
        Ok(())
    }
}

/// What a stream is of.
fn of(about: &StreamAbout) -> String {
    let StreamAbout { image, version, size_bytes, from, .. } = about;
    match from {
        Some((from, _)) => format!("what differs between {image}/v{from} and v{version}"),
        None => format!("{image}/v{version}, {}", Size(*size_bytes)),
    }
}

fn receive_now(
    paths: &Paths,
    server: Option<UnixStream>,
    mut input: impl Read,
    request: &ReceiveRequest,
    work: &mut Work,
) -> anyhow::Result<String> {
    if server.is_none() {
        // Whoever opens the state tells the store which numbers were given out, if that was lost with the versions.
        drop(Site::enter(paths, None)?);
    }
    let store = Store::open(&paths.images())?;
    let stop = work.stop.clone();
    let mut about = None;
    let received = store.receive(
        &mut input,
        request,
        &stop,
        &mut |it| about = Some(it.clone()),
        &mut |it: Progress| {
            let word = match it.step {
                Step::Copy => "receiving",
                Step::Check | Step::Digest => "reading what is here",
                Step::Sync => "writing to disk",
            };
            work.show(word, it.done_bytes, it.total_bytes);
        },
    );
    let received = match received {
        Ok(received) => received,
        Err(error) => {
            if let Some(about) = about
                && let Some(hint) = go_on_hint(&store, &about, request, &error)
            {
                note(paths.commands().complete(&hint));
            }
            return Err(error).context("nothing was received");
        }
    };
    if matches!(received, Received::Known(_)) {
        // Who writes into our pipe is not to be cut off: he would take it for a failure.
        let _ = io::copy(&mut input, &mut io::sink());
    }
    let (version, told) = told(&received);
    if matches!(received, Received::Known(_)) {
        // Who received it may have been ended before it was recorded.
        record(paths, server, &NewVersion::of(version))?;
        work.say(&told);
        return Ok(told);
    }
    work.show("building its initrd", 0, 1);
    let recorded = record(paths, server, &NewVersion::of(version))?;
    work.say(&told);
    match recorded {
        Recorded { initrd_error: Some(why), .. } => {
            bail!("the version was received, but its initrd could not be built: {why}")
        }
        Recorded { initrd_bytes, .. } => {
            let bytes = initrd_bytes.unwrap_or_default();
            work.say(format!("initrd built: {:.1} MB", bytes as f64 / 1e6));
        }
    }
    Ok(told)
}

/// How to go on, if anything has come.
fn go_on_hint(
    store: &Store,
    about: &StreamAbout,
    request: &ReceiveRequest,
    error: &StreamError,
) -> Option<String> {
    let done_bytes = store.partial_bytes(&about.digest, about.size_bytes);
    let is_kept = request.keeps_partial && done_bytes > 0 && error.may_go_on();
    is_kept.then(|| {
        format!(
            "{} have come, and are kept for a week: bootlace image send {}/v{} --resume-at {done_bytes} goes on there, to bootlace image \
             receive --resume",
            Size(done_bytes),
            about.image,
            about.version
        )
    })
}

/// What became of a stream.
pub(in crate::cli) fn told(received: &Received) -> (&ImageVersion, String) {
    match received {
        Received::New(version) => {
            let ImageVersion { image, version: number, size_bytes, .. } = version;
            (version, format!("{image}: version {number} received, {}", Size(*size_bytes)))
        }
        Received::Known(version) => {
            let ImageVersion { image, version: number, .. } = version;
            let told = format!("nothing to do: {image}/v{number} has exactly this content already");
            (version, told)
        }
        Received::PutBack(version, files) => {
            let ImageVersion { image, version: number, .. } = version;
            let files = files.join(", ");
            let told = format!(
                "{image}: version {number} has this content, and was damaged: put back {files}"
            );
            (version, told)
        }
    }
}
