//! The one thing that everybody who moves bits agrees on: a random-access block store.

use std::fs::File;
use std::io;
use std::sync::Arc;

/// What is at one place of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// For so many bytes; at least 1.
    pub length: u64,
    /// Nothing is kept there, and it reads as zeroes.
    pub is_hole: bool,
}

/// How a range is zeroed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zeroes {
    /// The space stays allocated, so that a later write finds room.
    pub keep_space: bool,
    /// If it would take as long as writing zeroes, it is not done.
    pub only_fast: bool,
}

/// A disk as seen by an export: bytes at offsets, with explicit durability.
///
/// One that says nothing of writes is read-only: they are refused, and nothing is to be flushed.
///
/// Calls are synchronous and take `&self`; many threads may use one `Block` at once. Two writes that
/// overlap and run at the same time end in some order, byte by byte, but never disturb bytes outside
/// of both. Bounds: every range must lie inside `0..size_bytes()`, else [`io::ErrorKind::InvalidInput`]
/// and nothing is done. A range of length 0 inside the disk is fine and does nothing.
///
/// What an `Ok` promises:
/// - `write_at`, `trim`, `write_zeroes`: later reads (from any thread) see it, and it survives the death
///   of this process.
/// - `flush`: everything acknowledged before the call was entered survives a power cut, unless the block
///   says that nothing durable is promised ([`Block::is_durable`] is `false`).
pub trait Block: Send + Sync {
    /// Size in bytes. While the block is open it changes by [`grow`](Block::grow) only.
    fn size_bytes(&self) -> u64;

    /// Takes over what a file or device has grown by, and returns the size.
    ///
    /// # Errors
    /// What the operating system says.
    fn grow(&self) -> io::Result<u64> {
        Ok(self.size_bytes())
    }

    /// Opens the files that clients will need, if they are not open yet, so that a lack of descriptors is no
    /// surprise to a client that is there.
    ///
    /// # Errors
    /// What the operating system says.
    fn open(&self) -> io::Result<()> {
        Ok(())
    }

    /// Bytes that a write layer takes on this server's disk; 0 of a disk that is none.
    ///
    /// # Errors
    /// What the operating system says about the layer's file.
    fn layer_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }

    /// Fills the whole buffer from `offset`.
    ///
    /// # Errors
    /// Out of range: `InvalidInput`; otherwise what the operating system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Fills the whole buffer from `offset` if that need not wait for a disk; otherwise `false`, and the
    /// buffer holds anything.
    ///
    /// # Errors
    /// Out of range: `InvalidInput`; otherwise what the operating system says.
    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        self.read_at(buffer, offset).map(|()| true)
    }

    /// The file that holds this range at the same offset, if all of it is in one.
    fn file_of(&self, _offset: u64, _length: u64) -> Option<Arc<File>> {
        None
    }

    /// Writes the whole of `data` at `offset`.
    ///
    /// # Errors
    /// Out of range: `InvalidInput`; read-only: `PermissionDenied`; full disk: `StorageFull`.
    fn write_at(&self, _data: &[u8], _offset: u64) -> io::Result<()> {
        Err(read_only_error())
    }

    /// Writes the whole of `data` at `offset` if that need not wait for room; otherwise `false`, and any part of it is
    /// written.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    fn write_at_once(&self, data: &[u8], offset: u64) -> io::Result<bool> {
        self.write_at(data, offset).map(|()| true)
    }

    /// Makes all acknowledged writes durable (a no-op where nothing durable is promised).
    ///
    /// # Errors
    /// After an error the block refuses further writes and flushes: a failed fsync can't be retried.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Writes to the disk what only the server's memory holds, whatever `flush` promises: so that it does
    /// not grow too much.
    ///
    /// # Errors
    /// After an error the block refuses further writes and flushes: a failed fsync can't be retried.
    fn write_back(&self) -> io::Result<()> {
        self.flush()
    }

    /// The client does not need these bytes any longer; they read as zeroes afterwards, or as before.
    ///
    /// # Errors
    /// Out of range: `InvalidInput`; read-only: `PermissionDenied`; full disk: `StorageFull`.
    fn trim(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Err(read_only_error())
    }

    /// Makes the range read as zeroes.
    ///
    /// # Errors
    /// Out of range: `InvalidInput`; read-only: `PermissionDenied`; full disk: `StorageFull`; `Unsupported`
    /// if it can't be done fast and must be.
    fn write_zeroes(&self, _offset: u64, _length: u64, _how: Zeroes) -> io::Result<()> {
        Err(read_only_error())
    }

    /// What is at `offset`, for at most `length` bytes, which is not 0.
    ///
    /// # Errors
    /// Out of range: `InvalidInput`; otherwise what the operating system says.
    fn extent(&self, offset: u64, length: u64) -> io::Result<Extent> {
        check_range(offset, length, self.size_bytes())?;
        Ok(Extent { length, is_hole: false })
    }

    /// How much from `offset` is a hole, for at most `length` bytes: less work than [`extent`](Self::extent),
    /// which may look far ahead for a hole's beginning.
    ///
    /// # Errors
    /// Out of range: `InvalidInput`; otherwise what the operating system says.
    fn hole_at(&self, _offset: u64, _length: u64) -> io::Result<u64> {
        Ok(0)
    }

    /// The range will be read soon. It lies inside the disk.
    fn prefetch(&self, _offset: u64, _length: u64) {}

    /// `true` if every write is refused with `PermissionDenied`.
    fn is_read_only(&self) -> bool {
        true
    }

    /// `false` if `flush` promises nothing: the content is meant to be thrown away (discard layers).
    ///
    /// An AoE target need not sync before it acknowledges such a write.
    fn is_durable(&self) -> bool {
        true
    }
}

/// Checks that `offset..offset + length` lies inside a disk of `size_bytes`.
///
/// # Errors
/// `InvalidInput` naming the range and the size.
pub(crate) fn check_range(offset: u64, length: u64, size_bytes: u64) -> io::Result<()> {
    match offset.checked_add(length) {
        Some(end) if end <= size_bytes => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{length} bytes at {offset} are outside of the disk of {size_bytes} bytes"),
        )),
    }
}

/// The error of a write to something that is read-only.
fn read_only_error() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "the disk is read-only")
}
