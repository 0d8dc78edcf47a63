//! The answer to IDENTIFY DEVICE.

use crate::SECTOR_BYTES;

/// What a disk says of itself. It must be the same wherever and whenever the disk is served, for
/// its initiator names it by these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Size of the disk in sectors.
    pub sectors: u64,
    /// Serial number: at most 20 ASCII characters.
    pub serial: &'a str,
    /// Model: at most 40 ASCII characters.
    pub model: &'a str,
    /// Version of the firmware: at most 8 ASCII characters.
    pub firmware: &'a str,
    /// Acknowledged writes may be lost with the server's power until they are flushed.
    pub has_write_cache: bool,
}

/// The 512 bytes of IDENTIFY data (ATA8-ACS §7.16).
pub fn identify(identity: &Identity<'_>) -> [u8; SECTOR_BYTES] {
    let mut words = [0u16; 256];
    words[0] = 0x0040;
    text(&mut words[10..20], identity.serial);
    text(&mut words[23..27], identity.firmware);
    text(&mut words[27..47], identity.model);
    words[47] = 0x8000;
    // LBA and DMA, as every disk since 1995 has.
    words[49] = 0x0300;
    words[53] = 0x0006;
    let lba28 = identity.sectors.min(0x0fff_ffff) as u32;
    words[60] = lba28 as u16;
    words[61] = (lba28 >> 16) as u16;
    words[80] = 0x01f0;
    // SMART; FLUSH CACHE EXT, FLUSH CACHE, 48-bit addresses; a world wide name.
    let write_cache = u16::from(identity.has_write_cache) << 5;
    words[82] = 0x0001 | write_cache;
    words[85] = 0x0001 | write_cache;
    words[83] = 0x7400;
    words[86] = 0x3400;
    words[84] = 0x4100;
    words[87] = 0x4100;
    let name = world_wide_name(identity.serial);
    for (index, word) in words[108..112].iter_mut().enumerate() {
        *word = (name >> (48 - 16 * index)) as u16;
    }
    for (index, word) in words[100..104].iter_mut().enumerate() {
        *word = (identity.sectors >> (16 * index)) as u16;
    }
    // Physical sectors of 4 KiB: eight logical ones.
    words[106] = 0x6003;
    words[217] = 1;
    let mut bytes = [0u8; SECTOR_BYTES];
    for (pair, word) in bytes.chunks_exact_mut(2).zip(words) {
        pair.copy_from_slice(&word.to_le_bytes());
    }
    bytes[510] = 0xa5;
    sum_up(bytes)
}

/// The sector of SMART READ DATA (ATA8-ACS §7.53.6): no attributes, for a disk made of files has
/// neither heads nor temperature.
pub fn smart_data() -> [u8; SECTOR_BYTES] {
    let mut bytes = [0u8; SECTOR_BYTES];
    // Version of the structure.
    bytes[0] = 0x10;
    sum_up(bytes)
}

/// The last byte makes all add up to 0.
fn sum_up(mut bytes: [u8; SECTOR_BYTES]) -> [u8; SECTOR_BYTES] {
    let sum = bytes[..511].iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
    bytes[511] = 0u8.wrapping_sub(sum);
    bytes
}

/// A locally assigned name (NAA 3), the same wherever the disk is served: FNV-1a of its serial.
fn world_wide_name(serial: &str) -> u64 {
    let hash = serial.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    3 << 60 | hash >> 4
}

/// ATA strings have the first character of a pair in the upper byte, and are padded with spaces.
fn text(words: &mut [u16], text: &str) {
    let mut characters = text.bytes().map(|b| if b.is_ascii_graphic() { b } else { b' ' });
    for word in words {
        let first = characters.next().unwrap_or(b' ');
        let second = characters.next().unwrap_or(b' ');
        *word = u16::from(first) << 8 | u16::from(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_disk_tells_its_size_both_ways() {
        let identity = Identity {
            sectors: 1 << 33,
            serial: "BL0123",
            model: "Bootlace",
            firmware: "1",
            has_write_cache: false,
        };
        let bytes = identify(&identity);
        assert_eq!(&bytes[200..208], &(1u64 << 33).to_le_bytes());
        assert_eq!(&bytes[120..124], &0x0fff_ffffu32.to_le_bytes());
        assert_eq!(&bytes[20..26], b"LB1032");
        assert_eq!(&bytes[54..62], b"oBtoalec");
        assert_eq!(bytes[217] >> 4, 3, "a locally assigned world wide name");
        for sector in [bytes, smart_data()] {
            assert_eq!(sector.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte)), 0);
        }
        let with_cache = identify(&Identity { has_write_cache: true, ..identity });
        // Supported, and enabled: bit 5 of words 82 and 85.
        for word in [82, 85] {
            assert_eq!((bytes[word * 2] & 0x20, with_cache[word * 2] & 0x20), (0, 0x20));
        }
    }
}
