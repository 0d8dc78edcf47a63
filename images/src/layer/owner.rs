//! `owner.toml` in a layer's folder: which machine has had the layer last, beside its name, which another one may have by now.

use super::error::LayerError;
use super::in_place;
use model::DiskOwner;
use std::io;
use std::path::{Path, PathBuf};

/// The file is always that long: it has room for twice as many NICs as a machine may have.
const FILE_BYTES: usize = 512;

/// The machine in the layer's folder; `None` if only an earlier Bootlace has given the layer to somebody.
///
/// # Errors
/// As [`in_place::read`].
pub(super) fn read(folder: &Path) -> io::Result<Option<DiskOwner>> {
    in_place::read(&path(folder))
}

/// Keeps the machine in the layer's folder, durably.
pub(super) fn write(folder: &Path, owner: &DiskOwner) -> Result<(), LayerError> {
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
}
