//! The file in which the export table is kept.

use super::ExportError;
use model::ExportSpec;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Files are a multiple of this long: what is written next mostly is no longer. A room's table takes 10 KiB.
const STEP_BYTES: usize = 64 << 10;

/// No file is longer: 4,000 exports of 2 KiB, several times.
const TEXT_BYTES_MAX: u64 = 64 << 20;

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
    images::read_small(path, TEXT_BYTES_MAX).map_err(|source| ExportError::Table {
        action: "read",
        path: path.into(),
        source,
    })
}

/// Replaces the file as a whole: after a power cut there is the old one or the new one. Only its owner can
/// read it.
///
/// The two change places, and the former one is overwritten the next time: so a full disk does not keep the table from
/// being written, and a machine whose root needs no room boots.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let new = path.with_extension("new");
    let padded = padded(bytes);
    overwrite(&new, &padded)?;
    match renameat_with(CWD, &new, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        // It is the first, or the file system can't do that.
        Err(_) => fs::rename(&new, path)?,
    }
    File::open(folder)?.sync_all()?;
    // If there is room, the other one is as long now, so that it takes what is written next.
    if fs::metadata(&new).map_or(0, |file| file.len()) < padded.len() as u64 {
        let _ = overwrite(&new, &padded);
    }
    Ok(())
}

/// The text, and behind it one line of blanks, which takes room for what comes later and which readers pass over.
fn padded(text: &[u8]) -> Vec<u8> {
    let mut padded = text.to_vec();
    padded.resize((text.len() + 1).next_multiple_of(STEP_BYTES) - 1, b' ');
    padded.push(b'\n');
    padded
}

/// Writes a file of that content, in the place of what was in it.
fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(false).mode(OWNER_ONLY).open(path)?;
    // A leftover may have had another mode.
    file.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    #[test]
    fn what_is_kept_can_be_read_by_people() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exports.toml");
        write_durably(&path, b"n = 1\n").unwrap();
        let text = read_text(&path).unwrap().unwrap();
        assert_eq!(
            (text.len(), text.lines().count()),
            (STEP_BYTES, 2),
            "no screens of blank lines"
        );
        assert_eq!(toml::from_str::<toml::Table>(&text).unwrap().len(), 1);
        assert_eq!(text.trim(), "n = 1");
    }

    #[test]
    fn a_table_is_written_on_a_full_disk() {
        let folder = tempfile::tempdir().unwrap();
        // Mounts of this thread only.
        unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root");
        let none: Option<&Path> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(none, folder.path(), Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
        let path = folder.path().join("exports.toml");
        write_durably(&path, b"first = 1\n").unwrap();
        let filler = File::create(folder.path().join("filler")).unwrap();
        let full = std::iter::repeat_with(|| (&filler).write_all(&[1; 4096])).find_map(Result::err);
        assert_eq!(full.unwrap().kind(), io::ErrorKind::StorageFull);
        for n in 0..9 {
            let text = format!("n = {n}\n{}", "# as long as a room's table\n".repeat(n * 200));
            write_durably(&path, text.as_bytes()).unwrap();
            let kept = read_text(&path).unwrap().unwrap();
            assert!(kept.starts_with(text.trim_end()) && kept.len() == STEP_BYTES, "{n}");
        }
        let longer = vec![b'#'; 2 * STEP_BYTES];
        assert!(write_durably(&path, &longer).is_err(), "that needs room");
        assert!(read_text(&path).unwrap().unwrap().starts_with("n = 8"), "it is as it was");
    }
}
