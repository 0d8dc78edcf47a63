//! What machines inherit.

use crate::{ImageChoice, Menu, WriteMode};
use core::fmt;
use core::str::FromStr;
use initcfg::{ParseChoiceError, RootKind, RootUrl};

/// What each machine below gets unless something nearer says otherwise: of the site, of a room, or of one machine. What
/// is `None` is inherited.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Image to boot; `Some(None)`: none, the machine waits in the loader.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub image: Option<Option<ImageChoice>>,
    /// How the root reaches the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<RootKind>,
    /// Where the root is, if a foreign server has it; goes with `root`, and is of its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_url: Option<RootUrl>,
    /// What becomes of what the machine writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_mode: Option<WriteMode>,
    /// What can be chosen in the loader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub menu: Option<Menu>,
}

/// Tells `null` from a missing field (RFC 7396).
///
/// # Errors
/// What is there is no such value.
pub fn present<'de, D: serde::Deserializer<'de>, T: serde::Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    serde::Deserialize::deserialize(deserializer).map(Some)
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
    /// What can be chosen in its loader.
    Menu,
}

impl Setting {
    /// All settings.
    pub const ALL: [Self; 4] = [Self::Image, Self::Root, Self::WriteMode, Self::Menu];

    /// Those that are not given, where it is told in the order of [`Self::ALL`] which are.
    pub fn left_out(given: [bool; Self::ALL.len()]) -> impl Iterator<Item = Self> {
        let all = Self::ALL.into_iter().zip(given);
        all.filter(|(_, is_given)| !is_given).map(|(setting, _)| setting)
    }

    /// The setting's word on the command line and in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Root => "root",
            Self::WriteMode => "write_mode",
            Self::Menu => "menu",
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
                "a setting that is inherited: use image, root, write_mode or menu",
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
    /// Of the menu.
    pub menu: Origin,
}

impl Origins {
    /// All settings are the machine's own.
    pub const OWN: Self = Self {
        image: Origin::Machine,
        root: Origin::Machine,
        write_mode: Origin::Machine,
        menu: Origin::Machine,
    };

    /// Whose value this setting has.
    pub const fn of(&self, setting: Setting) -> Origin {
        match setting {
            Setting::Image => self.image,
            Setting::Root => self.root,
            Setting::WriteMode => self.write_mode,
            Setting::Menu => self.menu,
        }
    }

    /// The machine says nothing of this setting from now on.
    pub const fn give_up(&mut self, setting: Setting) {
        let origin = match setting {
            Setting::Image => &mut self.image,
            Setting::Root => &mut self.root,
            Setting::WriteMode => &mut self.write_mode,
            Setting::Menu => &mut self.menu,
        };
        *origin = Origin::Default;
    }
}
