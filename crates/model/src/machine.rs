//! A machine and what the administrator chose for it.

use crate::as_text::as_text;
use crate::{
    BootChoice, Capture, Edit, ImageChoice, ImageName, KernelArgs, MachineName, Menu, Origin,
    Origins, RoomName, Seat, Settings, Tag, WriteMode,
};
use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;
use initcfg::{ParseChoiceError, RootKind, RootUrl};
use wire::Mac;

/// AoE address of a disk, displayed as `1.7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShelfSlot {
    /// Major address, 0 to 0xfffe. Linux refuses 0xfff too.
    pub shelf: u16,
    /// Minor address, 0 to 0xfe.
    pub slot: u8,
}

impl ShelfSlot {
    /// The address number `index` of those that Bootlace gives out: shelf 1 up, slots 0 to 15,
    /// so that even initiators with few minor numbers can use every one. `None` beyond 65,488.
    pub fn nth(index: u32) -> Option<Self> {
        let shelf = u16::try_from(1 + index / 16).ok().filter(|&shelf| shelf < 0xfff)?;
        Some(Self { shelf, slot: (index % 16) as u8 })
    }
}

impl fmt::Display for ShelfSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.shelf, self.slot)
    }
}

impl FromStr for ShelfSlot {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let wanted = "an AoE address: use SHELF.SLOT with a shelf below 65535 and a slot below 255";
        let (shelf, slot) =
            text.split_once('.').ok_or_else(|| ParseChoiceError::new(text, wanted))?;
        match (shelf.parse(), slot.parse()) {
            (Ok(shelf), Ok(slot)) if shelf != u16::MAX && slot != u8::MAX => {
                Ok(Self { shelf, slot })
            }
            _ => Err(ParseChoiceError::new(text, wanted)),
        }
    }
}

as_text!(ShelfSlot);

/// A PC that the administrator knows.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Machine {
    /// Name of the machine: host name, export name, and name on the pages.
    pub name: MachineName,
    /// The NIC that the machine boots from; of several the first.
    pub mac: Mac,
    /// Other NICs that it boots from, such as a second port or the one of its dock.
    #[serde(default)]
    pub other_macs: Vec<Mac>,
    /// The image it boots, and which version; or the one that its persistent disk was made on.
    /// `None`: it waits in the loader.
    pub image: Option<ImageChoice>,
    /// How the machine's root reaches it.
    pub root: RootKind,
    /// Where its root is, if a foreign server has it: of the same kind as `root`.
    #[serde(default)]
    pub root_url: Option<RootUrl>,
    /// What becomes of what the machine writes.
    pub write_mode: WriteMode,
    /// AoE address of the machine's disk; allocated once, so that it stays the same.
    pub shelf_slot: ShelfSlot,
    /// Kernel parameters for this machine, after the site's and its room's.
    #[serde(default)]
    pub kernel_args: KernelArgs,
    /// The machine's next boot begins with an empty write layer, whatever the write mode.
    #[serde(default)]
    pub reset_disk: bool,
    /// The room that it is in.
    #[serde(default)]
    pub room: Option<RoomName>,
    /// Where it stands there; nobody else does.
    #[serde(default)]
    pub seat: Option<Seat>,
    /// By which it is found, in order, each once; at most [`Machine::TAGS_MAX`].
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// What can be chosen in its loader.
    #[serde(default)]
    pub menu: Menu,
    /// What it starts the next time, once, whatever its menu says.
    #[serde(default)]
    pub next_boot: Option<BootChoice>,
    /// The image that is being changed on it, whatever it boots otherwise: see [`as_it_boots`](Self::as_it_boots).
    #[serde(default)]
    pub edit: Option<Edit>,
    /// What its next boot sends of its own disks, instead of starting a system.
    #[serde(default)]
    pub capture: Option<Capture>,
    /// Whose image, root, write mode and menu it has.
    #[serde(default)]
    pub set_by: Origins,
}

impl Machine {
    /// NICs that a machine may have. Each is looked up when the machine boots.
    pub const MACS_MAX: usize = 8;

    /// Tags that a machine may have.
    pub const TAGS_MAX: usize = 16;

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
        if self.set_by.menu != Origin::Machine {
            let found = levels.clone().find_map(|(origin, it)| Some((origin, it.menu.clone()?)));
            (self.set_by.menu, self.menu) = found.unwrap_or_default();
        }
        if self.set_by.root != Origin::Machine {
            let found =
                levels.find_map(|(origin, it)| Some((origin, it.root?, it.root_url.clone())));
            (self.set_by.root, self.root, self.root_url) = found.unwrap_or_default();
        }
    }

    /// The machine with what it boots now: as long as an image is changed on it just that, from a disk that it keeps, and over NBD: over
    /// AoE anybody with its MAC address could write what all get afterwards.
    pub fn as_it_boots(&self) -> Cow<'_, Self> {
        if let Some(capture) = &self.capture {
            // Nothing is written to the disk that it gets, by which it proves itself.
            return Cow::Owned(Self {
                image: Some(capture.choice()),
                root: RootKind::Nbd,
                root_url: None,
                write_mode: WriteMode::Discard,
                reset_disk: false,
                menu: Menu::default(),
                next_boot: None,
                ..self.clone()
            });
        }
        let Some(edit) = &self.edit else { return Cow::Borrowed(self) };
        Cow::Owned(Self {
            image: Some(edit.choice()),
            root: RootKind::Nbd,
            root_url: None,
            write_mode: WriteMode::Persistent,
            menu: Menu::default(),
            ..self.clone()
        })
    }

    /// What becomes of what it writes. A foreign server knows no write modes: to a root that it gives out for reading nothing
    /// is written, and any other one it keeps.
    pub fn writes(&self) -> WriteMode {
        let is_read_only = self.root_url.as_ref().is_some_and(RootUrl::is_read_only);
        match (self.root.is_foreign(), self.write_mode) {
            (false, mode) => mode,
            (true, WriteMode::Ram) => WriteMode::Ram,
            (true, _) if is_read_only => WriteMode::Ram,
            (true, _) => WriteMode::Persistent,
        }
    }

    /// Whether this is its image, whichever version it follows.
    pub fn has_image(&self, image: &ImageName) -> bool {
        self.image.as_ref().is_some_and(|choice| choice.image == *image)
    }

    /// All NICs that it boots from.
    pub fn macs(&self) -> impl Iterator<Item = Mac> {
        core::iter::once(self.mac).chain(self.other_macs.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::lab_07;
    use crate::{FileSystem, Setting, Stage};
    use alloc::string::ToString;
    use serde::Deserialize;
    use serde::de::IntoDeserializer;
    use serde::de::value::Error as Refused;

    /// What stands in the API, in the database and beside an image for one of a few words.
    fn read<'a, T: Deserialize<'a>>(word: &'a str) -> Result<T, Refused> {
        T::deserialize(word.into_deserializer())
    }

    fn image(name: &str) -> Option<Option<ImageChoice>> {
        Some(Some(name.parse().unwrap()))
    }

    #[test]
    fn the_nearest_that_says_something_wins() {
        let site = Settings {
            image: image("site"),
            write_mode: Some(WriteMode::Ram),
            root: Some(RootKind::Nfs),
            root_url: Some("nfs://10.0.0.5/srv?ro".parse().unwrap()),
            menu: Some("local-disk".parse().unwrap()),
        };
        let room =
            Settings { image: image("room"), root: Some(RootKind::Aoe), ..Settings::default() };
        let mut machine = lab_07();
        machine.set_by = Origins { write_mode: Origin::Machine, ..Origins::default() };
        machine.write_mode = WriteMode::Persistent;

        machine.inherit(Some(&room), &site);
        assert_eq!(machine.image, "room".parse().ok());
        assert_eq!((machine.root, &machine.root_url), (RootKind::Aoe, &None), "they go together");
        assert_eq!(machine.write_mode, WriteMode::Persistent);
        assert_eq!(machine.menu.first(), &BootChoice::LocalDisk);
        let origins = Origins {
            image: Origin::Room,
            root: Origin::Room,
            write_mode: Origin::Machine,
            menu: Origin::Site,
        };
        assert_eq!(machine.set_by, origins);

        machine.set_by.give_up(Setting::WriteMode);
        machine.inherit(None, &site);
        assert_eq!(machine.image, "site".parse().ok());
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
    fn as_long_as_an_image_is_changed_on_it_it_boots_that() {
        let mut machine = lab_07();
        machine.root = RootKind::Nfs;
        machine.root_url = "nfs://10.0.0.5/srv".parse().ok();
        machine.menu = "image, local-disk".parse().unwrap();
        assert_eq!(*machine.as_it_boots(), machine);
        let image = "golden".parse().unwrap();
        machine.edit = Some(Edit { image, version: 3, by: "anna".into(), since_unix: 5 });
        let boots = machine.as_it_boots().into_owned();
        assert_eq!(boots.image, "golden/v3".parse().ok());
        assert_eq!((boots.root, &boots.root_url), (RootKind::Nbd, &None));
        assert_eq!((boots.writes(), boots.menu.items().len()), (WriteMode::Persistent, 1));
        machine.root = RootKind::Aoe;
        assert_eq!(machine.as_it_boots().root, RootKind::Nbd);
    }

    #[test]
    fn a_word_is_the_same_on_every_way_in() {
        for kind in RootKind::ALL {
            assert_eq!(read(kind.word()), Ok(kind));
        }
        for file_system in FileSystem::ALL {
            assert_eq!(read(file_system.word()), Ok(file_system));
        }
        for stage in Stage::ALL {
            assert_eq!(read(stage.word()), Ok(stage));
        }
        for mode in WriteMode::ALL {
            assert_eq!((mode.word().parse(), read(mode.word())), (Ok(mode), Ok(mode)));
        }
    }

    #[test]
    fn addresses_are_given_out_in_order_and_end() {
        assert_eq!(ShelfSlot::nth(0).unwrap().to_string(), "1.0");
        assert_eq!(ShelfSlot::nth(17).unwrap().to_string(), "2.1");
        assert_eq!(ShelfSlot::nth(u32::MAX), None);
        assert_eq!("2.1".parse(), Ok(ShelfSlot { shelf: 2, slot: 1 }));
        assert!("65535.1".parse::<ShelfSlot>().is_err());
        assert!("1.255".parse::<ShelfSlot>().is_err());
    }
}
