//! Making an image version of a disk image file.

use crate::archive::{self, ArchiveError, Packing, packing_of_archive};
use crate::block::Block;
use crate::container::{Unfit, inspect};
use crate::copy::{CopyError, Read};
use crate::error::{ImportError, RootfsError, StoreError, io_error};
use crate::folder::{is_full, space};
use crate::fsck::{self, Checked};
use crate::harm::{self, FixChoice, Harm};
use crate::new_root::{self, NewRoot};
use crate::opened::Source;
use crate::progress::{Progress, Step};
use crate::qemu_img;
use crate::raw::RawFile;
use crate::rootfs::Rootfs;
use crate::source::{Format, HEAD_BYTES_MAX, NotImported, SIZE_BYTES_MAX, detect};
use crate::stop::Stop;
use crate::store::{Description, Draft, Published, Store};
use crate::stream::StreamError;
use crate::system::{System, check_root, find_data, find_system};
use crate::volumes::{Content, find_volumes};
use initcfg::Overlay;
use model::{ImageName, ImageVersion, Size, Space, VersionState, is_note};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Sizes are rounded up to this: the unit of write layers, and of every page cache.
const SIZE_UNIT_BYTES: u64 = 4096;
/// The disk that becomes of an archive, unless somebody wants another: sparse, so that it takes what the files take.
pub const DISK_BYTES: u64 = 16 << 30;
const DISK_BYTES_MIN: u64 = 64 << 20;
const DISK_UNIT_BYTES: u64 = 1 << 20;

/// What to import.
#[derive(Debug)]
pub struct ImportRequest {
    /// The disk image: raw, qcow2, VMDK, VHDX, VHD or VDI; or a block device; or a tar archive of a system's files.
    pub source: Source,
    /// Of the disk that becomes of an archive; `None`: [`DISK_BYTES`].
    pub disk_bytes: Option<u64>,
    /// The image of which it becomes the next version.
    pub name: ImageName,
    /// What people want to remember about it: see [`is_note`].
    pub note: Option<String>,
    /// For whom it is.
    pub state: VersionState,
    /// Which harms are fixed by files that are laid over it; `None`: none.
    pub fix: Option<FixChoice>,
    /// It is no system, but a file system that machines have beside their roots: it needs no kernel.
    pub is_data: bool,
}

/// An empty disk that machines have beside their roots.
#[derive(Clone, Debug)]
pub struct EmptyDisk {
    /// The image of which it becomes the next version.
    pub name: ImageName,
    /// Its size in bytes, which is rounded up to MiB; at least 64 MiB.
    pub size_bytes: u64,
    /// What people want to remember about it: see [`is_note`].
    pub note: Option<String>,
}

/// What a machine has made of a version.
#[derive(Clone, Debug)]
pub struct ChangedDisk {
    /// What it is called in sentences: `what lab-01 has changed`.
    pub source: PathBuf,
    /// The version that was changed.
    pub base: ImageVersion,
    /// What people want to remember about it: see [`is_note`].
    pub note: Option<String>,
    /// For whom it is.
    pub state: VersionState,
    /// Which harms are fixed by files that are laid over it; `None`: none.
    pub fix: Option<FixChoice>,
}

/// A copy of a version's disk in the store, which is no version yet.
pub struct DiskCopy {
    draft: Draft,
    path: PathBuf,
}

/// A file system of a disk, as `mount` is told it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ToMount {
    /// Where it goes in the system: `/` or `/boot`.
    pub at: String,
    /// As the kernel calls it: `ext4`.
    pub file_system: String,
    /// Where it begins on the disk.
    pub offset: u64,
    /// How long it is.
    pub size_bytes: u64,
}

impl DiskCopy {
    /// The disk.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What of it makes the system, the root first.
    ///
    /// # Errors
    /// There is no system on it that can be mounted; `source` is what errors call it.
    pub fn to_mount(&self, source: &Path) -> Result<Vec<ToMount>, ImportError> {
        let path = &self.path;
        let disk: Arc<dyn Block> = Arc::new(RawFile::open(path).map_err(io_error("open", path))?);
        let system = find_system(&disk, source)?;
        let volumes = std::iter::once(("/", &system.volume))
            .chain(system.boot.iter().map(|it| ("/boot", it)));
        volumes
            .map(|(at, volume)| {
                let refused = |why: &str| ImportError::Refused {
                    path: source.to_owned(),
                    why: format!(
                        "its {at} is {why}: change it by booting it (bootlace image edit)"
                    ),
                };
                if volume.logical.is_some() {
                    return Err(refused("in a logical volume"));
                }
                let file_system = match volume.content {
                    Content::Root(kind) => kind.to_string(),
                    _ => "vfat".to_owned(),
                };
                let (offset, size_bytes) = (volume.offset, volume.size_bytes);
                Ok(ToMount { at: at.to_owned(), file_system, offset, size_bytes })
            })
            .collect()
    }
}

/// What is said of a version that is being made.
struct New<'a> {
    path: &'a Path,
    name: &'a ImageName,
    note: Option<&'a String>,
    state: VersionState,
    fix: Option<&'a FixChoice>,
    is_data: bool,
}

impl<'a> New<'a> {
    fn of(request: &'a ImportRequest) -> Self {
        let &ImportRequest { ref source, ref name, ref note, state, ref fix, is_data, .. } =
            request;
        let (note, fix) = (note.as_ref(), fix.as_ref());
        Self { path: source.path(), name, note, state, fix, is_data }
    }
}

/// What came of an import.
#[derive(Clone, Debug)]
pub struct Import {
    /// The version that it made, or whose files it put back.
    pub version: ImageVersion,
    /// Files of a version that was damaged or gone, which are there again; empty: the version is new.
    pub put_back: Vec<&'static str>,
    /// Kernels of the system that were not taken, and why, for people: `/boot/vmlinuz-7.0: it is empty`.
    pub passed_over: Vec<String>,
    /// What is wrong with the system, though machines start with it, for people.
    pub warnings: Vec<String>,
    /// Files of an archive that are not on the disk, and why, for people.
    pub left_out: Vec<String>,
    /// Whether its kernel has a signature, without which PCs with Secure Boot don't start it.
    pub is_signed: bool,
    /// What in it hurts a diskless machine.
    pub harms: Vec<Harm>,
    /// Paths at which something is laid over it.
    pub laid_over: Vec<String>,
}

impl Store {
    /// Imports a disk image as the next version of an image.
    ///
    /// Nothing stays in the store if it fails or is told to stop. Takes as long as reading the disk takes;
    /// `progress` is called about once for each MiB.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub fn import(
        &self,
        request: &ImportRequest,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Import, ImportError> {
        if !request.note.as_deref().is_none_or(is_note) {
            return Err(ImportError::BadNote);
        }
        let source = &request.source;
        if let Some(why) = self.other_kind(&request.name, request.is_data)? {
            return Err(ImportError::Refused { path: source.path().to_owned(), why });
        }
        let (kind, disk_bytes) = what_it_is(request)?;
        self.check_room(source.allocated_bytes)?;

        let draft = self.draft()?;
        let find = finder(request.is_data);
        let work = Work { store: self, source, draft: &draft, disk_bytes, find, stop };
        let mut left_out = Vec::new();
        let (size_bytes, digest) = match kind {
            Kind::Disk(Format::Raw) => work.copy_raw(progress),
            Kind::Disk(format) => work.convert(format, progress),
            Kind::Archive(packing) => work.fill(packing, &mut left_out, progress),
        }
        // Whatever it led to: an import that was told to stop stopped.
        .map_err(|error| if stop.is_stopping() { ImportError::Stopped } else { error })?;
        source.check_unchanged()?;
        let mut import =
            self.describe(draft, &New::of(request), (size_bytes, digest), stop, progress)?;
        import.left_out = left_out;
        Ok(import)
    }

    /// Makes an empty ext4 the next version of an image, as which machines have it beside their roots. It is sparse, and takes a few MiB.
    ///
    /// Nothing stays in the store if it fails or is told to stop.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub fn make_empty(
        &self,
        EmptyDisk { name, size_bytes, note }: &EmptyDisk,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Import, ImportError> {
        if !note.as_deref().is_none_or(is_note) {
            return Err(ImportError::BadNote);
        }
        let path = Path::new("the empty disk");
        if let Some(why) = self.other_kind(name, true)? {
            return Err(ImportError::Refused { path: path.to_owned(), why });
        }
        if !(DISK_BYTES_MIN..=SIZE_BYTES_MAX).contains(size_bytes) {
            let (min, max) = (Size(DISK_BYTES_MIN), Size(SIZE_BYTES_MAX));
            let why = format!("it is to have {min} to {max}");
            return Err(ImportError::Refused { path: path.to_owned(), why });
        }
        let size_bytes = size_bytes.next_multiple_of(DISK_UNIT_BYTES);
        self.check_room(0)?;
        let draft = self.draft()?;
        let disk_path = draft.path().join("disk.raw");
        // Linux takes 16 bytes.
        let label = &name.as_str()[..name.as_str().len().min(16)];
        let disk = File::create_new(&disk_path)
            .and_then(|_| new_root::make(&disk_path, size_bytes, label))
            .and_then(|()| File::open(&disk_path))
            .map_err(|error| self.write_error(&disk_path, error, draft.path(), size_bytes))?;
        let read = Read { source: &disk, size_bytes, padded_bytes: size_bytes };
        let digest = read.run(None, stop, progress).map_err(|error| match error {
            CopyError::Stopped => ImportError::Stopped,
            CopyError::Read(error) | CopyError::Write(error) => {
                io_error("read", &disk_path)(error).into()
            }
        })?;
        let (note, state) = (note.as_ref(), VersionState::Released);
        let new = New { path, name, note, state, fix: None, is_data: true };
        self.describe(draft, &new, (size_bytes, digest), stop, progress)
    }

    /// Makes what a machine has changed of a version the next version of the image.
    ///
    /// Nothing stays in the store if it fails or is told to stop.
    ///
    /// # Errors
    /// See [`ImportError`]. What can't be read is called as [`ChangedDisk::source`] says.
    pub fn import_changed(
        &self,
        disk: &ChangedDisk,
        changes: impl io::Read,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Import, ImportError> {
        let copy = self.copy_of(disk, Some(changes), stop, progress)?;
        self.import_copy(copy, disk, stop, progress)
    }

    /// A copy of a version's disk, for somebody who changes it; it goes if he lets go of it.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub fn copy_to_change(
        &self,
        disk: &ChangedDisk,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<DiskCopy, ImportError> {
        self.copy_of(disk, None::<io::Empty>, stop, progress)
    }

    fn copy_of(
        &self,
        ChangedDisk { source, base, note, .. }: &ChangedDisk,
        changes: Option<impl io::Read>,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<DiskCopy, ImportError> {
        if !note.as_deref().is_none_or(is_note) {
            return Err(ImportError::BadNote);
        }
        self.check_room(self.disk_bytes(&base.image, base.version)?)?;
        let draft = self.draft()?;
        let path = draft.path().join("disk.raw");
        let copied = self.apply_changes(base, changes, &path, stop, progress);
        copied.map_err(|error| match error {
            _ if stop.is_stopping() => ImportError::Stopped,
            StreamError::Store(error) => error.into(),
            StreamError::DiskFull { .. } => self.disk_full(draft.path(), base.size_bytes),
            other => {
                let source_error = io::Error::other(with_causes(&other));
                ImportError::Source { path: source.clone(), source: source_error }
            }
        })?;
        Ok(DiskCopy { draft, path })
    }

    /// Makes what has become of a copy the next version of the image. Its file systems are checked first, as who has changed it may have
    /// been switched off at any moment.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub fn import_copy(
        &self,
        DiskCopy { draft, path }: DiskCopy,
        ChangedDisk { source, base, note, state, fix }: &ChangedDisk,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Import, ImportError> {
        let size_bytes = base.size_bytes;
        progress(Progress { step: Step::Check, done_bytes: 0, total_bytes: size_bytes });
        let told = check_file_systems(&path, source, stop)?;
        let file = File::open(&path).map_err(io_error("open", &path))?;
        let read = Read { source: &file, size_bytes, padded_bytes: size_bytes };
        let digest = read.run(None, stop, progress).map_err(|error| match error {
            CopyError::Stopped => ImportError::Stopped,
            CopyError::Read(error) | CopyError::Write(error) => {
                io_error("read", &path)(error).into()
            }
        })?;
        let (name, note, fix) = (&base.image, note.as_ref(), fix.as_ref());
        let is_data = base.is_data();
        let new = New { path: source, name, note, state: *state, fix, is_data };
        let mut import = self.describe(draft, &new, (size_bytes, digest), stop, progress)?;
        import.warnings.splice(0..0, told);
        Ok(import)
    }

    /// Looks at the copy, writes what was found beside it, and publishes all of it.
    fn describe(
        &self,
        draft: Draft,
        new: &New<'_>,
        (size_bytes, digest): (u64, String),
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Import, ImportError> {
        let &New { path, name, note, state, fix, is_data } = new;
        if let Some(why) = self.other_kind(name, is_data)? {
            return Err(ImportError::Refused { path: path.to_owned(), why });
        }
        let disk_path = draft.path().join("disk.raw");
        let disk: Arc<dyn Block> =
            Arc::new(RawFile::open(&disk_path).map_err(io_error("open", &disk_path))?);
        let system = finder(is_data)(&disk, path)?;
        check_root(&disk, &system.volume, path, stop)?;
        let mut seen = if is_data { Seen::default() } else { Seen::of(&disk, &system, fix) };
        drop(disk);
        let version = ImageVersion {
            image: name.clone(),
            // Set when it is published.
            version: 0,
            digest,
            size_bytes,
            partition: system.volume.partition,
            logical_volume: system.volume.logical.as_ref().map(|it| it.name().clone()),
            file_system: system.file_system,
            kernel_version: system.kernel_version.clone(),
            architecture: system.architecture,
            os_name: system.os_name.clone(),
            imported_unix: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        };
        let draft_path = draft.path().to_owned();
        let vmlinuz_path = draft_path.join("vmlinuz");
        std::fs::write(&vmlinuz_path, &system.vmlinuz)
            .map_err(|error| self.write_error(&vmlinuz_path, error, &draft_path, size_bytes))?;
        let same = self.find_same(&version, &system.vmlinuz, stop, progress)?;
        progress(Progress { step: Step::Sync, done_bytes: 0, total_bytes: size_bytes });
        let note = note.cloned();
        let description = Description { version, note, others: toml::Table::new() };
        let published =
            self.publish(draft, description, state, same).map_err(|error| match error {
                StoreError::Io { path, source, .. } if is_full(&source) => {
                    self.write_error(&path, source, &draft_path, size_bytes)
                }
                other => other.into(),
            })?;
        let (version, put_back) = match published {
            Published::New(version) => (version, Vec::new()),
            Published::PutBack(version, files) => (version, files),
            Published::Same(newest) => {
                return Err(ImportError::SameAsNewest {
                    image: newest.image,
                    version: newest.version,
                });
            }
        };
        progress(Progress { step: Step::Sync, done_bytes: size_bytes, total_bytes: size_bytes });
        let System { passed_over, mut warnings, vmlinuz, .. } = system;
        let is_signed = crate::is_signed(&vmlinuz);
        if let Some(overlay) = seen.overlay.take() {
            match self.keep_overlay(&version.image, version.version, &overlay) {
                Ok(()) => {
                    seen.laid_over = overlay.entries.iter().map(|it| it.path.to_string()).collect()
                }
                // The version is there, and what is missing can be had later.
                Err(error) => seen.not_known.push(with_causes(&error)),
            }
        }
        let Seen { harms, laid_over, not_known, .. } = seen;
        warnings.extend(
            not_known.into_iter().map(|why| {
                format!("what hurts a diskless machine is not known, or not fixed: {why}")
            }),
        );
        let left_out = Vec::new();
        Ok(Import {
            version,
            put_back,
            passed_over,
            warnings,
            left_out,
            is_signed,
            harms,
            laid_over,
        })
    }

    /// Why a version of this kind can't be one of the image; `None`: it can.
    pub(crate) fn other_kind(
        &self,
        name: &ImageName,
        is_data: bool,
    ) -> Result<Option<String>, StoreError> {
        let numbers = self.numbers(name)?.into_iter().rev();
        // One that can't be read says nothing of its kind.
        let known = numbers.filter_map(|number| self.version(name, number).ok());
        let others: Vec<ImageVersion> = known.filter(|it| it.is_data() != is_data).collect();
        let Some(other) = others.first() else { return Ok(None) };
        let (is, it_is) = match is_data {
            true => ("a system, which machines boot", "a disk beside roots"),
            false => ("a disk that machines have beside their roots", "a system"),
        };
        Ok(Some(format!(
            "{name}/v{} is {is}, and this is {it_is}: an image has versions of one kind only. Give it another name",
            other.version
        )))
    }

    fn check_room(&self, needed_bytes: u64) -> Result<(), ImportError> {
        match self.lacks_room(needed_bytes)? {
            Some(Space { free_bytes, reserve_bytes, .. }) => Err(ImportError::NoRoom {
                path: self.dir().to_owned(),
                needed_bytes,
                free_bytes,
                reserve_bytes,
            }),
            None => Ok(()),
        }
    }

    fn write_error(
        &self,
        path: &Path,
        source: io::Error,
        draft: &Path,
        disk_bytes: u64,
    ) -> ImportError {
        if is_full(&source) {
            self.disk_full(draft, disk_bytes)
        } else {
            io_error("write", path)(source).into()
        }
    }

    /// The disk became full by this draft of a disk of so many bytes, which is free again when it is gone.
    fn disk_full(&self, draft: &Path, disk_bytes: u64) -> ImportError {
        let files = std::fs::read_dir(draft).into_iter().flatten().flatten();
        let taken = files.filter_map(|file| Some(file.metadata().ok()?.blocks() * 512));
        let free_bytes = space(self.dir()).map_or(0, |space| space.free_bytes);
        ImportError::DiskFull {
            path: self.dir().to_owned(),
            needed_bytes: disk_bytes,
            free_bytes: free_bytes.saturating_add(taken.sum()),
        }
    }
}

/// Checks the file systems of a disk, and mends them; what is to be told of that.
fn check_file_systems(path: &Path, source: &Path, stop: &Stop) -> Result<Vec<String>, ImportError> {
    let disk: Arc<dyn Block> = Arc::new(RawFile::open(path).map_err(io_error("open", path))?);
    let volumes = find_volumes(&disk).map_err(io_error("read", path))?;
    drop(disk);
    let mut told = Vec::new();
    for volume in &volumes {
        match fsck::check(path, volume, stop) {
            Ok(Checked::Well(lines)) => {
                told.extend(
                    lines.into_iter().map(|line| format!("its file system was mended: {line}")),
                );
            }
            Ok(Checked::NotKnown(why)) => told.push(why),
            Err(fsck::Failed::Stopped) => return Err(ImportError::Stopped),
            Err(fsck::Failed::Damaged(why)) => {
                return Err(ImportError::NotBootable { path: source.to_owned(), why });
            }
        }
    }
    Ok(told)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What hurts in a system that is imported.
#[derive(Default)]
struct Seen {
    harms: Vec<Harm>,
    /// What is to be laid over it.
    overlay: Option<Overlay>,
    laid_over: Vec<String>,
    /// What could not be looked at, and why. An import goes on without it.
    not_known: Vec<String>,
}

impl Seen {
    fn of(disk: &Arc<dyn Block>, system: &System, fix: Option<&FixChoice>) -> Self {
        let looked = || -> Result<Self, RootfsError> {
            let unreadable = |error: io::Error| RootfsError::FileSystem(error.to_string());
            let volumes = find_volumes(disk).map_err(unreadable)?;
            let root = Rootfs::open(Arc::clone(disk), &system.volume)?;
            let look = harm::look(&root, disk.as_ref(), &volumes)?;
            let overlay = fix.map(|choice| look.overlay(&root, choice)).transpose()?;
            let not_known = look.not_checked.iter().map(|(check, why)| format!("{check}: {why}"));
            let not_known = not_known.collect();
            Ok(Self { harms: look.harms, overlay, laid_over: Vec::new(), not_known })
        };
        looked()
            .unwrap_or_else(|error| Self { not_known: vec![error.to_string()], ..Self::default() })
    }
}

/// An import under way.
struct Work<'a> {
    store: &'a Store,
    source: &'a Source,
    draft: &'a Draft,
    /// Of the disk in the source.
    disk_bytes: u64,
    find: Find,
    stop: &'a Stop,
}

impl Work<'_> {
    /// Copies the first bytes of the source, which are the disk. Returns its size, filled up, and its digest.
    fn copy_raw(&self, progress: &mut dyn FnMut(Progress)) -> Result<(u64, String), ImportError> {
        let (path, disk_bytes) = (self.source.path(), self.disk_bytes);
        let source_error = |source| ImportError::Source { path: path.to_owned(), source };
        // Before copying gigabytes: is there anything on it?
        let file = self.source.file.try_clone().map_err(source_error)?;
        let block: Arc<dyn Block> = Arc::new(RawFile::of_size(file, disk_bytes));
        (self.find)(&block, path)?;

        let size_bytes = padded(disk_bytes, path)?;
        let disk_path = self.disk_path();
        let target = new_disk(&disk_path)?;
        let file = &self.source.file;
        let read = Read { source: file, size_bytes: disk_bytes, padded_bytes: size_bytes };
        let digest = read.run(Some(&target), self.stop, progress).map_err(|error| match error {
            CopyError::Stopped => ImportError::Stopped,
            // It became shorter meanwhile.
            CopyError::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                ImportError::Changed { path: path.to_owned() }
            }
            CopyError::Read(error) => source_error(error),
            CopyError::Write(error) => self.write_error(&disk_path, error),
        })?;
        Ok((size_bytes, digest))
    }

    /// As [`copy_raw`](Self::copy_raw), of a disk in another format.
    fn convert(
        &self,
        format: Format,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(u64, String), ImportError> {
        let (path, disk_bytes) = (self.source.path(), self.disk_bytes);
        let failed = |failed| match failed {
            qemu_img::Failed::DiskFull => self.disk_full(),
            qemu_img::Failed::Stopped => ImportError::Stopped,
            qemu_img::Failed::Other(text) => ImportError::Convert(text),
        };
        padded(disk_bytes, path)?;
        let file = self.source.file.try_clone();
        let file = file.map_err(|source| ImportError::Source { path: path.to_owned(), source })?;
        let image = qemu_img::Image::new(format, path, file, self.stop);
        let scratch = self.draft.path().join("peek");
        let peek = qemu_img::Peek::new(image.clone(), disk_bytes, scratch);
        let block: Arc<dyn Block> = Arc::new(peek);
        (self.find)(&block, path).map_err(|error| match error {
            // For a moment, pieces of it are put into the store.
            ImportError::Source { source, .. } if is_full(&source) => self.disk_full(),
            other => other,
        })?;
        drop(block);

        let disk_path = self.disk_path();
        let in_bytes = |bytes: u64, of: u64| {
            let share = u128::from(bytes) * u128::from(disk_bytes) / u128::from(of.max(1));
            u64::try_from(share).unwrap_or(disk_bytes)
        };
        let mut convert_progress = |share: Progress| {
            let done_bytes = in_bytes(share.done_bytes, share.total_bytes);
            progress(Progress { step: share.step, done_bytes, total_bytes: disk_bytes });
        };
        image.convert(&disk_path, &mut convert_progress).map_err(failed)?;
        let disk = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&disk_path)
            .map_err(io_error("open", &disk_path))?;
        let converted_bytes = disk.metadata().map_err(io_error("read", &disk_path))?.len();
        let size_bytes = padded(converted_bytes, path)?;
        disk.set_len(size_bytes).map_err(|error| self.write_error(&disk_path, error))?;
        let read = Read { source: &disk, size_bytes, padded_bytes: size_bytes };
        let digest = read.run(None, self.stop, progress).map_err(|error| match error {
            CopyError::Stopped => ImportError::Stopped,
            CopyError::Read(error) | CopyError::Write(error) => self.write_error(&disk_path, error),
        })?;
        Ok((size_bytes, digest))
    }

    /// Makes a disk of an archive's files.
    fn fill(
        &self,
        packing: Packing,
        left_out: &mut Vec<String>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(u64, String), ImportError> {
        let (path, disk_bytes) = (self.source.path(), self.disk_bytes);
        let disk_path = self.disk_path();
        let disk = File::create_new(&disk_path)
            .and_then(|_| new_root::make(&disk_path, disk_bytes, "root"))
            .and_then(|()| std::fs::OpenOptions::new().read(true).write(true).open(&disk_path))
            .map_err(|error| self.write_error(&disk_path, error))?;
        let source_error = |source| ImportError::Source { path: path.to_owned(), source };
        let mut root = NewRoot::open(&disk).map_err(|error| self.write_error(&disk_path, error))?;
        let content = self.source.reader(self.stop).map_err(source_error)?;
        let total_bytes = self.source.size_bytes;
        let content = Counted { content, done_bytes: 0, total_bytes, progress };
        let filled = archive::fill(&mut root, content, packing, self.stop).and_then(|remarks| {
            *left_out = remarks.finish();
            root.finish().map_err(ArchiveError::from)
        });
        filled.map_err(|error| match error {
            ArchiveError::Read(error) => source_error(error),
            ArchiveError::Write(error) => self.write_error(&disk_path, error),
            ArchiveError::Stopped => ImportError::Stopped,
            full @ (ArchiveError::Full | ArchiveError::TooManyFiles) => ImportError::Refused {
                path: path.to_owned(),
                why: format!("{full}, which has {}: give it more by --size", Size(disk_bytes)),
            },
            refused @ ArchiveError::Refused { .. } => {
                ImportError::Refused { path: path.to_owned(), why: refused.to_string() }
            }
        })?;
        let read = Read { source: &disk, size_bytes: disk_bytes, padded_bytes: disk_bytes };
        let digest = read.run(None, self.stop, progress).map_err(|error| match error {
            CopyError::Stopped => ImportError::Stopped,
            CopyError::Read(error) | CopyError::Write(error) => self.write_error(&disk_path, error),
        })?;
        Ok((disk_bytes, digest))
    }

    fn write_error(&self, path: &Path, source: io::Error) -> ImportError {
        self.store.write_error(path, source, self.draft.path(), self.disk_bytes)
    }

    fn disk_full(&self) -> ImportError {
        self.store.disk_full(self.draft.path(), self.disk_bytes)
    }

    fn disk_path(&self) -> PathBuf {
        self.draft.path().join("disk.raw")
    }
}

/// Looks into a disk for what it is to have.
type Find = fn(&Arc<dyn Block>, &Path) -> Result<System, ImportError>;

fn finder(is_data: bool) -> Find {
    if is_data { find_data } else { find_system }
}

/// What can be imported.
enum Kind {
    Disk(Format),
    Archive(Packing),
}

/// What a source is that is all there, and the size of the disk in it, or that becomes of it.
fn what_it_is(request: &ImportRequest) -> Result<(Kind, u64), ImportError> {
    let source = &request.source;
    let path = source.path();
    let source_error = |source| ImportError::Source { path: path.to_owned(), source };
    let refused = |why| ImportError::Refused { path: path.to_owned(), why };
    let head = source.head().map_err(source_error)?;
    if let Some(packing) = packing_of_archive(&head) {
        let disk_bytes = request.disk_bytes.unwrap_or(DISK_BYTES);
        if !(DISK_BYTES_MIN..=SIZE_BYTES_MAX).contains(&disk_bytes) {
            let (min, max) = (Size(DISK_BYTES_MIN), Size(SIZE_BYTES_MAX));
            return Err(refused(format!("its disk is to have {min} to {max}")));
        }
        return Ok((Kind::Archive(packing), disk_bytes.next_multiple_of(DISK_UNIT_BYTES)));
    }
    if source.is_pipe() {
        let why = "what comes from there is no tar archive: write a disk image to a file, and import that";
        return Err(refused(why.to_owned()));
    }
    let format =
        detect(&head[..head.len().min(HEAD_BYTES_MAX)]).map_err(
            |not_imported| match not_imported {
                NotImported::NoDisk { found, advice } => no_disk(path, found, advice),
                NotImported::Refused(why) => refused(why.to_owned()),
            },
        )?;
    if request.disk_bytes.is_some() {
        let why = "a disk image has the size that it has: a size is for archives, of which a disk is made";
        return Err(refused(why.to_owned()));
    }
    let file = source.file.try_clone().map_err(source_error)?;
    let container = inspect(format, &RawFile::of_size(file, source.size_bytes));
    match container {
        Ok(container) => Ok((Kind::Disk(format), container.size_bytes)),
        Err(Unfit::Read(error)) => Err(source_error(error)),
        Err(unfit) => Err(refused(unfit.to_string())),
    }
}

/// Tells how much was read.
struct Counted<'a, R> {
    content: R,
    done_bytes: u64,
    /// 0: nobody knows.
    total_bytes: u64,
    progress: &'a mut dyn FnMut(Progress),
}

impl<R: io::Read> io::Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read(buffer)?;
        self.done_bytes += n as u64;
        let &mut Self { done_bytes, total_bytes, .. } = self;
        (self.progress)(Progress { step: Step::Copy, done_bytes, total_bytes });
        Ok(n)
    }
}

fn no_disk(path: &Path, found: &str, advice: &'static str) -> ImportError {
    ImportError::NoDisk { path: path.to_owned(), found: found.to_owned(), advice }
}

/// The size of the disk that becomes of a source.
fn padded(bytes: u64, path: &Path) -> Result<u64, ImportError> {
    match bytes.checked_next_multiple_of(SIZE_UNIT_BYTES) {
        Some(0) => Err(no_disk(path, "empty", "")),
        Some(padded) if padded <= SIZE_BYTES_MAX => Ok(padded),
        _ => Err(ImportError::Refused {
            path: path.to_owned(),
            why: format!("it says that it has {bytes} bytes; {SIZE_BYTES_MAX} is the most"),
        }),
    }
}

fn new_disk(path: &Path) -> Result<File, StoreError> {
    File::create_new(path).map_err(io_error("make", path))
}
