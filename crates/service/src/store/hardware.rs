//! Rows of what machines are made of, as their init tells at each boot.

use super::damage::refused;
use super::row::parse;
use super::schema;
use super::transaction::{Part, Transaction};
use crate::error::{Error, io_error};
use model::{BootId, SecureBoot};
use rusqlite::{OptionalExtension as _, Row, TransactionBehavior, params};
use std::fs;
use std::io;
use std::path::Path;
use wire::Mac;

/// Most hardware names of a machine; a PC has about a hundred.
const NAMES_MAX: usize = 1024;

/// Boots with a fitted initrd that may fail before the machine stays with the one for all machines.
const FAILURES_MAX: u32 = 2;

/// The hardware of a machine, and how it got on with initrds made for that.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hardware {
    /// The boot that told.
    pub boot: BootId,
    /// Hardware names (`modalias`) as the kernel has them, sorted.
    pub modaliases: Vec<String>,
    /// The last boot that got an initrd made for this hardware.
    pub fitted_boot: Option<BootId>,
    /// How many of those boots in a row did not find their root disk.
    pub failures: u32,
}

impl Hardware {
    /// Reads a list as [`initcfg::HARDWARE_PATH`] has it; what can't be a hardware name is left out.
    pub(crate) fn parse(boot: BootId, list: &str) -> Self {
        let is_name =
            |name: &&str| name.contains(':') && name.bytes().all(|byte| byte.is_ascii_graphic());
        let mut modaliases: Vec<String> =
            list.lines().filter(is_name).take(NAMES_MAX).map(str::to_owned).collect();
        modaliases.sort();
        modaliases.dedup();
        Self { boot, modaliases, fitted_boot: None, failures: 0 }
    }

    /// What decides which drivers an initrd needs; not the mouse that is plugged in today.
    pub(crate) fn fitting(&self) -> impl Iterator<Item = &str> {
        self.modaliases.iter().map(String::as_str).filter(|name| decides(name))
    }

    /// Names of devices.
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        let names = self.modaliases.iter().map(String::as_str);
        names.filter(|name| SecureBoot::of_hardware_name(name).is_none())
    }

    /// Whether its firmware starts only what is signed, if it said.
    pub fn secure_boot(&self) -> Option<SecureBoot> {
        self.modaliases.iter().find_map(|name| SecureBoot::of_hardware_name(name))
    }

    /// Names the initrd for this hardware: the same for all machines that are alike.
    pub fn key(&self) -> String {
        let mut hash = blake3::Hasher::new();
        for name in self.fitting() {
            hash.update(name.as_bytes());
            hash.update(b"\n");
        }
        hash.finalize().to_hex()[..16].to_owned()
    }

    /// Whether the machine gets an initrd made for it, if there is one.
    pub fn is_trusted(&self) -> bool {
        self.failures < FAILURES_MAX
    }
}

/// Buses that network cards are on. Of USB only what may be a network card: communication devices,
/// wireless controllers (RNDIS), and those of a class of their vendor's.
fn decides(modalias: &str) -> bool {
    match modalias.split_once(':') {
        Some(("pci" | "virtio" | "xen" | "vmbus" | "of" | "ssb" | "bcma", _)) => true,
        Some(("usb", rest)) => ["ic02", "icE0", "icFF"].iter().any(|class| rest.contains(class)),
        _ => false,
    }
}

impl Transaction<'_> {
    /// All hardware that is known, by the NIC that its machine boots from.
    pub(super) fn all_hardware(&self) -> rusqlite::Result<Vec<(Mac, Hardware)>> {
        self.sql()
            .prepare_cached("SELECT mac, boot, modaliases, fitted_boot, failures FROM hardware")?
            .query_map([], |row| Ok((parse(row, 0)?, hardware(row)?)))?
            .collect()
    }

    /// What the machine with this boot NIC is made of; `None` before its first boot.
    pub(crate) fn hardware(&self, mac: Mac) -> rusqlite::Result<Option<Hardware>> {
        self.sql()
            .prepare_cached(
                "SELECT mac, boot, modaliases, fitted_boot, failures FROM hardware WHERE mac = ?1",
            )?
            .query_row([mac.to_string()], hardware)
            .optional()
    }

    /// Keeps what the machine with this boot NIC is made of.
    pub(crate) fn put_hardware(&self, mac: Mac, hardware: &Hardware) -> rusqlite::Result<()> {
        self.sql()
            .prepare_cached("INSERT OR REPLACE INTO hardware VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
            mac.to_string(),
            hardware.boot,
            hardware.modaliases.join("\n"),
            hardware.fitted_boot,
            hardware.failures,
        ])?;
        self.touch(Part::Hardware(mac));
        Ok(())
    }

    /// Only machines have hardware: that of a PC which is none any more goes.
    pub(super) fn forget_hardware_of_strangers(&self) -> rusqlite::Result<()> {
        let mut forget = self.sql().prepare_cached(
            "DELETE FROM hardware WHERE mac NOT IN (SELECT mac FROM machine) \
             AND mac NOT IN (SELECT mac FROM machine_mac) RETURNING mac",
        )?;
        for mac in forget.query_map([], |row| parse(row, 0))? {
            self.touch(Part::Hardware(mac?));
        }
        Ok(())
    }
}

fn hardware(row: &Row<'_>) -> rusqlite::Result<Hardware> {
    let names = row.get_ref(2)?.as_str()?;
    Ok(Hardware {
        boot: row.get(1)?,
        modaliases: names.lines().map(str::to_owned).collect(),
        fitted_boot: row.get(3)?,
        failures: row.get(4)?,
    })
}

/// Moves what an older Bootlace kept in files, `MAC.json` below `folder`, into the database.
///
/// A file that can't be read, makes no sense, or can't be removed stays where it is: machines tell again at their
/// next boot, and nobody has to wait for this. Two processes may do it at once.
///
/// # Errors
/// The database can't be used.
pub(crate) fn take_over_files(database: &Path, folder: &Path) -> Result<(), Error> {
    let warn = |error: Error| {
        tracing::warn!(error = error.chain(), "hardware of machines stays in a file")
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            warn(io_error("read the folder", folder)(error));
            return Ok(());
        }
    };
    let mut found = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let mac = path.file_stem().and_then(|name| name.to_str()?.parse::<Mac>().ok());
        let Some(mac) = mac else { continue };
        match fs::read(&path) {
            Ok(content) => {
                if let Ok(hardware) = serde_json::from_slice::<Hardware>(&content) {
                    found.push((path, mac, hardware));
                }
            }
            // Another process has moved it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn(io_error("read", &path)(error)),
        }
    }
    if !found.is_empty() {
        keep_all(database, found.iter().map(|(_, mac, hardware)| (*mac, hardware)))?;
    }
    for (path, ..) in &found {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn(io_error("remove", path)(error));
            }
            _ => {}
        }
    }
    // It stays if there is something in it that is not ours.
    let _ = fs::remove_dir(folder);
    Ok(())
}

/// Keeps the hardware of machines of which none is known.
fn keep_all<'a>(
    database: &Path,
    all: impl Iterator<Item = (Mac, &'a Hardware)>,
) -> Result<(), Error> {
    let failed = |source| refused(database, source);
    let mut connection = schema::open(database)?;
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let tables = Transaction::new(&transaction);
    for (mac, hardware) in all {
        if tables.hardware(mac).map_err(failed)?.is_none() {
            tables.put_hardware(mac, hardware).map_err(failed)?;
        }
    }
    tables.forget_hardware_of_strangers().map_err(failed)?;
    transaction.commit().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The database of a site with one machine, and a folder with a file of it.
    fn older(root: &Path) -> (std::path::PathBuf, std::path::PathBuf, std::path::PathBuf) {
        let (database, folder) = (root.join("state.db"), root.join("hardware"));
        let connection = schema::open(&database).unwrap();
        let machine = "INSERT INTO machine VALUES \
             ('lab-07', '02:00:00:00:00:01', NULL, 'nbd', 'discard', '0.0', '', 0, 0, NULL)";
        connection.execute(machine, []).unwrap();
        fs::create_dir(&folder).unwrap();
        let file = folder.join("020000000001.json");
        let about = r#"{"boot":7,"modaliases":["pci:v1"],"fitted_boot":null,"failures":0}"#;
        fs::write(&file, about).unwrap();
        (database, folder, file)
    }

    fn known(database: &Path) -> Vec<Mac> {
        let connection = schema::open(database).unwrap();
        let all = Transaction::new(&connection).all_hardware().unwrap();
        all.into_iter().map(|(mac, _)| mac).collect()
    }

    #[test]
    fn a_file_that_can_not_be_read_keeps_no_server_from_starting() {
        let root = tempfile::tempdir().unwrap();
        let (database, folder, file) = older(root.path());
        // A folder can't be read as a file, whoever asks.
        let unreadable = folder.join("020000000002.json");
        fs::create_dir(&unreadable).unwrap();
        fs::write(folder.join("020000000003.json"), "{").unwrap();
        take_over_files(&database, &folder).unwrap();
        assert_eq!(known(&database), [Mac([2, 0, 0, 0, 0, 1])]);
        assert!(unreadable.exists() && !file.exists());
        assert!(folder.join("020000000003.json").exists());

        let no_folder = root.path().join("file");
        fs::write(&no_folder, "").unwrap();
        take_over_files(&database, &no_folder).unwrap();
        take_over_files(&database, &root.path().join("missing")).unwrap();
    }

    #[test]
    fn two_processes_may_move_files_at_once() {
        for _ in 0..20 {
            let root = tempfile::tempdir().unwrap();
            let (database, folder, _) = older(root.path());
            let both = std::thread::scope(|scope| {
                [(); 2]
                    .map(|()| scope.spawn(|| take_over_files(&database, &folder)))
                    .map(|taking| taking.join().unwrap())
            });
            for result in both {
                result.unwrap();
            }
            assert_eq!(known(&database).len(), 1);
            assert!(!folder.exists());
        }
    }

    #[test]
    fn a_mouse_does_not_change_what_a_machine_is() {
        let pc = "pci:v00008086d0000100Ebc02sc00i00\nacpi:PNP0A03:\n";
        let mouse = "usb:v046DpC077d7200dc00dsc00dp00ic03isc01ip02in00\n";
        let adapter = "usb:v0B95p1790d0100dcFFdscFFdp00icFFiscFFip00in00\n";
        let key = |list: &str| Hardware::parse(1, list).key();
        assert_eq!(key(pc), key(&format!("{mouse}{pc}")));
        assert_ne!(key(pc), key(&format!("{pc}{adapter}")));
        assert_eq!(
            Hardware::parse(1, "no name\n\u{1b}[2J:\npci:v1\npci:v1\n").modaliases,
            ["pci:v1"]
        );
    }
}
