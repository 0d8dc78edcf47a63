//! What only one boot of one machine gets: its secret, its settings, and the machine's SSH host key.

use crate::error::Error;
use crate::service::Service;
use crate::store::view::Part;
use initcfg::{HostConfig, Replaces, RescuePassword, SshHostKey};
use model::{Boot, BootId, Machine, MachineName, Stage, WriteMode};
use rusqlite::{OptionalExtension as _, params};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The image's public host key.
const IMAGE_KEY: &str = "/etc/ssh/ssh_host_ed25519_key.pub";

impl Service {
    /// The host segment's file for a boot of the machine at this address.
    ///
    /// Only the last boot of a machine gets one, and only until the machine has shown that it has it or its
    /// system starts: afterwards any user of that system could ask.
    ///
    /// # Errors
    /// The database can't be used.
    pub async fn host_file(
        &self,
        address: Ipv4Addr,
        boot: BootId,
    ) -> Result<Option<String>, Error> {
        let view = self.view();
        let Some(mac) = view.lease_of(address).map(|lease| lease.mac) else { return Ok(None) };
        let (Some(last), Some(control)) = (view.boots.get(&mac), view.controls.get(&mac)) else {
            return Ok(None);
        };
        let system_starts = last.stages.iter().any(|event| event.stage >= Stage::Handover)
            || self.heartbeats().was_heard(mac, boot);
        let (Some(token), Some(machine)) = (control.token, view.site.machine_by_mac(mac)) else {
            return Ok(None);
        };
        if last.id != boot || control.is_proven || system_starts {
            tracing::warn!(machine = %machine.name, boot, "asks for a host segment that it must not have");
            return Ok(None);
        }
        let rescue = control.rescue.as_ref();
        let rescue: Option<RescuePassword> = rescue.and_then(|word| word.parse().ok());
        let config = HostConfig {
            boot,
            token,
            reboot_seconds: self.options().reboot_after_failure_seconds,
            rescue: rescue.map(|password| password.hash(&token)),
            ssh: Some(self.ssh_host_key(machine, last).await?),
        };
        Ok(Some(config.to_file()))
    }

    /// The same as the archive that follows the initrd.
    ///
    /// # Errors
    /// As [`Service::host_file`].
    pub async fn host_archive(
        &self,
        address: Ipv4Addr,
        boot: BootId,
    ) -> Result<Option<Vec<u8>>, Error> {
        let Some(file) = self.host_file(address, boot).await? else { return Ok(None) };
        let archive = initrd_builder::host_segment(&file)
            .map_err(|error| Error::HostSegment { boot, why: wire::error_chain(&error) })?;
        Ok(Some(archive))
    }

    /// The machine's own key, which is made when it is wanted first.
    async fn ssh_host_key(&self, machine: &Machine, boot: &Boot) -> Result<SshHostKey, Error> {
        let name = machine.name.clone();
        let known = self.database().read(move |connection| {
            let query = "SELECT private, public FROM ssh_host_key WHERE machine = ?1";
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            connection.query_row(query, [name.as_str()], row).optional()
        });
        let (private, public) = match known.await? {
            Some(key) => key,
            None => self.new_ssh_host_key(&machine.name).await?,
        };
        let replaces = match machine.write_mode {
            WriteMode::Persistent => Replaces::Shared(self.image_key(boot).await),
            _ => Replaces::All,
        };
        Ok(SshHostKey { private, public, replaces })
    }

    async fn new_ssh_host_key(&self, name: &MachineName) -> Result<(String, String), Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| Error::NoRandomness)?;
        let (private, public) = make_key(name, &seed).map_err(|_| Error::NoRandomness)?;
        let name = name.clone();
        self.database()
            .write(move |connection| {
                // Whoever was first: GRUB may ask twice.
                let key = connection.query_row(
                    "INSERT INTO ssh_host_key VALUES (?1, ?2, ?3) \
                     ON CONFLICT (machine) DO UPDATE SET machine = machine RETURNING private, public",
                    params![name.as_str(), private, public],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )?;
                Ok((Part::Nothing, key))
            })
            .await
    }

    /// The host key that all disks of the boot's image begin with, if it has one: its Base64 word.
    async fn image_key(&self, boot: &Boot) -> Option<String> {
        let (image, version) = boot.image.clone()?;
        let store = Arc::clone(self.store());
        let read = tokio::task::spawn_blocking(move || {
            let key = store.rootfs(&image, version).ok()?.read(IMAGE_KEY).ok()?;
            let key = String::from_utf8(key).ok()?;
            key.split_whitespace().nth(1).map(str::to_owned)
        });
        read.await.ok().flatten()
    }
}

/// A new key in OpenSSH's formats: the private one in one line without its frame, and the public one.
fn make_key(name: &MachineName, seed: &[u8; 32]) -> Result<(String, String), ssh_key::Error> {
    let key = PrivateKey::new(Ed25519Keypair::from_seed(seed).into(), name.as_str())?;
    let framed = key.to_openssh(LineEnding::LF)?;
    let private = framed.lines().filter(|line| !line.starts_with('-')).collect();
    Ok((private, key.public_key().to_openssh()?))
}
