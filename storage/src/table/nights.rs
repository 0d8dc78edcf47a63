//! When the nightly round of snapshots is due. That it was done is noted beside the table, so that a server that was off at night
//! does it when it is back.

use super::file::{read_text, write_durably};
use super::snapshots::Round;
use super::{ExportError, Exports};
use jiff::civil::Date;
use jiff::{SignedDuration, Zoned};
use model::DiskId;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// From this hour of the server's own time on: nobody works then, and backups are mostly later.
const HOUR: i64 = 2;

/// How often it is looked whether a night has come.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// What is known of nightly rounds.
pub(super) struct Nights {
    path: PathBuf,
    /// The last one of this process.
    pub(super) last: Mutex<Round>,
    /// A snapshot was deleted: there is something to merge.
    pub(super) has_work: AtomicBool,
}

impl Nights {
    pub(super) fn new(table: &Path) -> Self {
        Self {
            path: table.with_file_name("snapshots.night"),
            last: Mutex::default(),
            has_work: AtomicBool::new(false),
        }
    }

    /// Why the machine's disk has no snapshot of the last round of this process.
    pub(super) fn trouble_of(&self, disk: &DiskId) -> Option<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = last.troubles.iter().find(|(other, _)| other == disk);
        trouble.map(|(_, why)| why.clone())
    }

    /// It has one by now.
    pub(super) fn forget_trouble_of(&self, disk: &DiskId) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.troubles.retain(|(other, _)| other != disk);
    }

    /// The night for which the last round was done; `None`: there was none yet.
    fn done(&self) -> Result<Option<Date>, ExportError> {
        Ok(read_text(&self.path)?.and_then(|text| text.trim().parse().ok()))
    }

    fn note(&self, night: Date) -> Result<(), ExportError> {
        let failed =
            |source| ExportError::Table { action: "write", path: self.path.clone(), source };
        write_durably(&self.path, night.to_string().as_bytes()).map_err(failed)
    }
}

/// The night that has begun last.
fn night(now: &Zoned) -> Date {
    let shifted = now.checked_sub(SignedDuration::from_hours(HOUR));
    shifted.map_or_else(|_| now.date(), |shifted| shifted.date())
}

impl Exports {
    /// Makes snapshots each night, and keeps those of so many. Never ends.
    pub(crate) async fn keep_snapshots(self: Arc<Self>, keep: u32) {
        loop {
            let exports = Arc::clone(&self);
            let done =
                tokio::task::spawn_blocking(move || exports.round_if_due(keep, &Zoned::now()));
            match done.await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    let error = wire::error_chain(&error);
                    tracing::warn!(error, "no nightly snapshots yet");
                }
                Err(error) => tracing::error!(%error, "no nightly snapshots"),
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Does what is to be done this night, if it is not; whether it did.
    fn round_if_due(&self, keep: u32, time: &Zoned) -> Result<bool, ExportError> {
        let night = night(time);
        match self.nights.done()? {
            Some(done) if done >= night => return Ok(false),
            // A server that was just installed waits for its first night.
            None => {
                self.nights.note(night)?;
                return Ok(false);
            }
            Some(_) => {}
        }
        let round = self.nightly_round(keep)?;
        self.nights.note(night)?;
        let (n_made, n_removed, n_without) = (round.n_made, round.n_removed, round.troubles.len());
        tracing::info!(n_made, n_removed, n_without, "nightly snapshots of disks that are kept");
        *self.nights.last.lock().unwrap_or_else(PoisonError::into_inner) = round;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_begins_when_nobody_works() {
        let night_of = |text: &str| night(&text.parse::<Zoned>().unwrap()).to_string();
        assert_eq!(night_of("2026-11-30T01:59:00+01:00[Europe/Berlin]"), "2026-11-29");
        assert_eq!(night_of("2026-11-30T02:00:00+01:00[Europe/Berlin]"), "2026-11-30");
        assert_eq!(night_of("2026-11-30T23:00:00+01:00[Europe/Berlin]"), "2026-11-30");
    }

    #[test]
    fn a_night_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let nights = Nights::new(&folder.path().join("exports.toml"));
        assert_eq!(nights.done().unwrap(), None);
        let date: Date = "2026-11-30".parse().unwrap();
        nights.note(date).unwrap();
        assert_eq!(nights.done().unwrap(), Some(date));
    }
}
