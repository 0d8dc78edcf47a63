//! First 4 KiB of a map file: whose map it is.

/// Size of the header; the states begin after it.
pub(super) const HEADER_BYTES: usize = 4096;

/// Unit of copy-on-write. 4 KiB is the page size and the block size of every usual file system, so
/// most first writes need no fill; a bigger granule would multiply every first write.
pub(super) const GRANULE_BYTES: u64 = 4096;

const MAGIC: &[u8; 8] = b"BLTLCMAP";
const FORMAT: u32 = 1;
/// Bytes that the checksum covers.
const BODY_BYTES: usize = 92;
const CHECKSUM_BYTES: usize = 32;

/// What a map file says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The layer it belongs to: random, so that a map left by a former layer is never taken for ours.
    pub layer: [u8; 16],
    /// Boot id of the host for a volatile map; zeroes for a durable one.
    pub host_boot: [u8; 16],
    /// Size of the disk.
    pub size_bytes: u64,
    /// BLAKE3 of the parent's content.
    pub parent: [u8; 32],
}

/// The bytes are no header of a map file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// Shorter than a header, or another magic.
    #[error("it is not the map of a write layer")]
    NoMap,
    /// Written by a later Bootlace.
    #[error("it has format {0}, this version of Bootlace knows format 1")]
    Format(u32),
    /// Damaged.
    #[error("its header is damaged (checksum differs)")]
    Damaged,
}

impl Header {
    /// The header's bytes.
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.layer);
        bytes.extend_from_slice(&self.host_boot);
        bytes.extend_from_slice(&self.size_bytes.to_le_bytes());
        bytes.extend_from_slice(&(GRANULE_BYTES as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.parent);
        debug_assert_eq!(bytes.len(), BODY_BYTES);
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes
    }

    /// Reads a header; never panics, whatever the bytes.
    ///
    /// # Errors
    /// Why the bytes are none.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadHeader> {
        let body = bytes.get(..BODY_BYTES).ok_or(BadHeader::NoMap)?;
        if &body[..8] != MAGIC {
            return Err(BadHeader::NoMap);
        }
        let format = u32::from_le_bytes(array(body, 8));
        if format != FORMAT {
            return Err(BadHeader::Format(format));
        }
        let checksum = bytes.get(BODY_BYTES..BODY_BYTES + CHECKSUM_BYTES);
        let granule = u32::from_le_bytes(array(body, 52));
        if checksum != Some(blake3::hash(body).as_bytes()) || u64::from(granule) != GRANULE_BYTES {
            return Err(BadHeader::Damaged);
        }
        Ok(Self {
            layer: array(body, 12),
            host_boot: array(body, 28),
            size_bytes: u64::from_le_bytes(array(body, 44)),
            parent: array(body, 60),
        })
    }
}

/// `N` bytes at `offset` of a slice whose length was checked.
fn array<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[offset + index])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header { layer: [1; 16], host_boot: [2; 16], size_bytes: 40 << 30, parent: [3; 32] }
    }

    #[test]
    fn a_header_reads_as_it_was_written_and_any_damage_is_seen() {
        let bytes = header().emit();
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(Header::parse(&bytes), Ok(header()));
        for length in 0..BODY_BYTES + CHECKSUM_BYTES {
            assert!(Header::parse(&bytes[..length]).is_err(), "prefix of {length}");
            let mut damaged = bytes.clone();
            damaged[length] ^= 1;
            assert!(Header::parse(&damaged).is_err(), "damaged at {length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Header::parse(&bytes);
            let _ = Header::parse(&[&MAGIC[..], &bytes].concat());
        }
    }
}
