//! Where modules come from.

use std::collections::{BTreeSet, VecDeque};
use std::io;

/// Deepest nesting of folders below `lib/modules/VERSION` that is followed; Debian has 7.
const DEPTH_MAX: usize = 20;

/// The modules of one kernel: a folder, a package, or an imported image.
pub trait ModuleSource {
    /// Release of the kernel, like `6.1.0-56-amd64`.
    fn kernel(&self) -> &str;

    /// For people: where this is.
    fn origin(&self) -> String;

    /// What is below `lib/modules/RELEASE/`.
    ///
    /// # Errors
    /// The store can't be read.
    fn list(&self) -> io::Result<Listing>;

    /// Content of one of the listed files, as it is stored (perhaps compressed).
    ///
    /// # Errors
    /// The source has no such file, or it can't be read.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// At least the first 66 kB of the kernel's own file, if it is at hand: it knows its real version.
    fn kernel_start(&self) -> Option<Vec<u8>> {
        None
    }

    /// A firmware file by the name that a driver asks for, like `rtl_nic/rtl8168h-2.fw`, as it is
    /// stored; the file's name may end in `.xz` or `.zst`. `None` if the source has none.
    ///
    /// # Errors
    /// The store can't be read.
    fn firmware(&self, _name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// What a source has below `lib/modules/RELEASE/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Files, relative to it and sorted, like `kernel/fs/ext4/ext4.ko`; and links that lead to none.
    pub files: Vec<String>,
    /// Folders that can't be read, and why.
    pub unreadable: Vec<(String, String)>,
}

/// Folders with modules: in a file system, or in an image.
pub trait Folders {
    /// The names in a folder; the path is relative to the kernel's, which is empty. Links are followed.
    ///
    /// # Errors
    /// It is no folder, or can't be read.
    fn names(&self, folder: &str) -> io::Result<Vec<(String, Kind)>>;

    /// A name that all paths to the same place have in common.
    ///
    /// # Errors
    /// Links lead in circles, or nowhere.
    fn place(&self, path: &str) -> io::Result<String>;
}

/// What a name in a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file, or something that is no folder.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
}

/// Lists all files. Links to folders are followed, each folder is visited once; but `build` and `source`
/// are left out, which lead to the kernel's headers (depmod leaves them out, too).
///
/// # Errors
/// The kernel's own folder can't be read.
pub fn list_folders(folders: &dyn Folders) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let mut visited = BTreeSet::from([folders.place("")?]);
    let mut queue = VecDeque::new();
    // Links come after all folders, so that a file has the path without them.
    let mut links = VecDeque::new();
    let mut found = (String::new(), 0, folders.names("")?);
    loop {
        let (folder, depth, names) = found;
        for (name, kind) in names {
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            match kind {
                Kind::File => listing.files.push(path),
                Kind::Folder => queue.push_back((path, depth + 1)),
                Kind::Link if path == "build" || path == "source" => {}
                Kind::Link => links.push_back((path, depth + 1)),
            }
        }
        found = loop {
            if let Some((folder, depth)) = queue.pop_front() {
                let place = folders.place(&folder).unwrap_or_else(|_| folder.clone());
                if depth > DEPTH_MAX || !visited.insert(place) {
                    continue;
                }
                match folders.names(&folder) {
                    Ok(names) => break (folder, depth, names),
                    Err(error) => listing.unreadable.push((folder, error.to_string())),
                }
            } else if let Some((link, depth)) = links.pop_front() {
                // Whatever is wrong with a link that is no module, nobody misses it.
                match folders.names(&link) {
                    Ok(_) => queue.push_back((link, depth)),
                    Err(_) => listing.files.push(link),
                }
            } else {
                listing.files.sort();
                return Ok(listing);
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Folders by path; links as names that begin with `@`, to a path.
    struct Example(BTreeMap<&'static str, Vec<&'static str>>);

    impl Folders for Example {
        fn names(&self, folder: &str) -> io::Result<Vec<(String, Kind)>> {
            let names = self.0.get(self.place(folder)?.as_str()).ok_or(io::ErrorKind::NotFound)?;
            let kind = |name: &str| match (name.strip_suffix('/'), name.split_once("->")) {
                (Some(folder), _) => (folder.to_owned(), Kind::Folder),
                (_, Some((link, _))) => (link.to_owned(), Kind::Link),
                _ => (name.to_owned(), Kind::File),
            };
            Ok(names.iter().map(|name| kind(name)).collect())
        }

        fn place(&self, path: &str) -> io::Result<String> {
            let mut at = String::new();
            for part in path.split('/').filter(|part| !part.is_empty()) {
                let link = format!("{part}->");
                let names = self.0.get(at.as_str()).map_or(&[][..], Vec::as_slice);
                match names.iter().find_map(|name| name.strip_prefix(&link)) {
                    Some(target) => at = target.to_owned(),
                    None if at.is_empty() => at = part.to_owned(),
                    None => at = format!("{at}/{part}"),
                }
            }
            Ok(at)
        }
    }

    #[test]
    fn each_folder_is_visited_once_whatever_leads_to_it() {
        let example = Example(BTreeMap::from([
            ("", vec!["build->headers", "modules.dep", "kernel/", "extra->dkms", "dkms/", "bad/"]),
            ("headers", vec!["x.ko"]),
            ("kernel", vec!["a.ko", "up->", "lost.ko->nowhere", "b.ko->kernel/a.ko"]),
            ("dkms", vec!["c.ko"]),
        ]));
        let listing = list_folders(&example).unwrap();
        assert_eq!(
            listing.files,
            ["dkms/c.ko", "kernel/a.ko", "kernel/b.ko", "kernel/lost.ko", "modules.dep"]
        );
        assert_eq!(listing.unreadable.len(), 1);
        assert_eq!(listing.unreadable[0].0, "bad");
        assert!(list_folders(&Example(BTreeMap::new())).is_err());
    }
}
