//! Whether the interfaces serve PCs.

use super::Verdict;
use crate::boot::other_dhcp;
use crate::config::{Config, Mode};
use crate::net::dhcp_watch::{Other, probe_all};
use crate::net::link::{LinkTrouble, look_at};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use std::io::ErrorKind;
use std::net::Ipv4Addr;

/// Why no PC is reached on this interface of a boot network, where our address is `server`; `None`: one would be.
pub(super) fn interface(interface: &str, server: Ipv4Addr) -> Option<Verdict> {
    if is_loopback(interface) {
        return Some(Verdict::Wrong(format!(
            "the interface {interface} leads to this host alone, and to no PC: name the network card to which the PCs are \
             connected (interface below [network]; ip -brief link lists all)"
        )));
    }
    let trouble = look_at(interface, server).ok()?.trouble?;
    let told = format!("the interface {interface} {trouble}{}", trouble.advice(interface));
    Some(match trouble {
        LinkTrouble::NoCarrier => Verdict::Better(told),
        LinkTrouble::Gone | LinkTrouble::Down | LinkTrouble::NoAddress(_) => Verdict::Wrong(told),
    })
}

fn is_loopback(interface: &str) -> bool {
    let mut all = getifaddrs().into_iter().flatten().filter(|it| it.interface_name == interface);
    all.any(|it| it.flags.contains(InterfaceFlags::IFF_LOOPBACK))
}

fn is_down(interface: &str) -> bool {
    let mut all = getifaddrs().into_iter().flatten().filter(|it| it.interface_name == interface);
    all.any(|it| !it.flags.contains(InterfaceFlags::IFF_UP))
}

/// Whether the interfaces for AoE are there.
pub(super) fn aoe(config: &Config) -> Option<Verdict> {
    let wanted = config.storage.aoe_interfaces.as_ref().filter(|it| !it.is_empty())?;
    let present = match nix::net::if_::if_nameindex() {
        Ok(present) => present,
        Err(error) => {
            return Some(Verdict::Wrong(format!(
                "AoE: can't list the network interfaces: {error}"
            )));
        }
    };
    let present: Vec<_> =
        present.iter().map(|it| it.name().to_string_lossy().into_owned()).collect();
    if let Some(missing) = wanted.iter().find(|wanted| !present.contains(wanted)) {
        return Some(Verdict::Wrong(format!(
            "AoE: there is no network interface {missing:?} (aoe_interfaces); there are: {}",
            present.join(", ")
        )));
    }
    if let Some(local) = wanted.iter().find(|wanted| is_loopback(wanted)) {
        return Some(Verdict::Wrong(format!(
            "AoE: the interface {local} leads to this host alone, and to no PC: name another one (aoe_interfaces)"
        )));
    }
    Some(match wanted.iter().find(|wanted| is_down(wanted)) {
        None => Verdict::Right(format!("AoE: served on {}", wanted.join(", "))),
        Some(down) => Verdict::Better(format!(
            "AoE: the interface {down} {}{}",
            LinkTrouble::Down,
            LinkTrouble::Down.advice(down)
        )),
    })
}

/// Whether another DHCP server answers at this interface, where our address is `server`, if that matters.
pub(super) fn other_servers(
    config: &Config,
    (interface, server): (&str, Ipv4Addr),
) -> Option<Verdict> {
    let mode = config.network.mode;
    if config.network.beside_others && mode.leases() {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let probed = runtime.and_then(|runtime| runtime.block_on(probe_all(interface, server)));
    let (other, teller) = match probed {
        Ok(probed) => probed,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Some(Verdict::Unseen(format!(
                "whether another DHCP server answers on {interface}"
            )));
        }
        Err(error) => {
            let told = other_dhcp::not_asked(interface, &error);
            return Some(Verdict::Wrong(format!("DHCP: {told}")));
        }
    };
    // Where another server is to name our loader, it is told so.
    let teller = teller.filter(|_| mode != Mode::External);
    Some(match (other, teller) {
        (Some(other), _) if mode.leases() => {
            Verdict::Wrong(other_dhcp::told(&other, interface, mode))
        }
        (_, Some(teller)) if teller.serves_firmware => Verdict::Wrong(format!(
            "DHCP: {} sends option 60 \"PXEClient\" on {interface}: PCs ask it for their loader, at port 4011 or as it says, and not \
             Bootlace. Remove option 60 there, or switch that service off (FOG, LTSP, WDS and dnsmasq have one)",
            teller.server
        )),
        (_, Some(teller)) => Verdict::Wrong(format!(
            "DHCP: {} names the loader {:?}, which some PCs take and not Bootlace's. Remove it there (next server, file name, \
             options 66 and 67), or let it name Bootlace's: mode = \"external\", and bootlace net recipe",
            teller.server,
            teller.boot_file.unwrap_or_default()
        )),
        (None, None) if !mode.leases() => Verdict::Better(format!(
            "DHCP: nobody gives addresses on {interface}, and Bootlace does not with mode = \"{}\": switch the other DHCP server on, \
             or set mode = \"dhcp\" and a pool below [network]",
            mode.word()
        )),
        (Some(Other { server, address: Some(address), .. }), None) => Verdict::Right(format!(
            "DHCP: {server} gives addresses on {interface}, such as {address}"
        )),
        (_, None) => Verdict::Right(format!("DHCP: no other server answers on {interface}")),
    })
}
