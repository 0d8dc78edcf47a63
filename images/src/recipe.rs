//! What an image is built of: packages, a script, and what may be chosen.

use crate::small_file::read_small;
use model::binary_size;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Recipes that come along, by their names.
const OURS: [(&str, &str); 3] = [
    ("debian-12-desktop", include_str!("../recipes/debian-12-desktop.toml")),
    ("debian-13-desktop", include_str!("../recipes/debian-13-desktop.toml")),
    ("debian-minimal", include_str!("../recipes/debian-minimal.toml")),
];

/// Longest file that is read as a recipe.
const RECIPE_BYTES_MAX: u64 = 256 << 10;

/// Longest value of a parameter.
const VALUE_MAX: usize = 400;

/// How a system is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Recipe {
    /// What comes of it, for people.
    pub title: String,
    /// Release of Debian, or of its kin: `bookworm`.
    pub suite: String,
    /// Parts of its archive: `main`.
    #[serde(default = "main_component")]
    pub components: Vec<String>,
    /// Whence packages come; without, whence Debian's come. Security updates come from the same with `-security` behind.
    #[serde(default)]
    pub mirror: Option<String>,
    /// Lines for apt in place of all that: `deb http://archive.ubuntu.com/ubuntu noble main`.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Size of the disk, as `16G`.
    #[serde(default)]
    pub disk: Option<String>,
    /// What is installed, with all that it needs.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Run by the new system's `sh -eu` at last, with `RECIPE_…` for each parameter.
    #[serde(default)]
    pub script: String,
    /// What may be chosen, by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
}

/// What may be chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Parameter {
    /// For people.
    pub about: String,
    /// What it is unless somebody chooses.
    #[serde(default)]
    pub default: String,
    /// All that it may be; empty: any word.
    #[serde(default)]
    pub choices: Vec<String>,
    /// What such a word must be, if there is one; `None`: anything.
    #[serde(default)]
    pub kind: Option<ParameterKind>,
}

/// What the value of a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParameterKind {
    /// A hash as in `/etc/shadow` (crypt(5)), never the password itself.
    PasswordHash,
    /// Name of an account, as Debian's `adduser` takes it.
    UserName,
    /// Like `Europe/Berlin`. If this host has a list of time zones, it is in that.
    TimeZone,
}

impl ParameterKind {
    /// What is wrong with the value; `None`: nothing.
    fn objection(self, value: &str) -> Option<&'static str> {
        let is_good = match self {
            Self::PasswordHash => {
                let rest = value.strip_prefix('$').and_then(|rest| rest.split_once('$'));
                rest.is_some_and(|(scheme, rest)| !scheme.is_empty() && rest.contains('$'))
            }
            Self::UserName => {
                let is_inner =
                    |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || "-_".contains(it);
                value.starts_with(|it: char| it.is_ascii_lowercase())
                    && value.len() <= 32
                    && value.chars().all(is_inner)
            }
            Self::TimeZone => {
                let list = Path::new("/usr/share/zoneinfo");
                let is_plain = value
                    .split('/')
                    .all(|part| part.starts_with(|it: char| it.is_ascii_alphanumeric()));
                is_plain && (!list.join("Etc/UTC").exists() || list.join(value).is_file())
            }
        };
        let wanted = match self {
            Self::PasswordHash => {
                "it is a hash, as openssl passwd -6 prints one, and not the password itself"
            }
            Self::UserName => {
                "it is the name of an account: a small letter, then small letters, digits, - and _"
            }
            Self::TimeZone => {
                "it is a time zone, like Europe/Berlin; timedatectl list-timezones shows all"
            }
        };
        (!is_good).then_some(wanted)
    }
}

fn main_component() -> Vec<String> {
    vec!["main".to_owned()]
}

/// Why there is no such recipe, or why it can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// There is none of this name.
    #[error(
        "there is no recipe {name}: those that come along are {}; or give a file, as ./{name}.toml",
        names()
    )]
    Unknown {
        /// The name.
        name: String,
    },
    /// The file can't be read.
    #[error("can't read the recipe")]
    Read(#[source] io::Error),
    /// It is no TOML, or has other keys.
    #[error("the recipe has a mistake")]
    Bad(#[source] Box<toml::de::Error>),
    /// A value is none of its kind.
    #[error("the recipe has a mistake: {0}")]
    Unfit(String),
    /// Somebody chooses what can't be chosen.
    #[error("the recipe has no parameter {name}: it has {known}")]
    NoParameter {
        /// What was to be chosen.
        name: String,
        /// What can be.
        known: String,
    },
    /// Somebody chooses a value that can't be.
    #[error("{name} can't be {value:?}: {why}")]
    BadValue {
        /// The parameter.
        name: String,
        /// The value.
        value: String,
        /// What it may be.
        why: String,
    },
}

fn names() -> String {
    OURS.map(|(name, _)| name).join(", ")
}

impl Recipe {
    /// All that come along, with their names.
    pub fn ours() -> Vec<(&'static str, Self)> {
        let parsed = OURS.into_iter().map(|(name, text)| Some((name, Self::parse(text).ok()?)));
        parsed.flatten().collect()
    }

    /// The file of one that comes along.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn text_of(named: &str) -> Result<&'static str, RecipeError> {
        let found = OURS.into_iter().find(|(name, _)| *name == named);
        found.map(|(_, text)| text).ok_or_else(|| RecipeError::Unknown { name: named.to_owned() })
    }

    /// One that comes along.
    ///
    /// # Errors
    /// See [`RecipeError`].
    pub fn named(name: &str) -> Result<Self, RecipeError> {
        Self::parse(Self::text_of(name)?)
    }

    /// One that comes along, or, if it has a `/` or ends with `.toml`, a file.
    ///
    /// # Errors
    /// See [`RecipeError`].
    pub fn load(named: &str) -> Result<Self, RecipeError> {
        if !named.contains('/') && !named.ends_with(".toml") {
            return Self::named(named);
        }
        let text = read_small(Path::new(named), RECIPE_BYTES_MAX)
            .and_then(|text| text.ok_or_else(|| io::ErrorKind::NotFound.into()));
        Self::parse(&text.map_err(RecipeError::Read)?)
    }

    /// Reads a recipe, and looks whether all names in it can be.
    ///
    /// # Errors
    /// See [`RecipeError`].
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        let recipe: Self = toml::from_str(text).map_err(|error| RecipeError::Bad(error.into()))?;
        recipe.check()?;
        Ok(recipe)
    }

    fn check(&self) -> Result<(), RecipeError> {
        let unfit =
            |what: &str, which: &str| Err(RecipeError::Unfit(format!("{which:?} is no {what}")));
        if !is_word(&self.suite) {
            return unfit("release", &self.suite);
        }
        for component in &self.components {
            if !is_word(component) {
                return unfit("part of an archive", component);
            }
        }
        for package in &self.packages {
            if !is_package(package) {
                return unfit("package", package);
            }
        }
        if let Some(mirror) = self.mirror.as_ref().filter(|mirror| !is_mirror(mirror)) {
            return unfit("mirror: write it as http://deb.debian.org/debian", mirror);
        }
        let is_line =
            |line: &&String| line.starts_with("deb ") && !line.chars().any(char::is_control);
        if let Some(line) = self.sources.iter().find(|line| !is_line(line)) {
            return unfit("line for apt: write it as deb http://… SUITE main", line);
        }
        if let Some(disk) = self.disk.as_ref().filter(|disk| binary_size(disk).is_none()) {
            return unfit("size: write it as 16G", disk);
        }
        for (name, parameter) in &self.parameters {
            let is_name = name.starts_with(|it: char| it.is_ascii_lowercase())
                && name
                    .chars()
                    .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-');
            if !is_name || name.len() > 40 {
                return unfit("name of a parameter", name);
            }
            parameter.check(name, &parameter.default)?;
        }
        Ok(())
    }

    /// Has these packages installed as well.
    ///
    /// # Errors
    /// One is no name of a package.
    pub fn add_packages(&mut self, packages: Vec<String>) -> Result<(), RecipeError> {
        self.packages.extend(packages);
        self.check()
    }

    /// Whence packages come, if not from where Debian's come.
    ///
    /// # Errors
    /// It is no address of a mirror.
    pub fn set_mirror(&mut self, mirror: String) -> Result<(), RecipeError> {
        self.mirror = Some(mirror);
        self.check()
    }

    /// Chooses values of parameters.
    ///
    /// # Errors
    /// There is no such parameter, or it can't be that.
    pub fn choose(&mut self, values: &[(String, String)]) -> Result<(), RecipeError> {
        for (name, value) in values {
            let known = self.parameters.keys().cloned().collect::<Vec<_>>().join(", ");
            let Some(parameter) = self.parameters.get_mut(name) else {
                return Err(RecipeError::NoParameter { name: name.clone(), known });
            };
            parameter.check(name, value)?;
            parameter.default.clone_from(value);
        }
        Ok(())
    }

    /// Size of the disk, if the recipe says one.
    pub fn disk_bytes(&self) -> Option<u64> {
        self.disk.as_deref().and_then(binary_size)
    }

    /// Lines for apt; none: those that mmdebstrap knows.
    pub fn apt_lines(&self) -> Vec<String> {
        let Some(mirror) = self.mirror.as_ref().filter(|_| self.sources.is_empty()) else {
            return self.sources.clone();
        };
        let (mirror, suite) = (mirror.trim_end_matches('/'), &self.suite);
        let components = self.components.join(" ");
        vec![
            format!("deb {mirror} {suite} {components}"),
            format!("deb {mirror} {suite}-updates {components}"),
            format!("deb {mirror}-security {suite}-security {components}"),
        ]
    }

    /// What the script finds in its environment.
    pub fn environment(&self) -> impl Iterator<Item = (String, &str)> {
        self.parameters.iter().map(|(name, parameter)| {
            let name = name.to_ascii_uppercase().replace('-', "_");
            (format!("RECIPE_{name}"), parameter.default.as_str())
        })
    }
}

impl Parameter {
    fn check(&self, name: &str, value: &str) -> Result<(), RecipeError> {
        let bad = |why: String| {
            Err(RecipeError::BadValue { name: name.to_owned(), value: value.to_owned(), why })
        };
        if !self.choices.is_empty() && !self.choices.iter().any(|choice| choice == value) {
            return bad(format!("it is one of {}", self.choices.join(", ")));
        }
        let is_harmless = |it: char| it.is_ascii_alphanumeric() || "-_./:@+=,$% ".contains(it);
        if value.len() > VALUE_MAX || !value.chars().all(is_harmless) || value.starts_with('-') {
            return bad(format!(
                "it has up to {VALUE_MAX} letters, digits, spaces and -_./:@+=,$%, and does not begin with -"
            ));
        }
        let kind = self.kind.filter(|_| !value.is_empty());
        match kind.and_then(|kind| kind.objection(value)) {
            Some(why) => bad(why.to_owned()),
            None => Ok(()),
        }
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|it: char| it.is_ascii_alphanumeric())
        && text.chars().all(|it| it.is_ascii_alphanumeric() || "-._/".contains(it))
}

/// A name, with an architecture, release or version perhaps, as apt takes it.
fn is_package(text: &str) -> bool {
    text.starts_with(|it: char| it.is_ascii_alphanumeric())
        && text.chars().all(|it| it.is_ascii_alphanumeric() || "-.+:/=~".contains(it))
}

fn is_mirror(text: &str) -> bool {
    let is_known = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
    is_known && text.chars().all(|it| it.is_ascii_graphic() && !"[]'\"\\".contains(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_come_along_are_sound() {
        assert_eq!(Recipe::ours().len(), OURS.len());
        for (name, recipe) in Recipe::ours() {
            assert!(recipe.disk_bytes().is_some() && !recipe.packages.is_empty(), "{name}");
            // Each parameter is used, and the script uses no others.
            for (variable, _) in recipe.environment() {
                assert!(recipe.script.contains(&variable), "{name}: {variable}");
            }
            let used = recipe.script.split("$RECIPE_").skip(1).map(|rest| {
                rest.chars()
                    .take_while(|it| it.is_ascii_uppercase() || *it == '_')
                    .collect::<String>()
            });
            let known: Vec<String> = recipe.environment().map(|(variable, _)| variable).collect();
            for variable in used {
                assert!(known.contains(&format!("RECIPE_{variable}")), "{name}: {variable}");
            }
        }
    }

    #[test]
    fn what_is_chosen_is_checked() {
        let mut recipe = Recipe::load("debian-12-desktop").unwrap();
        let choose = |recipe: &mut Recipe, name: &str, value: &str| {
            let chosen = recipe.choose(&[(name.to_owned(), value.to_owned())]);
            chosen.map_err(|error| error.to_string())
        };
        choose(&mut recipe, "keyboard", "gr").unwrap();
        choose(&mut recipe, "root-password", "$6$a.b/c$xyz").unwrap();
        assert!(recipe.environment().any(|it| it == ("RECIPE_KEYBOARD".to_owned(), "gr")));
        let told = choose(&mut recipe, "keyboard", "xx").unwrap_err();
        assert!(told.contains("one of us, gb, de"), "{told}");
        let told = choose(&mut recipe, "colour", "red").unwrap_err();
        assert!(told.contains("it has autologin, keyboard"), "{told}");
        recipe.add_packages(vec!["sssd-ldap".to_owned()]).unwrap();
        assert_eq!(recipe.packages.last().unwrap(), "sssd-ldap");
        let told = recipe.clone().add_packages(vec!["--option".to_owned()]).unwrap_err();
        assert!(told.to_string().contains("\"--option\" is no package"), "{told}");
        for value in ["a\nb", "`reboot`", "--gid 0", "ü", "Pupil", "two words", "-x", "0day"] {
            assert!(choose(&mut recipe, "autologin", value).is_err(), "{value}");
        }
        choose(&mut recipe, "autologin", "pupil-1").unwrap();
        choose(&mut recipe, "autologin", "").unwrap();
        for value in ["secret", "$6$", "$$a$b", "root"] {
            let told = choose(&mut recipe, "root-password", value).unwrap_err();
            assert!(told.contains("openssl passwd -6"), "{told}");
        }
        choose(&mut recipe, "root-password", "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o").unwrap();
        for value in ["../../etc/passwd", "/etc/passwd", "Europe/", ""] {
            assert_eq!(choose(&mut recipe, "timezone", value).is_ok(), value.is_empty(), "{value}");
        }
        choose(&mut recipe, "timezone", "Europe/Berlin").unwrap();
    }

    #[test]
    fn mistakes_are_named() {
        let told = |text: &str| {
            let error = Recipe::parse(text).unwrap_err();
            format!("{error}: {:?}", std::error::Error::source(&error))
        };
        let good = "title = \"x\"\nsuite = \"bookworm\"\n";
        Recipe::parse(good).unwrap();
        assert!(told("title = \"x\"\n").contains("missing field `suite`"));
        assert!(told(&format!("{good}pakages = []\n")).contains("unknown field `pakages`"));
        for (line, what) in [
            ("packages = [\"a b\"]", "package"),
            ("packages = [\"--option\"]", "package"),
            ("mirror = \"file:///\"", "mirror"),
            ("sources = [\"rm -rf\"]", "apt"),
            ("mirror = \"http://x y\"", "mirror"),
            ("disk = \"16\"", "size"),
            ("components = [\"-x\"]", "archive"),
            ("[parameters.PATH]\nabout = \"x\"", "parameter"),
        ] {
            assert!(told(&format!("{good}{line}\n")).contains(what), "{line}");
        }
        assert!(matches!(Recipe::load("debian-7"), Err(RecipeError::Unknown { .. })));
        assert!(matches!(Recipe::load("/nowhere/x.toml"), Err(RecipeError::Read(_))));
    }
}
