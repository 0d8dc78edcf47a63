//! `bootlace debug …`

use super::output::say;
use super::status::count;
use super::table;
use crate::new_file::NewFile;
use crate::paths::Paths;
use crate::report::{PARTS, collect, list, pack};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use model::Size;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Subcommand)]
pub(super) enum Debug {
    Report(Report),
}

/// Write one file with what a maintainer must know of this site, to go with a question or a bug report
///
/// It holds no passwords, tokens, keys and hashes: what is secret, or might be, is taken out, also of the log and the
/// configuration. Names of machines, their hardware addresses and IP addresses are in it. It is for its owner alone (mode
/// 0600), and nothing is sent anywhere. Look at it before you pass it on.
///
///   bootlace debug report
///   bootlace debug report --list
///   tar --zstd -xf bootlace-report-….tar.zst
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Report {
    /// The new file; without it bootlace-report-TIME.tar.zst in this folder
    file: Option<PathBuf>,
    /// Make nothing: show what is in the report FILE, or without one, what would be
    #[arg(long)]
    list: bool,
}

impl Debug {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let Self::Report(report) = self;
        match (report.list, report.file) {
            (true, None) => {
                let rows = PARTS.map(|(name, what)| [name.to_owned(), what.to_owned()]);
                say(table(["FILE", ""], &rows));
                Ok(())
            }
            (true, Some(file)) => show(&file),
            (false, file) => write(paths, &file.unwrap_or_else(usual_name)),
        }
    }
}

fn usual_name() -> PathBuf {
    let now = Timestamp::now().to_zoned(TimeZone::system());
    format!("bootlace-report-{}.tar.zst", now.strftime("%Y%m%d-%H%M%S")).into()
}

fn show(path: &Path) -> anyhow::Result<()> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("can't read {name}"))?;
    let listed = list(BufReader::new(file)).with_context(|| format!("can't list {name}"))?;
    say(listing(listed));
    Ok(())
}

/// What files there are, how large, and what is in them.
fn listing(files: impl IntoIterator<Item = (String, u64)>) -> String {
    let row = |(name, bytes): (String, u64)| {
        let what = PARTS.iter().find(|(part, _)| *part == name).map_or("", |(_, what)| what);
        [name, Size(bytes).to_string(), what.to_owned()]
    };
    let rows: Vec<[String; 3]> = files.into_iter().map(row).collect();
    table(["FILE", "SIZE", ""], &rows)
}

fn write(paths: &Paths, path: &Path) -> anyhow::Result<()> {
    let name = path.display();
    // Before it has taken a minute.
    if path.symlink_metadata().is_ok() {
        bail!("{name} is there already: name another file, or delete it");
    }
    let failed = || format!("can't write {name}");
    let mut file = NewFile::create(path, 0o600).with_context(failed)?;
    let parts = collect(paths);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    pack(&parts, now, &mut file).with_context(failed)?;
    let bytes = file.put().with_context(failed)?;
    say(listing(parts.iter().map(|part| (part.name.to_owned(), part.text.len() as u64))));
    say(format!(
        "\n{name}: {} in {}, for you alone (mode 0600). Secrets were taken out; names and addresses of machines are in it. Look at it before \
         you pass it on: tar --zstd -xf {name}",
        count(parts.len() as u64, "file"),
        Size(bytes)
    ));
    Ok(())
}
