//! Rows of boots and of the stages that they reach.

use super::row::{parse, parse_optional};
use super::transaction::{Part, Transaction};
use super::view::LastBoot;
use initcfg::Token;
use model::{
    Boot, BootId, BootIdentity, Firmware, ImageName, ImageVersion, MachineName, RootKind, Stage,
    StageEvent,
};
use rusqlite::{OptionalExtension as _, params};
use std::ops::RangeInclusive;
use std::sync::Arc;
use wire::Mac;

/// Boots that are kept of each NIC.
const BOOTS_OF_NIC_MAX: u32 = 100;

/// Boots from one NIC of a machine that may be on their way to their proof at once. A PC needs minutes at most from its loader to its
/// proof; in that time fewer begin, as [`BEGIN_MAX`] says.
const OPEN_MAX: u32 = 16;

/// So many boots of one NIC begin within [`BEGIN_WITHIN_MS`]. A PC that hangs is switched off and on less often; what
/// more there seems to be is somebody who sends its DHCP messages again and again.
const BEGIN_MAX: u32 = 8;

/// See [`BEGIN_MAX`].
const BEGIN_WITHIN_MS: u64 = 300_000;

/// Boots that are kept of PCs that are not machines, at most. The oldest go first.
const STRANGERS_BOOTS_MAX: u32 = 2048;

/// It is looked for them at each boot whose number is a multiple of this, and then there is room for all until the next: to
/// count them takes longer than all else that a boot begins with.
const STRANGERS_BOOTS_ROOM: u32 = 64;

/// Boots without a word that are counted: more of them tell nothing more.
const WORDLESS_MAX: u32 = 9;

/// A boot that begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewBoot {
    pub(crate) mac: Mac,
    pub(crate) firmware: Firmware,
    pub(crate) started_unix_ms: u64,
    pub(crate) token: Token,
    pub(crate) identity: BootIdentity,
}

// Limits stand in the statements below, and are not bound to them: SQLite plans by a limit that is bound, and so prepares the
// statement again each time.
impl Transaction<'_> {
    /// The last boot of each NIC.
    pub(crate) fn last_boots(&self) -> rusqlite::Result<Vec<LastBoot>> {
        let ids: Vec<BootId> = self
            .sql()
            .prepare_cached("SELECT max(id) FROM boot GROUP BY mac")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        ids.into_iter().filter_map(|id| self.with_secrets(id).transpose()).collect()
    }

    /// The last boot from any of these NICs, with what only the boot server and the machine know of it.
    pub(super) fn last_boot_with_secrets(
        &self,
        macs: &[Mac],
    ) -> rusqlite::Result<Option<LastBoot>> {
        self.last_id(macs)?.map_or(Ok(None), |id| self.with_secrets(id))
    }

    /// The last boot of each NIC that has shown that it is the machine's, if another one began since.
    pub(super) fn earlier_proven_boots(&self) -> rusqlite::Result<Vec<LastBoot>> {
        let ids: Vec<BootId> = self
            .sql()
            .prepare_cached(
                "SELECT max(id) FILTER (WHERE is_proven = 1) AS proven FROM boot GROUP BY mac \
                 HAVING proven < max(id)",
            )?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        ids.into_iter().filter_map(|id| self.with_secrets(id).transpose()).collect()
    }

    /// The last boot from any of these NICs that has shown that it is the machine's, if another one began since.
    pub(super) fn earlier_proven_boot(&self, macs: &[Mac]) -> rusqlite::Result<Option<LastBoot>> {
        let (proven, last) = (self.last_proven_id(macs)?, self.last_id(macs)?);
        proven.filter(|_| proven < last).map_or(Ok(None), |id| self.with_secrets(id))
    }

    /// Number of the last boot from any of these NICs that has shown that it is the machine's.
    fn last_proven_id(&self, macs: &[Mac]) -> rusqlite::Result<Option<BootId>> {
        let mut query = self
            .sql()
            .prepare_cached("SELECT max(id) FROM boot WHERE mac = ?1 AND is_proven = 1")?;
        let mut proven = None;
        for mac in macs {
            proven = proven.max(query.query_row([mac.to_string()], |row| row.get(0))?);
        }
        Ok(proven)
    }

    /// Boots of the machine with these NICs before its last one that nobody has proven to be the machine's, and that began
    /// after the last proven one: whoever is in one of them may still prove it. The last first.
    pub(super) fn open_boots(&self, macs: &[Mac]) -> rusqlite::Result<Vec<LastBoot>> {
        let Some(last) = self.last_id(macs)? else { return Ok(Vec::new()) };
        let proven = self.last_proven_id(macs)?.unwrap_or(0);
        let mut query = self.sql().prepare_cached(&format!(
            "SELECT id FROM boot WHERE mac = ?1 AND machine IS NOT NULL AND id > ?2 AND id < ?3 \
             ORDER BY id DESC LIMIT {OPEN_MAX}",
        ))?;
        let mut ids: Vec<BootId> = Vec::new();
        for mac in macs {
            let of_nic = params![mac.to_string(), proven, last];
            for id in query.query_map(of_nic, |row| row.get(0))? {
                ids.push(id?);
            }
        }
        ids.sort_unstable_by_key(|&id| std::cmp::Reverse(id));
        ids.into_iter().filter_map(|id| self.with_secrets(id).transpose()).collect()
    }

    /// Whether so many boots of this NIC have begun lately that another one is none.
    pub(crate) fn begin_too_often(&self, mac: Mac, now_unix_ms: u64) -> rusqlite::Result<bool> {
        let nth: Option<u64> = self
            .sql()
            .prepare_cached(&format!(
                "SELECT started_unix_ms FROM boot WHERE mac = ?1 ORDER BY id DESC LIMIT 1 OFFSET {}",
                BEGIN_MAX - 1
            ))?
            .query_row([mac.to_string()], |row| row.get(0))
            .optional()?;
        Ok(nth.is_some_and(|nth| now_unix_ms.abs_diff(nth) < BEGIN_WITHIN_MS))
    }

    /// Forgets all boots of a NIC.
    pub(crate) fn delete_boots_of(&self, mac: Mac) -> rusqlite::Result<()> {
        self.sql().execute("DELETE FROM boot WHERE mac = ?1", [mac.to_string()])?;
        self.touch(Part::Boot(mac));
        Ok(())
    }

    fn with_secrets(&self, id: BootId) -> rusqlite::Result<Option<LastBoot>> {
        let Some(boot) = self.boot(id)? else { return Ok(None) };
        let Some(proof) = self.proof(boot.mac, id)? else { return Ok(None) };
        let (order, rescue) = (self.order_of(id)?, self.rescue_of(id)?);
        let n_wordless = self.wordless_before(boot.mac, id)?;
        let answers = self
            .sql()
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM boot_answers WHERE boot = ?1)")?
            .query_row([id], |row| row.get(0))?;
        let identity = self.identity_of(id)?;
        let choice = self.choice_of(id)?;
        Ok(Some(LastBoot {
            boot: Arc::new(boot),
            identity,
            proof,
            order,
            rescue,
            choice,
            n_wordless,
            answers,
        }))
    }

    /// The keeper of this boot has answered a question.
    pub(crate) fn note_answers(&self, mac: Mac, id: BootId) -> rusqlite::Result<()> {
        // Not of a boot that is forgotten.
        let sql = "INSERT OR IGNORE INTO boot_answers (boot) SELECT id FROM boot WHERE id = ?1";
        if self.sql().prepare_cached(sql)?.execute([id])? > 0 {
            self.touch(Part::Boot(mac));
        }
        Ok(())
    }

    /// In how many boots right before this one a kernel was fetched and said nothing; at most [`WORDLESS_MAX`].
    fn wordless_before(&self, mac: Mac, id: BootId) -> rusqlite::Result<u32> {
        let mut query = self.sql().prepare_cached(&format!(
            "SELECT id FROM boot WHERE mac = ?1 AND id < ?2 ORDER BY id DESC LIMIT {WORDLESS_MAX}",
        ))?;
        let ids = query.query_map(params![mac.to_string(), id], |row| row.get(0))?;
        let mut n_wordless = 0;
        for id in ids {
            let boot = self.boot(id?)?;
            if boot.and_then(|boot| boot.current().map(|last| last.stage)) != Some(Stage::Initrd) {
                break;
            }
            n_wordless += 1;
        }
        Ok(n_wordless)
    }

    /// What tells a boot from others with its number; `None`: it was opened by an earlier Bootlace.
    fn identity_of(&self, id: BootId) -> rusqlite::Result<Option<BootIdentity>> {
        let bytes = self
            .sql()
            .prepare_cached("SELECT identity FROM boot_identity WHERE boot = ?1")?
            .query_row([id], |row| row.get::<_, [u8; 16]>(0))
            .optional()?;
        Ok(bytes.map(BootIdentity::new))
    }

    /// The next boot gets a larger number than this one, which the storage server has seen. Returns whether it would not
    /// have got one: this database is older than what the storage server knows.
    pub(crate) fn count_boots_from(&self, seen: BootId) -> rusqlite::Result<bool> {
        self.sql().execute(
            "INSERT INTO sqlite_sequence (name, seq) SELECT 'boot', 0 \
             WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'boot')",
            [],
        )?;
        let raise = "UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'boot' AND seq < ?1";
        Ok(self.sql().execute(raise, [seen])? > 0)
    }

    /// The last boot of the PC with this NIC, from whichever of its NICs.
    pub(crate) fn last_boot(&self, mac: Mac) -> rusqlite::Result<Option<Boot>> {
        self.last_id(&self.macs_beside(mac)?)?.map_or(Ok(None), |id| self.boot(id))
    }

    /// The last boot from this NIC.
    pub(crate) fn last_boot_from(&self, mac: Mac) -> rusqlite::Result<Option<Boot>> {
        self.last_id(&[mac])?.map_or(Ok(None), |id| self.boot(id))
    }

    /// Number of the last boot from any of these NICs.
    fn last_id(&self, macs: &[Mac]) -> rusqlite::Result<Option<BootId>> {
        let mut query = self.sql().prepare_cached("SELECT max(id) FROM boot WHERE mac = ?1")?;
        let mut last = None;
        for mac in macs {
            last = last.max(query.query_row([mac.to_string()], |row| row.get(0))?);
        }
        Ok(last)
    }

    /// Whether a kernel has started on the machine with this NIC in a boot from another of its NICs after this one, as far
    /// as that is proven: anybody can say it.
    pub(crate) fn has_started_beside(&self, mac: Mac, boot: BootId) -> rusqlite::Result<bool> {
        let mut query = self.sql().prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM boot WHERE mac = ?1 AND id > ?2 AND (is_proven <> 0 OR \
             (token IS NULL AND EXISTS (SELECT 1 FROM boot_stage WHERE boot_stage.boot = boot.id AND stage = ?3))))",
        )?;
        for other in self.macs_beside(mac)?.into_iter().filter(|other| *other != mac) {
            let start = Stage::Start.word();
            if query.query_row(params![other.to_string(), boot, start], |row| row.get(0))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The last boots of the PC with this NIC, from all of its NICs, the last first.
    pub(crate) fn boots_of(&self, mac: Mac, n_boots: u32) -> rusqlite::Result<Vec<Boot>> {
        let mut ids: Vec<BootId> = Vec::new();
        for mac in self.macs_beside(mac)? {
            let mut query = self
                .sql()
                .prepare_cached("SELECT id FROM boot WHERE mac = ?1 ORDER BY id DESC LIMIT ?2")?;
            for id in query.query_map(params![mac.to_string(), n_boots], |row| row.get(0))? {
                ids.push(id?);
            }
        }
        ids.sort_unstable_by_key(|&id| std::cmp::Reverse(id));
        ids.truncate(n_boots as usize);
        ids.into_iter().filter_map(|id| self.boot(id).transpose()).collect()
    }

    /// The boot with this number.
    pub(crate) fn boot(&self, id: BootId) -> rusqlite::Result<Option<Boot>> {
        let boot = self
            .sql()
            .prepare_cached(
                "SELECT mac, machine, firmware, started_unix_ms, image, version, root FROM boot \
                 WHERE id = ?1",
            )?
            .query_row([id], |row| {
                let image: Option<ImageName> = parse_optional(row, 4)?;
                let version: Option<u32> = row.get(5)?;
                Ok(Boot {
                    id,
                    mac: parse(row, 0)?,
                    machine: parse_optional(row, 1)?,
                    firmware: Firmware::of_code(row.get(2)?),
                    started_unix_ms: row.get(3)?,
                    image: image.zip(version),
                    root: parse_optional(row, 6)?,
                    stages: Vec::new(),
                })
            })
            .optional()?;
        let Some(mut boot) = boot else { return Ok(None) };
        let mut query = self.sql().prepare_cached(
            "SELECT stage, at_unix_ms, uptime_ms, detail FROM boot_stage WHERE boot = ?1",
        )?;
        let stages = query
            .query_map([id], |row| {
                let (stage, at_unix_ms, detail) = (parse(row, 0)?, row.get(1)?, row.get(3)?);
                Ok((StageEvent { stage, at_unix_ms, detail }, row.get(2)?))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        boot.stages = in_true_order(stages);
        Ok(Some(boot))
    }

    /// Opens a boot, and forgets the oldest ones where there are too many.
    pub(crate) fn open_boot(&self, new: &NewBoot) -> rusqlite::Result<BootId> {
        let machine = self.name_of(new.mac)?;
        if machine.is_some()
            && let Some(left) = self.last_id(&self.macs_beside(new.mac)?)?
        {
            self.note_for_ring(left, true)?;
        }
        let mac = new.mac.to_string();
        self.sql()
            .prepare_cached(
                "INSERT INTO boot (mac, machine, firmware, started_unix_ms, token) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                mac,
                machine.as_ref().map(MachineName::as_str),
                new.firmware.code(),
                new.started_unix_ms,
                new.token.as_bytes(),
            ])?;
        let id = self.sql().last_insert_rowid();
        self.sql()
            .prepare_cached("INSERT INTO boot_identity (boot, identity) VALUES (?1, ?2)")?
            .execute(params![id, new.identity.to_bytes()])?;
        self.touch(Part::Boot(new.mac));
        self.sql()
            .prepare_cached(&format!(
                // Not the one that the machine may still run in, however many begin in its name.
                "DELETE FROM boot WHERE mac = ?1 AND id <= \
                 (SELECT id FROM boot WHERE mac = ?1 ORDER BY id DESC LIMIT 1 OFFSET {BOOTS_OF_NIC_MAX}) AND id <> \
                 coalesce((SELECT max(id) FROM boot WHERE mac = ?1 AND is_proven = 1), 0)",
            ))?
            .execute([&mac])?;
        if id % i64::from(STRANGERS_BOOTS_ROOM) == 0 {
            self.forget_boots_of_strangers()?;
        }
        // SQLite's row numbers are positive unless somebody inserts others by hand.
        Ok(id.unsigned_abs())
    }

    fn forget_boots_of_strangers(&self) -> rusqlite::Result<()> {
        let mut forget = self.sql().prepare_cached(
            "DELETE FROM boot INDEXED BY boot_of_stranger WHERE machine IS NULL AND id <= \
             (SELECT id FROM boot INDEXED BY boot_of_stranger WHERE machine IS NULL \
             ORDER BY id DESC LIMIT 1 OFFSET ?1) RETURNING mac",
        )?;
        for mac in
            forget.query_map([STRANGERS_BOOTS_MAX - STRANGERS_BOOTS_ROOM], |row| parse(row, 0))?
        {
            self.touch(Part::Boot(mac?));
        }
        Ok(())
    }

    /// Notes what the machine gets in this boot, which stops in a rescue shell if one is wanted.
    pub(crate) fn assign(
        &self,
        mac: Mac,
        boot: BootId,
        machine: &MachineName,
        version: &ImageVersion,
        root: RootKind,
    ) -> rusqlite::Result<()> {
        self.sql().execute(
            "UPDATE boot SET machine = ?2, image = ?3, version = ?4, root = ?5 WHERE id = ?1",
            params![
                boot,
                machine.as_str(),
                version.image.as_str(),
                version.version,
                root.to_string()
            ],
        )?;
        self.touch(Part::Boot(mac));
        self.bind_rescue(machine, boot)
    }

    /// The wall clock was set by so many milliseconds: what was noted in this time by the clock as it was, was so much
    /// later, or earlier. Older times were told by a clock that was right then, others by the one that is right now.
    pub(crate) fn shift_boots(
        &self,
        by_ms: i64,
        noted_unix_ms: &RangeInclusive<u64>,
    ) -> rusqlite::Result<()> {
        for update in [
            "UPDATE boot SET started_unix_ms = max(0, started_unix_ms + ?1) WHERE started_unix_ms BETWEEN ?2 AND ?3",
            "UPDATE boot_stage SET at_unix_ms = max(0, at_unix_ms + ?1) WHERE at_unix_ms BETWEEN ?2 AND ?3",
            "UPDATE seen SET first_unix = max(0, first_unix + ?1 / 1000) WHERE first_unix BETWEEN ?2 / 1000 AND ?3 / 1000",
            "UPDATE seen SET last_unix = max(0, last_unix + ?1 / 1000) WHERE last_unix BETWEEN ?2 / 1000 AND ?3 / 1000",
        ] {
            self.sql()
                .execute(update, params![by_ms, noted_unix_ms.start(), noted_unix_ms.end()])?;
        }
        self.touch(Part::Everything);
        Ok(())
    }

    /// Notes a stage of a boot of this NIC, or of its last one. Returns the boot's number, if that is news:
    /// a stage that the boot has reached already, and a boot of another NIC, change nothing.
    pub(crate) fn put_stage(
        &self,
        mac: Mac,
        boot: Option<BootId>,
        event: &StageEvent,
        uptime_ms: Option<u64>,
    ) -> rusqlite::Result<Option<BootId>> {
        let id = match boot {
            Some(id) => self.proof(mac, id)?.map(|_| id),
            None => self.last_id(&[mac])?,
        };
        let Some(id) = id else { return Ok(None) };
        if event.stage == Stage::Loader && self.add_loader(id, event)? {
            self.touch(Part::Boot(mac));
            return Ok(Some(id));
        }
        let n_rows = self
            .sql()
            .prepare_cached(
                "INSERT OR IGNORE INTO boot_stage (boot, stage, at_unix_ms, uptime_ms, detail) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![id, event.stage.word(), event.at_unix_ms, uptime_ms, event.detail])?;
        if n_rows == 0 {
            return Ok(None);
        }
        if matches!(event.stage, Stage::Up | Stage::Failed) {
            self.note_for_ring(id, false)?;
        }
        self.touch(Part::Boot(mac));
        Ok(Some(id))
    }

    /// A boot that has fetched a loader fetched another file of one: shim loads GRUB, and firmware that refuses one file may
    /// be given another. Whether that is new.
    fn add_loader(&self, id: BootId, event: &StageEvent) -> rusqlite::Result<bool> {
        let Some(file) = model::last_loader_file(&event.detail) else { return Ok(false) };
        let add = "UPDATE boot_stage SET detail = detail || '; ' || ?2, at_unix_ms = ?3 \
                   WHERE boot = ?1 AND stage = 'loader' AND instr(detail, ?4 || ', ') = 0 AND NOT EXISTS \
                   (SELECT 1 FROM boot_stage WHERE boot = ?1 AND stage NOT IN ('dhcp', 'loader'))";
        let values = params![id, event.detail, event.at_unix_ms, file];
        Ok(self.sql().prepare_cached(add)?.execute(values)? > 0)
    }
}

/// Puts stages in the order in which they were reached.
///
/// A machine reports its first stages only when its network is up: they arrive late and together. Its
/// clock tells how far they lie apart, and the report that travelled fastest how the clocks relate.
fn in_true_order(stages: Vec<(StageEvent, Option<u64>)>) -> Vec<StageEvent> {
    let kernel_start = stages
        .iter()
        .filter_map(|(event, uptime_ms)| Some(event.at_unix_ms.saturating_sub((*uptime_ms)?)))
        .min();
    let mut events: Vec<StageEvent> = stages
        .into_iter()
        .map(|(event, uptime_ms)| match uptime_ms.zip(kernel_start) {
            Some((uptime_ms, start)) => StageEvent { at_unix_ms: start + uptime_ms, ..event },
            None => event,
        })
        .collect();
    events.sort_by_key(|event| (event.at_unix_ms, event.stage));
    // The clocks' relation is a guess: no file was fetched after the kernel in it has started.
    if let Some(first) = events.iter().position(|event| event.stage >= Stage::Start) {
        let started_unix_ms = events[first].at_unix_ms;
        for event in &mut events[first..] {
            if event.stage < Stage::Start {
                event.at_unix_ms = started_unix_ms;
            }
        }
        events.sort_by_key(|event| (event.at_unix_ms, event.stage));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(stage: Stage, at_unix_ms: u64) -> StageEvent {
        StageEvent { stage, at_unix_ms, detail: String::new() }
    }

    fn check(stages: &[(Stage, u64, Option<u64>)], expected: &[(Stage, u64)]) {
        let stages = stages.iter().map(|&(stage, at, uptime)| (event(stage, at), uptime)).collect();
        let expected: Vec<_> = expected.iter().map(|&(stage, at)| event(stage, at)).collect();
        assert_eq!(in_true_order(stages), expected);
    }

    #[test]
    fn stages_that_arrive_together_are_told_apart_by_the_machine_s_clock() {
        check(
            &[
                (Stage::Address, 9000, Some(5000)),
                (Stage::Start, 9000, Some(1000)),
                (Stage::Initrd, 3500, None),
                (Stage::Link, 9010, Some(4000)),
            ],
            &[
                (Stage::Initrd, 3500),
                (Stage::Start, 5000),
                (Stage::Link, 8000),
                (Stage::Address, 9000),
            ],
        );
    }

    #[test]
    fn a_file_is_fetched_before_the_kernel_starts() {
        check(
            &[
                (Stage::Initrd, 6000, None),
                (Stage::Start, 6500, Some(1000)),
                (Stage::Link, 6600, Some(2000)),
            ],
            &[(Stage::Initrd, 5600), (Stage::Start, 5600), (Stage::Link, 6600)],
        );
    }
}
