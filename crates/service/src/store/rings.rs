//! Rows of rings: versions that one room tries before all get them, and what its boots have shown.

use super::row::{parse, wrong};
use super::transaction::{Part, Transaction};
use model::{
    Boot, BootId, ImageName, MachineName, Ring, RingBoot, RingEnd, RingOutcome, Stage, VersionState,
};
use rusqlite::{OptionalExtension as _, params};
use std::collections::BTreeMap;
use std::io;

/// Boots of one machine that are noted for a ring. More of one tell nothing more, and a PC that is left alone may start again and
/// again as long as another one is off.
const BOOTS_OF_MACHINE_MAX: u32 = 50;

impl Transaction<'_> {
    /// All rings, by image, the ended ones too.
    pub(crate) fn rings(&self) -> rusqlite::Result<Vec<Ring>> {
        let mut query = self.sql().prepare_cached(
            "SELECT image, version, room, started_unix_ms, who, without, end, why FROM image_ring ORDER BY image",
        )?;
        let rings = query.query_map([], |row| {
            let without = row.get::<_, String>(5)?;
            let end: Option<String> = row.get(6)?;
            let known = |word: String| {
                RingEnd::from_word(&word)
                    .ok_or_else(|| wrong(6, io::Error::other(format!("a ring can't be {word:?}"))))
            };
            Ok(Ring {
                image: parse(row, 0)?,
                version: row.get(1)?,
                room: parse(row, 2)?,
                started_unix_ms: row.get(3)?,
                by: row.get(4)?,
                without: serde_json::from_str(&without).map_err(|error| wrong(5, error))?,
                end: end.map(known).transpose()?,
                why: row.get(7)?,
            })
        })?;
        rings.collect()
    }

    /// Begins a ring, in place of the one that its image had; boots from now on count. With it goes how long those of its machines
    /// took before.
    pub(crate) fn put_ring(
        &self,
        ring: &Ring,
        usual_ms: &BTreeMap<MachineName, u64>,
    ) -> rusqlite::Result<()> {
        let image = ring.image.as_str();
        self.delete_ring(&ring.image)?;
        self.sql().execute(
            "INSERT INTO image_ring VALUES (?1, ?2, ?3, ?4, ?5, ?6, (SELECT coalesce(max(id), 0) FROM boot), NULL, '')",
            params![
                image,
                ring.version,
                ring.room.as_str(),
                ring.started_unix_ms,
                ring.by,
                without(ring)?
            ],
        )?;
        for (machine, usual_ms) in usual_ms {
            let put = "INSERT INTO ring_usual VALUES (?1, ?2, ?3)";
            self.sql().execute(put, params![image, machine.as_str(), usual_ms])?;
        }
        Ok(())
    }

    /// Nobody waits for these machines any more.
    pub(crate) fn put_ring_without(&self, ring: &Ring) -> rusqlite::Result<()> {
        let put = "UPDATE image_ring SET without = ?2 WHERE image = ?1";
        self.sql().execute(put, params![ring.image.as_str(), without(ring)?])?;
        self.touch(Part::Images);
        Ok(())
    }

    /// A ring has ended, if it still goes on.
    pub(crate) fn end_ring(
        &self,
        image: &ImageName,
        end: RingEnd,
        why: &str,
    ) -> rusqlite::Result<()> {
        let put = "UPDATE image_ring SET end = ?2, why = ?3 WHERE image = ?1 AND end IS NULL";
        self.sql().execute(put, params![image.as_str(), end.word(), why])?;
        self.touch(Part::Images);
        Ok(())
    }

    /// More is to be said of how a ring has ended.
    pub(crate) fn note_why_ring_ended(&self, image: &ImageName, why: &str) -> rusqlite::Result<()> {
        let put = "UPDATE image_ring SET why = ?2 WHERE image = ?1";
        self.sql().execute(put, params![image.as_str(), why])?;
        self.touch(Part::Images);
        Ok(())
    }

    /// Forgets a ring.
    pub(crate) fn delete_ring(&self, image: &ImageName) -> rusqlite::Result<()> {
        self.sql().execute("DELETE FROM image_ring WHERE image = ?1", [image.as_str()])?;
        self.touch(Part::Images);
        Ok(())
    }

    /// Ends rings whose version is not to be tested any more, as somebody has said something else of it or has removed it, and those
    /// of which there is something newer for all.
    pub(super) fn end_rings_that_are_over(&self) -> rusqlite::Result<()> {
        let rings = self.rings()?;
        if rings.iter().all(|ring| ring.end.is_some()) {
            return Ok(());
        }
        let (versions, states) = (self.image_versions()?, self.image_states()?);
        let state = |image: &ImageName, version| {
            states.get(&(image.clone(), version)).copied().unwrap_or_default()
        };
        for ring in rings.iter().filter(|ring| ring.end.is_none()) {
            let of_image = versions.iter().filter(|version| version.image == ring.image);
            let released =
                of_image.filter(|it| state(&it.image, it.version) == VersionState::Released);
            let newer = released.map(|version| version.version).max();
            let end = match (state(&ring.image, ring.version), newer) {
                (_, Some(newer)) if newer > ring.version => {
                    Some((RingEnd::Overtaken, format!("v{newer} was released meanwhile")))
                }
                (VersionState::Released, _) => {
                    Some((RingEnd::Passed, "somebody has released it to all".to_owned()))
                }
                (VersionState::Test, _) => None,
                (state, _) => Some((RingEnd::Stopped, format!("somebody has made it {state}"))),
            };
            if let Some((end, why)) = end {
                self.end_ring(&ring.image, end, &why)?;
            }
        }
        Ok(())
    }

    /// What boots have shown in a ring, in their order.
    pub(crate) fn ring_boots(&self, image: &ImageName) -> rusqlite::Result<Vec<RingBoot>> {
        let mut query = self.sql().prepare_cached(
            "SELECT boot, machine, took_ms, why FROM ring_boot WHERE image = ?1 ORDER BY boot",
        )?;
        let boots = query.query_map([image.as_str()], |row| {
            let why: Option<String> = row.get(3)?;
            let outcome = match why {
                Some(why) => RingOutcome::Failed(why),
                None => RingOutcome::Up(row.get(2)?),
            };
            Ok(RingBoot { boot: row.get(0)?, machine: parse(row, 1)?, outcome })
        })?;
        boots.collect()
    }

    /// How long boots of the machines took before the ring, as far as that is known.
    pub(crate) fn ring_usual_ms(
        &self,
        image: &ImageName,
    ) -> rusqlite::Result<BTreeMap<MachineName, u64>> {
        let usual = "SELECT machine, usual_ms FROM ring_usual WHERE image = ?1";
        let mut query = self.sql().prepare_cached(usual)?;
        query.query_map([image.as_str()], |row| Ok((parse(row, 0)?, row.get(1)?)))?.collect()
    }

    /// A boot has ended, or the machine `is_left` it for another one: notes what that says about a version that is tried.
    pub(crate) fn note_for_ring(&self, id: BootId, is_left: bool) -> rusqlite::Result<()> {
        let tried = "SELECT boot.image FROM boot JOIN image_ring ring \
                     ON (ring.image, ring.version) = (boot.image, boot.version) \
                     WHERE boot.id = ?1 AND ring.end IS NULL AND boot.id > ring.first_boot";
        let image: Option<ImageName> =
            self.sql().prepare_cached(tried)?.query_row([id], |row| parse(row, 0)).optional()?;
        let Some(image) = image else { return Ok(()) };
        let Some(boot) = self.boot(id)? else { return Ok(()) };
        let Some(outcome) = RingOutcome::of(&boot, is_left) else { return Ok(()) };
        // What anybody may have said in its name is not counted. Who says nothing has proven nothing.
        let proof = self.proof(boot.mac, id)?;
        let is_proven = proof.is_some_and(|proof| proof.is_given || proof.token.is_none());
        let says_nothing = boot.current().is_some_and(|last| last.stage == Stage::Initrd);
        if !is_proven && !says_nothing {
            return Ok(());
        }
        let ring = self.rings()?.into_iter().find(|ring| ring.image == image);
        let machine = self.machines()?.into_iter().find(|it| it.macs().any(|mac| mac == boot.mac));
        let Some((ring, machine)) = ring.zip(machine) else { return Ok(()) };
        if ring.is_for(&machine) {
            self.put_ring_boot(&ring, &machine.name, &boot, &outcome)?;
        }
        Ok(())
    }

    fn put_ring_boot(
        &self,
        ring: &Ring,
        machine: &MachineName,
        boot: &Boot,
        outcome: &RingOutcome,
    ) -> rusqlite::Result<()> {
        let (took_ms, why) = match outcome {
            RingOutcome::Up(took_ms) => (Some(took_ms), None),
            RingOutcome::Failed(why) => (None, Some(why)),
        };
        let put = "INSERT OR IGNORE INTO ring_boot SELECT ?1, ?2, ?3, ?4, ?5 WHERE \
                   (SELECT count(*) FROM ring_boot WHERE (image, machine) = (?1, ?3)) < ?6";
        self.sql().execute(
            put,
            params![
                ring.image.as_str(),
                boot.id,
                machine.as_str(),
                took_ms,
                why,
                BOOTS_OF_MACHINE_MAX
            ],
        )?;
        Ok(())
    }
}

fn without(ring: &Ring) -> rusqlite::Result<String> {
    serde_json::to_string(&ring.without)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}
