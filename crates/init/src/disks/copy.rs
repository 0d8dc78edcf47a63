//! A folder with all that is in it, made again on another disk.

use crate::xattrs::xattrs;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, SeekFrom, StatxFlags, Timespec, Timestamps, XattrFlags,
    lsetxattr, mknodat, seek, statx, utimensat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
    PermissionsExt as _, lchown, symlink,
};
use std::path::{Path, PathBuf};

/// What is read at once.
const READ_BYTES: usize = 256 << 10;

/// What a file or folder takes at least, and by what its size is rounded.
const BLOCK_BYTES: u64 = 4096;

/// How much there is to be copied, or was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) n_files: u64,
    /// On the disk.
    pub(super) n_bytes: u64,
}

/// Why not all was copied.
#[derive(Debug)]
pub(super) enum Broken {
    /// A file of the source can't be read.
    Read(PathBuf, io::Error),
    /// What is made of it can't be written.
    Write(PathBuf, io::Error),
}

/// What a folder and all that is in it will take.
pub(super) fn measure(source: &Path) -> Result<Amount, Broken> {
    let mut amount = Amount::default();
    let mut seen = HashMap::new();
    walk(source, &mut |step| {
        let Step::Into(_, _, about) = step else { return Ok(()) };
        if first_name(&mut seen, about, Path::new("")).is_none() {
            amount.n_files += 1;
            amount.n_bytes += bytes_of(about);
        }
        Ok(())
    })?;
    Ok(amount)
}

/// Makes `target`, and in it all that is in `source`: kinds, owners, modes, times, extended attributes, names that are one
/// file, holes. Sockets are left out, and what is mounted in it. `told` hears now and then how much it is.
pub(super) fn copy(
    source: &Path,
    target: &Path,
    told: &mut dyn FnMut(Amount),
) -> Result<(), Broken> {
    let mut done = Amount::default();
    let mut seen = HashMap::new();
    walk(source, &mut |step| {
        let write = |path: &Path| {
            let path = path.to_owned();
            move |error| Broken::Write(path, error)
        };
        match step {
            Step::Into(inside, place, about) => {
                let here =
                    if inside == Path::new("") { target.into() } else { target.join(inside) };
                if let Some(first) = first_name(&mut seen, about, &here) {
                    return fs::hard_link(first, &here).map_err(write(&here));
                }
                make(place, about, &here)?;
                if !about.is_dir() && !about.file_type().is_socket() {
                    dress(place, about, &here)?;
                }
                done.n_files += 1;
                done.n_bytes += bytes_of(about);
                told(done);
                Ok(())
            }
            // Behind all that is made in it, which changes its time and may be refused by its mode.
            Step::OutOf(inside, place, about) => {
                let here =
                    if inside == Path::new("") { target.into() } else { target.join(inside) };
                dress(place, about, &here)
            }
        }
    })
}

/// A step of a walk: with the path in the source, empty for itself, and where that is.
enum Step<'a> {
    Into(&'a Path, &'a Path, &'a Metadata),
    OutOf(&'a Path, &'a Path, &'a Metadata),
}

/// Into everything, and out of folders when all in them is done.
fn walk(
    source: &Path,
    visit: &mut dyn FnMut(Step<'_>) -> Result<(), Broken>,
) -> Result<(), Broken> {
    enum Todo {
        Into(PathBuf),
        OutOf(PathBuf, Metadata),
    }
    let mount = mount_of(source);
    // Not by calls in calls: a folder may be as deep as it likes.
    let mut todo = vec![Todo::Into(PathBuf::new())];
    while let Some(next) = todo.pop() {
        let place_of = |inside: &Path| match inside == Path::new("") {
            true => source.to_owned(),
            false => source.join(inside),
        };
        let inside = match next {
            Todo::OutOf(inside, about) => {
                visit(Step::OutOf(&inside, &place_of(&inside), &about))?;
                continue;
            }
            Todo::Into(inside) => inside,
        };
        let place = place_of(&inside);
        let of_path = |error| Broken::Read(place.clone(), error);
        let about = fs::symlink_metadata(&place).map_err(of_path)?;
        visit(Step::Into(&inside, &place, &about))?;
        if !about.is_dir() {
            continue;
        }
        let mut names: Vec<OsString> = Vec::new();
        if mount_of(&place) == mount {
            for entry in fs::read_dir(&place).map_err(of_path)? {
                names.push(entry.map_err(of_path)?.file_name());
            }
        }
        // Backwards: the last one is taken first.
        names.sort_unstable_by(|a, b| b.cmp(a));
        let into: Vec<Todo> = names.iter().map(|name| Todo::Into(inside.join(name))).collect();
        todo.push(Todo::OutOf(inside, about));
        todo.extend(into);
    }
    Ok(())
}

/// Number of the mount that a folder is in; `None` before Linux 5.8. The device does not say it: those of an overlay differ by file.
fn mount_of(folder: &Path) -> Option<u64> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = statx(CWD, folder, flags, StatxFlags::MNT_ID).ok()?;
    let is_told = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
    is_told.then_some(found.stx_mnt_id)
}

/// Under which name a file was met already that has several.
fn first_name(
    seen: &mut HashMap<(u64, u64), PathBuf>,
    about: &Metadata,
    here: &Path,
) -> Option<PathBuf> {
    if about.is_dir() || about.nlink() < 2 {
        return None;
    }
    let key = (about.dev(), about.ino());
    match seen.get(&key) {
        Some(first) => Some(first.clone()),
        None => {
            seen.insert(key, here.to_owned());
            None
        }
    }
}

/// What it takes on a disk, roughly.
fn bytes_of(about: &Metadata) -> u64 {
    let content = match about.is_file() {
        true => about.size().min(about.blocks().saturating_mul(512)),
        false => 0,
    };
    content.next_multiple_of(BLOCK_BYTES).max(if about.is_dir() { BLOCK_BYTES } else { 0 })
}

/// Makes the file, folder or whatever it is, for root alone.
fn make(place: &Path, about: &Metadata, here: &Path) -> Result<(), Broken> {
    let write = |error: io::Error| Broken::Write(here.to_owned(), error);
    let kind = about.file_type();
    if kind.is_dir() {
        return fs::DirBuilder::new().mode(0o700).create(here).map_err(write);
    }
    if kind.is_symlink() {
        let leads = fs::read_link(place).map_err(|error| Broken::Read(place.to_owned(), error))?;
        return symlink(leads, here).map_err(write);
    }
    if kind.is_file() {
        return copy_content(place, about.size(), here);
    }
    let special = match () {
        () if kind.is_fifo() => FileType::Fifo,
        () if kind.is_block_device() => FileType::BlockDevice,
        () if kind.is_char_device() => FileType::CharacterDevice,
        // Whoever listens at a socket makes it anew.
        () => return Ok(()),
    };
    mknodat(CWD, here, special, Mode::RUSR | Mode::WUSR, about.rdev())
        .map_err(|error| write(error.into()))
}

/// The data of a file, and not its holes.
fn copy_content(place: &Path, size: u64, here: &Path) -> Result<(), Broken> {
    let read = |error: io::Error| Broken::Read(place.to_owned(), error);
    let write = |error: io::Error| Broken::Write(here.to_owned(), error);
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let from = OpenOptions::new().read(true).custom_flags(flags).open(place).map_err(read)?;
    let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(here);
    let to = to.map_err(write)?;
    to.set_len(size).map_err(write)?;
    let mut buffer = vec![0; READ_BYTES.min(size.try_into().unwrap_or(READ_BYTES))];
    let mut at = 0;
    while at < size {
        let Some((start, end)) = next_data(&from, at, size).map_err(read)? else { break };
        at = start;
        while at < end {
            let n = (end - at).min(buffer.len() as u64) as usize;
            from.read_exact_at(&mut buffer[..n], at).map_err(read)?;
            to.write_all_at(&buffer[..n], at).map_err(write)?;
            at += n as u64;
        }
    }
    Ok(())
}

/// Where the next data is; `None`: only a hole is left. Not every file system knows: then it is all data.
fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, size))),
        Err(error) => return Err(error.into()),
    };
    let end = seek(file, SeekFrom::Hole(start))?.min(size);
    Ok((start < end).then_some((start, end)))
}

/// Owner, attributes, mode and times, in this order: a new owner takes capabilities and some bits away.
fn dress(place: &Path, about: &Metadata, here: &Path) -> Result<(), Broken> {
    let write = |error: io::Error| Broken::Write(here.to_owned(), error);
    lchown(here, Some(about.uid()), Some(about.gid())).map_err(write)?;
    let attributes = xattrs(place).map_err(|error| Broken::Read(place.to_owned(), error))?;
    for (name, value) in attributes {
        match lsetxattr(here, name.as_slice(), &value, XattrFlags::empty()) {
            // The disk's file system has no such attributes, as of NFS.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(write(error.into())),
        }
    }
    if !about.is_symlink() {
        let mode = Permissions::from_mode(about.mode() & 0o7777);
        fs::set_permissions(here, mode).map_err(write)?;
    }
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(about.atime(), about.atime_nsec()),
        last_modification: time(about.mtime(), about.mtime_nsec()),
    };
    utimensat(CWD, here, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| write(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::geteuid;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    fn folder(purpose: &str) -> PathBuf {
        let name = format!("bootlace-copy-{purpose}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// All that there is to be said of what is in a folder, but for when it was read.
    fn listing(folder: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        walk(folder, &mut |step| {
            if let Step::Into(inside, place, about) = step {
                let kind = about.file_type();
                let leads = fs::read_link(place).unwrap_or_default();
                let content = if kind.is_file() { fs::read(place).unwrap() } else { Vec::new() };
                let is_one = about.is_file().then(|| about.nlink());
                lines.push(format!(
                    "{inside:?} {:o} {}:{} {}.{} {:?} {} {leads:?} {content:?} {:?}",
                    about.mode(),
                    about.uid(),
                    about.gid(),
                    about.mtime(),
                    about.mtime_nsec(),
                    is_one,
                    about.rdev(),
                    xattrs(place).unwrap(),
                ));
            }
            Ok(())
        })
        .unwrap();
        lines
    }

    #[test]
    fn what_is_copied_is_as_it_was() {
        let base = folder("all");
        let (source, target) = (base.join("from"), base.join("to"));
        fs::create_dir_all(source.join("anna/deep/er")).unwrap();
        let file = source.join("anna/letter");
        fs::write(&file, "dear all").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        fs::hard_link(&file, source.join("anna/deep/same")).unwrap();
        symlink("../nowhere", source.join("anna/link")).unwrap();
        symlink(&file, source.join("absolute")).unwrap();
        mknodat(CWD, source.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _listener = UnixListener::bind(source.join("socket")).unwrap();
        let has_xattrs = lsetxattr(&file, "user.note", b"\0x", XattrFlags::empty()).is_ok();
        if geteuid().is_root() {
            let numbers = rustix::fs::makedev(1, 3);
            mknodat(CWD, source.join("null"), FileType::CharacterDevice, Mode::RUSR, numbers)
                .unwrap();
            lchown(source.join("anna/link"), Some(1234), Some(5678)).unwrap();
            lchown(&file, Some(1234), Some(5678)).unwrap();
            // A capability, and a mode with all bits: both are lost if the owner comes after them.
            let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let program = source.join("program");
            fs::write(&program, "").unwrap();
            lchown(&program, Some(1234), Some(5678)).unwrap();
            fs::set_permissions(&program, Permissions::from_mode(0o6755)).unwrap();
            lsetxattr(&program, "security.capability", &capability, XattrFlags::empty()).unwrap();
        }
        fs::set_permissions(source.join("anna/deep"), Permissions::from_mode(0o1500)).unwrap();
        for name in ["anna/deep", "anna/link", "anna/letter", ""] {
            let old = Timespec { tv_sec: 1_000_000_007, tv_nsec: 5 };
            let times = Timestamps { last_access: old, last_modification: old };
            utimensat(CWD, source.join(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
        let mut told = Amount::default();
        copy(&source, &target, &mut |amount| told = amount).unwrap();
        assert!(fs::symlink_metadata(target.join("socket")).is_err());
        fs::remove_file(source.join("socket")).unwrap();
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
            last_modification: Timespec { tv_sec: 1_000_000_007, tv_nsec: 5 },
        };
        utimensat(CWD, &source, &times, AtFlags::empty()).unwrap();
        assert_eq!(listing(&target), listing(&source));
        assert!(has_xattrs == (xattrs(&target.join("anna/letter")).unwrap().len() == 1));
        assert!(told.n_files >= 9 && told.n_bytes >= 5 * BLOCK_BYTES, "{told:?}");
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn holes_take_no_room_and_data_behind_them_is_there() {
        let base = folder("holes");
        let source = base.join("from");
        fs::create_dir(&source).unwrap();
        let file = File::create(source.join("sparse")).unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_all_at(b"middle", 700 << 20).unwrap();
        let measured = measure(&source).unwrap();
        assert!(measured.n_bytes < 1 << 20, "{measured:?}");
        copy(&source, &base.join("to"), &mut |_| {}).unwrap();
        let copied = File::open(base.join("to/sparse")).unwrap();
        let about = copied.metadata().unwrap();
        assert!(about.len() == 1 << 30 && about.blocks() * 512 < 1 << 20, "{about:?}");
        let mut bytes = [0; 8];
        copied.read_exact_at(&mut bytes, (700 << 20) - 1).unwrap();
        assert_eq!(&bytes, b"\0middle\0");
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn what_is_mounted_in_a_folder_stays_where_it_is() {
        let base = folder("mounts");
        // In a namespace of its own, which a test's thread can't enter alone.
        let script = "set -e; cd \"$1\"; mkdir -p from/in/side; mount -t tmpfs x from/in; touch from/in/no from/yes; \
                      exec \"$2\" --exact disks::copy::tests::copies_for_the_test_of_mounts --nocapture";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(&base);
        let done = command.arg(std::env::current_exe().unwrap()).env(FOLDER, &base).output();
        match done {
            Ok(done) if done.status.success() => {
                assert!(base.join("to/yes").exists() && base.join("to/in").is_dir());
                assert_eq!(fs::read_dir(base.join("to/in")).unwrap().count(), 0);
            }
            other => assert!(!geteuid().is_root(), "{other:?}"),
        }
        fs::remove_dir_all(base).unwrap();
    }

    /// Names the folder for the next test.
    const FOLDER: &str = "BOOTLACE_TEST_FOLDER";

    #[test]
    fn copies_for_the_test_of_mounts() {
        let Some(base) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
        copy(&base.join("from"), &base.join("to"), &mut |_| {}).unwrap();
        assert!(measure(&base.join("from")).unwrap().n_files == 3);
    }
}
