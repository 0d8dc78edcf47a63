//! The file in which the export table is kept.

use super::ExportError;
use model::ExportSpec;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Addresses and MACs of machines, and in the file beside it their keys, are nobody else's business.
const OWNER_ONLY: u32 = 0o600;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TableFile {
    #[serde(default)]
    export: Vec<ExportSpec>,
}

/// The exports in the table; none if there is no file yet.
pub(super) fn read(path: &Path) -> Result<Vec<ExportSpec>, ExportError> {
    let Some(text) = read_text(path)? else { return Ok(Vec::new()) };
    let file: TableFile = toml::from_str(&text).map_err(|error| ExportError::Damaged {
        path: path.into(),
        why: error.message().to_owned(),
    })?;
    Ok(file.export)
}

/// Keeps these exports in place of the former ones.
pub(super) fn write(path: &Path, export: Vec<ExportSpec>) -> Result<(), ExportError> {
    let failed = |source| ExportError::Table { action: "write", path: path.into(), source };
    let text =
        toml::to_string(&TableFile { export }).map_err(|error| failed(io::Error::other(error)))?;
    write_durably(path, text.as_bytes()).map_err(failed)
}

/// What is in a file; `None` if there is none yet.
pub(super) fn read_text(path: &Path) -> Result<Option<String>, ExportError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ExportError::Table { action: "read", path: path.into(), source }),
    }
}

/// Replaces the file as a whole: after a power cut there is the old one or the new one. Only its owner can
/// read it.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(OWNER_ONLY).open(&new)?;
    // A leftover may have had another mode.
    file.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}
