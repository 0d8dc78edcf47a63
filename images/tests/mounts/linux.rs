//! What the kernel here mounts.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Mounts, tells of all mounts, and unmounts.
const MOUNT: &str =
    "mount -t ext4 -o \"$1\" \"$2\" \"$3\" || exit 1; cat /proc/self/mounts; umount \"$3\"";

const LOOP_DEVICE_WAIT: Duration = Duration::from_secs(60);

/// A place to mount at.
pub(crate) struct Mounts {
    folder: PathBuf,
    disk: PathBuf,
    /// Something was mounted.
    is_possible: Cell<bool>,
}

impl Mounts {
    pub(crate) fn new(folder: &Path) -> Self {
        let mounted = folder.join("mounted");
        fs::create_dir(&mounted).unwrap();
        Self { folder: mounted, disk: folder.join("disk.raw"), is_possible: Cell::new(false) }
    }

    /// Whether Linux mounts it with these options, and as these options say.
    fn mounts(&self, options: &str) -> bool {
        let mut waited = Duration::ZERO;
        // In a namespace of its own: whoever else makes one in this moment would have a copy of the mount, and keep the disk in
        // use with the content that it has now.
        let mut mount = Command::new("unshare");
        mount.args(["--mount", "--propagation", "private", "sh", "-c", MOUNT, "sh", options]);
        mount.arg(&self.disk).arg(&self.folder);
        let told = loop {
            let told = mount.output().unwrap();
            // Others have all loop devices: that says nothing of the disk.
            if !String::from_utf8_lossy(&told.stderr).contains("loop device") {
                break told;
            }
            if !self.is_possible.get() {
                return false;
            }
            assert!(waited < LOOP_DEVICE_WAIT, "no loop device is free");
            std::thread::sleep(Duration::from_millis(100));
            waited += Duration::from_millis(100);
        };
        if !told.status.success() {
            return false;
        }
        self.is_possible.set(true);
        let mounts = String::from_utf8_lossy(&told.stdout);
        let place = format!(" {} ", self.folder.display());
        let is_writable = mounts.lines().any(|line| line.contains(&place) && line.contains(" rw,"));
        is_writable || options.contains("ro")
    }

    /// As machines mount it: read-only where they keep what is written elsewhere, and read-write.
    pub(crate) fn mounts_both_ways(&self, bytes: &[u8]) -> bool {
        // Another file each time: nothing is left of the former one.
        let _ = fs::remove_file(&self.disk);
        let mut disk = File::create_new(&self.disk).unwrap();
        for (n, block) in bytes.chunks(1 << 16).enumerate() {
            if block.iter().any(|&byte| byte != 0) {
                disk.write_all_at(block, (n << 16) as u64).unwrap();
            }
        }
        disk.set_len(bytes.len() as u64).unwrap();
        disk.flush().unwrap();
        self.mounts("loop,ro,noload") && self.mounts("loop,rw")
    }
}
