//! A disk in memory, for tests and fuzzing.

use crate::block::{Block, Zeroes, check_range};
use std::io;
use std::sync::{PoisonError, RwLock};

/// Bytes in memory as a disk. Nothing is durable.
#[derive(Debug, Default)]
pub struct Memory {
    bytes: RwLock<Vec<u8>>,
}

impl Memory {
    /// A disk that holds these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: RwLock::new(bytes) }
    }
}

impl Block for Memory {
    fn size_bytes(&self) -> u64 {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        check_range(offset, buffer.len() as u64, bytes.len() as u64)?;
        let start = offset as usize;
        buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        check_range(offset, data.len() as u64, bytes.len() as u64)?;
        let start = offset as usize;
        bytes[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn trim(&self, offset: u64, length: u64) -> io::Result<()> {
        self.write_zeroes(offset, length, Zeroes::default())
    }

    fn write_zeroes(&self, offset: u64, length: u64, _how: Zeroes) -> io::Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        check_range(offset, length, bytes.len() as u64)?;
        bytes[offset as usize..(offset + length) as usize].fill(0);
        Ok(())
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn is_durable(&self) -> bool {
        false
    }
}
