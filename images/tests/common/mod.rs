//! What the tests of this crate share.
#![expect(clippy::unwrap_used, reason = "a test that can't set up its place has failed")]
#![allow(dead_code, reason = "each test binary uses its part")]

use images::{Base, Block, Memory};
use model::{Architecture, FileSystem, ImageVersion};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Kernel that the little system claims to have.
pub(crate) const KERNEL: &str = "6.1.0-10-test";

/// A base in memory.
pub(crate) fn base(bytes: Vec<u8>) -> Base {
    let digest = blake3::hash(&bytes).to_hex().to_string();
    let version = ImageVersion {
        image: "debian-12".parse().unwrap(),
        version: 1,
        digest,
        size_bytes: bytes.len() as u64,
        partition: None,
        logical_volume: None,
        file_system: FileSystem::Ext4,
        kernel_version: KERNEL.to_owned(),
        architecture: Architecture::X86_64,
        os_name: None,
        imported_unix: 0,
    };
    Base { version, block: Arc::new(Memory::new(bytes)) }
}

/// Everything on a disk.
pub(crate) fn content(block: &dyn Block) -> Vec<u8> {
    let mut bytes = vec![0; block.size_bytes() as usize];
    block.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// The least that is a kernel of this version: a boot header, and 2 KiB of "system".
pub(crate) fn kernel_file(version: &str) -> Vec<u8> {
    let mut bytes = vec![0; 1024 + 2048];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0x1f1, &[1]);
    put(0x1f4, &(2048u32 / 16).to_le_bytes());
    put(0x202, b"HdrS");
    put(0x206, &0x20fu16.to_le_bytes());
    put(0x20e, &0x80u16.to_le_bytes());
    put(0x236, &1u16.to_le_bytes());
    put(0x280, version.as_bytes());
    bytes
}

/// The same for arm64, where the version stands in what the kernel prints first.
pub(crate) fn arm64_kernel_file(version: &str) -> Vec<u8> {
    let mut bytes = vec![0; 3072];
    bytes[0x38..0x3c].copy_from_slice(b"ARM\x64");
    let text = format!("Linux version {version} (builder@example.org) ");
    bytes[2048..2048 + text.len()].copy_from_slice(text.as_bytes());
    bytes
}

/// The files of a system that looks as if it could boot.
pub(crate) fn system_files(dir: &Path) {
    for folder in ["etc", "boot", "usr/sbin", "usr/lib/systemd"] {
        fs::create_dir_all(dir.join(folder)).unwrap();
    }
    symlink("usr/sbin", dir.join("sbin")).unwrap();
    symlink("usr/lib", dir.join("lib")).unwrap();
    fs::write(dir.join("usr/lib/systemd/systemd"), "init").unwrap();
    symlink("/lib/systemd/systemd", dir.join("usr/sbin/init")).unwrap();
    symlink("../usr/lib/os-release", dir.join("etc/os-release")).unwrap();
    fs::write(dir.join("usr/lib/os-release"), "ID=test\nPRETTY_NAME=\"Test 1 (small)\"\n").unwrap();
    for kernel in [KERNEL, "6.1.0-9-test"] {
        let modules = dir.join("usr/lib/modules").join(kernel);
        fs::create_dir_all(modules.join("kernel/drivers/net")).unwrap();
        fs::write(modules.join("modules.dep"), "kernel/drivers/net/nic.ko:\n").unwrap();
        let module: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect();
        fs::write(modules.join("kernel/drivers/net/nic.ko"), module).unwrap();
        let boot = dir.join("boot").join(format!("vmlinuz-{kernel}"));
        fs::write(boot, kernel_file(kernel)).unwrap();
    }
}

/// Makes an ext4 disk of these files that begins at `offset` of a file of `size_bytes`.
pub(crate) fn make_ext4(files: &Path, disk: &Path, offset: u64, size_bytes: u64) {
    fs::File::create(disk).unwrap().set_len(size_bytes).unwrap();
    let blocks = (size_bytes - offset) / 1024;
    run(Command::new("mkfs.ext4")
        .args(["-q", "-F", "-b", "1024", "-E", &format!("offset={offset}"), "-d"])
        .arg(files)
        .arg(disk)
        .arg(format!("{blocks}k")));
}

/// A small bootable disk in `dir`.
pub(crate) fn system_disk(dir: &Path) -> PathBuf {
    let files = dir.join("files");
    system_files(&files);
    let disk = dir.join("system.raw");
    make_ext4(&files, &disk, 0, 24 << 20);
    disk
}

/// Runs a program that must succeed.
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
