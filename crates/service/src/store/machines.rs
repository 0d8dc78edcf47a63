//! Rows of machines.

use super::row::{parse, parse_optional};
use super::transaction::{Part, Transaction};
use model::{ImageChoice, Machine, MachineName, Menu, Origins, RootUrl};
use rusqlite::{OptionalExtension as _, Row, params};
use std::collections::{BTreeSet, HashMap};
use wire::Mac;

const COLUMNS: &str =
    "name, mac, image, root, root_url, write_mode, shelf_slot, kernel_args, reset_disk";

/// NICs beside the first of each machine.
const OTHER_MACS: &str = "machine_mac WHERE mac NOT IN (SELECT mac FROM machine)";

impl Transaction<'_> {
    /// All machines, by name.
    pub(crate) fn machines(&self) -> rusqlite::Result<Vec<Machine>> {
        let query = format!("SELECT {COLUMNS} FROM machine ORDER BY name");
        let mut others: HashMap<MachineName, Vec<Mac>> = HashMap::new();
        let query_others = format!("SELECT machine, mac FROM {OTHER_MACS} ORDER BY id");
        let mut of_all = self.sql().prepare_cached(&query_others)?;
        for other in of_all.query_map([], |row| Ok((parse(row, 0)?, parse(row, 1)?)))? {
            let (name, mac) = other?;
            others.entry(name).or_default().push(mac);
        }
        let (inheritance, mut places) = (self.inheritance()?, self.places()?);
        let mut machines = self.sql().prepare_cached(&query)?;
        let machines = machines.query_map([], |row| {
            let mut machine = machine(row)?;
            machine.other_macs = others.remove(&machine.name).unwrap_or_default();
            let place = places.remove(&machine.name).unwrap_or_default();
            inheritance.complete(&mut machine, place);
            Ok(machine)
        });
        machines?.collect()
    }

    /// The machine of this name.
    pub(crate) fn machine(&self, name: &MachineName) -> rusqlite::Result<Option<Machine>> {
        let query = format!("SELECT {COLUMNS} FROM machine WHERE name = ?1");
        let mut query = self.sql().prepare_cached(&query)?;
        let Some(mut machine) = query.query_row([name.as_str()], machine).optional()? else {
            return Ok(None);
        };
        machine.other_macs = self.other_macs(name)?;
        self.inheritance()?.complete(&mut machine, self.place(name)?);
        Ok(Some(machine))
    }

    fn other_macs(&self, name: &MachineName) -> rusqlite::Result<Vec<Mac>> {
        let query = format!("SELECT mac FROM {OTHER_MACS} AND machine = ?1 ORDER BY id");
        let mut query = self.sql().prepare_cached(&query)?;
        query.query_map([name.as_str()], |row| parse(row, 0))?.collect()
    }

    /// Name of the machine that boots from this NIC.
    pub(crate) fn name_of(&self, mac: Mac) -> rusqlite::Result<Option<MachineName>> {
        self.sql()
            .prepare_cached(
                "SELECT name FROM machine WHERE mac = ?1 \
                 UNION ALL SELECT machine FROM machine_mac WHERE mac = ?1 LIMIT 1",
            )?
            .query_row([mac.to_string()], |row| parse(row, 0))
            .optional()
    }

    /// All NICs of the machine that has this one; of a PC that is no machine just this one.
    pub(super) fn macs_beside(&self, mac: Mac) -> rusqlite::Result<Vec<Mac>> {
        let Some(name) = self.name_of(mac)? else { return Ok(vec![mac]) };
        self.macs_of(&name)
    }

    fn macs_of(&self, name: &MachineName) -> rusqlite::Result<Vec<Mac>> {
        let first: Option<Mac> = self
            .sql()
            .prepare_cached("SELECT mac FROM machine WHERE name = ?1")?
            .query_row([name.as_str()], |row| parse(row, 0))
            .optional()?;
        Ok(first.into_iter().chain(self.other_macs(name)?).collect())
    }

    /// Adds a machine, or changes the one of this name: all but its AoE address.
    pub(crate) fn put_machine(&self, machine: &Machine, now_unix: u64) -> rusqlite::Result<()> {
        let former: BTreeSet<Mac> = self.macs_of(&machine.name)?.into_iter().collect();
        self.sql().execute(
            "INSERT INTO machine (name, mac, image, root, write_mode, shelf_slot, kernel_args, reset_disk, \
             added_unix, root_url) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
             ON CONFLICT (name) DO UPDATE SET mac = excluded.mac, image = excluded.image, \
             root = excluded.root, write_mode = excluded.write_mode, kernel_args = excluded.kernel_args, \
             reset_disk = excluded.reset_disk, root_url = excluded.root_url",
            params![
                machine.name.as_str(),
                machine.mac.to_string(),
                machine.image.as_ref().map(ImageChoice::to_string),
                machine.root.to_string(),
                machine.write_mode.to_string(),
                machine.shelf_slot.to_string(),
                machine.kernel_args.as_str(),
                machine.reset_disk,
                now_unix,
                machine.root_url.as_ref().map(RootUrl::to_string),
            ],
        )?;
        self.identify(&machine.name)?;
        self.touch(Part::Machines);
        let macs: BTreeSet<Mac> = machine.macs().collect();
        self.put_other_macs(machine)?;
        self.put_place(machine)?;
        if former != macs {
            self.touch_boots(former.union(&macs).copied());
        }
        self.forget_hardware_of_strangers()
    }

    fn put_other_macs(&self, machine: &Machine) -> rusqlite::Result<()> {
        // What an older Bootlace has left there of another machine's NICs goes, too.
        let mut forget =
            self.sql().prepare_cached("DELETE FROM machine_mac WHERE machine = ?1 OR mac = ?2")?;
        forget.execute([machine.name.as_str(), &machine.mac.to_string()])?;
        let mut put =
            self.sql().prepare_cached("INSERT INTO machine_mac (mac, machine) VALUES (?1, ?2)")?;
        for mac in &machine.other_macs {
            put.execute([&mac.to_string(), machine.name.as_str()])?;
        }
        Ok(())
    }

    /// Boots belong to machines: who has other NICs than before has other boots.
    fn touch_boots(&self, macs: impl IntoIterator<Item = Mac>) {
        macs.into_iter().for_each(|mac| self.touch(Part::Boot(mac)));
    }

    /// The machine's disk has been thrown away, as it was asked for.
    pub(crate) fn disk_was_reset(&self, name: &MachineName) -> rusqlite::Result<()> {
        self.sql().execute("UPDATE machine SET reset_disk = 0 WHERE name = ?1", [name.as_str()])?;
        self.set_disk_reset_of(name, None)?;
        self.touch(Part::Machines);
        Ok(())
    }

    /// Removes a machine, and what only machines have.
    pub(crate) fn delete_machine(&self, name: &MachineName) -> rusqlite::Result<()> {
        self.touch_boots(self.macs_of(name)?);
        self.sql().execute("DELETE FROM machine WHERE name = ?1", [name.as_str()])?;
        self.touch(Part::Machines);
        self.touch(Part::Rescues);
        self.touch(Part::KeptDisks);
        self.forget_hardware_of_strangers()
    }
}

fn machine(row: &Row<'_>) -> rusqlite::Result<Machine> {
    Ok(Machine {
        name: parse(row, 0)?,
        mac: parse(row, 1)?,
        other_macs: Vec::new(),
        image: parse_optional(row, 2)?,
        root: parse(row, 3)?,
        root_url: parse_optional(row, 4)?,
        write_mode: parse(row, 5)?,
        shelf_slot: parse(row, 6)?,
        kernel_args: parse(row, 7)?,
        reset_disk: row.get(8)?,
        room: None,
        seat: None,
        tags: Vec::new(),
        menu: Menu::default(),
        next_boot: None,
        edit: None,
        capture: None,
        set_by: Origins::OWN,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::View;
    use crate::store::schema;

    #[test]
    fn what_an_older_bootlace_did_with_a_second_nic_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let connection = schema::open(&path).unwrap();
        let (port, dock) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let add = |name: &str, mac: Mac, shelf_slot: &str| {
            let insert = "INSERT INTO machine (name, mac, root, write_mode, shelf_slot, kernel_args, \
                          reset_disk, added_unix) VALUES (?1, ?2, 'nbd', 'discard', ?3, '', 0, 0)";
            connection.execute(insert, [name, &mac.to_string(), shelf_slot]).unwrap();
        };
        add("lab-07", port, "1.0");
        let tables = Transaction::new(&connection);
        let lab_07: MachineName = "lab-07".parse().unwrap();
        let mut machine = tables.machine(&lab_07).unwrap().unwrap();
        machine.other_macs = vec![dock];
        tables.put_machine(&machine, 0).unwrap();
        let macs = || View::load(&tables).unwrap().site.machine(&lab_07).unwrap().macs().count();
        assert_eq!(macs(), 2);

        // It knows no second NICs, and makes a machine of what it takes for a new PC.
        add("lab-08", dock, "1.1");
        assert_eq!(macs(), 1);
        assert_eq!(tables.machine(&lab_07).unwrap().unwrap().other_macs, []);
        assert_eq!(tables.name_of(dock).unwrap().unwrap().as_str(), "lab-08");
        assert_eq!(tables.macs_beside(port).unwrap(), [port]);
        let mut lab_08 = tables.machine(&"lab-08".parse().unwrap()).unwrap().unwrap();
        lab_08.other_macs = vec![Mac([2, 0, 0, 0, 0, 3])];
        tables.put_machine(&lab_08, 0).unwrap();

        // Or removes the machine, with all that it does not know of it.
        connection.execute("DELETE FROM machine WHERE name = 'lab-08'", []).unwrap();
        for mac in lab_08.macs() {
            assert_eq!(tables.name_of(mac).unwrap(), None);
        }
    }
}
