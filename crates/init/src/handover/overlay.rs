//! Files that are laid over the root: what the image's makers, or its administrators, want to be otherwise.
//!
//! A root is not trusted: no link in it leads a write out of it. What somebody has changed on a disk that is kept is
//! left as it is.

use crate::handover::resolve::resolve;
use initcfg::{
    LAID_NOTE_PATH, Laid, LaidPath, LaidWhat, OVERLAY_MAX, OVERLAY_PATH, OnlyIf, Overlay,
    content_digest,
};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, XattrFlags, fchmod, fchown,
    fgetxattr, fsetxattr, fstat, fsync, lsetxattr, mkdirat, openat, openat2, renameat, statat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

/// A new file has this name until it is whole.
const UNFINISHED: &str = ".bootlace-unfinished";

/// Where SELinux keeps a file's label; without one, its owner may not read it.
const LABEL: &str = "security.selinux";

/// Longest label.
const LABEL_MAX: usize = 256;

/// Longest list of what was laid over a disk: some thousand entries.
const NOTE_MAX: u64 = 1 << 20;

/// What became of an overlay.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LaidOver {
    /// Where something was laid.
    pub(crate) paths: Vec<String>,
    /// What was not done, and why.
    pub(crate) troubles: Vec<String>,
}

/// Lays over the root what the initrd has for it.
pub(crate) fn lay_over(root: &Path) -> LaidOver {
    let overlay = match fs::read(OVERLAY_PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return LaidOver::default(),
        Err(error) => Err(error.to_string()),
        Ok(file) => Overlay::parse(&file).map_err(|error| error.to_string()),
    };
    match overlay {
        Ok(overlay) => lay(root, &overlay),
        Err(why) => {
            let troubles = vec![format!("what is to be laid over the root can't be read: {why}")];
            LaidOver { paths: Vec::new(), troubles }
        }
    }
}

fn lay(root: &Path, overlay: &Overlay) -> LaidOver {
    let mut done = LaidOver::default();
    let root = match open_root(root) {
        Ok(root) => root,
        Err(error) => {
            done.troubles.push(format!("nothing was laid over the root: {error}"));
            return done;
        }
    };
    let note = LaidPath::new(LAID_NOTE_PATH);
    let known = note.as_ref().and_then(|note| root.text(note).ok()).unwrap_or_default();
    let known_digests: BTreeSet<&str> =
        known.lines().filter_map(|line| line.split(' ').next()).collect();
    let mut more = String::new();
    for laid in &overlay.entries {
        let digest = laid.digest();
        if known_digests.contains(digest.as_str()) {
            continue;
        }
        match root.put(laid) {
            Ok(true) => {
                more.push_str(&format!("{digest} {}\n", laid.path));
                done.paths.push(laid.path.to_string());
            }
            Ok(false) => {
                done.troubles.push(format!("{} is not as in the image, and stays so", laid.path));
            }
            Err(error) => done.troubles.push(format!("{}: {error}", laid.path)),
        }
    }
    if let Some(path) = note.filter(|_| !more.is_empty()) {
        let content = format!("{known}{more}").into_bytes();
        let what = LaidWhat::File { content, mode: Some(0o644), owner: None };
        let laid = Laid { path, only_if: OnlyIf::Any, what, about: String::new() };
        if let Err(error) = root.put(&laid) {
            done.troubles.push(format!("{}: {error}", laid.path));
        }
    }
    done
}

/// A root that is not ours yet.
pub(super) struct Root<'a> {
    path: &'a Path,
    folder: OwnedFd,
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

pub(super) fn open_root(path: &Path) -> io::Result<Root<'_>> {
    let folder = openat(CWD, path, FOLDER, Mode::empty())?;
    Ok(Root { path, folder })
}

impl Root<'_> {
    /// A folder of the root, wherever its links lead inside.
    pub(super) fn folder(&self, path: &str) -> io::Result<OwnedFd> {
        let inside = path.trim_start_matches('/');
        let inside = if inside.is_empty() { "." } else { inside };
        let flags = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match openat2(&self.folder, inside, FOLDER, Mode::empty(), flags) {
            // Before Linux 5.6. Nobody else is here yet who could exchange a link meanwhile.
            Err(Errno::NOSYS) => {
                let path = resolve(self.path, Path::new(path)).ok_or(Errno::LOOP)?;
                Ok(openat(CWD, path, FOLDER | OFlags::NOFOLLOW, Mode::empty())?)
            }
            other => Ok(other?),
        }
    }

    /// The same; folders that are missing are made.
    pub(super) fn made_folder(&self, path: &str) -> io::Result<OwnedFd> {
        match self.folder(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let above = self.made_folder(above)?;
        mkdirat(&above, name, Mode::from_raw_mode(0o755))?;
        let made = openat(&above, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
        fchmod(&made, Mode::from_raw_mode(0o755))?;
        if let Some(label) = label_of(&above) {
            let _ = fsetxattr(&made, LABEL, &label, XattrFlags::empty());
        }
        Ok(made)
    }

    pub(super) fn text(&self, path: &LaidPath) -> io::Result<String> {
        let (folder, name) = split(path);
        let folder = self.folder(folder)?;
        let bytes = read(&folder, name, NOTE_MAX)?;
        String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// Lays something there; `false`: what is there is not what must be.
    pub(super) fn put(&self, laid: &Laid) -> io::Result<bool> {
        let (folder, name) = split(&laid.path);
        let is_gone = laid.what == LaidWhat::Nothing;
        let folder = match self.folder(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match laid.only_if {
                OnlyIf::Content(_) => return Ok(false),
                _ if is_gone => return Ok(true),
                _ => self.made_folder(folder)?,
            },
            other => other?,
        };
        let former = match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(former) => Some(former),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error.into()),
        };
        let is_fit = match (laid.only_if, &former) {
            (OnlyIf::Any, _) | (OnlyIf::Missing, None) => true,
            (OnlyIf::Content(wanted), Some(former)) if is_file(former) => {
                former.st_size as u64 <= OVERLAY_MAX as u64
                    && content_digest(&read(&folder, name, OVERLAY_MAX as u64)?) == wanted
            }
            (OnlyIf::Missing, Some(_)) | (OnlyIf::Content(_), _) => false,
        };
        if !is_fit {
            return Ok(false);
        }
        match unlinkat(&folder, UNFINISHED, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        match &laid.what {
            LaidWhat::Nothing if former.is_some() => unlinkat(&folder, name, AtFlags::empty())?,
            LaidWhat::Nothing => {}
            LaidWhat::Link { target } => {
                symlinkat(target, &folder, UNFINISHED)?;
                if let Some(label) = label_of(&folder) {
                    // The link itself, which can't be opened.
                    let path = format!("/proc/self/fd/{}/{UNFINISHED}", folder.as_raw_fd());
                    let _ = lsetxattr(path, LABEL, &label, XattrFlags::empty());
                }
                renameat(&folder, UNFINISHED, &folder, name)?;
            }
            LaidWhat::File { content, mode, owner } => {
                let former = former.as_ref().filter(|former| is_file(former));
                write(&folder, name, content, former, (*mode, *owner))?;
            }
        }
        fsync(&folder)?;
        Ok(true)
    }
}

fn write(
    folder: &OwnedFd,
    name: &str,
    content: &[u8],
    former: Option<&Stat>,
    (mode, owner): (Option<u32>, Option<(u32, u32)>),
) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(folder, UNFINISHED, flags, Mode::from_raw_mode(0o600))?);
    let label = former.and_then(|_| {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        label_of(&openat(folder, name, flags, Mode::empty()).ok()?)
    });
    if let Some(label) = label.or_else(|| label_of(folder)) {
        let _ = fsetxattr(&file, LABEL, &label, XattrFlags::empty());
    }
    let (user, group) =
        owner.or_else(|| former.map(|it| (it.st_uid, it.st_gid))).unwrap_or_default();
    let mode = mode.or_else(|| former.map(|it| it.st_mode & 0o7777)).unwrap_or(0o644);
    file.write_all(content)?;
    fchown(&file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
    // Behind the owner, whose change takes some bits away.
    fchmod(&file, Mode::from_raw_mode(mode))?;
    file.sync_all()?;
    renameat(folder, UNFINISHED, folder, name)?;
    Ok(())
}

fn is_file(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode) == FileType::RegularFile
}

/// A file of this folder, which is no link, pipe or device.
pub(super) fn read(folder: &OwnedFd, name: &str, longest: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(folder, name, flags, Mode::empty())?;
    if !is_file(&fstat(&file)?) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    File::from(file).take(longest).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn label_of(file: &OwnedFd) -> Option<Vec<u8>> {
    let mut label = vec![0; LABEL_MAX];
    let length = fgetxattr(file, LABEL, &mut label[..]).ok()?;
    label.truncate(length);
    Some(label)
}

pub(super) fn split(path: &LaidPath) -> (&str, &str) {
    path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::PathBuf;

    fn root(name: &str) -> PathBuf {
        let root =
            std::env::temp_dir().join(format!("bootlace-overlay-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("etc")).unwrap();
        root
    }

    fn laid(path: &str, only_if: OnlyIf, what: LaidWhat) -> Laid {
        Laid { path: LaidPath::new(path).unwrap(), only_if, what, about: String::new() }
    }

    fn file(text: &str) -> LaidWhat {
        LaidWhat::File { content: text.as_bytes().to_vec(), mode: None, owner: None }
    }

    fn was(text: &str) -> OnlyIf {
        OnlyIf::Content(content_digest(text.as_bytes()))
    }

    fn null() -> LaidWhat {
        LaidWhat::Link { target: "/dev/null".to_owned() }
    }

    #[test]
    fn what_is_laid_is_there_with_the_owner_and_mode_of_what_was() {
        let root = root("all");
        let fstab = root.join("etc/fstab");
        fs::write(&fstab, "old").unwrap();
        fs::set_permissions(&fstab, fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(root.join("etc/xorg.conf"), "x").unwrap();
        let overlay = Overlay {
            entries: vec![
                laid("/etc/fstab", was("old"), file("new")),
                laid("/etc/systemd/system/a.timer", OnlyIf::Missing, null()),
                laid("/etc/xorg.conf", was("x"), LaidWhat::Nothing),
                laid("/missing/folder/x", OnlyIf::Any, LaidWhat::Nothing),
                laid(
                    "/script",
                    OnlyIf::Missing,
                    LaidWhat::File { content: b"#!".to_vec(), mode: Some(0o4755), owner: None },
                ),
            ],
        };
        let done = lay(&root, &overlay);
        assert_eq!((done.paths.len(), done.troubles), (5, vec![]));
        assert_eq!(fs::read_to_string(&fstab).unwrap(), "new");
        assert_eq!(fs::metadata(&fstab).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::metadata(root.join("script")).unwrap().mode() & 0o7777, 0o4755);
        let link = fs::read_link(root.join("etc/systemd/system/a.timer")).unwrap();
        assert_eq!(link, Path::new("/dev/null"));
        assert!(!root.join("etc/xorg.conf").exists() && !root.join("missing").exists());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_somebody_has_changed_stays_so_at_the_next_boot() {
        let root = root("kept");
        let fstab = root.join("etc/fstab");
        fs::write(&fstab, "old").unwrap();
        let mask = laid("/etc/a.timer", OnlyIf::Missing, null());
        let overlay = Overlay { entries: vec![laid("/etc/fstab", was("old"), file("new")), mask] };
        assert_eq!(lay(&root, &overlay).paths.len(), 2);
        // Back to what the image has: by somebody who wants it so.
        fs::write(&fstab, "old").unwrap();
        fs::remove_file(root.join("etc/a.timer")).unwrap();
        assert_eq!(lay(&root, &overlay), LaidOver::default());
        assert_eq!(fs::read_to_string(&fstab).unwrap(), "old");
        assert!(fs::symlink_metadata(root.join("etc/a.timer")).is_err());
        // What is laid from now on is not laid over what is neither.
        fs::write(&fstab, "mine").unwrap();
        let next = Overlay { entries: vec![laid("/etc/fstab", was("old"), file("newer"))] };
        let done = lay(&root, &next);
        assert_eq!(done.troubles, ["/etc/fstab is not as in the image, and stays so"]);
        assert_eq!(fs::read_to_string(&fstab).unwrap(), "mine");
        let note = fs::read_to_string(root.join(&LAID_NOTE_PATH[1..])).unwrap();
        assert_eq!(note.lines().count(), 2, "{note}");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn no_link_of_a_root_leads_out_of_it() {
        let outside = root("outside");
        let root = root("hostile");
        fs::write(outside.join("etc/passwd"), "ours").unwrap();
        // A folder that leads out, and a file that does.
        symlink(outside.join("etc"), root.join("away")).unwrap();
        symlink("../../../../../../../..", root.join("up")).unwrap();
        symlink(outside.join("etc/passwd"), root.join("etc/fstab")).unwrap();
        symlink(outside.join("etc/passwd"), root.join("etc/.bootlace-unfinished")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        fs::create_dir_all(root.join("var/lib")).unwrap();
        symlink(outside.join("etc"), root.join("var/lib/bootlace")).unwrap();
        let up = format!("/up{}/etc/passwd", outside.display());
        let entries = vec![
            laid("/away/passwd", OnlyIf::Any, file("theirs")),
            laid(&up, OnlyIf::Any, file("theirs")),
            laid("/etc/fstab", OnlyIf::Any, file("new")),
            laid("/loop/x", OnlyIf::Any, file("new")),
        ];
        let done = lay(&root, &Overlay { entries });
        assert_eq!(fs::read_to_string(outside.join("etc/passwd")).unwrap(), "ours");
        let names: Vec<_> = fs::read_dir(outside.join("etc")).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing else was written there: {names:?}, {done:?}");
        assert_eq!(fs::read_to_string(root.join("etc/fstab")).unwrap(), "new");
        assert!(!fs::symlink_metadata(root.join("etc/fstab")).unwrap().is_symlink());
        for path in [&root, &outside] {
            fs::remove_dir_all(path).unwrap();
        }
    }

    #[test]
    fn what_is_no_file_is_left_alone() {
        let root = root("kinds");
        fs::create_dir_all(root.join("etc/fstab/x")).unwrap();
        rustix::fs::mknodat(CWD, root.join("etc/pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let entries = vec![
            laid("/etc/fstab", was("old"), file("new")),
            laid("/etc/pipe", was("old"), file("new")),
            laid("/etc/fstab", OnlyIf::Any, file("new")),
            laid("/etc/fstab", OnlyIf::Any, LaidWhat::Nothing),
        ];
        let done = lay(&root, &Overlay { entries });
        assert_eq!((done.paths.len(), done.troubles.len()), (0, 4), "{done:?}");
        assert!(root.join("etc/fstab/x").is_dir());
        fs::remove_dir_all(root).unwrap();
    }
}
