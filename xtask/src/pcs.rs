//! PCs of every kind, in every kind of network, each booted to a running system: the table of the book's page on quirks.
//!
//! What the tests boot in each run is a part of it, since it takes a quarter of an hour.

use crate::{build, say, setup};
use anyhow::{Context, Result, ensure};
use clap::Args;
use lab::{Client, Daemon, DhcpServer, Firmware, Lan, OtherDhcp, Pc, Recipe, Release, Site};
use std::path::Path;
use std::time::{Duration, Instant};

/// From power-on to a running system; without KVM.
const BOOT: Duration = Duration::from_secs(120);

/// OVMF's own settings by which it leaves out PXE; else it tries that for two minutes before HTTP Boot.
pub(crate) const NO_PXE: [&str; 4] = [
    "-fw_cfg",
    "name=opt/org.tianocore/IPv4PXESupport,string=no",
    "-fw_cfg",
    "name=opt/org.tianocore/IPv6PXESupport,string=no",
];

#[derive(Args)]
pub(crate) struct Pcs {
    /// Only those in whose line this is
    #[arg(value_name = "WORDS")]
    only: Option<String>,
}

/// Who gives the addresses, and how PCs reach the server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Network {
    Ours,
    Proxy,
    /// With the loader that Debian 13 has had signed.
    ProxySigned,
    External,
    /// An external server that names no loader.
    Silent,
    Relay,
}

impl Network {
    const ALL: [Self; 6] =
        [Self::Ours, Self::Proxy, Self::ProxySigned, Self::External, Self::Silent, Self::Relay];

    const fn title(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Proxy => "proxy beside dnsmasq",
            Self::ProxySigned => "proxy beside dnsmasq, Debian 13's signed loader",
            Self::External => "external: dnsmasq with our recipe",
            Self::Silent => "external: dnsmasq that names no loader",
            Self::Relay => "behind dhcrelay",
        }
    }
}

/// How a PC comes to its loader.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// As its firmware does.
    Firmware,
    HttpBoot,
    Ipxe,
    Stick,
    Cd,
}

/// A kind of PC, and where it is.
struct Cell {
    network: Network,
    firmware: Firmware,
    nic: &'static str,
    by: By,
    root: &'static str,
    cards: u8,
}

const fn cell(network: Network, firmware: Firmware, by: By) -> Cell {
    Cell { network, firmware, nic: "virtio-net-pci", by, root: "nbd", cards: 1 }
}

/// All of them.
fn cells() -> Vec<Cell> {
    use Firmware::{Bios, Uefi, UefiSecureBoot};
    use Network::{External, Ours, Proxy, ProxySigned, Relay, Silent};
    let plain = |network, firmware| cell(network, firmware, By::Firmware);
    let with = |firmware, nic| Cell { nic, ..plain(Ours, firmware) };
    vec![
        plain(Ours, Bios),
        Cell { root: "aoe", ..plain(Ours, Bios) },
        with(Bios, "e1000"),
        // With this one GRUB gets no kernel: see the page on quirks.
        Cell { by: By::Ipxe, ..with(Bios, "rtl8139") },
        plain(Ours, Uefi),
        Cell { root: "aoe", ..plain(Ours, Uefi) },
        Cell { cards: 2, ..plain(Ours, Uefi) },
        plain(Ours, UefiSecureBoot),
        cell(Ours, Uefi, By::HttpBoot),
        cell(Ours, Bios, By::Ipxe),
        cell(Ours, Uefi, By::Ipxe),
        cell(Ours, Bios, By::Stick),
        cell(Ours, Uefi, By::Cd),
        cell(Ours, UefiSecureBoot, By::Stick),
        // This OVMF has no driver for it.
        Cell { by: By::Cd, ..with(Uefi, "e1000") },
        plain(Proxy, Bios),
        plain(Proxy, Uefi),
        cell(Proxy, Bios, By::Ipxe),
        cell(Proxy, Uefi, By::Stick),
        cell(Proxy, Uefi, By::HttpBoot),
        plain(ProxySigned, UefiSecureBoot),
        cell(ProxySigned, UefiSecureBoot, By::HttpBoot),
        plain(External, Bios),
        plain(External, Uefi),
        cell(Silent, Bios, By::Cd),
        cell(Silent, Uefi, By::Stick),
        cell(Silent, UefiSecureBoot, By::Stick),
        plain(Relay, Bios),
        plain(Relay, Uefi),
    ]
}

impl Cell {
    /// Network, firmware and card, how its loader comes, root.
    fn columns(&self) -> [String; 4] {
        let firmware = match self.firmware {
            Firmware::Bios => "SeaBIOS, iPXE in the card",
            Firmware::Uefi => "OVMF",
            Firmware::UefiSecureBoot => "OVMF, Secure Boot with Microsoft's keys",
            Firmware::Arm64 => "AAVMF, arm64",
            Firmware::Arm64SecureBoot => "AAVMF, arm64, Secure Boot with Microsoft's keys",
        };
        let cards = if self.cards > 1 { ", two cards" } else { "" };
        let by = match self.by {
            By::Firmware => "PXE",
            By::HttpBoot => "UEFI HTTP Boot",
            By::Ipxe => "iPXE (`loader_of`)",
            By::Stick => "boot medium, stick",
            By::Cd => "boot medium, CD",
        };
        let root = self.root.to_uppercase().replace("AOE", "AoE");
        let network = self.network.title().to_owned();
        [network, format!("{firmware}, {}{cards}", self.nic), by.to_owned(), root]
    }

    fn line(&self) -> String {
        self.columns().join(" | ")
    }
}

impl Pcs {
    pub(crate) fn run(&self) -> Result<()> {
        setup()?;
        let binary = build::run()?;
        let image = Recipe::BUSYBOX.image(say)?;
        let wanted = |cell: &Cell| self.only.as_ref().is_none_or(|it| cell.line().contains(it));
        let cells: Vec<Cell> = cells().into_iter().filter(wanted).collect();
        let mut rows = Vec::new();
        let mut failed = Vec::new();
        for network in Network::ALL {
            let here: Vec<&Cell> = cells.iter().filter(|cell| cell.network == network).collect();
            if here.is_empty() {
                continue;
            }
            say(&format!("network: {}", network.title()));
            let place = Place::lay(network, &here, &binary, &image)?;
            for (number, cell) in here.iter().enumerate() {
                let booted = place.boot(number, cell);
                let result = match &booted {
                    Ok((time, loader)) => format!("{} s | {loader}", time.as_secs()),
                    Err(error) => {
                        failed.push(format!("{}: {error:#}", cell.line()));
                        "**no** | ".to_owned()
                    }
                };
                let row = format!("| {} | {result} |", cell.line());
                say(&row);
                rows.push(row);
            }
            place.servers.stop()?;
        }
        println!(
            "| addresses | PC | boots by | root | power-on to *up* | loader |\n|---|---|---|---|---|---|\n{}",
            rows.join("\n")
        );
        ensure!(failed.is_empty(), "these did not boot:\n{}", failed.join("\n"));
        Ok(())
    }
}

/// A network, with its servers and a machine for each cell.
struct Place {
    servers: Daemon,
    site: Site,
    medium: std::path::PathBuf,
    network: Network,
    _other: Option<OtherDhcp>,
    /// The relay, and where it runs.
    _relay: Option<(Daemon, Client)>,
}

fn name(number: usize) -> String {
    format!("pc-{}", number + 1)
}

fn mac(number: usize) -> String {
    format!("52:54:00:00:0a:{:02x}", number + 1)
}

impl Place {
    fn lay(network: Network, cells: &[&Cell], binary: &Path, image: &Path) -> Result<Self> {
        let ipxe = cells.iter().enumerate().filter(|(_, cell)| cell.by == By::Ipxe);
        let ipxe: Vec<String> = ipxe.map(|(n, _)| format!("\"{}\" = \"ipxe\"", mac(n))).collect();
        let lan = Lan::lay("pcs")?;
        let mut site = Site::builder();
        site = site.binary(binary).boot(&format!("loader_of = {{ {} }}", ipxe.join(", ")));
        site = match network {
            Network::Ours => site,
            Network::Proxy => site.network("mode = \"proxy\""),
            Network::ProxySigned => {
                let folder = lab::signed_loader(Release::Debian13, say)?;
                let signed = format!("signed_loader = \"{}\"", folder.display());
                site.network("mode = \"proxy\"").boot(&signed)
            }
            Network::External | Network::Silent => site.network("mode = \"external\""),
            Network::Relay => site.another_network(
                "interface = \"br0\"\nsubnet = \"10.20.0.0/16\"\nrouter = \"10.20.0.1\"\n\
                 pool = \"10.20.0.100-10.20.0.199\"",
            ),
        };
        let site = site.create(lan)?;
        let other = other(&site, network)?;
        let relay = (network == Network::Relay).then(|| relay(&site)).transpose()?;
        site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
        for (number, cell) in cells.iter().enumerate() {
            let (name, mac) = (name(number), mac(number));
            let root = ["--image", "debian", "--root-kind", cell.root];
            let mut arguments = vec!["machine", "set", &name, "--mac", &mac];
            arguments.extend(root);
            site.run(&arguments)?;
        }
        let medium = site.root().join("medium.iso");
        site.run(&["medium", "build", "--output", &medium.to_string_lossy()])?;
        let servers = site.up()?;
        Ok(Self { servers, site, medium, network, _other: other, _relay: relay })
    }

    /// Boots a PC; how long that took, and what its loader was.
    fn boot(&self, number: usize, cell: &Cell) -> Result<(Duration, String)> {
        let (name, mac) = (name(number), mac(number));
        let drive =
            format!("if=none,id=medium,format=raw,readonly=on,file={}", self.medium.display());
        let mut extra: Vec<&str> = match cell.by {
            By::Firmware | By::Ipxe => Vec::new(),
            By::HttpBoot => NO_PXE.to_vec(),
            By::Stick => vec![
                "-device",
                "qemu-xhci",
                "-drive",
                &drive,
                "-device",
                "usb-storage,drive=medium,bootindex=0",
            ],
            By::Cd => vec!["-drive", &drive, "-device", "ide-cd,drive=medium,bootindex=0"],
        };
        if cell.cards > 1 {
            extra.extend(["-netdev", "user,id=n1,restrict=on", "-device", "e1000,netdev=n1"]);
        }
        let mut pc = Pc::builder(&name).mac(&mac).firmware(cell.firmware).nic_model(cell.nic);
        if self.network == Network::Relay {
            pc = pc.on("far1");
        }
        let begun = Instant::now();
        let pc = pc.extra(&extra).start(self.site.lan())?;
        let stages = self.site.wait_for_stage(&name, "up", BOOT);
        let stages =
            stages.with_context(|| format!("its console's end:\n{}", pc.console().tail(15)))?;
        let took = begun.elapsed();
        let loader = stages.iter().filter(|line| line.stage == "loader");
        let loaders: Vec<&str> = loader.map(|line| line.detail.as_str()).collect();
        Ok((took, files(&loaders.join("; "))))
    }
}

/// The names of files in what is told of a loader. What is fetched before the PC is known is not told of, and iPXE in a card's ROM
/// fetches a script only.
fn files(detail: &str) -> String {
    let parts = detail.split("; ").filter_map(|part| part.split_once(", "));
    let names: Vec<String> = parts.map(|(name, _)| name.to_owned()).collect();
    match (detail, names.is_empty()) {
        ("", _) => "iPXE's script".to_owned(),
        (_, true) => "tells that it runs".to_owned(),
        (_, false) => names.join(", "),
    }
}

/// The other DHCP server, if there is one.
fn other(site: &Site, network: Network) -> Result<Option<OtherDhcp>> {
    let recipe = match network {
        Network::Ours | Network::Relay => return Ok(None),
        Network::Proxy | Network::ProxySigned | Network::Silent => String::new(),
        Network::External => site.run(&["net", "recipe", "dnsmasq"])?,
    };
    OtherDhcp::start(DhcpServer::Dnsmasq, site, &recipe).map(Some)
}

fn relay(site: &Site) -> Result<(Daemon, Client)> {
    let lan = site.lan();
    lan.add_bridge_of("far1", None)?;
    let router = Client::unplugged("router")?;
    lan.plug("br0", &router, "up0", "52:54:00:00:00:f2")?;
    lan.plug("far1", &router, "down0", "52:54:00:00:01:f2")?;
    router.netns().ip("address add 10.77.0.2/24 dev up0")?;
    router.netns().ip("address add 10.20.0.1/16 dev down0")?;
    lab::text_of(router.command("sysctl").args(["-w", "net.ipv4.ip_forward=1"]))?;
    lan.netns().ip("route add 10.20.0.0/16 via 10.77.0.2")?;
    let mut dhcrelay = router.command("dhcrelay");
    dhcrelay.args(["-4", "-d", "-a", "-iu", "up0", "-id", "down0", "10.77.0.1"]);
    let log = site.root().join("relay.log");
    let mut daemon = Daemon::start_detached("relay", &mut dhcrelay, &log)?;
    daemon.wait_for_log("Sending on", Duration::from_secs(20))?;
    Ok((daemon, router))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaders_are_named() {
        assert_eq!(
            files("shimx64.efi, 1 MB by TFTP in 1 s; grubx64.efi, 2 MB"),
            "shimx64.efi, grubx64.efi"
        );
        assert_eq!(files("it runs"), "tells that it runs");
        assert_eq!(files(""), "iPXE's script");
    }

    #[test]
    fn no_cell_is_there_twice() {
        let mut lines: Vec<_> = cells().iter().map(Cell::line).collect();
        let n = lines.len();
        lines.sort();
        lines.dedup();
        assert!(lines.len() == n && n >= 16, "{n}");
    }
}
