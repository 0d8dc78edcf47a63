//! What only the boot server and the machine know of a boot: its secret, and what was asked of it.

use crate::error::Error;
use crate::fleet::rescue;
use crate::service::{Service, now_unix_ms};
use crate::store::view::Part;
use initcfg::{PowerOrder, PowerVerb, Tag, Token};
use model::{BootId, MachineName};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use wire::Mac;

/// An order that no machine has obeyed for so long is not given any more: a machine that was away must
/// not stop under somebody who works with it again. Machines are heard each 20 s.
const ORDER_MAX_MS: u64 = 120_000;

/// Boots whose refused words are counted.
const REFUSED_MAX: usize = 1024;

/// The private side of a boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) boot: BootId,
    /// `None`: it was opened by an older Bootlace.
    pub(crate) token: Option<Token>,
    /// The machine has shown that it knows the token.
    pub(crate) is_proven: bool,
    pub(crate) order: Option<PowerState>,
    /// Password of the rescue shell that the boot stops in.
    pub(crate) rescue: Option<String>,
}

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
    /// Whether the machine is still told.
    pub fn is_open(&self, now_unix_ms: u64) -> bool {
        self.obeyed_unix_ms.is_none()
            && now_unix_ms.saturating_sub(self.asked_unix_ms) < ORDER_MAX_MS
    }
}

pub(crate) fn of_boot(connection: &Connection, boot: BootId) -> rusqlite::Result<Control> {
    let order = connection
        .prepare_cached(
            "SELECT counter, verb, asked_unix_ms, obeyed_unix_ms FROM power_order WHERE boot = ?1",
        )?
        .query_row([boot], |row| {
            let verb: String = row.get(1)?;
            // Another Bootlace may know other verbs.
            let Ok(verb) = verb.parse() else { return Ok(None) };
            Ok(Some(PowerState {
                counter: row.get(0)?,
                verb,
                asked_unix_ms: row.get(2)?,
                obeyed_unix_ms: row.get(3)?,
            }))
        })
        .optional()?
        .flatten();
    let rescue = rescue::of_boot(connection, boot)?;
    connection.prepare_cached("SELECT token, is_proven FROM boot WHERE id = ?1")?.query_row(
        [boot],
        |row| {
            let token: Option<[u8; 32]> = row.get(0)?;
            let token = token.map(Token::new);
            Ok(Control { boot, token, is_proven: row.get(1)?, order, rescue })
        },
    )
}

/// Words that were refused, by boot.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    by_boot: Mutex<HashMap<BootId, u64>>,
}

impl Refused {
    /// Counts one more, and returns how many there are.
    fn count(&self, boot: BootId) -> u64 {
        let mut by_boot = self.by_boot.lock().unwrap_or_else(PoisonError::into_inner);
        if by_boot.len() >= REFUSED_MAX && !by_boot.contains_key(&boot) {
            // Numbers grow: the smallest is the oldest.
            let oldest = by_boot.keys().min().copied();
            oldest.and_then(|oldest| by_boot.remove(&oldest));
        }
        let n = by_boot.entry(boot).or_default();
        *n += 1;
        *n
    }

    pub(crate) fn of(&self, boot: BootId) -> u64 {
        let by_boot = self.by_boot.lock().unwrap_or_else(PoisonError::into_inner);
        by_boot.get(&boot).copied().unwrap_or(0)
    }
}

impl Service {
    /// Whether a text can be believed that a machine sends about one of its boots, with its tag if it has
    /// one: a wrong tag never, none as long as the machine has not shown that it has the token.
    ///
    pub async fn believe(&self, mac: Mac, boot: BootId, text: &[u8], tag: Option<Tag>) -> bool {
        let last = self.view().controls.get(&mac).filter(|last| last.boot == boot).cloned();
        let control = match last {
            Some(control) => control,
            None => match self.earlier(mac, boot).await {
                Some(control) => Arc::new(control),
                // There is nothing that such words could change.
                None => return true,
            },
        };
        let Some(token) = &control.token else { return true };
        match tag {
            None if !control.is_proven => return true,
            Some(tag) if token.tag(text) == tag => {
                if !control.is_proven
                    && let Err(error) = self.note_proof(mac, boot).await
                {
                    tracing::warn!(%mac, boot, error = error.chain(), "a proof was not noted");
                }
                return true;
            }
            _ => {}
        }
        if self.refused().count(boot) == 1 {
            let machine = self.name_or_mac(mac);
            tracing::warn!(machine, boot, "words that are not the machine's are refused");
        }
        false
    }

    /// Of a boot before the last of this NIC.
    async fn earlier(&self, mac: Mac, boot: BootId) -> Option<Control> {
        let found = self.database().read(move |connection| {
            let query = "SELECT id FROM boot WHERE id = ?1 AND mac = ?2";
            let parameters = params![boot, mac.to_string()];
            let id: Option<BootId> =
                connection.query_row(query, parameters, |row| row.get(0)).optional()?;
            id.map(|id| of_boot(connection, id)).transpose()
        });
        found.await.ok().flatten()
    }

    async fn note_proof(&self, mac: Mac, boot: BootId) -> Result<(), Error> {
        self.database()
            .write(move |connection| {
                connection.execute("UPDATE boot SET is_proven = 1 WHERE id = ?1", [boot])?;
                Ok((Part::Boot(mac), ()))
            })
            .await
    }

    /// Asks a running machine to stop. The boot server tells it within a second, and again until the
    /// machine answers or two minutes have passed.
    ///
    /// # Errors
    /// There is no such machine, it can't be told, or the database can't be written.
    pub async fn order(&self, name: &MachineName, verb: PowerVerb) -> Result<PowerState, Error> {
        let mac = self.site().machine(name).ok_or_else(|| Error::NoMachine(name.clone()))?.mac;
        let control = self.view().controls.get(&mac).cloned();
        // Who has proven nothing has no keeper that could check an order.
        let Some(control) = control.filter(|control| control.is_proven) else {
            return Err(Error::NoKeeper(name.clone()));
        };
        let boot = control.boot;
        let asked_unix_ms = now_unix_ms();
        let state = self
            .database()
            .write(move |connection| {
                let counter: u32 = connection.query_row(
                    "INSERT INTO power_order VALUES (?1, 1, ?2, ?3, NULL) ON CONFLICT (boot) DO UPDATE \
                     SET counter = counter + 1, verb = excluded.verb, \
                     asked_unix_ms = excluded.asked_unix_ms, obeyed_unix_ms = NULL RETURNING counter",
                    params![boot, verb.word(), asked_unix_ms],
                    |row| row.get(0),
                )?;
                let state = PowerState { counter, verb, asked_unix_ms, obeyed_unix_ms: None };
                Ok((Part::Boot(mac), state))
            })
            .await?;
        tracing::info!(machine = %name, boot, %verb, "asked to stop");
        Ok(state)
    }

    /// Orders that machines have not obeyed yet, as datagrams.
    pub fn open_orders(&self) -> Vec<(Mac, String)> {
        let now = now_unix_ms();
        let view = self.view();
        let open = view.controls.iter().filter_map(|(mac, control)| {
            let order = control.order.as_ref().filter(|order| order.is_open(now))?;
            let PowerState { counter, verb, .. } = *order;
            let line = PowerOrder { boot: control.boot, counter, verb }.to_string();
            Some((*mac, control.token?.seal(&line)))
        });
        open.collect()
    }

    /// A machine obeys an order.
    ///
    /// # Errors
    /// The database can't be written.
    pub async fn obeyed(&self, mac: Mac, boot: BootId, counter: u32) -> Result<(), Error> {
        let now = now_unix_ms();
        let n_rows = self
            .database()
            .write(move |connection| {
                let n_rows = connection.execute(
                    "UPDATE power_order SET obeyed_unix_ms = ?3 \
                     WHERE boot = ?1 AND counter = ?2 AND obeyed_unix_ms IS NULL",
                    params![boot, counter, now],
                )?;
                Ok((if n_rows > 0 { Part::Boot(mac) } else { Part::Nothing }, n_rows))
            })
            .await?;
        if n_rows > 0 {
            tracing::info!(machine = self.name_or_mac(mac), boot, "obeys and stops");
        }
        Ok(())
    }
}
