//! Whether the interfaces serve PCs.

use super::Verdict;
use crate::boot::other_dhcp;
use crate::config::{Config, Mode};
use crate::net::dhcp_watch::DhcpWatch;
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

/// BIOS and UEFI, as firmware says it (RFC 4578 §2.1).
const FIRMWARE: [u16; 2] = [0, 7];

/// Whether another DHCP server answers at this interface, where our address is `server`, if that matters.
pub(super) fn other_servers(
    config: &Config,
    (interface, server): (&str, Ipv4Addr),
) -> Option<Verdict> {
    if config.network.beside_others && config.network.mode.leases() {
        return None;
    }
    let probe = async {
        let watch = DhcpWatch::open(interface, server)?;
        let found = watch.probe().await?;
        if found.is_none() || config.network.mode != Mode::Proxy {
            return Ok(found);
        }
        // What it tells firmware, it tells nobody else.
        for architecture in FIRMWARE {
            let told = watch.probe_as_firmware(architecture).await?;
            if let Some(told) = told.filter(|it| it.serves_firmware || it.boot_file.is_some()) {
                return Ok(Some(told));
            }
        }
        Ok(found)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mode = config.network.mode;
    Some(match runtime.and_then(|runtime| runtime.block_on(probe)) {
        Ok(None) if !mode.leases() => Verdict::Better(format!(
            "DHCP: nobody gives addresses on {interface}, and Bootlace does not with mode = \"{}\": switch the other DHCP server on, \
             or set mode = \"dhcp\" and a pool below [network]",
            mode.word()
        )),
        Ok(Some(other)) if !mode.leases() => {
            let loader = mode == Mode::Proxy && other.serves_firmware;
            match other.boot_file.as_ref().filter(|_| mode == Mode::Proxy) {
                _ if loader => Verdict::Wrong(format!(
                    "DHCP: {} sends option 60 \"PXEClient\": PCs ask it for their loader, at port 4011, and not Bootlace. Remove option 60 \
                     there",
                    other.server
                )),
                Some(file) => Verdict::Wrong(format!(
                    "DHCP: {} names the loader {file:?}, which some PCs take and not Bootlace's. Remove it there (next server, file name, \
                     options 66 and 67), or let it name Bootlace's: mode = \"external\", and bootlace net recipe",
                    other.server
                )),
                None => Verdict::Right(format!(
                    "DHCP: {} gives addresses on {interface}, such as {}",
                    other.server, other.address
                )),
            }
        }
        Ok(None) => Verdict::Right(format!("DHCP: no other server answers on {interface}")),
        Ok(Some(other)) => Verdict::Wrong(other_dhcp::told(&other, interface)),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Verdict::Unseen(format!("whether another DHCP server answers on {interface}"))
        }
        Err(error) => Verdict::Wrong(format!("DHCP: {}", other_dhcp::not_asked(interface, &error))),
    })
}
