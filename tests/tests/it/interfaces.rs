//! Interfaces of several networks that are missing, come late, or get another address: the others are served meanwhile.

use crate::dhcp::{EVERYONE, Udhcpc};
use anyhow::{Context, Result, ensure};
use lab::{Client, Lan, Need, Site, bootlace_binary, require};
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

fn lan_of_two(name: &str) -> Result<Lan> {
    let lan = Lan::lay(name)?;
    lan.add_bridge_of("br1", Some("10.88.0.1/24"))?;
    Ok(lan)
}
