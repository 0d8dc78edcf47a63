//! Debian packages that building and testing need.

use crate::command::text_of;
use crate::lock::Lock;
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;
use std::fmt::Write;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The suite that newer QEMU tools come from on Debian 12.
const BACKPORTS: &str = "bookworm-backports";

/// Where we add that suite.
const BACKPORTS_LIST: &str = "/etc/apt/sources.list.d/bootlace-lab-backports.list";

/// Packages that must be of the same release as `qemu-utils`: they share `qemu-system-common`.
const QEMU: &[&str] = &["qemu-system-arm", "qemu-system-x86"];

/// A Debian package and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// What we use it for, to complete "… for …".
    pub purpose: &'static str,
}

const fn package(name: &'static str, purpose: &'static str) -> Package {
    Package { name, purpose }
}

/// For building.
pub const BUILD: &[Package] = &[
    package("gcc", "linking, and the SQLite and compression libraries"),
    package("libc6-dev", "linking, and the static init of the initrd"),
];

/// For the Debian package.
pub const PACKAGING: &[Package] = &[
    package("binutils", "stripping programs (strip)"),
    package("gcc-aarch64-linux-gnu", "the init for arm64 PCs whose disks are encrypted"),
    package("libc6-dev-arm64-cross", "the init for arm64 PCs whose disks are encrypted"),
    package("lintian", "checking the package"),
];

/// For the demo, the tests and the benchmarks.
pub const LAB: &[Package] = &[
    package("aoetools", "a foreign AoE client in tests"),
    package("atftp", "a foreign TFTP client in tests"),
    package("busybox-static", "foreign DHCP and TFTP clients in tests"),
    package("btrfs-progs", "roots on btrfs in tests"),
    package("curl", "fetching pages and boot files"),
    package("dnsmasq-base", "the other boot server in benchmarks"),
    package("dhcpcd-base", "a foreign DHCP client in tests"),
    package("e2fsprogs", "making file systems in images"),
    package("erofs-utils", "roots on erofs in tests"),
    package("faketime", "clocks of servers that jump, in tests"),
    package("fio", "measuring disks"),
    package("grub-common", "building the network loader (grub-mkimage)"),
    package("grub-efi-amd64-bin", "the network loader for UEFI"),
    package("grub-efi-amd64-signed", "the signed loader for PCs with Secure Boot"),
    package("grub-pc-bin", "the network loader for BIOS"),
    package("ipxe", "iPXE as loader, and for boot media"),
    package("ipxe-qemu", "network boot of QEMU's NICs"),
    package("iproute2", "network namespaces"),
    package("isc-dhcp-client", "a foreign DHCP client in tests"),
    package("isc-dhcp-relay", "a foreign DHCP relay in tests"),
    package("isc-dhcp-server", "the DHCP server before Bootlace, in tests"),
    package("kea-admin", "a foreign crowd of DHCP clients in tests and benchmarks (perfdhcp)"),
    package(
        "kea-dhcp4-server",
        "the other DHCP server before and beside Bootlace, in tests and benchmarks",
    ),
    package("ldap-utils", "a foreign LDAP client in tests"),
    package("libnbd-bin", "foreign NBD clients in tests"),
    package("lvm2", "roots on LVM in tests"),
    package("memtest86+", "the memory test that PCs start, in tests"),
    package("mmdebstrap", "making the demo image"),
    package("mtools", "the EFI partition of boot media"),
    package("ndisc6", "a foreign IPv6 client in tests"),
    package("nfs-ganesha", "an NFS server in tests"),
    package("nfs-ganesha-vfs", "the NFS server's way to its files"),
    package("nbdkit", "the other NBD server in benchmarks"),
    package("nbd-server", "another NBD server in benchmarks"),
    package("nginx-light", "the other HTTP server in benchmarks"),
    package("nmap", "a foreign DHCP client in tests"),
    package("openssh-client", "reading the SSH host keys that we make, in tests"),
    package("ovmf", "UEFI firmware of QEMU PCs"),
    package("python3-libnbd", "illegal NBD requests in tests"),
    package("python3-aiosmtpd", "a mail server that takes alerts in tests"),
    package("qemu-efi-aarch64", "UEFI firmware of QEMU arm64 PCs"),
    package("qemu-system-arm", "arm64 PCs to boot"),
    package("qemu-system-x86", "PCs to boot"),
    package("qemu-utils", "converting disk images"),
    package("rpcbind", "NFS 3 in tests"),
    package("rpm", "foreign kernel packages in tests"),
    package("seabios", "BIOS firmware of QEMU PCs"),
    package("shim-signed", "the signed loader for PCs with Secure Boot"),
    package("slapd", "a directory that knows people, in tests"),
    package("squashfs-tools", "roots on squashfs in tests"),
    package("systemd-container", "shells in images (systemd-nspawn)"),
    package("tcpdump", "looking at packets when a test fails"),
    package("tgt", "an iSCSI server in tests"),
    package("tftp-hpa", "a foreign TFTP client in tests"),
    package("udhcpc", "a foreign DHCP client in tests"),
    package("util-linux", "ending children with their parent (setpriv)"),
    package("vblade", "the other AoE server in tests"),
    package("vde2", "a switch with VLANs in tests"),
    package("xfsprogs", "roots on xfs in tests"),
    package("xorriso", "boot media"),
    package("xz-utils", "unpacking kernels that QEMU starts itself"),
    package("zstd", "looking into initrds in tests"),
];

/// Installs what is missing of these; `say` hears what and why.
///
/// # Errors
/// Not root, no Debian, or apt-get fails.
pub fn install(packages: &[Package], say: impl Fn(&str)) -> Result<()> {
    if !Path::new("/usr/bin/dpkg-query").exists() {
        let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
        bail!("this is no Debian; install by hand what these packages hold: {}", names.join(" "));
    }
    if missing(packages)?.is_empty() {
        return Ok(());
    }
    let _lock = Lock::take("packages", || say("waiting for another run that installs packages"))?;
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let mut list = String::from("installing Debian packages:");
    for package in &missing {
        write!(list, "\n  {:20} for {}", package.name, package.purpose)?;
    }
    say(&list);
    ensure!(
        nix::unistd::geteuid().is_root(),
        "only root can install packages; as root: apt-get install {}",
        missing.iter().map(|package| package.name).collect::<Vec<_>>().join(" ")
    );
    let (qemu, rest): (Vec<Package>, Vec<Package>) =
        missing.into_iter().partition(|package| QEMU.contains(&package.name));
    let needs_backports = !qemu.is_empty() && qemu_utils_are_backports()?;
    if needs_backports {
        add_backports(&say)?;
    }
    apt_get(&["update"], None)?;
    let release = if needs_backports { Some(BACKPORTS) } else { None };
    for (packages, release) in [(qemu, release), (rest, None)] {
        if !packages.is_empty() {
            let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
            arguments.extend(packages.iter().map(|package| package.name));
            apt_get(&arguments, release)?;
        }
    }
    Ok(())
}

/// Those that are not installed.
fn missing(packages: &[Package]) -> Result<Vec<Package>> {
    let states = states()?;
    Ok(packages.iter().filter(|package| !states.contains_key(package.name)).copied().collect())
}

/// Versions of all installed packages.
fn states() -> Result<HashMap<String, String>> {
    let format = "${Package} ${db:Status-Status} ${Version}\n";
    let text = text_of(Command::new("dpkg-query").args(["--show", "--showformat", format]))?;
    Ok(text.lines().filter_map(installed).collect())
}

fn installed(line: &str) -> Option<(String, String)> {
    let mut words = line.split(' ');
    let (name, state, version) = (words.next()?, words.next()?, words.next()?);
    (state == "installed").then(|| (name.to_owned(), version.to_owned()))
}

fn qemu_utils_are_backports() -> Result<bool> {
    Ok(states()?.get("qemu-utils").is_some_and(|version| version.contains("~bpo12")))
}

/// Debian 12's QEMU does not go with tools from backports, so it must come from there too.
fn add_backports(say: &impl Fn(&str)) -> Result<()> {
    let policy = text_of(Command::new("apt-cache").arg("policy").env("LC_ALL", "C"))?;
    if policy.contains(&format!("{BACKPORTS}/main")) {
        return Ok(());
    }
    let mirror = mirror(&policy).unwrap_or("http://deb.debian.org/debian");
    say(&format!(
        "qemu-utils is from {BACKPORTS}, so QEMU must be too: adding that suite in {BACKPORTS_LIST}"
    ));
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    std::fs::write(BACKPORTS_LIST, format!("deb [signed-by={keys}] {mirror} {BACKPORTS} main\n"))
        .with_context(|| format!("can't write {BACKPORTS_LIST}"))
}

/// The mirror of `bookworm/main` in the output of `apt-cache policy`.
fn mirror(policy: &str) -> Option<&str> {
    let line = policy.lines().find(|line| line.contains(" bookworm/main "))?;
    line.split_ascii_whitespace().nth(1)
}

fn apt_get(arguments: &[&str], release: Option<&str>) -> Result<()> {
    let _quiet = NoDaemons::set()?;
    let mut command = Command::new("apt-get");
    command.arg("-qq").args(release.iter().flat_map(|release| ["--target-release", release]));
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    // dpkg's progress is of no interest, apt's complaints are.
    command.stdout(Stdio::null());
    let status = command.status().context("can't start apt-get")?;
    ensure!(
        status.success(),
        "apt-get {} failed ({status}); it says why above",
        arguments.join(" ")
    );
    Ok(())
}

/// What Debian's packages ask before they start a daemon of theirs (invoke-rc.d(8)).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// No daemon starts because its package is installed: ours run in namespaces, and a DHCP server that starts by itself is trouble
/// in the network of whoever runs the tests.
struct NoDaemons {
    /// Not if the machine has a policy of its own.
    is_ours: bool,
}

impl NoDaemons {
    fn set() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { is_ours: false });
        }
        std::fs::write(POLICY, "#!/bin/sh\nexit 101\n")
            .with_context(|| format!("can't write {POLICY}"))?;
        let policy = Self { is_ours: true };
        std::fs::set_permissions(POLICY, Permissions::from_mode(0o755))?;
        Ok(policy)
    }
}

impl Drop for NoDaemons {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = std::fs::remove_file(POLICY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_packages_are_not_installed_ones() {
        assert_eq!(installed("ovmf not-installed "), None);
        assert_eq!(installed("ovmf config-files 1.0"), None);
        assert_eq!(installed("ovmf installed 1.0").unwrap().1, "1.0");
    }

    #[test]
    fn the_mirror_is_the_one_that_is_configured() {
        let policy = "Package files:\n 100 /var/lib/dpkg/status\n \
                      500 http://mirror.example/debian bookworm/main amd64 Packages\n     release v=12";
        assert_eq!(mirror(policy), Some("http://mirror.example/debian"));
    }
}
