//! Rows of image versions: an index of the image store.

use super::damage::refused;
use super::row::{parse, wrong};
use super::schema;
use super::transaction::{Part, Transaction};
use crate::error::Error;
use model::{Architecture, ImageName, ImageVersion, LogicalVolumeName, VersionState};
use rusqlite::{TransactionBehavior, params};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// For whom image versions are; those that are not here are released.
pub(crate) type States = BTreeMap<(ImageName, u32), VersionState>;

impl Transaction<'_> {
    /// For whom they are.
    pub(crate) fn image_states(&self) -> rusqlite::Result<States> {
        let mut query =
            self.sql().prepare_cached("SELECT image, version, state FROM image_state")?;
        query.query_map([], |row| Ok(((parse(row, 0)?, row.get(1)?), parse(row, 2)?)))?.collect()
    }

    /// Takes over for whom they are, as the image store has noted it. Of what it says nothing about it is known here only: what it
    /// had noted may be lost.
    pub(crate) fn take_image_states(&self, noted: &States) -> rusqlite::Result<()> {
        self.put_image_states(&taken(self.image_states()?, noted))?;
        self.end_rings_that_are_over()
    }

    fn put_image_states(&self, states: &States) -> rusqlite::Result<()> {
        self.sql().execute("DELETE FROM image_state", [])?;
        let mut put = self.sql().prepare_cached("INSERT INTO image_state VALUES (?1, ?2, ?3)")?;
        for ((image, version), state) in states {
            put.execute(params![image.as_str(), version, state.word()])?;
        }
        self.touch(Part::Images);
        Ok(())
    }

    /// Forgets a version that was removed on purpose.
    pub(crate) fn delete_image_version(
        &self,
        image: &ImageName,
        version: u32,
    ) -> rusqlite::Result<()> {
        for table in [
            "image_version",
            "lost_image_version",
            "image_architecture",
            "image_logical_volume",
            "image_state",
        ] {
            let delete = format!("DELETE FROM {table} WHERE (image, version) = (?1, ?2)");
            self.sql().execute(&delete, params![image.as_str(), version])?;
        }
        let ring = "DELETE FROM image_ring WHERE (image, version) = (?1, ?2)";
        self.sql().execute(ring, params![image.as_str(), version])?;
        self.touch(Part::Images);
        Ok(())
    }

    /// All image versions, by image and version.
    pub(crate) fn image_versions(&self) -> rusqlite::Result<Vec<ImageVersion>> {
        self.versions_of("image_version")
    }

    /// Versions that were in the store and are not, by image and version.
    pub(crate) fn lost_image_versions(&self) -> rusqlite::Result<Vec<ImageVersion>> {
        self.versions_of("lost_image_version")
    }

    fn versions_of(&self, table: &str) -> rusqlite::Result<Vec<ImageVersion>> {
        let mut query = self.sql().prepare_cached(&format!(
            "SELECT image, version, digest, size_bytes, partition, file_system, kernel_version, os_name, \
             imported_unix, (SELECT architecture FROM image_architecture a WHERE (a.image, a.version) = (v.image, v.version)), \
             (SELECT name FROM image_logical_volume l WHERE (l.image, l.version) = (v.image, v.version)) \
             FROM {table} v ORDER BY image, version",
        ))?;
        let rows = query.query_map([], |row| {
            let file_system = row.get::<_, String>(5)?;
            Ok(ImageVersion {
                image: parse(row, 0)?,
                version: row.get(1)?,
                digest: row.get(2)?,
                size_bytes: row.get(3)?,
                partition: row.get(4)?,
                logical_volume: logical_volume(row)?,
                file_system: serde_json::from_value(file_system.into())
                    .map_err(|error| wrong(5, error))?,
                kernel_version: row.get(6)?,
                architecture: architecture(row)?,
                os_name: row.get(7)?,
                imported_unix: row.get(8)?,
            })
        })?;
        rows.collect()
    }

    /// Adds an image version, in place of the one with the same number. It is lost no more.
    pub(crate) fn put_image_version(&self, version: &ImageVersion) -> rusqlite::Result<()> {
        self.sql().execute(
            "INSERT OR REPLACE INTO image_version VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                version.image.as_str(),
                version.version,
                version.digest,
                version.size_bytes,
                version.partition,
                version.file_system.to_string(),
                version.kernel_version,
                version.os_name,
                version.imported_unix,
            ],
        )?;
        self.sql().execute(
            "INSERT OR REPLACE INTO image_architecture VALUES (?1, ?2, ?3)",
            params![version.image.as_str(), version.version, version.architecture.word()],
        )?;
        self.sql().execute(
            "DELETE FROM image_logical_volume WHERE (image, version) = (?1, ?2)",
            params![version.image.as_str(), version.version],
        )?;
        if let Some(name) = &version.logical_volume {
            self.sql().execute(
                "INSERT INTO image_logical_volume VALUES (?1, ?2, ?3)",
                params![version.image.as_str(), version.version, name.to_string()],
            )?;
        }
        self.sql().execute(
            "DELETE FROM lost_image_version WHERE (image, version, digest) = (?1, ?2, ?3)",
            params![version.image.as_str(), version.version, version.digest],
        )?;
        self.touch(Part::Images);
        Ok(())
    }
}

/// An older Bootlace has versions for x86-64 only, and does not say so.
fn architecture(row: &rusqlite::Row<'_>) -> rusqlite::Result<Architecture> {
    let Some(word) = row.get::<_, Option<String>>(9)? else { return Ok(Architecture::X86_64) };
    Architecture::from_word(&word)
        .ok_or_else(|| wrong(9, io::Error::other(format!("{word:?} is no architecture"))))
}

/// Most are on none.
fn logical_volume(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<LogicalVolumeName>> {
    let name = row.get::<_, Option<String>>(10)?;
    name.map(|name| name.parse().map_err(|error| wrong(10, error))).transpose()
}

fn taken(mut known: States, noted: &States) -> States {
    known.extend(noted.iter().map(|(version, state)| (version.clone(), *state)));
    known.retain(|_, state| *state != VersionState::Released);
    known
}

/// What the store holds: its versions, and for whom they are, as far as that was noted there; `None`: that can't be read.
pub(crate) type Held = (Vec<ImageVersion>, Option<States>);

/// For whom versions are, as the store has noted it. Where that can't be read, one that is not in the index is a draft: it may have
/// been one.
fn noted(tables: &Transaction<'_>, (versions, states): &Held) -> rusqlite::Result<States> {
    if let Some(states) = states {
        return Ok(states.clone());
    }
    let known = tables.image_versions()?;
    let is_known = |it: &&ImageVersion| {
        known.iter().any(|known| (&known.image, known.version) == (&it.image, it.version))
    };
    let unknown = versions.iter().filter(|version| !is_known(version));
    Ok(unknown.map(|it| ((it.image.clone(), it.version), VersionState::Draft)).collect())
}

/// Makes the index say what the store holds, which `look` tells; returns what was in it once, and is in the store no more.
pub(crate) fn index(
    database: &Path,
    look: impl Fn() -> Result<Held, Error>,
) -> Result<Vec<ImageVersion>, Error> {
    let failed = |source| refused(database, source);
    let mut connection = schema::open(database)?;
    {
        let tables = Transaction::new(&connection);
        let held = look()?;
        let known = tables.image_states().map_err(failed)?;
        let noted = noted(&tables, &held).map_err(failed)?;
        if tables.image_versions().map_err(failed)? == held.0
            && taken(known.clone(), &noted) == known
        {
            return tables.lost_image_versions().map_err(failed);
        }
    }
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    // Looked at again under the lock: what another process imported since is in the store before it
    // is in the index, and must not fall out of the index by an older look.
    let held = look()?;
    let noted = noted(&Transaction::new(&transaction), &held).map_err(failed)?;
    let (versions, _) = held;
    // What is there is taken out of these again.
    transaction
        .execute_batch(
            "INSERT OR REPLACE INTO lost_image_version SELECT image, version, digest, size_bytes, partition, \
             file_system, kernel_version, os_name, imported_unix FROM image_version; DELETE FROM image_version",
        )
        .map_err(failed)?;
    let tables = Transaction::new(&transaction);
    for version in &versions {
        tables.put_image_version(version).map_err(failed)?;
    }
    tables.take_image_states(&noted).map_err(failed)?;
    let lost = tables.lost_image_versions().map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok(lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex, mpsc};

    fn version(number: u32) -> ImageVersion {
        serde_json::from_value(serde_json::json!({
            "image": "debian-12", "version": number, "digest": "00", "size_bytes": 4096,
            "partition": null, "file_system": "ext4", "kernel_version": "6.1.0", "os_name": null,
            "imported_unix": 0,
        }))
        .unwrap()
    }

    #[test]
    fn what_an_image_is_for_is_known_and_of_one_of_before_that_it_is_for_x86() {
        let folder = tempfile::tempdir().unwrap();
        let connection = schema::open(&folder.path().join("state.db")).unwrap();
        let tables = Transaction::new(&connection);
        let logical_volume = Some("vg/root".parse().unwrap());
        let arm = ImageVersion { architecture: Architecture::Arm64, logical_volume, ..version(2) };
        for version in [&version(1), &arm] {
            tables.put_image_version(version).unwrap();
        }
        connection.execute_batch("DELETE FROM image_architecture WHERE version = 1").unwrap();
        assert_eq!(tables.image_versions().unwrap(), [version(1), arm.clone()]);
        connection.execute_batch("UPDATE image_architecture SET architecture = 'vax'").unwrap();
        assert!(tables.image_versions().unwrap_err().to_string().contains("vax"));
    }

    #[test]
    fn an_image_imported_while_another_process_starts_stays_in_the_index() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let importer = schema::open(&path).unwrap();
        importer.execute_batch("BEGIN IMMEDIATE").unwrap();
        let store = Arc::new(Mutex::new(vec![version(1)]));
        let (looked, first_look) = mpsc::channel();
        let starting = std::thread::spawn({
            let (path, store) = (path.clone(), Arc::clone(&store));
            move || {
                index(&path, || {
                    let found = store.lock().unwrap().clone();
                    let _ = looked.send(());
                    Ok((found, Some(States::new())))
                })
            }
        });
        // It has looked into the store, and waits for the lock.
        first_look.recv().unwrap();
        store.lock().unwrap().push(version(2));
        Transaction::new(&importer).put_image_version(&version(2)).unwrap();
        importer.execute_batch("COMMIT").unwrap();
        starting.join().unwrap().unwrap();
        let indexed = Transaction::new(&importer).image_versions().unwrap();
        assert_eq!(indexed, [version(1), version(2)]);
    }
}
