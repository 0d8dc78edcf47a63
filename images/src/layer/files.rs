//! The files of write layers: a folder for each, and a volatile map that outlives this process only.

mod nodes;
mod notes;

pub(super) use notes::{is_said, look_at_parent, look_at_use};

use super::about::{About, FORMAT, FORMAT_WITH_TREE, LayerMode};
use super::error::{LayerError, io_error};
use super::file::{LayerFile, Recent};
use super::header::{HEADER_BYTES, Header};
use super::in_place;
use super::map::{self, Map};
use super::media;
use super::part::Part;
use super::room::Room;
use super::tree::Tree;
use super::write::WriteLayer;
use crate::base::Base;
use model::DiskId;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Folders of this name are layers that were not complete, or were thrown away. A machine's name can't begin so. What
/// else begins with a dot is somebody else's.
const NEW: &str = ".new-";
const OLD: &str = ".old-";

/// Where layers are.
pub(super) struct Files {
    dir: PathBuf,
    volatile_dir: PathBuf,
    host_boot: [u8; 16],
    /// Volatile maps that are open.
    recent: Arc<Recent>,
    room: Arc<Room>,
}

impl Files {
    /// Makes the folders if they are missing.
    pub(super) fn open(
        dir: &Path,
        volatile_dir: &Path,
        layer_max_bytes: Option<u64>,
    ) -> Result<Self, LayerError> {
        for path in [dir, volatile_dir] {
            // Only root's: the layers hold what people wrote.
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(path).map_err(io_error("make the folder", path))?;
        }
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let text = fs::read_to_string(path).map_err(io_error("read", path))?;
        let host_boot = first_16(blake3::hash(text.trim().as_bytes()).as_bytes());
        let room = Arc::new(Room::new(dir, layer_max_bytes));
        let (dir, volatile_dir) = (dir.to_owned(), volatile_dir.to_owned());
        Ok(Self { dir, volatile_dir, host_boot, recent: Arc::default(), room })
    }

    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file whose lock the storage server holds.
    pub(super) fn lock_path(&self) -> PathBuf {
        self.dir.join(".lock")
    }

    /// Removes what broken-off work left.
    pub(super) fn remove_leftovers(&self) -> Result<(), LayerError> {
        for entry in fs::read_dir(&self.dir).map_err(io_error("list", &self.dir))? {
            let entry = entry.map_err(io_error("list", &self.dir))?;
            let (path, name) = (entry.path(), entry.file_name());
            let is_ours = [NEW, OLD]
                .iter()
                .any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()));
            if is_ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
            }
        }
        self.remove_stray_nodes()
    }

    /// What a layer says about itself; `None` if there is none, or a `discard` layer's description is damaged.
    pub(super) fn about(
        &self,
        disk: &DiskId,
        mode: LayerMode,
    ) -> Result<Option<About>, LayerError> {
        let folder = self.dir.join(folder(disk, mode));
        let path = folder.join("layer.toml");
        let damaged = |why: String| {
            let path = path.clone();
            Err(LayerError::Damaged { disk: disk.clone(), path, why })
        };
        let text = match in_place::read(&path) {
            Ok(Some(text)) => text,
            Ok(None) => {
                return match (mode, folder.try_exists()) {
                    (_, Ok(false)) | (LayerMode::Discard, Ok(true)) => Ok(None),
                    (LayerMode::Persistent, Ok(true)) => damaged("it is missing".to_owned()),
                    (_, Err(source)) => Err(io_error("read", &folder)(source)),
                };
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return match mode {
                    LayerMode::Discard => Ok(None),
                    LayerMode::Persistent => damaged(error.to_string()),
                };
            }
            Err(source) => return Err(io_error("read", &path)(source)),
        };
        match in_place::parse::<About>(&text) {
            Ok(about) if about.is_known() && about.disk == *disk => {
                match about.tree.as_ref().map_or(Ok(()), Tree::check) {
                    Ok(()) => Ok(Some(about)),
                    Err(why) => damaged(why.to_owned()),
                }
            }
            _ if mode == LayerMode::Discard => Ok(None),
            Ok(about) if about.is_known() => damaged(format!("it is the disk of {}", about.disk)),
            Ok(about) => damaged(format!(
                "it has format {}, and this Bootlace knows {FORMAT} and {FORMAT_WITH_TREE}",
                about.format
            )),
            Err(error) => damaged(error.to_string()),
        }
    }

    /// Machines with a folder for a persistent layer.
    pub(super) fn kept(&self) -> Result<Vec<DiskId>, LayerError> {
        kept_in(&self.dir)
    }

    /// Makes a layer in place of none, as `about` says.
    pub(super) fn create(&self, about: &About, base: &Base) -> Result<WriteLayer, LayerError> {
        let folder = folder(&about.disk, about.mode);
        let new = self.dir.join(format!("{NEW}{folder}"));
        if new.exists() {
            fs::remove_dir_all(&new).map_err(io_error("remove", &new))?;
        }
        DirBuilder::new().mode(0o700).create(&new).map_err(io_error("make the folder", &new))?;

        let about_path = new.join("layer.toml");
        let text = toml::to_string(about)
            .map_err(|error| io_error("write", &about_path)(io::Error::other(error)))?;
        let about_file = new_file(&about_path)?;
        media::write_all_at(&about_file, text.as_bytes(), 0)
            .map_err(io_error("write", &about_path))?;

        let data_path = new.join("data");
        let data = new_file(&data_path)?;
        media::set_len(&data, about.size_bytes).map_err(io_error("make", &data_path))?;

        let durable = if about.mode == LayerMode::Persistent {
            let path = new.join("map");
            let file = new_file(&path)?;
            let header = header(about, 0, [0; 16])?;
            map::format(&file, &header)
                .and_then(|()| media::sync_all(&file))
                .and_then(|()| media::sync_all(&about_file))
                .and_then(|()| media::sync_all(&data))
                .and_then(|()| media::sync_folder(&new))
                .map_err(io_error("write", &path))?;
            Some(file)
        } else {
            None
        };
        // Before the layer gets its name: a layer without volatile map counts as lost.
        let map = self.map(about, 0, &self.new_volatile(about, 0)?)?;
        let path = self.dir.join(&folder);
        media::rename(&new, &path).map_err(io_error("make", &path))?;
        if durable.is_some() {
            media::sync_folder(&self.dir).map_err(io_error("sync", &self.dir))?;
        }
        let data = layer_file(&path.join("data"), &data)?;
        let durable = durable.map(|file| layer_file(&path.join("map"), &file)).transpose()?;
        let part = Part::new(0, about.size_bytes, data, map, durable);
        Ok(self.layer(about, base, vec![Arc::new(part)]))
    }

    /// Says plainly what it means that a file of a layer can't be written.
    pub(super) fn explain(&self, error: LayerError) -> LayerError {
        match error {
            LayerError::Io { path, source, .. }
                if source.kind() == io::ErrorKind::StorageFull && path.starts_with(&self.dir) =>
            {
                LayerError::Full { path: self.dir.clone() }
            }
            other => other,
        }
    }

    /// Whether a persistent layer's files are there and belong to it, as far as is seen without reading what was written.
    pub(super) fn check(&self, about: &About) -> Result<(), LayerError> {
        for files in about.path() {
            self.open_data(about, files)?;
            self.open_durable(about, files)?;
        }
        Ok(())
    }

    /// What it means that a file of a layer is not as it must be.
    fn damaged(&self, about: &About, file: &str, why: String) -> LayerError {
        let disk = about.disk.clone();
        match about.mode {
            LayerMode::Discard => LayerError::Lost { disk, boot: about.boot },
            LayerMode::Persistent => {
                LayerError::Damaged { disk, path: self.path(about).join(file), why }
            }
        }
    }

    fn path(&self, about: &About) -> PathBuf {
        self.dir.join(folder(&about.disk, about.mode))
    }

    fn open_part(&self, about: &About, file: &str) -> Result<File, LayerError> {
        match open_file(&self.path(about).join(file)) {
            Err(LayerError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(self.damaged(about, file, "it is missing".to_owned()))
            }
            opened => opened,
        }
    }

    fn open_data(&self, about: &About, files: u32) -> Result<File, LayerError> {
        let name = data_name(files);
        let data = self.open_part(about, &name)?;
        let data_bytes = data.metadata().map_err(io_error("read", &self.path(about)))?.len();
        if data_bytes != about.size_bytes {
            let why = format!("it has {data_bytes} bytes instead of {}", about.size_bytes);
            return Err(self.damaged(about, &name, why));
        }
        Ok(data)
    }

    fn open_durable(&self, about: &About, files: u32) -> Result<File, LayerError> {
        let name = map_name(files);
        let durable = self.open_part(about, &name)?;
        match read_header(&durable) {
            Ok(found) if found == header(about, files, [0; 16])? => Ok(durable),
            Ok(_) => Err(self.damaged(about, &name, "it is the map of another layer".to_owned())),
            Err(why) => Err(self.damaged(about, &name, why)),
        }
    }

    /// Opens a layer that is there and fits.
    pub(super) fn reopen(&self, about: &About, base: &Base) -> Result<WriteLayer, LayerError> {
        let mut parts = Vec::new();
        for files in about.path() {
            let part = match files == about.top() {
                true => self.open_top(about)?,
                false => self.open_sealed(about, files)?,
            };
            parts.push(Arc::new(part));
        }
        Ok(self.layer(about, base, parts))
    }

    /// Opens the files to which the machine writes.
    pub(super) fn open_top(&self, about: &About) -> Result<Part, LayerError> {
        let (path, files) = (self.path(about), about.top());
        let lost = || LayerError::Lost { disk: about.disk.clone(), boot: about.boot };
        let damaged = |why: String| self.damaged(about, &map_name(files), why);
        let data = layer_file(&path.join(data_name(files)), &self.open_data(about, files)?)?;
        let kept = self.kept_volatile(about, files);

        if about.mode == LayerMode::Discard {
            let file = kept.ok_or_else(lost)?;
            let map = self.map(about, files, &file)?;
            map.load(&file, false).map_err(|_| lost())?;
            return Ok(Part::new(files, about.size_bytes, data, map, None));
        }

        let durable = self.open_durable(about, files)?;
        let map = if let Some(file) = kept {
            let map = self.map(about, files, &file)?;
            // All of it counts as changed: the process may have died before a flush.
            map.load(&file, false).map_err(|error| damaged(error.to_string()))?;
            map
        } else {
            let map = self.map(about, files, &self.new_volatile(about, files)?)?;
            map.load(&durable, true).map_err(|error| damaged(error.to_string()))?;
            let volatile_path = self.volatile_path(about, files);
            map.fill_volatile().map_err(io_error("write", &volatile_path))?;
            map
        };
        let durable = layer_file(&path.join(map_name(files)), &durable)?;
        Ok(Part::new(files, about.size_bytes, data, map, Some(durable)))
    }

    /// The volatile map of these files, if there is one that counts still.
    fn kept_volatile(&self, about: &About, files: u32) -> Option<File> {
        let file = open_file(&self.volatile_path(about, files)).ok()?;
        let found = read_header(&file).ok()?;
        let expected = header(about, files, self.host_boot).ok()?;
        (found == expected).then_some(file)
    }

    fn layer(&self, about: &About, base: &Base, parts: Vec<Arc<Part>>) -> WriteLayer {
        let folder = (about.mode == LayerMode::Persistent).then(|| self.path(about));
        let room = Some(Arc::clone(&self.room));
        let layer = WriteLayer::new(Arc::clone(&base.block), parts, folder, room);
        layer.set_others_bytes(self.others_bytes(about));
        layer
    }

    /// Removes a layer. Returns whether there was one.
    pub(super) fn remove(&self, folder: &str) -> Result<bool, LayerError> {
        let path = self.dir.join(folder);
        let leftover = self.dir.join(format!("{OLD}{folder}"));
        // First out of the way in one step, so that no half-removed layer is ever opened.
        match fs::rename(&path, &leftover) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io_error("remove", &path)(error)),
        }
        self.remove_volatile(folder);
        fs::remove_dir_all(&leftover).map_err(io_error("remove", &leftover))?;
        Ok(true)
    }

    fn volatile_path(&self, about: &About, files: u32) -> PathBuf {
        let folder = folder(&about.disk, about.mode);
        let name = match files {
            0 => format!("{folder}.map"),
            files => format!("{folder}.{files}.map"),
        };
        self.volatile_dir.join(name)
    }

    /// A map of granules that are all in the parent, with this volatile file.
    fn map(&self, about: &About, files: u32, volatile: &File) -> Result<Map, LayerError> {
        let volatile = layer_file(&self.volatile_path(about, files), volatile)?;
        Ok(Map::new(about.size_bytes, Some(volatile), Arc::clone(&self.recent)))
    }

    /// Makes an empty volatile map under its name; who holds a former one keeps that.
    fn new_volatile(&self, about: &About, files: u32) -> Result<File, LayerError> {
        let path = self.volatile_path(about, files);
        let new = path.with_extension("new");
        let _ = fs::remove_file(&new);
        let file = new_file(&new)?;
        map::format(&file, &header(about, files, self.host_boot)?)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(io_error("write", &path))?;
        Ok(file)
    }
}

fn data_name(files: u32) -> String {
    match files {
        0 => "data".to_owned(),
        files => format!("data.{files}"),
    }
}

fn map_name(files: u32) -> String {
    match files {
        0 => "map".to_owned(),
        files => format!("map.{files}"),
    }
}

/// Machines with a folder for a persistent layer in `dir`.
pub(super) fn kept_in(dir: &Path) -> Result<Vec<DiskId>, LayerError> {
    let mut machines = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let entry = entry.map_err(io_error("list", dir))?;
        let name = entry.file_name().into_string().ok();
        // A link to where there is more room counts, too.
        let is_folder = entry.file_type().is_ok_and(|kind| !kind.is_file());
        machines.extend(name.filter(|_| is_folder).and_then(|name| name.parse().ok()));
    }
    Ok(machines)
}

/// A layer's name on disk. A machine's name holds no dot, so the two modes never collide.
pub(super) fn folder(disk: &DiskId, mode: LayerMode) -> String {
    match mode {
        LayerMode::Discard => format!("{disk}.discard"),
        LayerMode::Persistent => disk.to_string(),
    }
}

fn header(about: &About, files: u32, host_boot: [u8; 16]) -> Result<Header, LayerError> {
    let parent = blake3::Hash::from_hex(&about.parent_digest)
        .map_err(|_| LayerError::Digest(about.parent_digest.clone()))?;
    // The id is random already; hashing makes 16 bytes of whatever text is there.
    let layer = match files {
        0 => blake3::hash(about.id.as_bytes()),
        files => blake3::hash(format!("{}/{files}", about.id).as_bytes()),
    };
    let layer = first_16(layer.as_bytes());
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

fn new_file(path: &Path) -> Result<File, LayerError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(path).map_err(io_error("make", path))?;
    media::created(path, &file);
    Ok(file)
}

fn layer_file(path: &Path, file: &File) -> Result<LayerFile, LayerError> {
    LayerFile::at(path, file).map_err(io_error("read", path))
}

fn open_file(path: &Path) -> Result<File, LayerError> {
    OpenOptions::new().read(true).write(true).open(path).map_err(io_error("open", path))
}
