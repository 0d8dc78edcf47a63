//! What machines read of an image version when they boot, so that it is in memory when the next room is
//! switched on.
//!
//! A boot reads some hundred megabytes in small pieces all over the disk, which takes a disk with heads a
//! minute, and in long ones a few seconds.

mod file;
mod traced;

pub(crate) use traced::Traced;

use images::Block;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is remembered and read ahead as one.
const CHUNK_BYTES: u64 = 256 << 10;

/// The most that is remembered of a version: 1 GiB. More would drive out what others need.
const CHUNKS_MAX: usize = 4096;

/// From the beginning of a boot to its end, as a rule.
const BOOT_TIME: Duration = Duration::from_secs(180);

/// A room boots at once: what was read ahead for one machine is still there for the others.
const FRESH_TIME: Duration = Duration::from_secs(600);

/// Chunks that are read in the order of the disk, before the next ones.
const SORTED_CHUNKS: usize = 64;

/// What boots of one version read.
///
/// [`open`](Self::open) it once for a version, and read through a [`Traced`] disk. [`boot_begins`](Self::boot_begins)
/// at each power-on; recording stops by itself. [`end`](Self::end) when the server ends.
pub(crate) struct BootTrace {
    path: PathBuf,
    is_recording: AtomicBool,
    /// A bit for each chunk.
    seen: Vec<AtomicU64>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// In the order in which they were read first.
    chunks: Vec<u32>,
    is_saved: bool,
    /// When the last boot is over, as a rule; `None` if no machine boots.
    ends: Option<Instant>,
    read_ahead: Option<Instant>,
}

impl BootTrace {
    /// The trace that is kept at `path` for a disk of that size; empty if there is none yet.
    pub(crate) fn open(path: PathBuf, size_bytes: u64) -> Self {
        let n_chunks = size_bytes.div_ceil(CHUNK_BYTES);
        let mut chunks = file::read(&path).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), error, "a boot trace can't be used: the next boots record a new one");
            Vec::new()
        });
        chunks.retain(|&chunk| u64::from(chunk) < n_chunks);
        chunks.truncate(CHUNKS_MAX);
        let trace = Self {
            path,
            is_recording: AtomicBool::new(false),
            seen: (0..n_chunks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        for &chunk in &chunks {
            trace.is_first(u64::from(chunk));
        }
        *trace.lock() = State { chunks, is_saved: true, ..State::default() };
        trace
    }

    /// A machine begins to boot: reads ahead what boots read, and records what this one reads besides.
    pub(crate) fn boot_begins(self: &Arc<Self>, block: &Arc<dyn Block>) {
        let now = Instant::now();
        let mut state = self.lock();
        let is_watched = state.ends.replace(now + BOOT_TIME).is_some();
        let is_fresh = state.read_ahead.is_some_and(|last| now - last < FRESH_TIME);
        let mut ahead = Vec::new();
        if !is_fresh {
            state.read_ahead = Some(now);
            ahead.clone_from(&state.chunks);
        }
        self.is_recording.store(true, Ordering::Relaxed);
        drop(state);
        if is_watched && ahead.is_empty() {
            return;
        }
        let (trace, block) = (Arc::clone(self), Arc::clone(block));
        let spawned = std::thread::Builder::new().name("boot-trace".into()).spawn(move || {
            read_ahead(&*block, &ahead);
            drop(block);
            if !is_watched {
                trace.watch();
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for reading ahead");
            self.lock().ends = None;
        }
    }

    /// The server ends: what was recorded is kept.
    pub(crate) fn end(&self) {
        self.lock().ends = Some(Instant::now());
        self.changed.notify_all();
        self.save();
    }

    /// Waits for the end of the last boot, and keeps what was recorded.
    fn watch(&self) {
        let mut state = self.lock();
        while let Some(left) =
            state.ends.and_then(|ends| ends.checked_duration_since(Instant::now()))
            && !left.is_zero()
        {
            state =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.ends = None;
        self.is_recording.store(false, Ordering::Relaxed);
        drop(state);
        self.save();
    }

    fn save(&self) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.is_saved, true) {
            return;
        }
        let chunks = state.chunks.clone();
        drop(state);
        match file::write(&self.path, &chunks) {
            Ok(()) => {
                tracing::info!(path = %self.path.display(), chunks = chunks.len(), "boot trace kept")
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), error = wire::error_chain(&error), "can't keep a boot trace");
            }
        }
    }

    fn note(&self, offset: u64, length: u64) {
        if length == 0 || !self.is_recording.load(Ordering::Relaxed) {
            return;
        }
        for chunk in offset / CHUNK_BYTES..(offset + length).div_ceil(CHUNK_BYTES) {
            if self.is_first(chunk) {
                let mut state = self.lock();
                if state.chunks.len() < CHUNKS_MAX {
                    state.chunks.push(chunk as u32);
                    state.is_saved = false;
                }
            }
        }
    }

    fn is_first(&self, chunk: u64) -> bool {
        let bit = 1 << (chunk % 64);
        let word = self.seen.get((chunk / 64) as usize);
        word.is_some_and(|word| {
            word.load(Ordering::Relaxed) & bit == 0
                && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the chunks in the page cache.
fn read_ahead(block: &dyn Block, chunks: &[u32]) {
    let began = Instant::now();
    let mut buffer = vec![0; CHUNK_BYTES as usize];
    let mut n_read = 0;
    for batch in chunks.chunks(SORTED_CHUNKS) {
        let mut batch = batch.to_vec();
        batch.sort_unstable();
        let ranges = batch.iter().filter_map(|&chunk| {
            let start = u64::from(chunk) * CHUNK_BYTES;
            let length = CHUNK_BYTES.min(block.size_bytes().checked_sub(start)?);
            Some((start, length))
        });
        for (start, length) in ranges {
            let piece = &mut buffer[..length as usize];
            // An error is told to the machine that reads there.
            if !block.read_cached(piece, start).unwrap_or(true)
                && block.read_at(piece, start).is_ok()
            {
                n_read += 1;
            }
        }
    }
    if n_read > 0 {
        let seconds = began.elapsed().as_secs_f32();
        tracing::info!(
            mib = (n_read * CHUNK_BYTES) >> 20,
            seconds,
            "read ahead for booting machines"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use images::RawFile;
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    const SIZE_BYTES: u64 = 64 << 20;

    fn disk(folder: &Path) -> Arc<dyn Block> {
        let path = folder.join("disk");
        if !path.exists() {
            let file = File::create(&path).unwrap();
            file.write_all_at(&vec![7; SIZE_BYTES as usize], 0).unwrap();
            file.sync_all().unwrap();
        }
        Arc::new(RawFile::open(&path).unwrap())
    }

    #[test]
    fn what_a_boot_read_is_in_memory_for_the_next() {
        // Not in a folder that is memory itself.
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = folder.path().join("trace");
        let read = [(40 << 20, 4096), (3 << 20, 512 << 10), (SIZE_BYTES - 512, 512)];
        let mut buffer = vec![0; 512 << 10];

        let block = disk(folder.path());
        let trace = Arc::new(BootTrace::open(path.clone(), SIZE_BYTES));
        let traced = Traced::new(Arc::clone(&block), Arc::clone(&trace));
        traced.read_at(&mut buffer[..4096], 0).unwrap();
        trace.boot_begins(&block);
        for (offset, length) in read {
            traced.read_at(&mut buffer[..length], offset).unwrap();
        }
        trace.end();
        assert_eq!(file::read(&path).unwrap(), [160, 12, 13, 255], "and nothing from before");

        let file = File::open(folder.path().join("disk")).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        if block.read_cached(&mut buffer[..4096], 40 << 20).unwrap() {
            // A file system that is memory itself.
            return;
        }
        let trace = Arc::new(BootTrace::open(path, SIZE_BYTES));
        trace.boot_begins(&block);
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut is_there = |(offset, length): (u64, usize)| {
            block.read_cached(&mut buffer[..length], offset).unwrap()
        };
        while !read.into_iter().all(&mut is_there) {
            assert!(Instant::now() < deadline, "it is not read ahead");
            std::thread::sleep(Duration::from_millis(10));
        }
        trace.end();
    }

    #[test]
    fn a_damaged_trace_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        for text in ["", "{}", "[1]", "{\"chunk_bytes\":1,\"chunks\":[]}"] {
            fs::write(&path, text).unwrap();
            assert!(BootTrace::open(path.clone(), SIZE_BYTES).lock().chunks.is_empty(), "{text}");
        }
        fs::write(&path, "{\"chunk_bytes\":262144,\"chunks\":[1,4000000000]}").unwrap();
        assert_eq!(
            BootTrace::open(path, SIZE_BYTES).lock().chunks,
            [1],
            "the disk is not so large"
        );
    }
}
