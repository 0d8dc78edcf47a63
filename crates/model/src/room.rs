//! Rooms, and what machines inherit.

use crate::{ImageName, KernelArgs, Machine, ParseChoiceError, RoomName, WriteMode};
use alloc::string::String;
use core::fmt;
use core::num::NonZeroU8;
use core::str::FromStr;
use initcfg::{RootKind, RootUrl};

/// What each machine below gets unless something nearer says otherwise: of the site, of a room, or of one machine. What
/// is `None` is inherited.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Settings {
    /// Image to boot; `Some(None)`: none, the machine waits in the loader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Option<ImageName>>,
    /// How the root reaches the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<RootKind>,
    /// Where the root is, if a foreign server has it; goes with `root`, and is of its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_url: Option<RootUrl>,
    /// What becomes of what the machine writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_mode: Option<WriteMode>,
}

/// Something that machines inherit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// The image.
    Image,
    /// How the root reaches the machine, and where it is.
    Root,
    /// What becomes of its writes.
    WriteMode,
}

impl Setting {
    /// All settings.
    pub const ALL: [Self; 3] = [Self::Image, Self::Root, Self::WriteMode];

    /// The setting's word on the command line and in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Root => "root",
            Self::WriteMode => "write_mode",
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Setting {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let found = Self::ALL.into_iter().find(|setting| setting.word() == text.replace('-', "_"));
        found.ok_or_else(|| {
            ParseChoiceError::new(
                text,
                "a setting that is inherited: use image, root or write_mode",
            )
        })
    }
}

/// Whose value of a setting a machine has: the nearest that says something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Its own.
    Machine,
    /// Its room's.
    Room,
    /// The site's.
    Site,
    /// Nobody has said anything.
    #[default]
    Default,
}

impl Origin {
    /// The word in the API and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Room => "room",
            Self::Site => "site",
            Self::Default => "default",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Whose value each setting of a machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Origins {
    /// Of the image.
    pub image: Origin,
    /// Of the kind of root, and of its address.
    pub root: Origin,
    /// Of the write mode.
    pub write_mode: Origin,
}

impl Origins {
    /// All settings are the machine's own.
    pub const OWN: Self =
        Self { image: Origin::Machine, root: Origin::Machine, write_mode: Origin::Machine };

    /// Whose value this setting has.
    pub const fn of(&self, setting: Setting) -> Origin {
        match setting {
            Setting::Image => self.image,
            Setting::Root => self.root,
            Setting::WriteMode => self.write_mode,
        }
    }

    /// The machine says nothing of this setting from now on.
    pub const fn give_up(&mut self, setting: Setting) {
        let origin = match setting {
            Setting::Image => &mut self.image,
            Setting::Root => &mut self.root,
            Setting::WriteMode => &mut self.write_mode,
        };
        *origin = Origin::Default;
    }
}

/// Where in its room a machine stands, displayed as `2.5`: row 2, fifth place. Rows count from the front, places from the
/// left as one looks to the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat {
    /// The row.
    pub row: NonZeroU8,
    /// The place in its row.
    pub column: NonZeroU8,
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.row, self.column)
    }
}

impl FromStr for Seat {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let wanted = "a seat: use ROW.PLACE, both from 1 to 255, like 2.5";
        let parts = text.split_once('.').and_then(|(row, column)| {
            Some(Self { row: row.parse().ok()?, column: column.parse().ok()? })
        });
        parts.ok_or_else(|| ParseChoiceError::new(text, wanted))
    }
}

impl serde::Serialize for Seat {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Seat {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Machines in one place.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Room {
    /// Its name.
    pub name: RoomName,
    /// A remark for people, at most [`Room::NOTE_MAX`] bytes; may be empty.
    pub note: String,
    /// How many rows of seats it has, and how many seats a row; `None`: nobody has said, and seats may be anywhere.
    pub size: Option<Seat>,
    /// What its machines inherit.
    #[serde(flatten)]
    pub settings: Settings,
    /// Kernel parameters of its machines, after the site's and before their own.
    pub kernel_args: KernelArgs,
}

impl Room {
    /// Rooms of a site at most.
    pub const ROOMS_MAX: usize = 1000;

    /// Longest note, in bytes.
    pub const NOTE_MAX: usize = 200;

    /// A room of which nothing is said yet.
    pub fn new(name: RoomName) -> Self {
        Self {
            name,
            note: String::new(),
            size: None,
            settings: Settings::default(),
            kernel_args: KernelArgs::default(),
        }
    }

    /// Whether the room has such a seat.
    pub fn has_seat(&self, seat: Seat) -> bool {
        self.size.is_none_or(|size| seat.row <= size.row && seat.column <= size.column)
    }
}

impl Machine {
    /// Takes what the machine does not say itself from its room, from the site, or else the default.
    pub fn inherit(&mut self, room: Option<&Settings>, site: &Settings) {
        let from = [(Origin::Room, room), (Origin::Site, Some(site))];
        let mut levels = from.into_iter().filter_map(|(origin, it)| Some((origin, it?)));
        if self.set_by.image != Origin::Machine {
            let found = levels.clone().find_map(|(origin, it)| Some((origin, it.image.clone()?)));
            (self.set_by.image, self.image) = found.unwrap_or_default();
        }
        if self.set_by.write_mode != Origin::Machine {
            let found = levels.clone().find_map(|(origin, it)| Some((origin, it.write_mode?)));
            (self.set_by.write_mode, self.write_mode) = found.unwrap_or_default();
        }
        if self.set_by.root != Origin::Machine {
            let found =
                levels.find_map(|(origin, it)| Some((origin, it.root?, it.root_url.clone())));
            (self.set_by.root, self.root, self.root_url) = found.unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::lab_07;
    use alloc::string::ToString;

    fn image(name: &str) -> Option<Option<ImageName>> {
        Some(Some(name.parse().unwrap()))
    }

    #[test]
    fn the_nearest_that_says_something_wins() {
        let site = Settings {
            image: image("site"),
            write_mode: Some(WriteMode::Ram),
            root: Some(RootKind::Nfs),
            root_url: Some("nfs://10.0.0.5/srv?ro".parse().unwrap()),
        };
        let room =
            Settings { image: image("room"), root: Some(RootKind::Aoe), ..Settings::default() };
        let mut machine = lab_07();
        machine.set_by = Origins { write_mode: Origin::Machine, ..Origins::default() };
        machine.write_mode = WriteMode::Persistent;

        machine.inherit(Some(&room), &site);
        assert_eq!(machine.image.as_ref().unwrap().as_str(), "room");
        assert_eq!((machine.root, &machine.root_url), (RootKind::Aoe, &None), "they go together");
        assert_eq!(machine.write_mode, WriteMode::Persistent);
        let origins =
            Origins { image: Origin::Room, root: Origin::Room, write_mode: Origin::Machine };
        assert_eq!(machine.set_by, origins);

        machine.set_by.give_up(Setting::WriteMode);
        machine.inherit(None, &site);
        assert_eq!(machine.image.as_ref().unwrap().as_str(), "site");
        assert_eq!(machine.root_url, site.root_url);
        assert_eq!((machine.write_mode, machine.set_by.write_mode), (WriteMode::Ram, Origin::Site));

        machine.inherit(Some(&Settings { image: Some(None), ..room }), &site);
        assert_eq!(
            (machine.image.take(), machine.set_by.image),
            (None, Origin::Room),
            "none is said"
        );

        machine.inherit(None, &Settings::default());
        assert_eq!(machine.set_by, Origins::default());
        assert_eq!((machine.root, machine.root_url), (RootKind::Nbd, None));
    }

    #[test]
    fn seats_are_in_their_room() {
        let seat = |text: &str| text.parse::<Seat>();
        assert_eq!(seat("2.5").unwrap().to_string(), "2.5");
        for wrong in ["", "2", "0.1", "1.0", "256.1", "-1.2", "1.2.3", "a.b"] {
            assert!(seat(wrong).unwrap_err().to_string().contains("ROW.PLACE"), "{wrong}");
        }
        let mut room = Room::new("r101".parse().unwrap());
        assert!(room.has_seat(seat("200.200").unwrap()));
        room.size = Some(seat("3.8").unwrap());
        assert!(room.has_seat(seat("3.8").unwrap()) && !room.has_seat(seat("4.1").unwrap()));
        assert!(!room.has_seat(seat("3.9").unwrap()));
    }
}
