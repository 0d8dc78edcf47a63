//! All files of a system that is mounted for reading, as an archive. Nothing is followed, and nothing of it is believed but what the kernel
//! says of it.

use super::tar::{self, Entry, Kind};
use crate::xattrs::xattrs;
use rustix::fs::{OFlags, SeekFrom, major, minor, seek};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek as _, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Folders of which a system makes the content anew each time that it starts.
const EMPTIED: [&str; 6] = ["proc", "sys", "dev", "run", "tmp", "lost+found"];

/// Snapshots of a system are not the system.
const SNAPSHOTS: [&str; 2] = [".snapshots", "timeshift-btrfs"];

/// A file has holes that are worth it from this on.
const HOLES_MIN: u64 = 64 << 10;

/// Parts of a file with holes; of one with more all is sent.
const PARTS_MAX: usize = 16_384;

/// What is read at once.
const READ_BYTES: usize = 128 << 10;

/// What is sent of which file systems.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Where file systems are mounted, by their path in the system without a slash at the beginning; the root's is empty.
    pub(super) mounts: BTreeMap<PathBuf, PathBuf>,
    /// Folders whose content stays away, and files that do, in the same form.
    pub(super) without: Vec<PathBuf>,
}

/// How much was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) n_files: u64,
    pub(super) n_bytes: u64,
}

/// Why not all was sent.
#[derive(Debug)]
pub(super) enum Broken {
    /// A file can't be read.
    Read(PathBuf, io::Error),
    /// Nobody takes it.
    Write(io::Error),
}

/// Writes the archive; `told` hears now and then how much it is.
pub(super) fn write(
    tree: &Tree,
    out: &mut impl Write,
    told: &mut dyn FnMut(Sent),
) -> Result<Sent, Broken> {
    let mut writer = Writer { tree, out, told, sent: Sent::default(), links: HashMap::new() };
    writer.folder(Path::new(""))?;
    writer.out.write_all(&tar::END).map_err(Broken::Write)?;
    Ok(writer.sent)
}

struct Writer<'a, W> {
    tree: &'a Tree,
    out: &'a mut W,
    told: &'a mut dyn FnMut(Sent),
    sent: Sent,
    /// By file system and number: the first name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Writer<'_, W> {
    /// A folder with all that is in it.
    fn folder(&mut self, path: &Path) -> Result<(), Broken> {
        // Not by calls in calls: a folder may be as deep as it likes.
        let mut todo = vec![path.to_owned()];
        while let Some(path) = todo.pop() {
            let place = self.place(&path);
            let of_path = |error| Broken::Read(place.clone(), error);
            let about = fs::symlink_metadata(&place).map_err(of_path)?;
            self.one(&path, &place, &about)?;
            if !about.is_dir() || self.stays_empty(&path) {
                continue;
            }
            let mut names: Vec<OsString> = Vec::new();
            for entry in fs::read_dir(&place).map_err(of_path)? {
                names.push(entry.map_err(of_path)?.file_name());
            }
            // Backwards: the last one is taken first.
            names.sort_unstable_by(|a, b| b.cmp(a));
            todo.extend(names.into_iter().map(|name| path.join(name)));
            todo.retain(|path| !self.is_left_out(path));
        }
        Ok(())
    }

    /// Where a file of the system can be read now.
    fn place(&self, path: &Path) -> PathBuf {
        let found = path.ancestors().find_map(|at| Some((at, self.tree.mounts.get(at)?)));
        match found {
            Some((at, mounted)) => match path.strip_prefix(at) {
                Ok(rest) if !rest.as_os_str().is_empty() => mounted.join(rest),
                _ => mounted.clone(),
            },
            None => path.to_owned(),
        }
    }

    /// Whether the folder is sent, and nothing that is in it.
    fn stays_empty(&self, path: &Path) -> bool {
        let is_snapshots =
            path.file_name().is_some_and(|name| SNAPSHOTS.iter().any(|it| name == *it));
        is_snapshots
            || EMPTIED.iter().any(|it| path == Path::new(it))
            || self.tree.without.iter().any(|it| path == it)
    }

    fn is_left_out(&self, path: &Path) -> bool {
        self.tree.without.iter().any(|it| path == it) && !self.place(path).is_dir()
    }

    /// A file, with its content if it has one; a folder without what is in it.
    fn one(&mut self, path: &Path, place: &Path, about: &Metadata) -> Result<(), Broken> {
        let of_path = |error| Broken::Read(place.to_owned(), error);
        let name = match path.as_os_str().as_bytes() {
            b"" => b".",
            name => name,
        };
        let kind = about.file_type();
        // Whoever listens there makes it anew.
        if kind.is_socket() {
            return Ok(());
        }
        let xattrs = xattrs(place).map_err(of_path)?;
        let entry = |kind| Entry {
            path: name,
            permissions: about.mode(),
            owner: about.uid(),
            group: about.gid(),
            modified: about.mtime(),
            xattrs: &xattrs,
            kind,
        };
        let link;
        let what = if kind.is_dir() {
            Kind::Folder
        } else if kind.is_symlink() {
            link = fs::read_link(place).map_err(of_path)?.into_os_string().into_vec();
            Kind::Link(&link)
        } else if let Some(first) = self.first_name(about, name) {
            link = first;
            let entry = Entry { xattrs: &[], ..entry(Kind::HardLink(&link)) };
            return self.header(&entry);
        } else if kind.is_file() {
            return self.file(place, about, entry);
        } else if kind.is_fifo() {
            Kind::Pipe
        } else {
            let numbers = (major(about.rdev()), minor(about.rdev()));
            match kind.is_block_device() {
                true => Kind::Blocks(numbers.0, numbers.1),
                false => Kind::Characters(numbers.0, numbers.1),
            }
        };
        self.header(&entry(what))
    }

    /// Under which name a file was sent already that has several.
    fn first_name(&mut self, about: &Metadata, name: &[u8]) -> Option<Vec<u8>> {
        if about.nlink() < 2 {
            return None;
        }
        let key = (about.dev(), about.ino());
        match self.links.get(&key) {
            Some(first) => Some(first.clone()),
            None => {
                self.links.insert(key, name.to_vec());
                None
            }
        }
    }

    fn header(&mut self, entry: &Entry<'_>) -> Result<(), Broken> {
        self.sent.n_files += 1;
        tar::write_header(self.out, entry).map_err(Broken::Write)
    }

    fn file<'e>(
        &mut self,
        place: &Path,
        about: &Metadata,
        entry: impl Fn(Kind<'e>) -> Entry<'e>,
    ) -> Result<(), Broken> {
        let of_path = |error| Broken::Read(place.to_owned(), error);
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(place);
        let mut file = opened.map_err(of_path)?;
        let size = about.size();
        let has_holes = about.blocks().saturating_mul(512).saturating_add(HOLES_MIN) < size;
        let parts = match has_holes {
            true => parts(&file, size).map_err(of_path)?,
            false => None,
        };
        let whole = [(0, size)];
        let data: &[(u64, u64)] = parts.as_deref().unwrap_or(&whole);
        match &parts {
            // What it borrows lives as long as this call; the entry's own borrows live longer.
            Some(parts) => {
                let Entry { path, permissions, owner, group, modified, xattrs, .. } =
                    entry(Kind::Folder);
                let kind = Kind::Sparse(parts, size);
                let entry = Entry { path, permissions, owner, group, modified, xattrs, kind };
                self.header(&entry)?;
            }
            None => self.header(&entry(Kind::File(size)))?,
        }
        let mut n_sent = 0;
        for (offset, length) in data {
            file.seek(io::SeekFrom::Start(*offset)).map_err(of_path)?;
            self.copy(&mut file, *length, place)?;
            n_sent += length;
        }
        self.out.write_all(tar::padding(n_sent)).map_err(Broken::Write)
    }

    fn copy(&mut self, file: &mut File, length: u64, place: &Path) -> Result<(), Broken> {
        let mut buffer = vec![0; READ_BYTES.min(length.try_into().unwrap_or(READ_BYTES))];
        let mut left = length;
        while left > 0 {
            let n = left.min(buffer.len() as u64) as usize;
            let of_path = |error| Broken::Read(place.to_owned(), error);
            file.read_exact(&mut buffer[..n]).map_err(of_path)?;
            self.out.write_all(&buffer[..n]).map_err(Broken::Write)?;
            left -= n as u64;
            self.sent.n_bytes += n as u64;
            (self.told)(self.sent);
        }
        Ok(())
    }
}

/// Where a file has data; `None`: everywhere, or that is not known, or in too many parts.
fn parts(file: &File, size: u64) -> io::Result<Option<Vec<(u64, u64)>>> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            // None from here on.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let end = seek(file, SeekFrom::Hole(start))?.min(size);
        // An archive takes whole blocks only, but for the last.
        let is_whole = end == size || (end - start) % tar::BLOCK as u64 == 0;
        if !is_whole || parts.len() == PARTS_MAX || end <= start {
            return Ok(None);
        }
        parts.push((start, end - start));
        at = end;
    }
    Ok(Some(parts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
    use std::process::Command;

    fn folder(purpose: &str) -> PathBuf {
        let name = format!("bootlace-capture-{purpose}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// What GNU tar says when it reads this.
    fn tar(archive: &Path, arguments: &[&str]) -> String {
        let mut command = Command::new("tar");
        let done =
            command.args(arguments).arg("-f").arg(archive).env("TZ", "UTC").output().unwrap();
        let told = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        assert!(done.status.success(), "{told}");
        told
    }

    #[test]
    fn tar_reads_every_kind_of_file_as_it_was() {
        let source = folder("source");
        let put = |path: &str, content: &str| {
            let path = source.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        put("etc/hostname", "golden\n");
        fs::set_permissions(source.join("etc/hostname"), fs::Permissions::from_mode(0o4640))
            .unwrap();
        fs::hard_link(source.join("etc/hostname"), source.join("etc/same")).unwrap();
        symlink("../etc/hostname", source.join("etc/link")).unwrap();
        let long = "long/".repeat(60);
        put(&format!("{long}name"), "deep");
        symlink("x".repeat(150), source.join("far")).unwrap();
        let foreign = OsString::from_vec(b"f\xffle".to_vec());
        fs::write(source.join(&foreign), "not UTF-8").unwrap();
        let _ = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            source.join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        rustix::fs::setxattr(source.join("far"), "user.x", b"1", rustix::fs::XattrFlags::empty())
            .unwrap_err();
        let attributed = source.join("etc/same");
        let flags = rustix::fs::XattrFlags::empty();
        let has_xattrs = rustix::fs::setxattr(&attributed, "user.note", b"a=\n\0b", flags).is_ok();
        let sparse = File::create(source.join("sparse")).unwrap();
        for index in 0..60 {
            sparse.write_all_at(&[7; 4096], index * (1 << 20)).unwrap();
        }
        sparse.set_len(100 << 20).unwrap();
        put("home/anna/file", "hers");
        put("proc/1/status", "gone");
        put("swap.img", "gone");
        put(".snapshots/1/etc/hostname", "gone");

        let mounted = folder("mounted");
        fs::write(mounted.join("vmlinuz"), "kernel").unwrap();
        fs::create_dir(source.join("boot")).unwrap();
        let mounts = BTreeMap::from([
            (PathBuf::new(), source.clone()),
            (PathBuf::from("boot"), mounted.clone()),
        ]);
        let without = vec![PathBuf::from("home"), PathBuf::from("swap.img")];
        let archive = source.with_extension("tar");
        let mut out = io::BufWriter::new(File::create(&archive).unwrap());
        let sent = write(&Tree { mounts, without }, &mut out, &mut |_| ()).unwrap();
        out.flush().unwrap();
        assert!(fs::metadata(&archive).unwrap().len() < 2 << 20, "holes are sent");
        assert!(sent.n_bytes < 1 << 20, "{sent:?}");

        let listed = tar(&archive, &["--list", "--quoting-style=literal"]);
        for gone in ["socket", "swap", "status", "anna", ".snapshots/1"] {
            assert!(!listed.contains(gone), "{gone}: {listed}");
        }
        assert!(listed.contains("home/\n") && listed.contains("proc/\n"), "{listed}");
        let target = folder("target");
        let at = target.to_str().unwrap();
        tar(
            &archive,
            &["--extract", "--xattrs", "--xattrs-include=*", "--preserve-permissions", "-C", at],
        );
        let read = |path: &str| fs::read_to_string(target.join(path)).unwrap();
        assert_eq!(read("etc/hostname"), "golden\n");
        assert_eq!(read(&format!("{long}name")), "deep");
        assert_eq!(fs::read(target.join(&foreign)).unwrap(), b"not UTF-8");
        assert_eq!(read("boot/vmlinuz"), "kernel");
        let about = |path: &str| fs::symlink_metadata(target.join(path)).unwrap();
        assert_eq!(about("etc/hostname").mode() & 0o7777, 0o4640);
        assert_eq!(about("etc/hostname").ino(), about("etc/same").ino());
        assert_eq!(about("etc/hostname").mtime(), fs::metadata(&attributed).unwrap().mtime());
        assert_eq!(fs::read_link(target.join("far")).unwrap().as_os_str().len(), 150);
        assert!(about("pipe").file_type().is_fifo());
        let both = ["sparse"].map(|it| (fs::read(source.join(it)), fs::read(target.join(it))));
        assert!(both.iter().all(|(a, b)| a.as_ref().unwrap() == b.as_ref().unwrap()));
        if has_xattrs {
            let noted = xattrs(&target.join("etc/hostname")).unwrap();
            assert!(noted.contains(&(b"user.note".to_vec(), b"a=\n\0b".to_vec())), "{noted:?}");
        }
        for path in [&source, &mounted, &target] {
            fs::remove_dir_all(path).unwrap();
        }
        fs::remove_file(&archive).unwrap();
    }

    #[test]
    fn what_can_not_be_read_is_named() {
        let source = folder("unreadable");
        let mounts = BTreeMap::from([(PathBuf::new(), source.join("missing"))]);
        let tree = Tree { mounts, without: Vec::new() };
        let Err(Broken::Read(path, _)) = write(&tree, &mut io::sink(), &mut |_| ()) else {
            panic!()
        };
        assert_eq!(path, source.join("missing"));
        fs::remove_dir(&source).unwrap();
    }
}
