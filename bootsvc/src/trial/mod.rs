//! A network for trials: between this host and PCs in software on it. A command of root makes the interface; the boot server
//! serves it as long as it is there, beside its own networks and in every mode, and forgets its PCs afterwards.

pub(crate) mod far_end;
pub(crate) mod pc;
mod qmp;

use crate::config::{Config, Subnet};
use crate::network::Served;
use crate::programs;
use crate::site::{Refused, Site};
use crate::storage_network::own_addresses;
use anyhow::bail;
use hyper::Method;
pub(crate) use model::{
    DOCTOR_AOE_MACHINE, DOCTOR_MACHINE, TRY_MACHINE, is_tried_mac as is_tried, tried_mac as mac,
};
use model::{MachineName, Network, Strangers};
use serde_json::{Value, json};
use service::MachineChange;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// The boot server sees at once that PCs are gone, unless it is very busy.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(10);
const FORGOTTEN_POLL: Duration = Duration::from_millis(100);

/// The interface's name.
pub(crate) const INTERFACE: &str = crate::net::link::TRIALS;

/// The host's address there. Of a network that is for measurements between devices, and routed nowhere (RFC 2544).
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 1);

/// The network.
pub(crate) const NETWORK: Subnet = Subnet { address: Ipv4Addr::new(198, 18, 77, 0), prefix: 24 };

/// Its PCs reach the server where those of its first network do, by the host's end as their router; so everything but DHCP is
/// heard there already.
pub(crate) fn network(first: &Network) -> Network {
    Network {
        subnet: NETWORK.address,
        prefix: NETWORK.prefix,
        // The storage server serves AoE there, too.
        is_relayed: false,
        router: Some(HOST),
        routes: Vec::new(),
        dns: Vec::new(),
        mtu: None,
        vlan: None,
        storage: None,
        foreign_dhcp: false,
        own_dhcp: false,
        strangers: Strangers::Wait,
        ..first.clone()
    }
}

/// Whether this host has nothing else in the trials' network: neither networks of PCs or disks, nor an address.
pub(crate) fn is_free(config: &Config, networks: &[Served]) -> bool {
    let pcs = networks.iter().map(|it| Subnet::of(it.network.subnet, it.network.prefix));
    let disks = config.network.all().filter_map(|it| it.storage_network);
    pcs.chain(disks).all(|it| !it.overlaps(NETWORK))
        && own_addresses().unwrap_or_default().iter().all(|it| !NETWORK.holds(it.address))
}

/// Whether it is an address of a PC that is tried.
pub(crate) fn is_tried_address(address: Ipv4Addr) -> bool {
    NETWORK.holds(address)
}

/// Where the boot server tells commands whether it serves trials.
pub(crate) const STATE: &str = "/local/trials";

/// What it tells.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct State {
    /// Nothing else is in their network.
    pub(crate) is_free: bool,
    /// There is an interface of theirs that it serves.
    pub(crate) has_interface: bool,
}

/// Refuses what the boot server would not serve.
///
/// # Errors
/// It says why.
pub(crate) fn check(site: &Site) -> anyhow::Result<()> {
    match site.get::<State>(STATE) {
        Ok(State { is_free: true, .. }) => Ok(()),
        Ok(_) => bail!(
            "this server has networks or addresses of its own in {NETWORK}, where PCs are tried"
        ),
        Err(error) if error.is::<Refused>() => {
            bail!("the boot server is of another release, which tries no PCs: restart it")
        }
        Err(error) => Err(error),
    }
}

/// Waits until the boot server serves the interface that was made.
///
/// # Errors
/// It does not: it is in another network namespace, or can't bind there.
pub(crate) fn wait_until_served(site: &Site) -> anyhow::Result<()> {
    let end = Instant::now() + FORGOTTEN_WITHIN;
    while !site.get::<State>(STATE)?.has_interface {
        if Instant::now() > end {
            bail!(
                "the boot server does not serve the interface {INTERFACE}: it runs in another network namespace, such as a \
                 container's, or its log tells why"
            );
        }
        std::thread::sleep(FORGOTTEN_POLL);
    }
    Ok(())
}

/// What a command has the boot server do: add a machine that is tried.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct Begin {
    pub(crate) name: MachineName,
    pub(crate) machine: MachineChange,
}

/// Adds a machine that is tried. Whoever calls it has made the interface, so that the boot server forgets the machine whatever
/// becomes of this process.
///
/// # Errors
/// There is one of that name that is somebody's own, or it is refused.
pub(crate) fn add_machine(site: &Site, name: &str, machine: &Value) -> anyhow::Result<()> {
    let begin = json!({ "name": name, "machine": machine });
    site.send::<Value>(Method::POST, STATE, &begin).map(drop)
}

/// Waits until the interface is gone, and the boot server has nothing of this machine any more.
///
/// # Errors
/// One of both stays; the error says how to be rid of it.
pub(crate) fn wait_until_forgotten(site: &Site, machine: &str) -> anyhow::Result<()> {
    let end = Instant::now() + FORGOTTEN_WITHIN;
    let is_known = || site.get::<Value>(&format!("/api/v1/machines/{machine}")).is_ok();
    while pc::is_there() || is_known() {
        if Instant::now() > end {
            match pc::is_there() {
                true => {
                    bail!("the interface {INTERFACE} stays: ip link delete {INTERFACE} removes it")
                }
                false => bail!("the boot server still knows it: bootlace machine rm {machine}"),
            }
        }
        std::thread::sleep(FORGOTTEN_POLL);
    }
    Ok(())
}

/// Has `ip` change interfaces, as root.
fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let answer = programs::ask("ip", arguments)?;
    if !answer.is_done {
        bail!("ip {} failed: {}", arguments.join(" "), pc::last_line(&answer.complaint));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_network_already_has_no_trials() {
        let text = |pool: &str, subnet: &str| {
            format!(
                "[[network]]\ninterface = \"lo\"\nsubnet = \"{subnet}\"\nrouter = \"{pool}.1\"\n\
                 pool = \"{pool}.100-{pool}.199\"\n"
            )
        };
        let is_free = |pool: &str, subnet: &str, more: &str| {
            let config = toml::from_str(&format!("{}{more}\n", text(pool, subnet))).unwrap();
            is_free(&config, &crate::network::networks(&config).unwrap())
        };
        assert!(is_free("10.0.5", "10.0.5.0/24", ""));
        assert!(!is_free("198.18.77", "198.18.77.0/24", ""));
        assert!(!is_free("198.18.5", "198.18.0.0/15", ""));
        assert!(!is_free("10.0.5", "10.0.5.0/24", "storage_network = \"198.18.0.0/15\""));
    }
}
