//! The boot NIC: finds it, sets it up, gives it the address that the boot server leased.

use crate::console::Console;
use crate::failure::Failure;
use crate::modules::Modules;
use crate::modules::coldplug::{self, LostCard};
use crate::net::netlink::{self, Socket};
use crate::sysfs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use wire::{Mac, Route};

/// How long the NIC may take to show up after its driver was loaded. Adapters behind USB hubs, and
/// cards that load firmware, were seen to need 15 s.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the kernel is asked for a change.
const POLL: Duration = Duration::from_millis(20);

/// A person is told what is waited for after this time. Gigabit links need 3 s for their negotiation.
const HINT_FIRST: Duration = Duration::from_secs(5);

/// What a person is told is repeated after this time.
const HINT_EVERY: Duration = Duration::from_secs(20);

/// A network interface of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nic {
    pub(crate) name: String,
    pub(crate) index: u32,
}

impl Nic {
    /// The interface of this name, if there is one.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let index = sysfs::number(format!("/sys/class/net/{name}/ifindex"))?;
        Some(Self { name: name.to_owned(), index: index.try_into().ok()? })
    }

    fn path(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/sys/class/net/{}/{file}", self.name))
    }

    pub(crate) fn has_carrier(&self) -> bool {
        sysfs::number(self.path("carrier")) == Some(1)
    }

    /// Name of the driver, for people.
    pub(crate) fn driver(&self) -> String {
        let link = std::fs::read_link(self.path("device/driver")).unwrap_or_default();
        link.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Waits until the interface with this MAC is there.
pub(crate) fn find(mac: Mac, modules: &Modules, console: &Console) -> Result<Nic, Failure> {
    let started = Instant::now();
    let mut next_hint = HINT_FIRST;
    loop {
        let interfaces = interfaces();
        let found = interfaces.iter().find(|(_, address)| *address == mac);
        if let Some(nic) = found.and_then(|(name, _)| Nic::named(name)) {
            return Ok(nic);
        }
        if started.elapsed() > APPEAR_TIMEOUT {
            return Err(not_found(mac, &interfaces, &coldplug::cards_without_driver(modules)));
        }
        if started.elapsed() > next_hint {
            let lost = coldplug::cards_without_driver(modules);
            let why =
                if lost.is_empty() { String::new() } else { format!(": {}", in_words(&lost)) };
            console.say("modules", &format!("waiting for the network card {mac}{why}"));
            next_hint += HINT_EVERY;
        }
        std::thread::sleep(POLL);
    }
}

/// All interfaces with an Ethernet address.
pub(crate) fn interfaces() -> Vec<(String, Mac)> {
    let names = sysfs::names("/sys/class/net").into_iter().filter(|name| name != "lo");
    names
        .filter_map(|name| {
            let address = sysfs::read(format!("/sys/class/net/{name}/address"))?;
            Some((name, address.parse().ok()?))
        })
        .collect()
}

fn not_found(mac: Mac, interfaces: &[(String, Mac)], lost: &[LostCard]) -> Failure {
    let others: Vec<String> =
        interfaces.iter().map(|(name, mac)| format!("{name} {mac}")).collect();
    let seen = match (others.is_empty(), lost.is_empty()) {
        (true, true) => "it has found no network card at all".to_owned(),
        (true, false) => in_words(lost),
        (false, true) => format!("it has found only {}", others.join(", ")),
        (false, false) => format!("it has found only {}; {}", others.join(", "), in_words(lost)),
    };
    let remedy = match lost.iter().any(|card| !card.has_driver) {
        _ if lost.is_empty() => {
            "check that the card is seated, and that the network boot was started from this card"
        }
        true => "use an image whose kernel has a driver for this card, such as a newer one",
        false => {
            "its firmware may be missing: import an image with the card's firmware package; or a \
             kernel parameter blocks the driver"
        }
    };
    let what = format!("Linux does not see the network card {mac} that started this boot; {seen}");
    Failure::new(what, remedy)
}

/// `PCI 8086:100e at 0000:00:03.0 has no driver in this initrd`.
pub(crate) fn in_words(lost: &[LostCard]) -> String {
    let sentence = |card: &LostCard| match card.has_driver {
        true => format!("the driver of {} did not start", card.name),
        false => format!("{} has no driver in this initrd", card.name),
    };
    lost.iter().map(sentence).collect::<Vec<_>>().join(", ")
}

/// Sets the NIC up and waits for its link, for as long as it takes. Returns for people how fast it is,
/// if the driver knows, and how long it took, if that is odd.
pub(crate) fn bring_up(nic: &Nic, console: &Console) -> Result<String, Failure> {
    let failed = |error| cannot("set up the network card", &nic.name, &error);
    let socket = Socket::route().map_err(failed)?;
    // Loopback first: programs of the real system may count on it from the first moment.
    let _ = netlink::link_up(&socket, 1);
    netlink::link_up(&socket, nic.index).map_err(failed)?;
    Ok(wait_for_link(nic, console))
}

/// Waits for the link, for as long as it takes; returns what [`bring_up`] does.
pub(crate) fn wait_for_link(nic: &Nic, console: &Console) -> String {
    let started = Instant::now();
    let mut next_hint = HINT_FIRST;
    while !nic.has_carrier() {
        if started.elapsed() > next_hint {
            let seconds = started.elapsed().as_secs();
            console.say(
                "link",
                &format!(
                    "no link on {} for {seconds} s: is the cable plugged in, and the switch on?",
                    nic.name
                ),
            );
            next_hint += HINT_EVERY;
        }
        std::thread::sleep(POLL);
    }
    let speed = match sysfs::number(nic.path("speed")) {
        Some(speed) if speed > 0 && speed < u64::from(u32::MAX) => format!(", {speed} Mbit/s"),
        // Virtual cards have no speed.
        _ => String::new(),
    };
    match started.elapsed() {
        wait if wait > HINT_FIRST => format!("{speed}, after {} s without a link", wait.as_secs()),
        _ => speed,
    }
}

/// Makes the interface of a VLAN, over which everything goes from now on.
pub(crate) fn join_vlan(nic: &Nic, vlan: u16) -> Result<Nic, Failure> {
    let name = format!("{}.{vlan}", nic.name);
    let failed = |error: io::Error| {
        cannot(&format!("make the interface of VLAN {vlan} on"), &nic.name, &error)
    };
    let socket = Socket::route().map_err(failed)?;
    netlink::add_vlan(&socket, nic.index, &name, vlan).map_err(failed)?;
    let made = Nic::named(&name).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    netlink::link_up(&socket, made.index).map_err(failed)?;
    Ok(made)
}

/// Gives the NIC its address and its routes, the default one among them.
pub(crate) fn configure(
    nic: &Nic,
    (address, prefix): (Ipv4Addr, u8),
    router: Option<Ipv4Addr>,
    routes: &[Route],
) -> Result<(), Failure> {
    let failed = |error| cannot("give the address to", &nic.name, &error);
    let socket = Socket::route().map_err(failed)?;
    netlink::add_address(&socket, nic.index, address, prefix).map_err(failed)?;
    let default = router.and_then(|router| Route::new(Ipv4Addr::UNSPECIFIED, 0, router));
    for route in routes.iter().copied().chain(default) {
        netlink::add_route(&socket, nic.index, route).map_err(|error| {
            cannot(&format!("set the router {} on", route.via), &nic.name, &error)
        })?;
    }
    Ok(())
}

fn cannot(what: &str, name: &str, error: &io::Error) -> Failure {
    Failure::new(
        format!("can't {what} {name}: {error}"),
        "this is a fault of the driver or of the address settings of the boot server",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_is_missing_is_explained() {
        let mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
        let other = ("eth0".to_owned(), Mac([2, 0, 0, 0, 0, 1]));
        let lost = |has_driver| LostCard { name: "PCI 8086:100e".to_owned(), has_driver };
        let check = |interfaces: &[(String, Mac)], lost: &[LostCard], what: &str, remedy: &str| {
            let failure = not_found(mac, interfaces, lost);
            assert!(failure.what.contains(what), "{failure}");
            assert!(failure.remedy.contains(remedy), "{failure}");
        };
        check(&[], &[], "no network card at all", "is seated");
        check(std::slice::from_ref(&other), &[], "only eth0 02:00:00:00:00:01", "is seated");
        check(&[], &[lost(false)], "boot; PCI 8086:100e has no driver", "a newer one");
        check(&[other], &[lost(true)], "01; the driver of PCI 8086:100e did not", "firmware");
    }
}
