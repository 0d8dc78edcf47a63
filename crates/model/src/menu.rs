//! What a PC starts, and what can be chosen in its loader.

use crate::ImageChoice;
use crate::as_text::as_text;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;
use initcfg::ParseChoiceError;

/// Something that a PC can start from its loader. Displayed as it is written on the command line: `image`, `image:xfce`,
/// `local-disk`, `memory-test`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BootChoice {
    /// The machine's image.
    Image,
    /// Another image, with the machine's other settings.
    OtherImage(ImageChoice),
    /// The system on a disk of the PC.
    LocalDisk,
    /// Memtest86+.
    MemoryTest,
}

impl fmt::Display for BootChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image => f.write_str("image"),
            Self::OtherImage(image) => write!(f, "image:{image}"),
            Self::LocalDisk => f.write_str("local-disk"),
            Self::MemoryTest => f.write_str("memory-test"),
        }
    }
}

impl BootChoice {
    /// The image, if it is another one than the machine's.
    pub const fn other_image(&self) -> Option<&ImageChoice> {
        match self {
            Self::OtherImage(image) => Some(image),
            Self::Image | Self::LocalDisk | Self::MemoryTest => None,
        }
    }

    /// What it starts, for people: `its own disk`.
    pub fn in_words(&self) -> String {
        match self {
            Self::Image => "its image".into(),
            Self::OtherImage(image) => alloc::format!("the image {image}"),
            Self::LocalDisk => "its own disk".into(),
            Self::MemoryTest => "a memory test".into(),
        }
    }
}

impl FromStr for BootChoice {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let wanted =
            "what a PC can start: use image, image:NAME for another one, local-disk or memory-test";
        let refused = || ParseChoiceError::new(text, wanted);
        Ok(match text {
            "image" => Self::Image,
            "local-disk" => Self::LocalDisk,
            "memory-test" => Self::MemoryTest,
            other => {
                let image = other.strip_prefix("image:").ok_or_else(refused)?;
                Self::OtherImage(image.parse().map_err(|_| refused())?)
            }
        })
    }
}

/// A line of a menu. Displayed as it is written on the command line: `memory-test/locked`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MenuItem {
    /// What it starts.
    pub choice: BootChoice,
    /// Only who knows the menu's password can choose it.
    pub is_locked: bool,
}

const LOCKED: &str = "/locked";

impl fmt::Display for MenuItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.choice, if self.is_locked { LOCKED } else { "" })
    }
}

impl FromStr for MenuItem {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let (choice, is_locked) = match text.strip_suffix(LOCKED) {
            Some(choice) => (choice, true),
            None => (text, false),
        };
        Ok(Self { choice: choice.parse()?, is_locked })
    }
}

/// What can be chosen in a machine's loader: the first starts if nobody chooses. With one line there is nothing to choose, and no
/// menu is shown.
///
/// Displayed as it is written on the command line: `image,local-disk,memory-test/locked,10s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Menu {
    items: Vec<MenuItem>,
    seconds: u16,
}

impl Default for Menu {
    fn default() -> Self {
        let items = Vec::from([MenuItem { choice: BootChoice::Image, is_locked: false }]);
        Self { items, seconds: Self::SECONDS }
    }
}

impl Menu {
    /// Lines at most: as many as fit on a screen of 25.
    pub const ITEMS_MAX: usize = 12;

    /// How long it is waited for somebody who chooses if nothing is said of that.
    pub const SECONDS: u16 = 10;

    /// The longest that can be set, an hour.
    pub const SECONDS_MAX: u16 = 3600;

    /// Its lines, 1 to [`Self::ITEMS_MAX`], each once.
    pub fn items(&self) -> &[MenuItem] {
        &self.items
    }

    /// How long it is waited for somebody who chooses, 1 to [`Self::SECONDS_MAX`].
    pub const fn seconds(&self) -> u16 {
        self.seconds
    }

    /// What starts if nobody chooses.
    pub fn first(&self) -> &BootChoice {
        // There is always one; if not, what most machines do.
        self.items.first().map_or(&BootChoice::Image, |item| &item.choice)
    }

    /// Whether it has such a line.
    pub fn offers(&self, choice: &BootChoice) -> bool {
        self.items.iter().any(|item| item.choice == *choice)
    }

    /// Its lines, for people: `its image, or its own disk or a memory test (10 s to choose)`.
    pub fn in_words(&self) -> String {
        let word = |item: &MenuItem| {
            let what = item.choice.in_words();
            if item.is_locked { alloc::format!("{what} (password)") } else { what }
        };
        let words: Vec<String> = self.items.iter().map(word).collect();
        match words.split_first() {
            Some((first, others)) if !others.is_empty() => {
                alloc::format!("{first} after {} s, or {}", self.seconds, others.join(" or "))
            }
            _ => words.concat(),
        }
    }
}

impl fmt::Display for Menu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.items.iter().enumerate() {
            write!(f, "{}{item}", if index > 0 { "," } else { "" })?;
        }
        match self.items.len() > 1 {
            true => write!(f, ",{}s", self.seconds),
            false => Ok(()),
        }
    }
}

/// A text is no menu.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMenu {
    /// A line of it is none.
    #[error(transparent)]
    NoChoice(#[from] ParseChoiceError),
    /// The time is none.
    #[error("{0:?} is no time to choose: use 1s to 3600s")]
    NoTime(String),
    /// It has no line, or too many.
    #[error("a menu has 1 to {max} lines, not {0}", max = Menu::ITEMS_MAX)]
    Lines(usize),
    /// A line is there twice.
    #[error("{0} is there twice")]
    Twice(BootChoice),
    /// The first line starts by itself.
    #[error("the first line starts if nobody chooses, so it can't be locked")]
    FirstIsLocked,
}

impl FromStr for Menu {
    type Err = BadMenu;

    fn from_str(text: &str) -> Result<Self, BadMenu> {
        let mut menu = Self { items: Vec::new(), seconds: Self::SECONDS };
        let mut has_time = false;
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            if word.starts_with(|first: char| first.is_ascii_digit()) {
                let seconds = word.strip_suffix('s').and_then(|digits| digits.parse().ok());
                let seconds =
                    seconds.filter(|it| (1..=Self::SECONDS_MAX).contains(it) && !has_time);
                menu.seconds =
                    seconds.ok_or_else(|| BadMenu::NoTime(word.chars().take(16).collect()))?;
                has_time = true;
                continue;
            }
            let item: MenuItem = word.parse()?;
            if menu.offers(&item.choice) {
                return Err(BadMenu::Twice(item.choice));
            }
            menu.items.push(item);
        }
        match menu.items.as_slice() {
            [] => Err(BadMenu::Lines(0)),
            items if items.len() > Self::ITEMS_MAX => Err(BadMenu::Lines(items.len())),
            [first, ..] if first.is_locked => Err(BadMenu::FirstIsLocked),
            _ => Ok(menu),
        }
    }
}

/// A machine's menu with what its lines are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownMenu {
    /// The menu.
    pub menu: Menu,
    /// What the machine's own image is called, such as `debian-12`.
    pub image: String,
}

impl ShownMenu {
    /// What a line is called. No two are called the same: the machine's own image may be offered as another one, too.
    pub fn title(&self, choice: &BootChoice) -> String {
        let title = |choice: &BootChoice| match choice {
            BootChoice::Image => self.image.clone(),
            BootChoice::OtherImage(image) => alloc::format!("{image}"),
            BootChoice::LocalDisk => "The disk of this PC".into(),
            BootChoice::MemoryTest => "Memory test".into(),
        };
        let own = title(choice);
        let mut others = self.menu.items().iter().filter(|item| item.choice != BootChoice::Image);
        let is_twice = *choice == BootChoice::Image && others.any(|it| title(&it.choice) == own);
        if is_twice { alloc::format!("{own} (this PC's own)") } else { own }
    }
}

/// What stands in the time line of a boot that goes on to a disk of the PC, in place of an image.
pub const OWN_DISK: &str = "its own disk";

/// The same of one that tests its memory.
pub const MEMORY_TEST: &str = "memory test";

as_text!(BootChoice, Menu);

/// What becomes of PCs that ask for a loader and are no machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strangers {
    /// They wait in the loader until somebody adopts them.
    Wait,
    /// They start from their own disk after some seconds, unless somebody at the PC wants them to wait.
    LocalDisk,
    /// They get no loader at all.
    Nothing,
}

impl Strangers {
    /// The word in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::LocalDisk => "local-disk",
            Self::Nothing => "nothing",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn a_menu_is_what_was_written() {
        for text in [
            "image",
            "local-disk",
            "image,local-disk,10s",
            "local-disk,image:xfce,memory-test/locked,1s",
            "image:xfce/test,image:xfce/v3/locked,5s",
        ] {
            let menu: Menu = text.parse().unwrap();
            assert_eq!(menu.to_string(), text);
        }
        let menu: Menu = "image, local-disk ,memory-test/locked".parse().unwrap();
        assert_eq!(menu.to_string(), "image,local-disk,memory-test/locked,10s");
        assert_eq!(
            menu.in_words(),
            "its image after 10 s, or its own disk or a memory test (password)"
        );
        assert_eq!(Menu::default(), "image".parse().unwrap());
        assert_eq!(Menu::default().in_words(), "its image");
    }

    #[test]
    fn no_two_lines_are_called_the_same() {
        let titles = |menu: &str, image: &str| -> Vec<String> {
            let shown = ShownMenu { menu: menu.parse().unwrap(), image: image.into() };
            shown.menu.items().iter().map(|item| shown.title(&item.choice)).collect()
        };
        assert_eq!(titles("image,image:xfce", "deb"), ["deb", "xfce"]);
        let twice = titles("image:deb,image,local-disk", "deb");
        assert_eq!(twice, ["deb", "deb (this PC's own)", "The disk of this PC"]);
        assert_eq!(titles("image,image:deb/test", "deb"), ["deb", "deb/test"]);
    }

    #[test]
    fn what_is_no_menu_is_said() {
        let many = (0..13).map(|n| alloc::format!("image:i{n}")).collect::<Vec<_>>().join(",");
        for (text, why) in [
            ("", "1 to 12 lines, not 0"),
            ("10s", "not 0"),
            (many.as_str(), "not 13"),
            ("image,image", "image is there twice"),
            ("image,local-disk,image:xfce,local-disk/locked", "local-disk is there twice"),
            ("image/locked,local-disk", "can't be locked"),
            ("image,windows", "use image, image:NAME"),
            ("image:", "use image, image:NAME"),
            ("image:../x", "use image, image:NAME"),
            ("image,0s", "1s to 3600s"),
            ("image,3601s", "1s to 3600s"),
            ("image,5s,6s", "1s to 3600s"),
            ("image,5", "1s to 3600s"),
        ] {
            let error = text.parse::<Menu>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
