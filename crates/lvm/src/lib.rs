//! What LVM2 has written on physical volumes: labels, metadata, and where the extents of a linear logical volume are.
//!
//! For the importer, which looks into disks, and for init, which makes devices of logical volumes, without LVM's programs.
//! Only what is linear: a logical volume of any other kind is named with its kind. Whoever uses it reads; nothing here
//! performs I/O or panics on foreign bytes.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(any(test, feature = "example"))]
pub mod example;
mod group;
mod label;
mod metadata;
mod text;

pub use group::{Group, LogicalVolume, Piece, Unfit, is_name, mapped_name};
pub use label::{LABEL_BYTES, Label};
pub use metadata::METADATA_BYTES_MAX;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

/// Physical volumes of one disk; more of them are left out.
pub const PHYSICAL_VOLUMES_MAX: usize = 255;

/// What is on a disk does not make sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// A place can't be read, or what is there does not make sense.
#[derive(Debug)]
pub enum ScanError<E> {
    /// As whoever reads says.
    Read(E),
    /// It has the mark of a physical volume.
    Malformed(Malformed),
}

impl<E> From<Malformed> for ScanError<E> {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// The physical volumes of a disk, and the newest that they say of their groups.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    found: Vec<Found>,
    /// By identity.
    groups: BTreeMap<String, Group>,
}

#[derive(Clone, Debug)]
struct Found {
    label: Label,
    /// As whoever scans names it.
    place: usize,
    size_bytes: u64,
}

impl Scan {
    /// Looks at a place of a disk that has so many bytes, such as a partition; `read` fills a buffer from an offset there,
    /// which lies inside. Returns whether it is a physical volume.
    ///
    /// # Errors
    /// It can't be read; it has the mark of one, and is damaged.
    pub fn add<E>(
        &mut self,
        place: usize,
        size_bytes: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<bool, ScanError<E>> {
        if size_bytes < LABEL_BYTES as u64 || self.found.len() >= PHYSICAL_VOLUMES_MAX {
            return Ok(false);
        }
        let mut start = [0; LABEL_BYTES];
        read(0, &mut start).map_err(ScanError::Read)?;
        let Some(label) = Label::parse(&start)? else { return Ok(false) };
        let areas = label.metadata.clone();
        self.found.push(Found { label, place, size_bytes });
        // One copy that is sound is enough; an old one does no harm.
        let mut damage = None;
        let mut is_told = false;
        for area in areas {
            match metadata::read(area, size_bytes, &mut read) {
                Ok(Some(text)) => match Group::parse(&text) {
                    Ok(group) => {
                        is_told = true;
                        self.take(group);
                    }
                    Err(malformed) => damage = Some(ScanError::Malformed(malformed)),
                },
                // A physical volume that keeps no copy, or is in no group yet.
                Ok(None) => is_told = true,
                Err(error) => damage = Some(error),
            }
        }
        match damage {
            Some(error) if !is_told => Err(error),
            _ => Ok(true),
        }
    }

    fn take(&mut self, group: Group) {
        let known = self.groups.get(&group.id);
        if known.is_none_or(|known| known.seqno < group.seqno) {
            self.groups.insert(group.id.clone(), group);
        }
    }

    /// The groups that were found.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    /// Whether all physical volumes of a group were found.
    pub fn is_complete(&self, group: &Group) -> bool {
        group.physical_volumes().all(|id| self.place_of(id).is_some())
    }

    fn place_of(&self, id: &str) -> Option<&Found> {
        self.found.iter().find(|found| found.label.id == id)
    }

    /// Where the parts of a logical volume of one of these groups are.
    ///
    /// # Errors
    /// It is not linear, or not all of it is on this disk.
    pub fn pieces(&self, group: &Group, volume: &LogicalVolume) -> Result<Vec<Piece>, Unfit> {
        let place = |id: &str| self.place_of(id).map(|found| (found.place, found.size_bytes));
        group.pieces(volume, &place)
    }
}

#[cfg(test)]
mod tests;
