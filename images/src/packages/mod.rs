//! The packages of a system, as dpkg or rpm has installed them, and what differs between two systems.

mod rpm;

pub use rpm::parse_rpm_database;

use crate::error::RootfsError;
use crate::rootfs::Rootfs;
use std::collections::{BTreeMap, BTreeSet};

/// Where dpkg notes what it has installed (dpkg(1), "FILES").
const STATUS: &str = "/var/lib/dpkg/status";

/// Longest name or version that is kept: longer ones are no package's.
const WORD_MAX: usize = 256;

/// Versions of packages, by name and architecture.
pub type Packages = BTreeMap<(String, String), String>;

/// A package that one of two systems has, or both in different versions.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PackageChange {
    /// Its name; of one that is installed for several architectures with that of this one: `libc6:i386`.
    pub name: String,
    /// The version of the former system; `None`: it has none.
    pub old: Option<String>,
    /// That of the later one.
    pub new: Option<String>,
}

/// The packages that are installed; `None`: neither dpkg nor an rpm that keeps its notes in SQLite has installed any there.
///
/// # Errors
/// The file system can't be read.
pub fn packages(root: &Rootfs) -> Result<Option<Packages>, RootfsError> {
    if root.exists(STATUS)? {
        return Ok(Some(parse_packages(&root.read(STATUS)?)));
    }
    for path in rpm::DATABASES {
        if root.exists(path)? {
            return Ok(parse_rpm_database(root.read_at_most(path, rpm::DATABASE_MAX)?));
        }
    }
    Ok(None)
}

/// Reads dpkg's database: paragraphs of fields, of which those count that say `Status: … installed`. What is no such paragraph is
/// passed over.
pub fn parse_packages(status: &[u8]) -> Packages {
    let text = String::from_utf8_lossy(status);
    let mut packages = Packages::new();
    for paragraph in text.split("\n\n") {
        let field = |name: &str| {
            let value =
                paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let value = value.map(str::trim)?;
            let is_word = !value.is_empty() && value.len() <= WORD_MAX;
            (is_word && !value.contains(char::is_control)).then_some(value)
        };
        let is_installed =
            field("Status").is_some_and(|status| status.split(' ').nth(2) == Some("installed"));
        let named = field("Package").zip(field("Version")).filter(|_| is_installed);
        if let Some((name, version)) = named {
            let architecture = field("Architecture").unwrap_or_default();
            packages.insert((name.to_owned(), architecture.to_owned()), version.to_owned());
        }
    }
    packages
}

/// What differs, by name.
pub fn package_changes(old: &Packages, new: &Packages) -> Vec<PackageChange> {
    let all: BTreeSet<&(String, String)> = old.keys().chain(new.keys()).collect();
    let n_of = |name: &str| all.iter().filter(|other| other.0 == name).count();
    let change = |key: &&(String, String)| {
        let (old, new) = (old.get(*key), new.get(*key));
        (old != new).then(|| PackageChange {
            name: match n_of(&key.0) {
                1 => key.0.clone(),
                _ => format!("{}:{}", key.0, key.1),
            },
            old: old.cloned(),
            new: new.cloned(),
        })
    };
    all.iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: bash\nEssential: yes\nStatus: install ok installed\nArchitecture: amd64\n\
                          Version: 5.2.15-2\nDescription: shell\n Version: no\n\nPackage: gone\nStatus: deinstall ok config-files\n\
                          Architecture: amd64\nVersion: 1\n\nPackage: libc6\nStatus: install ok installed\nArchitecture: amd64\n\
                          Version: 2.36-9\n\nPackage: libc6\nStatus: install ok installed\nArchitecture: i386\nVersion: 2.36-9\n";

    #[test]
    fn what_is_installed_is_read_and_no_beginning_of_it_is_taken_for_more() {
        let packages = parse_packages(STATUS.as_bytes());
        assert_eq!(packages.len(), 3);
        assert_eq!(packages[&("bash".to_owned(), "amd64".to_owned())], "5.2.15-2");
        for end in 0..STATUS.len() {
            assert!(parse_packages(&STATUS.as_bytes()[..end]).len() <= 3);
        }
        assert_eq!(parse_packages(b"\xff\n\n:\n\nPackage:\nVersion: \n").len(), 0);
    }

    #[test]
    fn what_differs_is_told() {
        let old = parse_packages(STATUS.as_bytes());
        let later = STATUS
            .replace("5.2.15-2", "5.2.15-3")
            .replace("i386\nVersion: 2.36-9", "i386\nVersion: 2.36-10");
        let later = later.replace("deinstall ok config-files", "install ok installed");
        let changes = package_changes(&old, &parse_packages(later.as_bytes()));
        let told: Vec<(&str, Option<&str>, Option<&str>)> = changes
            .iter()
            .map(|it| (it.name.as_str(), it.old.as_deref(), it.new.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                ("bash", Some("5.2.15-2"), Some("5.2.15-3")),
                ("gone", None, Some("1")),
                ("libc6:i386", Some("2.36-9"), Some("2.36-10")),
            ]
        );
        assert_eq!(package_changes(&old, &old), []);
    }
}
