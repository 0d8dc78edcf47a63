//! `bootlace image …`

use super::{open, runtime, say, table};
use crate::paths::Paths;
use crate::privileges::become_command;
use anyhow::Context;
use clap::Subcommand;
use model::{ImageName, WriteMode};
use service::{Error, ImportError, ImportRequest, MachineView, Progress, Step, Stop};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// What shells call a program that Ctrl-C ended.
const ENDED_BY_SIGNAL: i32 = 130;

#[derive(Subcommand)]
pub(super) enum Image {
    /// Import a disk as the next version of an image
    ///
    /// FILE is a raw, qcow2, vmdk, vhdx, vhd or vdi disk, or a block device, with a Linux on ext4: the
    /// whole disk or one of its partitions. It is copied; an import that fails leaves nothing behind.
    ///
    /// Example: bootlace image import debian-12.qcow2 --name debian-12
    Import {
        /// The disk
        file: PathBuf,
        /// Name of the image, like debian-12
        #[arg(long)]
        name: ImageName,
        /// A remark about this version, for people
        #[arg(long)]
        note: Option<String>,
    },
    /// List images and their versions
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl Image {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        match self {
            Self::Import { file, name, note } => {
                // Only root sees that a program writes to the disk.
                images::check_source(&file)
                    .with_context(|| format!("{} was not imported", file.display()))?;
                become_command(paths)?;
                import(paths, ImportRequest { source: file, name, note })
            }
            Self::Ls { json } => become_command(paths).and_then(|()| list(paths, json)),
        }
    }
}

fn import(paths: &Paths, request: ImportRequest) -> anyhow::Result<()> {
    let service = open(paths)?;
    let source = request.source.display().to_string();
    let mut last = None;
    let show = move |progress: Progress| {
        let percent = progress.done_bytes * 100 / progress.total_bytes.max(1);
        if std::io::stderr().is_terminal() && last != Some((progress.step, percent)) {
            last = Some((progress.step, percent));
            let step = match progress.step {
                Step::Copy => "copying",
                Step::Digest => "computing its digest",
                Step::Sync => "writing to disk",
            };
            let _ = write!(std::io::stderr(), "\r\x1b[K{step} {percent} %");
        }
    };
    let stop = Stop::default();
    let runtime = runtime()?;
    {
        let _in_runtime = runtime.enter();
        stop_by_signals(&stop)?;
    }
    let imported = runtime.block_on(service.import_image(request, stop, show));
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let imported = match imported {
        Err(Error::Import(error @ ImportError::SameAsNewest { .. })) => {
            say(format!("nothing to do: {error}"));
            return Ok(());
        }
        other => other.with_context(|| format!("{source} was not imported"))?,
    };
    let version = &imported.version;
    say(format!(
        "{}: version {} imported: {}, kernel {}, {:.1} GB",
        version.image,
        version.version,
        version.os_name.as_deref().unwrap_or("unknown system"),
        version.kernel_version,
        version.size_bytes as f64 / 1e9
    ));
    for passed_over in &imported.passed_over {
        say(format!("passed over, in search of its kernel: {passed_over}"));
    }
    let initrd =
        imported.initrd.context("the image was imported, but its initrd could not be built")?;
    let size = std::fs::metadata(&initrd).map_or(0, |about| about.len());
    say(format!("initrd built: {:.1} MB", size as f64 / 1e6));
    say(format!(
        "Next: bootlace machine set NAME --mac MAC --image {}, or adopt a machine on the web page.",
        version.image
    ));
    Ok(())
}

/// The first signal stops the import, which then removes what it has made; the second ends the program, and what
/// stays is removed when the store is opened next.
fn stop_by_signals(stop: &Stop) -> std::io::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind)?;
        let stop = stop.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if stop.is_stopping() {
                    std::process::exit(ENDED_BY_SIGNAL);
                }
                stop.stop();
                let _ = writeln!(std::io::stderr(), "\nstopping; Ctrl-C again ends at once");
            }
        });
    }
    Ok(())
}

fn list(paths: &Paths, json: bool) -> anyhow::Result<()> {
    let service = open(paths)?;
    let site = service.site();
    if json {
        say(serde_json::to_string_pretty(&site.images)?);
        return Ok(());
    }
    if site.images.is_empty() {
        say("No images yet. Import one: bootlace image import FILE --name NAME");
        return Ok(());
    }
    // Who keeps a disk stays on the version that it was made on, which the storage server knows.
    runtime()?.block_on(service.refresh_exports());
    let machines = service.machines();
    let rows: Vec<[String; 6]> = site
        .images
        .iter()
        .map(|version| {
            let used_by = machines.iter().filter(|view| {
                view.machine.image.as_ref() == Some(&version.image)
                    && view.next_version == Some(version.version)
            });
            [
                version.image.to_string(),
                version.version.to_string(),
                version.os_name.clone().unwrap_or_default(),
                version.kernel_version.clone(),
                format!("{:.1} GB", version.size_bytes as f64 / 1e9),
                used_by.count().to_string(),
            ]
        })
        .collect();
    say(table(["IMAGE", "VERSION", "SYSTEM", "KERNEL", "SIZE", "MACHINES"], &rows));
    let keeps_disk = |view: &MachineView| view.machine.write_mode == WriteMode::Persistent;
    if let Some(error) = service.storage_error().filter(|_| machines.iter().any(keeps_disk)) {
        say(format!(
            "\nMachines that keep their disk may be on older versions than shown: {error}"
        ));
    }
    Ok(())
}
