//! From modules and `init` to the bytes of an initrd.

mod cache;
mod compress;
mod firmware;

use crate::codec::Effort;
use crate::known_bugs::{known_bugs, numbers};
use crate::newc::Archive;
use crate::program::Processor;
use crate::select::{Chosen, Selection, Why, select};
use crate::{BuildError, Init, ModuleSource, Options};
use compress::{Piece, compress_all};
use firmware::add_firmware;
use initcfg::{
    FileSystem, INDEX_PATH, MODULES_PATH, Module, ModuleIndex, NBD_CA_PATH, OVERLAY_PATH,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A finished initrd and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initrd {
    /// The file.
    pub bytes: Vec<u8>,
    /// Release of the kernel that it is for.
    pub kernel: String,
    /// The modules, sorted by name.
    pub modules: Vec<PackedModule>,
    /// Names of the firmware files, sorted.
    pub firmware: Vec<String>,
    /// For the administrator: what is not in it, though somebody may want it.
    pub warnings: Vec<String>,
    /// How long it took, without opening the source.
    pub took: Duration,
}

/// A module of an initrd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedModule {
    /// Name as the kernel shows it: with underscores.
    pub name: String,
    /// Bytes that the module takes in the initrd, compressed.
    pub size_bytes: u64,
    /// Why the module is in the initrd.
    pub why: Why,
}

/// Builds an initrd; by default for all machines: every wired network card, NBD and AoE, and the usual
/// file systems.
///
/// The same modules, `init` and options give the same bytes. Whatever is wrong with a module that the chosen
/// roots don't need, it is left out, with those that depend on it, and a warning names it.
///
/// # Errors
/// A module that all machines need is missing, damaged or for another kernel, or can't be read; no driver of a
/// network card can be used; or kernel and `init` are for different kinds of processors.
pub fn build(
    source: &dyn ModuleSource,
    init: &Init,
    options: &Options,
) -> Result<Initrd, BuildError> {
    let started = Instant::now();
    let kernel = source.kernel().to_owned();
    let start = source.kernel_start();
    let processor = start.as_deref().and_then(Processor::of_kernel);
    if let Some(found) = processor.filter(|found| *found != init.processor()) {
        return Err(BuildError::WrongProcessor {
            kernel,
            origin: source.origin(),
            found: found.to_string(),
            init: init.processor().to_string(),
        });
    }
    let Selection { modules: chosen, built_in, mut warnings } =
        select(source, init.processor(), options)?;
    let mut archive = Archive::default();
    let firmware = add_firmware(&mut archive, source, &chosen, &mut warnings);
    let is_ext4_wanted =
        options.file_systems.as_ref().is_none_or(|set| set.contains(&FileSystem::Ext4));
    if is_ext4_wanted && !chosen.contains_key("ext4") && !built_in.contains("ext4") {
        warnings.push(format!("kernel {kernel} has no module ext4: no ext4 root file systems"));
    }
    warnings.extend(known_bugs(&kernel, start.as_deref(), |name| chosen.contains_key(name)));
    let index = index(&kernel, &chosen);
    let base = base(init.bytes(), &index, options)?;
    let is_base_packed = reads_zstd(&kernel, &built_in);
    // An initrd for known hardware has few modules, and is loaded again and again.
    let effort = if options.fit.is_some() { Effort::Thorough } else { Effort::Quick };
    let chosen: Vec<Chosen> = chosen.into_values().collect();
    let of_base = Piece { name: "init", plain: &base, effort: Effort::Thorough };
    let of_modules = chosen.iter().map(|Chosen { path, content, .. }| Piece {
        name: path,
        plain: content,
        effort,
    });
    // The largest comes first, so that nobody waits for it at the end.
    let pieces: Vec<Piece<'_>> =
        is_base_packed.then_some(of_base).into_iter().chain(of_modules).collect();
    let mut packed = compress_all(&pieces, options.cache.as_deref())?.into_iter();
    let mut bytes = if is_base_packed { packed.next().unwrap_or_default() } else { base };
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let mut modules = Vec::new();
    for ((module, content), chosen) in index.modules.into_iter().zip(packed).zip(&chosen) {
        let size_bytes = content.len() as u64;
        modules.push(PackedModule { name: module.name, size_bytes, why: chosen.why.clone() });
        archive.file(&format!("{}/{}", &MODULES_PATH[1..], module.file), 0o644, content);
    }
    bytes.extend(archive.to_bytes()?);
    Ok(Initrd { bytes, kernel, modules, firmware, warnings, took: started.elapsed() })
}

/// The segment that every initrd starts with: init, and what it knows of the modules.
fn base(init: &[u8], index: &ModuleIndex, options: &Options) -> Result<Vec<u8>, BuildError> {
    let mut archive = Archive::default();
    archive.file("init", 0o755, init.to_vec());
    // Without a console here the kernel starts init with no standard input and output at all.
    archive.device("dev/console", 0o600, 5, 1);
    archive.device("dev/kmsg", 0o644, 1, 11);
    archive.device("dev/null", 0o666, 1, 3);
    for folder in ["etc", "proc", "run", "sys", "sysroot"] {
        archive.folder(folder);
    }
    // Tools of the real system recognize an initrd by this file.
    archive.file("etc/initrd-release", 0o644, b"NAME=Bootlace\nID=bootlace\n".to_vec());
    if let Some(nbd_ca) = &options.nbd_ca {
        archive.file(&NBD_CA_PATH[1..], 0o644, nbd_ca.clone());
    }
    if let Some(overlay) = &options.overlay {
        archive.file(&OVERLAY_PATH[1..], 0o600, overlay.clone());
    }
    // The kernel asks for modules by this name (crypto algorithms, file systems): init answers.
    archive.link("sbin/modprobe", "/init");
    archive.file(&INDEX_PATH[1..], 0o644, index.to_text().into_bytes());
    archive.to_bytes()
}

/// Whether the kernel unpacks a segment that is compressed with zstd. It can since Linux 5.9 unless that
/// was left out, as then its decoder is.
fn reads_zstd(kernel: &str, built_in: &BTreeSet<String>) -> bool {
    let is_new = numbers(kernel).is_some_and(|version| version >= (5, 9, 0));
    is_new && built_in.contains("zstd_decompress")
}

fn index(kernel: &str, chosen: &BTreeMap<String, Chosen>) -> ModuleIndex {
    let present = |names: &[String]| {
        names.iter().filter(|name| chosen.contains_key(*name)).cloned().collect()
    };
    let modules = chosen.iter().map(|(name, Chosen { path, info, why, .. })| {
        let end = path.rfind(".ko").unwrap_or(path.len());
        Module {
            name: name.clone(),
            file: format!("{kernel}/{}.ko.zst", &path[..end]),
            why: why.to_string(),
            needs: info.depends.clone(),
            pre: present(&info.soft_pre),
            post: present(&info.soft_post),
            aliases: info.aliases.clone(),
        }
    });
    ModuleIndex { kernel: kernel.to_owned(), modules: modules.collect() }
}

#[cfg(test)]
mod tests;
