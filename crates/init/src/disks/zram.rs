//! Compressed swap space in the machine's memory, which does for a machine with little of it what a larger memory would.

use super::swap;
use crate::console::Console;
use crate::modules::Modules;
use crate::root::disk::Disk;
use crate::sysfs;
use initcfg::ZramPercent;
use std::fs;
use std::path::Path;

/// How it is compressed, the best first: the fastest, for what waits is somebody at the machine. A kernel has some of them.
const ALGORITHMS: [&str; 3] = ["lz4", "lzo-rle", "zstd"];

/// Who has more memory does without: what a desktop takes fits.
const MEMORY_BYTES_MAX: u64 = 4 << 30;

/// What sets zram up by itself, and by which files it is known. Each must be there.
const OWN: [(&str, &[&str]); 6] = [
    (
        "zram-generator",
        &[
            "usr/lib/systemd/system-generators/zram-generator",
            "usr/lib/systemd/zram-generator.conf",
        ],
    ),
    (
        "zram-generator",
        &["usr/lib/systemd/system-generators/zram-generator", "etc/systemd/zram-generator.conf"],
    ),
    ("zram-tools", &["usr/sbin/zramswap"]),
    ("zram-config", &["usr/bin/init-zram-swapping"]),
    ("systemd-swap", &["usr/bin/systemd-swap"]),
    ("zram-init", &["sbin/zram-init"]),
];

/// Sets it up, and says what it is; `None`: there is memory enough, or the root does that itself.
///
/// # Errors
/// In words, and the boot goes on.
pub(super) fn start(
    root: &Path,
    percent: ZramPercent,
    (modules, console): (&Modules, &Console),
) -> Result<Option<String>, String> {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_bytes = memory_bytes(&memory).ok_or("no zram: how much memory there is")?;
    if memory_bytes > MEMORY_BYTES_MAX {
        return Ok(None);
    }
    if let Some(own) = own_setup(root) {
        console.log(&format!("bootlace: disks: no zram, as the system has {own}"));
        return Ok(None);
    }
    let disk = Disk { name: "zram0".to_owned() };
    modules.load("zram", "num_devices=1").map_err(|error| format!("no zram: {error}"))?;
    if sysfs::read(disk.sys("disksize")).is_none() {
        return Err("no zram: this kernel has none, or the initrd".to_owned());
    }
    for name in ALGORITHMS {
        // Of kernels that have it apart; the kernel says whether it is there.
        let _ = modules.load(name, "");
        if fs::write(disk.sys("comp_algorithm"), name).is_ok() {
            break;
        }
    }
    let size_bytes = memory_bytes / 100 * u64::from(percent.get());
    fs::write(disk.sys("disksize"), size_bytes.to_string())
        .map_err(|error| error.to_string())
        .and_then(|()| {
            // The kernel rounds it up to whole pages.
            let size_bytes = disk.size_bytes().unwrap_or(0);
            swap::start(&disk.device(), size_bytes, swap::IN_MEMORY).map_err(|it| it.to_string())
        })
        .map_err(|error| format!("no zram: {error}"))?;
    Ok(Some(format!("compressed swap in memory, {} MiB", size_bytes >> 20)))
}

/// What sets zram up in this root by itself.
fn own_setup(root: &Path) -> Option<&'static str> {
    // Its links lead about inside of it.
    let is_there = |path: &&str| {
        crate::handover::resolve(root, Path::new(path)).is_some_and(|path| path.exists())
    };
    OWN.into_iter().find(|(_, files)| files.iter().all(is_there)).map(|(name, _)| name)
}

/// `MemTotal` of `/proc/meminfo`.
fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_system_that_does_it_itself_is_left_alone() {
        let root = std::env::temp_dir().join(format!("bootlace-zram-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let put = |path: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        put("usr/lib/systemd/system-generators/zram-generator");
        assert_eq!(own_setup(&root), None, "a generator without a configuration does nothing");
        put("usr/lib/systemd/zram-generator.conf");
        assert_eq!(own_setup(&root), Some("zram-generator"));
        fs::remove_file(root.join("usr/lib/systemd/zram-generator.conf")).unwrap();
        put("usr/sbin/zram-init");
        symlink("usr/sbin", root.join("sbin")).unwrap();
        assert_eq!(own_setup(&root), Some("zram-init"));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_memory_is_read() {
        assert_eq!(
            memory_bytes("MemTotal:        1000064 kB\nMemFree: 5 kB\n"),
            Some(1_024_065_536)
        );
        assert_eq!(memory_bytes("MemFree: 5 kB\n"), None);
        assert_eq!(memory_bytes("MemTotal: x kB"), None);
    }
}
