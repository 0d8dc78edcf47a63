//! Snapshots of machines' persistent disks: what a person wants of them, and what is done each night and all the time.

use super::{ExportError, Exports};
use images::{LayerMode, Layers, Merged, SnapshotDisk};
use model::{BootId, DiskId, Snapshot, SnapshotInfo, SnapshotKind, SnapshotList};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What merges copy in a second, so that machines notice nothing: half of what a slow disk writes, and in a night enough for what
/// 200 machines have written in a day.
const MERGE_BYTES_PER_SECOND: u64 = 32 << 20;

/// How often it is looked whether there is something to merge.
const LOOK_INTERVAL: Duration = Duration::from_secs(20);

/// In how small steps is waited, so that a server that ends does.
const STEP: Duration = Duration::from_millis(100);

/// Beyond this share of what a machine's layer may hold it gets no nightly snapshot: each write to what a snapshot holds takes room anew.
const FULL_PERCENT: u64 = 80;

/// What became of a nightly round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) n_made: usize,
    pub(crate) n_removed: usize,
    /// Machines that have no new snapshot, and why.
    pub(crate) troubles: Vec<(DiskId, String)>,
}

impl Exports {
    pub(crate) fn snapshots(&self, disk: &DiskId) -> Result<SnapshotList, ExportError> {
        self.check_place()?;
        let trouble = self.nights.trouble_of(disk);
        Ok(SnapshotList { snapshots: self.layers.snapshots(disk)?, trouble })
    }

    /// Makes a snapshot, of which a person says something; `None`: nothing was written since the last one.
    pub(crate) fn snapshot(
        &self,
        disk: &DiskId,
        note: Option<String>,
    ) -> Result<Option<Snapshot>, ExportError> {
        self.check_place()?;
        let made = self.layers.snapshot(disk, now(), SnapshotKind::Asked, note)?;
        if let Some(Snapshot { number, .. }) = &made {
            tracing::info!(%disk, number, "snapshot made");
            self.nights.forget_trouble_of(disk);
        }
        Ok(made)
    }

    pub(crate) fn remove_snapshot(&self, disk: &DiskId, number: u32) -> Result<(), ExportError> {
        self.check_place()?;
        self.layers.remove_snapshot(disk, number)?;
        self.nights.has_work.store(true, Ordering::Release);
        tracing::info!(%disk, number, "snapshot deleted");
        Ok(())
    }

    /// Has the machine's disk go back when it boots next.
    pub(crate) fn ask_roll_back(&self, disk: &DiskId, number: u32) -> Result<(), ExportError> {
        self.check_place()?;
        let running = self.get(disk).map(|one| one.spec.boot);
        let last = self.layers.last_use(disk, LayerMode::Persistent)?.map(|last| last.boot);
        self.layers.ask_roll_back(disk, number, running.or(last).unwrap_or_default())?;
        tracing::info!(%disk, number, "the disk goes back to this snapshot at the next boot");
        Ok(())
    }

    pub(crate) fn withdraw_roll_back(&self, disk: &DiskId) -> Result<bool, ExportError> {
        self.check_place()?;
        Ok(self.layers.withdraw_roll_back(disk)?)
    }

    /// A look at a snapshot.
    pub(crate) fn view(&self, disk: &DiskId, number: u32) -> Result<SnapshotDisk, ExportError> {
        self.check_place()?;
        let about = self.layers.about(disk, LayerMode::Persistent)?;
        let about = about.ok_or_else(|| images::LayerError::NoDisk(disk.clone()))?;
        let base = self.store.open_base(&about.image, about.version)?;
        Ok(self.layers.view(disk, number, &base)?)
    }

    /// Goes back to a snapshot if a person wanted that, and this is another boot than that of then.
    pub(super) fn roll_back_for(
        &self,
        disk: &DiskId,
        boot: BootId,
    ) -> Result<(), images::LayerError> {
        if let Some(number) = self.layers.roll_back_for(disk, boot, now())? {
            tracing::warn!(%disk, number, "its disk has gone back to this snapshot; what it held is a snapshot, too");
        }
        Ok(())
    }

    /// A snapshot of each disk to which something was written since its last one; those of earlier nights go but for `keep`.
    pub(crate) fn nightly_round(&self, keep: u32) -> Result<Round, ExportError> {
        self.check_place()?;
        let mut round = Round::default();
        let machines = self.layers.kept()?;
        let space = self.layers.space()?;
        for disk in machines {
            if self.is_closing() {
                break;
            }
            let made = match self.lack_of_room(&disk, space.layer_max_bytes) {
                Some(why) => Err(why),
                None => self
                    .layers
                    .snapshot(&disk, now(), SnapshotKind::Daily, None)
                    .map_err(|error| wire::error_chain(&error)),
            };
            match made {
                Ok(made) => round.n_made += usize::from(made.is_some()),
                Err(why) => {
                    tracing::warn!(%disk, why, "no nightly snapshot of its disk");
                    round.troubles.push((disk.clone(), why));
                }
            }
            for number in expired(&self.layers, &disk, keep, now()) {
                match self.layers.remove_snapshot(&disk, number) {
                    Ok(()) => round.n_removed += 1,
                    Err(error) => {
                        let error = wire::error_chain(&error);
                        tracing::warn!(%disk, number, error, "an old snapshot is not deleted");
                    }
                }
            }
        }
        Ok(round)
    }

    /// Why there is no room for another snapshot of the machine's disk.
    fn lack_of_room(&self, disk: &DiskId, layer_max_bytes: Option<u64>) -> Option<String> {
        let space = self.layers.space().ok()?;
        if space.free_bytes < space.reserve_bytes {
            return Some("the storage server's disk is nearly full".to_owned());
        }
        let (held, _) = self.layers.extent(disk)?;
        let max = layer_max_bytes?;
        (held > max / 100 * FULL_PERCENT).then(|| {
            format!(
                "its disk and snapshots hold more than {FULL_PERCENT} % of what layer_max allows"
            )
        })
    }

    /// Merges what snapshots that are gone have left, until the server ends.
    pub(crate) fn merge_all(&self) {
        let mut failed: Vec<DiskId> = Vec::new();
        while !self.is_closing() {
            let machines = match self.check_place() {
                Ok(()) => self.layers.kept().unwrap_or_default(),
                Err(_) => Vec::new(),
            };
            let mut n_done = 0;
            for disk in machines {
                let pace = |copied: u64| {
                    self.passes(Duration::from_micros(copied * 1_000_000 / MERGE_BYTES_PER_SECOND))
                };
                match self.layers.tidy(&disk, &pace) {
                    Ok(Merged::Done) => n_done += 1,
                    Ok(_) => {}
                    // Said once, and tried again.
                    Err(error) if !failed.contains(&disk) => {
                        let error = wire::error_chain(&error);
                        tracing::warn!(%disk, error, "what a deleted snapshot held is not given back yet");
                        failed.push(disk);
                    }
                    Err(_) => {}
                }
                if self.is_closing() {
                    return;
                }
            }
            if n_done == 0 && !self.rests() {
                return;
            }
        }
    }

    /// Waits until there may be something to merge; `false`: the server ends.
    fn rests(&self) -> bool {
        let end = Instant::now() + LOOK_INTERVAL;
        while !self.nights.has_work.swap(false, Ordering::AcqRel) && Instant::now() < end {
            if !self.passes(STEP) {
                return false;
            }
        }
        true
    }

    /// Waits; `false`: the server ends.
    fn passes(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            if self.is_closing() {
                return false;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(STEP));
        }
    }
}

/// Snapshots of nights, and of before rollbacks, that are to go.
fn expired(layers: &Layers, disk: &DiskId, keep: u32, now: u64) -> Vec<u32> {
    let all = layers.snapshots(disk).unwrap_or_default();
    let daily =
        all.iter().filter(|info| info.snapshot.kind == SnapshotKind::Daily && !info.is_next);
    let n_over = daily.clone().count().saturating_sub(keep as usize);
    let oldest = now.saturating_sub(u64::from(keep.max(1)) * 24 * 3600);
    let is_old = |info: &&SnapshotInfo| {
        let Snapshot { kind, at_unix, .. } = info.snapshot;
        kind == SnapshotKind::BeforeRollback && at_unix < oldest && !info.is_next
    };
    daily.take(n_over).chain(all.iter().filter(is_old)).map(|info| info.snapshot.number).collect()
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
