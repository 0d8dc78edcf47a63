//! Building one initrd, into the cache.

use super::modules::ImageModules;
use super::overlays::digest;
use super::recipe::{Recipe, WITH_DISKS};
use crate::error::{Error, io_error};
use crate::options::init_name;
use images::Store;
use initrd_builder::{Init, Options as BuildOptions};
use model::{Architecture, FileSystem, ImageVersion};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What the initrds of this server have in common.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Where they are kept.
    pub(super) folder: PathBuf,
    /// Cache of compressed modules.
    pub(super) modules: PathBuf,
    /// The `bootlace-init` that goes into those for x86-64.
    pub(super) init: Option<PathBuf>,
    /// The one that goes into those for arm64.
    pub(super) init_arm64: Option<PathBuf>,
    /// By whom machines know the storage server; `None` if they attach NBD roots without TLS.
    pub(super) nbd_ca: Option<Vec<u8>>,
}

impl Settings {
    /// The init for machines that can boot this version.
    pub(super) fn init_for(&self, version: &ImageVersion) -> Option<&Path> {
        match version.architecture {
            Architecture::X86_64 => self.init.as_deref(),
            Architecture::Arm64 => self.init_arm64.as_deref(),
        }
    }

    /// What the builder is to do for this recipe; `names` is the hardware of one that is fitted.
    fn options(
        &self,
        version: &ImageVersion,
        recipe: &Recipe,
        names: &str,
        overlay: Option<Vec<u8>>,
    ) -> Result<BuildOptions, Error> {
        let (mut fit, mut file_systems) = (None, None);
        let has_local_disks = recipe.fit.as_deref() == Some(WITH_DISKS);
        if recipe.fit.is_some() && !has_local_disks {
            let parsed = initrd_builder::Fit::parse(names);
            fit = Some(parsed.map_err(|error| wrong(version, &wire::error_chain(&error)))?);
            // And what a disk has that is made for a machine, to have beside its root.
            file_systems = Some(BTreeSet::from([version.file_system, FileSystem::Ext4]));
        }
        Ok(BuildOptions {
            cache: Some(self.modules.clone()),
            nbd_ca: self.nbd_ca.clone(),
            more_roots: recipe.roots.clone(),
            fit,
            file_systems,
            root_file_system: Some(version.file_system),
            overlay,
            is_on_lvm: version.logical_volume.is_some(),
            has_local_disks,
            ..BuildOptions::default()
        })
    }
}

/// Builds into the cache, unless it is there. Returns the file and its size.
pub(super) fn build(
    settings: &Settings,
    store: &Store,
    version: &ImageVersion,
    recipe: &Recipe,
    names: &str,
) -> Result<(PathBuf, u64), Error> {
    let init_path = settings.init_for(version).ok_or_else(|| {
        let name = init_name(version.architecture, settings.nbd_ca.is_some());
        let why = format!(
            "{name} is neither beside the bootlace program nor in /usr/lib/bootlace: install it there"
        );
        wrong(version, &why)
    })?;
    let init = fs::read(init_path).map_err(io_error("read", init_path))?;
    let folder = &settings.folder;
    let name = file_name(&base(&init, settings.nbd_ca.as_deref()), version, recipe);
    let path = folder.join(&name);
    if let Ok(about) = fs::metadata(&path) {
        return Ok((path, about.len()));
    }
    let overlay = match &recipe.overlay {
        Some(wanted) => Some(overlay(store, version, wanted)?),
        None => None,
    };
    let init = Init::parse(init).map_err(|error| {
        wrong(version, &format!("{}: {}", init_path.display(), wire::error_chain(&error)))
    })?;
    fs::create_dir_all(folder).map_err(io_error("make the folder", folder))?;
    let image = &version.image;
    let modules = ImageModules::open(store, version)?;
    let options = settings.options(version, recipe, names, overlay)?;
    let initrd = initrd_builder::build(&modules, &init, &options)
        .map_err(|error| wrong(version, &wire::error_chain(&error)))?;
    for warning in &initrd.warnings {
        tracing::warn!(%image, version = version.version, "{warning}");
    }
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io_error("write in", folder))?;
    file.write_all(&initrd.bytes)
        .and_then(|()| file.as_file().sync_all())
        .map_err(io_error("write in", folder))?;
    file.persist(&path).map_err(|error| io_error("write", &path)(error.error))?;
    if recipe.fit.is_none() && !initrd.warnings.is_empty() {
        let beside = warnings_path(&path);
        fs::write(&beside, initrd.warnings.join("\n")).map_err(io_error("write", &beside))?;
    }
    remove_others(folder, &recipe.prefix(), &name);
    let (bytes, n_modules, ms) =
        (initrd.bytes.len(), initrd.modules.len(), initrd.took.as_millis());
    tracing::info!(%image, version = version.version, bytes, n_modules, ms, "initrd built");
    Ok((path, initrd.bytes.len() as u64))
}

/// What is laid over the version, if it is still that.
fn overlay(store: &Store, version: &ImageVersion, wanted: &str) -> Result<Vec<u8>, Error> {
    match store.overlay_file(&version.image, version.version)? {
        Some((_, bytes)) if digest(&bytes) == wanted => Ok(bytes),
        _ => Err(wrong(version, "what is laid over it has changed meanwhile: it is built again")),
    }
}

/// What every initrd of this server has in it.
pub(super) fn base(init: &[u8], nbd_ca: Option<&[u8]>) -> Vec<u8> {
    [init, nbd_ca.unwrap_or_default()].concat()
}

/// Name of the initrd in the cache.
pub(crate) fn file_name(base: &[u8], version: &ImageVersion, recipe: &Recipe) -> String {
    format!("{}{}.img", recipe.prefix(), key(base, version, recipe))
}

/// Names everything that an initrd depends on: the image, our init and its settings, and this program, which builds it.
fn key(base: &[u8], version: &ImageVersion, recipe: &Recipe) -> String {
    let mut hash = blake3::Hasher::new();
    hash.update(version.digest.as_bytes());
    hash.update(blake3::hash(base).as_bytes());
    for root in &recipe.roots {
        hash.update(root.to_string().as_bytes());
    }
    if let Some(overlay) = &recipe.overlay {
        hash.update(b" over it ");
        hash.update(overlay.as_bytes());
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

/// What was left out of an initrd, and why, a line each: beside it, so that it is known after a restart, too.
pub(super) fn warnings(initrd: &Path) -> Vec<String> {
    let text = fs::read_to_string(warnings_path(initrd)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn warnings_path(initrd: &Path) -> PathBuf {
    initrd.with_added_extension("warnings")
}

/// Initrds that this one replaces.
fn remove_others(folder: &Path, prefix: &str, keep: &str) {
    remove(folder, |name| name.starts_with(prefix) && !name.starts_with(keep));
}

/// Removes files of the cache. One that stays wastes a few megabytes of it.
pub(super) fn remove(folder: &Path, is_unwanted: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(&is_unwanted) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

pub(super) fn wrong(version: &ImageVersion, why: &str) -> Error {
    Error::Initrd { image: version.image.clone(), version: version.version, why: why.to_owned() }
}
