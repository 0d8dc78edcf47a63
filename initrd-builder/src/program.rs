//! What an ELF file says about the machine that it is for: init, busybox, and the kernel's modules
//! (ELF-64 object file format, version 1.5).

use std::fmt;

/// A kind of processor, by its number in ELF files (`e_machine`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor(u16);

impl Processor {
    /// PCs.
    pub const X86_64: Self = Self(62);
    /// 64-bit ARM.
    pub const AARCH64: Self = Self(183);
    const X86: Self = Self(3);
    const ARM: Self = Self(40);
    const RISC_V: Self = Self(243);
    const LOONGARCH: Self = Self(258);

    /// The one that this program runs on.
    pub(crate) const OURS: Self =
        if cfg!(target_arch = "aarch64") { Self::AARCH64 } else { Self::X86_64 };

    /// That of an ELF file. Never panics; `None`: it is none for 64 bits, little-endian.
    pub(crate) fn of_elf(elf: &[u8]) -> Option<Self> {
        if !elf.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        u16_at(elf, 18).map(Self)
    }

    /// That of a kernel, by the start of its file; `None`: it tells nothing that is understood here, for
    /// example because it is compressed as a whole. Never panics, whatever the bytes.
    pub fn of_kernel(start: &[u8]) -> Option<Self> {
        // Linux `Documentation/arch/x86/boot.rst`: since protocol 2.12 it says whether it has 64 bits.
        if start.get(0x202..0x206) == Some(b"HdrS") {
            let has_64_bits = u16_at(start, 0x206)? < 0x20c || start.get(0x236)? & 1 != 0;
            return Some(if has_64_bits { Self::X86_64 } else { Self::X86 });
        }
        if start.starts_with(b"\x7fELF") {
            return Self::of_elf(start);
        }
        // Linux `Documentation/arch/arm64/booting.rst` and `Documentation/arch/riscv/boot-image-header.rst`.
        match start.get(0x38..0x3c) {
            Some(b"ARM\x64") => return Some(Self::AARCH64),
            Some(b"RSC\x05") => return Some(Self::RISC_V),
            _ => {}
        }
        // Else the header of an EFI program, as compressed kernels have it that unpack themselves.
        let header = u32_at(start, 0x3c)? as usize;
        if !start.starts_with(b"MZ") || start.get(header..header.checked_add(4)?)? != b"PE\0\0" {
            return None;
        }
        match u16_at(start, header.checked_add(4)?)? {
            0x8664 => Some(Self::X86_64),
            0x14c => Some(Self::X86),
            0xaa64 => Some(Self::AARCH64),
            0x5064 => Some(Self::RISC_V),
            0x6264 => Some(Self::LOONGARCH),
            _ => None,
        }
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::X86_64 => f.write_str("x86-64"),
            Self::X86 => f.write_str("32-bit x86"),
            Self::AARCH64 => f.write_str("64-bit ARM (arm64)"),
            Self::ARM => f.write_str("32-bit ARM"),
            Self::RISC_V => f.write_str("RISC-V"),
            Self::LOONGARCH => f.write_str("LoongArch"),
            Self(number) => write!(f, "unknown (ELF machine {number})"),
        }
    }
}

/// A program, as far as starting it is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) processor: Processor,
    /// Shared libraries are loaded for it by an interpreter.
    pub(crate) needs_libraries: bool,
}

/// Why a file can't be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoProgram {
    Empty,
    Script,
    NotElf,
    /// It ends before its end.
    Truncated,
}

impl Program {
    /// Never panics, whatever the bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, NoProgram> {
        match bytes {
            [] => return Err(NoProgram::Empty),
            [b'#', b'!', ..] => return Err(NoProgram::Script),
            _ => {}
        }
        let processor = Processor::of_elf(bytes).ok_or(NoProgram::NotElf)?;
        let needs_libraries = needs_libraries(bytes)?;
        Ok(Self { processor, needs_libraries })
    }
}

/// Looks at all that a program consists of.
fn needs_libraries(bytes: &[u8]) -> Result<bool, NoProgram> {
    const LOADED: u32 = 1;
    const INTERPRETER: u32 = 3;
    const HEADER_BYTES: u16 = 56;
    let cut = NoProgram::Truncated;
    let u16_of = |at| u16_at(bytes, at).ok_or(cut);
    let u64_of = |at| u64_at(bytes, at).ok_or(cut);
    // Executable or position-independent: modules and core dumps are ELF files, too.
    let is_program = matches!(u16_of(16)?, 2 | 3);
    let (first, n_headers) = (u64_of(32)?, u16_of(56)?);
    if !is_program || n_headers == 0 || u16_of(54)? != HEADER_BYTES {
        return Err(NoProgram::NotElf);
    }
    // The table of sections comes last in a file: nobody needs it, but it is not there if the end is missing.
    let (sections, section_bytes, n_sections) = (u64_of(40)?, u16_of(58)?, u16_of(60)?);
    range(bytes, sections, u64::from(section_bytes) * u64::from(n_sections)).ok_or(cut)?;
    let headers = range(bytes, first, u64::from(HEADER_BYTES) * u64::from(n_headers)).ok_or(cut)?;
    let mut has_interpreter = false;
    for header in headers.chunks_exact(HEADER_BYTES.into()) {
        let kind = u32_at(header, 0).ok_or(cut)?;
        let (start, length) = (u64_at(header, 8).ok_or(cut)?, u64_at(header, 32).ok_or(cut)?);
        if kind == LOADED {
            range(bytes, start, length).ok_or(cut)?;
        }
        has_interpreter |= kind == INTERPRETER;
    }
    Ok(has_interpreter)
}

/// Whether these bytes are a program for 64-bit Linux on this kind of processor that needs no shared
/// libraries.
pub fn is_static_program(bytes: &[u8]) -> bool {
    Program::parse(bytes)
        .is_ok_and(|program| program.processor == Processor::OURS && !program.needs_libraries)
}

pub(crate) fn range(bytes: &[u8], start: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// A program with one header of this kind, for tests.
#[cfg(test)]
pub(crate) fn example_program(processor: Processor, header: u32) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(64 + 56 + 8, 0);
    // A table of sections, empty, at the end.
    for (offset, value) in [(16, 2), (18, processor.0), (32, 64), (40, 128), (54, 56), (56, 1)] {
        bytes[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
    }
    bytes[64..68].copy_from_slice(&header.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_program_that_needs_libraries_is_none_for_an_initrd() {
        assert!(is_static_program(&example_program(Processor::OURS, 1)));
        assert!(!is_static_program(&example_program(Processor::OURS, 3)));
        assert!(!is_static_program(&example_program(Processor::RISC_V, 1)));
        assert!(!is_static_program(b"#!/bin/sh\n"));
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let of_tests = Program { processor: Processor::OURS, needs_libraries: true };
        assert_eq!(Program::parse(&own), Ok(of_tests), "tests are linked with shared libraries");
        for end in [own.len() - 1, own.len() / 2, 4096] {
            assert_eq!(Program::parse(&own[..end]), Err(NoProgram::Truncated), "{end}");
        }
        assert_eq!(Program::parse(b""), Err(NoProgram::Empty));
        assert_eq!(Program::parse(b"#!/bin/sh\n"), Err(NoProgram::Script));
        assert_eq!(Program::parse(b"version https://git-lfs"), Err(NoProgram::NotElf));
    }

    #[test]
    fn every_prefix_is_no_program() {
        let whole = example_program(Processor::OURS, 1);
        for end in 0..whole.len() {
            assert!(!is_static_program(&whole[..end]), "{end}");
        }
        let mut wild = whole;
        wild[32..40].fill(0xff);
        assert!(!is_static_program(&wild));
    }

    #[test]
    fn a_kernel_tells_its_processor() {
        let x86 = |has_64_bits: u8| {
            let mut start = vec![0; 0x300];
            start[0x202..0x208].copy_from_slice(b"HdrS\x0f\x02");
            start[0x236] = has_64_bits;
            start
        };
        let mut arm = vec![0; 0x40];
        arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
        let mut efi = b"MZ\0\0zimg".to_vec();
        efi.resize(0x50, 0);
        efi[0x3c] = 0x40;
        efi[0x40..0x46].copy_from_slice(b"PE\0\0\x64\xaa");
        let module = example_program(Processor::RISC_V, 1);
        for (start, expected) in [
            (x86(3), "x86-64"),
            (x86(0), "32-bit x86"),
            (arm, "64-bit ARM (arm64)"),
            (efi, "64-bit ARM (arm64)"),
            (module, "RISC-V"),
        ] {
            assert_eq!(Processor::of_kernel(&start).unwrap().to_string(), expected);
            for end in 0..start.len() {
                let found = Processor::of_kernel(&start[..end]);
                assert!(found.is_none_or(|found| found.to_string() == expected), "{end}");
            }
        }
        assert_eq!(Processor::of_kernel(&[0x1f, 0x8b, 8]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in 0..128usize, wild: Vec<u8>, bytes: Vec<u8>) {
            let _ = (Program::parse(&bytes), Processor::of_kernel(&bytes));
            let mut program = example_program(Processor::X86_64, 1);
            let end = (at + wild.len()).min(program.len());
            program[at..end].copy_from_slice(&wild[..end - at]);
            let _ = Program::parse(&program);
            program[..2].copy_from_slice(b"MZ");
            let _ = Processor::of_kernel(&program);
        }
    }
}
