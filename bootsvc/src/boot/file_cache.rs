//! Boot files in memory: each is read once and held once, however many clients fetch it at the same time.

use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Notify, OnceCell};
use tokio::time::timeout;

/// Bytes of kernels and initrds in memory: of those that are being sent, and of those that were. Thirty PCs ask for
/// the same two files. Who asks for one more than fits waits until others have theirs.
const CACHE_BYTES_MAX: usize = 512 << 20;

/// A file larger than this is no kernel and no initrd.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// How often it is looked whether there is room now.
const RETURNED_INTERVAL: Duration = Duration::from_secs(1);

/// The files. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct FileCache {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The one that was asked for last comes first.
    shelf: Mutex<VecDeque<Entry>>,
    held_bytes: AtomicUsize,
    /// Somebody has sent a file, or one could not be read.
    returned: Notify,
}

struct Entry {
    path: PathBuf,
    content: Content,
}

/// Empty while the file is being read.
type Content = Arc<OnceCell<Arc<Held>>>;

/// A file's bytes, and the room that they take.
struct Held {
    bytes: Vec<u8>,
    _room: Room,
}

/// Room for so many bytes, until it is dropped.
struct Room {
    bytes: usize,
    cache: Arc<Inner>,
}

/// A file that somebody sends.
struct Loan {
    /// Until the loan ends.
    held: Option<Arc<Held>>,
    cache: Arc<Inner>,
}

impl FileCache {
    /// The content of the file at `path`, which never changes.
    ///
    /// # Errors
    /// It can't be read, or is too large.
    pub(crate) async fn read(&self, path: &Path) -> io::Result<Bytes> {
        let content = self.content(path);
        let read = async {
            let size = tokio::fs::metadata(path).await?.len();
            if size > FILE_BYTES_MAX {
                return Err(io::Error::other("larger than 256 MiB"));
            }
            let room = self.room(size as usize).await;
            let mut bytes = Vec::with_capacity(size as usize);
            tokio::fs::File::open(path).await?.take(size).read_to_end(&mut bytes).await?;
            Ok((bytes, room))
        };
        self.lend(path, content, read).await
    }

    /// What `make` makes, at most `bytes_max` of it. It is made once for all who ask while somebody has it, and
    /// then again.
    pub(crate) async fn share<E>(
        &self,
        name: &str,
        bytes_max: usize,
        make: impl Future<Output = Result<Vec<u8>, E>>,
    ) -> Result<Bytes, E> {
        let path = Path::new(name);
        self.shelf().retain(|entry| entry.path != path || entry.is_in_use());
        let content = self.content(path);
        let make = async {
            let room = self.room(bytes_max).await;
            Ok((make.await?, room))
        };
        self.lend(path, content, make).await
    }

    /// Lends the content, which the first of all who wait for it reads.
    async fn lend<E>(
        &self,
        path: &Path,
        content: Content,
        read: impl Future<Output = Result<(Vec<u8>, Room), E>>,
    ) -> Result<Bytes, E> {
        let held = content.get_or_try_init(|| async {
            let (bytes, room) = read.await?;
            Ok(Arc::new(Held { bytes, _room: room }))
        });
        match held.await {
            Ok(held) => {
                let (held, cache) = (Some(Arc::clone(held)), Arc::clone(&self.inner));
                Ok(Bytes::from_owner(Loan { held, cache }))
            }
            Err(error) => {
                // Those who wait for it try it in turn; the last of them leaves nothing behind.
                drop(content);
                self.shelf().retain(|entry| entry.path != path || entry.is_in_use());
                Err(error)
            }
        }
    }

    fn content(&self, path: &Path) -> Content {
        let mut shelf = self.shelf();
        let found = shelf.iter().position(|entry| entry.path == path);
        let entry = found
            .and_then(|index| shelf.remove(index))
            .unwrap_or_else(|| Entry { path: path.to_owned(), content: Content::default() });
        let content = Arc::clone(&entry.content);
        shelf.push_front(entry);
        content
    }

    /// Room for so many bytes, of which files make way that nobody sends, the longest unused first.
    async fn room(&self, bytes: usize) -> Room {
        loop {
            let returned = self.inner.returned.notified();
            if let Some(room) = self.room_now(bytes) {
                return room;
            }
            // Who stops waiting for a file says nothing.
            let _ = timeout(RETURNED_INTERVAL, returned).await;
        }
    }

    fn room_now(&self, bytes: usize) -> Option<Room> {
        let mut shelf = self.shelf();
        while self.inner.held_bytes.load(Ordering::Relaxed) + bytes > CACHE_BYTES_MAX {
            let unused = shelf.iter().rposition(|entry| !entry.is_in_use())?;
            shelf.remove(unused);
        }
        // Only here it grows, and the shelf is locked.
        self.inner.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(Room { bytes, cache: Arc::clone(&self.inner) })
    }

    fn shelf(&self) -> std::sync::MutexGuard<'_, VecDeque<Entry>> {
        self.inner.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Whether somebody waits for it or sends it.
    fn is_in_use(&self) -> bool {
        let is_lent = |held: &Arc<Held>| Arc::strong_count(held) > 1;
        Arc::strong_count(&self.content) > 1 || self.content.get().is_some_and(is_lent)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.cache.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.cache.returned.notify_waiters();
    }
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        self.held.as_ref().map_or(&[], |held| &held.bytes)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.held = None;
        self.cache.returned.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinSet;

    const MIB: usize = 1 << 20;

    struct Files {
        cache: FileCache,
        folder: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            Self { cache: FileCache::default(), folder: tempfile::tempdir().unwrap() }
        }

        /// A file of this size, all of it a hole.
        fn add(&self, name: &str, size: usize) -> PathBuf {
            let path = self.folder.path().join(name);
            std::fs::File::create(&path).unwrap().set_len(size as u64).unwrap();
            path
        }

        fn held(&self) -> usize {
            self.cache.inner.held_bytes.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn a_file_is_in_memory_once_for_all_who_ask_at_the_same_time() {
        let files = Files::new();
        let path = files.add("initrd", 16 * MIB);
        let mut asking = JoinSet::new();
        for _ in 0..500 {
            let (cache, path) = (files.cache.clone(), path.clone());
            asking.spawn(async move { cache.read(&path).await.unwrap() });
        }
        let all = asking.join_all().await;
        assert!(
            all.iter().all(|bytes| bytes.as_ptr() == all[0].as_ptr() && bytes.len() == 16 * MIB)
        );
        assert_eq!(files.held(), 16 * MIB);
    }

    #[tokio::test]
    async fn what_nobody_sends_makes_way_and_what_somebody_sends_is_waited_for() {
        let files = Files::new();
        let paths = ["a", "b", "c"].map(|name| files.add(name, 200 * MIB));
        drop(files.cache.read(&paths[0]).await.unwrap());
        let b = files.cache.read(&paths[1]).await.unwrap();
        let c = files.cache.read(&paths[2]).await.unwrap();
        assert_eq!(files.held(), 400 * MIB, "the first made way");
        let soon = Duration::from_millis(100);
        timeout(soon, files.cache.read(&paths[0])).await.unwrap_err();
        let again = tokio::spawn({
            let (cache, path) = (files.cache.clone(), paths[0].clone());
            async move { cache.read(&path).await.unwrap().len() }
        });
        drop(b);
        assert_eq!(timeout(Duration::from_secs(60), again).await.unwrap().unwrap(), 200 * MIB);
        assert_eq!(c.len(), 200 * MIB);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_tried_again_by_the_next() {
        let files = Files::new();
        let path = files.folder.path().join("late");
        files.cache.read(&path).await.unwrap_err();
        assert_eq!((files.held(), files.cache.shelf().len()), (0, 0));
        files.add("late", 10);
        assert_eq!(files.cache.read(&path).await.unwrap().len(), 10);
        let large = files.add("large", FILE_BYTES_MAX as usize + 1);
        let error = files.cache.read(&large).await.unwrap_err();
        assert!(error.to_string().contains("256 MiB"), "{error}");
    }

    #[tokio::test]
    async fn what_is_made_is_shared_while_somebody_has_it() {
        let files = Files::new();
        let made = std::cell::Cell::new(0);
        let share = || {
            files.cache.share("rescue", MIB, async {
                made.set(made.get() + 1);
                tokio::task::yield_now().await;
                Ok::<_, io::Error>(vec![7; 10])
            })
        };
        let (a, b) = tokio::join!(share(), share());
        assert_eq!(
            (a.unwrap(), b.unwrap(), made.get()),
            (vec![7; 10].into(), vec![7; 10].into(), 1)
        );
        share().await.unwrap();
        assert_eq!(made.get(), 2);
    }
}
