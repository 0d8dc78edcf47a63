//! Rows of menus, and of what machines start the next time.

use super::row::parse;
use super::transaction::{Part, Transaction};
use model::{Boot, BootChoice, BootId, Machine, MachineName, Menu, Origin, Stage};
use rusqlite::{OptionalExtension as _, params};
use wire::Mac;

impl Transaction<'_> {
    /// The menu that the machines of a room inherit, or by the empty name those of the site.
    pub(super) fn put_setting_menu(&self, room: &str, menu: Option<&Menu>) -> rusqlite::Result<()> {
        match menu {
            Some(menu) => self.sql().execute(
                "INSERT OR REPLACE INTO setting_menu VALUES (?1, ?2)",
                params![room, menu.to_string()],
            ),
            None => self.sql().execute("DELETE FROM setting_menu WHERE room = ?1", [room]),
        }
        .map(drop)
    }

    /// Stores the machine's menu, if it is its own, and what it starts the next time.
    pub(super) fn put_machine_menu(&self, machine: &Machine) -> rusqlite::Result<()> {
        let name = machine.name.as_str();
        let is_own = machine.set_by.menu == Origin::Machine;
        let values = [
            ("machine_menu", is_own.then(|| machine.menu.to_string())),
            ("next_boot", machine.next_boot.as_ref().map(ToString::to_string)),
        ];
        for (table, value) in values {
            match value {
                Some(value) => self.sql().execute(
                    &format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2)"),
                    [name, &value],
                )?,
                None => self
                    .sql()
                    .execute(&format!("DELETE FROM {table} WHERE machine = ?1"), [name])?,
            };
        }
        Ok(())
    }

    /// What the machine was to start the next time becomes what it starts in the last boot from this NIC.
    pub(crate) fn begin_next_boot(
        &self,
        mac: Mac,
        machine: &MachineName,
    ) -> rusqlite::Result<Option<BootChoice>> {
        let last = self.last_boot_from(mac)?;
        // Any user of a PC that has chosen already could ask again, and the choice would be gone before it restarts.
        let has_not_chosen =
            |boot: &Boot| boot.stages.iter().all(|event| event.stage < Stage::Config);
        let Some(boot) = last.filter(has_not_chosen) else { return Ok(None) };
        let choice: Option<BootChoice> = self
            .sql()
            .query_row(
                "DELETE FROM next_boot WHERE machine = ?1 RETURNING choice",
                [machine.as_str()],
                |row| parse(row, 0),
            )
            .optional()?;
        if let Some(choice) = &choice {
            self.sql().execute(
                "INSERT OR REPLACE INTO boot_choice VALUES (?1, ?2)",
                params![boot.id, choice.to_string()],
            )?;
            self.touch(Part::Machines);
            self.touch(Part::Boot(mac));
        }
        Ok(choice)
    }

    /// What this boot starts, if it was to start something once.
    pub(super) fn choice_of(&self, boot: BootId) -> rusqlite::Result<Option<BootChoice>> {
        self.sql()
            .prepare_cached("SELECT choice FROM boot_choice WHERE boot = ?1")?
            .query_row([boot], |row| parse(row, 0))
            .optional()
    }
}
