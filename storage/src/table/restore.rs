//! Exports of the table that are made again after a restart: as soon as their disks are there.

use super::{Absent, Assigned, ExportError, Exports, When};
use images::{Expected, LayerMode};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How often it is looked whether what was missing is there: a person has mounted it, and waits.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

impl Exports {
    /// Makes the export of a machine that runs again. What is missing is made for no boot: the machine would find
    /// another disk under its file system. It stays in the table until it is there, or the machine boots.
    pub(super) fn restore(&self, absent: Absent, is_first: bool) {
        let disk = absent.spec.disk.clone();
        let taken = match self.other_at_address(&absent.spec) {
            Some(other) => Err(ExportError::address_taken(&other.spec)),
            None => Ok(()),
        };
        let has_layer = LayerMode::of(absent.spec.write_mode).is_some();
        let is_here = if has_layer { self.check_place() } else { Ok(()) };
        let made = taken
            .and(is_here)
            .and_then(|()| self.make(&absent.spec, absent.identity, When::Runs, Expected::There));
        match made {
            Ok(export) => {
                tracing::info!(%disk, "export restored");
                let Absent { spec, key, exchange, identity, path } = absent;
                let restored = Assigned::new((spec, path), key, export, self.aoe_mac);
                let restored = Assigned { exchange, identity, is_restored: true, ..restored };
                let mut held = self.write();
                held.absent.remove(&disk);
                held.exports.insert(disk.clone(), restored);
                drop(held);
                self.announce(&disk);
            }
            Err(error) => {
                if is_first {
                    let error = wire::error_chain(&error);
                    tracing::error!(%disk, error, "the export could not be restored");
                }
                self.write().absent.insert(disk, absent);
            }
        }
    }

    /// Tries again to make exports of which something was missing. Never ends.
    pub(crate) async fn restore_absent(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RETRY_INTERVAL).await;
            if self.read().absent.is_empty() || self.is_closing() {
                continue;
            }
            let exports = Arc::clone(&self);
            let tried = tokio::task::spawn_blocking(move || {
                let _change = exports.change.lock().unwrap_or_else(PoisonError::into_inner);
                let absent = std::mem::take(&mut exports.write().absent);
                absent.into_values().for_each(|one| exports.restore(one, false));
                exports.kept.keep();
            });
            if let Err(error) = tried.await {
                tracing::error!(%error, "exports could not be restored");
            }
        }
    }
}
