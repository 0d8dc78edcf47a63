//! The file in which a trace is kept.

use super::CHUNK_BYTES;
use std::fs;
use std::io;
use std::path::Path;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TraceFile {
    chunk_bytes: u64,
    chunks: Vec<u32>,
}

/// The chunks of a trace in the order in which they were read first; none if there is no file. In words
/// what is wrong with it.
pub(super) fn read(path: &Path) -> Result<Vec<u32>, String> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
    };
    let file: TraceFile = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    match file.chunk_bytes {
        CHUNK_BYTES => Ok(file.chunks),
        other => Err(format!("its chunks have {other} bytes")),
    }
}

/// Replaces the file as a whole. After a power cut it may be gone, which costs a slow boot.
pub(super) fn write(path: &Path, chunks: &[u32]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = TraceFile { chunk_bytes: CHUNK_BYTES, chunks: chunks.to_vec() };
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(&file)?)?;
    fs::rename(&new, path)
}
