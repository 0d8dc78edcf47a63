//! What machines are made of, as their init tells at each boot, and whether they boot an initrd made for it.

use crate::error::{Error, io_error};
use crate::service::Service;
use model::{BootId, MachineName};
use std::path::PathBuf;
use wire::Mac;

/// Most hardware names of a machine; a PC has about a hundred.
const NAMES_MAX: usize = 1024;

/// Boots with a fitted initrd that may fail before the machine stays with the one for all machines.
const FAILURES_MAX: u32 = 2;

/// The hardware of a machine.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hardware {
    /// The boot that told.
    pub boot: BootId,
    /// Hardware names (`modalias`) as the kernel has them, sorted.
    pub modaliases: Vec<String>,
    /// The last boot that got an initrd made for this hardware.
    pub fitted_boot: Option<BootId>,
    /// How many of those boots in a row did not find their root disk.
    pub failures: u32,
}

impl Hardware {
    /// Reads a list as [`initcfg::HARDWARE_PATH`] has it; what can't be a hardware name is left out.
    fn parse(boot: BootId, list: &str) -> Self {
        let is_name =
            |name: &&str| name.contains(':') && name.bytes().all(|byte| byte.is_ascii_graphic());
        let mut modaliases: Vec<String> =
            list.lines().filter(is_name).take(NAMES_MAX).map(str::to_owned).collect();
        modaliases.sort();
        modaliases.dedup();
        Self { boot, modaliases, fitted_boot: None, failures: 0 }
    }

    /// What decides which drivers an initrd needs; not the mouse that is plugged in today.
    pub(crate) fn fitting(&self) -> impl Iterator<Item = &str> {
        self.modaliases.iter().map(String::as_str).filter(|name| decides(name))
    }

    /// Names the initrd for this hardware: the same for all machines that are alike.
    pub fn key(&self) -> String {
        let mut hash = blake3::Hasher::new();
        for name in self.fitting() {
            hash.update(name.as_bytes());
            hash.update(b"\n");
        }
        hash.finalize().to_hex()[..16].to_owned()
    }

    /// Whether the machine gets an initrd made for it, if there is one.
    pub fn is_trusted(&self) -> bool {
        self.failures < FAILURES_MAX
    }
}

/// Buses that network cards are on. Of USB only what may be a network card: communication devices,
/// wireless controllers (RNDIS), and those of a class of their vendor's.
fn decides(modalias: &str) -> bool {
    match modalias.split_once(':') {
        Some(("pci" | "virtio" | "xen" | "vmbus" | "of" | "ssb" | "bcma", _)) => true,
        Some(("usb", rest)) => ["ic02", "icE0", "icFF"].iter().any(|class| rest.contains(class)),
        _ => false,
    }
}

impl Service {
    /// Keeps the list of a machine's hardware. Of strangers, and of boots that the machine is not in,
    /// nothing is kept: whether it was.
    ///
    /// # Errors
    /// The file can't be written.
    pub async fn keep_hardware(&self, mac: Mac, boot: BootId, list: &[u8]) -> Result<bool, Error> {
        let is_current = self.boot_of(mac).is_some_and(|last| last.id == boot);
        if !is_current || self.site().machine_by_mac(mac).is_none() {
            return Ok(false);
        }
        let mut hardware = Hardware::parse(boot, &String::from_utf8_lossy(list));
        if hardware.fitting().next().is_none() {
            return Ok(false);
        }
        if let Some(former) = self.hardware_of(mac).await?
            && former.key() == hardware.key()
        {
            hardware.fitted_boot = former.fitted_boot;
            hardware.failures = former.failures;
        }
        self.write_hardware(mac, &hardware).await?;
        self.initrds().look_again();
        Ok(true)
    }

    /// What a machine is made of; `None` before its first boot.
    ///
    /// # Errors
    /// There is no such machine, or the file can't be read.
    pub async fn hardware(&self, name: &MachineName) -> Result<Option<Hardware>, Error> {
        let site = self.site();
        let machine = site.machine(name).ok_or_else(|| Error::NoMachine(name.clone()))?;
        self.hardware_of(machine.mac).await
    }

    pub(crate) async fn hardware_of(&self, mac: Mac) -> Result<Option<Hardware>, Error> {
        let path = self.hardware_path(mac);
        match tokio::fs::read(&path).await {
            // A file that makes no sense is written again at the machine's next boot.
            Ok(content) => Ok(serde_json::from_slice(&content).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    pub(crate) async fn write_hardware(&self, mac: Mac, hardware: &Hardware) -> Result<(), Error> {
        let path = self.hardware_path(mac);
        if let Some(folder) = path.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(io_error("make the folder", folder))?;
        }
        let content = serde_json::to_vec_pretty(hardware).unwrap_or_default();
        let new = path.with_extension("new");
        tokio::fs::write(&new, content).await.map_err(io_error("write", &new))?;
        tokio::fs::rename(&new, &path).await.map_err(io_error("write", &path))
    }

    fn hardware_path(&self, mac: Mac) -> PathBuf {
        self.options().hardware.join(format!("{}.json", mac.compact()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mouse_does_not_change_what_a_machine_is() {
        let pc = "pci:v00008086d0000100Ebc02sc00i00\nacpi:PNP0A03:\n";
        let mouse = "usb:v046DpC077d7200dc00dsc00dp00ic03isc01ip02in00\n";
        let adapter = "usb:v0B95p1790d0100dcFFdscFFdp00icFFiscFFip00in00\n";
        let key = |list: &str| Hardware::parse(1, list).key();
        assert_eq!(key(pc), key(&format!("{mouse}{pc}")));
        assert_ne!(key(pc), key(&format!("{pc}{adapter}")));
        assert_eq!(
            Hardware::parse(1, "no name\n\u{1b}[2J:\npci:v1\npci:v1\n").modaliases,
            ["pci:v1"]
        );
    }
}
