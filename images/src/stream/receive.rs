//! Receiving a version.

use super::StreamAbout;
use super::error::StreamError;
use super::parse::{Parsed, Records};
use super::sink::{Base, Sink, Target};
use crate::block::Block;
use crate::error::{StoreError, io_error};
use crate::folder::is_full;
use crate::kernel;
use crate::logical::Logical;
use crate::progress::{Progress, Step};
use crate::raw::RawFile;
use crate::stop::Stop;
use crate::store::{Draft, Partial, Published, Store};
use crate::volumes::{Content, Volume, find_volumes};
use model::{ImageName, ImageVersion, Space, VersionState};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How to take what comes.
#[derive(Clone, Debug)]
pub struct ReceiveRequest {
    /// The image of which it becomes the next version; `None`: the one that it was.
    pub name: Option<ImageName>,
    /// For whom it is.
    pub state: VersionState,
    /// Whether what has come is kept when it breaks off, for a stream that goes on there.
    pub keeps_partial: bool,
}

/// What became of a stream.
#[derive(Clone, Debug)]
pub enum Received {
    /// It is this version.
    New(ImageVersion),
    /// Nothing: this version, which was here, has the same content.
    Known(ImageVersion),
    /// These files of a version that was damaged, or gone, are there again.
    PutBack(ImageVersion, Vec<&'static str>),
}

impl Store {
    /// The version of an image that has this content, and is not damaged.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn known(
        &self,
        image: &ImageName,
        digest: &str,
    ) -> Result<Option<ImageVersion>, StoreError> {
        for number in self.numbers(image)?.into_iter().rev() {
            let Ok(version) = self.version(image, number) else { continue };
            if version.digest == digest && self.trouble(&version).is_none() {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// Makes what a stream holds the next version of an image.
    ///
    /// Nothing stays in the store if it fails, but for what [`ReceiveRequest::keeps_partial`] keeps. `on_begin` is told of what it is before
    /// its disk is read.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub fn receive(
        &self,
        input: impl Read,
        request: &ReceiveRequest,
        stop: &Stop,
        on_begin: &mut dyn FnMut(&StreamAbout),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Received, StreamError> {
        let mut parsed = Parsed::open(input)?;
        on_begin(&parsed.header.about());
        if let Some(name) = &request.name {
            parsed.header.description.version.image = name.clone();
        }
        let version = parsed.header.description.version.clone();
        if let Some(known) = self.known(&version.image, &version.digest)? {
            return Ok(Received::Known(known));
        }
        if let Some(why) = self.other_kind(&version.image, version.is_data())? {
            return Err(StreamError::Flawed(why));
        }
        let place = Place::new(self, &version.digest, request.keeps_partial)?;
        if let Err(error) = self.receive_in(&mut parsed, &place, stop, progress) {
            place.give_up(&error)?;
            return Err(error);
        }
        let draft = place.into_draft(self)?;
        check_root(&draft.path().join("disk.raw"), &version)?;
        self.publish_received(draft, parsed.header.description, request.state, stop, progress)
    }

    /// All but its name.
    fn receive_in(
        &self,
        parsed: &mut Parsed<impl Read>,
        place: &Place,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), StreamError> {
        let version = parsed.header.description.version.clone();
        let base = self.base_of(parsed, &version.image)?;
        let target = place.target(self)?;
        let before = base.as_ref().and_then(|base| Some(base.path.parent()?.to_owned()));
        let mut sink = Sink::new(Some(target), base, version.size_bytes, stop, progress);
        let done_bytes = sink.go_on()?;
        let at_bytes = parsed.header.at_bytes;
        if at_bytes > done_bytes {
            return Err(StreamError::Gap { at_bytes, done_bytes });
        }
        let needed_bytes = parsed.header.data_bytes.saturating_sub(place.taken_bytes());
        self.check_room_for(needed_bytes.min(version.size_bytes))?;
        let read_before = |name: &str| {
            let path = before.as_ref().map(|folder| folder.join(name));
            let read = path.map(|path| fs::read(&path).map_err(io_error("read", &path)));
            Ok(read.transpose()?)
        };
        parsed.files(read_before, |name, bytes| {
            if name == "vmlinuz"
                && !(version.is_data() && bytes.is_empty())
                && let Some(flaw) = kernel::flaw(bytes, bytes.len() as u64)
            {
                return Err(StreamError::Malformed(format!("its kernel can't be started: {flaw}")));
            }
            place.write(self, name, bytes)
        })?;
        let mut sink = From { sink, done_bytes, position: at_bytes };
        parsed.records(&mut sink)?;
        let found = sink.sink.finish();
        match found == version.digest {
            true => Ok(()),
            false => Err(StreamError::Malformed(format!(
                "the disk that came out of it has the digest {found}, and {} was sent",
                version.digest
            ))),
        }
    }

    fn base_of(
        &self,
        parsed: &Parsed<impl Read>,
        image: &ImageName,
    ) -> Result<Option<Base>, StreamError> {
        let Some(from) = &parsed.header.from else { return Ok(None) };
        let missing = || StreamError::NoBase {
            base: format!("{}/v{}", parsed.header.about().image, from.version),
            digest: from.digest.clone(),
        };
        let found = match self.known(image, &from.digest)? {
            Some(found) => Some(found),
            // It may have another name here.
            None => self
                .list()?
                .into_iter()
                .find(|it| it.digest == from.digest && self.trouble(it).is_none()),
        };
        let found = found.filter(|found| found.size_bytes == from.size_bytes);
        let found = found.ok_or_else(missing)?;
        let path = self.disk_path(&found.image, found.version);
        let file = File::open(&path).map_err(io_error("open", &path))?;
        Ok(Some(Base { file, size_bytes: found.size_bytes, path }))
    }

    fn check_room_for(&self, needed_bytes: u64) -> Result<(), StreamError> {
        match self.lacks_room(needed_bytes)? {
            Some(Space { free_bytes, reserve_bytes, .. }) => Err(StreamError::NoRoom {
                path: self.dir().to_owned(),
                needed_bytes,
                free_bytes,
                reserve_bytes,
            }),
            None => Ok(()),
        }
    }

    fn publish_received(
        &self,
        draft: Draft,
        description: crate::store::Description,
        state: VersionState,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Received, StreamError> {
        let version = &description.version;
        let size_bytes = version.size_bytes;
        let path = draft.path().join("vmlinuz");
        let vmlinuz = fs::read(&path).map_err(io_error("read", &path))?;
        let same = self.find_same(version, &vmlinuz, stop, progress)?;
        progress(Progress { step: Step::Sync, done_bytes: 0, total_bytes: size_bytes });
        let published = self.publish(draft, description, state, same);
        let published = published.map_err(|error| match error {
            StoreError::Io { source, .. } if is_full(&source) => {
                StreamError::DiskFull { path: self.dir().to_owned() }
            }
            other => other.into(),
        })?;
        progress(Progress { step: Step::Sync, done_bytes: size_bytes, total_bytes: size_bytes });
        Ok(match published {
            Published::New(version) => Received::New(version),
            Published::Same(version) => Received::Known(version),
            Published::PutBack(version, files) => Received::PutBack(version, files),
        })
    }
}

/// Whether a disk has the root that its description says: the digest says only that it is the disk that was sent.
fn check_root(path: &Path, version: &ImageVersion) -> Result<(), StreamError> {
    let disk: Arc<dyn Block> = Arc::new(RawFile::open(path).map_err(io_error("open", path))?);
    let volumes = find_volumes(&disk).map_err(io_error("read", path))?;
    let is_root = |volume: &Volume| {
        let logical = volume.logical.as_ref().map(Logical::name);
        (volume.partition, logical) == (version.partition, version.logical_volume.as_ref())
            && volume.content == Content::Root(version.file_system)
    };
    match volumes.iter().any(is_root) {
        true => Ok(()),
        false => Err(StreamError::Malformed("its disk has no root where it says".to_owned())),
    }
}

/// What a stream says that it is of; no more is read.
///
/// # Errors
/// It is none.
pub fn about_stream(input: impl Read) -> Result<StreamAbout, StreamError> {
    Ok(Parsed::open(input)?.header.about())
}

/// Reads a whole stream, and writes nothing: whether it is one, and, if it holds a whole disk, whether that is the one that it says.
///
/// # Errors
/// What is wrong with it.
pub fn check_stream(
    input: impl Read,
    stop: &Stop,
    progress: &mut dyn FnMut(Progress),
) -> Result<StreamAbout, StreamError> {
    let mut parsed = Parsed::open(input)?;
    let (about, size_bytes) = (parsed.header.about(), parsed.header.description.version.size_bytes);
    parsed.files(|_| Ok(None), |_, _| Ok(()))?;
    if about.from.is_some() || about.at_bytes > 0 {
        parsed.records(&mut Nowhere { stop })?;
        return Ok(about);
    }
    let mut sink = Sink::new(None, None, size_bytes, stop, progress);
    parsed.records(&mut sink)?;
    match sink.finish() == about.digest {
        true => Ok(about),
        false => Err(StreamError::Malformed("its disk has another digest".to_owned())),
    }
}

/// Of which only the form is looked at.
struct Nowhere<'a> {
    stop: &'a Stop,
}

impl Records for Nowhere<'_> {
    fn keep(&mut self, _until: u64) -> Result<(), StreamError> {
        match self.stop.is_stopping() {
            true => Err(StreamError::Stopped),
            false => Ok(()),
        }
    }

    fn zero(&mut self, _length: u64) -> Result<(), StreamError> {
        Ok(())
    }

    fn data(&mut self, _bytes: &[u8]) -> Result<(), StreamError> {
        Ok(())
    }
}

/// A disk of which the first part is there: what a stream says of that is passed over.
struct From<'a> {
    sink: Sink<'a>,
    done_bytes: u64,
    /// Where the stream is.
    position: u64,
}

impl Records for From<'_> {
    fn keep(&mut self, until: u64) -> Result<(), StreamError> {
        self.position = until;
        self.sink.keep(until)
    }

    fn zero(&mut self, length: u64) -> Result<(), StreamError> {
        let start = self.position.max(self.done_bytes);
        self.position += length;
        self.sink.zero(self.position.saturating_sub(start))
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        let passed = self.done_bytes.saturating_sub(self.position).min(bytes.len() as u64);
        self.position += bytes.len() as u64;
        self.sink.data(&bytes[passed as usize..])
    }
}

/// Where a version is made.
enum Place {
    /// It goes with whatever ends it.
    Draft(Draft),
    /// It stays.
    Partial(Partial),
}

impl Place {
    fn new(store: &Store, digest: &str, keeps_partial: bool) -> Result<Self, StreamError> {
        match keeps_partial {
            false => Ok(Self::Draft(store.draft()?)),
            true => Ok(Self::Partial(store.partial(digest)?.ok_or(StreamError::Busy)?)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Draft(draft) => draft.path(),
            Self::Partial(partial) => partial.path(),
        }
    }

    fn target(&self, store: &Store) -> Result<Target, StreamError> {
        let (opened, path) = match self {
            Self::Draft(draft) => {
                let path = draft.path().join("disk.raw");
                (File::create_new(&path), path)
            }
            Self::Partial(partial) => (partial.open_disk(), partial.disk_path()),
        };
        let file = opened.map_err(io_error("make", &path))?;
        Ok(Target { file, path, store: store.dir().to_owned() })
    }

    fn taken_bytes(&self) -> u64 {
        fs::metadata(self.path().join("disk.raw")).map_or(0, |disk| disk.blocks() * 512)
    }

    /// Writes a file that comes beside the disk, whoever has done so before.
    fn write(&self, store: &Store, name: &str, bytes: &[u8]) -> Result<(), StreamError> {
        let path = self.path().join(name);
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            });
        written.map_err(|error| match is_full(&error) {
            true => StreamError::DiskFull { path: store.dir().to_owned() },
            false => io_error("write", &path)(error).into(),
        })
    }

    /// What has come so far stays only if another stream may go on there.
    fn give_up(self, why: &StreamError) -> Result<(), StreamError> {
        let Self::Partial(partial) = self else { return Ok(()) };
        let has_any = fs::metadata(partial.disk_path()).is_ok_and(|disk| disk.len() > 0);
        match has_any && why.may_go_on() {
            true => Ok(()),
            false => Ok(partial.remove()?),
        }
    }

    /// All is there.
    fn into_draft(self, store: &Store) -> Result<Draft, StreamError> {
        let partial = match self {
            Self::Draft(draft) => return Ok(draft),
            Self::Partial(partial) => partial,
        };
        let draft = store.draft()?;
        for name in names_of(partial.path())? {
            let (from, to) = (partial.path().join(&name), draft.path().join(&name));
            fs::rename(&from, &to).map_err(io_error("move", &from))?;
        }
        partial.remove()?;
        Ok(draft)
    }
}

fn names_of(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let listed = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(PathBuf::from(entry?.file_name()))).collect());
    listed.map_err(io_error("list", folder))
}
