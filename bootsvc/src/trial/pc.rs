//! A PC without a disk, in QEMU, in the network of trials.

use super::qmp::Qmp;
use super::{HOST, INTERFACE, NETWORK, ip};
use anyhow::{Context as _, bail};
use serde_json::json;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use wire::Mac;

const QEMU: &str = "qemu-system-x86_64";

/// Ends the PC with the command that has started it, however that ends.
const ENDS_WITH_US: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];

/// Where distributions have OVMF, the firmware on which makers of PCs build theirs.
const OVMF: &str = "/usr/share/OVMF";

/// Its code and its first variables, without Secure Boot and with Microsoft's keys.
const PLAIN: [&str; 2] = ["OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"];
const SECURE: [&str; 2] = ["OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd"];

/// Where KVM is asked for.
const KVM: &str = "/dev/kvm";

/// What a PC's firmware is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// PC BIOS, with iPXE in the NIC's ROM.
    Bios,
    /// 64-bit UEFI with a PXE client of its own.
    Uefi,
    /// The same with Secure Boot and Microsoft's keys, as PCs are sold.
    UefiSecureBoot,
}

/// What a PC is made of.
pub(crate) struct Parts {
    pub(crate) mac: Mac,
    pub(crate) firmware: Firmware,
    pub(crate) memory_mib: u32,
    pub(crate) n_cpus: u32,
    /// Whether the host's processor may run it, which is faster, if it can.
    pub(crate) with_kvm: bool,
}

/// A PC that is on; switched off when dropped.
pub(crate) struct Pc {
    child: Child,
    qmp: Qmp,
    folder: Folder,
}

/// A PC's files. Whoever has them in use holds its lock, so that what a killed command left can be told from those.
struct Folder {
    folder: TempDir,
    _lock: File,
}

/// How the names of such folders begin.
const FOLDER: &str = "bootlace-try-";

/// What is locked in one.
const LOCK: &str = "lock";

/// Between making a folder and its lock nobody needs longer.
const LOCKED_WITHIN: Duration = Duration::from_secs(60);

impl Folder {
    /// A new one; those that nobody has in use any more are removed.
    fn make() -> anyhow::Result<Self> {
        let temporary = std::env::temp_dir();
        remove_left(&temporary);
        let folder = tempfile::Builder::new().prefix(FOLDER).tempdir_in(&temporary)?;
        let lock = File::create(folder.path().join(LOCK))?;
        lock.try_lock().context("can't lock a new folder")?;
        Ok(Self { folder, _lock: lock })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes folders of this user that commands left which were killed.
fn remove_left(temporary: &Path) {
    let own = nix::unistd::geteuid().as_raw();
    let is_left = |entry: &fs::DirEntry| {
        let Ok(about) = entry.metadata() else { return false };
        let is_ours = about.is_dir() && about.uid() == own;
        is_ours
            && match File::open(entry.path().join(LOCK)) {
                Ok(lock) => lock.try_lock().is_ok(),
                Err(_) => {
                    let age = about.modified().ok().and_then(|at| at.elapsed().ok());
                    age.is_some_and(|age| age > LOCKED_WITHIN)
                }
            }
    };
    let entries = fs::read_dir(temporary).into_iter().flatten().flatten();
    let of_trials =
        entries.filter(|it| it.file_name().as_encoded_bytes().starts_with(FOLDER.as_bytes()));
    for left in of_trials.filter(is_left) {
        if let Err(error) = fs::remove_dir_all(left.path()) {
            let folder = left.path();
            tracing::warn!(folder = %folder.display(), %error, "what an earlier trial left stays");
        }
    }
}

impl Pc {
    /// Makes the network of trials, and a PC in it that is still off. Its serial port is this process's terminal.
    ///
    /// # Errors
    /// A program or firmware is missing, or another trial runs.
    pub(crate) fn plug_in(parts: &Parts) -> anyhow::Result<Self> {
        if is_there() {
            bail!("a PC is tried here already (the interface {INTERFACE} is there): wait for it");
        }
        let has_kvm = parts.with_kvm && File::options().read(true).write(true).open(KVM).is_ok();
        match Self::start(parts, has_kvm) {
            // Virtual hosts have some that is not whole.
            Err(error) if has_kvm => {
                tracing::warn!("without KVM, as with it {error:#}");
                Self::start(parts, false)
            }
            other => other,
        }
    }

    fn start(parts: &Parts, has_kvm: bool) -> anyhow::Result<Self> {
        let folder = Folder::make()?;
        let mut command = Command::new(ENDS_WITH_US[0]);
        command.args(&ENDS_WITH_US[1..]).arg(QEMU);
        command.args(["-name", "bootlace-try", "-nodefaults", "-display", "none", "-vga", "std"]);
        command.args(["-S", "-serial", "mon:stdio", "-device", "virtio-rng-pci"]);
        command.args(["-accel", if has_kvm { "kvm" } else { "tcg,thread=multi" }, "-cpu", "max"]);
        command.args(["-m", &parts.memory_mib.to_string(), "-smp", &parts.n_cpus.to_string()]);
        // What the image's system does to it does nothing to this host.
        command.args(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny"]);
        let socket = folder.path().join("qmp");
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
        // It is gone with QEMU.
        let tap = format!("tap,id=n0,ifname={INTERFACE},script=no,downscript=no");
        command.args(["-netdev", &tap]);
        let nic = format!("virtio-net-pci,netdev=n0,mac={},bootindex=1", parts.mac);
        match parts.firmware {
            Firmware::Bios => {
                command.args(["-machine", "pc", "-device", &nic]);
            }
            Firmware::Uefi => uefi(&mut command, PLAIN, &nic, folder.path())?,
            Firmware::UefiSecureBoot => {
                // This build keeps its variables from the system by SMM.
                let guard = "driver=cfi.pflash01,property=secure,value=on";
                command.args(["-global", guard]);
                uefi(&mut command, SECURE, &nic, folder.path())?;
            }
        }
        let complaints = folder.path().join("complaints");
        command.stderr(File::create(&complaints)?).stdout(Stdio::inherit());
        let mut child = command.spawn().context("can't start setpriv, of util-linux")?;
        let connected = Qmp::connect(&socket, || matches!(child.try_wait(), Ok(Some(_))));
        let qmp = connected.map_err(|error| {
            let _ = child.kill().and_then(|()| child.wait());
            let said = fs::read_to_string(&complaints).unwrap_or_default();
            error.context(format!("QEMU does not start: {}", last_line(&said)))
        })?;
        let pc = Self { child, qmp, folder };
        ip(&["address", "add", &format!("{HOST}/{}", NETWORK.prefix), "dev", INTERFACE])?;
        ip(&["link", "set", INTERFACE, "up"])?;
        Ok(pc)
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// QEMU has ended.
    pub(crate) fn switch_on(&mut self) -> anyhow::Result<()> {
        self.qmp.execute("cont", &json!({}))
    }

    /// What its screen shows, as PNG.
    ///
    /// # Errors
    /// QEMU has ended, or is too old for pictures (before 7.1).
    pub(crate) fn screen(&mut self) -> anyhow::Result<Vec<u8>> {
        let file = self.folder.path().join("screen.png");
        self.qmp.execute("screendump", &json!({ "filename": file, "format": "png" }))?;
        Ok(fs::read(file)?)
    }

    /// How it has ended, if it has.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// What QEMU complained of.
    pub(crate) fn complaint(&self) -> String {
        let said = fs::read_to_string(self.folder.path().join("complaints")).unwrap_or_default();
        last_line(&said).to_owned()
    }
}

impl Drop for Pc {
    fn drop(&mut self) {
        // In order, so that the terminal is as it was.
        let _ = self.qmp.execute("quit", &json!({}));
        let _ = self.child.wait();
    }
}

/// Whether there is an interface of trials.
pub(crate) fn is_there() -> bool {
    Path::new("/sys/class/net").join(INTERFACE).exists()
}

/// Adds this firmware.
fn uefi(
    command: &mut Command,
    [code, variables]: [&str; 2],
    nic: &str,
    folder: &Path,
) -> anyhow::Result<()> {
    let known = Path::new(OVMF).join(variables);
    let own: PathBuf = folder.join("variables");
    fs::copy(&known, &own).with_context(|| {
        format!("there is no firmware {}: install Debian's package ovmf", known.display())
    })?;
    command.args(["-machine", "q35,smm=on"]);
    let drive = "if=pflash,format=raw";
    command.arg("-drive").arg(format!("{drive},unit=0,readonly=on,file={OVMF}/{code}"));
    command.arg("-drive").arg(format!("{drive},unit=1,file={}", own.display()));
    // Without the NIC's ROM the firmware's own PXE client boots, as in real PCs.
    command.args(["-device", &format!("{nic},romfile=")]);
    Ok(())
}

pub(super) fn last_line(text: &str) -> &str {
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it does not say why").trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_that_nobody_uses_are_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let folder = temporary.path().join(name);
            fs::create_dir(&folder).unwrap();
            folder
        };
        let (used, left, new, other) = (
            make("bootlace-try-used"),
            make("bootlace-try-left"),
            make("bootlace-try-new"),
            make("somebody-else"),
        );
        let lock = |folder: &Path| File::create(folder.join(LOCK)).unwrap();
        let held = lock(&used);
        held.try_lock().unwrap();
        fs::write(left.join("variables"), "x").unwrap();
        drop(lock(&left));
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), temporary.path().join("bootlace-try-link"))
            .unwrap();
        drop(lock(elsewhere.path()));
        remove_left(temporary.path());
        assert!(used.exists() && new.exists() && other.exists() && elsewhere.path().exists());
        assert!(!left.exists());
    }
}
