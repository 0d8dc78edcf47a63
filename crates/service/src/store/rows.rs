//! From rows to nouns and back.

use model::{
    Boot, BootId, Firmware, ImageName, ImageVersion, Lease, Machine, Seen, Stage, StageEvent,
};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use wire::Mac;

pub(crate) fn machines(connection: &Connection) -> rusqlite::Result<Vec<Machine>> {
    let mut query = connection.prepare_cached(
        "SELECT name, mac, image, root, write_mode, shelf_slot, kernel_args, reset_disk, \
         root_url FROM machine ORDER BY name",
    )?;
    let rows = query.query_map([], |row| {
        Ok(Machine {
            name: parse(row, 0)?,
            mac: parse(row, 1)?,
            image: parse_optional(row, 2)?,
            root: parse(row, 3)?,
            root_url: parse_optional(row, 8)?,
            write_mode: parse(row, 4)?,
            shelf_slot: parse(row, 5)?,
            kernel_args: parse(row, 6)?,
            reset_disk: row.get(7)?,
        })
    })?;
    rows.collect()
}

pub(crate) fn image_versions(connection: &Connection) -> rusqlite::Result<Vec<ImageVersion>> {
    let mut query = connection.prepare_cached(
        "SELECT image, version, digest, size_bytes, partition, file_system, kernel_version, os_name, \
         imported_unix FROM image_version ORDER BY image, version",
    )?;
    let rows = query.query_map([], |row| {
        let file_system = row.get::<_, String>(5)?;
        Ok(ImageVersion {
            image: parse(row, 0)?,
            version: row.get(1)?,
            digest: row.get(2)?,
            size_bytes: row.get(3)?,
            partition: row.get(4)?,
            file_system: serde_json::from_value(file_system.into())
                .map_err(|error| wrong(5, error))?,
            kernel_version: row.get(6)?,
            os_name: row.get(7)?,
            imported_unix: row.get(8)?,
        })
    })?;
    rows.collect()
}

pub(crate) fn insert_image_version(
    connection: &Connection,
    version: &ImageVersion,
) -> rusqlite::Result<()> {
    connection.execute(
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
    Ok(())
}

pub(crate) fn leases(connection: &Connection) -> rusqlite::Result<Vec<Lease>> {
    let mut query =
        connection.prepare_cached("SELECT mac, address, expires_unix, host_name FROM lease")?;
    let rows = query.query_map([], |row| {
        Ok(Lease {
            mac: parse(row, 0)?,
            address: parse(row, 1)?,
            expires_unix: row.get(2)?,
            host_name: row.get(3)?,
        })
    })?;
    rows.collect()
}

pub(crate) fn seen(connection: &Connection) -> rusqlite::Result<Vec<Seen>> {
    let mut query = connection.prepare_cached(
        "SELECT mac, firmware, address, uuid, first_unix, last_unix FROM seen \
         ORDER BY last_unix DESC, mac",
    )?;
    let rows = query.query_map([], |row| {
        Ok(Seen {
            mac: parse(row, 0)?,
            firmware: Firmware::of_code(row.get(1)?),
            address: parse_optional(row, 2)?,
            uuid: row.get(3)?,
            first_unix: row.get(4)?,
            last_unix: row.get(5)?,
        })
    })?;
    rows.collect()
}

/// The last boot of each NIC.
pub(crate) fn last_boots(connection: &Connection) -> rusqlite::Result<HashMap<Mac, Arc<Boot>>> {
    let ids: Vec<BootId> = connection
        .prepare_cached("SELECT max(id) FROM boot GROUP BY mac")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut boots = HashMap::new();
    for id in ids {
        if let Some(boot) = boot(connection, id)? {
            boots.insert(boot.mac, Arc::new(boot));
        }
    }
    Ok(boots)
}

pub(crate) fn last_boot(connection: &Connection, mac: Mac) -> rusqlite::Result<Option<Boot>> {
    let id: Option<BootId> = connection
        .prepare_cached("SELECT max(id) FROM boot WHERE mac = ?1")?
        .query_row([mac.to_string()], |row| row.get(0))?;
    id.map_or(Ok(None), |id| boot(connection, id))
}

/// The last boots of a NIC, the last first.
pub(crate) fn boots_of(
    connection: &Connection,
    mac: Mac,
    n_boots: u32,
) -> rusqlite::Result<Vec<Boot>> {
    let ids: Vec<BootId> = connection
        .prepare_cached("SELECT id FROM boot WHERE mac = ?1 ORDER BY id DESC LIMIT ?2")?
        .query_map(params![mac.to_string(), n_boots], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let boots = ids.into_iter().map(|id| boot(connection, id));
    boots.filter_map(Result::transpose).collect()
}

pub(crate) fn boot(connection: &Connection, id: BootId) -> rusqlite::Result<Option<Boot>> {
    let boot = connection
        .prepare_cached(
            "SELECT mac, machine, firmware, started_unix_ms, image, version, root FROM boot WHERE id = ?1",
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
    let mut query = connection.prepare_cached(
        "SELECT stage, at_unix_ms, uptime_ms, detail FROM boot_stage WHERE boot = ?1",
    )?;
    let stages = query
        .query_map([id], |row| {
            let event: StageEvent =
                StageEvent { stage: parse(row, 0)?, at_unix_ms: row.get(1)?, detail: row.get(3)? };
            Ok((event, row.get(2)?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    boot.stages = in_true_order(stages);
    Ok(Some(boot))
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

fn parse<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    row.get_ref(column)?.as_str()?.parse().map_err(|error| wrong(column, error))
}

fn parse_optional<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    match row.get_ref(column)?.as_str_or_null()? {
        Some(text) => text.parse().map(Some).map_err(|error| wrong(column, error)),
        None => Ok(None),
    }
}

fn wrong(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
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
