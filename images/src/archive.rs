//! A tar archive of a system, which becomes a disk.

use crate::new_root::{Meta, Misplaced, NewRoot, PutError, Special, Xattr};
use crate::stop::Stop;
use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::io::{self, BufReader, Read};
use tar::{Archive, Entry, EntryType};

/// What all files may have together, holes included: a sparse archive of no size could keep a server at work for days.
const LOGICAL_BYTES_MAX: u64 = 4 << 40;
/// Remarks that are kept, beside how many more there were.
const REMARKS_MAX: usize = 20;
/// The name of a tar archive's kind, and where it stands.
const MAGIC: (usize, &[u8]) = (257, b"ustar");
/// What is read of a packed archive at once.
const PACKED_BYTES: usize = 256 << 10;
/// What is unpacked to see whether it is one.
const HEAD_BYTES: u64 = 512;

/// By what an archive is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// It is not.
    None,
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
}

impl Packing {
    /// By the first bytes of a file.
    pub(crate) fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// What is inside.
    fn unpacked<'r>(self, packed: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
        let packed = BufReader::with_capacity(PACKED_BYTES, packed);
        Ok(match self {
            Self::None => Box::new(packed),
            Self::Gzip => Box::new(MultiGzDecoder::new(packed)),
            Self::Xz => Box::new(XzDecoder::new_multi_decoder(packed)),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(packed)?),
        })
    }
}

/// How a file is packed that begins so, if a tar archive of files is in it. An OVA is one, too, and is none of files.
pub(crate) fn packing_of_archive(head: &[u8]) -> Option<Packing> {
    let packing = Packing::of(head);
    let mut start = Vec::new();
    // The rest of the packed file is missing.
    let _ = packing.unpacked(head).and_then(|it| it.take(HEAD_BYTES).read_to_end(&mut start));
    let name = start.get(..100)?;
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    let is_archive = start.get(MAGIC.0..).is_some_and(|rest| rest.starts_with(MAGIC.1));
    (is_archive && !name.to_ascii_lowercase().ends_with(b".ovf")).then_some(packing)
}

/// What is read for one entry beside its content: headers with names and attributes, which are kept in memory.
const HEADERS_BYTES_MAX: u64 = 16 << 20;

/// Of a path or a name, what people are shown.
const SHOWN_BYTES_MAX: usize = 200;

/// Longest target of a symbolic link (`PATH_MAX`, path_resolution(7)).
const TARGET_BYTES_MAX: usize = 4095;

/// Why an archive did not become a disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("the archive can't be read")]
    Read(#[source] io::Error),
    #[error("it is no archive of a system: {path}: {why}")]
    Refused { path: String, why: String },
    #[error("can't write the image")]
    Write(#[source] io::Error),
    #[error("its files do not fit into the disk")]
    Full,
    #[error("it has more files than the disk has room for")]
    TooManyFiles,
    #[error("it was told to stop")]
    Stopped,
}

impl From<PutError> for ArchiveError {
    fn from(error: PutError) -> Self {
        told(error, "")
    }
}

/// What was left out of an archive, and why, for people.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    told: Vec<String>,
    n_more: usize,
}

impl Remarks {
    fn add(&mut self, remark: impl fmt::Display) {
        if self.told.len() < REMARKS_MAX {
            self.told.push(remark.to_string());
        } else {
            self.n_more += 1;
        }
    }

    pub(crate) fn finish(mut self) -> Vec<String> {
        if self.n_more > 0 {
            self.told.push(format!("and {} more that were left out", self.n_more));
        }
        self.told
    }
}

/// Puts all files of an archive into a new root. `content` is read to its end.
pub(crate) fn fill(
    root: &mut NewRoot<'_>,
    content: impl Read,
    packing: Packing,
    stop: &Stop,
) -> Result<Remarks, ArchiveError> {
    let content = packing.unpacked(content).map_err(ArchiveError::Read)?;
    let left_bytes = Cell::new(HEADERS_BYTES_MAX);
    let mut archive = Archive::new(Ending { content, is_over: false, left_bytes: &left_bytes });
    let remarks = Remarks::default();
    let mut filling = Filling { root, stop, remarks, logical_bytes: 0, left_bytes: &left_bytes };
    let entries = archive.entries().map_err(ArchiveError::Read)?;
    for entry in entries {
        if stop.is_stopping() {
            return Err(ArchiveError::Stopped);
        }
        filling.put(entry.map_err(ArchiveError::Read)?)?;
        left_bytes.set(HEADERS_BYTES_MAX);
    }
    left_bytes.set(u64::MAX);
    let remarks = filling.remarks;
    let mut rest = archive.into_inner();
    if rest.is_over {
        let why = "it ends without the mark of its end: what wrote it was cut off";
        return Err(ArchiveError::Read(io::Error::new(io::ErrorKind::UnexpectedEof, why)));
    }
    // What follows the end of an archive is read, too: who writes into our pipe is not to be cut off.
    io::copy(&mut rest, &mut io::sink()).map_err(ArchiveError::Read)?;
    Ok(remarks)
}

/// Content of which is known whether it is over, and of which no more is read at once than is wanted.
struct Ending<'a, R> {
    content: R,
    is_over: bool,
    left_bytes: &'a Cell<u64>,
}

impl<R: Read> Read for Ending<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read(buffer)?;
        let left = self.left_bytes.get().checked_sub(n as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "a name or the attributes of a file have more than 16 MiB",
            )
        })?;
        self.left_bytes.set(left);
        self.is_over |= n == 0 && !buffer.is_empty();
        Ok(n)
    }
}

struct Filling<'a, 'r> {
    root: &'a mut NewRoot<'r>,
    stop: &'a Stop,
    remarks: Remarks,
    logical_bytes: u64,
    /// What may be read until the next entry.
    left_bytes: &'a Cell<u64>,
}

impl Filling<'_, '_> {
    fn put<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), ArchiveError> {
        let kind = entry.header().entry_type();
        let path = entry.path_bytes().into_owned();
        let shown = shown(&path);
        if is_lost_and_found(&path) {
            if kind != EntryType::Directory {
                self.remarks.add(format!("{shown}: it is what a repair has left"));
            }
            return Ok(());
        }
        let meta = self.meta(&mut entry, &shown)?;
        let put = match kind {
            EntryType::Directory => self.root.folder(&path, &meta),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                // Of old archives; a folder's name ends so.
                if path.ends_with(b"/") {
                    self.root.folder(&path, &meta)
                } else {
                    return self.file(&path, &shown, &meta, entry);
                }
            }
            EntryType::Symlink | EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or(Cow::Borrowed(b""));
                if target.is_empty() || target.contains(&0) {
                    return Err(refused(&shown, "it is a link to nothing"));
                }
                if target.len() > TARGET_BYTES_MAX {
                    return Err(refused(&shown, "it is a link to a longer path than Linux has"));
                }
                if kind == EntryType::Link {
                    self.root.hard_link(&path, &target)
                } else {
                    self.root.symlink(&path, &meta, &target)
                }
            }
            EntryType::Fifo => self.root.special(&path, &meta, Special::Pipe),
            EntryType::Char | EntryType::Block => {
                let Some(device) = device(&entry, kind, &path) else {
                    self.remarks
                        .add(format!("{shown}: it is a device, which machines make themselves"));
                    return Ok(());
                };
                self.root.special(&path, &meta, device)
            }
            EntryType::XGlobalHeader => return Ok(()),
            other => {
                let kind = char::from(other.as_byte()).escape_debug().to_string();
                self.remarks
                    .add(format!("{shown}: it is of a kind that is not known (\"{kind}\")"));
                return Ok(());
            }
        };
        put.map_err(|error| told(error, &shown))
    }

    fn file<R: Read>(
        &mut self,
        path: &[u8],
        shown: &str,
        meta: &Meta,
        entry: Entry<'_, R>,
    ) -> Result<(), ArchiveError> {
        let size_bytes = entry.size();
        self.logical_bytes = self.logical_bytes.saturating_add(size_bytes);
        if self.logical_bytes > LOGICAL_BYTES_MAX {
            return Err(refused(shown, "with it all files have more than 4 TiB, holes included"));
        }
        self.left_bytes.set(u64::MAX);
        let mut content = Stoppable { content: entry, stop: self.stop };
        let put = self.root.file(path, meta, &mut content).map_err(|error| told(error, shown))?;
        if put != size_bytes {
            let why = format!("it ends after {put} of {size_bytes} bytes");
            return Err(ArchiveError::Read(io::Error::new(io::ErrorKind::UnexpectedEof, why)));
        }
        Ok(())
    }

    fn meta<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        shown: &str,
    ) -> Result<Meta, ArchiveError> {
        let header = entry.header();
        let number = |it: io::Result<u64>| {
            let number = it.ok().and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| refused(shown, "its owner or group is no number of Linux"))
        };
        let mut meta = Meta {
            permissions: (header.mode().map_err(ArchiveError::Read)? & 0o7777) as u16,
            owner: number(header.uid())?,
            group: number(header.gid())?,
            modified_unix: header.mtime().map_or(0, |seconds| seconds.try_into().unwrap_or(0)),
            xattrs: Vec::new(),
        };
        let Some(extensions) = entry.pax_extensions().map_err(ArchiveError::Read)? else {
            return Ok(meta);
        };
        let (mut named, mut is_lost) = (Vec::new(), false);
        for extension in extensions {
            let extension = extension.map_err(ArchiveError::Read)?;
            let (key, value) = (extension.key_bytes(), extension.value_bytes());
            if key.starts_with(b"GNU.sparse.") {
                let why = "it is sparse in a way that is not read: make the archive by `tar --sparse --format=gnu`, or without \
                           --sparse";
                return Err(refused(shown, why));
            }
            if key == b"uid" || key == b"gid" {
                let number = std::str::from_utf8(value).ok().and_then(|it| it.parse().ok());
                let number: u32 = number
                    .ok_or_else(|| refused(shown, "its owner or group is no number of Linux"))?;
                *if key == b"uid" { &mut meta.owner } else { &mut meta.group } = number;
            }
            if key == b"mtime" {
                let seconds = value.split(|&byte| byte == b'.').next().unwrap_or_default();
                let seconds = std::str::from_utf8(seconds).ok().and_then(|it| it.parse().ok());
                meta.modified_unix = seconds.unwrap_or(meta.modified_unix);
            }
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                named.push((name.to_vec(), value.to_vec()));
            } else if key == b"RHT.security.selinux" {
                named.push((b"security.selinux".to_vec(), value.to_vec()));
            } else if [&b"SCHILY.acl."[..], b"LIBARCHIVE.xattr."]
                .iter()
                .any(|it| key.starts_with(it))
            {
                is_lost = true;
            }
        }
        for (name, value) in named {
            match Xattr::new(&name, &value) {
                Some(xattr) => meta.xattrs.push(xattr),
                None => self.remarks.add(format!(
                    "{shown}: its attribute {} is not kept by ext4",
                    name[..name.len().min(SHOWN_BYTES_MAX)].escape_ascii()
                )),
            }
        }
        meta.xattrs.sort_unstable();
        meta.xattrs.dedup_by(|a, b| a.is_same_name(b));
        let all = std::mem::take(&mut meta.xattrs);
        for xattr in all {
            meta.xattrs.push(xattr);
            if !Xattr::fit(&meta.xattrs) {
                meta.xattrs.pop();
                let told = "some of its attributes: it has more than a file of ext4 may have";
                self.remarks.add(format!("{shown}: {told}"));
                break;
            }
        }
        if is_lost {
            self.remarks.add(format!(
                "{shown}: access lists or attributes in a form that is not read; tar --xattrs --xattrs-include='*' without --acls writes \
                 one that is"
            ));
        }
        Ok(meta)
    }
}

/// Whether it is what `e2fsck` has found, or its folder: a new root has an empty one.
fn is_lost_and_found(path: &[u8]) -> bool {
    let mut parts = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.next() == Some(b"lost+found")
}

/// Devices that a system may need before it has its own `/dev`; all others are left out.
fn device<R: Read>(entry: &Entry<'_, R>, kind: EntryType, path: &[u8]) -> Option<Special> {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    let name = path.strip_prefix(b"/").unwrap_or(path).strip_prefix(b"dev/")?;
    let known: [(&[u8], u32, u32); 8] = [
        (b"null", 1, 3),
        (b"zero", 1, 5),
        (b"full", 1, 7),
        (b"random", 1, 8),
        (b"urandom", 1, 9),
        (b"tty", 5, 0),
        (b"console", 5, 1),
        (b"ptmx", 5, 2),
    ];
    let header = entry.header();
    let numbers = (header.device_major().ok()??, header.device_minor().ok()??);
    let is_known = known.contains(&(name, numbers.0, numbers.1));
    (kind == EntryType::Char && is_known)
        .then_some(Special::CharacterDevice { major: numbers.0, minor: numbers.1 })
}

fn told(error: PutError, shown: &str) -> ArchiveError {
    match error {
        // What was told to stop is known by whoever has told it.
        PutError::Read(error) => ArchiveError::Read(error),
        PutError::Write(error) => ArchiveError::Write(error),
        PutError::Full => ArchiveError::Full,
        PutError::TooManyFiles => ArchiveError::TooManyFiles,
        PutError::Misplaced(misplaced) => misplaced_at(misplaced, shown),
    }
}

fn misplaced_at(misplaced: Misplaced, shown: &str) -> ArchiveError {
    refused(shown, &misplaced.to_string())
}

fn refused(shown: &str, why: &str) -> ArchiveError {
    ArchiveError::Refused { path: shown.to_owned(), why: why.to_owned() }
}

/// A path as people may see it.
fn shown(path: &[u8]) -> String {
    let (start, dots) = match path.get(..SHOWN_BYTES_MAX) {
        Some(start) if path.len() > SHOWN_BYTES_MAX => (start, "…"),
        _ => (path, ""),
    };
    format!("{}{dots}", String::from_utf8_lossy(start).escape_debug())
}

/// Content that ends with an error when all is told to stop.
struct Stoppable<'a, R> {
    content: R,
    stop: &'a Stop,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_stopping() {
            return Err(io::Error::other("stopped"));
        }
        self.content.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::new_root::make;
    use proptest::prelude::*;
    use tempfile::NamedTempFile;

    /// Folders, files, links of both kinds, long names, attributes and a sparse file, in less than 20 KiB.
    fn archive() -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_uid(5);
        header.set_gid(6);
        header.set_mtime(7);
        header.set_size(0);
        header.set_entry_type(EntryType::Directory);
        archive.append_data(&mut header, "etc/", &b""[..]).unwrap();
        header.set_entry_type(EntryType::Regular);
        header.set_size(700);
        archive.append_data(&mut header, "etc/file", &[7; 700][..]).unwrap();
        let long = format!("etc/{}", "long/".repeat(40));
        archive.append_data(&mut header, format!("{long}x"), &[8; 700][..]).unwrap();
        header.set_size(0);
        header.set_entry_type(EntryType::Symlink);
        archive.append_link(&mut header, "etc/link", "file").unwrap();
        header.set_entry_type(EntryType::Link);
        archive.append_link(&mut header, "etc/same", "etc/file").unwrap();
        let extensions = [("SCHILY.xattr.user.x", &b"1"[..]), ("uid", b"70000"), ("mtime", b"9.5")];
        archive.append_pax_extensions(extensions).unwrap();
        header.set_entry_type(EntryType::Regular);
        archive.append_data(&mut header, "etc/attributed", &b""[..]).unwrap();
        archive.into_inner().unwrap()
    }

    fn filled(root: &NamedTempFile, bytes: &[u8]) -> Result<(), ArchiveError> {
        let mut root = NewRoot::open(root.as_file()).unwrap();
        fill(&mut root, bytes, Packing::None, &Stop::default()).map(drop)
    }

    fn empty() -> NamedTempFile {
        let file = NamedTempFile::new().unwrap();
        make(file.path(), 64 << 20, "root").unwrap();
        file
    }

    #[test]
    fn no_prefix_of_an_archive_is_one_and_none_panics() {
        let (root, archive) = (empty(), archive());
        filled(&root, &archive).unwrap();
        let end = archive.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(512);
        for length in 0..=end {
            assert!(filled(&root, &archive[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn headers_that_never_end_are_not_read_into_memory() {
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            let mut header = tar::Header::new_gnu();
            header.set_path("long").unwrap();
            header.set_entry_type(kind);
            header.set_size(1 << 40);
            header.set_mode(0);
            header.set_cksum();
            let content = header.as_bytes().chain(io::repeat(b'x'));
            let root = empty();
            let mut root = NewRoot::open(root.as_file()).unwrap();
            let filled = fill(&mut root, content, Packing::None, &Stop::default());
            assert!(
                matches!(&filled, Err(ArchiveError::Read(error)) if error.to_string().contains("16 MiB")),
                "{kind:?}: {filled:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_archive_panics(
            changes in proptest::collection::vec((0..8000_usize, any::<u8>()), 1..20),
        ) {
            let mut archive = archive();
            for (at, byte) in changes {
                let at = at % archive.len();
                archive[at] = byte;
                // A header whose sum is wrong is read by nobody.
                let header = at / 512 * 512;
                let block = &mut archive[header..header + 512];
                if block[257..262] == *b"ustar" {
                    block[148..156].fill(b' ');
                    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
                }
            }
            let _ = filled(&empty(), &archive);
        }
    }
}
