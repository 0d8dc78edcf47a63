//! All write layers of one storage server, on disk and open.

mod merge;
mod snapshots;
mod turns;
mod view;
mod which;

pub use merge::Merged;
pub use view::SnapshotDisk;

use super::about::{About, Expected, FORMAT, ForBoot, LayerMode};
use super::error::{LayerError, io_error};
use super::files::{Files, folder, kept_in, look_at_parent, look_at_use};
use super::last_use::LastUse;
use super::write::WriteLayer;
use crate::base::Base;
use crate::block::Block;
use crate::folder::{Locked, open_lock, space};
use model::{DiskId, ImageName, Space};
use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use turns::Turns;

/// A layer is not begun with less room: its files take a twentieth of that, and its machine writes as soon as it starts.
const NEW_LAYER_BYTES: u64 = 1 << 20;

/// The write layers below one folder.
///
/// A machine has at most one of each mode: `<machine>` (persistent) and `<machine>.discard`. So trying
/// out discard mode does not cost a machine its own disk.
pub struct Layers {
    files: Files,
    _lock: Locked,
    /// Layers that somebody holds open, by folder name: a second request gets the same one.
    open: Mutex<HashMap<String, Open>>,
    turns: Turns,
}

struct Open {
    about: About,
    layer: Weak<WriteLayer>,
}

impl Layers {
    /// Opens the folder, making it if it is missing, and removes leftovers of broken-off work.
    ///
    /// `volatile_dir` is for maps that shall survive this process but not the host: below `/run`. A layer grows to
    /// `layer_max_bytes`, and none beyond 32 MiB takes what is kept free of the file system
    /// ([`Space::reserve_bytes`]): writes get an error with [`NoRoom`](super::NoRoom) inside then.
    ///
    /// # Errors
    /// Another process has the folder, or the operating system refuses.
    pub fn open(
        dir: &Path,
        volatile_dir: &Path,
        layer_max_bytes: Option<u64>,
    ) -> Result<Self, LayerError> {
        let files = Files::open(dir, volatile_dir, layer_max_bytes)?;
        let lock_path = files.lock_path();
        let lock = open_lock(&lock_path).map_err(io_error("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LayerError::InUse(dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(io_error("lock", &lock_path)(error)),
        }
        files.remove_leftovers()?;
        let (open, turns) = (Mutex::default(), Turns::default());
        Ok(Self { files, _lock: Locked(lock), open, turns })
    }

    /// The file system that holds the layers, and how large one may be.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub fn space(&self) -> Result<Space, LayerError> {
        let dir = self.files.dir();
        let space = space(dir).map_err(io_error("see the room in", dir))?;
        Ok(Space { layer_max_bytes: self.files.room().layer_max_bytes(), ..space })
    }

    /// The machine's write layer over `base`, as it is, or a new one.
    ///
    /// A `discard` layer belongs to one boot: another `boot` begins with an empty one, and whoever
    /// still holds the former gets errors. A `persistent` one goes on whatever the boot. The same
    /// request again gives the same open layer, unless that is read-only since a flush of it failed and is to last: then it
    /// is opened again, and who holds the former gets errors. One that is expected to be there is never made, and nothing is
    /// thrown away for it.
    ///
    /// # Errors
    /// See [`LayerError`]; the layer on disk is untouched then.
    pub fn open_or_create(
        &self,
        disk: &DiskId,
        base: &Base,
        mode: LayerMode,
        boot: ForBoot,
        expected: Expected,
    ) -> Result<Arc<WriteLayer>, LayerError> {
        let wanted = wanted(disk, base, mode, boot)?;
        let folder = folder(disk, mode);
        let turns = self.turns.of(disk);
        let _turn = turns.begin();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = open.get(&folder)
            && let Some(layer) = entry.layer.upgrade()
            && is_same(&entry.about, &wanted, boot)
        {
            if mode == LayerMode::Discard || !layer.is_read_only() {
                return Ok(layer);
            }
            // Its files are opened again: what could not be flushed then may be flushed now.
            layer.retire();
        }
        if let Some(about) = self.files.about(disk, mode)? {
            if is_same(&about, &wanted, boot) {
                let layer = Arc::new(self.files.reopen(&about, base)?);
                open.insert(folder, Open { about, layer: Arc::downgrade(&layer) });
                return Ok(layer);
            }
            check_parent(about, &wanted)?;
        }
        if expected == Expected::There {
            return Err(self.absent(&wanted));
        }
        self.throw_away(&mut open, &folder)?;
        let created = self.files.create(&wanted, base);
        let layer = Arc::new(created.map_err(|error| self.files.explain(error))?);
        open.insert(folder, Open { about: wanted, layer: Arc::downgrade(&layer) });
        Ok(layer)
    }

    /// Whether [`open_or_create`](Self::open_or_create) would find that the machine's disk was made on another
    /// version or is missing, or has a version of which no layer can be made, or that there is no room for a new one.
    ///
    /// # Errors
    /// It would; or the description of the layer can't be read.
    pub fn check(
        &self,
        disk: &DiskId,
        base: &Base,
        mode: LayerMode,
        boot: ForBoot,
        expected: Expected,
    ) -> Result<(), LayerError> {
        let wanted = wanted(disk, base, mode, boot)?;
        match self.files.about(disk, mode)? {
            // It gives its room to the new one.
            Some(about) if !is_same(&about, &wanted, boot) => check_parent(about, &wanted),
            Some(_) => Ok(()),
            None if expected == Expected::There => Err(self.absent(&wanted)),
            None if self.space()?.free_bytes < NEW_LAYER_BYTES => {
                Err(LayerError::Full { path: self.files.dir().to_owned() })
            }
            None => Ok(()),
        }
    }

    /// Machines that have a persistent layer in `dir`, for who has not opened it: nothing is made there. None, if there is
    /// no such folder.
    ///
    /// # Errors
    /// The folder can't be listed.
    pub fn look(dir: &Path) -> Result<Vec<DiskId>, LayerError> {
        match kept_in(dir) {
            Err(LayerError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Ok(vec![])
            }
            kept => kept,
        }
    }

    /// How far the machine's persistent layer in `dir` has come, for who has not opened it; and whether a person has said that
    /// it is to be taken although it is not the one that was there last. `None`: there is none, or that can't be read.
    pub fn look_at_use(dir: &Path, disk: &DiskId) -> Option<(LastUse, bool)> {
        look_at_use(dir, disk)
    }

    /// The image version on which the machine's persistent layer in `dir` stands. `None`: there is none, or that can't be read.
    pub fn look_at_parent(dir: &Path, disk: &DiskId) -> Option<(ImageName, u32)> {
        look_at_parent(dir, disk)
    }

    /// Machines that have a persistent layer in the folder, whatever state that is in.
    ///
    /// # Errors
    /// The folder can't be listed.
    pub fn kept(&self) -> Result<Vec<DiskId>, LayerError> {
        self.files.kept()
    }

    /// Whether the machine has a folder for a persistent layer, whatever state that is in.
    ///
    /// # Errors
    /// The folder of the layers can't be looked at.
    pub fn has_folder(&self, disk: &DiskId) -> Result<bool, LayerError> {
        let path = self.files.dir().join(folder(disk, LayerMode::Persistent));
        match path.symlink_metadata() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    /// What is said of a layer that was there.
    pub fn missing(&self, disk: &DiskId) -> LayerError {
        LayerError::Missing { disk: disk.clone(), dir: self.files.dir().to_owned() }
    }

    fn absent(&self, wanted: &About) -> LayerError {
        match wanted.mode {
            LayerMode::Persistent => self.missing(&wanted.disk),
            LayerMode::Discard => LayerError::Lost { disk: wanted.disk.clone(), boot: wanted.boot },
        }
    }

    /// Throws the machine's `discard` layer away, if there is one.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn discard(&self, disk: &DiskId) -> Result<(), LayerError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.throw_away(&mut open, &folder(disk, LayerMode::Discard)).map(drop)
    }

    /// Throws everything away that the machine ever wrote, its persistent disk too. Returns whether there was anything.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn reset(&self, disk: &DiskId) -> Result<bool, LayerError> {
        let turns = self.turns.of(disk);
        let _turn = turns.begin();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.throw_away(&mut open, &folder(disk, LayerMode::Discard))?;
        let kept = self.throw_away(&mut open, &folder(disk, LayerMode::Persistent))?;
        Ok(written || kept)
    }

    /// What the layer on disk says about itself; `None` if the machine has none in this mode.
    ///
    /// A damaged description of a `discard` layer counts as none.
    ///
    /// # Errors
    /// The description of a persistent layer can't be read.
    pub fn about(&self, disk: &DiskId, mode: LayerMode) -> Result<Option<About>, LayerError> {
        self.files.about(disk, mode)
    }

    /// Whether the files of the machine's persistent layer, if it has one, are there and belong to it.
    ///
    /// # Errors
    /// They don't, or can't be looked at.
    pub fn check_files(&self, disk: &DiskId) -> Result<(), LayerError> {
        match self.files.about(disk, LayerMode::Persistent)? {
            Some(about) => self.files.check(&about),
            None => Ok(()),
        }
    }

    fn throw_away(
        &self,
        open: &mut HashMap<String, Open>,
        folder: &str,
    ) -> Result<bool, LayerError> {
        if let Some(layer) = open.remove(folder).and_then(|entry| entry.layer.upgrade()) {
            layer.retire();
        }
        self.files.remove(folder)
    }
}

/// The description of the layer that is asked for, as if it were new.
fn wanted(disk: &DiskId, base: &Base, mode: LayerMode, boot: ForBoot) -> Result<About, LayerError> {
    let size_bytes = base.block.size_bytes();
    if !size_bytes.is_multiple_of(512) {
        return Err(LayerError::OddSize {
            image: base.version.image.clone(),
            version: base.version.version,
            size_bytes,
        });
    }
    // A boot that comes again gets what it had, and no other one does, whatever its number.
    let id = match boot.identity.filter(|_| mode == LayerMode::Discard) {
        Some(identity) => identity.to_string(),
        None => blake3::Hash::from_bytes(random()?).to_hex()[..32].to_owned(),
    };
    Ok(About {
        format: FORMAT,
        id,
        disk: disk.clone(),
        mode,
        boot: boot.number,
        image: base.version.image.clone(),
        version: base.version.version,
        parent_digest: base.version.digest.clone(),
        size_bytes,
        tree: None,
    })
}

/// Another layer may take the place of this one, unless it is the machine's own disk.
fn check_parent(have: About, wanted: &About) -> Result<(), LayerError> {
    match have.mode {
        LayerMode::Discard => Ok(()),
        LayerMode::Persistent if (&have.image, have.version) == (&wanted.image, wanted.version) => {
            let begin = |digest: &str| digest.chars().take(12).collect();
            Err(LayerError::OtherContent {
                disk: have.disk,
                image: have.image,
                version: have.version,
                made_on: begin(&have.parent_digest),
                found: begin(&wanted.parent_digest),
            })
        }
        LayerMode::Persistent => Err(LayerError::OtherParent {
            disk: have.disk,
            image: have.image,
            version: have.version,
            wanted: format!("{}/v{}", wanted.image, wanted.version),
        }),
    }
}

/// Whether a layer on disk is the one that is asked for.
fn is_same(have: &About, wanted: &About, boot: ForBoot) -> bool {
    let is_same_boot =
        have.boot == wanted.boot && (boot.identity.is_none() || have.id == wanted.id);
    have.parent_digest == wanted.parent_digest
        && have.size_bytes == wanted.size_bytes
        && (have.mode == LayerMode::Persistent || is_same_boot)
}

fn random() -> Result<[u8; 32], LayerError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 32];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(io_error("read", path))?;
    Ok(bytes)
}
