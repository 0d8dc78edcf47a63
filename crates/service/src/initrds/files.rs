//! What the cache of initrds holds; needs no running server.

use super::build::{base, file_name, remove, warnings};
use super::keep::Initrds;
use crate::error::{Error, io_error};
use model::ImageName;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The initrd of an image version: in the cache, or missing there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitrdFile {
    /// Name of the image.
    pub image: String,
    /// Version of the image.
    pub version: u32,
    /// Release of its kernel; `None`: there is no such image version any more.
    pub kernel: Option<String>,
    /// The file; `None`: it is not built.
    pub path: Option<PathBuf>,
    /// Size of the file.
    pub size_bytes: Option<u64>,
    /// `false` for what another Bootlace has built, or with other settings: it is built again before a machine boots it.
    pub is_current: bool,
    /// What was left out of it, and why.
    pub warnings: Vec<String>,
}

impl Initrds {
    /// Initrds in the cache, and image versions without one; sorted by image and version.
    ///
    /// # Errors
    /// The folder or `bootlace-init` can't be read.
    pub(crate) fn files(&self) -> Result<Vec<InitrdFile>, Error> {
        let site = &self.database.view().site;
        let mut bases: BTreeMap<&Path, Vec<u8>> = BTreeMap::new();
        let systems = || site.images.iter().filter(|version| !version.is_data());
        for path in systems().filter_map(|version| self.settings.init_for(version)) {
            if !bases.contains_key(path) {
                let init = fs::read(path).map_err(io_error("read", path))?;
                bases.insert(path, base(&init, self.settings.nbd_ca.as_deref()));
            }
        }
        let mut files: BTreeMap<(String, u32), InitrdFile> = BTreeMap::new();
        for version in systems() {
            let image = version.image.to_string();
            let missing = InitrdFile {
                image: image.clone(),
                version: version.version,
                kernel: Some(version.kernel_version.clone()),
                path: None,
                size_bytes: None,
                is_current: false,
                warnings: Vec::new(),
            };
            files.insert((image, version.version), missing);
        }
        let folder = &self.settings.folder;
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other.map_err(io_error("read the folder", folder))?),
        };
        let mut found = Vec::new();
        for entry in entries.into_iter().flatten() {
            let entry = entry.map_err(io_error("read the folder", folder))?;
            // The server replaces and removes files all the time.
            let Ok(about) = entry.metadata() else { continue };
            found.push((about.modified().ok(), entry.file_name(), entry, about));
        }
        // Of several for a version that is none of today, the newest one.
        found.sort_by(|a, b| (b.0, &b.1).cmp(&(a.0, &a.1)));
        for (_, _, entry, about) in found {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((image, number)) = parse_name(&name) else { continue };
            let is_current = site.images.iter().any(|version| {
                let recipe = self.for_all(site, &version.image, version.version);
                let base = self.settings.init_for(version).and_then(|path| bases.get(path));
                version.version == number
                    && base.is_some_and(|base| file_name(base, version, &recipe) == name)
            });
            let file = files.entry((image.clone(), number)).or_insert_with(|| InitrdFile {
                image,
                version: number,
                kernel: None,
                path: None,
                size_bytes: None,
                is_current: false,
                warnings: Vec::new(),
            });
            if file.path.is_none() || is_current {
                file.path = Some(entry.path());
                file.size_bytes = Some(about.len());
                file.is_current = is_current;
                file.warnings = warnings(&entry.path());
            }
        }
        Ok(files.into_values().collect())
    }

    /// Removes what is in the cache for a version that is gone.
    pub(crate) fn forget(&self, image: &ImageName, version: u32) {
        let of = format!("{image}@{version}");
        remove(&self.settings.folder, |name| {
            let rest = name.strip_prefix(&of);
            rest.is_some_and(|rest| !rest.starts_with(|it: char| it.is_ascii_digit()))
        });
    }
}

/// Image and version out of `IMAGE@VERSION-KEY.img`.
fn parse_name(name: &str) -> Option<(String, u32)> {
    let (image, rest) = name.strip_suffix(".img")?.rsplit_once('@')?;
    let (version, _) = rest.split_once('-')?;
    Some((image.to_owned(), version.parse().ok()?))
}
