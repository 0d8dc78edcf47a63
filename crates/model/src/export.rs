//! What the boot server asks of the storage server, and what it hears back (storage API bodies).

use crate::{BootId, ImageName, MachineName, RootKind, ShelfSlot, WriteMode};
use core::net::Ipv4Addr;
use wire::Mac;

/// The disk that one machine shall see: body of `PUT /v1/exports/{machine}`.
///
/// The same `boot` again changes nothing. Another `boot` begins a new one: connections of the
/// former are closed, and a write layer in mode `discard` is thrown away.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportSpec {
    /// The machine; its name is the NBD export name.
    pub machine: MachineName,
    /// Image of the base disk.
    pub image: ImageName,
    /// Version of the image.
    pub version: u32,
    /// What becomes of the machine's writes.
    pub write_mode: WriteMode,
    /// The boot for which the disk is.
    pub boot: BootId,
    /// How the machine will attach it.
    pub root: RootKind,
    /// Only this address may open the export over NBD.
    pub address: Ipv4Addr,
    /// Only this address may see the export over AoE.
    pub mac: Mac,
    /// AoE address of the export.
    pub shelf_slot: ShelfSlot,
}

/// What was done on an export since the storage server started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExportCounters {
    /// Read requests answered.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Write requests answered.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Flushes answered.
    pub flushes: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Attempts of others to open it.
    pub refused: u64,
    /// AoE frames that were dropped, for any of the following reasons.
    #[serde(default)]
    pub dropped: u64,
    /// Too many waited.
    #[serde(default)]
    pub dropped_full: u64,
    /// They had waited too long.
    #[serde(default)]
    pub dropped_old: u64,
    /// Their sender had written something newer there: they were late copies.
    #[serde(default)]
    pub dropped_stale: u64,
    /// They belonged to a VLAN.
    #[serde(default)]
    pub dropped_vlan: u64,
    /// AoE frames that asked once more for what others at hand did, and were answered with these.
    #[serde(default)]
    pub coalesced: u64,
}

/// An export as it is now: answer of `PUT` and `GET /v1/exports`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExportStatus {
    /// What was asked for.
    pub spec: ExportSpec,
    /// Size of the disk in bytes.
    pub size_bytes: u64,
    /// Open NBD connections.
    pub connections: u32,
    /// Seconds since the machine's last request over NBD or AoE; `None` if there was none.
    pub idle_seconds: Option<u64>,
    /// Bytes that the write layer holds.
    pub layer_bytes: u64,
    /// What was done so far.
    pub counters: ExportCounters,
}

/// What a machine in mode `persistent` stands on: answer of `GET /v1/disks/{machine}`.
///
/// A write layer fits one version only, so the machine stays on it when newer ones are imported.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeptDisk {
    /// Image that its disk was made on.
    pub image: ImageName,
    /// Version of that image.
    pub version: u32,
}
