//! TFTP over ways that carry less than Ethernet does, as tunnels and PPPoE do.

use anyhow::{Context, Result, ensure};
use fakeclient::tftp_crowd::{Fetch, Fetched, fetch_all};
use lab::{Client, Lan, Need, SERVER, Site, require, text_of};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

/// A loader: a file of some hundred kilobytes that every site has.
const FILE: &str = "bl.efi";

/// What the links behind the router carry. PCs there don't know.
const MTU: u16 = 1400;

/// A network behind the router.
struct Behind {
    bridge: &'static str,
    /// The first two numbers of its addresses.
    subnet: &'static str,
    mac: &'static str,
    /// Further settings of it.
    settings: &'static str,
}

const FAR: [Behind; 2] = [
    Behind { bridge: "far1", subnet: "10.20", mac: "52:54:00:00:01:f1", settings: "" },
    Behind { bridge: "far2", subnet: "10.21", mac: "52:54:00:00:01:f2", settings: "mtu = 1400" },
];

struct Place {
    site: Site,
    router: Client,
}

impl Place {
    fn lay(name: &str) -> Result<Self> {
        let lan = Lan::lay(name)?;
        let router = Client::unplugged("router")?;
        lan.plug("br0", &router, "up0", "52:54:00:00:00:f1")?;
        router.netns().ip("address add 10.77.0.2/24 dev up0")?;
        text_of(router.command("sysctl").args(["-w", "net.ipv4.ip_forward=1"]))?;
        let mut builder = Site::builder().verbose().boot("secure_boot = \"never\"");
        for Behind { bridge, subnet, mac, settings } in FAR {
            lan.add_bridge_of(bridge, None)?;
            lan.plug(bridge, &router, bridge, mac)?;
            router.netns().ip(&format!("address add {subnet}.0.1/16 dev {bridge}"))?;
            router.netns().ip(&format!("link set {bridge} mtu {MTU}"))?;
            lan.netns().ip(&format!("route add {subnet}.0.0/16 via 10.77.0.2"))?;
            builder = builder.another_network(&format!(
                "interface = \"br0\"\nsubnet = \"{subnet}.0.0/16\"\nrouter = \"{subnet}.0.1\"\n\
                 pool = \"{subnet}.0.100-{subnet}.0.199\"\n{settings}"
            ));
        }
        Ok(Self { site: builder.create(lan)?, router })
    }

    /// From now on the router says nothing of packets that it can't pass on, and the server forgets what it has said.
    fn silence_router(&self) -> Result<()> {
        self.router.netns().ip(&format!("rule add iif lo to {SERVER} blackhole"))?;
        self.site.lan().netns().ip("route flush cache")
    }

    fn pc(&self, behind: &Behind) -> Result<Pc> {
        let client = Client::unplugged("pc")?;
        self.site.lan().plug(behind.bridge, &client, "eth0", &behind.mac.replace(":f", ":0"))?;
        let subnet = behind.subnet;
        client.netns().ip(&format!("address add {subnet}.0.50/16 dev eth0"))?;
        client.netns().ip(&format!("route add default via {subnet}.0.1"))?;
        let address = format!("{subnet}.0.50").parse()?;
        Ok(Pc { client, address, folder: tempfile::tempdir()? })
    }

    fn finds_lost_packets(&self) -> Result<bool> {
        let answer = self.site.browser().json("/api/v1/findings")?;
        let findings = answer["findings"].as_array().context("no list of findings")?;
        Ok(findings.iter().any(|finding| finding["kind"] == "large-packets-lost"))
    }
}

struct Pc {
    client: Client,
    address: Ipv4Addr,
    folder: tempfile::TempDir,
}

impl Pc {
    /// As many ROMs are.
    fn can_put_no_fragments_together(&self) -> Result<()> {
        for limit in ["low", "high"] {
            let setting = format!("net.ipv4.ipfrag_{limit}_thresh=0");
            text_of(self.client.command("sysctl").args(["-w", &setting]))?;
        }
        Ok(())
    }

    /// The same with another address: another PC to the server.
    fn becomes(&mut self, address: &str) -> Result<()> {
        self.client.netns().ip(&format!("address flush dev eth0 to {}/32", self.address))?;
        self.client.netns().ip(&format!("address add {address}/16 dev eth0"))?;
        let (network, _) = address.split_once(".0.").context("no address behind the router")?;
        self.client.netns().ip(&format!("route replace default via {network}.0.1"))?;
        self.address = address.parse()?;
        Ok(())
    }

    /// Other people's clients get the file.
    fn is_served(&self, expected: &[u8], programs: &[String]) -> Result<()> {
        for words in programs {
            let got = fetch(&self.client, words, self.folder.path())?;
            ensure!(got == expected, "{words} gets {} bytes of {}", got.len(), expected.len());
        }
        Ok(())
    }

    /// The size of the blocks that the server grants, by how many there are.
    fn granted(&self, size: usize, asked: u16) -> Result<u64> {
        let fetch = Fetch {
            server: SocketAddrV4::new(SERVER.parse()?, 69),
            path: FILE,
            block_size: asked,
            window: 1,
            patience: Duration::from_secs(1),
            lost_per_thousand: 0,
        };
        let fetched = self.client.netns().inside(|| Ok(fetch_all(&fetch, &[self.address])))?;
        let Fetched { n_bytes, n_packets, n_copies, .. } =
            fetched.into_iter().next().context("no client")??;
        ensure!(n_bytes == size as u64, "{n_bytes} bytes came of {size}");
        let n_blocks = n_packets - n_copies;
        let sizes = [512, 1024, 1368, 1468];
        let fits = |block: &u64| n_bytes / block + 1 == n_blocks;
        sizes
            .into_iter()
            .find(fits)
            .with_context(|| format!("{n_bytes} bytes in {n_blocks} blocks"))
    }
}

fn fetch(client: &Client, words: &str, folder: &Path) -> Result<Vec<u8>> {
    let got = folder.join("got");
    let _ = std::fs::remove_file(&got);
    let mut command = client.command("timeout");
    command.args(["30", "sh", "-c", words]).current_dir(folder);
    text_of(&mut command).with_context(|| format!("{words} fails"))?;
    std::fs::read(&got).with_context(|| format!("{words} fetches nothing"))
}

fn curl(block_size: u16) -> String {
    format!("curl -sS -m 8 --tftp-blksize {block_size} tftp://{SERVER}/{FILE} -o got")
}

#[test]
fn blocks_are_as_large_as_the_way_to_a_pc_carries() {
    let programs = ["grub-mkimage", "curl", "busybox", "atftp", "tftp"].map(Need::Program);
    let needs: Vec<Need> = std::iter::once(Need::Root).chain(programs).collect();
    if !require("small-packets", &needs) {
        return;
    }
    let run = || -> Result<()> {
        let place = Place::lay("small-packets")?;
        let servers = place.site.up()?;
        small_packets(&place).with_context(|| format!("the servers' log:\n{}", servers.log()))?;
        servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}

fn small_packets(place: &Place) -> Result<()> {
    let near = place.site.lan().add_client("near", "52:54:00:00:00:01")?;
    near.netns().ip("address add 10.77.0.50/24 dev eth0")?;
    let folder = tempfile::tempdir()?;
    let loader = fetch(&near, &curl(1468), folder.path())?;
    let all = [
        curl(1468),
        format!("busybox tftp -g -b 1468 -r {FILE} -l got {SERVER}"),
        format!(
            "atftp --option 'blksize 8192' --option 'windowsize 4' -g -r {FILE} -l got {SERVER}"
        ),
        format!("tftp -m binary {SERVER} -c get {FILE} got"),
    ];
    let mut pc = place.pc(&FAR[0])?;

    // The router says what it carries: the first block is sent again in fragments, and the next transfer has smaller ones.
    pc.is_served(&loader, &all[..1])?;
    ensure!(pc.granted(loader.len(), 1468)? == 1368, "what the router has said counts for nothing");

    // It says nothing, but divides packets.
    place.silence_router()?;
    pc.is_served(&loader, &all)?;
    ensure!(!place.finds_lost_packets()?, "nothing was lost for good");

    // Nor can the PC put them together. That is known after its first try.
    pc.can_put_no_fragments_together()?;
    pc.becomes("10.20.0.51")?;
    let first = fetch(&pc.client, &curl(1468), pc.folder.path());
    ensure!(first.is_err(), "a block of 1468 bytes came over a link of {MTU}");
    ensure!(place.finds_lost_packets()?, "nobody is told");
    pc.is_served(&loader, &all)?;
    ensure!(pc.granted(loader.len(), 1468)? == 512, "what got lost is tried again");
    // GRUB asks for this, and gets it; so it may be granted to whoever asks for more.
    ensure!(pc.granted(loader.len(), 1024)? == 1024, "GRUB has smaller blocks than it needs");
    ensure!(pc.granted(loader.len(), 1468)? == 1024, "what came counts for nothing");

    // The setting of the network is enough for TFTP.
    let configured = place.pc(&FAR[1])?;
    configured.can_put_no_fragments_together()?;
    configured.is_served(&loader, &all)?;
    ensure!(configured.granted(loader.len(), 1468)? == 1368, "mtu counts for nothing");

    // The MTU of the route is enough for all.
    pc.becomes("10.20.0.52")?;
    let by_http = [format!("curl -sSf -m 8 http://{SERVER}/{FILE} -o got")];
    ensure!(pc.is_served(&loader, &by_http).is_err(), "HTTP came over a link of {MTU}");
    let route = format!("route replace 10.20.0.0/16 via 10.77.0.2 mtu {MTU}");
    place.site.lan().netns().ip(&route)?;
    pc.is_served(&loader, &by_http)?;
    pc.is_served(&loader, &all)?;
    ensure!(pc.granted(loader.len(), 1468)? == 1368, "the route counts for nothing");
    Ok(())
}
