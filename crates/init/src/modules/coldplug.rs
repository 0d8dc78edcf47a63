//! Loads drivers for the hardware that is there, and for hardware that shows up later.

use crate::modules::Modules;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with, sockopt,
};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Largest event; the kernel's own limit is 2 KiB of environment plus the path.
const EVENT_MAX: usize = 8 * 1024;

/// Events that the kernel may queue for us while a driver is loading.
const EVENT_BUFFER_BYTES: usize = 4 << 20;

/// Deepest folder below `/sys/devices` that is looked at: USB behind several hubs has about 15.
const DEPTH_MAX: usize = 40;

/// Loads drivers for all hardware that is there, and goes on in a thread for what comes later.
///
/// Returns after the first round. The thread lives until the process ends.
pub(crate) fn start(modules: &Arc<Modules>) -> io::Result<()> {
    // The socket first, then the scan: what shows up in between is seen twice rather than never.
    let socket = open_events()?;
    scan(modules);
    let modules = Arc::clone(modules);
    std::thread::spawn(move || follow(&socket, &modules));
    Ok(())
}

fn open_events() -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::KOBJECT_UEVENT),
    )?;
    // Only root may have more than the system's limit; then a lost event costs a new scan.
    let _ = sockopt::set_socket_recv_buffer_size_force(&socket, EVENT_BUFFER_BYTES);
    // Group 1: the kernel's own events.
    bind(&socket, &SocketAddrNetlink::new(0, 1))?;
    Ok(socket)
}

fn follow(socket: &OwnedFd, modules: &Modules) {
    let mut buffer = vec![0; EVENT_MAX];
    loop {
        match recv(socket, buffer.as_mut_slice(), RecvFlags::empty()) {
            Ok((length, _)) => {
                if let Some(alias) = added_alias(&buffer[..length.min(EVENT_MAX)]) {
                    modules.load_matching(alias);
                }
            }
            Err(Errno::NOBUFS) => scan(modules),
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Hardware name of an event that says that a device was added.
fn added_alias(event: &[u8]) -> Option<&str> {
    let mut fields = event.split(|&byte| byte == 0);
    fields.clone().find(|field| *field == b"ACTION=add")?;
    let alias = fields.find_map(|field| field.strip_prefix(b"MODALIAS="))?;
    core::str::from_utf8(alias).ok()
}

fn scan(modules: &Modules) {
    for_each_device(Path::new("/sys/devices"), &mut |_, alias| modules.load_matching(alias));
}

/// Calls `visit(hardware name)` for each device of the machine.
pub(crate) fn for_each_alias(visit: &mut dyn FnMut(&str)) {
    for_each_device(Path::new("/sys/devices"), &mut |_, alias| visit(alias));
}

/// Calls `visit(folder, hardware name)` for each device of the machine.
fn for_each_device(root: &Path, visit: &mut dyn FnMut(&Path, &str)) {
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        if let Ok(alias) = fs::read_to_string(folder.join("modalias")) {
            visit(&folder, alias.trim());
        }
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            // Links lead to other places of the same tree.
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && depth < DEPTH_MAX {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
}

/// A network card that no driver has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostCard {
    /// For people: where it is and what it is, like `PCI 8086:100e at 0000:00:03.0`.
    pub(crate) name: String,
    /// `true` if this initrd has a driver for it, which did not start.
    pub(crate) has_driver: bool,
}

/// All network cards that no driver has taken.
pub(crate) fn cards_without_driver(modules: &Modules) -> Vec<LostCard> {
    let mut cards = Vec::new();
    for_each_device(Path::new("/sys/devices"), &mut |folder, alias| {
        if is_network_card(alias) && !folder.join("driver").exists() {
            let place = folder.file_name().unwrap_or_default().to_string_lossy();
            let name = format!("{} at {place}", card_name(alias));
            cards.push(LostCard { name, has_driver: modules.knows(alias) });
        }
    });
    cards
}

fn is_network_card(alias: &str) -> bool {
    match alias.split_once(':') {
        Some(("pci", rest)) => rest.contains("bc02"),
        // Communication devices, and the wireless class that RNDIS uses.
        Some(("usb", rest)) => rest.contains("ic02") || rest.contains("icE0"),
        // Device type 1 is a network card; its PCI device belongs to virtio_pci.
        Some(("virtio", rest)) => rest.starts_with("d00000001"),
        _ => false,
    }
}

/// `PCI 8086:100e`: the numbers that lspci, lsusb and search engines know.
fn card_name(alias: &str) -> String {
    let after = |text: &str, mark: &str, n_digits: usize| {
        let digits = text.split_once(mark)?.1.get(..n_digits)?;
        Some(digits.trim_start_matches("0000").to_ascii_lowercase())
    };
    let pci = || Some((after(alias, "pci:v", 8)?, after(alias, "d", 8)?));
    let usb = || Some((after(alias, "usb:v", 4)?, after(alias, "p", 4)?));
    match (pci(), usb()) {
        (Some((vendor, device)), _) => format!("PCI {vendor:0>4}:{device:0>4}"),
        (_, Some((vendor, device))) => format!("USB {vendor:0>4}:{device:0>4}"),
        _ => alias.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_added_hardware_counts() {
        let event =
            b"add@/devices/pci0\0ACTION=add\0DEVPATH=/devices/pci0\0MODALIAS=pci:v1d2\0SEQNUM=9\0";
        assert_eq!(added_alias(event), Some("pci:v1d2"));
        let removed = b"remove@/x\0ACTION=remove\0MODALIAS=pci:v1d2\0";
        assert_eq!(added_alias(removed), None);
        assert_eq!(added_alias(b"add@/x\0ACTION=add\0SUBSYSTEM=block\0"), None);
        for end in 0..event.len() {
            let _ = added_alias(&event[..end]);
        }
    }

    #[test]
    fn cards_are_named_by_their_numbers() {
        let check = |alias: &str, is_network: bool, name: &str| {
            assert_eq!((is_network_card(alias), card_name(alias).as_str()), (is_network, name));
        };
        let e1000 = "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00";
        check(e1000, true, "PCI 8086:100e");
        check("pci:v00001234d00001111sv00001AF4sd00001100bc03sc00i00", false, "PCI 1234:1111");
        let usb = "usb:v0525pA4A2d0000dc02dsc00dp00ic02isc06ip00in00";
        check(usb, true, "USB 0525:a4a2");
        check("virtio:d00000001v00001AF4", true, "virtio:d00000001v00001AF4");
        check("virtio:d00000004v00001AF4", false, "virtio:d00000004v00001AF4");
        for end in 0..e1000.len() {
            let _ = card_name(&e1000[..end]);
        }
    }
}
