//! Rescue shells: one boot of a machine stops in a shell, which a password opens.

use crate::error::{Error, io_error};
use crate::people::Admin;
use crate::service::Service;
use initcfg::{RESCUE_BUSYBOX_MAX, RescuePassword};
use model::{Architecture, BootId, MachineName};
use std::path::{Path, PathBuf};

/// Where distributions put busybox.
const BUSYBOXES: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// A rescue shell that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Rescue {
    /// What opens it on the machine's console; `None`: not shown to who asks.
    pub password: Option<String>,
    /// The boot that stops in it; `None`: the machine's next one.
    pub boot: Option<BootId>,
}

impl Admin {
    /// Lets the next boot of a machine stop in a rescue shell. Who asks again before that boot gets the
    /// same password.
    ///
    /// # Errors
    /// There is no such machine, there is no busybox for the shell, or the database can't be written.
    pub async fn want_rescue(&self, name: &MachineName) -> Result<Rescue, Error> {
        let machine = self.site().machine(name).cloned();
        let machine = machine.ok_or_else(|| Error::NoMachine(name.clone()))?;
        let boot = self.service().boot_of(machine.mac);
        let architecture = boot.and_then(|boot| boot.firmware.architecture());
        if architecture == Some(Architecture::Arm64) {
            return Err(Error::NoRescueForArm64(name.clone()));
        }
        // Now, while somebody listens.
        self.service().busybox().await?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| Error::NoRandomness)?;
        let password = RescuePassword::new(u64::from_le_bytes(random));
        let machine = name.clone();
        let entry = self.actor().does("machine.rescue", name, Vec::new(), self.now().unix_ms);
        let wanted = self.service().database().write(move |tables| {
            tables.put_audit(&entry)?;
            Ok(tables.want_rescue(&machine, password.as_str())?)
        });
        let password = Some(wanted.await?);
        tracing::info!(machine = %name, "its next boot stops in a rescue shell");
        Ok(Rescue { password, boot: None })
    }

    /// Lets the next boot of a machine go through after all. What runs already stays as it is.
    ///
    /// # Errors
    /// There is no such machine, or the database can't be written.
    pub async fn forget_rescue(&self, name: &MachineName) -> Result<(), Error> {
        self.site().machine(name).ok_or_else(|| Error::NoMachine(name.clone()))?;
        let machine = name.clone();
        let entry = self.actor().does("machine.no-rescue", name, Vec::new(), self.now().unix_ms);
        let forgotten = self.service().database().write(move |tables| {
            tables.put_audit(&entry)?;
            Ok(tables.forget_rescue(&machine)?)
        });
        forgotten.await
    }
}

impl Service {
    /// The archive with the rescue shell, the same for all machines.
    ///
    /// # Errors
    /// There is no static busybox.
    pub async fn rescue_archive(&self) -> Result<Vec<u8>, Error> {
        let busybox = self.busybox().await?;
        initrd_builder::rescue_segment(busybox)
            .map_err(|error| Error::NoBusybox { why: wire::error_chain(&error) })
    }

    /// The first static busybox of this host, or the one that is configured.
    async fn busybox(&self) -> Result<Vec<u8>, Error> {
        let candidates: Vec<PathBuf> = match &self.options().rescue_busybox {
            Some(path) => vec![path.clone()],
            None => BUSYBOXES.map(PathBuf::from).to_vec(),
        };
        let mut troubles = Vec::new();
        for path in candidates {
            match read_busybox(&path).await {
                Ok(Some(program)) => return Ok(program),
                Ok(None) => troubles.push(format!("{} is not a static program", path.display())),
                Err(error) => troubles.push(wire::error_chain(&error)),
            }
        }
        Err(Error::NoBusybox { why: troubles.join("; ") })
    }
}

async fn read_busybox(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let size = tokio::fs::metadata(path).await.map_err(io_error("read", path))?.len();
    if size > RESCUE_BUSYBOX_MAX as u64 {
        return Ok(None);
    }
    let program = tokio::fs::read(path).await.map_err(io_error("read", path))?;
    Ok(initrd_builder::is_static_program(&program).then_some(program))
}
