//! What a kernel becomes as an initrd.

use super::*;
use crate::init::example_init;
use crate::modinfo::example_module;
use crate::{Fit, Listing, codec};
use initcfg::RootKind;
use std::cell::RefCell;
use std::io;

/// A kernel with a few modules, in memory.
struct Kernel {
    release: &'static str,
    files: BTreeMap<String, Vec<u8>>,
    /// Start of the kernel's own file.
    start: Option<Vec<u8>>,
    /// What was read, in order.
    reads: RefCell<Vec<String>>,
}

impl Kernel {
    fn new() -> Self {
        Self::of("6.1-test")
    }

    fn of(release: &'static str) -> Self {
        let mut kernel =
            Self { release, files: BTreeMap::new(), start: None, reads: RefCell::default() };
        kernel.add(
            "kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko",
            &["depends=ptp", "alias=pci:v00008086d*", "firmware=e100/a.bin", "firmware=e100/b.bin"],
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

    fn list(&self) -> io::Result<Listing> {
        Ok(Listing { files: self.files.keys().cloned().collect(), unreadable: Vec::new() })
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.reads.borrow_mut().push(path.to_owned());
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn kernel_start(&self) -> Option<Vec<u8>> {
        self.start.clone()
    }

    fn firmware(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok((name == "e100/a.bin").then(|| b"firmware".to_vec()))
    }
}

/// The init of a PC; `text` makes it another one.
fn init(text: &[u8]) -> Init {
    example_init(Processor::X86_64, text)
}

fn build_all(source: &dyn ModuleSource, text: &[u8]) -> Result<Initrd, BuildError> {
    build(source, &init(text), &Options::default())
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
    assert!(initrd.warnings.iter().any(|text| text.contains("e1000e")), "{:?}", initrd.warnings);
    assert!(initrd.warnings.iter().any(|text| text.contains("no AoE")), "{:?}", initrd.warnings);
    assert_eq!(build_all(&kernel, b"init").unwrap().bytes, initrd.bytes);
    assert_ne!(build_all(&kernel, b"other").unwrap().bytes, initrd.bytes);
}

#[test]
fn what_the_kernel_has_inside_is_read_once() {
    let mut kernel = Kernel::new();
    kernel.files.insert("modules.builtin.modinfo".to_owned(), Vec::new());
    let card = |number| format!("pci:v00001234d0000000{number}sv0sd0bc02sc00i00\n");
    let list = format!("pci:v00008086d000010D3sv0sd0bc02sc00i00\n{}{}", card(1), card(2));
    let options = Options { fit: Some(Fit::parse(&list).unwrap()), ..Options::default() };
    build(&kernel, &init(b"init"), &options).unwrap();
    let reads = kernel.reads.into_inner();
    let lists: Vec<_> = reads.iter().filter(|path| path.starts_with("modules.")).collect();
    assert_eq!(lists, ["modules.builtin", "modules.builtin.modinfo"]);
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
        assert!(build(&kernel, &init(b""), &options).unwrap().bytes == expected);
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
    // What network cards need besides their drivers is none.
    check(
        &|kernel| {
            kernel.files.retain(|path, _| !path.contains("ethernet"));
            let library = example_module(&["vermagic=6.1-test SMP"]);
            for path in ["kernel/drivers/net/phy/realtek.ko", "kernel/drivers/usb/core/usbcore.ko"]
            {
                kernel.files.insert(path.to_owned(), library.clone());
            }
        },
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

/// Whatever is wrong with a file, in a word that the warning has.
fn broken_files() -> Vec<(&'static str, Vec<u8>)> {
    let module = example_module(&["vermagic=6.1-test SMP", "unused=alloc_etherdev_mqs"]);
    let mut other_processor = module.clone();
    other_processor[18] = 183;
    let mut no_module = module.clone();
    let name = no_module.windows(9).position(|window| window == b".modinfo\0").unwrap();
    no_module[name] = b'x';
    let compressed = codec::compress(&module, Effort::Quick).unwrap();
    vec![
        ("empty", Vec::new()),
        ("cut off", module[..module.len() - 70].to_vec()),
        ("can't be read", compressed[..compressed.len() - 3].to_vec()),
        ("64-bit little-endian ELF", b"version https://git-lfs.github.com/spec/v1".to_vec()),
        ("64-bit little-endian ELF", b"\x7fELF\x01\x01\x01 for 32 bits".to_vec()),
        ("for 64-bit ARM", other_processor),
        ("for kernel 5.10, not 6.1-test", example_module(&["vermagic=5.10 SMP"])),
        ("for a kernel that it does not name", example_module(&["license=GPL"])),
        ("no .modinfo section", no_module),
    ]
}

#[test]
fn what_no_root_needs_ends_no_build_whatever_is_wrong_with_it() {
    let good = build_all(&Kernel::new(), b"").unwrap();
    for path in
        ["updates/dkms/nvidia.ko.xz", "kernel/drivers/net/ethernet/new.ko", "extra/e1000e.ko"]
    {
        for (why, content) in broken_files() {
            let mut kernel = Kernel::new();
            kernel.files.insert(path.to_owned(), content);
            let initrd = build_all(&kernel, b"").unwrap();
            assert_eq!(initrd.bytes, good.bytes, "{path}: {why}");
            let is_named = |text: &String| text.contains(path) && text.contains(why);
            assert!(initrd.warnings.iter().any(is_named), "{path}, {why}: {:?}", initrd.warnings);
            assert_eq!(initrd.warnings.len(), good.warnings.len() + 1);
        }
    }
}

#[test]
fn a_kernel_that_can_not_mount_the_images_root_gets_no_initrd() {
    let options = || Options { root_file_system: Some(FileSystem::Ext4), ..Options::default() };
    let mut kernel = Kernel::new();
    kernel.files.remove("kernel/fs/ext4/ext4.ko");
    let error = build(&kernel, &init(b""), &options()).unwrap_err().to_string();
    assert!(error.contains("6.1-test") && error.contains("has no ext4"), "{error}");
    assert!(
        build(&kernel, &init(b""), &Options::default()).is_ok(),
        "for no image it may be right"
    );
    let list = b"kernel/fs/ext4/ext4.ko\nkernel/drivers/pps/pps_core.ko\n".to_vec();
    kernel.files.insert("modules.builtin".to_owned(), list);
    assert!(build(&kernel, &init(b""), &options()).is_ok(), "it is inside");
    kernel.files.remove("modules.builtin");
    let inside = b"pps-core.license=GPL\0".to_vec();
    kernel.files.insert("modules.builtin.modinfo".to_owned(), inside);
    assert!(build(&kernel, &init(b""), &options()).is_ok(), "it may be inside");
}

#[test]
fn what_all_machines_need_is_refused_in_words() {
    for (path, options) in [
        ("kernel/drivers/block/nbd.ko", Options::default()),
        (
            "kernel/fs/ext4/ext4.ko",
            Options { root_file_system: Some(FileSystem::Ext4), ..Options::default() },
        ),
        ("kernel/drivers/ptp/ptp.ko", Options::default()),
    ] {
        for (why, content) in broken_files() {
            let mut kernel = Kernel::new();
            kernel.files.insert(path.to_owned(), content);
            let error = build(&kernel, &init(b""), &options).unwrap_err();
            let text = error.to_string()
                + &std::error::Error::source(&error).map_or(String::new(), ToString::to_string);
            let name = path.rsplit('/').next().unwrap().strip_suffix(".ko").unwrap();
            let why = why.trim_end_matches(", not 6.1-test").trim_start_matches("can't be read");
            let is_named = text.contains(why) || text.contains("is for kernel ,");
            assert!(text.contains(name) && is_named, "{path}, {why}: {text}");
        }
    }
    let mut kernel = Kernel::new();
    kernel.files.insert("kernel/fs/ext4/ext4.ko".to_owned(), Vec::new());
    assert!(build_all(&kernel, b"").is_ok(), "roots with other file systems are there");
}

#[test]
fn a_driver_goes_with_what_it_needs_and_nothing_else_does() {
    let mut kernel = Kernel::new();
    kernel.add("kernel/drivers/net/ethernet/igb.ko", &["depends=dca,i2c"]);
    kernel.add("kernel/drivers/net/ethernet/igc.ko", &["depends=igb"]);
    kernel.add("kernel/drivers/dca.ko", &["depends=igc"]);
    let initrd = build_all(&kernel, b"").unwrap();
    assert_eq!(initrd.bytes, build_all(&Kernel::new(), b"").unwrap().bytes);
    let text = initrd.warnings.join("\n");
    for sentence in [
        "left out: i2c (not in memory)",
        "left out: igb (needs i2c, which can't be used)",
        "left out: igc (needs igb, which can't be used)",
        "left out: dca (needs igc, which can't be used)",
    ] {
        assert!(text.contains(sentence), "{text}");
    }
    kernel.add("kernel/drivers/i2c.ko", &[]);
    let names: Vec<String> =
        build_all(&kernel, b"").unwrap().modules.into_iter().map(|module| module.name).collect();
    assert_eq!(
        names,
        ["crc32c_generic", "dca", "e1000e", "ext4", "i2c", "igb", "igc", "nbd", "ptp"],
        "a circle of dependencies ends"
    );
}

#[test]
fn weak_updates_come_last_and_may_be_of_another_kernel() {
    let mut kernel = Kernel::new();
    let of_other =
        |magic: &str| example_module(&[magic, "unused=alloc_etherdev_mqs", "alias=test:weak"]);
    let versioned = of_other("vermagic=6.0-other SMP mod_unload modversions ");
    for name in ["e1000e", "r8125"] {
        kernel.files.insert(format!("weak-updates/{name}.ko"), versioned.clone());
    }
    let unversioned = of_other("vermagic=6.0-other SMP mod_unload ");
    kernel.files.insert("weak-updates/r8126.ko".to_owned(), unversioned);
    let initrd = build_all(&kernel, b"").unwrap();
    let index = crate::inspect(&initrd.bytes).index.unwrap();
    assert!(index.find("e1000e").unwrap().file.contains("kernel/drivers/net/"));
    assert!(index.find("r8125").unwrap().file.contains("weak-updates/"));
    assert!(index.find("r8126").is_none());
    let text = initrd.warnings.join("\n");
    assert!(text.contains("weak-updates/r8125.ko was built for kernel 6.0-other: it works if"));
    assert!(text.contains("left out: weak-updates/r8126.ko (for kernel 6.0-other, not 6.1-test)"));
}

#[test]
fn lists_of_depmod_are_not_needed() {
    let good = build_all(&Kernel::new(), b"").unwrap();
    let mut kernel = Kernel::new();
    for (name, content) in [
        ("modules.dep", "/lib/modules/6.1-test/kernel/drivers/old.ko: kernel/gone.ko\n"),
        ("modules.alias", "\0\0"),
        ("modules.order", ""),
    ] {
        kernel.files.insert(name.to_owned(), content.into());
        let initrd = build_all(&kernel, b"").unwrap();
        assert_eq!((initrd.bytes, initrd.warnings), (good.bytes.clone(), good.warnings.clone()));
    }
    // The kernel's own list is lost, but its modules say of themselves that they are inside.
    kernel.files.remove("modules.builtin");
    kernel.files.remove("kernel/drivers/block/nbd.ko");
    let inside = b"pps-core.license=GPL\0nbd.license=GPL\0nbd.alias=x\0".to_vec();
    kernel.files.insert("modules.builtin.modinfo".to_owned(), inside);
    let initrd = build_all(&kernel, b"").unwrap();
    assert!(initrd.modules.iter().any(|module| module.name == "ptp"));
}

#[test]
fn init_and_kernel_are_for_the_same_processor() {
    let kernel = Kernel::new();
    let arm = example_init(Processor::AARCH64, b"");
    let error = build(&kernel, &arm, &Options::default()).unwrap_err().to_string();
    assert!(error.contains("nbd in memory is for x86-64 processors"), "{error}");
    let mut start = vec![0; 0x40];
    start[0x38..0x3c].copy_from_slice(b"ARM\x64");
    let kernel = Kernel { start: Some(start), ..Kernel::new() };
    let error = build_all(&kernel, b"").unwrap_err().to_string();
    let expected = "memory is for 64-bit ARM (arm64) processors, and bootlace-init for x86-64";
    assert!(error.contains(expected), "{error}");
    assert!(build(&kernel, &arm, &Options::default()).is_err(), "its modules are for PCs");
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
        let text = match build(&kernel, &init(b""), &options) {
            Ok(initrd) => initrd.modules.into_iter().map(|m| m.name).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        };
        assert!(text.contains(expected), "{text}");
    };
    check(&[RootKind::Nbd], "e1000e ext4 nbd ptp");
    // Further disks come by NBD, whatever the root is.
    check(&[RootKind::Aoe], "aoe crc32c_generic e1000e ext4 nbd ptp");
    check(&[RootKind::Nbd, RootKind::Nfs], "no module nfsv4, so no NFS root disks: leave nfs out");
    check(&[RootKind::Iscsi], "no module iscsi_tcp, so no iSCSI");
    kernel.add("kernel/fs/nfs/nfsv4.ko", &["depends=nfs"]);
    let options = Options { roots: Some([RootKind::Nfs].into()), ..Options::default() };
    let initrd = build(&kernel, &init(b""), &options).unwrap();
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
        let text = match build(&kernel, &init(b""), &options) {
            Ok(initrd) => {
                let base = ["crc32c_generic", "ext4", "nbd"];
                let names = initrd.modules.into_iter().map(|module| module.name);
                let names: Vec<String> =
                    names.filter(|name| !base.contains(&name.as_str())).collect();
                let warning = initrd.warnings.into_iter().find(|text| text.contains("card pci"));
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
    let initrd = build(&kernel, &init(b""), &options).unwrap();
    assert!(initrd.modules.iter().all(|module| module.name != "ext4"));
    assert_eq!(initrd.modules[1].why.to_string(), format!("network drivers: {intel}"));
}

#[test]
fn a_root_on_lvm_brings_the_device_mapper() {
    let mut kernel = Kernel::new();
    let options = || Options { is_on_lvm: true, ..Options::default() };
    let error = build(&kernel, &init(b""), &options()).unwrap_err().to_string();
    assert!(error.contains("dm_mod") && error.contains("roots on LVM"), "{error}");
    kernel.add("kernel/drivers/md/dm-mod.ko", &[]);
    let initrd = build(&kernel, &init(b""), &options()).unwrap();
    let module = initrd.modules.iter().find(|module| module.name == "dm_mod").unwrap();
    assert_eq!(module.why.to_string(), "roots on LVM");
    let usual = build_all(&kernel, b"").unwrap();
    assert!(usual.modules.iter().all(|module| module.name != "dm_mod"));
}

#[test]
fn tls_for_nbd_brings_the_authority_and_what_the_kernel_encrypts_with() {
    let mut kernel = Kernel::new();
    let options = Options { nbd_ca: Some(b"the authority".to_vec()), ..Options::default() };
    let without = build(&kernel, &init(b""), &options).unwrap();
    assert!(without.warnings.iter().any(|text| text.contains("no module tls")));
    kernel.add("kernel/net/tls/tls.ko", &[]);
    kernel.add("kernel/crypto/gcm.ko", &[]);
    let initrd = build(&kernel, &init(b""), &options).unwrap();
    for name in ["tls", "gcm"] {
        let module = initrd.modules.iter().find(|module| module.name == name).unwrap();
        assert_eq!(module.why.to_string(), "NBD over TLS");
    }
    assert!(String::from_utf8_lossy(&initrd.bytes).contains("the authority"));
    let usual = build_all(&kernel, b"").unwrap();
    assert!(usual.modules.iter().all(|module| module.name != "tls" && module.name != "gcm"));
    assert!(!String::from_utf8_lossy(&usual.bytes).contains("the authority"));
}
