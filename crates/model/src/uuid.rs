//! SMBIOS UUIDs: which of them tell PCs apart.

/// What boards have whose maker or seller has set nothing, beside what [`is_real_uuid`] finds by its form.
const DEFAULTS: [&str; 3] = [
    // AMI's firmware, on boards of many makers.
    "03000200-0400-0500-0006-000700080009",
    // Dell, with an empty service tag.
    "4c4c4544-0000-2010-8020-80c04f202020",
    "12345678-1234-5678-90ab-cddeefaabbcc",
];

/// A UUID with fewer different bytes was typed by somebody: of all random ones it is one in 10^19.
const DIFFERENT_BYTES_MIN: usize = 5;

/// Whether an SMBIOS UUID, as SMBIOS tools print it, is probably one PC's own: not empty, no pattern, and none of those
/// that makers forget to change. Whether two PCs have it all the same is for who knows both.
pub fn is_real_uuid(text: &str) -> bool {
    let Some(printed) = bytes(text) else { return false };
    // Firmware does not agree on which of its fields are little-endian.
    let swapped = swapped(printed);
    let is_default = |default: &str| {
        let default = bytes(default);
        default == Some(printed) || default == Some(swapped)
    };
    let mut sorted = printed;
    sorted.sort_unstable();
    let n_different = 1 + sorted.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let counts = |bytes: [u8; 16]| bytes.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1));
    n_different >= DIFFERENT_BYTES_MIN
        && !counts(printed)
        && !counts(swapped)
        && !DEFAULTS.into_iter().any(is_default)
}

/// The bytes as they are printed; `None` if it is no UUID.
fn bytes(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut digits = text.chars().filter(|&character| character != '-');
    for byte in &mut bytes {
        let mut digit = || digits.next()?.to_digit(16);
        *byte = u8::try_from(digit()? << 4 | digit()?).ok()?;
    }
    digits.next().is_none().then_some(bytes)
}

/// The same with the other byte order of the first three fields.
fn swapped([a, b, c, d, e, f, g, h, rest @ ..]: [u8; 16]) -> [u8; 16] {
    let mut swapped = [0; 16];
    swapped[..8].copy_from_slice(&[d, c, b, a, f, e, h, g]);
    swapped[8..].copy_from_slice(&rest);
    swapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makers_forgot_to_set_tells_no_pcs_apart() {
        for uuid in [
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "fefefefe-fefe-fefe-fefe-fefefefefefe",
            "00000000-0000-0000-0000-000000000001",
            "11111111-2222-3333-4444-444444444444",
            "deadbeef-dead-beef-dead-beefdeadbeef",
            // Both byte orders.
            "03000200-0400-0500-0006-000700080009",
            "00020003-0004-0005-0006-000700080009",
            "00010203-0405-0607-0809-0a0b0c0d0e0f",
            "03020100-0504-0706-0809-0a0b0c0d0e0f",
            "4c4c4544-0000-2010-8020-80c04f202020",
            "12345678-1234-5678-90ab-cddeefaabbcc",
            "",
            "12345678",
            "not a uuid at all, but as long as one",
        ] {
            assert!(!is_real_uuid(uuid), "{uuid}");
        }
    }

    #[test]
    fn a_uuid_that_was_made_for_a_pc_is_real() {
        for uuid in [
            "b9a7c1de-52f0-11ec-8d3f-0242ac130003",
            "4c4c4544-0051-3410-8051-b5c04f375931",
            "4C4C4544-0051-3410-8051-B5C04F375931",
            // Boards that put their MAC between what others leave as it is.
            "03d40274-0435-05dc-8506-010700080009",
            "00000000-0000-0000-0000-0cc47a123456",
        ] {
            assert!(is_real_uuid(uuid), "{uuid}");
        }
    }
}
