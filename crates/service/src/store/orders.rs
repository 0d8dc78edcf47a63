//! Orders to running machines: the last one of each boot.

use super::transaction::{Part, Transaction};
use initcfg::PowerVerb;
use model::BootId;
use rusqlite::{OptionalExtension as _, params};
use wire::Mac;

/// An order that no machine has obeyed for so long is not given any more: a machine that was away must
/// not stop under somebody who works with it again. Machines are heard each 20 s.
const ORDER_MAX_MS: u64 = 120_000;

/// What was asked of a running machine.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PowerState {
    /// Which order of this boot it is, from 1.
    pub counter: u32,
    /// `reboot` or `poweroff`.
    #[serde(serialize_with = "as_word")]
    pub verb: PowerVerb,
    /// When it was asked, milliseconds since 1970.
    pub asked_unix_ms: u64,
    /// When the machine said that it obeys.
    pub obeyed_unix_ms: Option<u64>,
}

fn as_word<S: serde::Serializer>(verb: &PowerVerb, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(verb.word())
}

impl PowerState {
    /// Whether the machine is still told. An order of the future is none: the clock was set back.
    pub fn is_open(&self, now_unix_ms: u64) -> bool {
        self.obeyed_unix_ms.is_none() && now_unix_ms.abs_diff(self.asked_unix_ms) < ORDER_MAX_MS
    }
}

impl Transaction<'_> {
    /// The last order of a boot.
    pub(super) fn order_of(&self, boot: BootId) -> rusqlite::Result<Option<PowerState>> {
        let mut query = self.sql().prepare_cached(
            "SELECT counter, verb, asked_unix_ms, obeyed_unix_ms FROM power_order WHERE boot = ?1",
        )?;
        let order = query.query_row([boot], |row| {
            let verb: String = row.get(1)?;
            // Another Bootlace may know other verbs.
            let Ok(verb) = verb.parse() else { return Ok(None) };
            Ok(Some(PowerState {
                counter: row.get(0)?,
                verb,
                asked_unix_ms: row.get(2)?,
                obeyed_unix_ms: row.get(3)?,
            }))
        });
        Ok(order.optional()?.flatten())
    }

    /// Asks something of the machine in this boot, in place of what was asked before. Returns the order's counter.
    pub(crate) fn put_order(
        &self,
        mac: Mac,
        boot: BootId,
        verb: PowerVerb,
        asked_unix_ms: u64,
    ) -> rusqlite::Result<u32> {
        self.touch(Part::Boot(mac));
        self.sql().query_row(
            "INSERT INTO power_order VALUES (?1, 1, ?2, ?3, NULL) ON CONFLICT (boot) DO UPDATE \
             SET counter = counter + 1, verb = excluded.verb, \
             asked_unix_ms = excluded.asked_unix_ms, obeyed_unix_ms = NULL RETURNING counter",
            params![boot, verb.word(), asked_unix_ms],
            |row| row.get(0),
        )
    }

    /// The machine obeys the order with this counter. Returns whether it is the last one, and news.
    pub(crate) fn note_obedience(
        &self,
        mac: Mac,
        boot: BootId,
        counter: u32,
        now_unix_ms: u64,
    ) -> rusqlite::Result<bool> {
        let n_rows = self.sql().execute(
            "UPDATE power_order SET obeyed_unix_ms = ?3 \
             WHERE boot = ?1 AND counter = ?2 AND obeyed_unix_ms IS NULL",
            params![boot, counter, now_unix_ms],
        )?;
        if n_rows > 0 {
            self.touch(Part::Boot(mac));
        }
        Ok(n_rows > 0)
    }
}
