//! Rooms, and what machines inherit.

use super::machines::{check_image, check_menu, fitting_root};
use crate::error::{Error, RoomError};
use crate::people::Admin;
use crate::service::Service;
use crate::store::{ChangeError, FieldChange, Transaction};
use model::{
    ImageChoice, KernelArgs, Machine, MachineName, Menu, Room, RoomName, Rooms, RootKind, RootUrl,
    Seat, Setting, Settings, Tag, WriteMode, is_note, present,
};

/// What to change of what machines inherit; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SettingsChange {
    /// Image to boot; `Some(None)`: none.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub image: Option<Option<ImageChoice>>,
    /// How the root reaches machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<RootKind>,
    /// Where a foreign server has the root, from which all read; says how it reaches machines, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_url: Option<RootUrl>,
    /// What becomes of what machines write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_mode: Option<WriteMode>,
    /// What can be chosen in machines' loaders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub menu: Option<Menu>,
    /// What is said here no more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inherit: Vec<Setting>,
}

/// What to change of a room; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoomChange {
    /// Another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<RoomName>,
    /// A remark for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How many rows it has, and seats in each; `Some(None)`: it is not said.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub size: Option<Option<Seat>>,
    /// As in [`SettingsChange`].
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub image: Option<Option<ImageChoice>>,
    /// As in [`SettingsChange`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<RootKind>,
    /// As in [`SettingsChange`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_url: Option<RootUrl>,
    /// As in [`SettingsChange`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_mode: Option<WriteMode>,
    /// As in [`SettingsChange`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub menu: Option<Menu>,
    /// As in [`SettingsChange`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inherit: Vec<Setting>,
    /// Kernel parameters of its machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_args: Option<KernelArgs>,
}

/// A room, and who is in it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RoomView {
    /// What the administrator chose.
    #[serde(flatten)]
    pub room: Room,
    /// Its machines: by seat, and those without one after them, by name.
    pub machines: Vec<MachineName>,
}

impl Service {
    /// All rooms, by name.
    pub fn rooms(&self) -> Vec<RoomView> {
        let site = self.site();
        let mut rooms: Vec<RoomView> = site
            .rooms
            .iter()
            .map(|room| RoomView { room: room.clone(), machines: Vec::new() })
            .collect();
        let mut machines: Vec<&Machine> = site.machines.iter().collect();
        machines.sort_by_key(|machine| (machine.seat.is_none(), machine.seat));
        for machine in machines {
            let Some(room) = &machine.room else { continue };
            if let Ok(index) = rooms.binary_search_by(|it| it.room.name.cmp(room)) {
                rooms[index].machines.push(machine.name.clone());
            }
        }
        rooms
    }

    /// The room of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn room(&self, name: &RoomName) -> Result<RoomView, Error> {
        let found = self.rooms().into_iter().find(|it| it.room.name == *name);
        found.ok_or_else(|| RoomError::NoRoom(name.clone()).into())
    }
}

impl Admin {
    /// Changes a room, or adds it if there is none of this name. Machines that inherit what changes have it from their next
    /// boot on.
    ///
    /// # Errors
    /// The change contradicts itself or what there is, or the database can't be written.
    pub async fn set_room(&self, name: RoomName, change: RoomChange) -> Result<Room, Error> {
        let (actor, now_unix_ms) = (self.shared_actor(), self.now().unix_ms);
        let has_menu_password = self.service().has_menu_password();
        let written = self.service().database().write(move |tables| {
            let former = tables.room(&name)?;
            let room = apply(tables, name, change, has_menu_password)?;
            tables.put_room(&room)?;
            let changes = FieldChange::all(former.as_ref(), Some(&room));
            if !changes.is_empty() {
                let action = if former.is_some() { "room.set" } else { "room.add" };
                tables.put_audit(&actor.does(action, &room.name, changes, now_unix_ms))?;
            }
            Ok(room)
        });
        let room = written.await?;
        tracing::info!(room = %room.name, "room stored");
        Ok(room)
    }

    /// Removes a room. Teachers who work in it have one room less.
    ///
    /// # Errors
    /// There is none, machines are in it, or the database can't be written.
    pub async fn remove_room(&self, name: RoomName) -> Result<(), Error> {
        let room = name.clone();
        let (actor, now_unix_ms) = (self.shared_actor(), self.now().unix_ms);
        let removing = self.service().database().write(move |tables| {
            let former = must_be(tables, &name)?;
            let machines = machines_in(tables, &name)?;
            if !machines.is_empty() {
                let machines = machines.into_iter().map(|machine| machine.name).collect();
                return Err(Error::from(RoomError::NotEmpty { room: name, machines }).into());
            }
            let mut changes = FieldChange::all(Some(&former), None);
            let teachers = tables.users()?.into_iter().filter(|user| match &user.reach.rooms {
                Rooms::These(rooms) => rooms.contains(&name),
                Rooms::All => false,
            });
            let teachers: Vec<String> = teachers.map(|user| user.name.to_string()).collect();
            let teachers = Some(teachers.join(", ")).filter(|teachers| !teachers.is_empty());
            changes.extend(FieldChange::between("teachers", teachers, None));
            tables.put_audit(&actor.does("room.remove", &name, changes, now_unix_ms))?;
            Ok(tables.delete_room(&name)?)
        });
        removing.await?;
        tracing::info!(%room, "room removed");
        Ok(())
    }

    /// Changes what machines inherit whose room says nothing. They have it from their next boot on.
    ///
    /// # Errors
    /// The change contradicts itself, the image does not exist, or the database can't be written.
    pub async fn set_site_settings(&self, change: SettingsChange) -> Result<Settings, Error> {
        let (actor, now_unix_ms) = (self.shared_actor(), self.now().unix_ms);
        let has_menu_password = self.service().has_menu_password();
        let written = self.service().database().write(move |tables| {
            let former = tables.site_settings()?;
            let settings =
                changed(tables, former.clone(), change, ("the site", has_menu_password))?;
            tables.put_site_settings(&settings)?;
            let changes = FieldChange::all(Some(&former), Some(&settings));
            if !changes.is_empty() {
                tables.put_audit(&actor.does("site.set", "site", changes, now_unix_ms))?;
            }
            Ok(settings)
        });
        let settings = written.await?;
        let image = settings
            .image
            .as_ref()
            .map(|image| image.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string));
        tracing::info!(
            image,
            root = settings.root.map(tracing::field::display),
            root_url = settings.root_url.as_ref().map(tracing::field::display),
            write_mode = settings.write_mode.map(tracing::field::display),
            "settings of the site stored"
        );
        Ok(settings)
    }
}

/// The room as it shall be.
fn apply(
    tables: &Transaction<'_>,
    name: RoomName,
    change: RoomChange,
    has_menu_password: bool,
) -> Result<Room, ChangeError> {
    let mut room = match tables.room(&name)? {
        Some(room) => room,
        None if tables.rooms()?.len() >= Room::ROOMS_MAX => {
            return Err(Error::from(RoomError::TooMany).into());
        }
        None => Room::new(name),
    };
    if let Some(new) = change.name.filter(|new| *new != room.name) {
        if tables.room(&new)?.is_some() {
            return Err(Error::from(RoomError::NameTaken(new)).into());
        }
        tables.rename_room(&room.name, &new)?;
        room.name = new;
    }
    if let Some(note) = change.note {
        if !is_note(&note) {
            return Err(Error::from(RoomError::BadNote).into());
        }
        room.note = note;
    }
    room.size = change.size.unwrap_or(room.size);
    room.kernel_args = change.kernel_args.unwrap_or(room.kernel_args);
    let (image, root, root_url) = (change.image, change.root, change.root_url);
    let (write_mode, menu, inherit) = (change.write_mode, change.menu, change.inherit);
    let settings = SettingsChange { image, root, root_url, write_mode, menu, inherit };
    let whose = format!("the room {}", room.name);
    room.settings = changed(tables, room.settings, settings, (&whose, has_menu_password))?;
    for machine in machines_in(tables, &room.name)? {
        if let Some(seat) = machine.seat.filter(|&seat| !room.has_seat(seat)) {
            return Err(Error::from(RoomError::TooSmall { machine: machine.name, seat }).into());
        }
        check_kernel_args(&room, &machine)?;
    }
    Ok(room)
}

fn machines_in(tables: &Transaction<'_>, room: &RoomName) -> Result<Vec<Machine>, ChangeError> {
    let mut machines = tables.machines()?;
    machines.retain(|machine| machine.room.as_ref() == Some(room));
    Ok(machines)
}

fn must_be(tables: &Transaction<'_>, name: &RoomName) -> Result<Room, ChangeError> {
    Ok(tables.room(name)?.ok_or_else(|| Error::from(RoomError::NoRoom(name.clone())))?)
}

/// The settings of `whose` as they shall be.
fn changed(
    tables: &Transaction<'_>,
    mut settings: Settings,
    change: SettingsChange,
    (whose, has_menu_password): (&str, bool),
) -> Result<Settings, ChangeError> {
    let SettingsChange { image, root, root_url, write_mode, menu, inherit } = change;
    let gives_root = root.is_some() || root_url.is_some();
    give_up(
        &inherit,
        [image.is_some(), gives_root, write_mode.is_some(), menu.is_some()],
        |setting| match setting {
            Setting::Image => settings.image = None,
            Setting::Root => (settings.root, settings.root_url) = (None, None),
            Setting::WriteMode => settings.write_mode = None,
            Setting::Menu => settings.menu = None,
        },
    )?;
    if let Some(image) = image {
        check_image(tables, image.as_ref())?;
        settings.image = Some(image);
    }
    if gives_root {
        let former = (settings.root.unwrap_or_default(), settings.root_url.take());
        let (kind, url) = fitting_root(former, root, root_url, whose)?;
        if let Some(url) = url.as_ref().filter(|url| !url.is_read_only()) {
            return Err(Error::from(RoomError::SharedRoot(url.clone())).into());
        }
        (settings.root, settings.root_url) = (Some(kind), url);
    }
    settings.write_mode = write_mode.or(settings.write_mode);
    if let Some(menu) = menu {
        check_menu(tables, &menu, has_menu_password)?;
        settings.menu = Some(menu);
    }
    Ok(settings)
}

/// Gives up each of `inherit`, none of which may be among the `given` ones, told in the order of [`Setting::ALL`].
pub(super) fn give_up(
    inherit: &[Setting],
    given: [bool; Setting::ALL.len()],
    mut give_up: impl FnMut(Setting),
) -> Result<(), Error> {
    let given = || Setting::ALL.into_iter().zip(given).filter(|(_, is_given)| *is_given);
    for &setting in inherit {
        if given().any(|(it, _)| it == setting) {
            return Err(RoomError::GivenAndInherited(setting).into());
        }
        give_up(setting);
    }
    Ok(())
}

/// Where a machine shall be; `None` leaves it as it is.
pub(super) struct Move {
    pub(super) room: Option<Option<RoomName>>,
    pub(super) seat: Option<Option<Seat>>,
    pub(super) tags: Option<Vec<Tag>>,
}

impl Move {
    /// Moves the machine there.
    pub(super) fn apply(
        self,
        tables: &Transaction<'_>,
        machine: &mut Machine,
    ) -> Result<(), ChangeError> {
        let refuse = |error: RoomError| ChangeError::from(Error::from(error));
        if let Some(room) = self.room.filter(|room| *room != machine.room) {
            (machine.room, machine.seat) = (room, None);
        }
        machine.seat = self.seat.unwrap_or(machine.seat);
        if let Some(mut tags) = self.tags {
            tags.sort();
            tags.dedup();
            if tags.len() > Machine::TAGS_MAX {
                return Err(refuse(RoomError::TooManyTags(machine.name.clone())));
            }
            machine.tags = tags;
        }
        let Some(name) = &machine.room else {
            return match machine.seat {
                Some(_) => Err(refuse(RoomError::SeatWithoutRoom(machine.name.clone()))),
                None => Ok(()),
            };
        };
        let room = tables.room(name)?;
        let room = room.ok_or_else(|| refuse(RoomError::NoRoomToBeIn(name.clone())))?;
        check_kernel_args(&room, machine)?;
        let Some(seat) = machine.seat else { return Ok(()) };
        if let Some(size) = room.size.filter(|_| !room.has_seat(seat)) {
            return Err(refuse(RoomError::NoSeat { room: room.name, size, seat }));
        }
        let mut others = machines_in(tables, &room.name)?.into_iter();
        let other = others.find(|it| it.seat == Some(seat) && it.name != machine.name);
        match other {
            Some(Machine { name: machine, .. }) => {
                Err(refuse(RoomError::SeatTaken { room: room.name, seat, machine }))
            }
            None => Ok(()),
        }
    }
}

fn check_kernel_args(room: &Room, machine: &Machine) -> Result<(), Error> {
    let n_bytes = room.kernel_args.as_str().len() + machine.kernel_args.as_str().len();
    if n_bytes <= KernelArgs::MAX {
        return Ok(());
    }
    let (room, machine) = (room.name.clone(), machine.name.clone());
    Err(RoomError::LongKernelArgs { room, machine }.into())
}
