//! A PC without a disk, in QEMU. No KVM: nested machines can't be relied on.

use crate::arm64::Arm64;
use crate::console::Console;
use crate::lan::Lan;
use crate::picture::Picture;
use crate::preboot::Kernel;
use crate::qmp::Qmp;
use crate::vlan::VlanSwitch;
use crate::wire::Wire;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where Debian's package `ovmf` puts the firmware.
const OVMF: &str = "/usr/share/OVMF";

/// Firmware of a PC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS with iPXE in the NIC's ROM.
    Bios,
    /// OVMF, which is the firmware that vendors build upon, with its own PXE client.
    Uefi,
    /// The same with Secure Boot and Microsoft's keys, as PCs are sold.
    UefiSecureBoot,
    /// A 64-bit ARM PC with its EDK2.
    Arm64,
    /// The same with Secure Boot and Microsoft's keys.
    Arm64SecureBoot,
}

/// What the PC is made of.
#[derive(Clone, Debug)]
pub struct PcBuilder {
    name: String,
    mac: String,
    firmware: Firmware,
    memory_mib: u32,
    n_cpus: u32,
    nic_model: String,
    netdev: Option<String>,
    bridge: Option<String>,
    kernel: Option<Kernel>,
    counts_instructions: bool,
    extra: Vec<String>,
    logs: Option<PathBuf>,
}

impl PcBuilder {
    /// Sets the MAC address, like `52:54:00:00:00:01`.
    #[must_use]
    pub fn mac(mut self, mac: &str) -> Self {
        mac.clone_into(&mut self.mac);
        self
    }

    /// Sets the firmware. BIOS without it.
    #[must_use]
    pub fn firmware(mut self, firmware: Firmware) -> Self {
        self.firmware = firmware;
        self
    }

    /// Sets the memory in MiB. 1024 without it.
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// Sets the number of processors. 1 without it, since tests run side by side.
    #[must_use]
    pub fn cpus(mut self, n_cpus: u32) -> Self {
        self.n_cpus = n_cpus;
        self
    }

    /// Sets the NIC, by QEMU's name of the device. `virtio-net-pci` without it.
    #[must_use]
    pub fn nic_model(mut self, model: &str) -> Self {
        model.clone_into(&mut self.nic_model);
        self
    }

    /// Plugs the PC into this switch, not into the LAN itself.
    #[must_use]
    pub fn behind(mut self, switch: &VlanSwitch) -> Self {
        self.netdev = Some(switch.netdev());
        self
    }

    /// Plugs the PC in by this cable.
    #[must_use]
    pub fn through(mut self, wire: &Wire) -> Self {
        self.netdev = Some(wire.netdev());
        self
    }

    /// Plugs the PC into this bridge of the LAN, not into the first one.
    #[must_use]
    pub fn on(mut self, bridge: &str) -> Self {
        self.bridge = Some(bridge.to_owned());
        self
    }

    /// Starts this kernel at once: no network boot by the firmware.
    #[must_use]
    pub fn kernel(mut self, kernel: &Kernel) -> Self {
        self.kernel = Some(kernel.clone());
        self
    }

    /// Lets the PC's time pass by one nanosecond an instruction: its times don't depend on the machine
    /// that it runs on.
    #[must_use]
    pub fn count_instructions(mut self) -> Self {
        self.counts_instructions = true;
        self
    }

    /// Adds arguments for QEMU.
    #[must_use]
    pub fn extra(mut self, arguments: &[&str]) -> Self {
        self.extra.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Keeps the console's log in this folder, as `NAME.console`.
    #[must_use]
    pub fn logs(mut self, folder: &Path) -> Self {
        self.logs = Some(folder.to_owned());
        self
    }

    /// Plugs the PC into the LAN and switches it on.
    ///
    /// # Errors
    /// QEMU can't be started.
    pub fn start(&self, lan: &Lan) -> Result<Pc> {
        let folder = tempfile::Builder::new().prefix("bootlace-pc-").tempdir()?;
        let netdev = match &self.netdev {
            Some(netdev) => netdev.clone(),
            None => {
                let tap = lan.add_tap()?;
                if let Some(bridge) = &self.bridge {
                    lan.netns().ip(&format!("link set {tap} master {bridge}"))?;
                }
                format!("tap,id=n0,ifname={tap},script=no,downscript=no")
            }
        };
        let (program, processor) = match self.firmware {
            Firmware::Arm64 | Firmware::Arm64SecureBoot => ("qemu-system-aarch64", "cortex-a72"),
            Firmware::Bios | Firmware::Uefi | Firmware::UefiSecureBoot => {
                ("qemu-system-x86_64", "max")
            }
        };
        let mut command = lan.netns().command(program, Signal::SIGKILL);
        command.args(["-name", &self.name, "-nodefaults", "-display", "none"]);
        match self.counts_instructions {
            true => command.args(["-accel", "tcg,thread=single", "-icount", "shift=0"]),
            false => command.args(["-accel", "tcg,thread=multi"]),
        };
        command.args(["-cpu", processor]);
        command.args(["-m", &self.memory_mib.to_string(), "-smp", &self.n_cpus.to_string()]);
        command.args(["-device", "virtio-rng-pci", "-serial", "stdio"]);
        let socket = folder.path().join("qmp");
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
        command.args(["-netdev", &netdev]);
        let mut nic = format!("{},netdev=n0,id=nic0,mac={}", self.nic_model, self.mac);
        let is_usb = self.nic_model.starts_with("usb-");
        if is_usb {
            command.args(["-device", "qemu-xhci"]);
        }
        match &self.kernel {
            Some(kernel) => {
                command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&kernel.initrd);
                command.args(["-append", &kernel.command_line]);
                // The firmware need not wait for the NIC's own boot program.
                if !is_usb {
                    nic.push_str(",romfile=");
                }
            }
            None => nic.push_str(",bootindex=1"),
        }
        match self.firmware {
            Firmware::Bios => {
                command.args(["-machine", "pc", "-vga", "std"]);
            }
            Firmware::Arm64 | Firmware::Arm64SecureBoot => {
                let variables = folder.path().join("variables");
                let known = match self.firmware {
                    Firmware::Arm64SecureBoot => "AAVMF_VARS.ms.fd",
                    _ => "AAVMF_VARS.fd",
                };
                std::fs::copy(Path::new(Arm64::FIRMWARE).with_file_name(known), &variables)
                    .context("can't copy the firmware's variables")?;
                command.args(["-machine", "virt"]);
                add_flash(&mut command, Path::new(Arm64::FIRMWARE), &variables);
                nic.push_str(",romfile=");
            }
            Firmware::Uefi | Firmware::UefiSecureBoot => {
                let (code, known) = match self.firmware {
                    Firmware::UefiSecureBoot => ("OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd"),
                    _ => ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
                };
                let variables = folder.path().join("variables");
                std::fs::copy(Path::new(OVMF).join(known), &variables)
                    .context("can't copy OVMF's variables")?;
                // The build with Secure Boot keeps its variables from the system by SMM.
                let secure = "driver=cfi.pflash01,property=secure,value=on";
                match self.firmware {
                    Firmware::UefiSecureBoot => {
                        command.args(["-machine", "q35,smm=on", "-global", secure])
                    }
                    _ => command.args(["-machine", "q35"]),
                };
                command.args(["-vga", "std"]);
                add_flash(&mut command, &Path::new(OVMF).join(code), &variables);
                // Without the NIC's ROM the firmware's own PXE client boots, as in real PCs.
                nic.push_str(",romfile=");
            }
        }
        command.args(["-device", &nic]).args(&self.extra);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let complaints = folder.path().join("qemu.log");
        command.stderr(std::fs::File::create(&complaints)?);
        // Ctrl-C at the terminal is for us; we end QEMU in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().context("can't start QEMU")?;
        let streams = child.stdout.take().zip(child.stdin.take());
        let (screen, keyboard) = streams.context("QEMU's pipes were asked for")?;
        let log_folder = self.logs.as_deref().unwrap_or(folder.path());
        let log = log_folder.join(format!("{}.console", self.name));
        let started = Console::start(screen, keyboard, &log);
        let mut pc = match started {
            Ok(console) => Pc {
                name: self.name.clone(),
                child,
                console,
                qmp: None,
                complaints,
                _folder: folder,
            },
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        match Qmp::connect(&socket) {
            Ok(qmp) => pc.qmp = Some(qmp),
            Err(error) => bail!("{error:#}: {}", pc.complaints()),
        }
        Ok(pc)
    }
}

/// Adds a firmware and its variables.
fn add_flash(command: &mut Command, code: &Path, variables: &Path) {
    let code = format!("if=pflash,format=raw,unit=0,readonly=on,file={}", code.display());
    let variables = format!("if=pflash,format=raw,unit=1,file={}", variables.display());
    command.args(["-drive", &code, "-drive", &variables]);
}

/// A PC that is on; switched off when dropped.
pub struct Pc {
    name: String,
    child: Child,
    console: Console,
    qmp: Option<Qmp>,
    complaints: PathBuf,
    _folder: TempDir,
}

impl Pc {
    /// Describes a PC.
    pub fn builder(name: &str) -> PcBuilder {
        PcBuilder {
            name: name.to_owned(),
            mac: "52:54:00:00:00:01".to_owned(),
            firmware: Firmware::Bios,
            memory_mib: 1024,
            n_cpus: 1,
            nic_model: "virtio-net-pci".to_owned(),
            netdev: None,
            bridge: None,
            kernel: None,
            counts_instructions: false,
            extra: Vec::new(),
            logs: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its serial port.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Presses the reset button.
    ///
    /// # Errors
    /// QEMU has ended.
    pub fn reset(&mut self) -> Result<()> {
        self.execute("system_reset", &json!({})).map(drop)
    }

    /// Presses the power button; the system should shut down.
    ///
    /// # Errors
    /// QEMU has ended.
    pub fn press_power(&mut self) -> Result<()> {
        self.execute("system_powerdown", &json!({})).map(drop)
    }

    /// Pulls the network cable out, which the PC notices, or plugs it in.
    ///
    /// # Errors
    /// QEMU has ended.
    pub fn set_link(&mut self, is_up: bool) -> Result<()> {
        self.execute("set_link", &json!({ "name": "nic0", "up": is_up })).map(drop)
    }

    /// What its screen shows. `keep` is where the picture is kept (PNG), too.
    ///
    /// # Errors
    /// QEMU has ended, or can't write the picture.
    pub fn picture(&mut self, keep: Option<&Path>) -> Result<Picture> {
        let folder = tempfile::tempdir()?;
        let pixmap = folder.path().join("screen.ppm");
        self.execute("screendump", &json!({ "filename": pixmap }))?;
        if let Some(path) = keep {
            self.execute("screendump", &json!({ "filename": path, "format": "png" }))?;
        }
        Picture::parse(&std::fs::read(&pixmap)?)
    }

    /// Runs a command of QEMU's machine protocol.
    ///
    /// # Errors
    /// QEMU has ended, or refuses it.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        self.qmp.as_mut().context("QEMU has no control socket")?.execute(command, arguments)
    }

    /// Waits until the PC has switched itself off.
    ///
    /// # Errors
    /// It does not in time, or QEMU failed.
    pub fn wait_for_off(&mut self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("QEMU failed ({status}): {}", self.complaints()),
                None if Instant::now() > deadline => bail!(
                    "the PC is still on after {} s. The console's end:\n{}",
                    timeout.as_secs(),
                    self.console.tail(30)
                ),
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn complaints(&self) -> String {
        std::fs::read_to_string(&self.complaints).unwrap_or_default().trim().to_owned()
    }
}

impl Drop for Pc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
