//! Which version numbers were given out, for which content, and for whom the versions are: kept apart from the versions, which
//! never change, so that the number of one that is gone is not given to another one. Machines' disks name the version that they
//! were made on.

use super::Store;
use crate::error::{StoreError, io_error};
use crate::folder::replace;
use model::{ImageName, ImageVersion, VersionState};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

/// An image's name can't begin so.
const FILE: &str = ".numbers.toml";

/// What a later Bootlace adds is left out.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Numbers {
    #[serde(default)]
    given: Vec<Given>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Given {
    image: ImageName,
    version: u32,
    /// BLAKE3 of its content; `None`: it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// For whom it is.
    #[serde(default, skip_serializing_if = "is_released")]
    state: VersionState,
    /// What people have said of it since it was imported; empty: nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

fn is_released(state: &VersionState) -> bool {
    *state == VersionState::Released
}

impl Given {
    fn is(&self, image: &ImageName, version: u32) -> bool {
        (&self.image, self.version) == (image, version)
    }
}

impl Store {
    /// All numbers that an image has given out, and the content that was meant, if that is known. Those of versions that are
    /// there are among them, also if an earlier Bootlace or a person has put them there.
    pub(super) fn given(
        &self,
        image: &ImageName,
    ) -> Result<BTreeMap<u32, Option<String>>, StoreError> {
        let noted = self.noted()?.given.into_iter().filter(|given| given.image == *image);
        let mut all: BTreeMap<_, _> = noted.map(|given| (given.version, given.digest)).collect();
        for number in self.numbers(image)? {
            let noted = all.entry(number).or_default();
            if let Ok(version) = self.version(image, number) {
                *noted = Some(version.digest);
            }
        }
        Ok(all)
    }

    /// One more than the highest number that was ever given out.
    pub(super) fn next_number(&self, image: &ImageName) -> Result<u32, StoreError> {
        let given = self.given(image)?;
        let last = given.keys().next_back().copied().unwrap_or(0);
        let last = last.max(self.last_removed(image)?);
        last.checked_add(1).ok_or_else(|| StoreError::Damaged {
            path: self.dir.join(image.as_str()),
            why: format!(
                "there is no number after {last}. No import has made a version with that: move its folder away, and its \
                 lines out of {}",
                self.numbers_path().display()
            ),
        })
    }

    /// The number is given out for this content, for these; or its version is removed on purpose, and if somebody puts it back it is for
    /// nobody. What an import puts back is for whom it was before. To be called under the lock.
    pub(super) fn note_number(
        &self,
        image: &ImageName,
        version: u32,
        meant: Option<(&str, VersionState)>,
    ) -> Result<(), StoreError> {
        let mut numbers = self.noted()?;
        let former = numbers.given.iter().position(|given| given.is(image, version));
        let former = former.map(|at| numbers.given.remove(at));
        let (digest, state) = meant.unzip();
        let former = former.filter(|former| former.digest.is_some() && digest.is_some());
        let (former, note) = former.map(|former| (former.state, former.note)).unzip();
        let state = former.or(state);
        numbers.given.push(Given {
            image: image.clone(),
            version,
            digest: digest.map(str::to_owned),
            state: state.unwrap_or(VersionState::Retired),
            note: note.flatten(),
        });
        self.write_numbers(&numbers)
    }

    /// For which content a number was given out, and for whom its version is, if that is noted.
    pub(super) fn noted_as(
        &self,
        image: &ImageName,
        version: u32,
    ) -> Result<Option<(String, VersionState)>, StoreError> {
        let given = self.noted()?.given.into_iter().find(|given| given.is(image, version));
        Ok(given.and_then(|given| Some((given.digest?, given.state))))
    }

    /// For whom versions are, as far as that was noted. Those that were removed are retired.
    ///
    /// # Errors
    /// What was noted can't be read.
    pub fn states(&self) -> Result<BTreeMap<(ImageName, u32), VersionState>, StoreError> {
        let given = self.noted()?.given.into_iter();
        Ok(given.map(|given| ((given.image, given.version), given.state)).collect())
    }

    /// Says for whom versions of an image are from now on: all of these at once, or none.
    ///
    /// # Errors
    /// One of them is not there, or what was noted can't be read or written.
    pub fn set_states(
        &self,
        image: &ImageName,
        states: &[(u32, VersionState)],
    ) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let mut numbers = self.noted()?;
        for &(version, state) in states {
            let digest = self.version(image, version)?.digest;
            match numbers.given.iter_mut().find(|given| given.is(image, version)) {
                // One that was removed, and put back by hand.
                Some(given) => (given.state, given.digest) = (state, Some(digest)),
                None => numbers.given.push(Given {
                    image: image.clone(),
                    version,
                    digest: Some(digest),
                    state,
                    note: None,
                }),
            }
        }
        self.write_numbers(&numbers)
    }

    /// What people want to remember about a version from now on; empty: nothing. The version itself stays as it is.
    ///
    /// # Errors
    /// It is not there, or what was noted can't be read or written.
    pub fn set_note(&self, image: &ImageName, version: u32, note: &str) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let mut numbers = self.noted()?;
        let digest = self.version(image, version)?.digest;
        let note = Some(note.to_owned());
        match numbers.given.iter_mut().find(|given| given.is(image, version)) {
            Some(given) => given.note = note,
            None => numbers.given.push(Given {
                image: image.clone(),
                version,
                digest: Some(digest),
                state: VersionState::Released,
                note,
            }),
        }
        self.write_numbers(&numbers)
    }

    /// What people have said of a version since it was imported.
    pub(super) fn later_note(
        &self,
        image: &ImageName,
        version: u32,
    ) -> Result<Option<String>, StoreError> {
        let given = self.noted()?.given.into_iter().find(|given| given.is(image, version));
        Ok(given.and_then(|given| given.note))
    }

    fn write_numbers(&self, numbers: &Numbers) -> Result<(), StoreError> {
        let path = self.numbers_path();
        let text = toml::to_string(numbers)
            .map_err(|error| io_error("write", &path)(io::Error::other(error)))?;
        replace(&path, text.as_bytes()).map_err(io_error("write", &path))
    }

    /// Notes that these versions were given out once, and for whom they are, as others know it: what was noted here may be lost with
    /// them. Of a number that is noted already nothing is changed.
    ///
    /// # Errors
    /// What was noted can't be read, or this not be written, or another process keeps the folder to itself.
    pub fn note_given<'a>(
        &self,
        known: impl IntoIterator<Item = (&'a ImageVersion, VersionState)>,
    ) -> Result<(), StoreError> {
        let known: Vec<(&ImageVersion, VersionState)> = known.into_iter().collect();
        let is_new = |numbers: &Numbers, known: &ImageVersion| {
            !numbers.given.iter().any(|given| given.is(&known.image, known.version))
        };
        let noted = self.noted()?;
        if !known.iter().any(|(known, _)| is_new(&noted, known)) {
            return Ok(());
        }
        let _lock = self.lock_soon()?.ok_or_else(|| {
            io_error("lock", &self.dir)(io::Error::from(io::ErrorKind::WouldBlock))
        })?;
        let mut noted = self.noted()?;
        for (known, state) in known {
            if is_new(&noted, known) {
                noted.given.push(Given {
                    image: known.image.clone(),
                    version: known.version,
                    digest: Some(known.digest.clone()),
                    state,
                    note: None,
                });
            }
        }
        self.write_numbers(&noted)
    }

    /// Versions that an import has made and nobody has removed on purpose, as far as that was noted.
    ///
    /// # Errors
    /// What was noted can't be read.
    pub fn given_out(&self) -> Result<Vec<(ImageName, u32)>, StoreError> {
        let kept = self.noted()?.given.into_iter().filter(|given| given.digest.is_some());
        Ok(kept.map(|given| (given.image, given.version)).collect())
    }

    fn noted(&self) -> Result<Numbers, StoreError> {
        let path = self.numbers_path();
        let why = match fs::read_to_string(&path) {
            // Nobody writes it so: a crash of the host has left it.
            Ok(text) if text.trim().is_empty() => "it is empty",
            Ok(text) => match toml::from_str(&text) {
                Ok(numbers) => return Ok(numbers),
                Err(_) => "it is not what an import wrote",
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Numbers::default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => "it is not text",
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        let why = format!(
            "{why}. It says which version numbers were given out: put it back from a backup; if you remove it, the \
             numbers of versions that are gone may be given again. It also says which versions are released: one from a backup brings back \
             what was so then, and without it what the database knows holds"
        );
        Err(StoreError::Damaged { path, why })
    }

    /// What an earlier Bootlace has noted when it removed a version.
    fn last_removed(&self, image: &ImageName) -> Result<u32, StoreError> {
        let path = self.dir.join(image.as_str()).join("last-number");
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| StoreError::Damaged {
                path,
                why: format!("{text:?} is not a version number"),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    fn numbers_path(&self) -> PathBuf {
        self.dir.join(FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_whom_versions_are_is_known_until_they_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let debian: ImageName = "debian".parse().unwrap();
        for version in 1..=3 {
            let folder = folder.path().join("debian").join(version.to_string());
            fs::create_dir_all(&folder).unwrap();
            let about = format!(
                "image = \"debian\"\nversion = {version}\ndigest = \"0{version}\"\nsize_bytes = 4096\n\
                 file_system = \"ext4\"\nkernel_version = \"6.1.0\"\nimported_unix = 0\n"
            );
            fs::write(folder.join("image.toml"), about).unwrap();
        }
        let store = Store::open(folder.path()).unwrap();
        store.note_number(&debian, 3, Some(("03", VersionState::Test))).unwrap();
        let states = [(1, VersionState::Retired), (2, VersionState::Draft)];
        store.set_states(&debian, &states).unwrap();
        let known = || -> Vec<(u32, VersionState)> {
            let states = Store::open(folder.path()).unwrap().states().unwrap();
            states.into_iter().map(|((_, version), state)| (version, state)).collect()
        };
        assert_eq!(known(), [states[0], states[1], (3, VersionState::Test)]);
        // All or none.
        store
            .set_states(&debian, &[(1, VersionState::Released), (4, VersionState::Test)])
            .unwrap_err();
        assert_eq!(known().len(), 3);
        // Put back, it is what it was.
        store.note_number(&debian, 3, Some(("03", VersionState::Released))).unwrap();
        assert_eq!(known()[2], (3, VersionState::Test));
        store.set_states(&debian, &[(3, VersionState::Released)]).unwrap();
        store.remove(&debian, 1).unwrap();
        // Who puts it back by hand gives it to nobody yet.
        let others = [(2, VersionState::Draft), (3, VersionState::Released)];
        assert_eq!(known(), [&[(1, VersionState::Retired)][..], &others].concat());
        assert_eq!(store.next_number(&debian).unwrap(), 4);
        // What somebody says of it later holds, whatever else becomes of it.
        assert_eq!(store.note(&debian, 2).unwrap(), None);
        store.set_note(&debian, 2, "with LibreOffice").unwrap();
        store.set_states(&debian, &[(2, VersionState::Test)]).unwrap();
        store.note_number(&debian, 2, Some(("02", VersionState::Draft))).unwrap();
        assert_eq!(store.note(&debian, 2).unwrap().as_deref(), Some("with LibreOffice"));
        store.set_note(&debian, 2, "").unwrap();
        assert_eq!(store.note(&debian, 2).unwrap(), None);
        store.set_note(&debian, 9, "").unwrap_err();
        // What can't be read is not taken for all being released.
        fs::write(store.numbers_path(), "given = 7").unwrap();
        store.states().unwrap_err();
        assert_eq!(store.unreadable_files().len(), 1);
    }
}
