//! The file in which the export table is kept.

use super::ExportError;
use model::ExportSpec;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TableFile {
    #[serde(default)]
    export: Vec<ExportSpec>,
}

/// The exports in the table; none if there is no file yet.
pub(super) fn read(path: &Path) -> Result<Vec<ExportSpec>, ExportError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(ExportError::Table { action: "read", path: path.into(), source });
        }
    };
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

/// Replaces the file as a whole: after a power cut there is the old one or the new one.
fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}
