//! Which version numbers were given out, and for which content: kept apart from the versions, so that the number of one that
//! is gone is not given to another one. Machines' disks name the version that they were made on.

use super::Store;
use crate::error::{StoreError, io_error};
use crate::folder::replace;
use model::{ImageName, ImageVersion};
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

    /// The number is given out for this content, or its version is removed on purpose. To be called under the lock.
    pub(super) fn note_number(
        &self,
        image: &ImageName,
        version: u32,
        digest: Option<&str>,
    ) -> Result<(), StoreError> {
        let mut numbers = self.noted()?;
        numbers.given.retain(|given| (&given.image, given.version) != (image, version));
        let digest = digest.map(str::to_owned);
        numbers.given.push(Given { image: image.clone(), version, digest });
        self.write_numbers(&numbers)
    }

    fn write_numbers(&self, numbers: &Numbers) -> Result<(), StoreError> {
        let path = self.numbers_path();
        let text = toml::to_string(numbers)
            .map_err(|error| io_error("write", &path)(io::Error::other(error)))?;
        replace(&path, text.as_bytes()).map_err(io_error("write", &path))
    }

    /// Notes that these versions were given out once, as others know it: what was noted here may be lost with them. Of a number
    /// that is noted already nothing is changed.
    ///
    /// # Errors
    /// What was noted can't be read, or this not be written, or another process keeps the folder to itself.
    pub fn note_given<'a>(
        &self,
        known: impl IntoIterator<Item = &'a ImageVersion>,
    ) -> Result<(), StoreError> {
        let known: Vec<&ImageVersion> = known.into_iter().collect();
        let is_new = |numbers: &Numbers, known: &ImageVersion| {
            !numbers.given.iter().any(|it| (&it.image, it.version) == (&known.image, known.version))
        };
        let noted = self.noted()?;
        if !known.iter().any(|known| is_new(&noted, known)) {
            return Ok(());
        }
        let _lock = self.lock_soon()?.ok_or_else(|| {
            io_error("lock", &self.dir)(io::Error::from(io::ErrorKind::WouldBlock))
        })?;
        let mut noted = self.noted()?;
        for known in known {
            if is_new(&noted, known) {
                noted.given.push(Given {
                    image: known.image.clone(),
                    version: known.version,
                    digest: Some(known.digest.clone()),
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
             numbers of versions that are gone may be given again"
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
