//! What a system mounts beside its root, by its own list (fstab(5)).

use std::path::{Path, PathBuf};

/// Most lines that are looked at.
const LINES_MAX: usize = 1000;

/// A line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Of what: `UUID=…` or `/dev/sda2`.
    pub(super) source: String,
    /// Where, without a slash at the beginning; a swap file's own path.
    pub(super) at: PathBuf,
    pub(super) kind: LineKind,
    /// The subvolume of btrfs that it names.
    pub(super) subvolume: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineKind {
    /// Files of a disk.
    Files,
    /// A file of the system that is swapped to.
    SwapFile,
}

/// The lines that count here, in their order: not the root, not what is no disk, not what is mounted by hand.
pub(super) fn lines(fstab: &[u8]) -> Vec<Line> {
    let text = String::from_utf8_lossy(fstab);
    text.lines().take(LINES_MAX).filter_map(line).collect()
}

fn line(text: &str) -> Option<Line> {
    let mut fields = text.split_whitespace();
    let source = plain(fields.next().filter(|source| !source.starts_with('#'))?);
    let (at, kind) = (plain(fields.next()?), fields.next()?);
    let options = fields.next().unwrap_or_default();
    let mut options_of = options.split(',');
    if kind == "swap" {
        let file = source.strip_prefix('/').filter(|_| !source.starts_with("/dev/"))?;
        let at = inside(file)?;
        return Some(Line { source, at, kind: LineKind::SwapFile, subvolume: None });
    }
    let is_known = matches!(kind, "ext2" | "ext3" | "ext4" | "xfs" | "btrfs" | "vfat" | "auto");
    let is_elsewhere =
        options.split(',').any(|it| matches!(it, "noauto" | "bind" | "rbind" | "_netdev"));
    let is_disk = source.starts_with("/dev/") || source.contains('=');
    if !is_known || is_elsewhere || !is_disk {
        return None;
    }
    let at = inside(at.strip_prefix('/')?)?;
    if at.as_os_str().is_empty() {
        return None;
    }
    let subvolume = options_of.find_map(|it| it.strip_prefix("subvol="));
    let subvolume = subvolume.map(|it| it.trim_start_matches('/').to_owned());
    Some(Line { source, at, kind: LineKind::Files, subvolume })
}

/// A path that leads nowhere else; `None`: it does.
fn inside(path: &str) -> Option<PathBuf> {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    let path: PathBuf = parts.collect();
    path.iter().all(|part| part != "..").then_some(path)
}

/// A field without quotes, and its spaces as they are (`\040`).
fn plain(field: &str) -> String {
    field.replace('"', "").replace("\\040", " ").replace("\\011", "\t")
}

/// Whether firmware's own files are there, which a diskless PC has no use for.
pub(super) fn is_of_firmware(at: &Path) -> bool {
    ["boot/efi", "efi", "boot/firmware"].iter().any(|it| at == Path::new(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_from_disks_is_found() {
        let fstab = b"# <file system> <mount point>\n\
            UUID=1-2 / ext4 errors=remount-ro 0 1\n\
            UUID=\"AB-CD\" /boot/efi vfat umask=0077 0 1\n\
            /dev/mapper/vg-home\t/home/  xfs defaults 0 2\n\
            LABEL=data /srv/my\\040files auto nofail\n\
            UUID=3 /.snapshots btrfs subvol=/@snap,ro\n\
            /swap.img none swap sw 0 0\n\
            UUID=4 none swap sw\n\
            tmpfs /tmp tmpfs\n\
            server:/x /mnt nfs\n\
            /dev/sr0 /media/cdrom udf,iso9660 user,noauto\n\
            /dev/sdb1 /../etc ext4\n\
            /srv /export none bind\n\
            broken\n";
        let found = lines(fstab);
        let told: Vec<String> = found
            .iter()
            .map(|it| format!("{} {} {:?} {:?}", it.source, it.at.display(), it.kind, it.subvolume))
            .collect();
        assert_eq!(
            told,
            [
                "UUID=AB-CD boot/efi Files None",
                "/dev/mapper/vg-home home Files None",
                "LABEL=data srv/my files Files None",
                "UUID=3 .snapshots Files Some(\"@snap\")",
                "/swap.img swap.img SwapFile None",
            ]
        );
        assert!(is_of_firmware(&found[0].at) && !is_of_firmware(&found[1].at));
        for end in 0..fstab.len() {
            let _ = lines(&fstab[..end]);
        }
        assert_eq!(lines(&[0xff; 20]), []);
    }
}
