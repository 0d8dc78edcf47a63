//! All write layers of one storage server, on disk and open.

use super::about::{About, LayerMode};
use super::header::{HEADER_BYTES, Header};
use super::map::{self, Map};
use super::write::WriteLayer;
use crate::base::Base;
use model::{BootId, ImageName, MachineName, Space};
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

const FORMAT: u32 = 1;
/// Names in the layers folder that begin so are leftovers; a machine's name can't.
const LEFTOVER: &str = ".";

/// A write layer can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The operating system refused.
    #[error("can't {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process has the folder.
    #[error("the layers in {0} are in use by another storage server")]
    InUse(PathBuf),
    /// The machine's own disk belongs to another version. Mixing them would destroy the file system.
    #[error(
        "the persistent disk of {machine} was made on {image}/v{version}, not on {wanted}: assign \
         {image} again, or begin anew by bootlace machine reset {machine}"
    )]
    OtherParent {
        /// The machine.
        machine: MachineName,
        /// Image that the layer was made on.
        image: ImageName,
        /// Version that it was made on.
        version: u32,
        /// Version that is asked for, as `image/v2`.
        wanted: String,
    },
    /// A discard layer did not survive a restart of the host.
    #[error(
        "what {machine} wrote in its boot {boot} was lost when this server restarted: {machine} must boot \
         again"
    )]
    Lost {
        /// The machine.
        machine: MachineName,
        /// The boot whose writes are lost.
        boot: BootId,
    },
    /// A persistent layer's files are damaged.
    #[error("the persistent disk of {machine} is damaged: {path}: {why}")]
    Damaged {
        /// The machine.
        machine: MachineName,
        /// The damaged file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The image can't be the parent of a layer.
    #[error("{image}/v{version} has a size of {size_bytes} bytes, which is no multiple of 512")]
    OddSize {
        /// The image.
        image: ImageName,
        /// Its version.
        version: u32,
        /// Its size.
        size_bytes: u64,
    },
    /// The digest of the base is no BLAKE3.
    #[error("the digest {0:?} of the image version is not 64 hexadecimal digits")]
    Digest(String),
}

/// The write layers below one folder.
///
/// A machine has at most one of each mode: `<machine>` (persistent) and `<machine>.discard`. So trying
/// out discard mode does not cost a machine its own disk.
pub struct Layers {
    dir: PathBuf,
    volatile_dir: PathBuf,
    host_boot: [u8; 16],
    /// Held open: its lock ends with this process.
    _lock: File,
    /// Layers that somebody holds open, by folder name: a second request gets the same one.
    open: Mutex<HashMap<String, Open>>,
}

struct Open {
    about: About,
    layer: Weak<WriteLayer>,
}

impl Layers {
    /// Opens the folder, making it if it is missing, and removes leftovers of broken-off work.
    ///
    /// `volatile_dir` is for maps that shall survive this process but not the host: below `/run`.
    ///
    /// # Errors
    /// Another process has the folder, or the operating system refuses.
    pub fn open(dir: &Path, volatile_dir: &Path) -> Result<Self, LayerError> {
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let text = fs::read_to_string(path).map_err(io_error("read", path))?;
        let digest = blake3::hash(text.trim().as_bytes());
        Self::open_in_host_boot(dir, volatile_dir, first_16(digest.as_bytes()))
    }

    /// The file system that holds the layers.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub fn space(&self) -> Result<Space, LayerError> {
        let told = rustix::fs::statvfs(&self.dir)
            .map_err(|error| io_error("see the room in", &self.dir)(error.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
        Ok(Space { total_bytes: bytes(told.f_blocks), free_bytes: bytes(told.f_bavail) })
    }

    fn open_in_host_boot(
        dir: &Path,
        volatile_dir: &Path,
        host_boot: [u8; 16],
    ) -> Result<Self, LayerError> {
        for path in [dir, volatile_dir] {
            // Only root's: the layers hold what people wrote.
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(path).map_err(io_error("make the folder", path))?;
        }
        let lock_path = dir.join(".lock");
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(io_error("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LayerError::InUse(dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(io_error("lock", &lock_path)(error)),
        }
        let layers = Self {
            dir: dir.to_owned(),
            volatile_dir: volatile_dir.to_owned(),
            host_boot,
            _lock: lock,
            open: Mutex::default(),
        };
        for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
            let path = entry.map_err(io_error("list", dir))?.path();
            let is_leftover =
                path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if is_leftover && path != lock_path {
                fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(layers)
    }

    /// The machine's write layer over `base`, as it is, or a new one.
    ///
    /// A `discard` layer belongs to one boot: another `boot` begins with an empty one, and whoever
    /// still holds the former gets errors. A `persistent` one goes on whatever the boot. The same
    /// request again gives the same open layer.
    ///
    /// # Errors
    /// See [`LayerError`]; the layer on disk is untouched then.
    pub fn open_or_create(
        &self,
        machine: &MachineName,
        base: &Base,
        mode: LayerMode,
        boot: BootId,
    ) -> Result<Arc<WriteLayer>, LayerError> {
        let wanted = self.wanted(machine, base, mode, boot)?;
        let folder = folder(machine, mode);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = open.get(&folder)
            && let Some(layer) = entry.layer.upgrade()
            && is_same(&entry.about, &wanted)
        {
            return Ok(layer);
        }
        if let Some(about) = self.about(machine, mode)? {
            if is_same(&about, &wanted) {
                let layer = Arc::new(self.reopen(&about, base)?);
                open.insert(folder, Open { about, layer: Arc::downgrade(&layer) });
                return Ok(layer);
            }
            if mode == LayerMode::Persistent {
                return Err(LayerError::OtherParent {
                    machine: machine.clone(),
                    image: about.image,
                    version: about.version,
                    wanted: format!("{}/v{}", wanted.image, wanted.version),
                });
            }
        }
        self.throw_away(&mut open, &folder)?;
        let layer = Arc::new(self.create(&wanted, base)?);
        open.insert(folder, Open { about: wanted, layer: Arc::downgrade(&layer) });
        Ok(layer)
    }

    /// Throws the machine's `discard` layer away, if there is one.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn discard(&self, machine: &MachineName) -> Result<(), LayerError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.throw_away(&mut open, &folder(machine, LayerMode::Discard))
    }

    /// Throws everything away that the machine ever wrote, its persistent disk too.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn reset(&self, machine: &MachineName) -> Result<(), LayerError> {
        self.discard(machine)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.throw_away(&mut open, &folder(machine, LayerMode::Persistent))
    }

    /// What the layer on disk says about itself; `None` if the machine has none in this mode.
    ///
    /// A damaged description of a `discard` layer counts as none.
    ///
    /// # Errors
    /// The description of a persistent layer can't be read.
    pub fn about(
        &self,
        machine: &MachineName,
        mode: LayerMode,
    ) -> Result<Option<About>, LayerError> {
        let path = self.dir.join(folder(machine, mode)).join("layer.toml");
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error("read", &path)(source)),
        };
        match toml::from_str::<About>(&text) {
            Ok(about) if about.format == FORMAT => Ok(Some(about)),
            _ if mode == LayerMode::Discard => Ok(None),
            Ok(about) => Err(LayerError::Damaged {
                machine: machine.clone(),
                path,
                why: format!("it has format {}, not {FORMAT}", about.format),
            }),
            Err(error) => Err(LayerError::Damaged {
                machine: machine.clone(),
                path,
                why: error.message().to_owned(),
            }),
        }
    }

    fn wanted(
        &self,
        machine: &MachineName,
        base: &Base,
        mode: LayerMode,
        boot: BootId,
    ) -> Result<About, LayerError> {
        let size_bytes = base.block.size_bytes();
        if !size_bytes.is_multiple_of(512) {
            return Err(LayerError::OddSize {
                image: base.version.image.clone(),
                version: base.version.version,
                size_bytes,
            });
        }
        Ok(About {
            format: FORMAT,
            id: blake3::Hash::from_bytes(random()?).to_hex()[..32].to_owned(),
            machine: machine.clone(),
            mode,
            boot,
            image: base.version.image.clone(),
            version: base.version.version,
            parent_digest: base.version.digest.clone(),
            size_bytes,
        })
    }

    fn create(&self, about: &About, base: &Base) -> Result<WriteLayer, LayerError> {
        let folder = folder(&about.machine, about.mode);
        let new = self.dir.join(format!("{LEFTOVER}new-{folder}"));
        if new.exists() {
            fs::remove_dir_all(&new).map_err(io_error("remove", &new))?;
        }
        DirBuilder::new().mode(0o700).create(&new).map_err(io_error("make the folder", &new))?;

        let about_path = new.join("layer.toml");
        let text = toml::to_string(about)
            .map_err(|error| io_error("write", &about_path)(io::Error::other(error)))?;
        let about_file = new_file(&about_path)?;
        about_file.write_all_at(text.as_bytes(), 0).map_err(io_error("write", &about_path))?;

        let data_path = new.join("data");
        let data = new_file(&data_path)?;
        data.set_len(about.size_bytes).map_err(io_error("make", &data_path))?;

        let durable = if about.mode == LayerMode::Persistent {
            let path = new.join("map");
            let file = new_file(&path)?;
            let header = header(about, [0; 16])?;
            map::format(&file, &header)
                .and_then(|()| file.sync_all())
                .and_then(|()| about_file.sync_all())
                .and_then(|()| data.sync_all())
                .and_then(|()| File::open(&new)?.sync_all())
                .map_err(io_error("write", &path))?;
            Some(file)
        } else {
            None
        };
        // Before the layer gets its name: a layer without volatile map counts as lost.
        let map = Map::new(about.size_bytes, self.new_volatile(about)?);
        let path = self.dir.join(&folder);
        fs::rename(&new, &path).map_err(io_error("make", &path))?;
        if durable.is_some() {
            sync_dir(&self.dir)?;
        }
        Ok(WriteLayer::new(Arc::clone(&base.block), data, map, durable))
    }

    /// Opens a layer that is there and fits.
    fn reopen(&self, about: &About, base: &Base) -> Result<WriteLayer, LayerError> {
        let path = self.dir.join(folder(&about.machine, about.mode));
        let lost = || LayerError::Lost { machine: about.machine.clone(), boot: about.boot };
        let damaged = |file: &str, why: String| match about.mode {
            LayerMode::Discard => lost(),
            LayerMode::Persistent => {
                LayerError::Damaged { machine: about.machine.clone(), path: path.join(file), why }
            }
        };
        let data = open_file(&path.join("data"))?;
        let data_bytes = data.metadata().map_err(io_error("read", &path))?.len();
        if data_bytes != about.size_bytes {
            let why = format!("it has {data_bytes} bytes instead of {}", about.size_bytes);
            return Err(damaged("data", why));
        }

        let volatile_path = self.volatile_path(about);
        let kept = match open_file(&volatile_path) {
            Ok(file) => read_header(&file).ok().map(|header| (file, header)),
            Err(_) => None,
        };
        let kept = kept.filter(|(_, kept)| {
            header(about, self.host_boot).is_ok_and(|expected| *kept == expected)
        });

        if about.mode == LayerMode::Discard {
            let (file, _) = kept.ok_or_else(lost)?;
            let states = file.try_clone().map_err(io_error("open", &volatile_path))?;
            let map = Map::new(about.size_bytes, file);
            map.load(&states, false).map_err(|_| lost())?;
            return Ok(WriteLayer::new(Arc::clone(&base.block), data, map, None));
        }

        let durable_path = path.join("map");
        let durable = open_file(&durable_path)?;
        match read_header(&durable) {
            Ok(found) if found == header(about, [0; 16])? => {}
            Ok(_) => return Err(damaged("map", "it is the map of another layer".to_owned())),
            Err(why) => return Err(damaged("map", why)),
        }
        let map = if let Some((file, _)) = kept {
            let states = file.try_clone().map_err(io_error("open", &volatile_path))?;
            let map = Map::new(about.size_bytes, file);
            // All of it counts as changed: the process may have died before a flush.
            map.load(&states, false).map_err(|error| damaged("map", error.to_string()))?;
            map
        } else {
            let map = Map::new(about.size_bytes, self.new_volatile(about)?);
            map.load(&durable, true).map_err(|error| damaged("map", error.to_string()))?;
            map.fill_volatile().map_err(io_error("write", &volatile_path))?;
            map
        };
        Ok(WriteLayer::new(Arc::clone(&base.block), data, map, Some(durable)))
    }

    fn throw_away(&self, open: &mut HashMap<String, Open>, folder: &str) -> Result<(), LayerError> {
        if let Some(layer) = open.remove(folder).and_then(|entry| entry.layer.upgrade()) {
            layer.retire();
        }
        let path = self.dir.join(folder);
        let leftover = self.dir.join(format!("{LEFTOVER}old-{folder}"));
        // First out of the way in one step, so that no half-removed layer is ever opened.
        match fs::rename(&path, &leftover) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error("remove", &path)(error)),
        }
        let _ = fs::remove_file(self.volatile_dir.join(format!("{folder}.map")));
        fs::remove_dir_all(&leftover).map_err(io_error("remove", &leftover))
    }

    fn volatile_path(&self, about: &About) -> PathBuf {
        self.volatile_dir.join(format!("{}.map", folder(&about.machine, about.mode)))
    }

    /// Makes an empty volatile map under its name; who holds a former one keeps that.
    fn new_volatile(&self, about: &About) -> Result<File, LayerError> {
        let path = self.volatile_path(about);
        let new = path.with_extension("new");
        let _ = fs::remove_file(&new);
        let file = new_file(&new)?;
        map::format(&file, &header(about, self.host_boot)?)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(io_error("write", &path))?;
        Ok(file)
    }
}

/// Whether a layer on disk is the one that is asked for.
fn is_same(have: &About, wanted: &About) -> bool {
    have.parent_digest == wanted.parent_digest
        && have.size_bytes == wanted.size_bytes
        && (have.mode == LayerMode::Persistent || have.boot == wanted.boot)
}

/// A machine name holds no dot, so the two modes never collide.
fn folder(machine: &MachineName, mode: LayerMode) -> String {
    match mode {
        LayerMode::Discard => format!("{machine}.discard"),
        LayerMode::Persistent => machine.to_string(),
    }
}

fn header(about: &About, host_boot: [u8; 16]) -> Result<Header, LayerError> {
    let parent = blake3::Hash::from_hex(&about.parent_digest)
        .map_err(|_| LayerError::Digest(about.parent_digest.clone()))?;
    // The id is random already; hashing makes 16 bytes of whatever text is there.
    let layer = first_16(blake3::hash(about.id.as_bytes()).as_bytes());
    Ok(Header { layer, host_boot, size_bytes: about.size_bytes, parent: *parent.as_bytes() })
}

fn read_header(file: &File) -> Result<Header, String> {
    let mut bytes = [0; HEADER_BYTES];
    file.read_exact_at(&mut bytes, 0).map_err(|error| error.to_string())?;
    Header::parse(&bytes).map_err(|error| error.to_string())
}

fn first_16(bytes: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|index| bytes[index])
}

fn random() -> Result<[u8; 32], LayerError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 32];
    File::open(path)
        .and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes))
        .map_err(io_error("read", path))?;
    Ok(bytes)
}

fn new_file(path: &Path) -> Result<File, LayerError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(io_error("make", path))
}

fn open_file(path: &Path) -> Result<File, LayerError> {
    OpenOptions::new().read(true).write(true).open(path).map_err(io_error("open", path))
}

fn sync_dir(path: &Path) -> Result<(), LayerError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io_error("sync", path))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayerError {
    let path = path.to_owned();
    move |source| LayerError::Io { action, path, source }
}
