//! Data that says where it belongs and when it was written.

use aoe::SECTOR_BYTES;

/// Fills whole sectors, the first of which is `lba`. Each has its number and the generation in front,
/// and then words that only these two give, which is as good as a checksum.
pub(super) fn fill(data: &mut [u8], lba: u64, generation: u32) {
    for (sector, lba) in data.chunks_mut(SECTOR_BYTES).zip(lba..) {
        for (word, bytes) in (0u64..).zip(sector.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&expected(lba, generation, word).to_le_bytes());
        }
    }
}

/// Compares; an error says what is there instead.
pub(super) fn check(data: &[u8], lba: u64, generation: u32) -> Result<(), String> {
    for (sector, lba) in data.chunks(SECTOR_BYTES).zip(lba..) {
        let words = (0u64..).zip(sector.as_chunks::<8>().0);
        let word_at = |index: usize| {
            sector.as_chunks::<8>().0.get(index).map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        for (word, bytes) in words {
            if u64::from_le_bytes(*bytes) != expected(lba, generation, word) {
                let (found, of) = (word_at(0), word_at(1));
                return Err(format!(
                    "sector {lba} of generation {generation} differs at word {word}: it says that \
                     it is sector {found} of generation {of}"
                ));
            }
        }
    }
    Ok(())
}

fn expected(lba: u64, generation: u32, word: u64) -> u64 {
    match word {
        0 => lba,
        1 => u64::from(generation),
        _ => (lba.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(generation))
            .wrapping_mul(0xd134_2543_de82_ef95)
            .wrapping_add(word.wrapping_mul(0x2545_f491_4f6c_dd1d)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_place_another_time_and_a_wrong_bit_are_seen() {
        let mut data = [0; 1024];
        fill(&mut data, 100, 7);
        assert_eq!(check(&data, 100, 7), Ok(()));
        assert!(check(&data, 102, 7).unwrap_err().contains("it is sector 100 of generation 7"));
        assert!(check(&data, 100, 6).is_err());
        data[1000] ^= 1;
        assert!(check(&data, 100, 7).is_err());
    }
}
