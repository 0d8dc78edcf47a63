//! `owner.toml` in a layer's folder: which machine has had the layer last, beside its name, which another one may have by now.

use super::error::LayerError;
use super::in_place;
use model::DiskOwner;
use std::io;
use std::path::{Path, PathBuf};

/// The file is always that long: it has room for twice as many NICs as a machine may have.
const FILE_BYTES: usize = 512;

/// The machine in the layer's folder; `None` if only an earlier Bootlace has given the layer to somebody, which then has no
/// such file.
///
/// # Errors
/// As [`in_place::read`] and [`in_place::parse`]. An empty file is one that a power cut or a person has emptied: then the layer
/// is not anybody's.
pub(super) fn read(folder: &Path) -> io::Result<Option<DiskOwner>> {
    in_place::read(&path(folder))?.map(|text| in_place::parse(&text)).transpose()
}

/// Keeps the machine in the layer's folder, durably.
///
/// # Errors
/// That can't be written, such as over a folder that is not empty: then what was there is as it was.
pub(super) fn write(folder: &Path, owner: &DiskOwner) -> Result<(), LayerError> {
    // Whoever writes it has been told that it is no file.
    let _ = std::fs::remove_dir(path(folder));
    in_place::write(&path(folder), owner, FILE_BYTES)
}

pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join("owner.toml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Machine, MachineIdentity};

    #[test]
    fn what_is_written_is_read_and_never_longer_or_shorter() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        for n_macs in [Machine::MACS_MAX as u8, 1] {
            let mac = |n| format!("02:00:00:00:00:{n:02x}").parse().unwrap();
            let macs = (0..n_macs).map(mac).collect();
            let owner = DiskOwner { identity: MachineIdentity::new([n_macs; 16]), macs };
            write(folder.path(), &owner).unwrap();
            assert_eq!(read(folder.path()).unwrap(), Some(owner));
            let length = std::fs::metadata(path(folder.path())).unwrap().len();
            assert_eq!(length, FILE_BYTES as u64);
        }
    }

    #[test]
    fn what_is_no_note_is_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let look = || read(folder.path()).map_err(|error| error.to_string());
        let owner = DiskOwner { identity: MachineIdentity::new([7; 16]), macs: Vec::new() };
        for (text, why) in [
            ("", "it is empty"),
            (" \n", "it is empty"),
            ("identity", "it is not what was written there"),
        ] {
            std::fs::write(path(folder.path()), text).unwrap();
            assert_eq!(look(), Err(why.to_owned()), "{text}");
            write(folder.path(), &owner).unwrap();
            assert_eq!(look(), Ok(Some(owner.clone())));
        }
        std::fs::remove_file(path(folder.path())).unwrap();
        std::fs::create_dir(path(folder.path())).unwrap();
        assert_eq!(look(), Err("it is a folder, and not a file".to_owned()));
        write(folder.path(), &owner).unwrap();
        assert_eq!(look(), Ok(Some(owner)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
    }
}
