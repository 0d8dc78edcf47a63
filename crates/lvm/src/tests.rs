use crate::example::{
    DATA_OFFSET, EXTENT_BYTES, METADATA_BYTES, METADATA_OFFSET, group, linear, start,
};
use crate::{Piece, Scan, ScanError, mapped_name};
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use proptest::prelude::*;

/// Scans places with these starts, which are as long as ten extents.
fn scan(places: &[&[u8]]) -> (Scan, Vec<String>) {
    let mut scan = Scan::default();
    let mut said = Vec::new();
    for (place, bytes) in places.iter().enumerate() {
        let size_bytes = (DATA_OFFSET + 10 * EXTENT_BYTES) as u64;
        let added = scan.add(place, size_bytes, |at, buffer| {
            let at = usize::try_from(at).unwrap();
            assert!(at + buffer.len() <= size_bytes as usize, "outside");
            let from = bytes.get(at..at + buffer.len()).ok_or(())?;
            buffer.copy_from_slice(from);
            Ok(())
        });
        said.push(match added {
            Ok(is_one) => is_one.to_string(),
            Err(ScanError::Malformed(malformed)) => malformed.to_string(),
            Err(ScanError::Read(())) => "cut off".into(),
        });
    }
    (scan, said)
}

/// What is said of the first logical volume.
fn told(scan: &Scan) -> Result<Vec<(usize, usize, usize)>, String> {
    let group = scan.groups().next().ok_or("no group")?;
    let volume = group.volumes.first().ok_or("no volume")?;
    let in_extents = |piece: Piece| {
        let first = (piece.offset as usize - DATA_OFFSET) / EXTENT_BYTES;
        (piece.place, first, piece.size_bytes as usize / EXTENT_BYTES)
    };
    let pieces = scan.pieces(group, volume).map_err(|unfit| unfit.to_string())?;
    Ok(pieces.into_iter().map(in_extents).collect())
}

fn told_of(text: &str) -> Result<Vec<(usize, usize, usize)>, String> {
    let (scan, said) = scan(&[&start(0, text, 512)]);
    assert_eq!(said, ["true"], "{text}");
    told(&scan)
}

#[test]
fn a_linear_volume_of_several_segments_and_physical_volumes() {
    let root = linear(&[(0, 5, "pv0", 0), (5, 1, "pv0", 5), (6, 3, "pv1", 2), (9, 2, "pv0", 8)]);
    let text = group(3, &[10, 10], &[("root-a", root), ("swap", linear(&[(0, 1, "pv1", 0)]))]);
    // The text of one goes round the end of its ring.
    let (first, second) = (start(0, &text, 512), start(1, &text, METADATA_BYTES - 20));
    let (found, said) = scan(&[&[0; 4096], &second, &first]);
    assert_eq!(said, ["false", "true", "true"]);
    assert_eq!(told(&found).unwrap(), [(2, 0, 6), (1, 2, 3), (2, 8, 2)]);
    let group = found.groups().next().unwrap();
    assert!(found.is_complete(group));
    assert_eq!(mapped_name(&group.name, &group.volumes[0].name), "vg--0-root--a");

    let (found, _) = scan(&[&first]);
    let missing = "a part of it is on another disk, which was /dev/sd\"1 once";
    assert_eq!(told(&found).unwrap_err(), missing);
    assert!(!found.is_complete(found.groups().next().unwrap()));
}

#[test]
fn the_newest_copy_counts_and_one_that_is_sound_is_enough() {
    let text = |seqno, n| group(seqno, &[10, 10], &[("root", linear(&[(0, n, "pv0", 0)]))]);
    let (old, new) = (start(0, &text(3, 1), 512), start(1, &text(4, 2), 512));
    for places in [[&old[..], &new], [&new, &old]] {
        assert_eq!(told(&scan(&places).0).unwrap()[0].2, 2);
    }
    let mut damaged = new;
    damaged[METADATA_OFFSET + 600] ^= 1;
    let (found, said) = scan(&[&old, &damaged]);
    assert_eq!(said, ["true", "the checksum of its metadata is wrong"]);
    assert_eq!(told(&found).unwrap(), [(0, 0, 1)]);
}

#[test]
fn what_is_not_linear_is_refused_by_name() {
    let of = |kind: &str, more: &str| {
        let segment = format!(
            "status = [\"VISIBLE\"]\nsegment1 {{\nstart_extent = 0\nextent_count = 1\ntype = \"{kind}\"\n{more}}}\n"
        );
        told_of(&group(1, &[10], &[("root", segment)])).unwrap_err()
    };
    assert_eq!(of("striped", "stripe_count = 2\n"), "it is striped");
    assert_eq!(of("raid5_ls", ""), "it is mirrored or a RAID (raid5_ls)");
    assert_eq!(of("thin", ""), "it is thin, or a pool of thin ones");
    assert_eq!(of("cache+CACHE_USES_CACHEVOL", ""), "it has a cache");
    assert_eq!(of("vdo\n\u{1b}", ""), "it is of the kind vdo");
    let moved = group(1, &[10], &[("root", linear(&[(0, 1, "pvmove0", 0)]))]);
    assert!(told_of(&moved).unwrap_err().contains("is being moved"));
    let snapshot = "status = [\"READ\"]\nsegment1 {\nstart_extent = 0\nextent_count = 1\ntype = \"snapshot\"\norigin = \
                    \"root\"\ncow_store = \"saved\"\n}\n";
    let volumes = [("root", linear(&[(0, 1, "pv0", 0)])), ("snapshot0", snapshot.into())];
    assert_eq!(
        told_of(&group(1, &[10], &volumes)).unwrap_err(),
        "it is a snapshot, or has snapshots"
    );
}

#[test]
fn extents_that_lie_badly_are_refused() {
    let of = |segments: &[(u64, u64, &str, u64)]| {
        told_of(&group(1, &[10], &[("root", linear(segments))])).unwrap_err()
    };
    let gap = "its segments overlap, or leave a gap";
    assert_eq!(of(&[(0, 2, "pv0", 0), (1, 2, "pv0", 4)]), gap);
    assert_eq!(of(&[(1, 2, "pv0", 0)]), gap);
    assert_eq!(of(&[]), "its segments make no sense");
    assert_eq!(of(&[(0, 0, "pv0", 0)]), "its segments make no sense");
    let outside = "its extents lie outside of their physical volume";
    assert_eq!(of(&[(0, 3, "pv0", 8)]), outside);
    assert_eq!(of(&[(0, 1 << 62, "pv0", 0)]), outside);
    assert_eq!(of(&[(0, 1, "pv0", i64::MAX as u64)]), outside);
    assert_eq!(of(&[(0, 1, "pv9", 0)]), "it lies on something that is no physical volume");
    // The group says that there are more than the place has.
    let text = group(1, &[1000], &[("root", linear(&[(0, 11, "pv0", 0)]))]);
    assert_eq!(told_of(&text).unwrap_err(), outside);
    let shared = "its extents are those of another logical volume, too";
    assert_eq!(of(&[(0, 2, "pv0", 0), (2, 1, "pv0", 1)]), shared);
    let two = [("a", linear(&[(0, 4, "pv0", 0)])), ("b", linear(&[(0, 1, "pv0", 3)]))];
    assert_eq!(told_of(&group(1, &[10], &two)).unwrap_err(), shared);
}

#[test]
fn damage_is_named() {
    let text = group(1, &[10], &[("root", linear(&[(0, 1, "pv0", 0)]))]);
    let good = start(0, &text, 512);
    let said_of = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] ^= byte;
        scan(&[&bytes]).1.remove(0)
    };
    assert_eq!(said_of(512, 1), "false");
    assert_eq!(said_of(520, 1), "its label is not where it says");
    assert_eq!(said_of(600, 1), "the checksum of its label is wrong");
    assert_eq!(said_of(METADATA_OFFSET + 4, 1), "the header of its metadata is missing");
    assert_eq!(
        said_of(METADATA_OFFSET + 40, 1),
        "the checksum of the header of its metadata is wrong"
    );
    assert_eq!(said_of(METADATA_OFFSET + 512, 1), "the checksum of its metadata is wrong");
    for (text, expected) in [
        ("", "its metadata name no group"),
        ("vg", "its metadata are cut off"),
        ("vg {", "its metadata are cut off"),
        ("a/b { }", "its group has a name that none can have"),
        ("vg { } }", "its metadata go on behind their end"),
        ("vg { id = }", "its metadata make no sense"),
        (&"a{".repeat(100_000), "its metadata make no sense"),
        (&format!("a={}", "[".repeat(100_000)), "its metadata make no sense"),
    ] {
        assert_eq!(scan(&[&start(0, text, 512)]).1, [expected], "{text:.20}");
    }
}

#[test]
fn no_prefix_panics() {
    let text = group(1, &[10, 10], &[("root", linear(&[(0, 2, "pv0", 0), (2, 1, "pv1", 0)]))]);
    let bytes = start(0, &text, 512);
    for length in (0..METADATA_OFFSET + 512 + text.len()).chain([bytes.len()]) {
        let _ = told(&scan(&[&bytes[..length]]).0);
    }
    for length in 0..text.len() {
        let _ = told(&scan(&[&start(0, &text[..length], 512)]).0);
    }
}

proptest! {
    #[test]
    fn no_change_panics(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let text = group(1, &[10, 10], &[("root", linear(&[(0, 2, "pv0", 0)]))]);
        let mut bytes = text.into_bytes();
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let _ = told(&scan(&[&start(0, &text, 512)]).0);
        // And of the fields in front.
        let mut bytes = start(0, "vg { }", 512);
        for (at, byte) in changes {
            let fields: Vec<usize> = (512..700).chain(METADATA_OFFSET..METADATA_OFFSET + 70).collect();
            bytes[fields[at.index(fields.len())]] = byte;
        }
        let _ = scan(&[&bytes]);
    }

    #[test]
    fn no_text_panics(text in "[a-z0-9 ={}\\[\\],\"#\n.-]{0,200}") {
        let _ = scan(&[&start(0, &text, 512)]);
    }
}

#[test]
fn a_place_that_is_short_is_none() {
    assert_eq!(scan(&[&[0; 100]]).1, ["cut off"]);
    let mut scan = Scan::default();
    let read = |_, _: &mut [u8]| -> Result<(), ()> { panic!("there is nothing") };
    assert!(!scan.add(0, 100, read).unwrap());
}
