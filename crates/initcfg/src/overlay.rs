//! Files that are laid over a root before its system starts: written, linked or removed, while the image stays as it is.
//!
//! The file is a line `bootlace-overlay/1`, entries of lines `key=value` that end with what is laid (`file=LENGTH`, whose bytes and
//! a line feed follow, `link=TARGET` or `remove=`), and a line `end`.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

/// In an initrd: what is laid over the root.
pub const OVERLAY_PATH: &str = "/etc/bootlace-overlay";

/// Longest overlay in bytes: it is loaded at each boot of each machine.
pub const OVERLAY_MAX: usize = 1 << 20;

/// Entries of one overlay.
pub const LAID_MAX: usize = 1024;

/// On a root: digests of the entries that were laid over it, one a line, each with its path.
pub const LAID_NOTE_PATH: &str = "/var/lib/bootlace/laid-over";

/// Longest path or target of a link, as in the kernel.
const PATH_MAX: usize = 4095;

/// Longest sentence about an entry.
const ABOUT_MAX: usize = 512;

/// What the kernel or the running system make, and no root holds.
const NOT_OF_A_ROOT: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];

const FIRST_LINE: &[u8] = b"bootlace-overlay/1\n";
const LAST_LINE: &[u8] = b"end\n";

/// BLAKE3 of a file's content.
pub type ContentDigest = [u8; 32];

/// The digest by which [`OnlyIf::Content`] knows a file.
pub fn content_digest(content: &[u8]) -> ContentDigest {
    *blake3::hash(content).as_bytes()
}

/// All that is laid over a root, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// One for each path.
    pub entries: Vec<Laid>,
}

/// What is laid at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laid {
    /// Where: absolute, and as short as it can be. Links on the way are followed inside the root; one at the end is replaced.
    pub path: LaidPath,
    /// What must be there for it.
    pub only_if: OnlyIf,
    /// What comes in its place.
    pub what: LaidWhat,
    /// Why, in a line for people.
    pub about: String,
}

/// What must be at a path before something is laid there: so a disk that is kept loses nothing that somebody changed on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnlyIf {
    /// Anything, or nothing.
    Any,
    /// Nothing.
    Missing,
    /// A file with this content.
    Content(ContentDigest),
}

/// What is laid at a path.
#[derive(Clone, PartialEq, Eq)]
pub enum LaidWhat {
    /// A file.
    File {
        /// All of it.
        content: Vec<u8>,
        /// Permissions; `None`: those of what was there, or 0644.
        mode: Option<u32>,
        /// User and group; `None`: those of what was there, or root.
        owner: Option<(u32, u32)>,
    },
    /// A symbolic link.
    Link {
        /// Where it leads.
        target: String,
    },
    /// Nothing: a file or link that was there is gone.
    Nothing,
}

impl fmt::Debug for LaidWhat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // It may be a secret.
            Self::File { content, mode, owner } => {
                write!(f, "File({} bytes, {mode:?}, {owner:?})", content.len())
            }
            Self::Link { target } => write!(f, "Link({target})"),
            Self::Nothing => f.write_str("Nothing"),
        }
    }
}

/// A path at which something can be laid: absolute, without `.`, `..`, `//` and control characters, and of a root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaidPath(String);

impl LaidPath {
    /// Takes a path that is one; `None`: it is not.
    pub fn new(path: &str) -> Option<Self> {
        let parts = path.strip_prefix('/')?;
        let is_clean = parts.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let is_of_root = NOT_OF_A_ROOT.iter().all(|folder| {
            path.strip_prefix(folder).is_none_or(|rest| !rest.is_empty() && !rest.starts_with('/'))
        });
        (is_clean && is_of_root && is_line(path, PATH_MAX)).then(|| Self(path.to_owned()))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LaidPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The bytes are not an overlay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverlayError {
    /// They begin otherwise.
    #[error("not a bootlace-overlay/1 file")]
    NotOurs,
    /// There are more than [`OVERLAY_MAX`] bytes, or [`LAID_MAX`] entries.
    #[error(
        "too large: at most {OVERLAY_MAX} bytes and {LAID_MAX} entries can be laid over a root"
    )]
    TooLarge,
    /// The end is missing.
    #[error("it is cut off")]
    CutOff,
    /// A value is missing, wrong, or not known.
    #[error("entry {entry}: {field} is missing or wrong")]
    Field {
        /// Counted from 1.
        entry: usize,
        /// Which.
        field: &'static str,
    },
}

impl Laid {
    fn write(&self, file: &mut Vec<u8>) {
        let Self { path, only_if, what, about } = self;
        let mut lines = format!("path={path}\n");
        // Writing to a String does not fail.
        let _ = match only_if {
            OnlyIf::Any => Ok(()),
            OnlyIf::Missing => writeln!(lines, "was=nothing"),
            OnlyIf::Content(digest) => {
                writeln!(lines, "was={}", blake3::Hash::from_bytes(*digest).to_hex())
            }
        };
        if !about.is_empty() {
            let _ = writeln!(lines, "about={about}");
        }
        if let LaidWhat::File { mode, owner, .. } = what {
            if let Some(mode) = mode {
                let _ = writeln!(lines, "mode={mode:o}");
            }
            if let Some((user, group)) = owner {
                let _ = writeln!(lines, "owner={user}:{group}");
            }
        }
        let _ = match what {
            LaidWhat::File { content, .. } => writeln!(lines, "file={}", content.len()),
            LaidWhat::Link { target } => writeln!(lines, "link={target}"),
            LaidWhat::Nothing => writeln!(lines, "remove="),
        };
        file.extend(lines.as_bytes());
        if let LaidWhat::File { content, .. } = what {
            file.extend(content);
            file.push(b'\n');
        }
    }

    /// Names the entry with all that it is, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        blake3::hash(&bytes).to_hex().as_str().to_owned()
    }
}

impl Overlay {
    /// The file.
    ///
    /// # Errors
    /// It would be too large, or an entry has a text that is none.
    pub fn to_file(&self) -> Result<Vec<u8>, OverlayError> {
        let mut file = FIRST_LINE.to_vec();
        for (at, laid) in self.entries.iter().enumerate() {
            let wrong = |field| OverlayError::Field { entry: at + 1, field };
            if !laid.about.is_empty() && !is_line(&laid.about, ABOUT_MAX) {
                return Err(wrong("about"));
            }
            match &laid.what {
                LaidWhat::Link { target } if !is_line(target, PATH_MAX) => {
                    return Err(wrong("link"));
                }
                LaidWhat::File { mode: Some(0o10000..), .. } => return Err(wrong("mode")),
                _ => {}
            }
            laid.write(&mut file);
        }
        file.extend(LAST_LINE);
        match file.len() > OVERLAY_MAX || self.entries.len() > LAID_MAX {
            true => Err(OverlayError::TooLarge),
            false => Ok(file),
        }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// See [`OverlayError`].
    pub fn parse(file: &[u8]) -> Result<Self, OverlayError> {
        if file.len() > OVERLAY_MAX {
            return Err(OverlayError::TooLarge);
        }
        let mut rest = file.strip_prefix(FIRST_LINE).ok_or(OverlayError::NotOurs)?;
        let mut entries = Vec::new();
        while rest != LAST_LINE {
            if entries.len() == LAID_MAX {
                return Err(OverlayError::TooLarge);
            }
            let (laid, left) = parse_entry(rest, entries.len() + 1)?;
            entries.push(laid);
            rest = left;
        }
        Ok(Self { entries })
    }
}

/// Reads one entry; also returns what is behind it.
fn parse_entry(mut rest: &[u8], entry: usize) -> Result<(Laid, &[u8]), OverlayError> {
    let wrong = |field| OverlayError::Field { entry, field };
    let (mut path, mut only_if, mut about) = (None, OnlyIf::Any, String::new());
    let (mut mode, mut owner) = (None, None);
    let what = loop {
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or(OverlayError::CutOff)?;
        let (line, left) = (&rest[..end], &rest[end + 1..]);
        rest = left;
        let line = core::str::from_utf8(line).map_err(|_| wrong("a line"))?;
        // The last line, before an entry has said what it is.
        let (key, value) = line.split_once('=').ok_or_else(|| wrong("a line"))?;
        match key {
            "path" => path = Some(LaidPath::new(value).ok_or_else(|| wrong("path"))?),
            "was" if value == "nothing" => only_if = OnlyIf::Missing,
            "was" => {
                let digest = blake3::Hash::from_hex(value).map_err(|_| wrong("was"))?;
                only_if = OnlyIf::Content(*digest.as_bytes());
            }
            "about" if is_line(value, ABOUT_MAX) => value.clone_into(&mut about),
            "mode" => {
                let bits = u32::from_str_radix(value, 8).ok().filter(|bits| *bits < 0o10000);
                mode = Some(bits.ok_or_else(|| wrong("mode"))?);
            }
            "owner" => {
                let ids = value.split_once(':');
                let ids = ids.and_then(|(user, group)| user.parse().ok().zip(group.parse().ok()));
                owner = Some(ids.ok_or_else(|| wrong("owner"))?);
            }
            "file" => {
                let length: usize = value.parse().map_err(|_| wrong("file"))?;
                let content = rest.get(..length).ok_or(OverlayError::CutOff)?.to_vec();
                let behind = rest.get(length).ok_or(OverlayError::CutOff)?;
                if *behind != b'\n' {
                    return Err(wrong("file"));
                }
                rest = &rest[length + 1..];
                break LaidWhat::File { content, mode, owner };
            }
            "link" if is_line(value, PATH_MAX) => {
                break LaidWhat::Link { target: value.to_owned() };
            }
            "remove" if value.is_empty() => break LaidWhat::Nothing,
            _ => return Err(wrong("a line")),
        }
    };
    let path = path.ok_or_else(|| wrong("path"))?;
    Ok((Laid { path, only_if, what, about }, rest))
}

fn is_line(text: &str, longest: usize) -> bool {
    !text.is_empty() && text.len() <= longest && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn laid(path: &str, only_if: OnlyIf, what: LaidWhat) -> Laid {
        let path = LaidPath::new(path).unwrap();
        Laid { path, only_if, what, about: "fstab-mount".to_owned() }
    }

    fn example() -> Overlay {
        let content = b"# one\nend\n\xff".to_vec();
        let was = OnlyIf::Content(content_digest(b"old"));
        let file = LaidWhat::File { content, mode: Some(0o4640), owner: Some((0, 42)) };
        let plain = LaidWhat::File { content: Vec::new(), mode: None, owner: None };
        let null = LaidWhat::Link { target: "/dev/null".to_owned() };
        Overlay {
            entries: vec![
                laid("/etc/fstab", was, file),
                laid("/etc/cloud/cloud-init.disabled", OnlyIf::Missing, plain),
                laid("/etc/systemd/system/man-db.timer", OnlyIf::Missing, null),
                laid("/etc/X11/xorg.conf", OnlyIf::Any, LaidWhat::Nothing),
            ],
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for overlay in [example(), Overlay::default()] {
            let file = overlay.to_file().unwrap();
            assert_eq!(Overlay::parse(&file), Ok(overlay));
        }
        let digests: Vec<String> = example().entries.iter().map(Laid::digest).collect();
        let mut changed = example();
        changed.entries[3].only_if = OnlyIf::Missing;
        assert_eq!(changed.entries[0].digest(), digests[0]);
        assert_ne!(changed.entries[3].digest(), digests[3]);
    }

    #[test]
    fn every_prefix_is_an_error() {
        let file = example().to_file().unwrap();
        for end in 0..file.len() {
            assert!(Overlay::parse(&file[..end]).is_err(), "{end}");
        }
        let more = [&file[..], b"x"].concat();
        assert!(Overlay::parse(&more).is_err());
    }

    #[test]
    fn a_path_that_leads_out_or_into_the_running_system_is_none() {
        for path in [
            "",
            "/",
            "etc/fstab",
            "/etc//fstab",
            "/etc/../fstab",
            "/./x",
            "/etc/",
            "/a\nb",
            "/dev/sda",
            "/run",
        ] {
            assert_eq!(LaidPath::new(path), None, "{path:?}");
        }
        assert!(LaidPath::new("/device").is_some() && LaidPath::new("/etc/x y").is_some());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |lines: &str, field| {
            let file = format!("bootlace-overlay/1\n{lines}end\n");
            let expected = OverlayError::Field { entry: 1, field };
            assert_eq!(Overlay::parse(file.as_bytes()), Err(expected), "{lines}");
        };
        check("path=/../x\nremove=\n", "path");
        check("remove=\n", "path");
        check("path=/x\nwas=12\nremove=\n", "was");
        check("path=/x\nmode=9\nremove=\n", "mode");
        check("path=/x\nmode=10000\nremove=\n", "mode");
        check("path=/x\nowner=root\nremove=\n", "owner");
        check("path=/x\nfile=-1\n", "file");
        check("path=/x\nfile=1\nabc\n", "file");
        check("path=/x\nlink=\n", "a line");
        check("path=/x\nunknown=1\nremove=\n", "a line");
        assert_eq!(Overlay::parse(b"x"), Err(OverlayError::NotOurs));
        assert_eq!(Overlay::parse(&vec![b'x'; OVERLAY_MAX + 1]), Err(OverlayError::TooLarge));
        let content = vec![0; OVERLAY_MAX];
        let large = LaidWhat::File { content, mode: None, owner: None };
        let large = Overlay { entries: vec![laid("/x", OnlyIf::Any, large)] };
        assert_eq!(large.to_file(), Err(OverlayError::TooLarge));
        let many = vec![laid("/x", OnlyIf::Any, LaidWhat::Nothing); LAID_MAX + 1];
        assert_eq!(Overlay { entries: many }.to_file(), Err(OverlayError::TooLarge));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, at in 0..600usize, wild: Vec<u8>) {
            let _ = Overlay::parse(&bytes);
            let mut file = example().to_file().unwrap();
            let at = at.min(file.len());
            let end = (at + wild.len()).min(file.len());
            file[at..end].copy_from_slice(&wild[..end - at]);
            // What is taken is written again as it was.
            if let Ok(overlay) = Overlay::parse(&file) {
                let written = overlay.to_file().unwrap();
                prop_assert_eq!(Overlay::parse(&written), Ok(overlay));
            }
        }
    }
}
