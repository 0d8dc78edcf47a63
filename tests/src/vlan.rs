//! A foreign switch that knows VLANs.

use crate::daemon::Daemon;
use crate::lan::Lan;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The port that a PC is plugged into; the first is the LAN's.
const PC_PORT: u16 = 2;

/// `vde_switch` between the LAN, which is one of its VLANs, and a port for a PC that carries only that
/// VLAN, with tags. It ends when it is dropped.
#[derive(Debug)]
pub struct VlanSwitch {
    _daemon: Daemon,
    folder: tempfile::TempDir,
}

impl VlanSwitch {
    /// Plugs the switch into the LAN.
    ///
    /// # Errors
    /// `vde_switch` is missing or does not start.
    pub fn start(lan: &Lan, vlan: u16) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bootlace-switch-").tempdir()?;
        let tap = lan.add_tap()?;
        let commands = format!(
            "vlan/create {vlan}\nport/create {PC_PORT}\nport/setvlan 1 {vlan}\nvlan/addport {vlan} {PC_PORT}\n"
        );
        let file = folder.path().join("commands");
        std::fs::write(&file, commands)?;
        let mut command = lan.netns().command("vde_switch", Signal::SIGKILL);
        command.arg("--sock").arg(control(folder.path())).args(["--tap", &tap]);
        // It ends at the end of its input.
        command.arg("--rcfile").arg(&file).stdin(Stdio::piped());
        let daemon = Daemon::start("vde_switch", &mut command, &folder.path().join("log"))?;
        let deadline = Instant::now() + START_TIMEOUT;
        while !control(folder.path()).join("ctl").exists() {
            ensure!(Instant::now() < deadline, "vde_switch does not start:\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { folder, _daemon: daemon })
    }

    /// The port for a PC, as QEMU's `-netdev` wants it.
    pub(crate) fn netdev(&self) -> String {
        format!("vde,id=n0,sock={},port={PC_PORT}", control(self.folder.path()).display())
    }
}

fn control(folder: &Path) -> PathBuf {
    folder.join("switch")
}
