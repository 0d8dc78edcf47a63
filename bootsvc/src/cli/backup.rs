//! `bootlace backup`

mod images;

use super::output::leads_nowhere;
use super::status::count;
use super::{advise, note, say};
use crate::backup::{self, Saved, content, rotation};
use crate::new_file::NewFile;
use crate::paths::Paths;
use crate::privileges::as_owner;
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use service::backup::note_backup;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, IsTerminal as _, Write};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub(super) enum Backup {
    Create(Create),
    Restore(Restore),
    Verify(Verify),
    Images(images::Images),
    Drill(images::Drill),
}

/// Save configuration, keys and database in one file
///
/// The servers may run. The file holds secrets, such as the machines' SSH host keys, and only its owner can read it.
/// Images and disks are not in it.
#[derive(Args)]
pub(super) struct Create {
    /// The new file, such as site.tar.zst; - is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// FILE is a folder in which backups are kept, each named by its time: make one more, see that it could be restored, and delete
    /// all but the newest N
    #[arg(long, value_name = "N", value_parser = kept)]
    keep: Option<usize>,
}

/// Put a backup in place, while the boot server is stopped
#[derive(Args)]
pub(super) struct Restore {
    /// The backup; - is standard input
    file: PathBuf,
    /// Put aside what is there already, as FILE.before-restore-TIME
    #[arg(long)]
    replace: bool,
}

/// Check that a backup is whole, and could be restored
#[derive(Args)]
pub(super) struct Verify {
    /// The backup; - is standard input. Of a folder in which backups are kept it is the newest one
    file: PathBuf,
}

impl Backup {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        match self {
            Self::Create(create) => create.run(paths),
            Self::Restore(restore) => restore.run(paths),
            Self::Verify(verify) => verify.run(),
            Self::Images(images) => images.run(paths),
            Self::Drill(drill) => drill.run(paths),
        }
    }
}

impl Create {
    fn run(self, paths: &Paths) -> anyhow::Result<()> {
        if self.file == Path::new("-") {
            if self.keep.is_some() {
                bail!("--keep keeps backups in a folder, and - is standard output: name a folder");
            }
            if io::stdout().is_terminal() {
                bail!("a backup is no text: name a file, or redirect standard output");
            }
            if leads_nowhere() {
                bail!("standard output is closed, or thrown away: name a file, or redirect it");
            }
            let mut saved = backup::create(paths, BufWriter::new(io::stdout()), |_, _| {})?;
            saved.out.flush().context("can't write the backup")?;
            warn(&saved.left_out);
            note(format!("saved {}", content(&saved.manifest, saved.n_machines)));
            note(left_out(paths));
            return Ok(());
        }
        match self.keep {
            None => save(paths, &self.file).map(drop),
            Some(n_kept) => rotate(paths, &self.file, n_kept),
        }
    }
}

/// How many backups are kept.
fn kept(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 must be kept, the one that is made".to_owned()),
        Ok(n_kept) => Ok(n_kept),
        Err(_) => Err("it is no number of backups, like 14".to_owned()),
    }
}

/// One more backup in a folder, and fewer old ones.
fn rotate(paths: &Paths, folder: &Path, n_kept: usize) -> anyhow::Result<()> {
    if !folder.is_dir() {
        let folder = folder.display();
        bail!(
            "--keep keeps backups in a folder, and {folder} is none: make it first, by mkdir -p {folder}"
        );
    }
    let now = Timestamp::now();
    let file = folder.join(rotation::name(now));
    let made = save(paths, &file)?;
    // Before others go.
    let verified = backup::verify(open(&file)?);
    verified.with_context(|| format!("{} was made, and can't be restored", file.display()))?;
    if !made.is_complete {
        bail!(
            "{} lacks what is named above, which older ones may have: none of these was deleted",
            file.display()
        );
    }
    let kept = rotation::look(folder, n_kept, now);
    let kept = kept.with_context(|| format!("can't list {}", folder.display()))?;
    let delete = |old: &Path, why: &str| {
        fs::remove_file(old).with_context(|| format!("can't delete {}", old.display()))?;
        say(format!("{}: deleted, {why}", old.display()));
        Ok::<_, anyhow::Error>(())
    };
    for old in kept.superfluous {
        delete(&old, &format!("as newer ones are there ({n_kept} are kept)"))?;
    }
    for unfinished in kept.unfinished {
        delete(&unfinished, "as whoever made it was ended before it was complete")?;
    }
    for ahead in kept.ahead {
        note(format!(
            "warning: {} says that it is of a time that is yet to come, so it takes no other one's place, and is never \
             deleted: the clock was wrong. Delete or rename it",
            ahead.display()
        ));
    }
    as_owner(paths, || Ok(note_backup(&paths.database(), made.at_unix)?))
        .context("the backup is made, and that is not noted")
}

/// A backup that is written.
struct Made {
    /// When, seconds since 1970.
    at_unix: u64,
    /// All that belongs to the site is in it.
    is_complete: bool,
}

/// Makes a backup in a new file.
fn save(paths: &Paths, file: &Path) -> anyhow::Result<Made> {
    let shown = file.display();
    if file.symlink_metadata().is_ok() {
        bail!("{shown} is there already, and is not written over");
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.exists()) {
        let folder = folder.display();
        bail!(
            "can't write {shown}: there is no folder {folder}: make it first, by mkdir -p {folder}"
        );
    }
    let failed = || format!("can't write {shown}");
    let new = NewFile::create(file, 0o600).with_context(failed)?;
    let progress = |done: u64, total: u64| show_progress(done, total);
    let Saved { out, manifest, n_machines, left_out: not_saved } =
        backup::create(paths, BufWriter::new(new), progress)?;
    let new = out.into_inner().map_err(io::IntoInnerError::into_error).with_context(failed)?;
    let size = new.put().with_context(failed)?;
    warn(&not_saved);
    say(format!("{shown}: {}; {}", content(&manifest, n_machines), in_words(size)));
    say(left_out(paths));
    Ok(Made { at_unix: manifest.made_unix, is_complete: not_saved.is_empty() })
}

/// What nobody may believe to be saved.
fn left_out(paths: &Paths) -> String {
    format!(
        "Images and disks are not in it: copy {}, and {} while the storage server is stopped (the book: Back up and restore)",
        paths.images().display(),
        paths.layers().display()
    )
}

/// Tells what is not in a backup and should be.
fn warn(left_out: &[String]) {
    for what in left_out {
        note(format!("warning: not saved: {what}"));
    }
}

impl Restore {
    fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let shown = self.file.display();
        let restored = backup::restore(paths, open(&self.file)?, self.replace)
            .with_context(|| format!("{shown} was not restored"))?;
        say(format!(
            "restored {}, of {}",
            content(&restored.manifest, restored.n_machines),
            time(restored.manifest.made_unix)
        ));
        for path in &restored.placed {
            say(format!("  {}", path.display()));
        }
        for path in &restored.aside {
            say(format!("put aside: {}", path.display()));
        }
        for line in of_then(&restored.database) {
            advise(paths, &line);
        }
        say(
            "Images and disks are not in a backup, and were left alone. Start the boot server; machines that run must be restarted",
        );
        Ok(())
    }
}

/// What a person should know who goes back to a database of another time.
fn of_then(database: &service::Restored) -> Vec<String> {
    let service::Restored { n_users, n_tokens, kept, not_deleted } = database;
    let mut lines = Vec::new();
    if n_users + n_tokens > 0 {
        let (users, tokens) = (count(*n_users, "account"), count(*n_tokens, "token"));
        lines.push(format!(
            "Back as they were then: {users} with their roles and passwords, and {tokens}, also those that were removed or \
             changed since. Look at bootlace user ls and bootlace token ls. Nobody is logged in any more"
        ));
    }
    for machine in kept {
        lines.push(format!(
            "{machine} was to get a new disk at its next boot, and keeps the one that it has, if it has one: bootlace machine reset \
             {machine} orders it again"
        ));
    }
    for machine in not_deleted {
        lines.push(format!(
            "{machine} had been removed, and its disk was still to be deleted. That is not done any more, since another \
             machine may have the name by now; if there is a disk, bootlace status tells of it"
        ));
    }
    lines
}

impl Verify {
    fn run(self) -> anyhow::Result<()> {
        let file = match self.file.is_dir() {
            true => newest_in(&self.file)?,
            false => self.file,
        };
        let shown = file.display();
        let (manifest, n_machines) =
            backup::verify(open(&file)?).with_context(|| format!("{shown} can't be restored"))?;
        say(format!(
            "{shown} is good: {}; made {} by Bootlace {}",
            content(&manifest, n_machines),
            time(manifest.made_unix),
            manifest.bootlace
        ));
        Ok(())
    }
}

/// The newest of the backups that are kept in a folder.
fn newest_in(folder: &Path) -> anyhow::Result<PathBuf> {
    let shown = folder.display();
    let newest = rotation::newest(folder).with_context(|| format!("can't list {shown}"))?;
    newest.with_context(|| format!("no backup is in {shown} that backup create --keep has made"))
}

fn open(file: &Path) -> anyhow::Result<Box<dyn io::Read>> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let failed = || format!("can't read {}", file.display());
    // One that is a pipe would be waited for.
    let kind = fs::metadata(file).with_context(failed)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        bail!("{} is no file; - reads a backup from standard input", file.display());
    }
    Ok(Box::new(BufReader::new(File::open(file).with_context(failed)?)))
}

fn show_progress(done: u64, total: u64) {
    let percent = |bytes: u64| bytes.saturating_mul(100).checked_div(total).unwrap_or(100);
    // Each 64 KiB would be too often.
    if io::stderr().is_terminal() && percent(done) != percent(done.saturating_sub(64 << 10)) {
        let end = if done >= total { "\n" } else { "" };
        let _ = write!(io::stderr(), "\rsaving: {} %{end}", percent(done));
    }
}

/// A size with a unit that leaves something of it.
fn in_words(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

pub(super) fn time(unix: u64) -> String {
    let time = i64::try_from(unix).ok().and_then(|unix| Timestamp::from_second(unix).ok());
    time.map_or_else(
        || "an unknown time".to_owned(),
        |time| time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string(),
    )
}
