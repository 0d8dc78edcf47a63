//! What arm64 PCs of the lab boot: a small Debian, and GRUB's modules. Nothing of it runs on this machine, so that nothing here
//! has to run programs for arm64.

use crate::command::run;
use crate::image::{CACHE, fnv1a};
use crate::lock::Lock;
use anyhow::{Context, Result};
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Size of the disk, which is sparse.
const DISK_BYTES: u64 = 512 << 20;

/// Fetches and unpacks packages; run with a folder as `$1`, and apt that knows the release and the architecture.
const FETCH: &str = r#"set -eu
cd "$1"
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
kernel=$(apt-cache depends linux-image-arm64 | sed -n 's/.* \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
apt-get download -qq base-files busybox-static grub-efi-arm64-bin grub-efi-arm64-signed shim-signed "$kernel"
for package in *.deb; do dpkg-deb -x "$package" packages; done
"#;

/// Makes of them a system that is at its prompt at once, by busybox; run in the same folder. Drivers that no PC of the lab has are
/// left out.
const ROOT: &str = r#"set -eu
cd "$1"
mv packages/usr/lib/grub/arm64-efi grub
mkdir signed
mv packages/usr/lib/shim/shimaa64.efi.signed packages/usr/lib/grub/arm64-efi-signed/grubnetaa64.efi.signed signed/
mkdir root && cd root
mkdir -p bin boot dev etc lib proc root run sbin sys tmp usr/lib usr/sbin var/log
mv ../packages/bin/busybox bin/
mv ../packages/boot/vmlinuz-* boot/
mv ../packages/lib/modules lib/
mv ../packages/usr/lib/os-release usr/lib/
ln -s ../usr/lib/os-release etc/os-release
for folder in gpu infiniband media net/wireless; do rm -rf lib/modules/*/kernel/drivers/$folder; done
rm -rf lib/modules/*/kernel/sound
for name in cat dmesg echo ip login ls mount sh sync umount uname; do ln -s busybox bin/$name; done
for name in getty init poweroff reboot; do ln -s ../bin/busybox sbin/$name; done
echo 'root::0:0:root:/root:/bin/sh' > etc/passwd
echo 'root:x:0:' > etc/group
echo 'root::1:0:99999:7:::' > etc/shadow
printf 'Bootlace demo \\n \\l\n\n' > etc/issue
: > etc/fstab
cat > etc/inittab <<'TABLE'
::sysinit:/bin/mount -o remount,rw /
ttyAMA0::respawn:/sbin/getty -L ttyAMA0 115200 vt100
::ctrlaltdel:/sbin/reboot
::shutdown:/bin/umount -a -r
TABLE
"#;

/// What arm64 PCs boot, made once and kept.
#[derive(Clone, Debug)]
pub struct Arm64 {
    /// The disk image.
    pub image: PathBuf,
    /// GRUB's modules, as `[boot] arm64_grub` wants them.
    pub grub: PathBuf,
    /// The signed loader, as `[boot] arm64_signed_loader` wants it.
    pub signed: PathBuf,
}

impl Arm64 {
    /// The firmware of QEMU's arm64 PCs, of Debian's package `qemu-efi-aarch64`. Its variables say whether Secure Boot is on.
    pub const FIRMWARE: &str = "/usr/share/AAVMF/AAVMF_CODE.fd";

    /// Both, which are made if they are not there yet; `say` hears about the long work.
    ///
    /// # Errors
    /// mmdebstrap or mkfs.ext4 fail: mostly no network, or no room.
    pub fn make(say: impl Fn(&str)) -> Result<Self> {
        let key = fnv1a([FETCH, ROOT, &DISK_BYTES.to_string()].join("\0").as_bytes());
        let name = format!("debian-12-arm64-{key:016x}");
        let folder = Path::new(CACHE).join(&name);
        let [image, grub, signed] = ["disk.raw", "grub", "signed"].map(|name| folder.join(name));
        let made = Self { image, grub, signed };
        if folder.exists() {
            return Ok(made);
        }
        std::fs::create_dir_all(CACHE).with_context(|| format!("can't make {CACHE}"))?;
        let _lock =
            Lock::take(&name, || say("waiting for another run that makes the arm64 image"))?;
        if folder.exists() {
            return Ok(made);
        }
        say("making a small Debian 12 for arm64, kept for the next time; this takes a minute");
        let work = tempfile::Builder::new().prefix("new-").tempdir_in(CACHE)?;
        let [place, done] = ["place", "done"].map(|name| work.path().join(name));
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", "--variant=custom", "--mode=root", "--format=directory"]);
        command.args([
            "--architectures=arm64",
            "--skip=check/qemu",
            "--aptopt=Acquire::Languages \"none\"",
        ]);
        // mmdebstrap runs hooks by `sh -c HOOK exec ROOT`.
        command.args([FETCH, ROOT].map(|script| format!("--customize-hook={script}")));
        run(command.arg("bookworm").arg(&place).env("LC_ALL", "C"))
            .context("can't make the arm64 image")?;
        std::fs::create_dir(&done)?;
        let disk = done.join("disk.raw");
        File::create(&disk)?.set_len(DISK_BYTES)?;
        let options = "lazy_itable_init=0,lazy_journal_init=0";
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-L", "bootlace-arm64", "-E", options, "-d"])
            .args([&place.join("root"), &disk]))
        .context("can't make the image's file system")?;
        for name in ["grub", "signed"] {
            std::fs::rename(place.join(name), done.join(name))?;
        }
        // Servers read there, whoever they are.
        std::fs::set_permissions(&done, Permissions::from_mode(0o755))?;
        std::fs::rename(&done, &folder)?;
        Ok(made)
    }
}
