//! Rows of rooms, and of what machines inherit.

use super::row::{parse, parse_optional, wrong};
use super::transaction::{Part, Transaction};
use model::{
    BootChoice, Capture, Edit, ImageChoice, Machine, MachineName, Menu, Origin, Origins, Room,
    RoomName, RootUrl, Seat, Setting, Settings, Tag,
};
use rusqlite::{OptionalExtension as _, Row, params};
use std::collections::HashMap;

/// By this name the site's settings stand among those of rooms; no room can have it.
const SITE: &str = "";

const ROOM: &str = "SELECT r.name, r.note, r.size, r.kernel_args, coalesce(s.has_image, 0), s.image, s.root, s.root_url, \
                    s.write_mode, m.menu FROM site_room r LEFT JOIN setting s ON s.room = r.name \
                    LEFT JOIN setting_menu m ON m.room = r.name";

impl Transaction<'_> {
    /// All rooms, by name.
    pub(crate) fn rooms(&self) -> rusqlite::Result<Vec<Room>> {
        let mut query = self.sql().prepare_cached(&format!("{ROOM} ORDER BY r.name"))?;
        query.query_map([], room)?.collect()
    }

    /// The room with this name.
    pub(crate) fn room(&self, name: &RoomName) -> rusqlite::Result<Option<Room>> {
        let mut query = self.sql().prepare_cached(&format!("{ROOM} WHERE r.name = ?1"))?;
        query.query_row([name.as_str()], room).optional()
    }

    /// What machines inherit whose room says nothing.
    pub(crate) fn site_settings(&self) -> rusqlite::Result<Settings> {
        let query = "SELECT has_image, image, root, root_url, write_mode, \
                     (SELECT menu FROM setting_menu WHERE room = ?1) FROM setting WHERE room = ?1";
        let mut query = self.sql().prepare_cached(query)?;
        let found = query.query_row([SITE], |row| settings(row, 0)).optional()?;
        Ok(found.unwrap_or_default())
    }

    /// Adds a room, or changes the one of this name. Its machines inherit of it from now on.
    pub(crate) fn put_room(&self, room: &Room) -> rusqlite::Result<()> {
        self.change_what_is_inherited(|| {
            self.sql().execute(
                "INSERT INTO site_room (name, note, size, kernel_args) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (name) \
                 DO UPDATE SET note = excluded.note, size = excluded.size, \
                 kernel_args = excluded.kernel_args",
                params![
                    room.name.as_str(),
                    room.note,
                    room.size.map(|size| size.to_string()),
                    room.kernel_args.as_str(),
                ],
            )?;
            self.put_settings(room.name.as_str(), &room.settings)
        })
    }

    /// Changes what machines inherit whose room says nothing.
    pub(crate) fn put_site_settings(&self, to: &Settings) -> rusqlite::Result<()> {
        self.change_what_is_inherited(|| self.put_settings(SITE, to))
    }

    /// Removes a room in which no machine is.
    pub(crate) fn delete_room(&self, name: &RoomName) -> rusqlite::Result<()> {
        for table in ["setting", "setting_menu"] {
            self.sql().execute(&format!("DELETE FROM {table} WHERE room = ?1"), [name.as_str()])?;
        }
        // Who works there has a room less.
        self.sql().execute("DELETE FROM site_room WHERE name = ?1", [name.as_str()])?;
        self.touch(Part::People);
        self.touch(Part::Machines);
        Ok(())
    }

    /// Gives a room another name, which no room has. Its machines stay in it.
    pub(crate) fn rename_room(&self, from: &RoomName, to: &RoomName) -> rusqlite::Result<()> {
        for change in [
            "UPDATE site_room SET name = ?2 WHERE name = ?1",
            "UPDATE setting SET room = ?2 WHERE room = ?1",
            "UPDATE setting_menu SET room = ?2 WHERE room = ?1",
            "UPDATE machine_place SET room = ?2 WHERE room = ?1",
        ] {
            self.sql().execute(change, [from.as_str(), to.as_str()])?;
        }
        self.touch(Part::People);
        self.touch(Part::Machines);
        Ok(())
    }

    fn put_settings(&self, room: &str, to: &Settings) -> rusqlite::Result<()> {
        self.sql().execute(
            "INSERT OR REPLACE INTO setting (room, has_image, image, root, root_url, write_mode) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                room,
                to.image.is_some(),
                to.image.as_ref().and_then(Option::as_ref).map(ImageChoice::to_string),
                to.root.map(|root| root.to_string()),
                to.root_url.as_ref().map(RootUrl::to_string),
                to.write_mode.map(|mode| mode.to_string()),
            ],
        )?;
        self.put_setting_menu(room, to.menu.as_ref())
    }

    /// Changes a room or the site, and then the rows of machines that inherit of it: an older Bootlace reads only those.
    fn change_what_is_inherited(
        &self,
        change: impl FnOnce() -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let machines = self.machines()?;
        change()?;
        let inheritance = self.inheritance()?;
        let mut update = self.sql().prepare_cached(
            "UPDATE machine SET image = ?2, root = ?3, root_url = ?4, write_mode = ?5 WHERE name = ?1",
        )?;
        for former in machines {
            let mut machine = former.clone();
            inheritance.give(&mut machine);
            if machine != former {
                update.execute(params![
                    machine.name.as_str(),
                    machine.image.as_ref().map(ImageChoice::to_string),
                    machine.root.to_string(),
                    machine.root_url.as_ref().map(RootUrl::to_string),
                    machine.write_mode.to_string(),
                ])?;
            }
        }
        self.touch(Part::Machines);
        Ok(())
    }

    /// What machines inherit.
    pub(super) fn inheritance(&self) -> rusqlite::Result<Inheritance> {
        let rooms = self.rooms()?.into_iter().map(|room| (room.name, room.settings)).collect();
        Ok(Inheritance { rooms, site: self.site_settings()? })
    }

    /// Gives the machine what it inherits now.
    pub(crate) fn inherit(&self, machine: &mut Machine) -> rusqlite::Result<()> {
        self.inheritance()?.give(machine);
        Ok(())
    }

    /// Where machines are, and what they inherit, by their names.
    pub(super) fn places(&self) -> rusqlite::Result<HashMap<MachineName, Place>> {
        let mut query = self.sql().prepare_cached(&format!("SELECT p.machine, {PLACE}"))?;
        query.query_map([], |row| Ok((parse(row, 0)?, place(row, 1)?)))?.collect()
    }

    /// Where a machine is, and what it inherits.
    pub(super) fn place(&self, name: &MachineName) -> rusqlite::Result<Place> {
        let mut query =
            self.sql().prepare_cached(&format!("SELECT {PLACE} WHERE p.machine = ?1"))?;
        Ok(query.query_row([name.as_str()], |row| place(row, 0)).optional()?.unwrap_or_default())
    }

    /// Stores where a machine is, and what it inherits.
    pub(super) fn put_place(&self, machine: &Machine) -> rusqlite::Result<()> {
        let inherits = |setting| machine.set_by.of(setting) != Origin::Machine;
        let tags: Vec<&str> = machine.tags.iter().map(Tag::as_str).collect();
        self.sql()
            .prepare_cached(
                "INSERT OR REPLACE INTO machine_place (machine, room, seat, tags, inherits_image, inherits_root, \
                 inherits_write_mode) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                machine.name.as_str(),
                machine.room.as_ref().map(RoomName::as_str),
                machine.seat.map(|seat| seat.to_string()),
                tags.join(" "),
                inherits(Setting::Image),
                inherits(Setting::Root),
                inherits(Setting::WriteMode),
            ])?;
        self.put_machine_menu(machine)
    }
}

const PLACE: &str = "room, seat, tags, inherits_image, inherits_root, inherits_write_mode, \
    (SELECT menu FROM machine_menu m WHERE m.machine = p.machine), \
    (SELECT choice FROM next_boot n WHERE n.machine = p.machine), \
    (SELECT json_object('image', image, 'version', version, 'by', by, 'since_unix', since_unix) \
     FROM machine_edit e WHERE e.machine = p.machine), \
    (SELECT capture FROM machine_capture c WHERE c.machine = p.machine) FROM machine_place p";

/// Those of which a column of it says whether they are inherited.
const INHERITS: [Setting; 3] = [Setting::Image, Setting::Root, Setting::WriteMode];

/// Where a machine is, and which settings are not its own. Of a machine that an older Bootlace has added there is none.
#[derive(Default)]
pub(super) struct Place {
    room: Option<RoomName>,
    seat: Option<Seat>,
    tags: Vec<Tag>,
    inherited: Vec<Setting>,
    menu: Option<Menu>,
    next_boot: Option<BootChoice>,
    edit: Option<Edit>,
    capture: Option<Capture>,
}

fn place(row: &Row<'_>, first: usize) -> rusqlite::Result<Place> {
    let words = row.get_ref(first + 2)?.as_str()?.split_whitespace().map(str::parse);
    let mut inherited = Vec::new();
    for (setting, column) in INHERITS.into_iter().zip(first + 3..) {
        if row.get(column)? {
            inherited.push(setting);
        }
    }
    let edit = row.get_ref(first + 8)?.as_str_or_null()?;
    let capture = row.get_ref(first + 9)?.as_str_or_null()?;
    Ok(Place {
        room: parse_optional(row, first)?,
        seat: parse_optional(row, first + 1)?,
        tags: words.collect::<Result<_, _>>().map_err(|error| wrong(first + 2, error))?,
        inherited,
        menu: parse_optional(row, first + 6)?,
        next_boot: parse_optional(row, first + 7)?,
        edit: edit
            .map(serde_json::from_str)
            .transpose()
            .map_err(|error| wrong(first + 8, error))?,
        capture: capture
            .map(serde_json::from_str)
            .transpose()
            .map_err(|error| wrong(first + 9, error))?,
    })
}

/// What machines inherit.
pub(super) struct Inheritance {
    rooms: HashMap<RoomName, Settings>,
    site: Settings,
}

impl Inheritance {
    fn give(&self, machine: &mut Machine) {
        machine.inherit(machine.room.clone().and_then(|room| self.rooms.get(&room)), &self.site);
    }

    /// Completes what the row of a machine says. If that is not what the machine inherits, an older Bootlace was told
    /// so, which knows no rooms: then it is the machine's own.
    pub(super) fn complete(&self, of_row: &mut Machine, place: Place) {
        (of_row.room, of_row.seat, of_row.tags) = (place.room, place.seat, place.tags);
        let mut machine = of_row.clone();
        machine.set_by = Origins::OWN;
        place.inherited.into_iter().for_each(|setting| machine.set_by.give_up(setting));
        (machine.next_boot, machine.edit) = (place.next_boot, place.edit);
        machine.capture = place.capture;
        match place.menu {
            Some(menu) => machine.menu = menu,
            None => machine.set_by.give_up(Setting::Menu),
        }
        self.give(&mut machine);
        if machine.image != of_row.image {
            (machine.image, machine.set_by.image) = (of_row.image.clone(), Origin::Machine);
        }
        if (machine.root, &machine.root_url) != (of_row.root, &of_row.root_url) {
            (machine.root, machine.root_url) = (of_row.root, of_row.root_url.clone());
            machine.set_by.root = Origin::Machine;
        }
        if machine.write_mode != of_row.write_mode {
            (machine.write_mode, machine.set_by.write_mode) = (of_row.write_mode, Origin::Machine);
        }
        *of_row = machine;
    }
}

fn room(row: &Row<'_>) -> rusqlite::Result<Room> {
    Ok(Room {
        name: parse(row, 0)?,
        note: row.get(1)?,
        size: parse_optional(row, 2)?,
        kernel_args: parse(row, 3)?,
        settings: settings(row, 4)?,
    })
}

fn settings(row: &Row<'_>, first: usize) -> rusqlite::Result<Settings> {
    let has_image: bool = row.get(first)?;
    Ok(Settings {
        image: has_image.then(|| parse_optional(row, first + 1)).transpose()?,
        root: parse_optional(row, first + 2)?,
        root_url: parse_optional(row, first + 3)?,
        write_mode: parse_optional(row, first + 4)?,
        menu: parse_optional(row, first + 5)?,
    })
}
