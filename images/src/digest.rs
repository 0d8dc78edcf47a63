//! BLAKE3 of a whole disk, of which long zeroes are hashed by all processors.
//!
//! The value of a piece of the tree depends on where it stands (the chunk counter goes into each compression), so that the
//! pieces of a hole can't be hashed once for all; but each can be hashed without those before it.

use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use blake3::{Hash, Hasher};
use std::ops::Range;

/// A disk is hashed in pieces of this size, a power of two; only the last may be shorter.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// Threads at once: more would only wait for memory.
const THREADS_MAX: usize = 8;

/// Pieces that a thread hashes before it is looked whether to stop: a tenth of a second.
const PIECES_PER_THREAD: u64 = 128;

static ZEROES: [u8; PIECE_BYTES] = [0; PIECE_BYTES];

/// The digest of a disk, of which all pieces are told in order.
pub(crate) struct Digest {
    n_threads: usize,
    n_pieces: u64,
    /// Trees of pieces that are complete, the largest first: one for each bit of the number of pieces in them.
    trees: Vec<ChainingValue>,
    /// The last piece: whether it is the right end of all of it is not known yet.
    last: Option<Last>,
}

enum Last {
    /// The only one so far.
    First(Hash, ChainingValue),
    Other(ChainingValue),
}

impl Digest {
    pub(crate) fn new() -> Self {
        let n_threads = std::thread::available_parallelism().map_or(1, |count| count.get());
        Self { n_threads: n_threads.min(THREADS_MAX), n_pieces: 0, trees: Vec::new(), last: None }
    }

    /// How many pieces of zeroes are worth being told at once.
    pub(crate) fn zeroes_max(&self) -> u64 {
        self.n_threads as u64 * PIECES_PER_THREAD
    }

    /// The next piece: [`PIECE_BYTES`] long, or shorter but not empty if it is the last.
    pub(crate) fn piece(&mut self, bytes: &[u8]) {
        let value = value_of(self.n_pieces, bytes);
        match self.n_pieces {
            0 => self.put(Last::First(blake3::hash(bytes), value)),
            _ => self.put(Last::Other(value)),
        }
    }

    /// So many whole pieces of zeroes.
    pub(crate) fn zeroes(&mut self, count: u64) {
        let mut pieces = self.n_pieces..self.n_pieces + count;
        if pieces.start == 0 && count > 0 {
            self.piece(&ZEROES);
            pieces.start = 1;
        }
        let share = (pieces.end - pieces.start).div_ceil(self.n_threads as u64).max(1);
        let shares: Vec<Range<u64>> = (pieces.start..pieces.end)
            .step_by(usize::try_from(share).unwrap_or(usize::MAX))
            .map(|start| start..(start + share).min(pieces.end))
            .collect();
        let values = |share: Range<u64>| share.map(|piece| value_of(piece, &ZEROES)).collect();
        let values: Vec<Vec<ChainingValue>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                shares.into_iter().map(|share| scope.spawn(|| values(share))).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.map(|done| done.unwrap_or_else(|it| std::panic::resume_unwind(it))).collect()
        });
        values.into_iter().flatten().for_each(|value| self.put(Last::Other(value)));
    }

    /// The digest of all pieces.
    pub(crate) fn finish(mut self) -> Hash {
        let (mut right, left) = match self.last {
            None => return blake3::hash(&[]),
            Some(Last::First(hash, _)) => return hash,
            Some(Last::Other(value)) => (value, self.trees.split_off(1)),
        };
        for tree in left.iter().rev() {
            right = merge_subtrees_non_root(tree, &right, Mode::Hash);
        }
        merge_subtrees_root(&self.trees[0], &right, Mode::Hash)
    }

    fn put(&mut self, piece: Last) {
        if let Some(Last::First(_, value) | Last::Other(value)) = self.last.replace(piece) {
            // It is not the end, so that all trees are complete that end with it.
            let mut value = value;
            for _ in 0..self.n_pieces.trailing_zeros() {
                let Some(left) = self.trees.pop() else { break };
                value = merge_subtrees_non_root(&left, &value, Mode::Hash);
            }
            self.trees.push(value);
        }
        self.n_pieces += 1;
    }
}

fn value_of(piece: u64, bytes: &[u8]) -> ChainingValue {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(piece * PIECE_BYTES as u64).update(bytes);
    hasher.finalize_non_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_blake3_wherever_the_zeroes_are_and_whatever_the_length() {
        for n_pieces in 0..=9 {
            for tail in [0, 1, 1024, 4096, PIECE_BYTES - 1] {
                for zeroes in [0..0, 0..n_pieces, 1..n_pieces, 3..n_pieces.min(7)] {
                    let mut disk = vec![0x5a; n_pieces * PIECE_BYTES + tail];
                    let mut digest = Digest::new();
                    let mut piece = 0;
                    while piece < n_pieces {
                        if zeroes.contains(&piece) {
                            disk[piece * PIECE_BYTES..zeroes.end * PIECE_BYTES].fill(0);
                            digest.zeroes((zeroes.end - piece) as u64);
                            piece = zeroes.end;
                        } else {
                            digest.piece(&disk[piece * PIECE_BYTES..][..PIECE_BYTES]);
                            piece += 1;
                        }
                    }
                    if tail > 0 {
                        digest.piece(&disk[n_pieces * PIECE_BYTES..]);
                    }
                    assert!(digest.finish() == blake3::hash(&disk), "{n_pieces} {tail} {zeroes:?}");
                }
            }
        }
    }
}
