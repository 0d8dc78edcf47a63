//! What the boot server asks of the storage server, and what it hears back (storage API bodies).

use crate::{
    BootId, BootIdentity, DiskId, DiskKey, DiskMeant, DiskOwner, ImageName, MachineName, RootKind,
    ShelfSlot, WriteMode,
};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use wire::Mac;

/// What the storage server shall give a machine, and to whom: body of `PUT /v1/exports/{disk}`.
///
/// Asked for again for the boot that it is for already, it changes nothing but the key, and whoever has proven himself by the former
/// one stays connected. If another boot of the machine has an export, and this one comes with a key, it becomes the
/// *candidate* in place of an earlier one: the former stays what it is until the candidate is admitted, over NBD by
/// its proof and over AoE by [`Admit`], and the former is silent. Without a key it replaces the former at once.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportOrder {
    /// The disk.
    #[serde(flatten)]
    pub spec: ExportSpec,
    /// By this the boot proves over NBD that it is the machine. `None`: whoever has its address may open it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<DiskKey>,
    /// What replaces the key, for a boot whose machine attaches its disk over TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<Exchange>,
    /// Whatever the machine wrote before is deleted when this boot gets its disk.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub reset: bool,
    /// Which disk a [`reset`](Self::reset) means: another one is not thrown away, and the order is refused. `None`: whichever is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_of: Option<DiskMeant>,
    /// Tells this boot from another one with the same number. `None`: the number does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<BootIdentity>,
    /// The machine has kept a disk before: without [`reset`](Self::reset) it gets that one, or none.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub has_disk: bool,
    /// The machine, of which a persistent disk must be: another one's of that name is not given. `None`: the name decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<DiskOwner>,
    /// How the machine is seen in the storage network; `None`: it has its disk over the network that it boots from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_path: Option<StoragePath>,
}

/// How a machine is seen in a storage network, which it reaches by another of its network cards.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoragePath {
    /// Its address there, if it is known before it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Its other network cards, which may see its disk over AoE as the one that boots may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cards: Vec<Mac>,
}

impl ExportOrder {
    /// An order of which only the disk is known, so that whoever has its address may open it.
    pub const fn new(spec: ExportSpec) -> Self {
        Self {
            spec,
            key: None,
            exchange: None,
            reset: false,
            reset_of: None,
            identity: None,
            has_disk: false,
            owner: None,
            storage_path: None,
        }
    }
}

/// The key came to the machine over the plain network: who proves himself by it is told something inside of TLS, by which
/// he then proves himself. When he has opened the disk by that, the former key is void.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Exchange {
    /// By this the boot proves itself then.
    pub key: DiskKey,
    /// What it is told.
    pub text: String,
}

/// Shows neither.
impl core::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Exchange(secret)")
    }
}

/// The candidate of this boot shall have the machine's disk, if the former boot is silent: body of
/// `POST /v1/exports/{disk}/admit`. If it has it already, nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Admit {
    /// The boot.
    pub boot: BootId,
    /// Tells it from another one with the same number. `None`: the number does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<BootIdentity>,
}

/// The disk that one machine sees in one boot.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportSpec {
    /// The disk; its name is the NBD export name.
    #[serde(rename = "machine")]
    pub disk: DiskId,
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
    /// The machine's address. Without a key only this one may open the export over NBD.
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
    /// AoE frames that were dropped because too many waited.
    #[serde(default)]
    pub dropped_full: u64,
    /// AoE frames that were dropped because they had waited too long.
    #[serde(default)]
    pub dropped_old: u64,
    /// AoE frames that were dropped because their sender had written something newer there: late copies.
    #[serde(default)]
    pub dropped_stale: u64,
    /// AoE frames that were dropped because they belonged to a VLAN.
    #[serde(default)]
    pub dropped_vlan: u64,
    /// AoE frames that asked once more for what others at hand did, and were answered with these.
    #[serde(default)]
    pub coalesced: u64,
    /// Requests that wait for a disk now.
    #[serde(default)]
    pub in_flight: u64,
    /// How long reads took, from their arrival to their reply.
    #[serde(default)]
    pub read_times: Times,
    /// How long writes, zeroes and trims took, from their arrival to their reply.
    #[serde(default)]
    pub write_times: Times,
    /// How long flushes took, from their arrival to their reply.
    #[serde(default)]
    pub flush_times: Times,
}

/// How many requests took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Times {
    /// Entry `i` counts those that took up to [`Times::bound_us`]`(i)` and no entry before; the last one
    /// all others.
    pub counts: [u64; Self::N],
    /// All together, in microseconds.
    pub sum_us: u64,
}

impl Times {
    /// Entries.
    pub const N: usize = 20;

    /// The largest bound of an entry, in microseconds: 4.2 s.
    pub const LONGEST_BOUND_US: u64 = 16 << (Self::N - 2);

    /// Upper bound of entry `index` in microseconds, from 16 µs to 4.2 s; the last entry has none.
    pub const fn bound_us(index: usize) -> Option<u64> {
        if index + 1 < Self::N { Some(16 << index) } else { None }
    }

    /// The entry of a request that took so long.
    pub const fn index(took_us: u64) -> usize {
        let doublings = (u64::BITS - (took_us.saturating_sub(1) >> 4).leading_zeros()) as usize;
        if doublings < Self::N { doublings } else { Self::N - 1 }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// So many of a thousand took at most this long, in microseconds; `None` if that is beyond all bounds,
    /// or nothing was counted.
    pub fn within_us(&self, per_mille: u64) -> Option<u64> {
        let wanted = self.count().saturating_mul(per_mille).div_ceil(1000).max(1);
        let mut sum = 0;
        let found = self.counts.iter().position(|count| {
            sum += count;
            sum >= wanted
        });
        Self::bound_us(found?)
    }
}

/// The file system that holds what machines write: answer of `GET /v1/space`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Space {
    /// Size of the file system.
    pub total_bytes: u64,
    /// What can still be written.
    pub free_bytes: u64,
    /// What large write layers and imports leave free: [`reserve_bytes`](Self::reserve_bytes).
    #[serde(default)]
    pub reserve_bytes: u64,
    /// What one machine's write layer may hold; `None` is as much as there is.
    #[serde(default)]
    pub layer_max_bytes: Option<u64>,
}

/// A server whose disk is larger than 50 GiB keeps so much of it free: the first 32 MiB of 32 machines that start.
const RESERVE_BYTES_MAX: u64 = 1 << 30;

impl Space {
    /// What is kept free of a file system of that size: a fiftieth, and 1 GiB at most.
    pub const fn reserve_bytes(total_bytes: u64) -> u64 {
        let share = total_bytes / 50;
        if share < RESERVE_BYTES_MAX { share } else { RESERVE_BYTES_MAX }
    }

    /// Whether a write layer of that size is, or will soon be, as large as one may be.
    pub fn is_layer_short(&self, layer_bytes: u64) -> bool {
        self.layer_max_bytes.is_some_and(|max| layer_bytes >= max / 10 * 9)
    }

    /// Whether it will be full soon: less than a twentieth is left, and less than 10 GB.
    pub const fn is_short(&self) -> bool {
        self.free_bytes < self.total_bytes / 20 && self.free_bytes < 10_000_000_000
    }
}

/// Which storage server serves: answer of `GET /v1/health`. One of before December 2026 tells nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct StorageHealth {
    /// `ok`.
    pub status: String,
    /// Its process.
    pub pid: Option<u32>,
    /// Its release, as `bootlace --version` says it.
    pub version: String,
    /// What its program and its settings are: another one does the same only if it has the same. Empty if that is not known.
    pub identity: String,
    /// Who has started it.
    pub started_by: Option<StorageStarter>,
}

/// Who has started a storage server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StorageStarter {
    /// A person, or the system's service manager.
    Service,
    /// A `bootlace up` that runs.
    Up,
    /// A `bootlace up` that has died.
    DeadUp,
}

/// Descriptors of the storage server: answer of `GET /v1/descriptors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Descriptors {
    /// How many it may have.
    pub limit: u64,
    /// NBD connections that it has refused for lack of them since it started.
    pub refused_connections: u64,
}

/// Whom the storage server could not serve over NBD since it started, at all of its addresses: answer of `GET /v1/nbd`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NbdRefusals {
    /// Connections that were one too many.
    pub refused_connections: u64,
    /// Replies that were made in small pieces, since other clients did not take theirs.
    pub short_of_memory: u64,
    /// Hosts of which clients were let go in the handshake, since too many were in it; those to which that happened
    /// last.
    #[serde(default)]
    pub let_go: Vec<HostCount>,
    /// Hosts that asked for a disk and did not prove that it is theirs; those that did so last.
    #[serde(default)]
    pub not_proven: Vec<HostCount>,
}

/// How often a host has done something.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HostCount {
    /// Its address.
    pub address: Ipv4Addr,
    /// How often.
    pub count: u64,
    /// The machine in whose name it did so last, if it named one that has a disk.
    #[serde(default)]
    pub machine: Option<MachineName>,
}

/// Writes that wait for something that passes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stall {
    /// Since when, in seconds.
    pub seconds: u64,
    /// How many requests.
    pub requests: u32,
    /// For what, in words that can follow "because".
    pub why: String,
    /// What helps, as an order without a full stop. Storage servers of before December 2026 don't say it.
    #[serde(default)]
    pub remedy: String,
}

/// What shall become of the writes that wait: body of `POST /v1/exports/{disk}/stall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StallVerb {
    /// The writes are tried again at once.
    Resume,
    /// The writes fail, and so do later ones until there is room again, or the machine boots again: it gets errors, and
    /// mostly makes its root read-only.
    Fail,
}

/// An export as it is now: answer of `PUT` and `GET /v1/exports`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExportStatus {
    /// What was asked for, of the boot that has the export.
    pub spec: ExportSpec,
    /// Tells this boot from another one with the same number; `None`: it is not known, or the storage server is older.
    #[serde(default)]
    pub identity: Option<BootIdentity>,
    /// The boot that gets the export when it has proven itself and this one is silent, if there is one.
    #[serde(default)]
    pub candidate: Option<BootId>,
    /// Size of the disk in bytes.
    pub size_bytes: u64,
    /// Open NBD connections.
    pub connections: u32,
    /// Nothing was heard of the machine's kernel for so long that another boot may have the disk. Over NBD an idle kernel is heard,
    /// too, over AoE it is not. `None`: it is not known, soon after a restart, and storage servers of before December 2026 don't say it.
    #[serde(default)]
    pub is_silent: Option<bool>,
    /// Addresses of the storage server to which the open NBD connections were made.
    #[serde(default)]
    pub servers: Vec<Ipv4Addr>,
    /// Seconds since the machine's last request over NBD or AoE; `None` if there was none.
    pub idle_seconds: Option<u64>,
    /// Bytes that the write layer holds.
    pub layer_bytes: u64,
    /// What was done so far.
    pub counters: ExportCounters,
    /// Writes that wait, for instance because the server's disk is full.
    #[serde(default)]
    pub stall: Option<Stall>,
    /// Writes that find no room fail, by [`StallVerb::Fail`]. Storage servers of before December 2026 don't say it.
    #[serde(default)]
    pub fails_writes: bool,
    /// The server's own disk has lost something that the machine had written: the export is read-only until the machine
    /// boots again.
    #[serde(default)]
    pub has_lost_writes: bool,
}

/// What a machine in mode `persistent` stands on: answer of `GET /v1/disks/{disk}`.
///
/// A write layer fits one version only, so the machine stays on it when newer ones are imported.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeptDisk {
    /// Image that its disk was made on.
    pub image: ImageName,
    /// Version of that image.
    pub version: u32,
    /// Random identity of the disk. An earlier storage server does not tell.
    #[serde(default)]
    pub id: Option<String>,
}

/// A disk that a machine keeps, or should have: entry of the answer of `GET /v1/disks`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DiskReport {
    /// The disk.
    #[serde(rename = "machine")]
    pub disk: DiskId,
    /// What it was made on, if that can be read.
    pub stands_on: Option<KeptDisk>,
    /// Why the machine can't have it; `None`: it is there.
    pub trouble: Option<String>,
    /// The machine that has had it last, if that is known.
    #[serde(default)]
    pub owner: Option<DiskOwner>,
    /// A person has said that whoever has the name now is to have it, and gets it at his next boot.
    #[serde(default)]
    pub is_taken_over: bool,
    /// How much the machine has written to it, if that can be read.
    #[serde(default)]
    pub written_bytes: Option<u64>,
    /// When it was begun, in seconds since 1970, if that can be read.
    #[serde(default)]
    pub made_unix: Option<u64>,
    /// Why there is no snapshot of it of the last night; `None`: there is one, nothing was written, or nothing is known.
    #[serde(default)]
    pub no_snapshot: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_belongs_to_the_first_entry_whose_bound_it_keeps() {
        for us in [0, 1, 16, 17, 32, 33, 1000, 4_000_000, 5_000_000, u64::MAX] {
            let index = Times::index(us);
            assert!(Times::bound_us(index).is_none_or(|bound| us <= bound), "{us} in {index}");
            let former = index.checked_sub(1).and_then(Times::bound_us);
            assert!(former.is_none_or(|bound| us > bound), "{us} in {index}");
        }
    }

    #[test]
    fn room_is_short_before_it_is_gone() {
        let gigabytes = |total: u64, free: u64| Space {
            total_bytes: total * 1_000_000_000,
            free_bytes: free * 1_000_000_000,
            reserve_bytes: 0,
            layer_max_bytes: Some(20_000_000_000),
        };
        assert!(gigabytes(100, 4).is_short() && !gigabytes(100, 6).is_short());
        assert!(gigabytes(4000, 9).is_short() && !gigabytes(4000, 11).is_short());
        let space = gigabytes(100, 50);
        assert!(space.is_layer_short(18_000_000_000) && !space.is_layer_short(17_999_999_999));
        let reserve = |gigabytes: u64| Space::reserve_bytes(gigabytes << 30) >> 20;
        assert_eq!((reserve(10), reserve(50), reserve(4000)), (204, 1024, 1024));
    }

    #[test]
    fn shares_of_requests_are_found() {
        let mut times = Times::default();
        assert_eq!(times.within_us(500), None);
        times.counts[0] = 98;
        times.counts[4] = 1;
        times.counts[Times::N - 1] = 1;
        assert_eq!(times.within_us(500), Some(16));
        assert_eq!(times.within_us(980), Some(16));
        assert_eq!(times.within_us(990), Some(256));
        assert_eq!(times.within_us(999), None);
    }
}
