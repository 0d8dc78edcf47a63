//! Versions whose files were damaged or lost, and whose content is imported again: the files are put back.

use super::verify::Stopped;
use super::{Draft, FILES, Store};
use crate::error::{ImportError, StoreError, io_error};
use crate::folder::sync;
use crate::progress::Progress;
use crate::stop::Stop;
use model::{ImageName, ImageVersion};
use std::fs;

/// A version that has the content which is imported, or is to have it.
pub(crate) struct Same {
    pub(crate) version: u32,
    /// Those of its files that are missing, or not what they were.
    pub(crate) flawed: Vec<&'static str>,
}

impl Store {
    /// The version of an image that an import of this content does not have to make: the newest one, or one that is damaged
    /// or gone. What is on the disk is read for that.
    ///
    /// # Errors
    /// It was told to stop, or the store can't be read.
    pub(crate) fn find_same(
        &self,
        imported: &ImageVersion,
        vmlinuz: &[u8],
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<Same>, ImportError> {
        let image = &imported.image;
        let newest = self.numbers(image)?.last().copied();
        for (number, digest) in self.given(image)?.into_iter().rev() {
            let has_content = match digest {
                Some(digest) => digest == imported.digest,
                // Its description is damaged, and was made before numbers were noted; or it was removed.
                None => self.has_content(number, imported, stop, progress)?,
            };
            if !has_content {
                continue;
            }
            let flawed = self.flawed(number, imported, vmlinuz, stop, progress)?;
            // An older one that is whole is one to go back to: by a new version.
            if Some(number) == newest || !flawed.is_empty() {
                return Ok(Some(Same { version: number, flawed }));
            }
        }
        Ok(None)
    }

    /// Puts the named files of the draft into the version, each in one step: whoever has the former one open keeps that. To
    /// be called under the lock.
    pub(super) fn put_back(
        &self,
        draft: Draft,
        image: &ImageName,
        number: u32,
        files: &[&str],
    ) -> Result<(), StoreError> {
        let dir = self.version_dir(image, number);
        if !dir.try_exists().map_err(io_error("read", &dir))? {
            return self.rename_draft(draft, image, number);
        }
        for (name, _) in FILES.iter().filter(|(name, _)| files.contains(name)) {
            let path = dir.join(name);
            fs::rename(draft.path().join(name), &path).map_err(io_error("put back", &path))?;
        }
        sync(&dir).map_err(io_error("sync", &dir))
    }

    /// Files of a version that are missing, or not what an import of the same disk has made.
    fn flawed(
        &self,
        number: u32,
        imported: &ImageVersion,
        vmlinuz: &[u8],
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<&'static str>, ImportError> {
        let image = &imported.image;
        let described = self.version(image, number).ok().filter(|described| {
            described.digest == imported.digest && described.size_bytes == imported.size_bytes
        });
        let has_disk = self.has_content(number, imported, stop, progress)?;
        let is_same_kernel = described
            .as_ref()
            .is_none_or(|described| described.kernel_version == imported.kernel_version);
        // An earlier Bootlace may have chosen another of the kernels on the disk.
        let has_kernel = fs::read(self.vmlinuz_path(image, number)).is_ok_and(|found| {
            found == vmlinuz && (imported.is_data() || !found.is_empty())
                || !found.is_empty() && !is_same_kernel
        });
        let has_description = described.is_some() && (has_kernel || is_same_kernel);
        let files = FILES.iter().zip([has_disk, has_kernel, has_description]);
        Ok(files.filter(|(_, is_whole)| !is_whole).map(|((name, _), _)| *name).collect())
    }

    /// Whether the version's disk can be read, and is the one that is imported.
    fn has_content(
        &self,
        number: u32,
        imported: &ImageVersion,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<bool, ImportError> {
        let flaw = self.disk_flaw(number, imported, stop, progress);
        flaw.map(|flaw| flaw.is_none()).map_err(|Stopped| ImportError::Stopped)
    }
}
