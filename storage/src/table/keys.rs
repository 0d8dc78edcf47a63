//! The file in which the keys of disks are kept, and the boots that wait for one: a file of its own, so that
//! an earlier Bootlace can still read the table.

use super::ExportError;
use super::file::{read_text, write_durably};
use model::{
    BootId, BootIdentity, DiskId, DiskKey, DiskMeant, DiskOwner, Exchange, ExportOrder, ExportSpec,
    StoragePath,
};
use std::io;
use std::path::{Path, PathBuf};

/// What the file holds.
#[derive(Default, serde::Serialize)]
pub(super) struct Keys {
    pub(super) key: Vec<Key>,
    pub(super) candidate: Vec<Waiting>,
    pub(super) identity: Vec<Identity>,
    pub(super) path: Vec<InStorageNetwork>,
}

/// How it is read: what a later Bootlace has written and this one does not know is left out.
#[derive(Default, serde::Deserialize)]
struct File {
    #[serde(default)]
    key: Vec<Key>,
    #[serde(default)]
    candidate: Vec<toml::Value>,
    #[serde(default)]
    identity: Vec<Identity>,
    #[serde(default)]
    path: Vec<InStorageNetwork>,
}

/// The key of an export of the table. If that is for another boot by now, the key is of no use any more.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Key {
    #[serde(rename = "machine")]
    pub(super) disk: DiskId,
    pub(super) boot: BootId,
    pub(super) key: DiskKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) exchange: Option<Exchange>,
}

/// Tells the boot of an export of the table from others with its number.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Identity {
    #[serde(rename = "machine")]
    pub(super) disk: DiskId,
    pub(super) boot: BootId,
    pub(super) identity: BootIdentity,
}

/// How the machine of an export of the table is seen in the storage network.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct InStorageNetwork {
    #[serde(rename = "machine")]
    pub(super) disk: DiskId,
    pub(super) boot: BootId,
    #[serde(flatten)]
    pub(super) path: StoragePath,
}

/// A candidate.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Waiting {
    key: Option<DiskKey>,
    #[serde(default)]
    reset: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exchange: Option<Exchange>,
    #[serde(default)]
    has_disk: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<BootIdentity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<DiskOwner>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reset_of: Option<DiskMeant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    storage_path: Option<StoragePath>,
    spec: ExportSpec,
}

impl From<ExportOrder> for Waiting {
    fn from(order: ExportOrder) -> Self {
        let ExportOrder { spec, key, exchange, reset, reset_of, .. } = order;
        let ExportOrder { identity, has_disk, owner, storage_path, .. } = order;
        Self { key, reset, exchange, has_disk, identity, owner, reset_of, storage_path, spec }
    }
}

impl From<Waiting> for ExportOrder {
    fn from(waiting: Waiting) -> Self {
        let Waiting { key, reset, exchange, reset_of, spec, .. } = waiting;
        let Waiting { has_disk, identity, owner, storage_path, .. } = waiting;
        Self { spec, key, exchange, reset, reset_of, identity, has_disk, owner, storage_path }
    }
}

impl Keys {
    /// The keys that belong to this table; none if there is no file yet.
    pub(super) fn read(table: &Path) -> Result<Self, ExportError> {
        let path = path(table);
        let Some(text) = read_text(&path)? else { return Ok(Self::default()) };
        // Not the parser's words: they quote the line, and that may be a key.
        let why = "it is not what this program has written".to_owned();
        let File { key, candidate, identity, path: paths } =
            toml::from_str(&text).map_err(|_| ExportError::Damaged { path, why })?;
        let candidate = candidate.into_iter().filter_map(|one| one.try_into().ok()).collect();
        Ok(Self { key, candidate, identity, path: paths })
    }

    /// Keeps these in place of the former ones.
    pub(super) fn write(&self, table: &Path) -> Result<(), ExportError> {
        let path = path(table);
        let failed = |source| ExportError::Table { action: "write", path: path.clone(), source };
        let text = toml::to_string(self)
            .map_err(|_| failed(io::Error::other("a key can't be written as text")))?;
        write_durably(&path, text.as_bytes()).map_err(failed)
    }

    /// What tells this boot of the machine from others with its number.
    pub(super) fn identity_of(&self, spec: &ExportSpec) -> Option<BootIdentity> {
        let is_meant = |disk: &DiskId, boot| (disk, boot) == (&spec.disk, spec.boot);
        let kept = self.identity.iter().find(|one| is_meant(&one.disk, one.boot));
        let mut waiting = self.candidate.iter();
        kept.map(|one| one.identity)
            .or_else(|| waiting.find(|one| is_meant(&one.spec.disk, one.spec.boot))?.identity)
    }

    /// How this boot of the machine is seen in the storage network.
    pub(super) fn path_of(&self, spec: &ExportSpec) -> Option<StoragePath> {
        let is_meant = |disk: &DiskId, boot| (disk, boot) == (&spec.disk, spec.boot);
        let kept = self.path.iter().find(|one| is_meant(&one.disk, one.boot));
        let mut waiting = self.candidate.iter();
        kept.map(|one| one.path.clone()).or_else(|| {
            waiting.find(|one| is_meant(&one.spec.disk, one.spec.boot))?.storage_path.clone()
        })
    }

    /// The key for this boot of the machine, and what replaces it.
    pub(super) fn of(&self, spec: &ExportSpec) -> Option<(DiskKey, Option<Exchange>)> {
        let mut kept = self.key.iter();
        let kept = kept.find(|one| one.disk == spec.disk && one.boot == spec.boot);
        let mut waiting = self.candidate.iter();
        // The table is written first when a candidate is admitted: this server may have died before the rest.
        let is_admitted =
            |one: &&Waiting| (&one.spec.disk, one.spec.boot) == (&spec.disk, spec.boot);
        let kept = kept.map(|one| (one.key, one.exchange.clone()));
        kept.or_else(|| {
            let waiting = waiting.find(is_admitted)?;
            Some((waiting.key?, waiting.exchange.clone()))
        })
    }
}

/// `exports.toml` has its keys in `exports-keys.toml`.
fn path(table: &Path) -> PathBuf {
    let stem = table.file_stem().unwrap_or_default().to_string_lossy();
    table.with_file_name(format!("{stem}-keys.toml"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use model::{MachineIdentity, RootKind, WriteMode};

    pub(in crate::table) fn spec(boot: BootId) -> ExportSpec {
        ExportSpec {
            disk: "lab-07".parse().unwrap(),
            image: "debian".parse().unwrap(),
            version: 1,
            write_mode: WriteMode::Discard,
            boot,
            root: RootKind::Nbd,
            address: [10, 0, 0, 7].into(),
            mac: wire::Mac([2, 0, 0, 0, 0, 1]),
            shelf_slot: "1.0".parse().unwrap(),
        }
    }

    fn key(byte: u8) -> DiskKey {
        DiskKey::new([byte; 32])
    }

    fn owner() -> DiskOwner {
        let mac = wire::Mac([2, 0, 0, 0, 0, 1]);
        DiskOwner { identity: MachineIdentity::new([9; 16]), macs: vec![mac] }
    }

    fn meant() -> DiskMeant {
        DiskMeant { id: Some("9215".to_owned()), owner: Some(owner()), must_be_known: true }
    }

    fn storage_path() -> StoragePath {
        let cards = vec![wire::Mac([2, 0, 0, 0, 0, 2])];
        StoragePath { address: Some([10, 20, 0, 7].into()), cards }
    }

    /// What is kept for boot 4, while boot 5 waits.
    fn keys() -> Keys {
        let exchange = Some(Exchange { key: key(6), text: "a file\nof the machine\n".to_owned() });
        let (disk, waiting): (DiskId, _) = ("lab-07".parse().unwrap(), exchange.clone());
        let kept = Key { disk: disk.clone(), boot: 4, key: key(4), exchange };
        let waiting = Waiting {
            key: Some(key(5)),
            reset: true,
            exchange: waiting,
            has_disk: true,
            identity: Some(BootIdentity::new([5; 16])),
            owner: Some(owner()),
            reset_of: Some(meant()),
            storage_path: Some(storage_path()),
            spec: spec(5),
        };
        let path = storage_path();
        let path = InStorageNetwork { disk: disk.clone(), boot: 4, path };
        let identity = Identity { disk, boot: 4, identity: BootIdentity::new([4; 16]) };
        let path = vec![path];
        Keys { key: vec![kept], candidate: vec![waiting], identity: vec![identity], path }
    }

    #[test]
    fn a_key_counts_for_the_boot_that_the_table_names() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("exports.toml");
        assert!(Keys::read(&table).unwrap().of(&spec(4)).is_none(), "there is no file yet");
        keys().write(&table).unwrap();
        let read = Keys::read(&table).unwrap();
        let exchange = keys().key[0].exchange.clone();
        assert_eq!(read.of(&spec(4)), Some((key(4), exchange.clone())));
        let died = "it died as it admitted the candidate";
        assert_eq!(read.of(&spec(5)), Some((key(5), exchange.clone())), "{died}");
        assert_eq!(read.of(&spec(6)), None, "the previous release has served another boot");
        let identities = [4, 5, 6].map(|boot| read.identity_of(&spec(boot)));
        let known = |byte| Some(BootIdentity::new([byte; 16]));
        assert_eq!(identities, [known(4), known(5), None]);
        let paths = [4, 5, 6].map(|boot| read.path_of(&spec(boot)));
        assert_eq!(paths, [Some(storage_path()), Some(storage_path()), None]);
        let waiting: Vec<_> = read.candidate.into_iter().map(ExportOrder::from).collect();
        let identity = Some(BootIdentity::new([5; 16]));
        let order = ExportOrder {
            key: Some(key(5)),
            exchange,
            reset: true,
            reset_of: Some(meant()),
            has_disk: true,
            identity,
            owner: Some(owner()),
            storage_path: Some(storage_path()),
            ..ExportOrder::new(spec(5))
        };
        assert_eq!(waiting, [order]);
    }

    #[test]
    fn what_a_later_release_writes_is_left_out_and_what_is_damaged_is_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("exports.toml");
        keys().write(&table).unwrap();
        let text = std::fs::read_to_string(path(&table)).unwrap();
        let later = text
            .replace("[candidate.spec]", "[candidate.spec]\ncolor = 1")
            .replace("boot = 4", "boot = 4\ncolor = 1");
        std::fs::write(path(&table), format!("color = 1\n{later}")).unwrap();
        let read = Keys::read(&table).unwrap();
        let kept = read.of(&spec(4)).map(|(key, _)| key);
        assert_eq!((kept, read.candidate.len()), (Some(key(4)), 0));
        std::fs::write(path(&table), text.replace(&key(4).to_hex(), "0404")).unwrap();
        let error = wire::error_chain(&Keys::read(&table).err().unwrap());
        assert!(error.contains("exports-keys.toml") && !error.contains("0404"), "{error}");
    }
}
