//! What a machine would get.

use crate::error::Error;
use crate::initrds::WITH_DISKS;
use crate::service::Service;
use model::{BootChoice, Fetch, Machine, MachineName, Network, Plan, grub_cfg, plan};
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
    /// network. Waits for the storage server, at most 5 seconds, if the machine keeps its disk.
    ///
    /// # Errors
    /// There is no such machine.
    pub async fn preview(&self, name: &MachineName) -> Result<Option<Preview>, Error> {
        let view = self.machine(name)?;
        let Some(first) = &self.options().network else { return Ok(None) };
        let address = view.address.unwrap_or(first.server);
        let network = self.options().network_at(address).unwrap_or(first);
        // By the NIC that it booted from last, whose address that is.
        let mac = view.boot.map_or(view.machine.mac, |boot| boot.mac);
        Ok(Some(Preview {
            grub_cfg: self.preview_config(network, mac, address).await,
            is_example_address: view.address.is_none(),
        }))
    }

    async fn preview_config(&self, network: &Network, mac: Mac, address: Ipv4Addr) -> String {
        let id = self.boot_of(mac).map_or(0, |boot| boot.id);
        let site = self.site();
        let machine = site.machine_by_mac(mac);
        let machine = machine.map(Machine::as_it_boots);
        let starts = machine.as_ref().map(|it| it.next_boot.as_ref().unwrap_or(it.menu.first()));
        let other = match starts {
            None | Some(BootChoice::Image) => None,
            Some(BootChoice::OtherImage(image)) => Some(image),
            Some(BootChoice::LocalDisk) => {
                return grub_cfg(&Plan::LocalDisk, network, Fetch::Itself);
            }
            Some(BootChoice::MemoryTest) => {
                return grub_cfg(&Plan::MemoryTest, network, Fetch::Itself);
            }
        };
        let planned = match plan(&site, network, (mac, address), id, other) {
            Ok(boot) => self.stay_on_version(&site, boot).await,
            Err(why) => Err(why),
        };
        let plan = match planned {
            Ok(mut boot) => {
                boot.has_rescue = self.view().rescues.contains_key(boot.machine.name.as_str());
                boot.fitted = match boot.config.capture {
                    Some(_) => Some(WITH_DISKS.to_owned()),
                    None => self.likely_fitted(&boot),
                };
                Plan::Boot(boot)
            }
            Err(why) => Plan::Wait(why),
        };
        grub_cfg(&plan, network, Fetch::Itself)
    }
}
