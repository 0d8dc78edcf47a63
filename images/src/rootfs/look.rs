//! Looking for single files: what is in a folder, and a file piece by piece.

use super::ext4::error;
use crate::entry::Entry;
use crate::error::RootfsError;

/// So much of a file is in memory at a time.
const PIECE_BYTES: usize = 256 << 10;

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The path with all links resolved.
    pub path: String,
    /// What is in the folder, by name, or the file itself; and how large files are.
    pub entries: Vec<(Entry, Option<u64>)>,
    /// There are more entries than were wanted.
    pub is_cut: bool,
}

/// A file that is read in pieces.
pub struct FileReader {
    pub(super) left_bytes: u64,
    pub(super) path: String,
    pub(super) from: From,
}

pub(super) enum From {
    Ext4(Box<ext4_view::File>),
    Memory(Vec<u8>),
}

impl FileReader {
    /// How much of it was not read yet.
    pub fn left_bytes(&self) -> u64 {
        self.left_bytes
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>, RootfsError> {
        let wanted = self.left_bytes.min(PIECE_BYTES as u64) as usize;
        if wanted == 0 {
            return Ok(None);
        }
        self.left_bytes -= wanted as u64;
        match &mut self.from {
            From::Memory(bytes) => {
                let rest = bytes.split_off(wanted);
                Ok(Some(std::mem::replace(bytes, rest)))
            }
            From::Ext4(file) => {
                let mut piece = vec![0; wanted];
                let mut read = 0;
                while read < wanted {
                    let more = file.read_bytes(&mut piece[read..]).map_err(error(&self.path))?;
                    if more == 0 {
                        let why = "it is shorter than its folder says".to_owned();
                        return Err(RootfsError::Read { path: self.path.clone(), why });
                    }
                    read += more;
                }
                Ok(Some(piece))
            }
        }
    }
}
