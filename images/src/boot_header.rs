//! What a kernel says about itself (Linux, `Documentation/arch/x86/boot.rst` and `Documentation/arch/arm64/booting.rst`): version,
//! architecture, and how long it is. As a program of the firmware (PE) it says so a second time.

use model::Architecture;
use std::fmt;

/// `protocol version` from which on `syssize` has 32 bits.
const LONG_SIZE: u16 = 0x204;
/// From here on the header says whether there is a 64-bit kernel inside.
const KNOWS_64BIT: u16 = 0x20c;
/// A kernel without the number has so many sectors of setup code.
const SETUP_SECTORS: u64 = 4;
/// The header of a kernel for arm64.
const ARM64_HEADER_BYTES: u64 = 64;
/// How Linux begins to tell its version, in what is not compressed.
const BANNER: &[u8] = b"Linux version ";

/// What a kernel says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootHeader {
    /// Bytes that the file must have at least.
    pub size_bytes: u64,
    /// What it is for.
    pub architecture: Architecture,
}

/// A file that PCs can't start as a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotBootable {
    /// It has no bytes.
    Empty,
    /// It is a kernel for other processors.
    Foreign(&'static str),
    /// It is a 32-bit kernel: init and Bootlace's drivers are programs of 64 bits.
    Only32Bit,
    /// It is cut off before the end of its header, or no kernel at all.
    NoKernel,
}

impl fmt::Display for NotBootable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::Foreign(processor) => {
                write!(f, "it is a kernel for {processor}, not for x86-64 or arm64")
            }
            Self::Only32Bit => f.write_str("it is a 32-bit kernel, and a 64-bit one is needed"),
            Self::NoKernel => f.write_str("it is no kernel for x86-64 or arm64, or cut off"),
        }
    }
}

impl BootHeader {
    /// Reads the header of a kernel; the rest of the file may be missing. Never panics.
    ///
    /// # Errors
    /// It is no kernel that 64-bit PCs can start.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotBootable> {
        if bytes.is_empty() {
            return Err(NotBootable::Empty);
        }
        if is_arm64(bytes) {
            // Its own field for the size counts what is not in the file.
            let size_bytes = firmware_program_bytes(bytes).unwrap_or(ARM64_HEADER_BYTES);
            return Ok(Self { size_bytes, architecture: Architecture::Arm64 });
        }
        if bytes.get(0x202..0x206) != Some(b"HdrS") {
            return Err(match bytes.get(0x38..0x3c) {
                Some(b"RSC\x05") => NotBootable::Foreign("RISC-V"),
                _ if bytes.get(4..8) == Some(b"zimg") => {
                    NotBootable::Foreign("other processors (EFI zboot)")
                }
                _ => NotBootable::NoKernel,
            });
        }
        let protocol = u16_at(bytes, 0x206).ok_or(NotBootable::NoKernel)?;
        let flags = u16_at(bytes, 0x236).ok_or(NotBootable::NoKernel)?;
        if protocol >= KNOWS_64BIT && flags & 1 == 0 {
            return Err(NotBootable::Only32Bit);
        }
        let setup_sectors = match bytes.get(0x1f1) {
            None | Some(0) => SETUP_SECTORS,
            Some(&sectors) => u64::from(sectors),
        };
        let system_bytes = match protocol {
            ..LONG_SIZE => 0,
            _ => u64::from(u32_at(bytes, 0x1f4).ok_or(NotBootable::NoKernel)?) * 16,
        };
        let size_bytes = (setup_sectors + 1) * 512 + system_bytes;
        let size_bytes = size_bytes.max(firmware_program_bytes(bytes).unwrap_or(0));
        Ok(Self { size_bytes, architecture: Architecture::X86_64 })
    }
}

/// Whether a kernel begins so that is for 64-bit ARM and not compressed.
fn is_arm64(bytes: &[u8]) -> bool {
    bytes.get(0x38..0x3c) == Some(b"ARM\x64")
}

/// A kernel that unpacks itself as a program of the firmware (Linux `drivers/firmware/efi/libstub/zboot-header.S`): the name of what
/// packed it, and the packed kernel. `None`: it is no such kernel, or cut off. Never panics.
pub(crate) fn zboot(bytes: &[u8]) -> Option<(&str, &[u8])> {
    if bytes.get(..2)? != b"MZ" || bytes.get(4..8)? != b"zimg" {
        return None;
    }
    let (start, length) = (u32_at(bytes, 8)? as usize, u32_at(bytes, 12)? as usize);
    let name = bytes.get(24..56)?.split(|&byte| byte == 0).next()?;
    Some((str::from_utf8(name).ok()?, bytes.get(start..start.checked_add(length)?)?))
}

/// Whether these bytes are a program of the firmware with a signature (Authenticode). By whom, is not looked at. The rest of the
/// file may be missing. Never panics.
pub fn is_signed(bytes: &[u8]) -> bool {
    optional_header(bytes)
        .and_then(|optional| signature(bytes, optional))
        .is_some_and(|(_, length)| length > 0)
}

/// Where the optional header of a program of the firmware is (PE/COFF, 3.4).
fn optional_header(bytes: &[u8]) -> Option<usize> {
    if bytes.get(..2)? != b"MZ" {
        return None;
    }
    let at = u32_at(bytes, 0x3c)? as usize;
    if bytes.get(at..at.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    Some(at + 24)
}

/// Offset and length of its signature. PE32+: the fifth directory, the only one with an offset in the file.
fn signature(bytes: &[u8], optional: usize) -> Option<(u32, u32)> {
    let has_one = u16_at(bytes, optional)? == 0x20b && u32_at(bytes, optional + 108)? > 4;
    has_one.then(|| u32_at(bytes, optional + 144).zip(u32_at(bytes, optional + 148)))?
}

/// Bytes of the file that a program of the firmware needs: its sections, and its signature (PE/COFF, 3 and 4).
fn firmware_program_bytes(bytes: &[u8]) -> Option<u64> {
    let optional = optional_header(bytes)?;
    let n_sections = usize::from(u16_at(bytes, optional - 18)?);
    let sections = optional + usize::from(u16_at(bytes, optional - 4)?);
    let mut end = 0;
    for index in 0..n_sections {
        let section = sections + index * 40;
        let (length, offset) = (u32_at(bytes, section + 16)?, u32_at(bytes, section + 20)?);
        if length > 0 {
            end = end.max(u64::from(offset) + u64::from(length));
        }
    }
    if let Some((offset, length)) = signature(bytes, optional) {
        end = end.max(u64::from(offset) + u64::from(length));
    }
    Some(end)
}

/// The release that a kernel says it is: one for x86 in its header (`kernel_version`), one for arm64 only in what it prints first.
///
/// `None` if the bytes are no such kernel. Never panics.
pub fn kernel_version(bytes: &[u8]) -> Option<String> {
    if is_arm64(bytes) {
        return bytes.windows(BANNER.len()).enumerate().find_map(|(at, window)| {
            let rest = (window == BANNER).then(|| &bytes[at + BANNER.len()..])?;
            let length = rest.iter().take(64).position(|&byte| byte == b' ')?;
            // Elsewhere the same words are a format, with no version behind them.
            let is_version =
                length > 0 && rest[0].is_ascii_digit() && rest.get(length + 1) == Some(&b'(');
            str::from_utf8(&rest[..length]).ok().filter(|_| is_version).map(str::to_owned)
        });
    }
    if bytes.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let pointer = u16_at(bytes, 0x20e)?;
    if pointer == 0 {
        return None;
    }
    let text = bytes.get(usize::from(pointer) + 0x200..)?;
    let length = text.iter().take(64).position(|&byte| byte == b' ' || byte == 0)?;
    str::from_utf8(&text[..length]).ok().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u16::from_le_bytes(bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u32::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A kernel of 3 KiB for the firmware, too, whose signature begins there and has 200 bytes.
    fn kernel() -> Vec<u8> {
        let mut bytes = vec![0; 3072 + 200];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, b"MZ");
        put(0x3c, &0x60u32.to_le_bytes());
        put(0x60, b"PE\0\0");
        put(0x66, &1u16.to_le_bytes());
        put(0x74, &160u16.to_le_bytes());
        put(0x78, &0x20bu16.to_le_bytes());
        put(0x78 + 108, &6u32.to_le_bytes());
        put(0x78 + 144, &3072u32.to_le_bytes());
        put(0x78 + 148, &200u32.to_le_bytes());
        put(0x118 + 16, &2048u32.to_le_bytes());
        put(0x118 + 20, &1024u32.to_le_bytes());
        put(0x1f1, &[1]);
        put(0x1f4, &(2048u32 / 16).to_le_bytes());
        put(0x202, b"HdrS");
        put(0x206, &0x20fu16.to_le_bytes());
        put(0x20e, &0x80u16.to_le_bytes());
        put(0x236, &1u16.to_le_bytes());
        put(0x280, b"6.1.0-56-amd64 (debian-kernel@li");
        bytes
    }

    #[test]
    fn a_kernel_names_its_version_and_its_size() {
        let x86 = |size_bytes| BootHeader { size_bytes, architecture: Architecture::X86_64 };
        let bytes = kernel();
        assert_eq!(kernel_version(&bytes).as_deref(), Some("6.1.0-56-amd64"));
        assert_eq!(BootHeader::parse(&bytes), Ok(x86(3272)));
        let mut unsigned = bytes.clone();
        unsigned[0x78 + 108] = 4;
        assert_eq!(BootHeader::parse(&unsigned), Ok(x86(3072)));
        unsigned[0] = 0;
        unsigned[0x1f4] = 0;
        assert_eq!(BootHeader::parse(&unsigned), Ok(x86(1024)));
    }

    #[test]
    fn what_pcs_can_not_start_is_named() {
        let check = |bytes: &[u8], expected| assert_eq!(BootHeader::parse(bytes), Err(expected));
        check(b"", NotBootable::Empty);
        check(&[0; 4096], NotBootable::NoKernel);
        let mut risc_v = vec![0; 4096];
        risc_v[0x38..0x3c].copy_from_slice(b"RSC\x05");
        check(&risc_v, NotBootable::Foreign("RISC-V"));
        let mut only_32_bit = kernel();
        only_32_bit[0x236] = 0;
        check(&only_32_bit, NotBootable::Only32Bit);
    }

    /// The same for arm64: the program of the firmware ends at 3 KiB, and its version stands behind a format.
    fn arm64_kernel() -> Vec<u8> {
        let mut bytes = kernel();
        bytes[0x202..0x206].fill(0);
        bytes[0x78 + 108] = 4;
        bytes[0x38..0x3c].copy_from_slice(b"ARM\x64");
        let text = b"Linux version %s (%s)\0Linux version 6.1.0-50-arm64 (debian-kernel@lists.debian.org) ";
        bytes[2048..2048 + text.len()].copy_from_slice(text);
        bytes
    }

    #[test]
    fn a_kernel_for_arm64_names_its_version_too() {
        let bytes = arm64_kernel();
        let header = BootHeader { size_bytes: 3072, architecture: Architecture::Arm64 };
        assert_eq!(BootHeader::parse(&bytes), Ok(header));
        assert_eq!(kernel_version(&bytes).as_deref(), Some("6.1.0-50-arm64"));
        for length in 0..bytes.len() {
            let _ = (BootHeader::parse(&bytes[..length]), kernel_version(&bytes[..length]));
        }
    }

    #[test]
    fn a_kernel_that_unpacks_itself_says_where_the_packed_one_is() {
        let mut bytes = b"MZ\0\0zimg".to_vec();
        bytes.extend([64, 0, 0, 0, 3, 0, 0, 0]);
        bytes.resize(24, 0);
        bytes.extend(b"gzip");
        bytes.resize(64, 0);
        bytes.extend(b"abc and more");
        assert_eq!(zboot(&bytes), Some(("gzip", &b"abc"[..])));
        for length in 0..67 {
            assert_eq!(zboot(&bytes[..length]), None, "{length}");
        }
        assert_eq!(zboot(&kernel()), None);
    }

    #[test]
    fn no_prefix_panics() {
        let bytes = kernel();
        for length in 0..bytes.len() {
            let whole = BootHeader::parse(&bytes[..length]);
            assert!(length < 0x238 || whole.is_ok(), "{length}");
            assert_eq!(kernel_version(&bytes[..length]).is_some(), length > 0x28e, "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            change in proptest::collection::vec((0..3272usize, any::<u8>()), 0..40),
            bytes in proptest::collection::vec(any::<u8>(), 0..0x500),
        ) {
            let mut changed = kernel();
            for (at, byte) in change {
                changed[at] = byte;
            }
            for bytes in [changed, bytes] {
                let _ = (BootHeader::parse(&bytes), kernel_version(&bytes), zboot(&bytes));
            }
        }
    }
}
