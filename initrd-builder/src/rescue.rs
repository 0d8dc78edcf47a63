//! The archive with the rescue shell, which follows the initrd of a boot that shall stop in one.

use crate::BuildError;
use crate::newc::Archive;

/// An uncompressed archive with this busybox, made to follow others like [`host_segment`](crate::host_segment).
///
/// # Errors
/// The program is larger than an archive can hold.
pub fn rescue_segment(busybox: Vec<u8>) -> Result<Vec<u8>, BuildError> {
    let mut archive = Archive::default();
    archive.file(initcfg::RESCUE_BUSYBOX, 0o755, busybox);
    archive.to_bytes()
}

/// Whether these bytes are a program for 64-bit Linux on this kind of processor that needs no shared
/// libraries: ELF without an interpreter (ELF-64 object file format, version 1.5).
pub fn is_static_program(bytes: &[u8]) -> bool {
    has_interpreter(bytes) == Some(false)
}

/// `None` if it is no program.
fn has_interpreter(bytes: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    const PROGRAM_HEADER_BYTES: u16 = 56;
    const X86_64: u16 = 62;
    const AARCH64: u16 = 183;
    let at = |offset: usize| bytes.get(offset..);
    let u16_at = |offset| Some(u16::from_le_bytes(*at(offset)?.first_chunk()?));
    let u64_at = |offset| Some(u64::from_le_bytes(*at(offset)?.first_chunk()?));
    let machine = if cfg!(target_arch = "aarch64") { AARCH64 } else { X86_64 };
    // Magic number, 64 bits, little endian; executable or position-independent.
    let is_program = bytes.starts_with(b"\x7fELF\x02\x01")
        && matches!(u16_at(16)?, 2 | 3)
        && u16_at(18)? == machine
        && u16_at(54)? == PROGRAM_HEADER_BYTES;
    let (first, n_headers) = (usize::try_from(u64_at(32)?).ok()?, u16_at(56)?);
    if !is_program || n_headers == 0 {
        return None;
    }
    let mut headers = at(first)?.chunks_exact(PROGRAM_HEADER_BYTES.into()).take(n_headers.into());
    if headers.len() < n_headers.into() {
        return None;
    }
    Some(headers.any(|header| header[..4] == INTERPRETER.to_le_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect;

    /// A program with one header of this kind.
    fn program(kind: u32) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(64 + 56, 0);
        let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
        for (offset, value) in [(16, 2), (18, machine), (32, 64), (54, 56), (56, 1)] {
            bytes[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
        }
        bytes[64..68].copy_from_slice(&kind.to_le_bytes());
        bytes
    }

    #[test]
    fn a_program_that_needs_libraries_is_none_for_an_initrd() {
        assert!(is_static_program(&program(1)));
        assert!(!is_static_program(&program(3)));
        assert!(!is_static_program(b"#!/bin/sh\n"));
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(has_interpreter(&own), Some(true), "tests are linked with shared libraries");
    }

    #[test]
    fn every_prefix_is_no_program() {
        let whole = program(1);
        for end in 0..whole.len() {
            assert!(!is_static_program(&whole[..end]), "{end}");
        }
        let mut wild = whole;
        wild[32..40].fill(0xff);
        assert!(!is_static_program(&wild));
    }

    #[test]
    fn it_follows_other_segments() {
        let mut initrd = crate::host_segment("bootlace-host/1\nend\n").unwrap();
        initrd.extend(rescue_segment(vec![1, 2, 3]).unwrap());
        let contents = inspect(&initrd);
        assert_eq!(contents.segments.len(), 2, "{contents:?}");
        assert!(contents.segments.iter().all(|segment| segment.problem.is_none()), "{contents:?}");
    }
}
