//! One exported disk: what it is called, who uses it, and the disk with all that is done on the way to it.

mod budget;
mod connections;
mod counted;
mod counters;
mod heard;
mod stall;

pub(crate) use connections::{Connection, Connections, Generation};
pub(crate) use counters::{Counters, Dropped, InFlight, Reads};

use budget::Budgeted;
use counted::Counted;
use images::{Block, LayerMode};
use model::{ExportSpec, ExportStatus};
use stall::{Patient, Stalls};
use std::sync::Arc;
use std::time::Instant;

/// A disk as clients use it: what is done is counted; what is written may fill memory up to a budget; and it
/// waits while the server's own disk is full.
pub(crate) type Disk = Counted<Budgeted<Patient<Arc<dyn Block>>>>;

/// What clients and logs call an export.
pub(crate) struct Label {
    pub(crate) name: String,
    /// A line for people.
    pub(crate) description: String,
}

/// A disk that one machine sees in one boot, or that is shared.
pub(crate) struct Export {
    pub(crate) label: Label,
    pub(crate) disk: Disk,
    pub(crate) counters: Arc<Counters>,
    pub(crate) connections: Arc<Connections>,
    /// What waits for room on the server's disk.
    pub(crate) stalls: Arc<Stalls>,
}

impl Export {
    pub(crate) fn new(label: Label, disk: Arc<dyn Block>) -> Self {
        let counters = Arc::<Counters>::default();
        let connections = Arc::<Connections>::default();
        let stalls = Arc::new(Stalls::new(label.name.clone()));
        let disk = Patient::new(disk, Arc::clone(&stalls), Arc::clone(&connections));
        let disk = Budgeted::new(disk, Arc::clone(&connections));
        let disk =
            Counted::new(disk, label.name.clone(), Arc::clone(&counters), Arc::clone(&connections));
        Self { label, disk, counters, connections, stalls }
    }

    pub(crate) fn status(&self, spec: &ExportSpec) -> ExportStatus {
        ExportStatus {
            spec: spec.clone(),
            identity: None,
            candidate: None,
            size_bytes: self.disk.size_bytes(),
            connections: self.connections.count(),
            is_silent: None,
            servers: self.connections.servers(),
            idle_seconds: self.counters.idle().map(|idle| idle.as_secs()),
            layer_bytes: self.disk.layer_bytes().unwrap_or(0),
            counters: self.counters.snapshot(),
            stall: self.stalls.status(),
            fails_writes: self.stalls.are_failed(),
            // Without a layer nothing is written in the first place.
            has_lost_writes: LayerMode::of(spec.write_mode).is_some() && self.disk.is_read_only(),
        }
    }

    /// Waits for all connections to leave when the server ends, which [`Connections::begin_close`] told them
    /// at `since`; then makes durable what is to last.
    pub(crate) fn finish_last_close(&self, since: Instant) {
        let export = &self.label.name;
        if !self.connections.finish_close(since) {
            tracing::error!(export, "requests are still waiting for the disk");
        } else if let Err(error) = self.disk.flush() {
            tracing::error!(export, %error, "last flush failed");
        }
    }
}
