//! Versions whose files are not what they were.

use super::{Store, names_in};
use crate::error::StoreError;
use crate::kernel;
use model::{ImageName, ImageVersion, Machine};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::PathBuf;

/// What a kernel says of itself is in so many of its first bytes.
const KERNEL_START: u64 = 4096;

/// What is wrong with the files of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionTrouble {
    /// What is so, and why.
    pub why: String,
    /// The kernel is there, which is all that machines with a root on a foreign server need.
    pub has_kernel: bool,
    /// All files are there, and machines start with them; their content is not what was imported.
    pub has_changed: bool,
}

impl VersionTrouble {
    /// Whether the machine can't start with that version.
    pub const fn concerns(&self, machine: &Machine) -> bool {
        !(self.has_changed || self.has_kernel && machine.root.is_foreign())
    }
}

impl Store {
    /// What is wrong with a version, as far as the names and sizes of its files and the first bytes of its kernel show, and
    /// what was found when it was [verified](Self::verify) last; `None`: its files are as they were. Reads no disk's content.
    pub fn trouble(&self, version: &ImageVersion) -> Option<VersionTrouble> {
        let ImageVersion { image, version: number, size_bytes, digest, .. } = version;
        let without_kernel =
            |why: String| Some(VersionTrouble { why, has_kernel: false, has_changed: false });
        match self.version(image, *number) {
            Ok(found) if found.digest == *digest => {}
            Ok(_) => {
                return without_kernel("another disk has its number in the image store".to_owned());
            }
            Err(error) => return Some(self.unreadable(image, *number, error)),
        }
        if !version.is_data()
            && let Err(why) = check_kernel(self.vmlinuz_path(image, *number))
        {
            return without_kernel(why);
        }
        let why = match size_of(self.disk_path(image, *number)) {
            Ok((_, found)) if found == *size_bytes => {
                let flaw = self.verified(image, *number)?.flaw?;
                return Some(VersionTrouble { why: flaw, has_kernel: true, has_changed: true });
            }
            Ok((path, found)) => {
                format!("{} has {found} bytes instead of {size_bytes}", path.display())
            }
            Err(why) => why,
        };
        Some(VersionTrouble { why, has_kernel: true, has_changed: false })
    }

    /// The same of a version of which nothing else is known; one that is not there has a trouble, too.
    pub fn trouble_of(&self, image: &ImageName, number: u32) -> Option<VersionTrouble> {
        match self.version(image, number) {
            Ok(version) => self.trouble(&version),
            Err(error) => Some(self.unreadable(image, number, error)),
        }
    }

    /// Versions that are in the store, or were and are to be, and with which machines can't start, by image and number.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn troubles(&self) -> Result<BTreeMap<(ImageName, u32), VersionTrouble>, StoreError> {
        let mut troubles = BTreeMap::new();
        for name in names_in(&self.dir)? {
            let Ok(image) = name.parse::<ImageName>() else { continue };
            for number in self.numbers(&image)? {
                let trouble = self.trouble_of(&image, number);
                troubles.extend(trouble.map(|trouble| ((image.clone(), number), trouble)));
            }
        }
        // That the notes can't be read is for who imports: what is known of the others is told all the same.
        for (image, number) in self.given_out().unwrap_or_default() {
            // Where there is a newer one, somebody has probably deleted this to make room; whose disk was made on it hears of
            // it from that.
            if self.numbers(&image).unwrap_or_default().iter().any(|there| *there > number) {
                continue;
            }
            if let Err(error @ StoreError::Missing { .. }) = self.version(&image, number) {
                let gone = self.unreadable(&image, number, error);
                troubles.entry((image, number)).or_insert(gone);
            }
        }
        Ok(troubles)
    }

    /// Files of the store beside the versions' own that are there and can't be read, and why.
    pub fn unreadable_files(&self) -> Vec<String> {
        let mut why: Vec<String> = self.states().err().iter().map(in_words).collect();
        match self.overlaid() {
            Ok(versions) => {
                let read =
                    |(image, version): &(ImageName, u32)| self.overlay(image, *version).err();
                why.extend(versions.iter().filter_map(read).map(|error| in_words(&error)));
            }
            Err(error) => why.push(in_words(&error)),
        }
        why
    }

    /// What it means that a version's description can't be read.
    fn unreadable(&self, image: &ImageName, number: u32, error: StoreError) -> VersionTrouble {
        let why = match error {
            StoreError::Missing { .. } if !self.has_images() => {
                let dir = self.dir.display();
                format!("{dir} is empty: its file system is probably not mounted")
            }
            StoreError::Missing { .. } => {
                let dir = self.version_dir(image, number);
                let about = dir.join("image.toml");
                let gone = if dir.is_dir() { about } else { dir };
                format!("{} is gone", gone.display())
            }
            error => in_words(&error),
        };
        VersionTrouble { why, has_kernel: false, has_changed: false }
    }

    /// Whether there is any image, as far as folders show.
    fn has_images(&self) -> bool {
        let names = names_in(&self.dir).unwrap_or_default();
        names.iter().any(|name| name.parse::<ImageName>().is_ok())
    }
}

fn in_words(error: &StoreError) -> String {
    match error {
        StoreError::Io { action, path, source } => {
            format!("can't {action} {}: {source}", path.display())
        }
        error => error.to_string(),
    }
}

/// Looks whether this is a kernel that PCs can start, as far as its first bytes show.
fn check_kernel(path: PathBuf) -> Result<(), String> {
    let (path, n_bytes) = size_of(path)?;
    let mut start = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(KERNEL_START).read_to_end(&mut start));
    read.map_err(|error| format!("can't read {}: {error}", path.display()))?;
    match kernel::flaw(&start, n_bytes) {
        Some(flaw) => Err(format!("{} can't be started: {flaw}", path.display())),
        None => Ok(()),
    }
}

fn size_of(path: PathBuf) -> Result<(PathBuf, u64), String> {
    match fs::metadata(&path) {
        Ok(file) if file.is_file() => Ok((path, file.len())),
        Ok(_) => Err(format!("{} is no file", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("{} is gone", path.display()))
        }
        Err(error) => Err(format!("can't read {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a kernel of 1024 bytes of this, as far as they are there.
    fn put_header(bytes: &mut [u8]) {
        let header = [(0x1f1, &[1u8][..]), (0x1f4, &[0; 4]), (0x202, b"HdrS\x04\x02")];
        for (at, value) in header {
            if let Some(place) = bytes.get_mut(at..at + value.len()) {
                place.copy_from_slice(value);
            }
        }
    }

    #[test]
    fn each_damaged_version_is_named_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let add = |number: u32, files: &[(&str, usize)]| {
            let version = folder.path().join(format!("debian/{number}"));
            fs::create_dir_all(&version).unwrap();
            let about = format!(
                "image = \"debian\"\nversion = {number}\ndigest = \"00\"\nsize_bytes = 4096\n\
                 file_system = \"ext4\"\nkernel_version = \"6.1.0\"\nimported_unix = 0\n"
            );
            fs::write(version.join("image.toml"), about).unwrap();
            for (name, length) in files {
                let mut bytes = vec![1; *length];
                if *name == "vmlinuz" {
                    put_header(&mut bytes);
                }
                fs::write(version.join(name), bytes).unwrap();
            }
            version
        };
        add(1, &[("vmlinuz", 1024), ("disk.raw", 4096)]);
        add(2, &[("vmlinuz", 1024), ("disk.raw", 512)]);
        add(3, &[("disk.raw", 4096)]);
        let damaged = add(4, &[("vmlinuz", 1024), ("disk.raw", 4096)]);
        fs::write(damaged.join("image.toml"), "version = 4").unwrap();
        fs::create_dir(folder.path().join("debian/5")).unwrap();
        let empty = add(6, &[]);
        fs::write(empty.join("image.toml"), "").unwrap();
        let foreign = add(7, &[]);
        fs::write(foreign.join("image.toml"), [0xff, 0xfe]).unwrap();
        add(8, &[("vmlinuz", 1023), ("disk.raw", 4096)]);
        add(9, &[("vmlinuz", 0), ("disk.raw", 4096)]);
        let replaced = add(10, &[("disk.raw", 4096)]);
        fs::write(replaced.join("vmlinuz"), b"\x7fELF".repeat(1000)).unwrap();
        let troubles = Store::open(folder.path()).unwrap().troubles().unwrap();
        let said = [
            (2, "disk.raw has 512 bytes instead of 4096"),
            (3, "vmlinuz is gone"),
            (4, "image.toml is damaged: it is not what an import wrote"),
            (5, "5/image.toml is gone"),
            (6, "image.toml is damaged: it is empty"),
            (7, "image.toml is damaged: it is not text"),
            (8, "it is cut off: it says that it has 1024 bytes, and there are 1023"),
            (9, "vmlinuz can't be started: it is empty"),
            (10, "vmlinuz can't be started: it is no kernel for x86-64 or arm64, or cut off"),
        ];
        assert_eq!(troubles.len(), said.len(), "{troubles:?}");
        for (((image, number), trouble), (version, says)) in troubles.iter().zip(said) {
            assert_eq!((image.as_str(), *number), ("debian", version));
            assert!(trouble.why.ends_with(says), "{troubles:?}");
        }
    }

    #[test]
    fn a_version_that_was_given_out_and_is_gone_is_missed_until_it_is_removed_on_purpose() {
        let folder = tempfile::tempdir().unwrap();
        let notes = folder.path().join(".numbers.toml");
        let given = "[[given]]\nimage = \"debian\"\nversion = 3\ndigest = \"00\"\n\
                     [[given]]\nimage = \"debian\"\nversion = 2\n";
        fs::write(&notes, given).unwrap();
        fs::create_dir_all(folder.path().join("debian/007")).unwrap();
        let store = Store::open(folder.path()).unwrap();
        let troubles: Vec<_> = store.troubles().unwrap().into_iter().collect();
        let [((image, 3), trouble)] = &troubles[..] else { panic!("{troubles:?}") };
        assert_eq!(image.as_str(), "debian");
        assert!(trouble.why.ends_with("debian/3 is gone"), "{trouble:?}");
        assert_eq!(store.next_number(image).unwrap(), 4);
        fs::create_dir_all(folder.path().join("debian/4")).unwrap();
        let newer: Vec<_> = store.troubles().unwrap().into_keys().map(|it| it.1).collect();
        assert_eq!(newer, [4], "the third was deleted, as there is a newer one");
        fs::remove_dir_all(folder.path().join("debian/4")).unwrap();
        fs::create_dir_all(folder.path().join("debian/4294967295")).unwrap();
        store.next_number(image).unwrap_err();
        fs::remove_dir_all(folder.path().join("debian/4294967295")).unwrap();
        fs::write(&notes, "\n").unwrap();
        let error = store.given_out().unwrap_err().to_string();
        assert!(error.contains("it is empty") && error.contains("backup"), "{error}");
        assert_eq!(store.troubles().unwrap().len(), 0);
    }

    #[test]
    fn a_folder_in_place_of_a_file_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join("debian/1");
        fs::create_dir_all(version.join("disk.raw")).unwrap();
        let about = "image = \"debian\"\nversion = 1\ndigest = \"00\"\nsize_bytes = 4096\n\
                     file_system = \"ext4\"\nkernel_version = \"6.1.0\"\nimported_unix = 0\n";
        fs::write(version.join("image.toml"), about).unwrap();
        let mut kernel = [0; 1024];
        put_header(&mut kernel);
        fs::write(version.join("vmlinuz"), kernel).unwrap();
        fs::create_dir_all(folder.path().join("debian/2/image.toml")).unwrap();
        let troubles = Store::open(folder.path()).unwrap().troubles().unwrap();
        let why: Vec<_> = troubles.values().map(|trouble| &trouble.why).collect();
        assert!(why[0].ends_with("disk.raw is no file"), "{why:?}");
        assert!(why[1].contains("image.toml"), "{why:?}");
    }
}
