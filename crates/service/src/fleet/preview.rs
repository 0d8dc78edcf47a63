//! What a machine would get.

use crate::error::Error;
use crate::service::Service;
use model::{MachineName, Network, Plan, grub_cfg, plan};
use std::net::Ipv4Addr;
use wire::Mac;

/// What a machine would get if it asked now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// GRUB's configuration.
    pub grub_cfg: String,
    /// Whether its address is only an example, since it never had one.
    pub is_example_address: bool,
}

impl Service {
    /// What a machine's loader would get now, without preparing anything. `None`: this process has no boot
    /// network.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn preview(&self, name: &MachineName) -> Result<Option<Preview>, Error> {
        let view = self.machine(name)?;
        let Some(network) = &self.options().network else { return Ok(None) };
        let address = view.address.unwrap_or(network.server);
        Ok(Some(Preview {
            grub_cfg: self.preview_config(network, view.machine.mac, address),
            is_example_address: view.address.is_none(),
        }))
    }

    fn preview_config(&self, network: &Network, mac: Mac, address: Ipv4Addr) -> String {
        let boot = self.boot_of(mac).map_or(0, |boot| boot.id);
        let mut plan = plan(&self.site(), network, mac, address, boot);
        if let Plan::Boot(boot) = &mut plan {
            boot.has_rescue = self.view().rescues.contains_key(boot.machine.name.as_str());
        }
        grub_cfg(&plan, network)
    }
}
