//! What is in a backup.

use super::BackupError;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// The newest format that this program reads.
const FORMAT: u32 = 2;

/// The format of a backup without authority, which versions before read, too.
const FORMAT_WITHOUT_AUTHORITY: u32 = 1;

/// Files of the pages' own authority, by their names in a backup: its certificate and its key.
pub const AUTHORITY_FILES: [&str; 2] = ["web/authority.pem", "web/authority-key.pem"];

/// Longest manifest; one names a handful of files.
pub(super) const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// Files of a backup.
const FILES_MAX: usize = 64;

/// Size of a file that is not the database.
const SMALL_BYTES_MAX: u64 = 16 << 20;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    /// Format of the backup: 2 if the pages' own authority is in it, and else 1.
    pub format: u32,
    /// When it was made, seconds since 1970.
    pub made_unix: u64,
    /// Version of the Bootlace that made it.
    pub bootlace: String,
    /// Its files, in their order.
    pub files: Vec<BackupFile>,
}

/// What a file of a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `bootlace.toml`.
    Configuration,
    /// A file that the configuration names, such as a key.
    File,
    /// The database.
    Database,
    /// Of the pages' own authority, below the state.
    Authority,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BackupFile {
    /// Its name in the archive.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Where it was, if the configuration names it: an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Its size.
    pub size_bytes: u64,
    /// BLAKE3 of its content in hexadecimal.
    pub blake3: String,
    /// Who may do what with it, as `chmod` takes it.
    pub mode: u32,
    /// Name of its group, if that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

impl Manifest {
    /// One that is made now.
    pub fn new(made_unix: u64, files: Vec<BackupFile>) -> Self {
        let has_authority = files.iter().any(|file| file.kind == Kind::Authority);
        let format = if has_authority { FORMAT } else { FORMAT_WITHOUT_AUTHORITY };
        Self { format, made_unix, bootlace: env!("CARGO_PKG_VERSION").to_owned(), files }
    }

    /// Of what one kind of file there is in it, the first.
    pub fn find(&self, kind: Kind) -> Option<&BackupFile> {
        self.files.iter().find(|file| file.kind == kind)
    }

    /// Bytes of all files together.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).fold(0, u64::saturating_add)
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self, BackupError> {
        #[derive(serde::Deserialize)]
        struct Format {
            format: u32,
        }
        let wrong = |why: String| BackupError::Manifest(why);
        let Format { format } =
            serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
        if format > FORMAT {
            return Err(BackupError::Newer { found: format, known: FORMAT });
        }
        let manifest: Self =
            serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
        manifest.check().map_err(wrong)?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        if self.files.len() > FILES_MAX {
            return Err(format!("it names {} files", self.files.len()));
        }
        let n_databases = self.files.iter().filter(|file| file.kind == Kind::Database).count();
        if n_databases != 1 {
            return Err(format!("it names {n_databases} databases"));
        }
        let mut names = BTreeSet::new();
        for file in &self.files {
            let name = &file.name;
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte);
            if name.is_empty() || name.len() > 90 || !name.bytes().all(is_plain) {
                return Err(format!("a file is called {name:?}"));
            }
            if !names.insert(name) {
                return Err(format!("{name} is in it twice"));
            }
            if file.kind != Kind::Database && file.size_bytes > SMALL_BYTES_MAX {
                return Err(format!("{name} has {} bytes", file.size_bytes));
            }
            if file.kind == Kind::Authority && !AUTHORITY_FILES.contains(&name.as_str()) {
                return Err(format!("{name} is no file of an authority"));
            }
            let is_fit = match &file.path {
                Some(path) => file.kind == Kind::File && is_canonical(path),
                None => file.kind != Kind::File,
            };
            if !is_fit {
                return Err(format!("{name} has no place of its own"));
            }
        }
        Ok(())
    }
}

fn is_canonical(path: &Path) -> bool {
    path.is_absolute()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}
