//! What only one boot of one machine gets: its secret, its settings, and the machine's SSH host key.

use super::ssh_key;
use crate::error::Error;
use crate::service::Service;
use initcfg::{HostConfig, Replaces, RescuePassword, SshHostKey};
use model::{Boot, BootId, Machine, MachineName, Stage, WriteMode};
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
        let Some(mac) = view.owner(address) else { return Ok(None) };
        let Some(last) = view.boots.get(&mac) else { return Ok(None) };
        let starts = |stage: Stage| matches!(stage, Stage::Handover | Stage::Up);
        let system_starts = last.boot.stages.iter().any(|event| starts(event.stage))
            || self.heartbeats().was_heard(boot);
        let (Some(token), Some(machine)) = (last.proof.token, view.site.machine_by_mac(mac)) else {
            return Ok(None);
        };
        if last.boot.id != boot || last.proof.is_given || system_starts {
            tracing::warn!(machine = %machine.name, boot, "asks for a host segment that it must not have");
            return Ok(None);
        }
        let rescue = last.rescue.as_ref();
        let rescue: Option<RescuePassword> = rescue.and_then(|word| word.parse().ok());
        let config = HostConfig {
            boot,
            token,
            reboot_seconds: self.options().reboot_after_failure_seconds,
            rescue: rescue.map(|password| password.hash(&token)),
            ssh: Some(self.ssh_host_key(machine, &last.boot).await?),
        };
        Ok(Some(config.to_file()))
    }

    /// The host segment of a boot of the machine at this address, as the archive that follows the initrd: one file in
    /// newc format.
    ///
    /// # Errors
    /// The database can't be used, or the archive can't be made.
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
        let known = self.database().read(move |tables| tables.ssh_host_key(&name));
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
        let (mut seed, mut check) = ([0; 32], [0; 4]);
        for random in [&mut seed[..], &mut check] {
            getrandom::fill(random).map_err(|_| Error::NoRandomness)?;
        }
        let (private, public) = ssh_key::ed25519(&seed, u32::from_be_bytes(check), name.as_str())
            .ok_or(Error::NoRandomness)?;
        let name = name.clone();
        self.database()
            .write(move |tables| Ok(tables.keep_ssh_host_key(&name, &private, &public)?))
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
