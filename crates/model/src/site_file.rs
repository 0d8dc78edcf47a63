//! Files that are laid over machines' roots: those of the site, of rooms, and of machines.

use crate::names::{MachineName, RoomName};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// On whose machines a file is laid. A room's counts more than the site's, and a machine's more than its room's.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FilesOf {
    /// On all.
    #[default]
    Site,
    /// On those in this room.
    Room(RoomName),
    /// On this one.
    Machine(MachineName),
}

impl FilesOf {
    /// Theirs who are named; `None`: both are.
    pub fn named(room: Option<RoomName>, machine: Option<MachineName>) -> Option<Self> {
        match (room, machine) {
            (None, None) => Some(Self::Site),
            (Some(room), None) => Some(Self::Room(room)),
            (None, Some(machine)) => Some(Self::Machine(machine)),
            (Some(_), Some(_)) => None,
        }
    }

    /// The room, if they are a room's.
    pub const fn room(&self) -> Option<&RoomName> {
        match self {
            Self::Room(room) => Some(room),
            Self::Site | Self::Machine(_) => None,
        }
    }

    /// The machine, if they are a machine's.
    pub const fn machine(&self) -> Option<&MachineName> {
        match self {
            Self::Machine(machine) => Some(machine),
            Self::Site | Self::Room(_) => None,
        }
    }
}

impl fmt::Display for FilesOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site => f.write_str("the site"),
            Self::Room(room) => write!(f, "room {room}"),
            Self::Machine(machine) => write!(f, "machine {machine}"),
        }
    }
}

/// Of the files that could be laid over one machine's root, at each path the one that is, and behind it what it covers, the next
/// first; by path.
pub fn what_counts<T>(files: Vec<T>, place: impl Fn(&T) -> (&str, &FilesOf)) -> Vec<(T, Vec<T>)> {
    let mut files = files;
    files.sort_by(|one, other| {
        let ((path, of), (other_path, other_of)) = (place(one), place(other));
        (path, other_of).cmp(&(other_path, of))
    });
    let mut counts: Vec<(T, Vec<T>)> = Vec::new();
    for file in files {
        match counts.last_mut() {
            Some((first, covered)) if place(first).0 == place(&file).0 => covered.push(file),
            _ => counts.push((file, Vec::new())),
        }
    }
    counts
}

/// Permissions as people write them: `0644`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(u32);

/// User and group as numbers: `0:0`. What they are called only the image knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileOwner(pub u32, pub u32);

/// The text is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFileSetting {
    /// Of permissions.
    #[error("{0:?} are no permissions: write them as 0644")]
    Mode(String),
    /// Of an owner.
    #[error(
        "{0:?} is no owner: write the numbers of user and group as 0:0, as names are not the same in each image"
    )]
    Owner(String),
}

impl FileMode {
    /// The bits; `None`: there are more.
    pub const fn new(bits: u32) -> Option<Self> {
        if bits < 0o10000 { Some(Self(bits)) } else { None }
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl core::str::FromStr for FileMode {
    type Err = BadFileSetting;

    fn from_str(text: &str) -> Result<Self, BadFileSetting> {
        let is_octal = (3..=5).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit());
        let bits = is_octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
        let mode = bits.and_then(Self::new);
        mode.ok_or_else(|| BadFileSetting::Mode(text.chars().take(64).collect()))
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl core::str::FromStr for FileOwner {
    type Err = BadFileSetting;

    fn from_str(text: &str) -> Result<Self, BadFileSetting> {
        let ids = text.split_once(':').and_then(|(user, group)| {
            let number = |text: &str| -> Option<u32> {
                text.bytes().all(|it| it.is_ascii_digit()).then(|| text.parse().ok()).flatten()
            };
            // The largest means "leave it" to the kernel.
            Some((number(user)?, number(group)?)).filter(|(u, g)| *u.max(g) < u32::MAX)
        });
        let (user, group) =
            ids.ok_or_else(|| BadFileSetting::Owner(text.chars().take(64).collect()))?;
        Ok(Self(user, group))
    }
}

impl fmt::Display for FileOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
    }
}

crate::as_text::as_text!(FileMode, FileOwner);

/// A file that is laid over roots, without what is in it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SiteFile {
    /// The room whose file it is.
    pub room: Option<RoomName>,
    /// The machine whose file it is; of neither: it is the site's.
    pub machine: Option<MachineName>,
    /// Where it is laid.
    pub path: String,
    /// `file`, `link`, or `gone`.
    pub kind: SiteFileKind,
    /// Where a link leads.
    pub target: Option<String>,
    /// Length of a file.
    pub size_bytes: Option<u64>,
    /// BLAKE3 of a file that is no secret.
    pub digest: Option<String>,
    /// Its permissions; without, those of what was there, or 0644.
    pub mode: Option<FileMode>,
    /// Its owner; without, that of what was there, or root.
    pub owner: Option<FileOwner>,
    /// It has placeholders for values of the machine.
    pub template: bool,
    /// What is in it is never shown.
    pub secret: bool,
    /// When it was laid so.
    pub changed_unix: u64,
    /// By whom.
    pub changed_by: String,
}

/// What is laid at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SiteFileKind {
    /// A file.
    File,
    /// A symbolic link.
    Link,
    /// Nothing: what the image has there is gone.
    Gone,
}

impl SiteFile {
    /// Whose it is.
    pub fn of(&self) -> FilesOf {
        match (&self.machine, &self.room) {
            (Some(machine), _) => FilesOf::Machine(machine.clone()),
            (None, Some(room)) => FilesOf::Room(room.clone()),
            (None, None) => FilesOf::Site,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;
    use alloc::vec;

    #[test]
    fn a_machines_file_counts_more_than_its_rooms_and_that_more_than_the_sites() {
        let room = || FilesOf::Room("r1".parse().unwrap());
        let machine = || FilesOf::Machine("lab-07".parse().unwrap());
        let files = vec![
            ("/etc/b", FilesOf::Site),
            ("/etc/a", room()),
            ("/etc/a", FilesOf::Site),
            ("/etc/c", machine()),
            ("/etc/a", machine()),
        ];
        let counts = what_counts(files, |(path, of)| (path, of));
        assert_eq!(
            counts,
            [
                (("/etc/a", machine()), vec![("/etc/a", room()), ("/etc/a", FilesOf::Site)]),
                (("/etc/b", FilesOf::Site), vec![]),
                (("/etc/c", machine()), vec![]),
            ]
        );
    }

    #[test]
    fn permissions_and_owners_are_read_as_people_write_them() {
        for (text, bits) in [("644", 0o644), ("0600", 0o600), ("4755", 0o4755), ("00755", 0o755)] {
            assert_eq!(text.parse::<FileMode>().unwrap().bits(), bits);
        }
        assert_eq!("644".parse::<FileMode>().unwrap().to_string(), "0644");
        for text in ["", "9", "888", "77777", "u=rw", "-644", "+644"] {
            assert!(text.parse::<FileMode>().is_err(), "{text}");
        }
        assert_eq!("0:42".parse::<FileOwner>().unwrap(), FileOwner(0, 42));
        for text in ["", "0", "root:root", "0:", ":0", "0:4294967295", "1:2:3", "+1:2"] {
            assert!(text.parse::<FileOwner>().is_err(), "{text}");
        }
    }
}
