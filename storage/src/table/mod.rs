//! All exports of a storage server. Kept on disk, so that machines keep their disks when this process
//! restarts.

mod admission;
mod error;
mod file;

pub use error::ExportError;

use crate::admission::{AoeDisk, AoePlace, Listener};
use crate::boot_trace::{BootTrace, Traced};
use crate::config::Config;
use crate::export::{Export, Label};
use images::{Base, Block, LayerMode, Layers, Store};
use model::{ExportSpec, ExportStatus, KeptDisk, MachineName, RootKind, Space, StallVerb};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;
use wire::Mac;

/// An export and what it was made for.
#[derive(Clone)]
struct Assigned {
    spec: ExportSpec,
    export: Arc<Export>,
    place: Arc<AoePlace>,
}

impl Assigned {
    fn new(spec: ExportSpec, export: Arc<Export>, mac: Option<Mac>) -> Self {
        let place = AoePlace {
            address: spec.shelf_slot,
            serial: format!("BL{}", spec.mac.compact()),
            told: vec![spec.mac],
            mac,
        };
        Self { spec, export, place: Arc::new(place) }
    }

    fn aoe_disk(&self) -> AoeDisk {
        AoeDisk { export: Arc::clone(&self.export), place: Arc::clone(&self.place) }
    }
}

/// The exports of this server.
pub(crate) struct Exports {
    store: Store,
    layers: Layers,
    path: PathBuf,
    aoe_mac: Option<Mac>,
    exports: RwLock<BTreeMap<MachineName, Assigned>>,
    /// Boot traces of the image versions in use, by digest.
    traces: Mutex<BTreeMap<String, Arc<BootTrace>>>,
    /// One change at a time; also guards the file.
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
        let exports = Self {
            store: Store::open(&config.images)?,
            layers: Layers::open(&config.layers, &config.volatile)?,
            path: config.table.clone(),
            aoe_mac: config.aoe_mac,
            exports: RwLock::default(),
            traces: Mutex::default(),
            change: Mutex::default(),
            listeners: Mutex::default(),
        };
        for spec in file::read(&config.table)? {
            let machine = spec.machine.clone();
            match exports.make(&spec, false) {
                Ok(export) => {
                    tracing::info!(%machine, "export restored");
                    exports.write().insert(machine, Assigned::new(spec, export, exports.aoe_mac));
                }
                Err(error) => {
                    let error = wire::error_chain(&error);
                    tracing::error!(%machine, error, "the export could not be restored");
                }
            }
        }
        Ok(exports)
    }

    /// Makes the export for one boot; see [`ExportSpec`] for what becomes of a former one.
    ///
    /// # Errors
    /// The image is missing, the layer can't be had, or the table can't be written. The former
    /// export is then closed, but its layer is as it was.
    pub(crate) fn prepare(&self, spec: ExportSpec) -> Result<ExportStatus, ExportError> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_address(&spec)?;
        if let Some(former) = self.get(&spec.machine) {
            if former.spec == spec && !former.export.connections.is_closed() {
                return Ok(former.export.status(&spec));
            }
            self.close_former(&former)?;
        }
        let made = self.make(&spec, true).map(|export| Assigned::new(spec, export, self.aoe_mac));
        if let Ok(assigned) = &made {
            self.write().insert(assigned.spec.machine.clone(), assigned.clone());
        }
        // Also when it failed: the former export must not come back with a restart.
        self.save()?;
        let assigned = made?;
        let ExportSpec { machine, image, version, boot, root, .. } = &assigned.spec;
        tracing::info!(%machine, %image, version, boot, "export ready");
        if *root == RootKind::Aoe {
            for listener in self.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                listener(&assigned.aoe_disk());
            }
        }
        Ok(assigned.export.status(&assigned.spec))
    }

    /// Takes the export away, and everything that the machine ever wrote.
    ///
    /// # Errors
    /// The table can't be written, or the disk is stuck.
    pub(crate) fn reset(&self, machine: &MachineName) -> Result<(), ExportError> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(former) = self.get(machine) {
            self.close_former(&former)?;
            self.save()?;
        }
        self.layers.reset(machine)?;
        tracing::info!(%machine, "its disk was deleted");
        Ok(())
    }

    /// What shall become of the machine's writes that wait for something that passes; how many there are.
    ///
    /// # Errors
    /// The machine has no export.
    pub(crate) fn decide_stall(
        &self,
        machine: &MachineName,
        verb: StallVerb,
    ) -> Result<u32, ExportError> {
        let found = self.get(machine).ok_or_else(|| ExportError::None(machine.clone()))?;
        Ok(found.export.stalls.decide(verb))
    }

    /// What the machine's persistent disk stands on; `None` if it has none.
    ///
    /// # Errors
    /// The disk's description is damaged.
    pub(crate) fn kept_disk(&self, machine: &MachineName) -> Result<Option<KeptDisk>, ExportError> {
        let about = self.layers.about(machine, LayerMode::Persistent)?;
        Ok(about.map(|about| KeptDisk { image: about.image, version: about.version }))
    }

    /// All exports, by machine.
    pub(crate) fn list(&self) -> Vec<ExportStatus> {
        self.all().iter().map(|one| one.export.status(&one.spec)).collect()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.exports.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How much room machines' writes have.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub(crate) fn space(&self) -> Result<Space, ExportError> {
        Ok(self.layers.space()?)
    }

    fn all(&self) -> Vec<Assigned> {
        let exports = self.exports.read().unwrap_or_else(PoisonError::into_inner);
        exports.values().cloned().collect()
    }

    /// Closes all connections and flushes what is to last. The table stays as it is.
    pub(crate) fn close(&self) {
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

    /// Ends a former boot's export, and takes it out of the table when nothing can be written to its
    /// layer any more.
    fn close_former(&self, former: &Assigned) -> Result<(), ExportError> {
        if !former.export.connections.close() {
            return Err(ExportError::Busy(former.spec.machine.clone()));
        }
        self.write().remove(&former.spec.machine);
        Ok(())
    }

    fn get(&self, machine: &MachineName) -> Option<Assigned> {
        self.exports.read().unwrap_or_else(PoisonError::into_inner).get(machine).cloned()
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<MachineName, Assigned>> {
        self.exports.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_address(&self, spec: &ExportSpec) -> Result<(), ExportError> {
        let is_other = |one: &&Assigned| {
            one.spec.shelf_slot == spec.shelf_slot && one.spec.machine != spec.machine
        };
        match self.all().iter().find(is_other) {
            Some(other) => Err(ExportError::AddressTaken {
                address: spec.shelf_slot,
                other: other.spec.machine.clone(),
            }),
            None => Ok(()),
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

    /// `is_boot`: the machine boots; otherwise it runs, and this server has restarted.
    fn make(&self, spec: &ExportSpec, is_boot: bool) -> Result<Arc<Export>, ExportError> {
        let mut base = self.store.open_base(&spec.image, spec.version)?;
        let trace = self.trace(&base);
        if is_boot {
            trace.boot_begins(&base.block);
        }
        base.block = Arc::new(Traced::new(base.block, trace));
        let Some(mode) = LayerMode::of(spec.write_mode) else {
            // What the machine wrote in an earlier boot is of no use to it any more.
            self.layers.discard(&spec.machine)?;
            return Ok(Arc::new(Export::new(label(spec), base.block)));
        };
        let layer = self.layers.open_or_create(&spec.machine, &base, mode, spec.boot)?;
        Ok(Arc::new(Export::new(label(spec), layer)))
    }

    fn save(&self) -> Result<(), ExportError> {
        file::write(&self.path, self.all().into_iter().map(|one| one.spec).collect())
    }
}

fn label(spec: &ExportSpec) -> Label {
    Label {
        name: spec.machine.to_string(),
        description: format!("{} version {}", spec.image, spec.version),
    }
}
