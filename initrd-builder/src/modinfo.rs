//! What a kernel module says about itself: the `.modinfo` section of its ELF file.

use crate::program::{Processor, range, u16_at, u32_at, u64_at};
use initcfg::module_name;

/// The parts of `.modinfo` that loading needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModInfo {
    /// Release of the kernel that it was built for: first word of `vermagic`.
    pub kernel: String,
    /// It carries versions of the symbols that it uses: then a kernel of another release takes it, too, if
    /// these have the same (`same_magic` in Linux `kernel/module/version.c`).
    pub has_symbol_versions: bool,
    /// What it runs on. `None` only in the default.
    pub processor: Option<Processor>,
    /// Names of modules that it can't work without.
    pub depends: Vec<String>,
    /// Names or aliases that should be loaded before.
    pub soft_pre: Vec<String>,
    /// Names or aliases that should be loaded after.
    pub soft_post: Vec<String>,
    /// Patterns of hardware, and other names.
    pub aliases: Vec<String>,
    /// Firmware files that the module may ask for.
    pub firmware: Vec<String>,
}

/// The file is not a kernel module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModInfoError {
    /// There is nothing in the file: a disk was full, or the power failed.
    #[error("it is empty")]
    Empty,
    /// The file is of another kind, or for another kind of machine.
    #[error("it is not a 64-bit little-endian ELF file")]
    NotElf,
    /// A header points outside of the file.
    #[error("the file is cut off or damaged: {0} lies outside of it")]
    Truncated(&'static str),
    /// The file has no section `.modinfo`.
    #[error("it has no .modinfo section, so it is not a kernel module")]
    NoModInfo,
}

impl ModInfo {
    /// Reads an uncompressed `.ko` file. Unknown fields are ignored; never panics, whatever the bytes.
    ///
    /// # Errors
    /// The file is not a module or is cut off.
    pub fn parse(elf: &[u8]) -> Result<Self, ModInfoError> {
        let section = modinfo_section(elf)?;
        let mut info = Self { processor: Processor::of_elf(elf), ..Self::default() };
        for field in section.split(|&byte| byte == 0) {
            let Some((key, value)) =
                core::str::from_utf8(field).ok().and_then(|field| field.split_once('='))
            else {
                continue;
            };
            match key {
                "vermagic" => {
                    let mut words = value.split(' ');
                    words.next().unwrap_or_default().clone_into(&mut info.kernel);
                    info.has_symbol_versions = words.any(|word| word == "modversions");
                }
                "depends" => {
                    let names = value.split(',').filter(|name| !name.is_empty());
                    info.depends.extend(names.map(module_name));
                }
                "softdep" => info.add_soft_dependencies(value),
                // The index is a text of lines and words.
                "alias" if !value.contains(char::is_whitespace) && !value.is_empty() => {
                    info.aliases.push(value.to_owned());
                }
                "firmware" => info.firmware.push(value.to_owned()),
                _ => {}
            }
        }
        Ok(info)
    }

    fn add_soft_dependencies(&mut self, value: &str) {
        let mut list = None;
        for word in value.split_whitespace() {
            match (word, &mut list) {
                ("pre:", _) => list = Some(&mut self.soft_pre),
                ("post:", _) => list = Some(&mut self.soft_post),
                (name, Some(list)) => list.push(name.to_owned()),
                // A word before `pre:` or `post:` has no meaning.
                (_, None) => {}
            }
        }
    }
}

fn modinfo_section(elf: &[u8]) -> Result<&[u8], ModInfoError> {
    if elf.is_empty() {
        return Err(ModInfoError::Empty);
    }
    if Processor::of_elf(elf).is_none() {
        return Err(ModInfoError::NotElf);
    }
    let truncated = ModInfoError::Truncated;
    let table = u64_at(elf, 0x28).ok_or(truncated("the ELF header"))?;
    let entry_size = u64::from(u16_at(elf, 0x3a).ok_or(truncated("the ELF header"))?);
    let n_entries = u64::from(u16_at(elf, 0x3c).ok_or(truncated("the ELF header"))?);
    let names_index = u64::from(u16_at(elf, 0x3e).ok_or(truncated("the ELF header"))?);
    let header = |index: u64| {
        let start = entry_size.checked_mul(index).and_then(|offset| offset.checked_add(table))?;
        range(elf, start, 0x40)
    };
    let content = |header: &[u8]| range(elf, u64_at(header, 0x18)?, u64_at(header, 0x20)?);
    let names =
        header(names_index).and_then(content).ok_or(truncated("the table of section names"))?;
    for index in 0..n_entries {
        let header = header(index).ok_or(truncated("the section table"))?;
        let name = u32_at(header, 0).and_then(|offset| names.get(offset as usize..));
        if name.is_some_and(|name| name.starts_with(b".modinfo\0")) {
            return content(header).ok_or(truncated(".modinfo"));
        }
    }
    Err(ModInfoError::NoModInfo)
}

/// A module file for PCs with these `.modinfo` fields, for tests.
#[cfg(test)]
pub(crate) fn example_module(fields: &[&str]) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let info: Vec<u8> =
        fields.iter().flat_map(|field| field.bytes().chain(std::iter::once(0))).collect();
    let mut elf = vec![0u8; 0x40];
    elf[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
    elf[18] = 62;
    let names_at = elf.len() as u64;
    elf.extend(names);
    let info_at = elf.len() as u64;
    elf.extend(&info);
    let table = elf.len() as u64;
    elf[0x28..0x30].copy_from_slice(&table.to_le_bytes());
    elf[0x3a..0x3c].copy_from_slice(&0x40u16.to_le_bytes());
    elf[0x3c..0x3e].copy_from_slice(&3u16.to_le_bytes());
    elf[0x3e..0x40].copy_from_slice(&2u16.to_le_bytes());
    for (name, start, length) in
        [(0u32, 0u64, 0u64), (1, info_at, info.len() as u64), (10, names_at, names.len() as u64)]
    {
        let mut header = [0u8; 0x40];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[0x18..0x20].copy_from_slice(&start.to_le_bytes());
        header[0x20..0x28].copy_from_slice(&length.to_le_bytes());
        elf.extend(header);
    }
    elf
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> Vec<u8> {
        example_module(&[
            "license=GPL",
            "vermagic=6.1.0-56-amd64 SMP preempt mod_unload modversions ",
            "depends=jbd2,crc-16",
            "softdep=pre: crc32c post: late-one",
            "alias=fs-ext4",
            "alias=ext3",
            "firmware=rtl_nic/a.fw",
        ])
    }

    #[test]
    fn a_module_tells_what_it_needs() {
        let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            ModInfo::parse(&example()),
            Ok(ModInfo {
                kernel: "6.1.0-56-amd64".to_owned(),
                has_symbol_versions: true,
                processor: Some(Processor::X86_64),
                depends: words(&["jbd2", "crc_16"]),
                soft_pre: words(&["crc32c"]),
                soft_post: words(&["late-one"]),
                aliases: words(&["fs-ext4", "ext3"]),
                firmware: words(&["rtl_nic/a.fw"]),
            })
        );
    }

    #[test]
    fn no_prefix_of_a_module_is_taken_for_one() {
        let elf = example();
        for end in 0..elf.len() {
            assert!(ModInfo::parse(&elf[..end]).is_err(), "{end}");
        }
        assert_eq!(ModInfo::parse(b"#!/bin/sh"), Err(ModInfoError::NotElf));
        assert_eq!(ModInfo::parse(b""), Err(ModInfoError::Empty));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in 0..512usize, wild: Vec<u8>, bytes: Vec<u8>) {
            let _ = ModInfo::parse(&bytes);
            let mut elf = example();
            let at = at.min(elf.len());
            let end = (at + wild.len()).min(elf.len());
            elf[at..end].copy_from_slice(&wild[..end - at]);
            let _ = ModInfo::parse(&elf);
        }
    }
}
