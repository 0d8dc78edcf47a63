//! What people put together today: dnsmasq for DHCP and TFTP, GRUB as Debian builds it, nbdkit,
//! and Debian's own initramfs with the scripts of `nbd-client`.

use anyhow::{Context, Result};
use lab::{Daemon, Lan};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Modules that GRUB needs to fetch a kernel by TFTP.
const GRUB_MODULES: &[&str] =
    &["echo", "linux", "net", "normal", "pxe", "serial", "terminal", "test", "tftp"];

/// The image's networkd asks for an address itself, and takes away that of the initramfs, over which the root disk is: the
/// system then waits for its disk for ever. Who boots so must keep it from that; ours does it by itself.
const OUT_OF_THE_WAY: &str =
    "systemd.mask=systemd-networkd.service systemd.mask=systemd-networkd.socket";

/// Servers that are not ours, on a LAN of their own.
pub(crate) struct Peers {
    _dnsmasq: Daemon,
    _nbdkit: Daemon,
    lan: Lan,
    _folder: tempfile::TempDir,
}

impl Peers {
    /// Starts them; the machine boots `image`, and what it writes is forgotten.
    pub(crate) fn start(image: &Path, mac: &str, host_name: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let files = folder.path().join("tftp");
        std::fs::create_dir_all(files.join("grub"))?;
        take_boot_files(image, &files)?;
        let mut grub = Command::new("grub-mkimage");
        grub.args(["--format=i386-pc-pxe", "--prefix=(pxe)/grub", "--output"]);
        lab::run(grub.arg(files.join("grub.0")).args(GRUB_MODULES))?;
        std::fs::write(files.join("grub/grub.cfg"), grub_cfg(host_name))?;

        let lan = Lan::lay("peers")?;
        let mut nbdkit = lan.netns().command("nbdkit", Signal::SIGKILL);
        // Not `--exit-with-parent`: it would be told to stop instead of killed, and wait for a client that hangs.
        nbdkit.args(["--foreground", "--filter=cow", "--ipaddr", lab::SERVER]);
        nbdkit.arg("file").arg(image).stdin(Stdio::null());
        let nbdkit = Daemon::start("nbdkit", &mut nbdkit, &folder.path().join("nbdkit.log"))?;
        let mut dnsmasq = dnsmasq(&lan);
        dnsmasq.args(["--dhcp-range=10.77.0.100,10.77.0.199,12h", "--dhcp-boot=grub.0"]);
        dnsmasq.arg(format!("--dhcp-host={mac},{host_name},10.77.0.100"));
        dnsmasq.arg("--enable-tftp").arg(format!("--tftp-root={}", files.display()));
        dnsmasq.arg(format!("--dhcp-leasefile={}", folder.path().join("leases").display()));
        let log = folder.path().join("dnsmasq.log");
        let mut dnsmasq = Daemon::start("dnsmasq", &mut dnsmasq, &log)?;
        dnsmasq.wait_for_log("TFTP root is", Duration::from_secs(20))?;
        Ok(Self { _dnsmasq: dnsmasq, _nbdkit: nbdkit, lan, _folder: folder })
    }

    pub(crate) fn lan(&self) -> &Lan {
        &self.lan
    }
}

/// dnsmasq on the bridge of this network, which neither reads the host's configuration nor serves names. What it does is still to
/// be said.
pub(super) fn dnsmasq(lan: &Lan) -> Command {
    let mut dnsmasq = lan.netns().command("dnsmasq", Signal::SIGKILL);
    dnsmasq.args(["--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null"]);
    dnsmasq.args(["--port=0", "--interface=br0", "--bind-interfaces", "--user=root"]);
    dnsmasq.arg("--pid-file=").stdin(Stdio::null());
    dnsmasq
}

fn grub_cfg(host_name: &str) -> String {
    let server = lab::SERVER;
    format!(
        "serial --unit=0 --speed=115200\nterminal_output --append serial\n\
         linux /vmlinuz console=tty0 console=ttyS0,115200 root=/dev/nbd0 rw ip=dhcp \
         nbdroot={server},root,nbd0 hostname={host_name} systemd.hostname={host_name} \
         {OUT_OF_THE_WAY}\n\
         initrd /initrd.img\nboot\n"
    )
}

/// Takes kernel and initramfs out of the image.
fn take_boot_files(image: &Path, folder: &Path) -> Result<()> {
    for (prefix, name) in [("vmlinuz-", "vmlinuz"), ("initrd.img-", "initrd.img")] {
        std::fs::rename(take_file(image, prefix, folder)?, folder.join(name))?;
    }
    Ok(())
}

/// Takes the file of `/boot` whose name starts so out of the image; returns where it is.
pub(crate) fn take_file(image: &Path, prefix: &str, folder: &Path) -> Result<PathBuf> {
    let list = lab::text_of(Command::new("debugfs").args(["-R", "ls -p /boot"]).arg(image))?;
    let mut names = list.lines().filter_map(|line| line.split('/').nth(5));
    let name = names
        .find(|name| name.starts_with(prefix))
        .with_context(|| format!("no /boot/{prefix}* in the image"))?;
    let target = folder.join(name);
    let request = format!("dump /boot/{name} {}", target.display());
    lab::run(Command::new("debugfs").args(["-R", &request]).arg(image))?;
    anyhow::ensure!(target.is_file(), "debugfs did not write {}", target.display());
    Ok(target)
}

/// A text file of the image.
pub(crate) fn text_file(image: &Path, path: &str) -> Result<String> {
    lab::text_of(Command::new("debugfs").args(["-R", &format!("cat {path}")]).arg(image))
}
