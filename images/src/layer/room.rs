//! How much room write layers take: one machine must not fill the disk for all.

use crate::folder::space;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A layer that holds no more than this may take of the room that is kept free: a system that starts writes so much.
const SMALL_LAYER_BYTES: u64 = 32 << 20;

/// How old what is known of the file system may be. In this time a layer is written to at the speed of its disk.
const KNOWN_FOR: Duration = Duration::from_millis(500);

/// Why a layer may not grow, though its file system may have room. It is inside of an [`io::Error`] of the kind
/// `QuotaExceeded` or `StorageFull`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// It holds as much as any layer may.
    #[error("the write layer holds as much as one may")]
    Layer,
    /// What is left is kept for machines that start, for state and for other things.
    #[error("the rest of the disk is kept free")]
    Reserve,
}

/// The room for the layers below one folder.
pub(super) struct Room {
    folder: PathBuf,
    layer_max_bytes: Option<u64>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    at: Option<Instant>,
    /// What layers may take until it is looked at again.
    left_bytes: u64,
}

impl Room {
    pub(super) fn new(folder: &Path, layer_max_bytes: Option<u64>) -> Self {
        Self { folder: folder.to_owned(), layer_max_bytes, known: Mutex::default() }
    }

    /// What one layer may hold; `None` is as much as there is.
    pub(super) const fn layer_max_bytes(&self) -> Option<u64> {
        self.layer_max_bytes
    }

    /// Asks for `more` bytes for a layer that holds so many.
    ///
    /// # Errors
    /// [`NoRoom`], or the operating system does not tell how much room there is.
    pub(super) fn take(&self, held_bytes: u64, more: u64) -> io::Result<()> {
        let will_hold = held_bytes.saturating_add(more);
        if self.layer_max_bytes.is_some_and(|max| will_hold > max) {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, NoRoom::Layer));
        }
        if will_hold <= SMALL_LAYER_BYTES {
            return Ok(());
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.at.is_none_or(|at| at.elapsed() >= KNOWN_FOR) || known.left_bytes < more {
            let space = space(&self.folder)?;
            let left_bytes = space.free_bytes.saturating_sub(space.reserve_bytes);
            *known = Known { at: Some(Instant::now()), left_bytes };
        }
        let Some(left_bytes) = known.left_bytes.checked_sub(more) else {
            return Err(io::Error::new(io::ErrorKind::StorageFull, NoRoom::Reserve));
        };
        known.left_bytes = left_bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(done: io::Result<()>) -> Option<NoRoom> {
        let error = done.err()?;
        error.get_ref().and_then(|error| error.downcast_ref()).copied()
    }

    #[test]
    fn a_layer_grows_to_its_bound_and_no_further() {
        let folder = tempfile::tempdir().unwrap();
        let room = Room::new(folder.path(), Some(1 << 20));
        assert_eq!(why(room.take(0, 1 << 20)), None);
        assert_eq!(why(room.take(1 << 20, 0)), None);
        assert_eq!(why(room.take(1 << 20, 1)), Some(NoRoom::Layer));
        assert_eq!(why(room.take(u64::MAX, 1)), Some(NoRoom::Layer));
    }

    #[test]
    fn what_is_kept_free_is_for_small_layers() {
        let folder = tempfile::tempdir().unwrap();
        let room = Room::new(folder.path(), None);
        let too_much = 1 << 60;
        assert_eq!(why(room.take(0, too_much)), Some(NoRoom::Reserve));
        assert_eq!(why(room.take(0, SMALL_LAYER_BYTES)), None);
        assert_eq!(why(room.take(SMALL_LAYER_BYTES, too_much)), Some(NoRoom::Reserve));
    }
}
