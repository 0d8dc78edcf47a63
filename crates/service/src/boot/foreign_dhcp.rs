//! PCs whose firmware was not heard, or not with an address of ours. What they say of another server's address, and are seen to have, is
//! noted as a lease, so that everything else finds them as if it were ours.

use super::stages::NewStage;
use crate::error::Error;
use crate::service::Service;
use crate::store::Sighting;
use model::{Lease, Stage};
use std::net::Ipv4Addr;
use wire::{Firmware, Mac};

/// An address is believed to be its PC's for so long after it was seen there, in seconds. Who has it next says so himself.
const BELIEVED_SECONDS: u64 = 86_400;

impl Service {
    /// A NIC has this address by another DHCP server.
    ///
    /// # Errors
    /// The database can't be written, or too many changes wait.
    pub async fn has_address(&self, mac: Mac, address: Ipv4Addr) -> Result<(), Error> {
        let now = self.lease_clock_unix();
        let (is_known, host_name) = {
            let view = self.view();
            let former = view.lease(mac).map(|lease| self.lease_clock().counted(lease));
            let is_fresh = |lease: &Lease| {
                lease.address == address && lease.expires_unix > now + BELIEVED_SECONDS / 2
            };
            let is_known =
                view.owner(address) == Some(mac) && former.as_ref().is_some_and(is_fresh);
            (is_known, former.and_then(|lease| lease.host_name))
        };
        if is_known {
            return Ok(());
        }
        let expires_unix = now + BELIEVED_SECONDS;
        self.commit_lease(Lease { mac, address, expires_unix, host_name }).await
    }

    /// A machine answers: it has the address still at which it was seen last.
    ///
    /// # Errors
    /// The database can't be written, or too many changes wait.
    pub async fn keeps_address(&self, mac: Mac) -> Result<(), Error> {
        let address = self.view().lease(mac).map(|lease| lease.address);
        match address {
            Some(address) => self.has_address(mac, address).await,
            None => Ok(()),
        }
    }

    /// The firmware of a PC asks for this address of another DHCP server: it was seen, and a boot begins. Anybody can say so in anybody's
    /// name, and in that of PCs that there are not: the address is not kept before it [is seen](Self::has_address).
    ///
    /// # Errors
    /// The database can't be written, or too many changes wait.
    pub async fn firmware_has_address(
        &self,
        sighting: Sighting,
        address: Ipv4Addr,
    ) -> Result<(), Error> {
        let stage = NewStage::noticed(Stage::Dhcp, by_another_server(address, sighting.firmware));
        self.firmware_starts(sighting, stage).await.map(drop)
    }

    /// Our loader runs on a PC that says that this is its NIC. If its firmware was not heard, its boot begins now; unless the
    /// machine's system answers, any user of which can say so, too.
    ///
    /// # Errors
    /// The database can't be written, or too many changes wait.
    pub async fn loader_runs(
        &self,
        mac: Mac,
        firmware: Firmware,
        address: Ipv4Addr,
    ) -> Result<(), Error> {
        self.has_address(mac, address).await?;
        self.begins_in_loader(mac, firmware, address, by_another_server(address, firmware)).await
    }

    /// Our loader was started from a boot medium on the PC with this NIC, and has this address of ours, for which it asked as any program:
    /// its boot begins now, unless the machine's system answers. Who says so must be seen at that address; a boot that begins is a
    /// candidate, as one that a DHCP message begins.
    ///
    /// # Errors
    /// The database can't be written, or too many changes wait.
    pub async fn medium_runs(
        &self,
        mac: Mac,
        firmware: Firmware,
        address: Ipv4Addr,
    ) -> Result<(), Error> {
        let detail = format!("{address}, {firmware}, boot medium");
        self.begins_in_loader(mac, firmware, address, detail).await
    }

    /// Of whom the loader is the first that is heard; `detail` is of its address.
    async fn begins_in_loader(
        &self,
        mac: Mac,
        firmware: Firmware,
        address: Ipv4Addr,
        detail: String,
    ) -> Result<(), Error> {
        if self.is_said_by_a_system(mac).await {
            return Ok(());
        }
        let sighting =
            Sighting { mac, firmware, address: Some(address), uuid: None, host_name: None };
        self.firmware_starts(sighting, NewStage::noticed(Stage::Dhcp, detail)).await?;
        self.stage(mac, None, NewStage::noticed(Stage::Loader, "it runs")).await.map(drop)
    }

    /// Whether a boot would begin now while the machine's system answers, so that no loader can run there. That is refused, and
    /// counted.
    async fn is_said_by_a_system(&self, mac: Mac) -> bool {
        let boot = self.boot_of(mac).filter(|_| !self.is_in_firmware(mac));
        let Some(boot) = boot.map(|boot| boot.id) else { return false };
        let runs = self.still_runs(mac).await;
        if runs {
            self.refuse_words(mac, boot, "a loader is said to run there while its system answers");
        }
        runs
    }
}

fn by_another_server(address: Ipv4Addr, firmware: Firmware) -> String {
    format!("{address} by another DHCP server, {firmware}")
}
