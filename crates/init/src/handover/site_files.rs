//! Files of the site, laid over a root after its version's own. On a disk that is kept they follow the site: what it changes is
//! changed, and what it takes away goes, with what was there before in its place.
//!
//! What was laid is noted on the root, so that at the next boot ours can be told from what somebody has written there meanwhile.

use super::overlay::{LaidOver, Root, open_root, split};
use initcfg::{LAID_MAX, Laid, LaidPath, LaidWhat, OVERLAY_MAX, OnlyIf, Overlay, content_digest};
use rustix::fs::{
    AtFlags, FileType, Mode, Stat, fchmod, fsync, linkat, readlinkat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// On a root: what was laid over it of the site's files, and where. Readable by root only, as digests of short secrets tell them.
const NOTE_PATH: &str = "/var/lib/bootlace/files";

/// On a root: what was where something is laid now, named by the digest of the path.
const COVERED_FOLDER: &str = "/var/lib/bootlace/covered";

const NOTE_FIRST_LINE: &str = "bootlace-files-laid/1";

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Nothing,
    File([u8; 32]),
    Link([u8; 32]),
    /// A folder, a device, or a file that is longer than any of ours.
    Other,
}

/// Whether files of the site were laid over this root before.
pub(crate) fn were_laid(root: &Path) -> bool {
    open_root(root).is_ok_and(|root| !Note::read(&root).0.is_empty())
}

/// Lays the files over the root, and takes away those that are none of them any more.
pub(crate) fn lay(root: &Path, overlay: &Overlay) -> LaidOver {
    let mut done = LaidOver::default();
    match open_root(root) {
        Ok(root) => {
            if let Err(error) = lay_all(&root, overlay, &mut done) {
                done.troubles.push(format!("the site's files: {error}"));
            }
        }
        Err(error) => done.troubles.push(format!("the site's files: {error}")),
    }
    done
}

fn lay_all(root: &Root<'_>, overlay: &Overlay, done: &mut LaidOver) -> io::Result<()> {
    let known = Note::read(root);
    let mut note = known.clone();
    let wanted: BTreeMap<&str, &Laid> =
        overlay.entries.iter().map(|laid| (laid.path.as_str(), laid)).collect();
    let mut to_lay = Vec::new();
    for laid in wanted.values() {
        let former = known.0.get(laid.path.as_str()).copied();
        match root.prepare(laid, former) {
            Ok(Prepared::IsSo) => {}
            Ok(Prepared::Lay { is_changed }) => {
                note.0.insert(laid.path.to_string(), is(&laid.what));
                to_lay.push((*laid, is_changed));
            }
            Err(error) => done.troubles.push(format!("{}: {error}", laid.path)),
        }
    }
    // Before anything is done: what is laid and not noted would stay for ever.
    if note != known {
        note.write(root)?;
    }
    for (laid, is_changed) in to_lay {
        match root.put(laid) {
            Ok(_) if is_changed => {
                let told = format!("{} (was changed on the machine)", laid.path);
                done.paths.push(told);
            }
            Ok(_) => done.paths.push(laid.path.to_string()),
            Err(error) => done.troubles.push(format!("{}: {error}", laid.path)),
        }
    }
    let mut rest = note.clone();
    for (path, former) in known.0.iter().filter(|(path, _)| !wanted.contains_key(path.as_str())) {
        let Some(path) = LaidPath::new(path) else { continue };
        match root.uncover(&path, *former) {
            Ok(true) => done.paths.push(format!("{path} (taken away)")),
            Ok(false) => {
                let told = format!("{path} was changed on the machine, and stays as it is there");
                done.troubles.push(told);
            }
            Err(error) => {
                done.troubles.push(format!("{path}: {error}"));
                continue;
            }
        }
        rest.0.remove(path.as_str());
    }
    if rest != note {
        rest.write(root)?;
    }
    Ok(())
}

enum Prepared {
    /// It is as it shall be.
    IsSo,
    /// It is to be laid; what was there before is kept.
    Lay {
        /// What was laid there before is not there any more.
        is_changed: bool,
    },
}

impl Root<'_> {
    /// Looks at what is where something is to be laid, and keeps it if it is not ours.
    fn prepare(&self, laid: &Laid, former: Option<Is>) -> io::Result<Prepared> {
        let (now, status) = self.look(&laid.path)?;
        if now == Is::Other && status.as_ref().is_some_and(is_folder) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let fits = match (&laid.what, &status) {
            (LaidWhat::File { mode, owner, .. }, Some(status)) => {
                mode.is_none_or(|mode| mode == status.st_mode & 0o7777)
                    && owner.is_none_or(|owner| owner == (status.st_uid, status.st_gid))
            }
            _ => true,
        };
        if now == is(&laid.what) && fits {
            return Ok(Prepared::IsSo);
        }
        match former {
            Some(former) => Ok(Prepared::Lay { is_changed: former != now }),
            None => {
                if now != Is::Nothing {
                    self.cover(&laid.path)?;
                }
                Ok(Prepared::Lay { is_changed: false })
            }
        }
    }

    /// Gives what is at a path a second name, for when ours is taken away.
    fn cover(&self, path: &LaidPath) -> io::Result<()> {
        let covered = self.made_folder(COVERED_FOLDER)?;
        fchmod(&covered, Mode::from_raw_mode(0o700))?;
        let (folder, name) = split(path);
        let folder = self.folder(folder)?;
        match linkat(&folder, name, &covered, covered_name(path), AtFlags::empty()) {
            // It was begun before, and the machine went off.
            Ok(()) | Err(Errno::EXIST) => {}
            // Another subvolume: then nothing comes back there.
            Err(Errno::XDEV | Errno::PERM | Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
        fsync(&covered)?;
        Ok(())
    }

    /// Takes away what was laid at a path, and brings back what was there; `false`: something else is there, which stays.
    fn uncover(&self, path: &LaidPath, former: Is) -> io::Result<bool> {
        let (now, _) = self.look(path)?;
        let covered = match self.folder(COVERED_FOLDER) {
            Ok(folder) => Some(folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let kept = covered_name(path);
        if now != former {
            if let Some(covered) = covered {
                gone(unlinkat(&covered, &kept, AtFlags::empty()))?;
            }
            return Ok(false);
        }
        let (folder, name) = split(path);
        let folder = match self.folder(folder) {
            // Nothing was to be there, and not even its folder is.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            other => other?,
        };
        let is_back = match &covered {
            Some(covered) => gone(renameat(covered, &kept, &folder, name))?,
            None => false,
        };
        if !is_back {
            gone(unlinkat(&folder, name, AtFlags::empty()))?;
        }
        fsync(&folder)?;
        Ok(true)
    }

    fn look(&self, path: &LaidPath) -> io::Result<(Is, Option<Stat>)> {
        let (folder, name) = split(path);
        let folder = match self.folder(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Is::Nothing, None));
            }
            other => other?,
        };
        let status = match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => status,
            Err(Errno::NOENT) => return Ok((Is::Nothing, None)),
            Err(error) => return Err(error.into()),
        };
        let is = match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile if status.st_size as u64 <= OVERLAY_MAX as u64 => {
                let content = super::overlay::read(&folder, name, OVERLAY_MAX as u64)?;
                Is::File(content_digest(&content))
            }
            FileType::Symlink => {
                let target = readlinkat(&folder, name, Vec::new())?;
                Is::Link(content_digest(target.as_bytes()))
            }
            _ => Is::Other,
        };
        Ok((is, Some(status)))
    }
}

/// Whether there was what is gone now.
fn gone(result: Result<(), Errno>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_folder(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode) == FileType::Directory
}

/// What is where this was laid.
fn is(what: &LaidWhat) -> Is {
    match what {
        LaidWhat::File { content, .. } => Is::File(content_digest(content)),
        LaidWhat::Link { target } => Is::Link(content_digest(target.as_bytes())),
        LaidWhat::Nothing => Is::Nothing,
    }
}

fn covered_name(path: &LaidPath) -> String {
    hex(&content_digest(path.as_str().as_bytes()))
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// What was laid at which path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Note(BTreeMap<String, Is>);

impl Note {
    /// What the root says; nothing if that can't be read, as it may come from anywhere.
    fn read(root: &Root<'_>) -> Self {
        let path = LaidPath::new(NOTE_PATH);
        let text = path.and_then(|path| root.text(&path).ok()).unwrap_or_default();
        Self::parse(&text).unwrap_or_default()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next() != Some(NOTE_FIRST_LINE) {
            return None;
        }
        let entry = |line: &str| {
            let (kind, rest) = line.split_once(' ')?;
            let (digest, path) = rest.split_once(' ')?;
            let is = match kind {
                "file" => Is::File(from_hex(digest)?),
                "link" => Is::Link(from_hex(digest)?),
                "none" => Is::Nothing,
                _ => return None,
            };
            Some((LaidPath::new(path)?.to_string(), is))
        };
        // Those that are not laid any more are in it until they are gone.
        Some(Self(lines.take(2 * LAID_MAX).filter_map(entry).collect()))
    }

    fn write(&self, root: &Root<'_>) -> io::Result<()> {
        let path = LaidPath::new(NOTE_PATH).ok_or(io::ErrorKind::InvalidInput)?;
        let mut text = format!("{NOTE_FIRST_LINE}\n");
        for (path, is) in &self.0 {
            let _ = match is {
                Is::File(digest) => writeln!(text, "file {} {path}", hex(digest)),
                Is::Link(digest) => writeln!(text, "link {} {path}", hex(digest)),
                Is::Nothing | Is::Other => writeln!(text, "none - {path}"),
            };
        }
        let what =
            LaidWhat::File { content: text.into_bytes(), mode: Some(0o600), owner: Some((0, 0)) };
        root.put(&Laid { path, only_if: OnlyIf::Any, what, about: String::new() }).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::PathBuf;

    fn root(name: &str) -> PathBuf {
        let root =
            std::env::temp_dir().join(format!("bootlace-files-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("etc")).unwrap();
        root
    }

    fn overlay(entries: &[(&str, LaidWhat)]) -> Overlay {
        let laid = |(path, what): &(&str, LaidWhat)| Laid {
            path: LaidPath::new(path).unwrap(),
            only_if: OnlyIf::Any,
            what: what.clone(),
            about: String::new(),
        };
        Overlay { entries: entries.iter().map(laid).collect() }
    }

    fn file(text: &str) -> LaidWhat {
        LaidWhat::File { content: text.as_bytes().to_vec(), mode: None, owner: None }
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn on_a_kept_disk_files_follow_the_site() {
        let root = root("follow");
        let (conf, key) = (root.join("etc/ldap.conf"), root.join("etc/new/keytab"));
        fs::write(&conf, "of the image").unwrap();
        fs::set_permissions(&conf, fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(root.join("etc/motd"), "welcome").unwrap();
        let secret =
            LaidWhat::File { content: b"secret".to_vec(), mode: Some(0o600), owner: Some((0, 0)) };
        let link = LaidWhat::Link { target: "../a.service".to_owned() };
        let first = overlay(&[
            ("/etc/ldap.conf", file("first")),
            ("/etc/new/keytab", secret),
            ("/etc/wants/a.service", link),
            ("/etc/motd", LaidWhat::Nothing),
        ]);
        assert!(!were_laid(&root));
        let done = lay(&root, &first);
        assert_eq!((done.paths.len(), &done.troubles[..]), (4, &[][..]), "{done:?}");
        assert!(were_laid(&root));
        assert_eq!(text(&conf), "first");
        assert_eq!(fs::metadata(&conf).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o7777, 0o600);
        assert!(fs::read_link(root.join("etc/wants/a.service")).is_ok());
        assert!(!root.join("etc/motd").exists());
        let note = root.join("var/lib/bootlace/files");
        assert_eq!(fs::metadata(&note).unwrap().mode() & 0o7777, 0o600);
        // The next boot has nothing to do.
        assert_eq!(lay(&root, &first), LaidOver::default());
        // One is changed, and the others are taken away.
        let second = overlay(&[("/etc/ldap.conf", file("second"))]);
        let done = lay(&root, &second);
        assert_eq!((done.paths.len(), &done.troubles[..]), (4, &[][..]), "{done:?}");
        assert_eq!(text(&conf), "second");
        assert!(!key.exists());
        assert!(fs::symlink_metadata(root.join("etc/wants/a.service")).is_err());
        assert_eq!(text(&root.join("etc/motd")), "welcome");
        // The last goes, and what the image had is back, with its permissions.
        let done = lay(&root, &Overlay::default());
        assert_eq!(done.paths, ["/etc/ldap.conf (taken away)"]);
        assert_eq!(text(&conf), "of the image");
        assert_eq!(fs::metadata(&conf).unwrap().mode() & 0o7777, 0o640);
        assert!(!were_laid(&root));
        assert_eq!(fs::read_dir(root.join("var/lib/bootlace/covered")).unwrap().count(), 0);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_somebody_changed_is_laid_again_but_stays_when_the_site_takes_its_own_away() {
        let root = root("changed");
        let conf = root.join("etc/x.conf");
        fs::write(&conf, "of the image").unwrap();
        let site = overlay(&[("/etc/x.conf", file("of the site"))]);
        lay(&root, &site);
        fs::write(&conf, "mine").unwrap();
        let done = lay(&root, &site);
        assert_eq!(done.paths, ["/etc/x.conf (was changed on the machine)"]);
        assert_eq!(text(&conf), "of the site");
        fs::remove_file(&conf).unwrap();
        assert_eq!(lay(&root, &site).paths.len(), 1);
        fs::write(&conf, "mine").unwrap();
        let done = lay(&root, &Overlay::default());
        assert_eq!(
            done.troubles,
            ["/etc/x.conf was changed on the machine, and stays as it is there"]
        );
        assert_eq!(text(&conf), "mine");
        // It is said once, and nothing of ours is left.
        assert_eq!(lay(&root, &Overlay::default()), LaidOver::default());
        assert_eq!(fs::read_dir(root.join("var/lib/bootlace/covered")).unwrap().count(), 0);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_the_image_has_just_so_is_not_ours_to_take_away() {
        let root = root("same");
        fs::write(root.join("etc/x.conf"), "same").unwrap();
        let done = lay(&root, &overlay(&[("/etc/x.conf", file("same"))]));
        assert_eq!(done, LaidOver::default());
        lay(&root, &Overlay::default());
        assert_eq!(text(&root.join("etc/x.conf")), "same");
        // With other permissions it is not just so.
        let private = LaidWhat::File { content: b"same".to_vec(), mode: Some(0o600), owner: None };
        assert_eq!(lay(&root, &overlay(&[("/etc/x.conf", private)])).paths.len(), 1);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_machine_that_went_off_in_between_loses_nothing() {
        let root = root("off");
        let conf = root.join("etc/x.conf");
        fs::write(&conf, "of the image").unwrap();
        let site = overlay(&[("/etc/x.conf", file("of the site"))]);
        // It has covered what was there, and noted what it does.
        let path = LaidPath::new("/etc/x.conf").unwrap();
        let opened = open_root(&root).unwrap();
        opened.cover(&path).unwrap();
        assert_eq!(text(&conf), "of the image");
        assert_eq!(lay(&root, &site).paths.len(), 1);
        lay(&root, &Overlay::default());
        assert_eq!(text(&conf), "of the image");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn no_link_or_note_of_a_root_leads_out_of_it_and_a_folder_is_told() {
        let outside = root("outside");
        let root = root("hostile");
        fs::write(outside.join("etc/passwd"), "ours").unwrap();
        symlink(outside.join("etc"), root.join("away")).unwrap();
        fs::create_dir_all(root.join("etc/folder")).unwrap();
        let site = overlay(&[
            ("/away/passwd", file("theirs")),
            ("/etc/folder", file("x")),
            ("/etc/good", file("x")),
        ]);
        let done = lay(&root, &site);
        assert!(done.paths.contains(&"/etc/good".to_owned()), "{done:?}");
        assert!(done.troubles.iter().any(|told| told.contains("/etc/folder")), "{done:?}");
        assert_eq!(text(&outside.join("etc/passwd")), "ours");
        // A note that names what was never laid.
        let digest = hex(&content_digest(b"ours"));
        let note = format!("{NOTE_FIRST_LINE}\nfile {digest} /away/passwd\nfile {digest} /../x\n");
        fs::write(root.join("var/lib/bootlace/files"), note).unwrap();
        lay(&root, &Overlay::default());
        assert_eq!(text(&outside.join("etc/passwd")), "ours");
        for path in [&root, &outside] {
            fs::remove_dir_all(path).unwrap();
        }
    }

    #[test]
    fn a_note_that_is_cut_off_names_no_more_than_it_has() {
        let mut note = Note::default();
        note.0.insert("/etc/a".to_owned(), Is::File([1; 32]));
        note.0.insert("/etc/b".to_owned(), Is::Nothing);
        let root = root("note");
        note.write(&open_root(&root).unwrap()).unwrap();
        let text = text(&root.join("var/lib/bootlace/files"));
        assert_eq!(Note::parse(&text), Some(note));
        for end in 0..text.len() {
            assert!(Note::parse(&text[..end]).is_none_or(|note| note.0.len() <= 2), "{end}");
        }
        fs::remove_dir_all(root).unwrap();
    }
}
