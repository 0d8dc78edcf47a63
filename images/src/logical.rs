//! Logical volumes on a disk: those that are linear, each as a block of its own.

use crate::block::{Block, check_range};
use crate::partitions::read_if_there;
use lvm::{Piece, Scan, ScanError, Unfit};
use model::LogicalVolumeName;
use std::fmt;
use std::io;
use std::sync::Arc;

/// A linear logical volume, and where it is on its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logical {
    name: LogicalVolumeName,
    pieces: Arc<[Extents]>,
}

/// A part of a logical volume that lies together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extents {
    /// In the logical volume.
    start: u64,
    /// On the disk.
    offset: u64,
    size_bytes: u64,
}

impl Logical {
    /// What people call it.
    pub fn name(&self) -> &LogicalVolumeName {
        &self.name
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.pieces.last().map_or(0, |last| last.start.saturating_add(last.size_bytes))
    }

    /// Its bytes in a row.
    pub(crate) fn view(&self, disk: Arc<dyn Block>) -> Arc<dyn Block> {
        Arc::new(View { disk, size_bytes: self.size_bytes(), pieces: Arc::clone(&self.pieces) })
    }
}

struct View {
    disk: Arc<dyn Block>,
    size_bytes: u64,
    pieces: Arc<[Extents]>,
}

impl Block for View {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(offset, buffer.len() as u64, self.size_bytes)?;
        let first = self.pieces.partition_point(|it| it.start + it.size_bytes <= offset);
        let (mut left, mut offset) = (buffer, offset);
        for piece in self.pieces.iter().skip(first) {
            if left.is_empty() {
                break;
            }
            let within = offset - piece.start;
            let length = (piece.size_bytes - within).min(left.len() as u64) as usize;
            let (now, later) = left.split_at_mut(length);
            self.disk.read_at(now, piece.offset + within)?;
            (left, offset) = (later, offset + length as u64);
        }
        Ok(())
    }
}

/// A logical volume or a whole physical volume that can't be used.
#[derive(Debug)]
pub(crate) struct Useless {
    /// As people call it: `the logical volume vg/root`.
    pub(crate) what: String,
    pub(crate) why: String,
    /// What makes something of it; may be empty.
    pub(crate) help: String,
}

impl fmt::Display for Useless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// A physical volume on a disk.
pub(crate) struct Physical {
    /// The partition in which it is; `None` is the whole disk.
    pub(crate) partition: Option<u8>,
    pub(crate) offset: u64,
    pub(crate) size_bytes: u64,
}

/// Finds the logical volumes that lie on these physical volumes of a disk, and those that can't be used.
///
/// # Errors
/// The disk can't be read.
pub(crate) fn logical_volumes(
    disk: &Arc<dyn Block>,
    physical: &[Physical],
) -> io::Result<(Vec<Logical>, Vec<Useless>)> {
    let mut useless = Vec::new();
    let mut scan = Scan::default();
    for (place, volume) in physical.iter().enumerate() {
        let read = |at: u64, buffer: &mut [u8]| {
            let offset = volume.offset.saturating_add(at);
            match read_if_there(disk.as_ref(), offset, buffer)? {
                true => Ok(()),
                false => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            }
        };
        match scan.add(place, volume.size_bytes, read) {
            Ok(_) => {}
            Err(ScanError::Read(error)) => return Err(error),
            Err(ScanError::Malformed(why)) => useless.push(Useless {
                what: match volume.partition {
                    Some(number) => format!("the physical volume in partition {number}"),
                    None => "the physical volume on the whole disk".to_owned(),
                },
                why: why.to_string(),
                help: "its system repairs it with `pvck` or `vgcfgrestore`".to_owned(),
            }),
        }
    }
    let mut found = Vec::new();
    for group in scan.groups() {
        for volume in &group.volumes {
            let name = LogicalVolumeName { group: group.name.clone(), name: volume.name.clone() };
            match scan.pieces(group, volume) {
                Ok(pieces) => found.push(Logical { name, pieces: in_row(&pieces, physical) }),
                Err(unfit) => useless.push(Useless {
                    help: match &unfit {
                        Unfit::Kind(kind) => kind.help(&group.name, &volume.name),
                        Unfit::Missing(_) => format!(
                            "machines get one disk: move all of the group to one with `pvmove`, and take the others out \
                             with `vgreduce {}`",
                            group.name
                        ),
                        Unfit::Malformed(_) => "its system repairs it with `vgcfgrestore`".to_owned(),
                    },
                    what: format!("the logical volume {name}"),
                    why: unfit.to_string(),
                }),
            }
        }
    }
    Ok((found, useless))
}

/// What a logical volume consists of, on the disk.
fn in_row(pieces: &[Piece], physical: &[Physical]) -> Arc<[Extents]> {
    let mut start = 0;
    let in_row = pieces.iter().filter_map(|piece| {
        let volume = physical.get(piece.place)?;
        let offset = volume.offset + piece.offset;
        let extents = Extents { start, offset, size_bytes: piece.size_bytes };
        start += piece.size_bytes;
        Some(extents)
    });
    in_row.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    #[test]
    fn a_view_joins_what_lies_apart() {
        let bytes: Vec<u8> = (0..=255).collect();
        let disk: Arc<dyn Block> = Arc::new(Memory::new(bytes));
        let pieces = [(0, 100, 10), (10, 50, 5), (15, 200, 20)];
        let pieces = pieces
            .map(|(start, offset, size_bytes)| Extents { start, offset, size_bytes })
            .into_iter()
            .collect();
        let name = "vg/root".parse().unwrap();
        let view = Logical { name, pieces }.view(disk);
        let expected: Vec<u8> = (100..110).chain(50..55).chain(200..220).collect();
        for from in 0..expected.len() {
            for to in from..=expected.len() {
                let mut read = vec![0; to - from];
                view.read_at(&mut read, from as u64).unwrap();
                assert_eq!(read, expected[from..to]);
            }
        }
        assert!(view.read_at(&mut [0; 2], 34).is_err());
    }
}
