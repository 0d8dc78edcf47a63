//! Folders of the root that are on another disk: what is in them at first, and mounting them there.

use super::copy::{self, Amount, Broken};
use crate::console::{Console, uptime};
use crate::failure::Failure;
use initcfg::name_on_disk;
use rustix::fs::{CWD, Mode, OFlags, XattrFlags, lgetxattr, lsetxattr, openat, statvfs, syncfs};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is copied has this name until it is whole; no folder's name on a disk has the sign in it.
const UNFINISHED: &str = "%unfinished";

/// How often people hear how far it is, and when first.
const TELL_EVERY: Duration = Duration::from_secs(5);
const TELL_FIRST: Duration = Duration::from_secs(2);

/// Where SELinux keeps a file's label.
const LABEL: &str = "security.selinux";

/// What helps against a disk that is too small.
const ROOM_REMEDY: &str = "make the disk larger, or delete what nobody needs from this folder of the image, or carry smaller folders over";

/// Where a folder is in a root that is not `/` yet; it is made if it is missing, with all above it. No link leads there: what is
/// mounted would be somewhere else than where people look for it, or out of the root.
pub(super) fn in_root(root: &Path, folder: &str) -> Result<PathBuf, Failure> {
    let mut here = root.to_owned();
    for step in folder.split('/').filter(|step| !step.is_empty()) {
        let above = here.clone();
        here.push(step);
        let shown = Path::new("/").join(here.strip_prefix(root).unwrap_or(&here));
        let shown = shown.display();
        let elsewhere = "name another folder for this disk, or make this one a folder in the image";
        match fs::symlink_metadata(&here) {
            Ok(about) if about.is_dir() => {}
            Ok(about) if about.is_symlink() => {
                let leads = fs::read_link(&here).unwrap_or_default();
                let leads = leads.display();
                return Err(Failure::new(
                    format!("{shown} is a link in this image, and leads to {leads}"),
                    "name the folder to which it leads instead",
                ));
            }
            Ok(_) => {
                return Err(Failure::new(format!("{shown} is no folder in this image"), elsewhere));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(&here, &above).map_err(|error| {
                    Failure::new(
                        format!("can't make the folder {shown} in the root: {error}"),
                        elsewhere,
                    )
                })?;
            }
            Err(error) => {
                return Err(Failure::new(format!("can't look at {shown}: {error}"), elsewhere));
            }
        }
    }
    Ok(here)
}

fn make(folder: &Path, above: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(folder)?;
    // Whatever the mask of this process is.
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    let mut label = [0; 256];
    if let Ok(length) = lgetxattr(above, LABEL, &mut label[..]) {
        let _ = lsetxattr(folder, LABEL, &label[..length], XattrFlags::empty());
    }
    Ok(())
}

/// Where a folder is that is carried over, on its disk. If it is not there yet, it gets what the root has in it: all, or nothing, and
/// then the next boot begins anew.
pub(super) fn carried(
    disk: &Path,
    folder: &str,
    source: &Path,
    console: &Console,
) -> Result<PathBuf, Failure> {
    let place = disk.join(name_on_disk(folder));
    match fs::symlink_metadata(&place) {
        Ok(about) if about.is_dir() => return Ok(place),
        Ok(_) => {
            return Err(Failure::new(
                format!("{} on the disk is no folder", name_on_disk(folder)),
                "delete it from the disk",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(Failure::new(
                format!("can't read the disk: {error}"),
                "look at its server",
            ));
        }
    }
    let unfinished = disk.join(UNFINISHED);
    let amount = room_for(disk, source, folder, &unfinished)?;
    let started = uptime();
    let mut next = started + TELL_FIRST;
    let mut told = |done: Amount| {
        if uptime() >= next {
            next = uptime() + TELL_EVERY;
            let [done, all] = [done, amount].map(|amount| amount.n_bytes >> 20);
            let text = format!("copies {folder} of the image, as it is new: {done} of {all} MiB");
            console.wait("disks", &text);
        }
    };
    copy::copy(source, &unfinished, &mut told)
        .map_err(|broken| not_copied(broken, folder, disk))?;
    finish(disk, &unfinished, &place).map_err(|error| {
        let path = unfinished.clone();
        not_copied(Broken::Write(path, error), folder, disk)
    })?;
    Ok(place)
}

/// What is to be copied, if there is room for it. What an earlier boot left unfinished is deleted.
fn room_for(
    disk: &Path,
    source: &Path,
    folder: &str,
    unfinished: &Path,
) -> Result<Amount, Failure> {
    let of_disk = |error: io::Error| {
        Failure::new(format!("can't use the disk: {error}"), "look at the log of its server")
    };
    match fs::remove_dir_all(unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(of_disk(error)),
        _ => {}
    }
    let amount = copy::measure(source).map_err(|broken| not_copied(broken, folder, disk))?;
    let about = statvfs(disk).map_err(|error| of_disk(error.into()))?;
    let free = about.f_bfree.saturating_mul(about.f_frsize);
    // Some file systems have no list of files that can be full.
    let free_files = if about.f_files == 0 { u64::MAX } else { about.f_ffree };
    match missing(amount, free, free_files) {
        None => Ok(amount),
        Some(missing) => Err(Failure::new(
            format!("there is no room on the disk for what the image has in {folder}: {missing}"),
            ROOM_REMEDY,
        )),
    }
}

/// What is not there, in words.
fn missing(amount: Amount, free_bytes: u64, free_files: u64) -> Option<String> {
    let Amount { n_files, n_bytes } = amount;
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    if n_bytes > free_bytes {
        let (all, more) = (mebibytes(n_bytes), mebibytes(n_bytes - free_bytes));
        return Some(format!("it is {all} MiB, and {more} MiB are missing"));
    }
    let more = n_files.checked_sub(free_files).filter(|more| *more > 0)?;
    Some(format!("it is {n_files} files, and the disk takes {more} fewer"))
}

fn not_copied(broken: Broken, folder: &str, disk: &Path) -> Failure {
    let (what, error) = match broken {
        Broken::Read(path, error) => (format!("can't read {}", path.display()), error),
        Broken::Write(path, error) => {
            let path = path.strip_prefix(disk).unwrap_or(&path).display().to_string();
            (format!("can't write {path} on the disk"), error)
        }
    };
    let remedy = match Errno::from_io_error(&error) {
        Some(Errno::NOSPC | Errno::DQUOT) => ROOM_REMEDY,
        _ => "look at the logs of the servers of both disks",
    };
    Failure::new(format!("can't copy {folder} of the image: {what}: {error}"), remedy)
}

/// Makes sure that all is on the disk, and only then gives it its name.
fn finish(disk: &Path, unfinished: &Path, place: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat(CWD, disk, flags, Mode::empty())?;
    syncfs(&opened)?;
    fs::rename(unfinished, place)?;
    syncfs(&opened)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn base(purpose: &str) -> PathBuf {
        let base =
            std::env::temp_dir().join(format!("bootlace-carry-{purpose}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        fs::create_dir_all(base.join("root/home/anna")).unwrap();
        fs::create_dir_all(base.join("disk")).unwrap();
        fs::write(base.join("root/home/anna/letter"), "of the image").unwrap();
        base
    }

    #[test]
    fn a_folder_is_filled_once_and_then_kept() {
        let base = base("once");
        let (disk, source) = (base.join("disk"), base.join("root/home"));
        let carry = || carried(&disk, "/home", &source, &Console::log_only());
        // An earlier boot was cut off.
        fs::create_dir_all(disk.join("%unfinished/anna")).unwrap();
        fs::write(disk.join("%unfinished/anna/half"), "").unwrap();
        assert_eq!(carry(), Ok(disk.join("home")));
        assert!(!disk.join("%unfinished").exists() && !disk.join("home/anna/half").exists());
        fs::write(disk.join("home/anna/letter"), "mine").unwrap();
        fs::write(source.join("anna/new"), "of the next version").unwrap();
        assert_eq!(carry(), Ok(disk.join("home")));
        assert_eq!(fs::read_to_string(disk.join("home/anna/letter")).unwrap(), "mine");
        assert!(!disk.join("home/anna/new").exists());
        fs::remove_dir_all(disk.join("home")).unwrap();
        symlink("/etc", disk.join("home")).unwrap();
        assert!(carry().unwrap_err().what.contains("no folder"));
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn no_link_of_a_root_leads_a_mount_elsewhere_and_what_is_missing_is_made() {
        let base = base("links");
        let root = base.join("root");
        symlink("/etc", root.join("srv")).unwrap();
        symlink("../../..", root.join("home/up")).unwrap();
        assert_eq!(in_root(&root, "/home").unwrap(), root.join("home"));
        for (folder, link) in [("/srv", "/srv"), ("/srv/data", "/srv"), ("/home/up/x", "/home/up")]
        {
            let failure = in_root(&root, folder).unwrap_err();
            assert!(failure.what.starts_with(&format!("{link} is a link")), "{failure}");
        }
        let failure = in_root(&root, "/home/anna/letter/x").unwrap_err();
        assert!(failure.what.contains("/home/anna/letter is no folder"), "{failure}");
        let made = in_root(&root, "/opt/a/b").unwrap();
        assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o7777, 0o755);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn what_does_not_fit_is_said_before_it_is_tried() {
        let amount = Amount { n_files: 100, n_bytes: 300 << 20 };
        assert_eq!(missing(amount, 300 << 20, 100), None);
        let text = missing(amount, (200 << 20) + 1, 100).unwrap();
        assert_eq!(text, "it is 300 MiB, and 100 MiB are missing");
        let text = missing(amount, 300 << 20, 60).unwrap();
        assert_eq!(text, "it is 100 files, and the disk takes 40 fewer");
    }
}
