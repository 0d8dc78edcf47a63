//! What machines write: blocks that say whose they are, where they belong, in which boot they were written, and which
//! version of the block it is.

use std::fmt::{self, Display, Formatter};

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 4096;

/// Stands in front of what we have written.
const MAGIC: u64 = 0x736f_616b_2062_6c6b;

/// Who wrote what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Number of the machine.
    pub(super) machine: u64,
    /// Place on its disk, counted in blocks.
    pub(super) block: u64,
    /// In which boot.
    pub(super) boot: u64,
    /// How often the block was written before.
    pub(super) generation: u64,
}

impl Written {
    /// The block's content.
    pub(super) fn bytes(self) -> Vec<u8> {
        let head = [MAGIC, self.machine, self.block, self.boot, self.generation];
        let mut state = head.iter().fold(0, |state, word| next(state ^ word));
        let mut bytes = Vec::with_capacity(BLOCK_BYTES);
        head.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        while bytes.len() < BLOCK_BYTES {
            state = next(state);
            bytes.extend(state.to_le_bytes());
        }
        bytes
    }

    /// What a block says of itself; `None` if it is none of ours.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let word = |index: usize| Some(u64::from_le_bytes(*bytes.as_chunks::<8>().0.get(index)?));
        let written =
            Self { machine: word(1)?, block: word(2)?, boot: word(3)?, generation: word(4)? };
        (word(0)? == MAGIC).then_some(written)
    }
}

impl Display for Written {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { machine, block, boot, generation } = self;
        write!(out, "block {block} of machine {machine}, boot {boot}, generation {generation}")
    }
}

/// A good mix of all bits (SplitMix64).
fn next(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Compares a block with what it should be; the difference in words.
pub(super) fn difference(found: &[u8], wanted: &[u8]) -> Option<String> {
    let at = (0..wanted.len().max(found.len())).find(|&at| found.get(at) != wanted.get(at))?;
    let said =
        |bytes| Written::of(bytes).map_or("what no machine wrote".into(), |it| it.to_string());
    Some(format!("differs from byte {at} on: it is {}, not {}", said(found), said(wanted)))
}

/// Numbers that follow from a seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(next(seed))
    }

    /// A number below `count`.
    pub(super) fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (next(self.0) % count as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_another_place_time_or_machine_is_seen_and_named() {
        let wanted = Written { machine: 2, block: 7, boot: 5, generation: 9 };
        let bytes = wanted.bytes();
        assert_eq!((bytes.len(), difference(&bytes, &wanted.bytes())), (BLOCK_BYTES, None));
        for other in [
            Written { machine: 3, ..wanted },
            Written { block: 8, ..wanted },
            Written { boot: 4, ..wanted },
            Written { generation: 8, ..wanted },
        ] {
            let said = difference(&other.bytes(), &bytes).unwrap();
            assert!(said.contains(&format!("it is {other}, not {wanted}")), "{said}");
        }
        let mut wrong = bytes.clone();
        wrong[BLOCK_BYTES - 1] ^= 1;
        assert!(difference(&wrong, &bytes).unwrap().starts_with("differs from byte 4095 on"));
        let said = difference(&bytes, &[0; BLOCK_BYTES]).unwrap();
        assert!(said.ends_with("not what no machine wrote"), "{said}");
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..32).map(move |_| random.below(13)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }
}
