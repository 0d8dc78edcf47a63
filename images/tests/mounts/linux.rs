//! What the kernel here mounts.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use crate::common::run;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

/// A place to mount at.
pub(crate) struct Mounts {
    pub(crate) folder: PathBuf,
    pub(crate) disk: PathBuf,
}

impl Mounts {
    /// Whether Linux mounts it with these options, and as these options say.
    fn mounts(&self, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", options]).arg(&self.disk).arg(&self.folder);
        if !mount.output().unwrap().status.success() {
            return false;
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let place = format!(" {} ", self.folder.display());
        let is_writable = mounts.lines().any(|line| line.contains(&place) && line.contains(" rw,"));
        run(Command::new("umount").arg(&self.folder));
        is_writable || options.contains("ro")
    }

    /// As machines mount it: read-only where they keep what is written elsewhere, and read-write.
    pub(crate) fn mounts_both_ways(&self, bytes: &[u8]) -> bool {
        let mut disk = File::create(&self.disk).unwrap();
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
