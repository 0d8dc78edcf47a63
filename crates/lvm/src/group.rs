//! A volume group: its physical and logical volumes, and where their extents are.

use crate::Malformed;
use crate::label::is_id;
use crate::text::{Node, Section};
use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

const SECTOR_BYTES: u64 = 512;
/// Longest name, as in LVM.
const NAME_BYTES_MAX: usize = 127;

/// A volume group, as one of its copies of the metadata has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its identity: 32 letters and digits.
    pub id: String,
    pub(crate) seqno: u64,
    extent_bytes: u64,
    /// By the names that the metadata use.
    physical: BTreeMap<String, Physical>,
    /// Those that people see, by name.
    pub volumes: Vec<LogicalVolume>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Physical {
    id: String,
    start_bytes: u64,
    n_extents: u64,
    /// Where it was last, for people.
    device: Option<String>,
}

/// A logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalVolume {
    /// Its name.
    pub name: String,
    /// Its identity: 32 letters and digits.
    pub id: String,
    /// Whether it takes writes.
    pub is_writable: bool,
    /// What it consists of, or why it is of no use.
    extents: Result<Vec<Extents>, Unfit>,
}

/// Extents of a logical volume that lie together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Extents {
    n_extents: u64,
    physical: String,
    first: u64,
}

/// A part of a logical volume that lies together; the parts follow each other without gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// In which place, as whoever scanned named it.
    pub place: usize,
    /// Where it begins there, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub size_bytes: u64,
}

/// Why a logical volume can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Of a kind that is not linear.
    #[error("{0}")]
    Kind(Kind),
    /// A part of it lies on a disk that is not here.
    #[error("a part of it is on another disk{}", was_at(.0.as_deref()))]
    Missing(Option<String>),
    /// It does not make sense.
    #[error("{0}")]
    Malformed(&'static str),
}

fn was_at(device: Option<&str>) -> String {
    device.map_or_else(String::new, |device| format!(", which was {device} once"))
}

/// What a logical volume is that is not linear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Over several physical volumes in turn.
    Striped,
    /// Mirrored or RAID, by its name in LVM.
    Raid(String),
    /// Thin, or the pool of thin ones.
    Thin,
    /// With a cache.
    Cached,
    /// A snapshot, or what has snapshots.
    Snapshot,
    /// Being moved to another physical volume.
    Moving,
    /// Something else, by its name in LVM.
    Other(String),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Striped => f.write_str("it is striped"),
            Self::Raid(kind) => write!(f, "it is mirrored or a RAID ({kind})"),
            Self::Thin => f.write_str("it is thin, or a pool of thin ones"),
            Self::Cached => f.write_str("it has a cache"),
            Self::Snapshot => f.write_str("it is a snapshot, or has snapshots"),
            Self::Moving => f.write_str("it is being moved to another physical volume (pvmove)"),
            Self::Other(kind) => write!(f, "it is of the kind {kind}"),
        }
    }
}

impl Kind {
    /// What makes a linear one of it, in words for whoever has the system running; with the name of it.
    pub fn help(&self, group: &str, volume: &str) -> String {
        let name = format!("{group}/{volume}");
        match self {
            Self::Raid(_) => format!("`lvconvert -m0 {name}` makes it linear"),
            Self::Cached => format!("`lvconvert --uncache {name}` makes it linear"),
            Self::Snapshot => format!(
                "remove its snapshots with `lvremove`, or merge them: `lvs {group}` shows them"
            ),
            Self::Moving => "let `pvmove` end, or end it with `pvmove --abort`".to_owned(),
            Self::Striped | Self::Thin | Self::Other(_) => format!(
                "copy it to a linear one or a plain partition: `lvcreate -L SIZE -n NAME {group}`, then `dd`, and its name in \
                 /etc/fstab"
            ),
        }
    }
}

impl Group {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let text = Section::parse(text)?;
        let mut groups = text.sections();
        let (name, group) = groups.next().ok_or(Malformed("its metadata name no group"))?;
        if !is_name(name) {
            return Err(Malformed("its group has a name that none can have"));
        }
        let odd = |what| Malformed(what);
        let id = group.text("id").and_then(identity).ok_or(odd("its group has no identity"))?;
        let seqno = group.number("seqno").ok_or(odd("its metadata have no number"))?;
        let extent = group.number("extent_size").and_then(|it| it.checked_mul(SECTOR_BYTES));
        let extent_bytes = extent.filter(|&it| it > 0).ok_or(odd("its extents have no size"))?;
        let mut physical = BTreeMap::new();
        for (name, it) in group.section("physical_volumes").into_iter().flat_map(Section::sections)
        {
            let parsed =
                parse_physical(it).ok_or(odd("a physical volume of its group makes no sense"))?;
            physical.insert(name.to_owned(), parsed);
        }
        let logical = group.section("logical_volumes").into_iter().flat_map(Section::sections);
        let logical: Vec<(&str, &Section)> = logical.collect();
        let in_snapshots = in_snapshots(&logical);
        let mut volumes = Vec::new();
        for (name, it) in logical {
            if !it.has("status", "VISIBLE") {
                continue;
            }
            let id = it.text("id").and_then(identity).filter(|_| is_name(name));
            let id = id.ok_or(odd("a logical volume of its group has no name or identity"))?;
            let extents = match in_snapshots.contains(&name) {
                true => Err(Unfit::Kind(Kind::Snapshot)),
                false => parse_segments(it),
            };
            let is_writable = it.has("status", "WRITE");
            volumes.push(LogicalVolume { name: name.to_owned(), id, is_writable, extents });
        }
        let mut group = Self { name: name.to_owned(), id, seqno, extent_bytes, physical, volumes };
        group.refuse_overlaps();
        Ok(group)
    }

    /// Two logical volumes that share extents would destroy each other.
    fn refuse_overlaps(&mut self) {
        let mut used: Vec<(&str, u64, u64, usize)> = Vec::new();
        for (index, volume) in self.volumes.iter().enumerate() {
            for it in volume.extents.iter().flatten() {
                used.push((&it.physical, it.first, it.first.saturating_add(it.n_extents), index));
            }
        }
        used.sort_unstable();
        let mut doubled = Vec::new();
        let mut furthest: Option<(&str, u64, usize)> = None;
        for &(physical, first, end, index) in &used {
            if let Some((before, before_end, other)) = furthest
                && before == physical
                && first < before_end
            {
                doubled.extend([index, other]);
            }
            furthest = match furthest {
                Some((before, before_end, other)) if before == physical && before_end > end => {
                    Some((before, before_end, other))
                }
                _ => Some((physical, end, index)),
            };
        }
        for index in doubled {
            if let Some(volume) = self.volumes.get_mut(index) {
                volume.extents =
                    Err(Unfit::Malformed("its extents are those of another logical volume, too"));
            }
        }
    }

    /// The identities of its physical volumes.
    pub(crate) fn physical_volumes(&self) -> impl Iterator<Item = &str> {
        self.physical.values().map(|physical| physical.id.as_str())
    }

    /// Where a logical volume is; `place` knows physical volumes by identity, and how long they are.
    pub(crate) fn pieces(
        &self,
        volume: &LogicalVolume,
        place: &dyn Fn(&str) -> Option<(usize, u64)>,
    ) -> Result<Vec<Piece>, Unfit> {
        let mut pieces: Vec<Piece> = Vec::new();
        for it in volume.extents.as_ref().map_err(Clone::clone)? {
            let outside = Unfit::Malformed("its extents lie outside of their physical volume");
            let Some(physical) = self.physical.get(&it.physical) else {
                // One that is moved lies on another logical volume for that time.
                return Err(match it.physical.starts_with("pvmove") {
                    true => Unfit::Kind(Kind::Moving),
                    false => Unfit::Malformed("it lies on something that is no physical volume"),
                });
            };
            let missing = || Unfit::Missing(physical.device.clone());
            let (place, place_bytes) = place(&physical.id).ok_or_else(missing)?;
            let end = it.first.checked_add(it.n_extents);
            if end.is_none_or(|end| end > physical.n_extents) {
                return Err(outside);
            }
            let size_bytes = it.n_extents.checked_mul(self.extent_bytes);
            let offset = it.first.checked_mul(self.extent_bytes);
            let offset = offset.and_then(|offset| offset.checked_add(physical.start_bytes));
            let (Some(size_bytes), Some(offset)) = (size_bytes, offset) else {
                return Err(outside);
            };
            if offset.checked_add(size_bytes).is_none_or(|end| end > place_bytes) {
                return Err(outside);
            }
            match pieces.last_mut() {
                Some(last) if last.place == place && last.offset + last.size_bytes == offset => {
                    last.size_bytes += size_bytes;
                }
                _ => pieces.push(Piece { place, offset, size_bytes }),
            }
        }
        Ok(pieces)
    }
}

fn parse_physical(it: &Section) -> Option<Physical> {
    let device = it.text("device").filter(|text| text.len() <= NAME_BYTES_MAX);
    let is_plain = |text: &&str| !text.chars().any(char::is_control);
    Some(Physical {
        id: it.text("id").and_then(identity)?,
        start_bytes: it.number("pe_start")?.checked_mul(SECTOR_BYTES)?,
        n_extents: it.number("pe_count")?,
        device: device.filter(is_plain).map(ToOwned::to_owned),
    })
}

/// The names of those that are snapshots of others, or have such.
fn in_snapshots<'a>(logical: &[(&str, &'a Section)]) -> Vec<&'a str> {
    let segments = logical.iter().flat_map(|(_, volume)| volume.sections());
    let names = segments.filter(|(_, segment)| segment.text("type") == Some("snapshot"));
    names
        .flat_map(|(_, it)| [it.text("origin"), it.text("cow_store"), it.text("merging_store")])
        .flatten()
        .collect()
}

/// The extents of a linear volume, in order.
fn parse_segments(volume: &Section) -> Result<Vec<Extents>, Unfit> {
    let odd = Unfit::Malformed("its segments make no sense");
    let mut segments = Vec::new();
    for (name, it) in volume.sections() {
        if !name.starts_with("segment") {
            continue;
        }
        let start = it.number("start_extent").ok_or_else(|| odd.clone())?;
        let n_extents =
            it.number("extent_count").filter(|&it| it > 0).ok_or_else(|| odd.clone())?;
        if let Some(kind) = kind_of(it) {
            return Err(Unfit::Kind(kind));
        }
        let [Node::Text(physical), Node::Number(first)] = it.list("stripes") else {
            return Err(odd);
        };
        let first = u64::try_from(*first).map_err(|_| odd.clone())?;
        segments.push((start, Extents { n_extents, physical: physical.clone(), first }));
    }
    segments.sort_by_key(|(start, _)| *start);
    let mut end = 0u64;
    for (start, it) in &segments {
        if *start != end {
            return Err(Unfit::Malformed("its segments overlap, or leave a gap"));
        }
        end = end.checked_add(it.n_extents).ok_or_else(|| odd.clone())?;
    }
    match segments.is_empty() {
        true => Err(odd),
        false => Ok(segments.into_iter().map(|(_, it)| it).collect()),
    }
}

/// What a segment is if it is not linear.
fn kind_of(segment: &Section) -> Option<Kind> {
    // Flags may stand behind a plus sign.
    let kind = segment.text("type").unwrap_or_default();
    let kind = kind.split('+').next().unwrap_or_default();
    let n_stripes = segment.number("stripe_count");
    Some(match kind {
        "striped" | "linear" if n_stripes == Some(1) => return None,
        "striped" | "linear" => Kind::Striped,
        "thin" | "thin-pool" => Kind::Thin,
        "cache" | "cache-pool" | "writecache" => Kind::Cached,
        "snapshot" => Kind::Snapshot,
        _ if kind.starts_with("raid") || kind.starts_with("mirror") => Kind::Raid(plain(kind)),
        _ => Kind::Other(plain(kind)),
    })
}

fn plain(kind: &str) -> String {
    let chars = kind.chars().filter(|char| char.is_ascii_alphanumeric() || "-_".contains(*char));
    chars.take(32).collect()
}

/// An identity without its lines.
fn identity(text: &str) -> Option<String> {
    let id: String = text.chars().filter(|&char| char != '-').collect();
    is_id(&id).then_some(id)
}

/// Whether a group or a logical volume can have this name.
pub fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"+_.-".contains(&byte);
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(is_part)
        && !name.starts_with('-')
        && name != "."
        && name != ".."
}

/// The name of a logical volume's device below `/dev/mapper`.
pub fn mapped_name(group: &str, volume: &str) -> String {
    format!("{}-{}", group.replace('-', "--"), volume.replace('-', "--"))
}
