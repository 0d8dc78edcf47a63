//! `bootlace image export` and `send`

use super::super::as_job::{Work, as_job, caller, word};
use super::super::output::leads_nowhere;
use super::super::{Refused, WrongUsage};
use crate::far::{self, Delivered, FarServer, Place, Told};
use crate::new_file::NewFile;
use crate::paths::Paths;
use crate::privileges::{as_owner, is_owner};
use anyhow::{Context as _, bail};
use clap::Args;
use hyper::StatusCode;
use images::{ExportFormat, ExportTo, Progress, SendRequest, Sent, Store};
use model::{Follows, ImageChoice, ImageName, Size, VersionState};
use service::jobs::{JobKind, NewJob};
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Write a version to a file that other programs read
///
/// It is compared with its digest on the way. FILE appears when it is complete. Without a version it is the newest that is released.
///
/// Example: bootlace image export debian-12/v4 /srv/debian-12.qcow2
#[derive(Args)]
pub(in crate::cli) struct Export {
    /// Image, like debian-12, or a version of it, like debian-12/v4
    image: ImageChoice,
    /// The new file; - is standard output, which takes raw and tar
    file: PathBuf,
    /// raw (with holes where it is empty), qcow2 or tar; without, what the name of FILE ends with
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<ExportFormat>,
    /// Replace FILE if it is there
    #[arg(long)]
    force: bool,
}

/// Send a version to another Bootlace, as a stream for bootlace image receive
///
/// The stream is compressed, holds no empty blocks, and ends with a digest. --from leaves out what is the same in a version that the other
/// side has, which it finds by its content. Without a version it is the newest that is released.
///
/// Example: bootlace image send debian-12/v4 --from v3 | ssh server-2 bootlace image receive
#[derive(Args)]
pub(in crate::cli) struct Send {
    /// Image, like debian-12, or a version of it, like debian-12/v4
    image: ImageChoice,
    /// A version of the same image that the other side has, like v3
    #[arg(long, value_name = "VERSION", value_parser = super::number)]
    from: Option<u32>,
    /// Write the stream to this new file; without, or with -, to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace FILE if it is there
    #[arg(long)]
    force: bool,
    /// Go on where an earlier stream broke off, as bootlace image receive --resume says
    #[arg(long, value_name = "BYTES", default_value_t)]
    resume_at: u64,
    /// Send it to the Bootlace whose pages are here, like https://boot2:8443: only what is missing there, and on when the connection breaks
    #[arg(long, value_name = "URL", conflicts_with_all = ["from", "output", "resume_at", "force"], requires = "token_file")]
    to: Option<String>,
    /// A file with the token of an administrator there in its first line
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The authority of that server's certificate, in PEM; without, those that this host trusts
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// For whom it is there: released, test or draft (nobody yet)
    #[arg(long, value_name = "STATE", default_value = "draft", value_parser = super::new_state, requires = "to")]
    state: VersionState,
}

fn format(text: &str) -> Result<ExportFormat, String> {
    let found = ExportFormat::ALL.into_iter().find(|(name, _)| *name == text);
    found.map(|(_, format)| format).ok_or_else(|| {
        let names = ExportFormat::ALL.map(|(name, _)| name).join(", ");
        format!("there are these formats: {names}")
    })
}

impl Export {
    pub(in crate::cli) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let is_pipe = self.file == Path::new("-");
        let suffix = self.file.extension().and_then(|it| it.to_str());
        let by_name = match suffix {
            _ if is_pipe => Some(ExportFormat::Raw),
            Some("img") => Some(ExportFormat::Raw),
            Some(suffix) => format(suffix).ok(),
            None => None,
        };
        let Some(format) = self.format.or(by_name) else {
            let told = format!("{}: as what? Add --format raw, qcow2 or tar", self.file.display());
            return Err(WrongUsage(told).into());
        };
        let (image, number) = chosen(paths, &self.image)?;
        let target = match is_pipe {
            true => None,
            false => Some((self.file.clone(), self.force)),
        };
        let new = NewJob {
            kind: JobKind::ImageExport,
            what: format!("{image}/v{number} to {}", self.file.display()),
            by: caller(),
        };
        leave(paths, target, new, |work, out| {
            let store = Store::look(&paths.images())?;
            let stop = work.stop.clone();
            let mut progress =
                |it: Progress| work.show(word(it.step), it.done_bytes, it.total_bytes);
            let mut pipe;
            let to = match out {
                Some(new) => ExportTo::File(new.file()),
                None => {
                    pipe = BufWriter::new(io::stdout());
                    ExportTo::Pipe(&mut pipe)
                }
            };
            let exported = store.export(&image, number, (format, to), &stop, &mut progress);
            let size =
                Size(exported.context(format!("{image}/v{number} was not exported"))?.size_bytes);
            let told = format!("{image}/v{number} exported: {size}");
            work.note(&told);
            Ok(told)
        })
    }
}

impl Send {
    pub(in crate::cli) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let (image, version) = chosen(paths, &self.image)?;
        if let (Some(url), Some(token_file)) = (self.to, self.token_file) {
            // As its caller, who can read the token.
            let place = FarServer { url, token_file, ca: self.ca }.place()?;
            let new = NewJob {
                kind: JobKind::ImageSend,
                what: format!("{image}/v{version} to {}", place.url),
                by: caller(),
            };
            return as_owner(paths, || {
                as_job(paths, new, |work| {
                    let told = send_to(paths, &place, (&image, version), self.state, work)?;
                    work.say(&told);
                    Ok(told)
                })
            });
        }
        let request = SendRequest {
            image: image.clone(),
            version,
            from: self.from,
            at_bytes: self.resume_at,
        };
        let target = self.output.filter(|output| output != Path::new("-"));
        let what = match &target {
            Some(file) => format!("{image}/v{version} to {}", file.display()),
            None => format!("{image}/v{version}"),
        };
        let new = NewJob { kind: JobKind::ImageSend, what, by: caller() };
        leave(paths, target.map(|file| (file, self.force)), new, |work, out| {
            let store = Store::look(&paths.images())?;
            let stop = work.stop.clone();
            let mut progress = |it: Progress| work.show("sending", it.done_bytes, it.total_bytes);
            let sent = match out {
                Some(new) => store.send(&request, BufWriter::new(new), &stop, &mut progress),
                None => store.send(&request, BufWriter::new(io::stdout()), &stop, &mut progress),
            };
            let Sent { stream_bytes, .. } =
                sent.with_context(|| format!("{image}/v{version} was not sent"))?;
            let from = self.from.map(|from| format!(" as what differs from v{from}"));
            let told = format!(
                "{image}/v{version} sent{}: {}",
                from.unwrap_or_default(),
                Size(stream_bytes)
            );
            work.note(&told);
            Ok(told)
        })
    }
}

/// Sends a version to another server. Returns what became of it, in a sentence.
pub(in crate::cli) fn send_to(
    paths: &Paths,
    place: &Place,
    (image, version): (&ImageName, u32),
    state: VersionState,
    work: &mut Work,
) -> anyhow::Result<String> {
    let store = Arc::new(Store::look(&paths.images())?);
    let (stop, runtime) = (work.stop.clone(), super::super::runtime()?);
    let mut tell = |told: Told<'_>| match told {
        Told::Line(line) => work.note(line),
        Told::Bytes(done, of) => work.show("sending", done, of),
    };
    let to = (image, version);
    let delivered = far::deliver(&runtime, place, &store, to, state, &stop, &mut tell);
    // Nobody waits for a name server that does not answer.
    runtime.shutdown_background();
    let delivered = delivered.map_err(anyhow::Error::from);
    let delivered = delivered.with_context(|| format!("{image}/v{version} was not sent"))?;
    Ok(match delivered {
        Delivered::Known(there) => {
            format!("nothing to do: {} has {image}/v{version} already, as v{there}", place.url)
        }
        Delivered::New(there, sent) => format!(
            "{image}/v{version} sent to {}: it is {}/v{} there; {}",
            place.url,
            there.image,
            there.version,
            Size(sent.stream_bytes)
        ),
    })
}

/// Does the work as a job and the servers' user, who can read images; the file is its caller's, and appears when all is done.
fn leave(
    paths: &Paths,
    target: Option<(PathBuf, bool)>,
    new: NewJob,
    work: impl FnOnce(&mut Work, Option<&mut NewFile>) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let Some((file, force)) = target else {
        if io::stdout().is_terminal() || leads_nowhere() {
            bail!("an image is no text: name a file, or redirect standard output");
        }
        return as_owner(paths, || {
            as_job(paths, new, |doing| {
                let told = work(doing, None)?;
                io::stdout().flush()?;
                Ok(told)
            })
        });
    };
    let shown = file.display();
    let failed = || format!("can't write {shown}");
    match file.symlink_metadata() {
        Ok(there) if there.is_dir() => bail!("{shown} is a folder: name a file in it"),
        Ok(there) if !there.is_file() && !there.is_symlink() => {
            bail!("{shown} is no file: write to - and redirect standard output there")
        }
        Ok(_) if !force => bail!("{shown} is there already; --force replaces it"),
        _ => {}
    }
    let mut made = NewFile::create(&file, 0o600).with_context(failed)?;
    as_owner(paths, || as_job(paths, new, |doing| work(doing, Some(&mut made))))?;
    match force {
        true => made.replace(),
        false => made.put().map(drop),
    }
    .with_context(failed)
}

/// The version that is meant.
pub(in crate::cli) fn chosen(
    paths: &Paths,
    choice: &ImageChoice,
) -> anyhow::Result<(ImageName, u32)> {
    if !is_owner(&paths.state()) {
        bail!(
            "that reads all of {}, which only root and the servers' user may: use sudo",
            paths.images().display()
        );
    }
    let not_found = |text: String| anyhow::Error::from(Refused::new(StatusCode::NOT_FOUND, text));
    let list = || {
        let store = Store::look(&paths.images())?;
        Ok((store.list()?, store.states()?))
    };
    let (versions, states) = match paths.images().exists() {
        true => as_owner(paths, list)?,
        false => Default::default(),
    };
    let takes = |version: &&model::ImageVersion| {
        let key = (version.image.clone(), version.version);
        let state = states.get(&key).copied().unwrap_or(VersionState::Released);
        version.image == choice.image && choice.takes(version.version, state)
    };
    let found = versions.iter().filter(takes).max_by_key(|version| version.version);
    let found = found.map(|version| (version.image.clone(), version.version));
    found.ok_or_else(|| {
        let has_any = versions.iter().any(|version| version.image == choice.image);
        not_found(match choice.follows {
            Follows::Version(_) => {
                format!("there is no version {choice}: bootlace image ls shows all")
            }
            _ if has_any => format!(
                "no version of {} is {}: name one, like {}/v1 (bootlace image ls shows all)",
                choice.image,
                if choice.follows == Follows::Test { "to be tested" } else { "released" },
                choice.image
            ),
            _ => format!("there is no image {}: bootlace image ls shows all", choice.image),
        })
    })
}
