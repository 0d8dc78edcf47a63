//! From modules and `init` to the bytes of an initrd.

use crate::newc::Archive;
mod cache;

use crate::codec::{self, Effort};
use crate::known_bugs::{known_bugs, numbers};
use crate::select::{Chosen, Selection, Why, select};
use crate::{BuildError, ModuleSource, Options};
use cache::Cache;
use initcfg::{FileSystem, INDEX_PATH, MODULES_PATH, Module, ModuleIndex, NBD_CA_PATH};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Larger firmware is left out with a warning: it is for server cards, and everybody would load it.
const FIRMWARE_SIZE_MAX: usize = 2 << 20;

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
    /// What it takes in the initrd, compressed.
    pub size_bytes: u64,
    /// Why it is there.
    pub why: Why,
}

/// Builds an initrd; by default for all machines: every wired network card, NBD and AoE, and the usual
/// file systems.
///
/// `init` is the content of the static `bootlace-init`. The same modules, `init` and options give the
/// same bytes.
///
/// # Errors
/// A module is missing, damaged or for another kernel, or can't be read.
pub fn build(
    source: &dyn ModuleSource,
    init: &[u8],
    options: &Options,
) -> Result<Initrd, BuildError> {
    let started = Instant::now();
    let Selection { modules: chosen, built_in, mut warnings } = select(source, options)?;
    let kernel = source.kernel().to_owned();
    let mut archive = Archive::default();
    let firmware = add_firmware(&mut archive, source, &chosen, &mut warnings)?;
    let is_aoe_open = options.roots.is_none();
    let is_ext4_wanted =
        options.file_systems.as_ref().is_none_or(|set| set.contains(&FileSystem::Ext4));
    for (name, purpose, is_wanted) in
        [("aoe", "AoE root disks", is_aoe_open), ("ext4", "ext4 root file systems", is_ext4_wanted)]
    {
        if is_wanted && !chosen.contains_key(name) && !built_in.contains(name) {
            warnings.push(format!("kernel {kernel} has no module {name}: no {purpose}"));
        }
    }
    let start = source.kernel_start();
    warnings.extend(known_bugs(&kernel, start.as_deref(), |name| chosen.contains_key(name)));
    let index = index(&kernel, &chosen);
    let base = base(init, &index, options.nbd_ca.as_deref())?;
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
fn base(init: &[u8], index: &ModuleIndex, nbd_ca: Option<&[u8]>) -> Result<Vec<u8>, BuildError> {
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
    if let Some(nbd_ca) = nbd_ca {
        archive.file(&NBD_CA_PATH[1..], 0o644, nbd_ca.to_vec());
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

/// Adds the firmware that the source has; returns its names.
fn add_firmware(
    archive: &mut Archive,
    source: &dyn ModuleSource,
    chosen: &BTreeMap<String, Chosen>,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>, BuildError> {
    let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (module, Chosen { info, .. }) in chosen {
        for file in &info.firmware {
            wanted.entry(file).or_default().insert(module);
        }
    }
    let mut added = Vec::new();
    let mut missing: BTreeSet<&str> = BTreeSet::new();
    for (file, modules) in &wanted {
        // A name is a path below the firmware folder; patterns and anything else is not a file.
        let is_file = !file.starts_with('/')
            && !file.contains(['*', '?', '\0'])
            && file.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        let read_error = |source| BuildError::Read { what: format!("firmware {file}"), source };
        let stored = if is_file { source.firmware(file).map_err(read_error)? } else { None };
        let Some(stored) = stored else {
            missing.extend(modules);
            continue;
        };
        let content = codec::decode(stored).map_err(read_error)?;
        if content.len() > FIRMWARE_SIZE_MAX {
            let megabytes = content.len() >> 20;
            warnings.push(format!("firmware {file} left out: it has {megabytes} MB"));
            continue;
        }
        archive.file(&format!("lib/firmware/{file}"), 0o644, content);
        added.push((*file).to_owned());
    }
    if !missing.is_empty() {
        let names: Vec<&str> = missing.into_iter().collect();
        warnings.push(format!(
            "firmware not found for {}: most of their cards work without it; if one does not, import \
             an image that has the card's firmware package installed",
            names.join(", ")
        ));
    }
    Ok(added)
}

/// Something to compress.
struct Piece<'a> {
    name: &'a str,
    plain: &'a [u8],
    effort: Effort,
}

/// Compresses all on all processors; the results are in the order of the input.
fn compress_all(pieces: &[Piece<'_>], cache: Option<&Path>) -> Result<Vec<Vec<u8>>, BuildError> {
    let cache = cache.map(Cache::new);
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, io::Result<Vec<u8>>)>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((at, piece)) = take(&next, pieces) {
                    let result = match &cache {
                        Some(cache) => cache.compress(piece.plain, piece.effort),
                        None => codec::compress(piece.plain, piece.effort),
                    };
                    results.lock().expect("no thread panics with the lock").push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no thread panics with the lock");
    results.sort_by_key(|&(at, _)| at);
    let named = results.into_iter().map(|(at, result)| {
        result.map_err(|source| BuildError::Read { what: pieces[at].name.to_owned(), source })
    });
    named.collect()
}

fn take<'a, 'b>(next: &AtomicUsize, pieces: &'a [Piece<'b>]) -> Option<(usize, &'a Piece<'b>)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    pieces.get(at).map(|piece| (at, piece))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fit;
    use crate::modinfo::example_module;
    use initcfg::RootKind;

    /// A kernel with a few modules, in memory.
    struct Kernel {
        release: &'static str,
        files: BTreeMap<String, Vec<u8>>,
    }

    impl Kernel {
        fn new() -> Self {
            Self::of("6.1-test")
        }

        fn of(release: &'static str) -> Self {
            let mut kernel = Self { release, files: BTreeMap::new() };
            kernel.add(
                "kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko",
                &[
                    "depends=ptp",
                    "alias=pci:v00008086d*",
                    "firmware=e100/a.bin",
                    "firmware=e100/b.bin",
                ],
            );
            kernel.add("kernel/drivers/ptp/ptp.ko", &["depends=pps-core"]);
            kernel.add("kernel/drivers/block/nbd.ko", &[]);
            kernel.add("kernel/fs/ext4/ext4.ko", &["softdep=pre: crc32c"]);
            kernel.add("kernel/crypto/crc32c_generic.ko", &["alias=crypto-crc32c", "alias=crc32c"]);
            kernel.add("kernel/sound/hda.ko", &[]);
            kernel
                .files
                .insert("modules.builtin".to_owned(), b"kernel/drivers/pps/pps_core.ko\n".to_vec());
            kernel
        }

        fn add(&mut self, path: &str, fields: &[&str]) {
            let magic = format!("vermagic={} SMP", self.release);
            let fields = [&[magic.as_str()], fields].concat();
            self.files.insert(path.to_owned(), example_module(&fields));
        }
    }

    impl ModuleSource for Kernel {
        fn kernel(&self) -> &str {
            self.release
        }

        fn origin(&self) -> String {
            "memory".to_owned()
        }

        fn list(&self) -> io::Result<Vec<String>> {
            Ok(self.files.keys().cloned().collect())
        }

        fn read(&self, path: &str) -> io::Result<Vec<u8>> {
            self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        fn firmware(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
            Ok((name == "e100/a.bin").then(|| b"firmware".to_vec()))
        }
    }

    fn build_all(source: &dyn ModuleSource, init: &[u8]) -> Result<Initrd, BuildError> {
        build(source, init, &Options::default())
    }

    #[test]
    fn drivers_come_with_what_they_need() {
        let kernel = Kernel::new();
        let initrd = build_all(&kernel, b"init").unwrap();
        let why = |module: &PackedModule| format!("{}: {}", module.name, module.why);
        assert_eq!(
            initrd.modules.iter().map(why).collect::<Vec<_>>(),
            [
                "crc32c_generic: checksums of file systems",
                "e1000e: network drivers",
                "ext4: root file systems",
                "nbd: NBD root disks",
                "ptp: needed by e1000e"
            ]
        );
        let index = crate::inspect(&initrd.bytes).index.unwrap();
        assert_eq!(index.find("ptp").unwrap().why, "needed by e1000e");
        assert!(initrd.modules.iter().all(|module| module.size_bytes > 0));
        assert_eq!(initrd.firmware, ["e100/a.bin"]);
        assert!(
            initrd.warnings.iter().any(|text| text.contains("e1000e")),
            "{:?}",
            initrd.warnings
        );
        assert!(
            initrd.warnings.iter().any(|text| text.contains("no AoE")),
            "{:?}",
            initrd.warnings
        );
        assert_eq!(build_all(&kernel, b"init").unwrap().bytes, initrd.bytes);
        assert_ne!(build_all(&kernel, b"other").unwrap().bytes, initrd.bytes);
    }

    #[test]
    fn compressed_modules_give_the_same_initrd() {
        let plain = Kernel::new();
        let mut packed = Kernel::new();
        packed.files = packed
            .files
            .into_iter()
            .map(|(path, content)| match path.ends_with(".ko") {
                true => (format!("{path}.zst"), codec::compress(&content, Effort::Quick).unwrap()),
                false => (path, content),
            })
            .collect();
        assert_eq!(build_all(&plain, b"").unwrap().bytes, build_all(&packed, b"").unwrap().bytes);
    }

    #[test]
    fn init_is_compressed_for_kernels_that_unpack_it() {
        let zstd = "kernel/drivers/pps/pps_core.ko\nkernel/lib/zstd/zstd_decompress.ko\n";
        let is_packed = |release: &'static str, built_in: &str| {
            let mut kernel = Kernel::of(release);
            kernel.files.insert("modules.builtin".to_owned(), built_in.into());
            let initrd = build_all(&kernel, &[7; 10_000]).unwrap();
            let segments = crate::inspect(&initrd.bytes).segments;
            assert_eq!(segments.len(), 2, "{segments:?}");
            assert!(segments.iter().all(|segment| segment.problem.is_none()), "{segments:?}");
            segments[0].codec == crate::Codec::Zstd
        };
        assert!(is_packed("6.1.9-t", zstd));
        assert!(!is_packed("5.8.9-t", zstd));
        assert!(!is_packed("6.1.9-t", "kernel/drivers/pps/pps_core.ko\n"));
    }

    #[test]
    fn a_cache_changes_no_byte() {
        let kernel = Kernel::new();
        let expected = build_all(&kernel, b"").unwrap().bytes;
        let folder = tempfile::tempdir().unwrap();
        let options = Options { cache: Some(folder.path().to_owned()), ..Options::default() };
        for _ in 0..2 {
            assert!(build(&kernel, b"", &options).unwrap().bytes == expected);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
    }

    #[test]
    fn a_missing_module_is_named_with_who_needs_it() {
        let check = |change: &dyn Fn(&mut Kernel), expected: &[&str]| {
            let mut kernel = Kernel::new();
            change(&mut kernel);
            let error = build_all(&kernel, b"").unwrap_err().to_string();
            assert!(expected.iter().all(|word| error.contains(word)), "{error}");
        };
        let ptp = "kernel/drivers/ptp/ptp.ko";
        check(&|kernel| drop(kernel.files.remove(ptp)), &["ptp", "e1000e", "memory", "6.1-test"]);
        check(&|kernel| drop(kernel.files.remove("modules.builtin")), &["pps_core", "ptp"]);
        check(&|kernel| drop(kernel.files.remove("kernel/drivers/block/nbd.ko")), &["nbd"]);
        check(
            &|kernel| {
                kernel.files.insert(ptp.to_owned(), example_module(&["vermagic=5.10 SMP"]));
            },
            &["ptp", "5.10", "6.1-test"],
        );
        check(
            &|kernel| kernel.files.retain(|path, _| !path.contains("ethernet")),
            &["no driver of any network card"],
        );
        check(&|kernel| drop(kernel.files.insert(ptp.to_owned(), b"text".to_vec())), &["ptp.ko"]);
    }

    #[test]
    fn an_updated_driver_replaces_the_kernel_s_own() {
        let mut kernel = Kernel::new();
        kernel.add("updates/dkms/e1000e.ko", &["alias=test:updated", "unused=alloc_etherdev_mqs"]);
        kernel.add("updates/dkms/r8125.ko", &["unused=alloc_etherdev_mqs"]);
        kernel.add("updates/dkms/nvidia.ko", &[]);
        let initrd = build_all(&kernel, b"").unwrap();
        let has = |name: &str| initrd.modules.iter().any(|module| module.name == name);
        assert!(has("r8125"));
        assert!(!has("nvidia"));
        let text = String::from_utf8_lossy(&initrd.bytes).into_owned();
        assert!(text.contains("updates/dkms/e1000e.ko.zst") && !text.contains("e1000e/e1000e.ko"));
    }

    #[test]
    fn root_kinds_bring_their_modules_or_are_refused_by_name() {
        let mut kernel = Kernel::new();
        kernel.add("kernel/drivers/block/aoe/aoe.ko", &[]);
        kernel.add("kernel/fs/nfs/nfs.ko", &["depends=sunrpc"]);
        kernel.add("kernel/fs/nfs/nfsv3.ko", &["depends=nfs"]);
        kernel.add("kernel/net/sunrpc/sunrpc.ko", &[]);
        let check = |roots: &[RootKind], expected: &str| {
            let options =
                Options { roots: Some(roots.iter().copied().collect()), ..Options::default() };
            let text = match build(&kernel, b"", &options) {
                Ok(initrd) => {
                    initrd.modules.into_iter().map(|m| m.name).collect::<Vec<_>>().join(" ")
                }
                Err(error) => error.to_string(),
            };
            assert!(text.contains(expected), "{text}");
        };
        check(&[RootKind::Nbd], "e1000e ext4 nbd ptp");
        check(&[RootKind::Aoe], "aoe crc32c_generic e1000e ext4 ptp");
        check(
            &[RootKind::Nbd, RootKind::Nfs],
            "no module nfsv4, so no NFS root disks: leave nfs out",
        );
        check(&[RootKind::Iscsi], "no module iscsi_tcp, so no iSCSI");
        kernel.add("kernel/fs/nfs/nfsv4.ko", &["depends=nfs"]);
        let options = Options { roots: Some([RootKind::Nfs].into()), ..Options::default() };
        let initrd = build(&kernel, b"", &options).unwrap();
        assert!(initrd.modules.iter().any(|module| module.why.to_string() == "NFS root disks"));
        assert!(initrd.modules.iter().any(|module| module.name == "sunrpc"));
    }

    #[test]
    fn an_initrd_for_known_hardware_holds_only_its_drivers() {
        let mut kernel = Kernel::new();
        let net = "kernel/drivers/net";
        let r8169 = ["alias=pci:v000010ECd00008168*", "depends=libphy", "softdep=pre: realtek"];
        kernel.add(&format!("{net}/ethernet/realtek/r8169.ko"), &r8169);
        kernel.add(
            &format!("{net}/ethernet/broadcom/tg3.ko"),
            &["alias=pci:v000014E4*", "depends=libphy"],
        );
        kernel.add(&format!("{net}/ethernet/stm/stmmac.ko"), &["alias=of:*", "depends=libphy"]);
        for phy in ["libphy", "realtek", "broadcom", "marvell"] {
            kernel.add(&format!("{net}/phy/{phy}.ko"), &[]);
        }
        kernel.add(&format!("{net}/usb/ax88179.ko"), &["alias=usb:v0B95*"]);
        kernel.add("kernel/drivers/usb/host/xhci-pci.ko", &["alias=pci:v*bc0Csc03i30*"]);
        kernel.files.insert(
            "modules.builtin.modinfo".to_owned(),
            b"virtio_net.license=GPL\0virtio_net.alias=virtio:d00000001v*\0".to_vec(),
        );
        let check = |list: &str, expected: &str| {
            let options = Options { fit: Some(Fit::parse(list).unwrap()), ..Options::default() };
            let text = match build(&kernel, b"", &options) {
                Ok(initrd) => {
                    let base = ["crc32c_generic", "ext4", "nbd"];
                    let names = initrd.modules.into_iter().map(|module| module.name);
                    let names: Vec<String> =
                        names.filter(|name| !base.contains(&name.as_str())).collect();
                    let warning =
                        initrd.warnings.into_iter().find(|text| text.contains("card pci"));
                    format!("{}; {}", names.join(" "), warning.unwrap_or_default())
                }
                Err(error) => error.to_string(),
            };
            assert!(text.starts_with(expected), "{list}: {text}");
        };
        let intel = "pci:v00008086d000010D3sv0sd0bc02sc00i00";
        check(intel, "e1000e ptp; ");
        check("pci:v000010ECd00008168sv0sd0bc02sc00i00", "libphy r8169 realtek; ");
        check("pci:v000014E4d0sv0sd0bc02sc00i00", "broadcom libphy tg3; ");
        check("of:N", "broadcom libphy marvell realtek stmmac; ");
        let hosts = format!("{intel}\npci:v00008086d0000A36Dsv0sd0bc0Csc03i30");
        check(&hosts, "e1000e ptp; ");
        check(&format!("{hosts}\nusb:v0B95p1790"), "ax88179 e1000e ptp xhci_pci; ");
        let unknown = "pci:v00001234d00000001sv0sd0bc02sc00i00";
        let warning =
            format!("e1000e ptp; kernel 6.1-test has no driver for the network card {unknown}");
        check(&format!("{intel}\n{unknown}"), &warning);
        check(unknown, "kernel 6.1-test in memory has no network driver for anything");
        check("virtio:d00000001v00001AF4", "; ");
        let options = Options {
            file_systems: Some([FileSystem::Xfs].into()),
            fit: Some(Fit::parse(intel).unwrap()),
            ..Options::default()
        };
        let initrd = build(&kernel, b"", &options).unwrap();
        assert!(initrd.modules.iter().all(|module| module.name != "ext4"));
        assert_eq!(initrd.modules[1].why.to_string(), format!("network drivers: {intel}"));
    }

    #[test]
    fn tls_for_nbd_brings_the_authority_and_what_the_kernel_encrypts_with() {
        let mut kernel = Kernel::new();
        let options = Options { nbd_ca: Some(b"the authority".to_vec()), ..Options::default() };
        let without = build(&kernel, b"", &options).unwrap();
        assert!(without.warnings.iter().any(|text| text.contains("no module tls")));
        kernel.add("kernel/net/tls/tls.ko", &[]);
        kernel.add("kernel/crypto/gcm.ko", &[]);
        let initrd = build(&kernel, b"", &options).unwrap();
        for name in ["tls", "gcm"] {
            let module = initrd.modules.iter().find(|module| module.name == name).unwrap();
            assert_eq!(module.why.to_string(), "NBD over TLS");
        }
        assert!(String::from_utf8_lossy(&initrd.bytes).contains("the authority"));
        let usual = build_all(&kernel, b"").unwrap();
        assert!(usual.modules.iter().all(|module| module.name != "tls" && module.name != "gcm"));
        assert!(!String::from_utf8_lossy(&usual.bytes).contains("the authority"));
    }
}
