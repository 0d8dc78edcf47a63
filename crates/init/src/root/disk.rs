//! A root disk that is attached, and its partitions.

use crate::failure::Failure;
use crate::sysfs;
use std::fs::File;
use std::time::{Duration, Instant};

/// How long the kernel may take to read a partition table.
pub(super) const PARTITION_TIMEOUT: Duration = Duration::from_secs(15);

/// A block device as the kernel names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Below `/dev`, like `nbd0` or `etherd/e1.7`.
    pub(crate) name: String,
}

impl Disk {
    pub(crate) fn device(&self) -> String {
        format!("/dev/{}", self.name)
    }

    /// A file of the disk below `/sys/block`.
    pub(crate) fn sys(&self, file: &str) -> String {
        format!("/sys/block/{}/{file}", self.name.replace('/', "!"))
    }

    /// Size in bytes; `None` as long as the disk is not there or empty.
    pub(crate) fn size_bytes(&self) -> Option<u64> {
        sysfs::number(self.sys("size")).filter(|&sectors| sectors > 0)?.checked_mul(512)
    }

    /// Whether the kernel takes no writes for it.
    pub(crate) fn is_read_only(&self) -> bool {
        sysfs::number(self.sys("ro")) == Some(1)
    }

    fn partition(&self, number: u8) -> String {
        format!("/dev/{}{}{number}", self.name, self.before_number())
    }

    /// What stands between the disk's name and a partition's number: `nbd0p1`, but `sda1`.
    fn before_number(&self) -> &'static str {
        if self.name.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" }
    }
}

/// Waits until the kernel has read the partition table; returns the partition's device.
pub(super) fn wait_for_partition(disk: &Disk, number: u8) -> Result<String, Failure> {
    let device = disk.partition(number);
    let started = Instant::now();
    loop {
        // Opening the disk makes the kernel read its partition table.
        let opened = File::open(disk.device());
        if File::open(&device).is_ok() {
            return Ok(device);
        }
        drop(opened);
        if started.elapsed() > PARTITION_TIMEOUT {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let last = disk.name.rsplit('/').next().unwrap_or(&disk.name).to_owned();
    let mut partitions = sysfs::names(disk.sys(""));
    let start = format!("{last}{}", disk.before_number());
    partitions.retain(|name| name.starts_with(&start) || name.contains(&format!("!{start}")));
    let seen = match partitions.is_empty() {
        true => "it has no partitions at all".to_owned(),
        false => format!("it has only {}", partitions.join(", ")),
    };
    Err(Failure::new(
        format!("the root disk {} has no partition {number}; {seen}", disk.device()),
        "set the right partition of the image, or none if the file system fills the whole disk",
    ))
}

#[cfg(test)]
mod tests {
    use super::Disk;

    #[test]
    fn aoe_disks_have_a_folder_in_dev_but_not_in_sys() {
        let disk = Disk { name: "etherd/e1.7".to_owned() };
        assert_eq!(disk.device(), "/dev/etherd/e1.7");
        assert_eq!(disk.sys("size"), "/sys/block/etherd!e1.7/size");
        assert_eq!(disk.partition(2), "/dev/etherd/e1.7p2");
        assert_eq!(Disk { name: "sda".to_owned() }.partition(2), "/dev/sda2");
    }
}
