//! What is laid over the versions of images, as far as initrds go: a digest of each, known without reading a file.

use images::Store;
use model::ImageName;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Stands for one that can't be read: no initrd is built with it, and the build says why.
const UNREADABLE: &str = "unreadable";

/// Of each version over which something is laid, the digest of that.
#[derive(Debug, Default)]
pub(super) struct Overlays {
    digests: Mutex<HashMap<(ImageName, u32), String>>,
}

impl Overlays {
    /// Those of a store.
    pub(super) fn of(store: &Store) -> Self {
        let overlays = Self::default();
        match store.overlaid() {
            Ok(versions) => {
                for (image, version) in versions {
                    overlays.learn(store, &image, version);
                }
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "what is laid over image versions is not known");
            }
        }
        overlays
    }

    /// Looks at what is laid over a version now.
    pub(super) fn learn(&self, store: &Store, image: &ImageName, version: u32) {
        let digest = match store.overlay_file(image, version) {
            Ok(overlay) => overlay.map(|(_, bytes)| digest(&bytes)),
            Err(_) => Some(UNREADABLE.to_owned()),
        };
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (image.clone(), version);
        match digest {
            Some(digest) => digests.insert(key, digest),
            None => digests.remove(&key),
        };
    }

    /// The digest of what is laid over a version; `None`: nothing.
    pub(super) fn digest(&self, image: &ImageName, version: u32) -> Option<String> {
        let digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        digests.get(&(image.clone(), version)).cloned()
    }
}

/// Names an overlay by its bytes.
pub(super) fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_owned()
}
