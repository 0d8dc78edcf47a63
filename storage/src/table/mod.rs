//! All exports: who may see which disk. Kept on disk, so that machines keep their disks when this
//! process starts anew.

use crate::Config;
use crate::boot_trace::{BootTrace, Traced};
use crate::admission::{AoeDisk, AoePlace, Admission, Listener, Peer, shown};
use crate::export::{Export, Label};
use images::{Base, Block, LayerError, LayerMode, Layers, Store, StoreError};
use model::{ExportSpec, ExportStatus, KeptDisk, MachineName, RootKind, Space, StallVerb};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;
use wire::Mac;

/// An export can't be made, or the table can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The image version is not in the store.
    #[error(transparent)]
    Image(#[from] StoreError),
    /// The write layer can't be had.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The machine has no export.
    #[error("{0} has no disk here: it gets one when it boots")]
    None(MachineName),
    /// Another machine has this AoE address.
    #[error("the AoE address {address} is already {other}'s")]
    AddressTaken {
        /// The address.
        address: model::ShelfSlot,
        /// Whose it is.
        other: MachineName,
    },
    /// The disk does not answer, so that the former boot's last writes can't be told from new ones.
    #[error(
        "requests of {0}'s former boot still wait for the storage server's disk: is it overloaded or \
         broken?"
    )]
    Busy(MachineName),
    /// The table's file can't be read or written.
    #[error("can't {action} the export table {path}")]
    Table {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The table's file is not what this program wrote.
    #[error(
        "the export table {path} is damaged: {why}. Running machines lose their disks without it; if \
         none runs, remove the file, and exports are made anew as machines boot"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TableFile {
    #[serde(default)]
    export: Vec<ExportSpec>,
}

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
pub struct Exports {
    store: Store,
    layers: Layers,
    path: PathBuf,
    aoe_mac: Option<Mac>,
    exports: RwLock<BTreeMap<MachineName, Assigned>>,
    /// Of the image versions in use, by their digest.
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
    pub fn open(config: &Config) -> Result<Self, ExportError> {
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
        for spec in read_table(&config.table)?.export {
            let machine = spec.machine.clone();
            match exports.make(&spec, false) {
                Ok(export) => {
                    tracing::info!(%machine, "export restored");
                    exports.write().insert(machine, Assigned::new(spec, export, exports.aoe_mac));
                }
                Err(error) => {
                    let error = wire::error_chain(&error);
                    tracing::error!(%machine, error, "the export could not be made again");
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
    pub fn prepare(&self, spec: ExportSpec) -> Result<ExportStatus, ExportError> {
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
    pub fn reset(&self, machine: &MachineName) -> Result<(), ExportError> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(former) = self.get(machine) {
            self.close_former(&former)?;
            self.save()?;
        }
        self.layers.reset(machine)?;
        tracing::info!(%machine, "its disk was thrown away");
        Ok(())
    }

    /// What shall become of the machine's writes that wait for something that passes; how many there are.
    ///
    /// # Errors
    /// The machine has no export.
    pub fn decide_stall(&self, machine: &MachineName, verb: StallVerb) -> Result<u32, ExportError> {
        let found = self.get(machine).ok_or_else(|| ExportError::None(machine.clone()))?;
        Ok(found.export.stalls.decide(verb))
    }

    /// What the machine's persistent disk stands on; `None` if it has none.
    ///
    /// # Errors
    /// The disk's description is damaged.
    pub fn kept_disk(&self, machine: &MachineName) -> Result<Option<KeptDisk>, ExportError> {
        let about = self.layers.about(machine, LayerMode::Persistent)?;
        Ok(about.map(|about| KeptDisk { image: about.image, version: about.version }))
    }

    /// All exports, by machine.
    pub fn list(&self) -> Vec<ExportStatus> {
        self.all().iter().map(|one| one.export.status(&one.spec)).collect()
    }

    /// How much room machines' writes have.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub fn space(&self) -> Result<Space, ExportError> {
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

    /// `is_boot`: the machine boots; otherwise it runs, and this server has started anew.
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
        let export = self.all().into_iter().map(|one| one.spec).collect();
        let failed =
            |source| ExportError::Table { action: "write", path: self.path.clone(), source };
        let text = toml::to_string(&TableFile { export })
            .map_err(|error| failed(io::Error::other(error)))?;
        write_durably(&self.path, text.as_bytes()).map_err(failed)
    }
}

impl Admission for Exports {
    fn for_nbd(&self, name: &str, peer: Peer) -> Result<(Arc<Export>, u32), String> {
        let (machine, generation) = name.split_once("?g=").unwrap_or((name, "0"));
        let found = machine.parse().ok().and_then(|machine| self.get(&machine));
        if let (Some(one), Ok(generation)) = (found, generation.parse()) {
            if may_open(&one.spec, peer) {
                return Ok((one.export, generation));
            }
            one.export.counters.count(&one.export.counters.refused);
        }
        let name = shown(name);
        Err(format!(
            "there is no export {name} for {peer}: it has not booted, or the export is another \
             machine's"
        ))
    }

    fn nbd_names(&self, peer: Peer) -> Vec<String> {
        let all = self.all();
        let mine = all.iter().filter(|one| may_open(&one.spec, peer));
        mine.map(|one| one.spec.machine.to_string()).collect()
    }

    /// Who asks for another machine's disk by its address is counted there.
    fn for_aoe(&self, _interface: &str, header: &aoe::Header) -> Vec<AoeDisk> {
        let exports = self.exports.read().unwrap_or_else(PoisonError::into_inner);
        let mut visible = Vec::new();
        for one @ Assigned { spec, export, .. } in exports.values() {
            let address = spec.shelf_slot;
            if spec.root != RootKind::Aoe || !header.is_for(address.shelf, address.slot) {
                continue;
            }
            if spec.mac == header.source {
                visible.push(one.aoe_disk());
            } else if !header.is_wildcard() {
                export.counters.count(&export.counters.refused);
            }
        }
        visible
    }

    fn all_aoe(&self, _interface: &str) -> Vec<AoeDisk> {
        let all = self.all();
        let over_aoe = all.iter().filter(|one| one.spec.root == RootKind::Aoe);
        over_aoe.map(Assigned::aoe_disk).collect()
    }

    fn on_new_aoe(&self, _interface: &str, listener: Listener) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }
}

fn may_open(spec: &ExportSpec, peer: Peer) -> bool {
    spec.root == RootKind::Nbd && peer.ip() == Some(spec.address.into())
}

fn label(spec: &ExportSpec) -> Label {
    Label {
        name: spec.machine.to_string(),
        description: format!("{} version {}", spec.image, spec.version),
    }
}

fn read_table(path: &Path) -> Result<TableFile, ExportError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(TableFile::default()),
        Err(source) => {
            return Err(ExportError::Table { action: "read", path: path.into(), source });
        }
    };
    toml::from_str(&text).map_err(|error| ExportError::Damaged {
        path: path.into(),
        why: error.message().to_owned(),
    })
}

/// Replaces the file as a whole: after a power cut there is the old one or the new one.
fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}
