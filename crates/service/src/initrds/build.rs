//! Initrds: built once for each image version, kept in a cache, ready before a client asks.

use crate::error::{Error, io_error};
use crate::initrds::fit::FittedInitrds;
use crate::initrds::modules::ImageModules;
use crate::options::Options;
use crate::service::Service;
use images::Store;
use initrd_builder::Options as BuildOptions;
use model::{ImageName, ImageVersion, RootKind, Site};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// After a build that failed, time until it is tried again: perhaps `bootlace-init` was installed since.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// How far the initrd of an image version is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitrdState {
    /// Nobody has asked for it yet.
    Missing,
    /// It is being built; that takes seconds.
    Building,
    /// Machines can boot it.
    Ready {
        /// The file.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
    },
    /// It can't be built; the text says why.
    Failed(String),
}

/// Roots on foreign servers that an initrd can attach, besides those of the storage server. NFS takes a
/// megabyte, so only initrds of images have it that a machine with such a root boots.
pub(crate) type ForeignRoots = BTreeSet<RootKind>;

/// The initrds of a site.
pub(crate) struct Initrds {
    folder: PathBuf,
    /// Cache of compressed modules.
    modules: PathBuf,
    init: Option<PathBuf>,
    nbd_ca: Option<Vec<u8>>,
    states: Mutex<HashMap<(ImageName, u32), (InitrdState, ForeignRoots)>>,
    /// Those made for one kind of hardware.
    fitted: FittedInitrds,
    /// Held while one is built: each build uses all processors.
    building: tokio::sync::Mutex<()>,
    /// A machine waits for one that is not there.
    wanted: tokio::sync::Notify,
}

impl Initrds {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            folder: options.initrds.clone(),
            modules: options.modules.clone(),
            init: options.init.clone(),
            nbd_ca: options.nbd_ca.clone(),
            states: Mutex::default(),
            fitted: FittedInitrds::default(),
            building: tokio::sync::Mutex::default(),
            wanted: tokio::sync::Notify::new(),
        }
    }

    /// Where they are kept.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The `bootlace-init` that goes into them.
    pub(crate) fn init(&self) -> Option<&Path> {
        self.init.as_deref()
    }

    /// By whom machines know the storage server; `None` if they attach NBD roots without TLS.
    pub(crate) fn nbd_ca(&self) -> Option<&[u8]> {
        self.nbd_ca.as_deref()
    }

    /// How far one with these roots is; it may have more.
    fn state(&self, image: &ImageName, version: u32, roots: &ForeignRoots) -> InitrdState {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        match states.get(&(image.clone(), version)) {
            Some((state, has)) if has.is_superset(roots) => state.clone(),
            _ => InitrdState::Missing,
        }
    }

    pub(crate) fn set(&self, version: &ImageVersion, roots: &ForeignRoots, state: InitrdState) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.insert((version.image.clone(), version.version), (state, roots.clone()));
    }

    /// Has this one built now, and not at the next look; from then on it is kept built.
    pub(crate) fn want(&self, version: &ImageVersion, roots: &ForeignRoots) {
        if !self.is_built(version, roots) {
            self.set(version, roots, InitrdState::Missing);
            self.wanted.notify_one();
        }
    }

    /// What is to be built may have changed.
    pub(crate) fn look_again(&self) {
        self.wanted.notify_one();
    }

    /// Those made for one kind of hardware.
    pub(crate) fn fitted(&self) -> &FittedInitrds {
        &self.fitted
    }

    /// The folder of compressed modules.
    pub(crate) fn modules(&self) -> &Path {
        &self.modules
    }

    /// Waits until no other is being built.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.building.lock().await
    }

    fn is_built(&self, version: &ImageVersion, roots: &ForeignRoots) -> bool {
        self.ready(version, roots).is_some_and(|path| path.is_file())
    }

    fn was_wanted(&self, version: &ImageVersion) -> bool {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.contains_key(&(version.image.clone(), version.version))
    }

    /// The file, if it is built with these roots.
    pub(crate) fn ready(&self, version: &ImageVersion, roots: &ForeignRoots) -> Option<PathBuf> {
        match self.state(&version.image, version.version, roots) {
            InitrdState::Ready { path, .. } => Some(path),
            _ => None,
        }
    }
}

impl Service {
    /// How far the initrd of an image version is. Never waits.
    pub fn initrd_state(&self, image: &ImageName, version: u32) -> InitrdState {
        self.initrds().state(image, version, &foreign_roots(&self.site(), image))
    }

    /// The initrd of an image version; builds it if it is not in the cache.
    ///
    /// # Errors
    /// There is no such version, or its initrd can't be built.
    pub async fn ensure_initrd(&self, image: &ImageName, version: u32) -> Result<PathBuf, Error> {
        let site = self.site();
        let known = site.images.iter().find(|v| v.image == *image && v.version == version);
        let Some(known) = known else {
            return Err(Error::NoVersion { image: image.clone(), version });
        };
        self.build_initrd(known.clone()).await
    }

    pub(crate) async fn build_initrd(&self, version: ImageVersion) -> Result<PathBuf, Error> {
        let initrds = self.initrds();
        let _building = initrds.building.lock().await;
        let roots = foreign_roots(&self.site(), &version.image);
        if let Some(path) = initrds.ready(&version, &roots).filter(|path| path.is_file()) {
            return Ok(path);
        }
        initrds.set(&version, &roots, InitrdState::Building);
        let (store, folder, init) =
            (Arc::clone(self.store()), initrds.folder.clone(), initrds.init.clone());
        let options = BuildOptions {
            cache: Some(initrds.modules.clone()),
            nbd_ca: initrds.nbd_ca.clone(),
            more_roots: roots.clone(),
            ..BuildOptions::default()
        };
        let (building, with) = (version.clone(), roots.clone());
        let built = tokio::task::spawn_blocking(move || {
            build(&store, &folder, init.as_deref(), &building, &with, None, &options)
        });
        let result = built.await.unwrap_or_else(|_| Err(wrong(&version, "the build broke off")));
        match &result {
            Ok((path, size_bytes)) => {
                let ready = InitrdState::Ready { path: path.clone(), size_bytes: *size_bytes };
                initrds.set(&version, &roots, ready);
            }
            Err(error) => {
                let why = match error {
                    Error::Initrd { why, .. } => why.clone(),
                    other => other.chain(),
                };
                tracing::error!(image = %version.image, version = version.version, why,
                    "no initrd: machines can't boot this image");
                initrds.set(&version, &roots, InitrdState::Failed(why));
            }
        }
        result.map(|(path, _)| path)
    }

    /// Builds what is missing, for each version that a machine may boot, as they appear. Never ends.
    pub(crate) async fn keep_initrds_built(&self) {
        let mut changes = self.database().watch();
        loop {
            for version in self.versions_to_build() {
                let roots = foreign_roots(&self.site(), &version.image);
                if !self.initrds().is_built(&version, &roots) {
                    // The state and the log have the error.
                    let _ = self.build_initrd(version).await;
                }
            }
            self.build_fitted().await;
            tokio::select! {
                () = self.images_changed(&mut changes) => {}
                () = self.initrds().wanted.notified() => {}
                () = tokio::time::sleep(RETRY_INTERVAL) => {}
            }
        }
    }

    async fn images_changed(
        &self,
        changes: &mut tokio::sync::watch::Receiver<Arc<crate::store::view::View>>,
    ) {
        let of = |site: &Site| {
            let roots = site.images.iter().map(|version| foreign_roots(site, &version.image));
            (site.images.clone(), roots.collect::<Vec<_>>())
        };
        let former = of(&changes.borrow_and_update().site);
        // An error: the site is being closed, and nothing will change.
        if changes.wait_for(|view| of(&view.site) != former).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The newest of each image, and those older ones that a machine stays on.
    fn versions_to_build(&self) -> Vec<ImageVersion> {
        let site = self.site();
        let is_used = |version: &&ImageVersion| {
            site.newest(&version.image) == Some(*version) || self.initrds().was_wanted(version)
        };
        site.images.iter().filter(is_used).cloned().collect()
    }
}

/// Roots on foreign servers of the machines that boot this image.
pub(crate) fn foreign_roots(site: &Site, image: &ImageName) -> ForeignRoots {
    let machines = site.machines.iter().filter(|machine| machine.image.as_ref() == Some(image));
    machines.map(|machine| machine.root).filter(|root| root.is_foreign()).collect()
}

/// Builds into the cache, unless it is there. Returns the file and its size.
pub(crate) fn build(
    store: &Store,
    folder: &Path,
    init: Option<&Path>,
    version: &ImageVersion,
    roots: &ForeignRoots,
    fitted: Option<&str>,
    options: &BuildOptions,
) -> Result<(PathBuf, u64), Error> {
    let init = init.ok_or_else(|| {
        wrong(
            version,
            "bootlace-init (with machine_ca: bootlace-init-tls) is neither beside the bootlace program nor in \
             /usr/lib/bootlace: install it there",
        )
    })?;
    let init = fs::read(init).map_err(io_error("read", init))?;
    let prefix = prefix(version, fitted);
    let name = file_name(&base(&init, options.nbd_ca.as_deref()), version, roots, fitted);
    let path = folder.join(&name);
    if let Ok(about) = fs::metadata(&path) {
        return Ok((path, about.len()));
    }
    fs::create_dir_all(folder).map_err(io_error("make the folder", folder))?;
    let image = &version.image;
    let modules = ImageModules::open(store, version)?;
    let initrd = initrd_builder::build(&modules, &init, options)
        .map_err(|error| wrong(version, &wire::error_chain(&error)))?;
    for warning in &initrd.warnings {
        tracing::warn!(%image, version = version.version, "{warning}");
    }
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io_error("write in", folder))?;
    file.write_all(&initrd.bytes)
        .and_then(|()| file.as_file().sync_all())
        .map_err(io_error("write in", folder))?;
    file.persist(&path).map_err(|error| io_error("write", &path)(error.error))?;
    remove_others(folder, &prefix, &name);
    let (bytes, n_modules, ms) =
        (initrd.bytes.len(), initrd.modules.len(), initrd.took.as_millis());
    tracing::info!(%image, version = version.version, bytes, n_modules, ms, "initrd built");
    Ok((path, initrd.bytes.len() as u64))
}

/// What stands before the kind of hardware in the name of an initrd that is not for all.
pub(crate) const FITTED_MARK: char = '+';

/// Starts the names of all initrds of this image version, for all machines or for one kind.
fn prefix(version: &ImageVersion, fitted: Option<&str>) -> String {
    let fitted = fitted.map_or_else(String::new, |key| format!("{FITTED_MARK}{key}"));
    format!("{}@{}{fitted}-", version.image, version.version)
}

/// What every initrd of this server has in it.
pub(crate) fn base(init: &[u8], nbd_ca: Option<&[u8]>) -> Vec<u8> {
    [init, nbd_ca.unwrap_or_default()].concat()
}

/// Name of the initrd in the cache.
pub(crate) fn file_name(
    base: &[u8],
    version: &ImageVersion,
    roots: &ForeignRoots,
    fitted: Option<&str>,
) -> String {
    format!("{}{}.img", prefix(version, fitted), key(base, version, roots))
}

/// Names everything that an initrd depends on: the image, our init and its settings, and this program, which builds it.
fn key(base: &[u8], version: &ImageVersion, roots: &ForeignRoots) -> String {
    let mut hash = blake3::Hasher::new();
    hash.update(version.digest.as_bytes());
    hash.update(blake3::hash(base).as_bytes());
    for root in roots {
        hash.update(root.to_string().as_bytes());
    }
    hash.update(env!("CARGO_PKG_VERSION").as_bytes());
    // While it is developed the version stays, and the builder changes.
    if let Ok(program) = fs::metadata("/proc/self/exe") {
        for part in [program.len(), program.mtime() as u64, program.mtime_nsec() as u64] {
            hash.update(&part.to_le_bytes());
        }
    }
    hash.finalize().to_hex()[..16].to_owned()
}

/// Initrds that this one replaces.
fn remove_others(folder: &Path, prefix: &str, keep: &str) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(prefix) && name != keep) {
            // One that stays wastes a few megabytes of a cache.
            let _ = fs::remove_file(entry.path());
        }
    }
}

pub(crate) fn wrong(version: &ImageVersion, why: &str) -> Error {
    Error::Initrd { image: version.image.clone(), version: version.version, why: why.to_owned() }
}
