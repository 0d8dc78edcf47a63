//! Compressing all parts of an initrd side by side.

use super::cache::Cache;
use crate::BuildError;
use crate::codec::{self, Effort};
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Something to compress.
pub(super) struct Piece<'a> {
    /// For errors.
    pub(super) name: &'a str,
    pub(super) plain: &'a [u8],
    pub(super) effort: Effort,
}

/// Compresses all on all processors; the results are in the order of the input.
pub(super) fn compress_all(
    pieces: &[Piece<'_>],
    cache: Option<&Path>,
) -> Result<Vec<Vec<u8>>, BuildError> {
    let cache = cache.map(Cache::new);
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, io::Result<Vec<u8>>)>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((at, piece)) = take(&next, pieces) {
                    let result = match &cache {
                        Some(cache) => cache.compress(piece.plain, piece.effort),
                        None => codec::compress(piece.plain, piece.effort),
                    };
                    results.lock().expect("no thread panics with the lock").push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no thread panics with the lock");
    results.sort_by_key(|&(at, _)| at);
    let named = results.into_iter().map(|(at, result)| {
        result.map_err(|source| BuildError::Read { what: pieces[at].name.to_owned(), source })
    });
    named.collect()
}

fn take<'a, 'b>(next: &AtomicUsize, pieces: &'a [Piece<'b>]) -> Option<(usize, &'a Piece<'b>)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    pieces.get(at).map(|piece| (at, piece))
}
