//! Disk images with a small Debian, for PCs to boot. Made once and kept.

use crate::command::{run, text_of};
use crate::lock::Lock;
use anyhow::{Context, Result, ensure};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Where images are kept between runs.
pub(crate) const CACHE: &str = "/var/cache/bootlace-lab";

/// Size of the disk. The file system is sparse: the file takes what Debian takes, 0.5 GB.
const DISK_BYTES: u64 = 1 << 30;

/// Packages on top of `minbase`. What a workstation would have is not needed to prove a boot.
const PACKAGES: &str = "iproute2,iputils-ping,kmod,linux-image-amd64,udev";

/// What no diskless PC in QEMU needs, which halves time and size. Debian 13 has `/usr/lib/modules`.
const LEFT_OUT: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/*lib/modules/*/kernel/drivers/gpu/*",
    "/*lib/modules/*/kernel/drivers/infiniband/*",
    "/*lib/modules/*/kernel/drivers/media/*",
    "/*lib/modules/*/kernel/drivers/net/wireless/*",
    "/*lib/modules/*/kernel/sound/*",
];

/// Run with the new system's folder as `$1`. The host name and the resolver are the boot server's
/// business, and networkd is there to prove that it keeps its hands off the boot NIC.
const SETTINGS: &str = r#"set -eu
cd "$1"
rm -f etc/hostname etc/resolv.conf
: > etc/machine-id
: > etc/fstab
sed -i 's/^root:[^:]*:/root::/' etc/shadow
printf 'Bootlace demo \\n \\l\n\n' > etc/issue
[ -d etc/systemd/network ] || exit 0
printf '[Match]\nType=ether\n\n[Network]\nDHCP=yes\n' > etc/systemd/network/80-wired.network
ln -s /lib/systemd/system/systemd-networkd.service etc/systemd/system/multi-user.target.wants/
mkdir -p etc/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\n' > etc/systemd/journald.conf.d/volatile.conf
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer systemd-logind.service systemd-pstore.service; do
  ln -sf /dev/null etc/systemd/system/$unit
done
"#;

/// A release of Debian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Release {
    /// bookworm: systemd 252, Linux 6.1.
    #[default]
    Debian12,
    /// trixie: systemd 257, Linux 6.12.
    Debian13,
}

impl Release {
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Debian12 => 12,
            Self::Debian13 => 13,
        }
    }

    pub(crate) fn suite(self) -> &'static str {
        match self {
            Self::Debian12 => "bookworm",
            Self::Debian13 => "trixie",
        }
    }
}

/// The first program of a system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Init {
    /// Debian's own.
    #[default]
    Systemd,
    /// OpenRC on sysvinit.
    OpenRc,
    /// busybox, with an inittab.
    Busybox,
}

impl Init {
    fn packages(self) -> &'static str {
        match self {
            Self::Systemd => "systemd-sysv",
            Self::OpenRc => "openrc,sysvinit-core",
            Self::Busybox => "busybox-static",
        }
    }
}

/// How an image is made. Different recipes are kept side by side.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// What it is made of.
    pub release: Release,
    /// Its init.
    pub init: Init,
    /// Further packages, comma-separated.
    pub packages: &'static str,
    /// Shell script that runs at last, with the new system's folder as `$1`.
    pub script: &'static str,
}

impl Recipe {
    /// Path of the image, which is made if it is not there yet; `say` hears about the long work.
    ///
    /// # Errors
    /// mmdebstrap or mkfs.ext4 fail: mostly no network, or no room.
    pub fn image(&self, say: impl Fn(&str)) -> Result<PathBuf> {
        let name = self.name();
        let path = Path::new(CACHE).join(format!("{name}.raw"));
        if path.exists() {
            return Ok(path);
        }
        std::fs::create_dir_all(CACHE).with_context(|| format!("can't make {CACHE}"))?;
        let _lock = Lock::take(&name, || say("waiting for another run that makes the image"))?;
        if path.exists() {
            return Ok(path);
        }
        let with = if self.packages.is_empty() { "" } else { " with " };
        say(&format!(
            "making a small Debian {}{with}{} by mmdebstrap, kept for the next time; this takes 2 to \
             5 minutes",
            self.release.number(),
            self.packages
        ));
        let start = Instant::now();
        // Beside its place, so that the rename is atomic and no half image is ever seen.
        let folder = tempfile::Builder::new().prefix("new-").tempdir_in(CACHE)?;
        let disk = folder.path().join("disk.raw");
        self.make(&folder.path().join("root"), &disk)?;
        std::fs::rename(&disk, &path)?;
        say(&format!("image ready in {} s: {}", start.elapsed().as_secs(), path.display()));
        Ok(path)
    }

    fn make(&self, root: &Path, disk: &Path) -> Result<()> {
        let mut command = Command::new("mmdebstrap");
        let log = root.with_extension("log");
        command.args(["--variant=minbase", "--mode=root"]);
        command.arg(format!("--logfile={}", log.display()));
        command.arg(format!("--include={}", self.all_packages()));
        command.arg("--aptopt=Acquire::Languages \"none\"");
        command.args(LEFT_OUT.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
        for script in [SETTINGS, self.script].iter().filter(|script| !script.is_empty()) {
            // mmdebstrap runs hooks by `sh -c HOOK exec ROOT`.
            command.arg(format!("--customize-hook={script}"));
        }
        command.arg(self.release.suite()).arg(root);
        // Debian's own initrd takes as long as all the rest, and is not used (kernel's postinst.d).
        let made = run(command.env("LC_ALL", "C").env("INITRD", "No"));
        made.with_context(|| format!("can't make the Debian image:\n{}", end_of(&log)))?;
        let file = std::fs::File::create(disk)?;
        file.set_len(DISK_BYTES)?;
        // The lazy initialization would go on in the guest, on its write layer.
        let options = "lazy_itable_init=0,lazy_journal_init=0";
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-L", "bootlace-demo", "-E", options, "-d"])
            .args([root, disk]))
        .context("can't make the image's file system")
    }

    fn all_packages(&self) -> String {
        let mut packages = format!("{PACKAGES},{}", self.init.packages());
        if !self.packages.is_empty() {
            packages.push(',');
            packages.push_str(self.packages);
        }
        packages
    }

    /// Changes with everything that changes the image.
    fn name(&self) -> String {
        format!("debian-{}-{:016x}", self.release.number(), self.key())
    }

    fn key(&self) -> u64 {
        let size = DISK_BYTES.to_string();
        let packages = self.all_packages();
        let mut parts = vec![packages.as_str(), &size, SETTINGS, self.script];
        parts.extend(LEFT_OUT);
        fnv1a(parts.join("\0").as_bytes())
    }
}

/// A copy of the image at `copy` that says `mark` before its login prompt.
///
/// # Errors
/// No room, or `debugfs` fails.
pub fn marked_copy(image: &Path, copy: &Path, mark: &str) -> Result<()> {
    copy_with(image, copy, "/etc/issue", &format!("{mark} \\n \\l\n\n"))
}

/// A copy of the image at `copy` in which the file `path` holds `content`.
///
/// # Errors
/// No room, or `debugfs` fails.
pub fn copy_with(image: &Path, copy: &Path, path: &str, content: &str) -> Result<()> {
    run(Command::new("cp").args(["--sparse=always", "--reflink=auto"]).args([image, copy]))?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), content)?;
    // As files of a system are.
    std::fs::set_permissions(file.path(), Permissions::from_mode(0o644))?;
    for request in [format!("rm {path}"), format!("write {} {path}", file.path().display())] {
        run(Command::new("debugfs").args(["-w", "-R", &request]).arg(copy))?;
    }
    // debugfs ends with success, whatever happened.
    let request = format!("cat {path}");
    let text = text_of(Command::new("debugfs").args(["-R", &request]).arg(copy))?;
    ensure!(
        text.contains(content.trim_end()),
        "debugfs did not write {path} into {}",
        copy.display()
    );
    Ok(())
}

/// The last lines of a log.
fn end_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Fowler-Noll-Vo hash; good enough to tell recipes apart, and the same for ever.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_told_apart() {
        let plain = Recipe::default();
        assert_eq!(plain.key(), Recipe::default().key());
        assert_ne!(plain.key(), Recipe { packages: "nbd-client", ..plain.clone() }.key());
        assert_ne!(plain.key(), Recipe { script: "true", ..plain.clone() }.key());
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
