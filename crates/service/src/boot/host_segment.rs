//! What only one boot of one machine gets: its secret, its settings, and the machine's SSH host key.

use super::ssh_key;
use super::stages::new_token;
use crate::error::Error;
use crate::service::Service;
use crate::storage_client;
use initcfg::{HostConfig, Replaces, RescuePassword, SshHostKey, Token};
use model::{
    Boot, BootId, Exchange, ExportOrder, FindingKind, Machine, MachineName, RootKind, Stage,
    WriteMode,
};
use std::net::Ipv4Addr;
use std::sync::Arc;
use wire::Mac;

/// The image's public host key.
const IMAGE_KEY: &str = "/etc/ssh/ssh_host_ed25519_key.pub";

/// A boot's new secret.
struct Renewed {
    token: Token,
    /// It is exchanged inside of TLS, where the machine is also told what else nobody may hear.
    is_exchanged: bool,
}

/// How who asks is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The NIC that answers at his address on the boot network.
    Neighbour(Mac),
    /// Nobody answers there.
    Silent,
    /// By a router: nobody knows his NIC.
    Routed,
}

impl Service {
    /// The host segment's file for a boot of the machine at this address, with a new secret: the former one of the boot
    /// is void. Secrets of other boots stay what they are. Who asks must be able to hear the answer, as who asks over TCP
    /// is: otherwise anybody could ask in the machine's name, and make its secret void.
    ///
    /// A boot gets one if the machine's own NIC asks, and only until the machine has proven it or a later one, or its
    /// system starts: afterwards any user of that system could ask.
    ///
    /// # Errors
    /// The database can't be used.
    pub(crate) async fn new_host_file(
        &self,
        address: Ipv4Addr,
        link: Link,
        boot: BootId,
    ) -> Result<Option<String>, Error> {
        let view = self.view();
        let Some(mac) = view.owner(address) else { return Ok(None) };
        let Some(last) = view.boots.get(&mac) else { return Ok(None) };
        let open = view.boot(mac, boot).filter(|known| !known.proof.is_given);
        let open = open.filter(|known| {
            let starts = |stage: Stage| matches!(stage, Stage::Handover | Stage::Up);
            !known.boot.stages.iter().any(|event| starts(event.stage))
                && !self.heartbeats().was_heard(boot)
        });
        let Some(machine) = view.site.machine_by_mac(mac) else { return Ok(None) };
        let machine = &*machine.as_it_boots();
        let why = match link {
            Link::Neighbour(other) if other != mac => Some(format!(
                "{other} asks for its secret from its address {address}: that is not the NIC that boots"
            )),
            Link::Silent => {
                Some(format!("its secret is asked for from {address}, where nobody answers"))
            }
            Link::Neighbour(_) | Link::Routed => match open {
                Some(_) => None,
                None if last.boot.mac != mac => Some(format!(
                    "its secret is asked for by its NIC {mac}, but it boots from {}",
                    last.boot.mac
                )),
                None => Some("its secret is asked for, which it has already".to_owned()),
            },
        };
        if let Some(why) = why {
            self.refuse_words(mac, last.boot.id, &why);
            return Ok(None);
        }
        let Some(open) = open else { return Ok(None) };
        let renewed = {
            let service = self.clone();
            // To the end, even if who asks goes away: boot server and storage server must know the same secret.
            tokio::spawn(async move { service.renew_token(mac, address, boot).await })
        };
        let Some(renewed) = renewed.await.map_err(|_| Error::Stopping)?? else { return Ok(None) };
        let Renewed { token, is_exchanged } = renewed;
        let rescue = open.rescue.as_ref();
        let rescue: Option<RescuePassword> = rescue.and_then(|word| word.parse().ok());
        // What is told inside of TLS is not told here.
        let (disks, disk_servers) = match is_exchanged {
            true => Default::default(),
            false => self.further_disks(&view.site, machine, address),
        };
        let config = HostConfig {
            boot,
            token,
            reboot_seconds: self.options().reboot_after_failure_seconds,
            rescue: rescue.map(|password| password.hash(&token)),
            ssh: match is_exchanged {
                true => None,
                false => self.ssh_host_key(machine, &open.boot).await?,
            },
            // Whether there are any is told inside of TLS, too.
            has_files: !is_exchanged && self.has_files(machine, &open.boot).await?,
            disks,
            disk_servers,
            zram: self.options().network_at(address).and_then(|network| network.zram),
        };
        Ok(Some(config.to_file()))
    }

    /// The host segment's file, as [`host_archive`](Self::host_archive) has it, too. None is given while the machine runs in an earlier
    /// boot, or may: any user of its system could ask, from the machine's own NIC, and have the disk when it ends.
    ///
    /// # Errors
    /// The database can't be used.
    pub async fn host_file(
        &self,
        address: Ipv4Addr,
        link: Link,
        boot: BootId,
    ) -> Result<Option<String>, Error> {
        if let Some(mac) = self.view().owner(address)
            && self.runs_in_earlier_boot(mac, boot).await
        {
            self.refuse_words(mac, boot, "the secret of another boot is asked for while it runs");
            return Ok(None);
        }
        self.new_host_file(address, link, boot).await
    }

    /// The order with the keys of a boot with this secret. With `mix` the secret is exchanged inside of TLS, and the
    /// machine's SSH host key is told there.
    pub(super) async fn with_keys(
        &self,
        order: ExportOrder,
        machine: &Machine,
        boot: &Boot,
        token: Option<Token>,
        mix: Option<Token>,
    ) -> Result<ExportOrder, Error> {
        let exchange = match token.zip(mix) {
            Some((token, mix)) => {
                let address = order.spec.address;
                let (disks, disk_servers) = self.further_disks(&self.view().site, machine, address);
                let told = HostConfig {
                    boot: boot.id,
                    token: mix,
                    reboot_seconds: self.options().reboot_after_failure_seconds,
                    rescue: None,
                    ssh: self.ssh_host_key(machine, boot).await?,
                    has_files: self.has_files(machine, boot).await?,
                    disks,
                    disk_servers,
                    zram: self.options().network_at(address).and_then(|network| network.zram),
                };
                Some(Exchange { key: token.mixed(&mix).disk_key(), text: told.to_file() })
            }
            None => None,
        };
        Ok(ExportOrder { key: token.map(|token| token.disk_key()), exchange, ..order })
    }

    /// The host segment of a boot of the machine at this address, as the archive that follows the initrd: one file in
    /// newc format.
    ///
    /// # Errors
    /// The database can't be used, or the archive can't be made.
    pub async fn host_archive(
        &self,
        address: Ipv4Addr,
        link: Link,
        boot: BootId,
    ) -> Result<Option<Vec<u8>>, Error> {
        let Some(file) = self.host_file(address, link, boot).await? else { return Ok(None) };
        let archive = initrd_builder::host_segment(&file)
            .map_err(|error| Error::HostSegment { boot, why: wire::error_chain(&error) })?;
        Ok(Some(archive))
    }

    /// Exchanges the secret of a boot that has not proven itself, here and at the storage server; `None`: it has.
    async fn renew_token(
        &self,
        mac: Mac,
        address: Ipv4Addr,
        boot: BootId,
    ) -> Result<Option<Renewed>, Error> {
        loop {
            let view = self.view();
            let open = view.boot(mac, boot).filter(|known| !known.proof.is_given);
            let Some(open) = open else { return Ok(None) };
            let (former, token) = (open.proof.token, new_token()?);
            let machine = view.site.machine_by_mac(mac).map(Machine::as_it_boots);
            let machine = machine.as_deref();
            let root = open.boot.root.filter(|root| !root.is_foreign());
            let image = open.boot.image.as_ref();
            let mut mix = None;
            if let (Some(machine), Some((image, version)), Some(root)) = (machine, image, root) {
                if root == RootKind::Nbd && self.options().nbd_ca.is_some() {
                    mix = Some(new_token()?);
                }
                let image = (image, *version);
                let nic = (mac, address);
                let order = self.export_order(&view, machine, image, root, open, nic);
                let order = self.with_reset(order, machine).await?;
                let order = self.with_keys(order, machine, &open.boot, Some(token), mix).await?;
                let socket = &self.options().storage_socket;
                let taken = storage_client::put_export(socket, &order).await?;
                mix = mix.filter(|_| taken.is_exchanged);
            }
            if let Some(machine) = machine {
                let last = mix.map_or(token, |mix| token.mixed(&mix));
                let nic = (mac, address);
                self.order_further_disks(&view, machine, open, nic, last.disk_key()).await;
            }
            let renewed = self
                .database()
                .write(move |tables| Ok(tables.renew_token(mac, boot, former, token, mix)?));
            if renewed.await? {
                return Ok(Some(Renewed { token, is_exchanged: mix.is_some() }));
            }
            // Somebody else was faster: who asked last gets the secret that counts.
        }
    }

    /// Counts what somebody else seems to have asked for in a machine's name.
    pub(super) fn refuse_words(&self, mac: Mac, boot: BootId, why: &str) {
        self.refused().count(boot);
        let cause = format!("Probably somebody speaks in its name: {why}");
        self.found(FindingKind::WordsRefused, &self.subject_of(mac), cause);
    }

    /// The machine's own key, which is made when it is wanted first. None comes to where an image is changed: all would have it.
    async fn ssh_host_key(
        &self,
        machine: &Machine,
        boot: &Boot,
    ) -> Result<Option<SshHostKey>, Error> {
        if machine.edit.is_some() || machine.capture.is_some() {
            return Ok(None);
        }
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
        Ok(Some(SshHostKey { private, public, replaces }))
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
