//! Reads that don't wait for a disk.

use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a file's kernel driver can say that a read would have to wait.
#[derive(Debug, Default)]
pub(crate) struct CachedReads {
    /// Files in memory can't, and need not.
    is_unsupported: AtomicBool,
}

impl CachedReads {
    /// Fills the buffer from the page cache; `false` if not all of it is there.
    pub(crate) fn read(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        if self.is_unsupported.load(Ordering::Relaxed) {
            return file.read_exact_at(buffer, offset).map(|()| true);
        }
        let wanted = buffer.len();
        match preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
            Ok(count) => Ok(count == wanted),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.is_unsupported.store(true, Ordering::Relaxed);
                self.read(file, buffer, offset)
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_just_written_is_there() {
        // /dev/shm is in memory, the other usually not.
        for folder in ["/dev/shm", "/var/tmp"] {
            let file = tempfile::tempfile_in(folder).unwrap();
            file.write_all_at(&[7; 8192], 0).unwrap();
            let mut buffer = [0; 4096];
            assert!(CachedReads::default().read(&file, &mut buffer, 4096).unwrap(), "{folder}");
            assert_eq!(buffer, [7; 4096]);
        }
    }
}
