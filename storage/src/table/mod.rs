//! All exports of a storage server. Kept on disk, so that machines keep their disks when this process
//! restarts.

mod admission;
mod candidates;
mod change;
mod error;
mod file;
mod kept;
mod keys;
mod layer;
mod nights;
mod place;
mod restore;
mod snapshots;

pub use error::ExportError;
pub use kept::{KeptDisks, kept_disks};

use crate::admission::{AoeDisk, AoePlace, Listener};
use crate::boot_trace::{BootTrace, Traced};
use crate::config::Config;
use crate::export::{Export, Label};
use crate::hosts::Hosts;
use crate::random_bytes;
use candidates::Candidates;
use images::{Base, Block, Expected, LayerError, LayerMode, Layers, Store};
use kept::Kept;
use keys::Keys;
use model::{
    BootId, BootIdentity, DiskId, DiskKey, DiskOwner, DiskReport, Exchange, ExportOrder,
    ExportSpec, ExportStatus, HostCount, KeptDisk, RootKind, Space, StallVerb, StoragePath,
};
use place::Place;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};
use wire::Mac;

/// A client that has not been heard of for so long is gone: a kernel acknowledges a probe each second.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// After this server has started, machines that run find it within this time: they try it each two seconds.
const BACK_WITHIN: Duration = Duration::from_secs(25);

/// An export and what it was made for.
#[derive(Clone)]
struct Assigned {
    spec: ExportSpec,
    /// By this its machine proves itself; `None`: by its address.
    key: Option<DiskKey>,
    /// What replaces the key.
    exchange: Option<Exchange>,
    /// Tells its boot from others with the same number.
    identity: Option<BootIdentity>,
    /// How its machine is seen in the storage network.
    path: Option<StoragePath>,
    /// It was there before this server started.
    is_restored: bool,
    export: Arc<Export>,
    place: Arc<AoePlace>,
}

impl Assigned {
    fn new(
        (spec, path): (ExportSpec, Option<StoragePath>),
        key: Option<DiskKey>,
        export: Arc<Export>,
        mac: Option<Mac>,
    ) -> Self {
        let cards = path.iter().flat_map(|path| &path.cards).copied();
        let place = AoePlace {
            address: spec.shelf_slot,
            serial: format!("BL{}", spec.mac.compact()),
            told: std::iter::once(spec.mac).chain(cards).collect(),
            mac,
        };
        let place = Arc::new(place);
        Self { spec, key, exchange: None, identity: None, path, is_restored: false, export, place }
    }

    fn status(&self, candidate: Option<BootId>) -> ExportStatus {
        let status = self.export.status(&self.spec);
        ExportStatus { candidate, identity: self.identity, ..status }
    }

    fn is_for(&self, boot: BootId, identity: Option<BootIdentity>) -> bool {
        is_same_boot((self.spec.boot, self.identity), (boot, identity))
    }

    fn aoe_disk(&self) -> AoeDisk {
        AoeDisk { export: Arc::clone(&self.export), place: Arc::clone(&self.place) }
    }
}

/// What machines have, and what they will have.
#[derive(Default)]
struct Held {
    exports: BTreeMap<DiskId, Assigned>,
    candidates: Candidates,
    /// Exports of the table that could not be made again yet.
    absent: BTreeMap<DiskId, Absent>,
}

/// When a machine gets its export.
#[derive(Clone, Copy)]
enum When<'a> {
    /// It boots, and is this one, as far as is known.
    Boots(Option<&'a DiskOwner>),
    /// It runs, and this server has restarted.
    Runs,
}

/// An export without its disk.
struct Absent {
    spec: ExportSpec,
    key: Option<DiskKey>,
    exchange: Option<Exchange>,
    identity: Option<BootIdentity>,
    path: Option<StoragePath>,
}

impl Held {
    fn status(&self, one: &Assigned, is_silent: Option<bool>) -> ExportStatus {
        let status = one.status(self.candidates.last(&one.spec.disk));
        ExportStatus { is_silent, ..status }
    }
}

/// The exports of this server.
pub(crate) struct Exports {
    store: Store,
    layers: Layers,
    /// Whether they are where they were.
    place: Place,
    path: PathBuf,
    /// Which machines keep a disk.
    kept: Kept,
    nights: nights::Nights,
    aoe_mac: Option<Mac>,
    /// When this server started.
    began: Instant,
    is_closing: AtomicBool,
    /// Answers to proofs of what is not there take as long as others.
    nobodys_key: DiskKey,
    held: RwLock<Held>,
    /// Who asked over NBD for a disk and did not prove that it is his.
    not_proven: Hosts,
    /// Boot traces of the image versions in use, by digest.
    traces: Mutex<BTreeMap<String, Arc<BootTrace>>>,
    /// One change at a time; also guards the files.
    change: Mutex<()>,
    /// Told of every new export.
    listeners: Mutex<Vec<Listener>>,
}

impl Exports {
    /// Opens store, layers and table, and makes the exports that were there before.
    ///
    /// # Errors
    /// Something can't be opened. A single export that can't be made again is logged, not an error.
    pub(crate) fn open(config: &Config) -> Result<Self, ExportError> {
        let layers = Layers::open(&config.layers, &config.volatile, config.layer_max_bytes)?;
        let exports = Self {
            store: Store::open(&config.images)?,
            kept: Kept::open(&config.table, layers.kept()?)?,
            layers,
            nights: nights::Nights::new(&config.table),
            place: Place::new(&config.table, &config.layers),
            path: config.table.clone(),
            aoe_mac: config.aoe_mac,
            began: Instant::now(),
            is_closing: AtomicBool::new(false),
            nobodys_key: DiskKey::new(random_bytes().ok_or(ExportError::NoRandomness)?),
            held: RwLock::default(),
            not_proven: Hosts::default(),
            traces: Mutex::default(),
            change: Mutex::default(),
            listeners: Mutex::default(),
        };
        if let Err(error) = exports.check_place() {
            tracing::error!(error = wire::error_chain(&error), "machines with disks can't start");
        }
        let keys = Keys::read(&config.table)?;
        for spec in file::read(&config.table)? {
            let ((key, exchange), identity) = (keys.of(&spec).unzip(), keys.identity_of(&spec));
            let (exchange, path) = (exchange.flatten(), keys.path_of(&spec));
            exports.restore(Absent { spec, key, exchange, identity, path }, true);
        }
        exports.kept.keep();
        let mut held = exports.write();
        for order in keys.candidate.into_iter().map(ExportOrder::from) {
            let disk = &order.spec.disk;
            let assigned = held.exports.get(disk).map(|one| (one.spec.boot, one.identity));
            let absent = held.absent.get(disk).map(|one| (one.spec.boot, one.identity));
            let boot = (order.spec.boot, order.identity);
            if assigned.or(absent).is_none_or(|former| !is_same_boot(former, boot)) {
                held.candidates.put(order);
            }
        }
        drop(held);
        Ok(exports)
    }

    /// What shall become of the machine's writes that wait for something that passes; how many there are.
    ///
    /// # Errors
    /// The machine has no export.
    pub(crate) fn decide_stall(&self, disk: &DiskId, verb: StallVerb) -> Result<u32, ExportError> {
        let found = self.get(disk).ok_or_else(|| ExportError::None(disk.clone()))?;
        Ok(found.export.stalls.decide(verb))
    }

    /// What the machine's persistent disk stands on; `None` if it has none.
    ///
    /// # Errors
    /// The disk's description is damaged, or the folder of the layers is not the one that it was.
    pub(crate) fn kept_disk(&self, disk: &DiskId) -> Result<Option<KeptDisk>, ExportError> {
        let about = self.layers.about(disk, LayerMode::Persistent)?;
        if about.is_none() {
            self.check_place()?;
        }
        Ok(about.map(|about| KeptDisk {
            image: about.image,
            version: about.version,
            id: Some(about.id),
        }))
    }

    /// Disks that machines keep, or should have.
    ///
    /// # Errors
    /// The folder with the disks can't be listed.
    pub(crate) fn disks(&self) -> Result<Vec<DiskReport>, ExportError> {
        let mut disks = self.kept.all();
        disks.extend(self.layers.kept()?);
        let report = |disk: DiskId| {
            let (stands_on, trouble) = match self.kept_disk(&disk) {
                Ok(Some(kept)) => {
                    let other = self.check_copy(&disk, LayerMode::Persistent, 0.into());
                    let trouble = other.err().and_then(|error| error.fact());
                    (Some(kept), trouble.or_else(|| self.damage(&disk)))
                }
                Ok(None) => (None, self.layers.missing(&disk).fact()),
                Err(ExportError::OtherFolder { .. }) => (None, self.layers.missing(&disk).fact()),
                Err(error) => (None, Some(error.fact())),
            };
            let is_taken_over = self.layers.is_taken_over(&disk).unwrap_or(false);
            let (owner, unknown) = match self.layers.owner(&disk) {
                Ok(owner) => (owner, None),
                Err(error) => (None, error.fact().filter(|_| !is_taken_over)),
            };
            let trouble = trouble.or(unknown);
            let (written_bytes, made_unix) = self.layers.extent(&disk).unzip();
            let no_snapshot = self.nights.trouble_of(&disk);
            DiskReport {
                disk,
                stands_on,
                trouble,
                owner,
                is_taken_over,
                written_bytes,
                made_unix,
                no_snapshot,
            }
        };
        Ok(disks.into_iter().map(report).collect())
    }

    /// What is damaged of the machine's persistent disk, as a sentence.
    fn damage(&self, disk: &DiskId) -> Option<String> {
        match self.layers.check_files(disk).map_err(ExportError::from) {
            Err(error @ ExportError::Layer(LayerError::Damaged { .. })) => Some(error.fact()),
            // What keeps files from being opened may pass, and is told when the machine asks for its disk.
            _ => None,
        }
    }

    /// All exports, by machine.
    pub(crate) fn list(&self) -> Vec<ExportStatus> {
        let held = self.read();
        held.exports.values().map(|one| held.status(one, self.silence(one))).collect()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.read().exports.len()
    }

    /// Hosts that asked over NBD for a disk and did not prove that it is theirs.
    pub(crate) fn not_proven(&self) -> Vec<HostCount> {
        self.not_proven.list()
    }

    /// How much room machines' writes have.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub(crate) fn space(&self) -> Result<Space, ExportError> {
        Ok(self.layers.space()?)
    }

    fn all(&self) -> Vec<Assigned> {
        self.read().exports.values().cloned().collect()
    }

    /// Closes all connections and flushes what is to last. The table stays as it is.
    pub(crate) fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        let all = self.all();
        let since = Instant::now();
        for one in &all {
            one.export.connections.begin_close();
        }
        for one in &all {
            one.export.finish_last_close(since);
        }
        let traces = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
        traces.values().for_each(|trace| trace.end());
    }

    fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    fn get(&self, disk: &DiskId) -> Option<Assigned> {
        self.read().exports.get(disk).cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, Held> {
        // The maps stay right whatever panicked: they are changed by single calls.
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the machine does not use its disk any more: see [`SILENT_AFTER`], and after a restart of this
    /// server [`BACK_WITHIN`].
    fn is_silent(&self, one: &Assigned) -> bool {
        self.silence(one) == Some(true)
    }

    /// The same; `None`: after a restart it may not have had the time to be heard.
    fn silence(&self, one: &Assigned) -> Option<bool> {
        let heard_ago = match one.spec.root {
            RootKind::Aoe => one.export.counters.idle(),
            _ => one.export.connections.heard_ago(),
        };
        let may_come_back = one.is_restored && self.began.elapsed() < BACK_WITHIN;
        match heard_ago.is_some_and(|ago| ago < SILENT_AFTER) {
            true => Some(false),
            false if may_come_back => None,
            false => Some(true),
        }
    }

    fn trace(&self, base: &Base) -> Arc<BootTrace> {
        let digest = base.version.digest.to_string();
        let mut traces = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody else holds those of which no export is left.
        traces.retain(|_, trace| Arc::strong_count(trace) > 1);
        let trace = traces.entry(digest).or_insert_with_key(|digest| {
            let path = self.path.with_file_name("boot-traces").join(format!("{digest}.json"));
            Arc::new(BootTrace::open(path, base.block.size_bytes()))
        });
        Arc::clone(trace)
    }

    /// No layer is made, nor looked for, where layers have never been. A folder of which nothing is known may hold them
    /// unless disks that machines keep are not in it.
    fn check_place(&self) -> Result<(), ExportError> {
        self.place.check(|| {
            let kept = self.kept.all();
            let found = self.layers.kept().unwrap_or_default();
            kept.is_empty() || found.iter().any(|disk| kept.contains(disk))
        })
    }

    /// Why no machine gets a disk, as a sentence; `None`: the folder with the disks is the one that it was.
    pub(crate) fn place_trouble(&self) -> Option<String> {
        self.check_place().err().map(|error| error.fact())
    }

    /// What is known of the machine's layer in this boot.
    fn expected(&self, order: &ExportOrder) -> Expected {
        let ExportOrder { spec, reset, has_disk, .. } = order;
        let is_kept = LayerMode::of(spec.write_mode) == Some(LayerMode::Persistent);
        match is_kept && !reset && (*has_disk || self.kept.has(&spec.disk)) {
            true => Expected::There,
            false => Expected::Perhaps,
        }
    }

    /// Which layer the machine has is to be [kept](Kept::keep) before it gets the export.
    fn make(
        &self,
        spec: &ExportSpec,
        identity: Option<BootIdentity>,
        when: When<'_>,
        expected: Expected,
    ) -> Result<Arc<Export>, ExportError> {
        let mut base = self.store.open_base(&spec.image, spec.version)?;
        let trace = self.trace(&base);
        if matches!(when, When::Boots(_)) {
            trace.boot_begins(&base.block);
        }
        base.block = Arc::new(Traced::new(base.block, trace));
        let Some(mode) = LayerMode::of(spec.write_mode) else {
            // What the machine wrote in an earlier boot is of no use to it any more.
            self.layers.discard(&spec.disk)?;
            return Ok(Arc::new(Export::new(label(spec), base.block)));
        };
        let layer = self.layer(spec, identity, &base, mode, expected, when)?;
        Ok(Arc::new(Export::new(label(spec), layer)))
    }
}

/// Whether these are one boot. Without an identity, which an earlier Bootlace does not give, the number decides when an
/// order comes.
fn is_same_boot(
    have: (BootId, Option<BootIdentity>),
    wanted: (BootId, Option<BootIdentity>),
) -> bool {
    have.0 == wanted.0 && (wanted.1.is_none() || have.1 == wanted.1)
}

fn label(spec: &ExportSpec) -> Label {
    Label {
        name: spec.disk.to_string(),
        description: format!("{} version {}", spec.image, spec.version),
    }
}
