//! Boots and the stages that they reach.

use crate::error::Error;
use crate::fleet::rescue;
use crate::service::{Service, now_unix_ms};
use crate::store::database::ChangeError;
use crate::store::rows;
use crate::store::view::Part;
use initcfg::Token;
use model::{Boot, BootId, Firmware, ImageVersion, MachineName, RootKind, Stage};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::sync::Arc;
use wire::Mac;

/// Boots that are kept of each NIC.
const BOOTS_OF_NIC_MAX: u32 = 100;

/// Boots that are kept of PCs that are not machines. The oldest go first.
const FOREIGN_BOOTS_MAX: u32 = 2048;

/// Firmware may ask several times for one power-on: once for itself, once for its loader, once more
/// over a second protocol. After this silence it was switched off and on.
const SAME_POWER_ON_MS: u64 = 60_000;

/// Longest detail of a stage in bytes; a report is one datagram of at most 1024.
const DETAIL_MAX: usize = 512;

/// A stage that a machine has reached just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewStage {
    /// The stage.
    pub stage: Stage,
    /// More about it, for people; may be empty.
    pub detail: String,
    /// Milliseconds since the machine's kernel started, if it told.
    pub uptime_ms: Option<u64>,
}

impl NewStage {
    /// A stage that the boot server itself has noticed.
    pub fn noticed(stage: Stage, detail: impl Into<String>) -> Self {
        Self { stage, detail: detail.into(), uptime_ms: None }
    }
}

/// What [`Service::prepare_boot`] found.
pub(crate) enum Prepared {
    /// This boot is to get the image; the boolean tells whether it has its configuration already.
    Boot(BootId, bool),
    /// No firmware of this NIC ever asked: nobody knows which power-on this is.
    NeverStarted,
    /// The machine runs with something else.
    Running(Box<Boot>),
}

impl Service {
    /// The last boot of a NIC.
    pub fn boot_of(&self, mac: Mac) -> Option<Arc<Boot>> {
        self.view().boots.get(&mac).cloned()
    }

    /// The last boots of a NIC, the last first.
    ///
    /// # Errors
    /// The database can't be read.
    pub async fn boots_of(&self, mac: Mac, n_boots: u32) -> Result<Vec<Boot>, Error> {
        self.database().read(move |connection| rows::boots_of(connection, mac, n_boots)).await
    }

    /// The firmware of a NIC asks for an address: opens a boot, unless one is open already.
    ///
    /// # Errors
    /// The database can't be written, or too many changes wait.
    pub async fn boot_started(&self, mac: Mac, firmware: Firmware) -> Result<BootId, Error> {
        let now = now_unix_ms();
        // Most of the packets of a power-on change nothing.
        if let Some(boot) = self.boot_of(mac).filter(|boot| is_same_power_on(boot, now)) {
            return Ok(boot.id);
        }
        let (id, is_new) = self
            .database()
            .write(move |connection| {
                if let Some(boot) = rows::last_boot(connection, mac)?
                    && is_same_power_on(&boot, now)
                {
                    return Ok((Part::Nothing, (boot.id, false)));
                }
                let id = open_boot(connection, mac, firmware, now)?;
                Ok((Part::Boot(mac), (id, true)))
            })
            .await?;
        if is_new {
            self.waits().set(mac, None);
            tracing::info!(%mac, boot = id, %firmware, "boot started");
        }
        Ok(id)
    }

    /// Whether the firmware of a NIC is at work: it has an address, and no loader yet.
    pub fn is_in_firmware(&self, mac: Mac) -> bool {
        self.boot_of(mac).is_some_and(|boot| is_same_power_on(&boot, now_unix_ms()))
    }

    /// A machine has reached a stage of its last boot, or of the boot that it names.
    ///
    /// A stage that the boot has reached already, and a boot of another NIC, change nothing. Returns
    /// whether anything changed.
    ///
    /// # Errors
    /// The database can't be written, or too many changes wait.
    pub async fn stage(
        &self,
        mac: Mac,
        boot: Option<BootId>,
        event: NewStage,
    ) -> Result<bool, Error> {
        let now = now_unix_ms();
        let NewStage { stage, detail, uptime_ms } = event;
        let detail = clean(&detail);
        let logged = detail.clone();
        let stored = self
            .database()
            .write(move |connection| {
                let id: Option<BootId> = match boot {
                    Some(id) => connection
                        .query_row(
                            "SELECT id FROM boot WHERE id = ?1 AND mac = ?2",
                            params![id, mac.to_string()],
                            |row| row.get(0),
                        )
                        .optional()?,
                    None => connection.query_row(
                        "SELECT max(id) FROM boot WHERE mac = ?1",
                        [mac.to_string()],
                        |row| row.get(0),
                    )?,
                };
                let Some(id) = id else { return Ok((Part::Nothing, None)) };
                let n_rows = connection.execute(
                    "INSERT OR IGNORE INTO boot_stage (boot, stage, at_unix_ms, uptime_ms, detail) \
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![id, stage.word(), now, uptime_ms, detail],
                )?;
                match n_rows {
                    0 => Ok((Part::Nothing, None)),
                    _ => Ok((Part::Boot(mac), Some(id))),
                }
            })
            .await?;
        if let Some(boot) = stored {
            let machine = self.name_or_mac(mac);
            match stage {
                Stage::Failed => tracing::warn!(machine, boot, detail = logged, "boot failed"),
                _ => tracing::info!(machine, boot, detail = logged, "{}", stage.title()),
            }
        }
        Ok(stored.is_some())
    }

    /// Decides which boot a machine that asks for its configuration is in, and notes what it gets.
    pub(crate) async fn prepare_boot(
        &self,
        mac: Mac,
        machine: MachineName,
        version: ImageVersion,
        root: RootKind,
    ) -> Result<Prepared, Error> {
        let now = now_unix_ms();
        self.database()
            .write(move |connection| {
                let Some(boot) = rows::last_boot(connection, mac)? else {
                    return Ok((Part::Nothing, Prepared::NeverStarted));
                };
                let has = |stage| boot.stages.iter().any(|event| event.stage == stage);
                let wanted = (version.image.clone(), version.version);
                let is_same = boot.image.as_ref() == Some(&wanted) && boot.root == Some(root);
                let is_configured = has(Stage::Config);
                let id = match (is_configured, is_same) {
                    (true, true) => return Ok((Part::Nothing, Prepared::Boot(boot.id, true))),
                    (false, _) => boot.id,
                    // Its kernel runs: a new boot would throw away the disk under it.
                    (true, false) if has(Stage::Start) => {
                        return Ok((Part::Nothing, Prepared::Running(Box::new(boot))));
                    }
                    // It could not load what it was given, and was given something else since.
                    (true, false) => open_boot(connection, mac, boot.firmware, now)?,
                };
                connection.execute(
                    "UPDATE boot SET machine = ?2, image = ?3, version = ?4, root = ?5 WHERE id = ?1",
                    params![id, machine.as_str(), wanted.0.as_str(), wanted.1, root.to_string()],
                )?;
                rescue::bind(connection, &machine, id)?;
                Ok((Part::Boot(mac), Prepared::Boot(id, false)))
            })
            .await
    }
}

fn is_same_power_on(boot: &Boot, now_unix_ms: u64) -> bool {
    let last = boot.current().map_or(boot.started_unix_ms, |event| event.at_unix_ms);
    let is_before_config = boot.stages.iter().all(|event| event.stage < Stage::Config);
    is_before_config && now_unix_ms.saturating_sub(last) < SAME_POWER_ON_MS
}

/// A secret that nobody can guess.
fn new_token() -> Result<Token, ChangeError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|_| Error::NoRandomness)?;
    Ok(Token::new(random))
}

fn open_boot(
    connection: &Connection,
    mac: Mac,
    firmware: Firmware,
    now_unix_ms: u64,
) -> Result<BootId, ChangeError> {
    let text = mac.to_string();
    let machine: Option<String> = connection
        .query_row("SELECT name FROM machine WHERE mac = ?1", [&text], |row| row.get(0))
        .optional()?;
    connection.execute(
        "INSERT INTO boot (mac, machine, firmware, started_unix_ms, token) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![text, machine, firmware.code(), now_unix_ms, new_token()?.as_bytes()],
    )?;
    let id = connection.last_insert_rowid();
    connection.execute(
        "DELETE FROM boot WHERE mac = ?1 AND id NOT IN \
         (SELECT id FROM boot WHERE mac = ?1 ORDER BY id DESC LIMIT ?2)",
        params![text, BOOTS_OF_NIC_MAX],
    )?;
    if machine.is_none() {
        connection.execute(
            "DELETE FROM boot WHERE machine IS NULL AND id NOT IN \
             (SELECT id FROM boot WHERE machine IS NULL ORDER BY id DESC LIMIT ?1)",
            [FOREIGN_BOOTS_MAX],
        )?;
    }
    // SQLite's row numbers are positive unless somebody inserts others by hand.
    Ok(id.unsigned_abs())
}

/// Text of a stranger, fit for a log line and a page.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::new();
    for character in text.chars() {
        let shown = if character.is_control() { ' ' } else { character };
        if clean.len() + shown.len_utf8() > DETAIL_MAX {
            break;
        }
        clean.push(shown);
    }
    clean
}
