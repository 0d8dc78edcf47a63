//! Interfaces of several networks that are missing, come late, or get another address: the others are served meanwhile.

use crate::boot::{MAC, OTHER_MAC, QUICK};
use crate::dhcp::{EVERYONE, Udhcpc};
use anyhow::{Context, Result, ensure};
use fakeclient::machine_disk::MachineDisk;
use lab::{Client, Lan, Need, Preboot, Site, Started, bootlace_binary, require, text_of};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// What the kernel tells is seen at once on an idle machine, and a server begins anew within seconds.
const TIMEOUT: Duration = Duration::from_secs(40);

const LATE: &str = "interface = \"br1\"\npool = \"10.88.0.100-10.88.0.199\"";

/// What the finding says; `None` if there is none.
fn cause(site: &Site, kind: &str) -> Result<Option<String>> {
    let findings = site.browser().json("/api/v1/findings")?;
    let findings = findings["findings"].as_array().context("no list")?;
    let found = findings.iter().find(|finding| finding["kind"] == kind);
    Ok(found.and_then(|finding| finding["cause"].as_str()).map(ToOwned::to_owned))
}

/// Waits until the finding says that, or is over. The pages are away for a moment when the server begins anew.
pub(crate) fn wait_for(site: &Site, kind: &str, words: Option<&str>) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let cause = cause(site, kind);
        match (words, &cause) {
            (None, Ok(None)) => return Ok(()),
            (Some(words), Ok(Some(cause))) if cause.contains(words) => return Ok(()),
            _ => ensure!(Instant::now() < deadline, "{kind}: {cause:?}, not {words:?}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn client(site: &Site, bridge: &str, mac: &str) -> Result<Client> {
    let client = Client::unplugged("client")?;
    site.lan().plug(bridge, &client, "eth0", mac)?;
    Ok(client)
}

/// The address that a PC on the network gets.
fn address(client: &Client) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let told = Udhcpc::new(client, folder.path())?.ask(&[])?;
    Ok(told.get("ip").context("no address")?.clone())
}

#[test]
fn a_missing_interface_keeps_no_other_from_being_served_and_is_served_when_it_comes() {
    let needs = [Need::Root, Need::Program("grub-mkimage"), Need::Program("udhcpc")];
    if require("late", &needs) {
        late().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn late() -> Result<()> {
    let site = Site::builder()
        .verbose()
        .network(EVERYONE)
        .another_network(LATE)
        .create(Lan::lay("late")?)?;
    let mut check = site.lan().netns().command(&bootlace_binary()?, Signal::SIGTERM);
    let checked = check.arg("--root").arg(site.root()).arg("check").output()?;
    ensure!(!checked.status.success(), "check is content without an interface");
    let text = String::from_utf8(checked.stdout)?;
    ensure!(text.contains("br0 has the address") && text.contains("\"br1\""), "{text}");
    let servers = site.up()?;
    wait_for(&site, "network-not-served", Some("br1"))?;
    let near = client(&site, "br0", "52:54:00:00:03:01")?;
    let first = address(&near).context("where the interface is")?;
    ensure!(first.starts_with("10.77.0."), "{first}");
    // An interface without an address is as little use.
    site.lan().add_bridge_of("br1", None)?;
    wait_for(&site, "network-not-served", Some("no IPv4 address"))?;
    site.lan().netns().ip("addr add 10.88.0.1/24 dev br1")?;
    wait_for(&site, "network-not-served", None)?;
    let far = client(&site, "br1", "52:54:00:00:03:02")?;
    let second = address(&far).context("once it has come")?;
    ensure!(second.starts_with("10.88.0."), "{second}");
    ensure!(address(&near)? == first, "the other network's PC lost its address");
    let log = servers.log();
    ensure!(log.contains("br1 is there now, with the address 10.88.0.1"), "{log}");
    ensure!(log.contains("10.88.0.1:10809"), "no disks there: {log}");
    ensure!(!log.contains("panicked"), "{log}");
    servers.stop()
}

#[test]
fn a_server_with_another_address_serves_at_it_and_says_so_while_the_pool_does_not_fit() {
    let needs = [Need::Root, Need::Program("grub-mkimage"), Need::Program("udhcpc")];
    if require("renumbered", &needs) {
        renumbered().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn renumbered() -> Result<()> {
    let site = Site::builder()
        .verbose()
        .network(EVERYONE)
        .another_network(LATE)
        .create(lan_of_two("renum")?)?;
    let servers = site.up()?;
    let netns = site.lan().netns();
    // The former one beside the new one goes on.
    netns.ip("addr add 10.88.0.2/23 dev br1")?;
    let far = client(&site, "br1", "52:54:00:00:03:03")?;
    let first = address(&far)?;
    // A machine in its loader knows the former one.
    site.run(&["machine", "set", "far-1", "--mac", "52:54:00:00:03:03"])?;
    let folder = tempfile::tempdir()?;
    Udhcpc::new(&far, folder.path())?.ask(&["-V", "PXEClient:Arch:00000:UNDI:002001"])?;
    netns.ip("addr del 10.88.0.1/24 dev br1")?;
    let deadline = Instant::now() + TIMEOUT;
    while !servers.log().contains("was 10.88.0.1 and is 10.88.0.2 now: the boot server begins anew")
    {
        ensure!(Instant::now() < deadline, "{}", servers.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    wait_for(&site, "dhcp-deaf", None)?;
    wait_for(&site, "server-renumbered", Some("at the former one: far-1"))?;
    let folder = tempfile::tempdir()?;
    let told = Udhcpc::new(&far, folder.path())?.ask(&[])?;
    ensure!(told.get("serverid").is_some_and(|it| it == "10.88.0.2"), "{told:?}");
    ensure!(told.get("ip") == Some(&first), "its address: {told:?}, {first}");
    netns.ip("addr add 10.99.0.1/24 dev br1")?;
    netns.ip("addr del 10.88.0.2/23 dev br1")?;
    wait_for(&site, "network-not-served", Some("not inside the network 10.99.0.0/24"))?;
    netns.ip("addr add 10.88.0.2/23 dev br1")?;
    wait_for(&site, "network-not-served", None)?;
    wait_for(&site, "dhcp-deaf", None)?;
    ensure!(address(&far)? == first, "it gets another address");
    ensure!(!servers.log().contains("panicked"), "{}", servers.log());
    servers.stop()
}

#[test]
fn a_disk_goes_on_at_the_former_address_and_new_boots_are_told_the_new_one() {
    let needs = ["grub-mkimage", "udhcpc", "curl", "mmdebstrap"].map(Need::Program);
    if require("former", &[Need::Root]) && require("former", &needs) {
        former_address().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// Steps 1 and 2 of `docs/how-to/several-networks.md`, while a machine runs.
fn former_address() -> Result<()> {
    let site = Site::builder().verbose().create(Lan::lay("former")?)?;
    let image = QUICK.image(|text| eprintln!("{text}"))?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    for (name, mac) in [("pc-1", MAC), ("pc-2", OTHER_MAC)] {
        site.run(&["machine", "set", name, "--mac", mac, "--image", "debian"])?;
    }
    let servers = site.up()?;
    let preboot = Preboot::start(&site, MAC)?;
    let kernel = preboot.load()?;
    let word = |name: &str| {
        let mut words = kernel.command_line.split(' ');
        words.find_map(|word| word.strip_prefix(name)).context(kernel.command_line.clone())
    };
    ensure!(kernel.command_line.contains("nbd:10.77.0.1:10809"), "{}", kernel.command_line);
    let boot = word("bootlace.boot=")?.parse()?;
    let token = preboot.secret()?.parse().ok().context("no token")?;
    let attach = |generation: u32| {
        let at = "10.77.0.1:10809".parse()?;
        preboot
            .client()
            .netns()
            .inside(|| Ok(MachineDisk::open_as(at, "pc-1", boot, token, generation)?))
    };
    let mut disk = attach(1).with_context(|| servers.log())?;
    let start = disk.read_start(SAMPLE_BYTES)?;

    let netns = site.lan().netns();
    netns.ip("address add 10.99.0.1/24 dev br0")?;
    ensure!(disk.read_start(SAMPLE_BYTES)? == start, "the connection went on otherwise");
    let config = site.root().join("etc/bootlace/bootlace.toml");
    let text = std::fs::read_to_string(&config)?;
    let pool = "pool = \"10.77.0.";
    ensure!(text.contains(pool), "{text}");
    let renumbered: Vec<String> = text
        .lines()
        .map(|line| match line.starts_with(pool) {
            true => line.replace("10.77.0.", "10.99.0."),
            false => line.to_owned(),
        })
        .collect();
    std::fs::write(&config, renumbered.join("\n"))?;
    servers.stop()?;
    let servers = site.up()?;
    let test = || -> Result<()> {
        // As the machine's keeper does it, that has lost its connection.
        let mut disk = attach(2)?;
        ensure!(disk.read_start(SAMPLE_BYTES)? == start, "the disk is another one");

        let firmware = ["-V", "PXEClient:Arch:00000:UNDI:002001", "-x", "0x5d:0000"];
        let next = client(&site, "br0", OTHER_MAC)?;
        let folder = tempfile::tempdir()?;
        let told = Udhcpc::new(&next, folder.path())?.ask(&firmware)?;
        let has = |name: &str, value: &str| told.get(name).is_some_and(|it| it.starts_with(value));
        ensure!(has("siaddr", "10.99.0.1") && has("ip", "10.99.0.1"), "{told:?}");
        let deadline = Instant::now() + TIMEOUT;
        let started = loop {
            let mut curl = next.command("curl");
            curl.args(["-sS", "-m", "20", "tftp://10.99.0.1/grub/machine.cfg"]);
            let told = text_of(&mut curl)?;
            match Started::by(&told) {
                Some(started) => break started,
                None => ensure!(Instant::now() < deadline, "it waits: {told}"),
            }
            std::thread::sleep(Duration::from_millis(300));
        };
        ensure!(started.arguments.contains("nbd:10.99.0.1:10809:pc-2"), "{}", started.arguments);
        ensure!(!started.arguments.contains("10.77."), "{}", started.arguments);
        // Nor was the machine that runs disturbed by that.
        ensure!(disk.read_start(SAMPLE_BYTES)? == start, "the disk is another one");
        Ok(())
    };
    test().with_context(|| servers.log())?;

    // Without it the server says what it waits for, and serves on.
    netns.ip("address del 10.77.0.1/24 dev br0")?;
    ensure!(attach(3).is_err(), "the former address is gone");
    site.run(&["check"])?;
    servers.stop()
}

/// Of a disk so much is read.
const SAMPLE_BYTES: usize = 64 << 10;

fn lan_of_two(name: &str) -> Result<Lan> {
    let lan = Lan::lay(name)?;
    lan.add_bridge_of("br1", Some("10.88.0.1/24"))?;
    Ok(lan)
}
