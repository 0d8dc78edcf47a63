//! fstab(5) and crypttab(5): what they want of a disk that is another one now.

use super::System;
use super::found::{Change, Checked, Found};

const FSTAB: &str = "/etc/fstab";
const CRYPTTAB: &str = "/etc/crypttab";

/// File systems that are on no disk, or on another machine's.
const WITHOUT_DISK: [&str; 21] = [
    "9p",
    "autofs",
    "bpf",
    "cgroup",
    "cgroup2",
    "cifs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fuse.sshfs",
    "hugetlbfs",
    "mqueue",
    "nfs",
    "nfs4",
    "overlay",
    "proc",
    "securityfs",
    "smb3",
    "sysfs",
    "tmpfs",
];

/// A line of one of these files that says something.
struct Line<'a> {
    index: usize,
    fields: Vec<&'a str>,
}

impl Line<'_> {
    /// Whether its options have one of these.
    fn has_option(&self, field: usize, wanted: &[&str]) -> bool {
        let options = self.fields.get(field).copied().unwrap_or_default();
        options.split(',').any(|option| wanted.contains(&option))
    }
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        (!fields.first()?.starts_with('#')).then_some(Line { index, fields })
    })
}

/// Whether it names a device, whatever it is called.
fn is_device(source: &str) -> bool {
    let upper = source.to_ascii_uppercase();
    source.starts_with("/dev/")
        || ["UUID=", "LABEL=", "PARTUUID=", "PARTLABEL="].iter().any(|tag| upper.starts_with(tag))
}

fn found(line: &Line<'_>, path: &str, what: String) -> Found {
    let change = Change::CommentOut { path: path.to_owned(), line: line.index };
    Found::new(what).at(path).in_line(line.index).changing(change)
}

/// A file system that must be mounted, and that the disk does not have.
pub(super) fn missing_mounts(system: &System<'_>) -> Checked {
    let text = system.tree.text(FSTAB)?;
    let is_wanted = |line: &Line<'_>| {
        let [source, place, kind, ..] = line.fields[..] else { return false };
        // The root is there, by whatever name.
        let is_mounted = place.starts_with('/') && place != "/";
        let is_free = line.has_option(3, &["noauto", "nofail", "bind", "rbind", "_netdev"])
            || line.has_option(3, &["x-systemd.automount", "loop"]);
        is_mounted && !is_free && !WITHOUT_DISK.contains(&kind) && is_device(source)
    };
    let lost = lines(&text).filter(is_wanted).filter(|line| !system.disk.have(line.fields[0]));
    Ok(lost
        .map(|line| {
            let what = format!(
                "{} is to be mounted at {}, and the image's disk has nothing of that name",
                line.fields[0], line.fields[1]
            );
            found(&line, FSTAB, what)
        })
        .collect())
}

/// Lines of swap, each with whether it is on the image's disk.
fn swaps<'a>(
    system: &System<'_>,
    text: &'a str,
) -> Result<Vec<(Line<'a>, bool)>, crate::RootfsError> {
    let mut swaps = Vec::new();
    for line in lines(text) {
        let [source, _, kind, ..] = line.fields[..] else { continue };
        if kind != "swap" || line.has_option(3, &["noauto"]) || source.starts_with("/dev/zram") {
            continue;
        }
        let is_there = if is_device(source) {
            system.disk.have(source)
        } else {
            source.starts_with('/') && system.tree.exists(source)?
        };
        swaps.push((line, is_there));
    }
    Ok(swaps)
}

/// Swap that is not there.
pub(super) fn missing_swap(system: &System<'_>) -> Checked {
    let text = system.tree.text(FSTAB)?;
    let lost = swaps(system, &text)?.into_iter().filter(|(_, is_there)| !is_there);
    let lost = lost.filter(|(line, _)| !line.has_option(3, &["nofail"]));
    let told = |(line, _): (Line<'_>, bool)| {
        let what =
            format!("it wants swap on {}, which the image's disk does not have", line.fields[0]);
        found(&line, FSTAB, what)
    };
    Ok(lost.map(told).collect())
}

/// Swap on the disk that comes over the network.
pub(super) fn network_swap(system: &System<'_>) -> Checked {
    let text = system.tree.text(FSTAB)?;
    let there = swaps(system, &text)?.into_iter().filter(|(_, is_there)| *is_there);
    let told = |(line, _): (Line<'_>, bool)| {
        let what =
            format!("{} is swap on the image's disk, which comes over the network", line.fields[0]);
        found(&line, FSTAB, what)
    };
    Ok(there.map(told).collect())
}

/// Encrypted volumes that are to be opened.
pub(super) fn encrypted(system: &System<'_>) -> Checked {
    let text = system.tree.text(CRYPTTAB)?;
    let wanted = lines(&text).filter(|line| {
        let [_, source, ..] = line.fields[..] else { return false };
        let is_free = line.has_option(3, &["noauto", "nofail", "_netdev"]);
        !is_free && is_device(source)
    });
    let told = |line: Line<'_>| {
        let (name, source) = (line.fields[0], line.fields[1]);
        let what = match system.disk.have(source) {
            true => format!(
                "{name} is to be opened on {source}, which asks for a passphrase at each machine"
            ),
            false => {
                format!("{name} is to be opened on {source}, which the image's disk does not have")
            }
        };
        found(&line, CRYPTTAB, what)
    };
    Ok(wanted.map(told).collect())
}
