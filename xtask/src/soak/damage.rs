//! What must be found: a disk loses what was acknowledged, while its machine uses it.

use super::block::{BLOCK_BYTES, Written};
use super::disk::FIRST_BYTE;
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// How a disk is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Damage {
    /// One byte of each block is another one
    Bytes,
    /// Each block is what it was before its last write
    Lost,
}

impl Damage {
    /// Damages each of the first `count` blocks that were written twice in a layer's data file, so that one is left
    /// whatever the machine writes now.
    pub(super) fn happen(self, data: &Path, count: usize) -> Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(data);
        let file = file.with_context(|| format!("opening {}", data.display()))?;
        let mut n_damaged = 0;
        for index in 0..count {
            let offset = FIRST_BYTE + (index * BLOCK_BYTES) as u64;
            let mut bytes = vec![0; BLOCK_BYTES];
            file.read_exact_at(&mut bytes, offset)?;
            let Some(written) = Written::of(&bytes).filter(|it| it.generation > 1) else {
                continue;
            };
            match self {
                Self::Bytes => bytes[BLOCK_BYTES / 2] ^= 1,
                Self::Lost => {
                    bytes = Written { generation: written.generation - 1, ..written }.bytes();
                }
            }
            file.write_all_at(&bytes, offset)?;
            n_damaged += 1;
        }
        ensure!(n_damaged > 0, "nothing was written twice to {}", data.display());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::difference;
    use super::*;

    #[test]
    fn each_block_that_was_written_twice_is_no_longer_what_it_was() {
        let block = |index: u64| Written { machine: 2, block: index, boot: 1, generation: index };
        for damage in [Damage::Bytes, Damage::Lost] {
            let file = tempfile::NamedTempFile::new().unwrap();
            for index in 0..4 {
                let offset = FIRST_BYTE + index * BLOCK_BYTES as u64;
                file.as_file().write_all_at(&block(index).bytes(), offset).unwrap();
            }
            damage.happen(file.path(), 4).unwrap();
            for index in 0..4 {
                let mut found = vec![0; BLOCK_BYTES];
                let offset = FIRST_BYTE + index * BLOCK_BYTES as u64;
                file.as_file().read_exact_at(&mut found, offset).unwrap();
                let difference = difference(&found, &block(index).bytes());
                assert_eq!(difference.is_some(), index > 1, "{damage:?} {index} {difference:?}");
            }
        }
    }
}
