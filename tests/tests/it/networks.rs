//! One server for several networks: on two interfaces of its own, and behind two kinds of relays.

use crate::boot::{BOOT, MAC, QUICK, can_boot, wait_for_login};
use crate::dhcp::{EVERYONE, Udhcpc};
use crate::storage_network::{VIRTIO, card, tls};
use anyhow::{Context, Result, ensure};
use lab::{
    Authority, Client, Daemon, Lan, Need, Pc, PcSlots, SERVER, Site, SiteBuilder, require, text_of,
};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

/// A relay between the LAN of the server and a network behind it.
struct Relay {
    _program: Daemon,
    _router: Client,
}

/// Behind dhcrelay, and behind dnsmasq.
const FIRST: (&str, &str) = ("far1", "10.20.0.1");
const SECOND: (&str, &str) = ("far2", "10.21.0.1");

/// A storage network of the first of them, which reaches the server without a router.
const STORAGE: (&str, &str) = ("store", "10.40.0.1");

struct Place {
    site: Site,
    _relays: Vec<Relay>,
}

impl Place {
    /// The server is on `br0` and `br1`. Of the networks behind relays it knows by the configuration only.
    fn lay(name: &str) -> Result<Self> {
        Self::lay_with(name, "", Site::builder())
    }

    /// The same with more about the first network behind a relay, and about all else.
    fn lay_with(name: &str, of_first: &str, builder: SiteBuilder) -> Result<Self> {
        let lan = Lan::lay(name)?;
        lan.add_bridge_of("br1", Some("10.88.0.1/24"))?;
        let behind = |subnet: &str| {
            format!(
                "interface = \"br0\"\nsubnet = \"{subnet}.0.0/16\"\nrouter = \"{subnet}.0.1\"\ndns = [\"{subnet}.0.1\"]\n\
                 domain = \"far.example\"\npool = \"{subnet}.0.100-{subnet}.0.199\""
            )
        };
        let reserve = "reserve = { \"52:54:00:00:02:02\" = \"10.21.0.7\" }";
        if !of_first.is_empty() {
            lan.add_bridge_of(STORAGE.0, Some(&format!("{}/16", STORAGE.1)))?;
        }
        let site = builder
            .verbose()
            .boot("secure_boot = \"never\"")
            .network(EVERYONE)
            .another_network("interface = \"br1\"\npool = \"10.88.0.100-10.88.0.199\"")
            .another_network(&format!("{}\n{of_first}", behind("10.20")))
            .another_network(&format!("{}\n{reserve}", behind("10.21")))
            .create(lan)?;
        let dhcrelay = Relay::lay(&site, FIRST, ("10.77.0.2", "52:54:00:00:00:f2"), |router| {
            let mut dhcrelay = router.command("dhcrelay");
            // It adds option 82, and speaks to the server alone by one interface, to clients alone by the other.
            dhcrelay.args(["-4", "-d", "-a", "-iu", "up0", "-id", "down0", "10.77.0.1"]);
            (dhcrelay, "Sending on")
        })?;
        let dnsmasq = Relay::lay(&site, SECOND, ("10.77.0.3", "52:54:00:00:00:f3"), |router| {
            let mut dnsmasq = router.command("dnsmasq");
            dnsmasq.args(["-k", "-p", "0", "-C", "/dev/null", "--log-facility=-", "--pid-file="]);
            dnsmasq.arg("--dhcp-relay=10.21.0.1,10.77.0.1");
            (dnsmasq, "DHCP relay from")
        })?;
        Ok(Self { site, _relays: vec![dhcrelay, dnsmasq] })
    }

    /// A client on one of the networks.
    fn client(&self, bridge: &str, mac: &str) -> Result<Client> {
        let client = Client::unplugged("client")?;
        self.site.lan().plug(bridge, &client, "eth0", mac)?;
        Ok(client)
    }
}

impl Relay {
    fn lay(
        site: &Site,
        (bridge, address): (&str, &str),
        (up, mac): (&str, &str),
        program: impl FnOnce(&Client) -> (Command, &'static str),
    ) -> Result<Self> {
        let lan = site.lan();
        lan.add_bridge_of(bridge, None)?;
        let router = Client::unplugged("router")?;
        lan.plug("br0", &router, "up0", mac)?;
        lan.plug(bridge, &router, "down0", &mac.replace("00:f", "01:f"))?;
        router.netns().ip(&format!("address add {up}/24 dev up0"))?;
        router.netns().ip(&format!("address add {address}/16 dev down0"))?;
        text_of(router.command("sysctl").args(["-w", "net.ipv4.ip_forward=1"]))?;
        let subnet = address.trim_end_matches(".1");
        lan.netns().ip(&format!("route add {subnet}.0/16 via {up}"))?;
        let (mut command, ready) = program(&router);
        let log = site.root().join(format!("{bridge}.log"));
        let mut program = Daemon::start_detached("relay", &mut command, &log)?;
        program.wait_for_log(ready, Duration::from_secs(20))?;
        Ok(Self { _program: program, _router: router })
    }
}

/// What a client is told, by their names.
fn is_told(told: &BTreeMap<String, String>, wanted: &[(&str, &str)]) -> Result<()> {
    for (name, value) in wanted {
        let found = told.get(*name).map(String::as_str);
        ensure!(found == Some(value), "{name} is {found:?}, not {value:?}: {told:#?}");
    }
    Ok(())
}

#[test]
fn clients_on_two_interfaces_and_behind_two_relays_get_what_their_network_has() {
    let programs = ["dhcrelay", "dnsmasq", "udhcpc", "dhclient", "grub-mkimage", "curl"];
    let needs: Vec<Need> = std::iter::once(Need::Root).chain(programs.map(Need::Program)).collect();
    if !require("networks", &needs) {
        return;
    }
    let run = || -> Result<()> {
        let place = Place::lay("networks")?;
        let servers = place.site.up()?;
        let test = || -> Result<()> {
            let firmware = ["-V", "PXEClient:Arch:00007:UNDI:003016", "-x", "0x5d:0007"];
            for (bridge, mac, subnet, server) in [
                ("br0", "52:54:00:00:01:01", "10.77.0", "10.77.0.1"),
                ("br1", "52:54:00:00:01:02", "10.88.0", "10.88.0.1"),
                ("far1", "52:54:00:00:02:01", "10.20.0", "10.77.0.1"),
                ("far2", "52:54:00:00:02:02", "10.21.0", "10.77.0.1"),
            ] {
                let at = |what: &str| format!("{what} on {bridge}");
                let client = place.client(bridge, mac)?;
                let folder = tempfile::tempdir()?;
                let udhcpc = Udhcpc::new(&client, folder.path())?;
                let told = udhcpc.ask(&firmware).with_context(|| at("no address"))?;
                is_told(
                    &told,
                    &[("siaddr", server), ("serverid", server), ("boot_file", "bl.efi")],
                )?;
                let address = told.get("ip").context("no address")?;
                ensure!(address.starts_with(subnet), "{address} {}", at("given"));
                if bridge.starts_with("far") {
                    let router = format!("{subnet}.1");
                    is_told(&told, &[("router", &router), ("mask", "16"), ("dns", &router)])?;
                    is_told(&told, &[("domain", "far.example")])?;
                    client.netns().ip(&format!("route add default via {router}"))?;
                }
                ensure!(bridge != "far2" || address == "10.21.0.7", "it has {address} reserved");
                // Its loader comes from there, and has that address inside.
                let loader = folder.path().join("loader");
                let url = format!("tftp://{server}/bl.efi");
                let mut curl = client.command("curl");
                text_of(curl.args(["-sS", "-m", "60", "-o"]).arg(&loader).arg(url))?;
                let early = format!("(tftp,{server})");
                let content = std::fs::read(&loader)?;
                let has_it = content.windows(early.len()).any(|it| it == early.as_bytes());
                ensure!(has_it, "{}", at("the loader is another server's"));
                let entry = format!("http://{server}/grub/grub.cfg");
                let entry = text_of(client.command("curl").args(["-sS", "-m", "20", &entry]))?;
                ensure!(entry.contains(server), "{}: {entry}", at("another server"));

                // The same PC as a system that runs: it renews past the relay, comes back, and gives its address up.
                let paths = ["leases", "pid", "config"];
                let [leases, pid, config] =
                    paths.map(|name| folder.path().join(name).display().to_string());
                std::fs::write(&config, "send dhcp-lease-time 120;\n")?;
                let files =
                    ["-4", "-v", "-cf", &config, "-lf", &leases, "-pf", &pid, "-sf", "/bin/true"];
                let dhclient = |more: &[&str]| {
                    text_of(client.command("dhclient").args(files).args(more).arg("eth0"))
                };
                for _ in 0..2 {
                    dhclient(&["-1"]).with_context(|| at("dhclient"))?;
                    let text = std::fs::read_to_string(&leases)?;
                    ensure!(text.contains(&format!("fixed-address {address};")), "{text}");
                    dhclient(&["-x"])?;
                }
                dhclient(&["-r"])?;
            }
            Ok(())
        };
        test().with_context(|| format!("the servers' log:\n{}", servers.log()))?;
        let log = servers.log();
        ensure!(log.contains("relay=10.20.0.1") && log.contains("relay=10.21.0.1"), "{log}");
        ensure!(!log.contains("could not be sent"), "{log}");
        let checked = place.site.run(&["check"])?;
        for words in ["interface br1 has the address 10.88.0.1/24", "10.20.0.0/16, behind a relay"]
        {
            ensure!(checked.contains(words), "{checked}");
        }
        servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn who_prolongs_its_lease_speaks_to_the_server_past_the_relay() {
    let needs = ["dhcrelay", "dnsmasq", "udhcpc", "grub-mkimage"].map(Need::Program);
    if !require("renewal", &[Need::Root]) || !require("renewal", &needs) {
        return;
    }
    let run = || -> Result<()> {
        let place = Place::lay("renewal")?;
        let servers = place.site.up()?;
        let client = place.client("far1", "52:54:00:00:02:01")?;
        let folder = tempfile::tempdir()?;
        let udhcpc = Udhcpc::new(&client, folder.path())?;
        let address = udhcpc.ask(&[])?.get("ip").context("no address")?.clone();
        client.netns().ip("route add default via 10.20.0.1")?;
        let renewed = udhcpc.renew().with_context(|| servers.log())?;
        is_told(&renewed, &[("ip", &address)])?;
        let log = servers.log();
        let is_renewal = |line: &&str| {
            line.contains("DHCP reply") && line.contains(&format!("Unicast({address})"))
        };
        ensure!(log.lines().any(|line| is_renewal(&line)), "no renewal of {address}:\n{log}");
        servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn a_pc_boots_behind_a_relay_to_a_login_prompt() {
    if !can_boot("relay") || !require("relay", &["dhcrelay", "dnsmasq"].map(Need::Program)) {
        return;
    }
    let run = || -> Result<()> {
        let _slots = PcSlots::take(1)?;
        let files = tempfile::tempdir()?;
        let authority = Authority::new("the school")?;
        authority.trust(files.path())?;
        authority.issue_for(files.path(), "server", &[SERVER, "10.88.0.1", STORAGE.1])?;
        let builder = Site::builder().storage(&tls(files.path()));
        let place = Place::lay_with("relay", "storage_network = \"10.40.0.0/16\"", builder)?;
        let image = QUICK.image(|text| eprintln!("{text}"))?;
        let site = &place.site;
        site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
        site.run(&["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"])?;
        let servers = site.up()?;
        let storage = ("storage", "52:54:00:00:10:01", VIRTIO);
        let storage = card(site.lan(), storage, STORAGE.0)?;
        let storage: Vec<&str> = storage.iter().map(String::as_str).collect();
        let pc = Pc::builder("pc-1").mac(MAC).on(FIRST.0).extra(&storage).start(site.lan())?;
        wait_for_login(&pc, "pc-1").with_context(|| servers.log())?;
        let stages = site.wait_for_stage("pc-1", "handover", BOOT)?;
        let dhcp = stages.iter().find(|line| line.stage == "dhcp").context("no address")?;
        ensure!(dhcp.detail.starts_with("10.20.0."), "{dhcp:?}");
        // Its disk does not pass the router, and is encrypted.
        let attach = stages.iter().find(|line| line.stage == "attach").context("no disk")?;
        let over = [format!("NBD {}:10809", STORAGE.1), "as 10.40.0.".to_owned()];
        ensure!(over.iter().all(|it| attach.detail.contains(it)), "{attach:?}");
        ensure!(servers.log().contains("tls=\"TLSv1_3\""), "{}", servers.log());
        let view = site.browser().json("/api/v1/machines/pc-1")?;
        ensure!(view["is_proven"] == true, "the machine has not shown that it is itself: {view}");
        servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}
