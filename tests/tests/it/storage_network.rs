//! Machines that have their disks over a network of its own, by a second network card.

use crate::boot::{BOOT, COMMAND, MAC, OTHER_MAC, QUICK, can_boot};
use crate::interfaces;
use anyhow::{Context, Result, ensure};
use lab::{
    Authority, Console, Kernel, Lan, Need, Pc, PcSlots, Preboot, SERVER, Site, bootlace_binary,
    require, text_of,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// The server in the storage network, which is on a bridge of its own.
pub(crate) const STORAGE: &str = "10.20.0.1";
pub(crate) const BRIDGE: &str = "br1";

/// The machine's other card. It may not boot, and is none of the machine's that the boot server knows.
const STORAGE_MAC: &str = "52:54:00:00:10:01";

pub(crate) const VIRTIO: &str = "virtio-net-pci";
const E1000: &str = "e1000";

/// A server that went silent is given up after 5 s.
const MOVE: Duration = Duration::from_secs(40);

const FINDING: &str = "disk-over-boot-network";

/// What is read to see over which network it comes.
const SAMPLE_MIB: u64 = 16;

/// The first network of a LAN has this storage network.
pub(crate) const SETTING: &str = "storage_network = \"10.20.0.0/24\"";

/// A LAN with a storage network, in which the server is.
pub(crate) fn lay(name: &str) -> Result<Lan> {
    let lan = Lan::lay(name)?;
    lan.add_bridge_of(BRIDGE, Some(&format!("{STORAGE}/24")))?;
    Ok(lan)
}

/// Arguments for QEMU that plug another card of the PC, of this model, into this bridge.
pub(crate) fn card(
    lan: &Lan,
    (id, mac, model): (&str, &str, &str),
    bridge: &str,
) -> Result<[String; 4]> {
    let tap = lan.add_tap()?;
    lan.netns().ip(&format!("link set {tap} master {bridge}"))?;
    let netdev = format!("tap,id=of-{id},ifname={tap},script=no,downscript=no");
    let device = format!("{model},netdev=of-{id},id={id},mac={mac},romfile=");
    Ok(["-netdev".to_owned(), netdev, "-device".to_owned(), device])
}

fn test(name: &str, run: impl FnOnce(&str) -> Result<()>) {
    if can_boot(name) && require(name, &["udhcpc", "curl"].map(Need::Program)) {
        run(name).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn site(name: &str, network: &str, more: &[&str]) -> Result<Site> {
    let image = QUICK.image(|text| eprintln!("{text}"))?;
    let site = Site::builder()
        .kernel_args("console=tty0 console=ttyS0,115200 init=/bin/sh quiet")
        .network(network)
        .create(lay(name)?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    let machine = ["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"];
    site.run(&[&machine[..], more].concat())?;
    Ok(site)
}

/// A PC that has booted from this card, with others before it.
fn pc(site: &Site, kernel: &Kernel, mac: &str, cards: &[[String; 4]]) -> Result<Pc> {
    let cards: Vec<&str> = cards.iter().flatten().map(String::as_str).collect();
    Pc::builder("pc-1").mac(mac).kernel(kernel).extra(&cards).start(site.lan())
}

fn set_link(pc: &mut Pc, card: &str, is_up: bool) -> Result<()> {
    pc.execute("set_link", &json!({ "name": card, "up": is_up })).map(drop)
}

/// Bytes that the server has sent on this interface.
fn sent(site: &Site, interface: &str) -> Result<u64> {
    let mut ip = site.lan().netns().command("ip", Signal::SIGKILL);
    let text = text_of(ip.args(["-s", "-j", "link", "show", "dev", interface]))?;
    let links: Value = serde_json::from_str(&text)?;
    links[0]["stats64"]["tx"]["bytes"].as_u64().context("no count")
}

/// Reads a part of the disk that nobody has read, and proves that it comes over the storage network alone.
fn reads_over_storage(site: &Site, console: &Console, device: &str, skip: u64) -> Result<()> {
    let before = [sent(site, "br0")?, sent(site, BRIDGE)?];
    let read = format!(
        "dd if={device} bs=1M skip={skip} count={SAMPLE_MIB} iflag=direct 2>/dev/null | wc -c"
    );
    let read = console.shell(&read, COMMAND)?;
    ensure!(read.ends_with(&(SAMPLE_MIB << 20).to_string()), "{read}");
    let [boot, storage] = [sent(site, "br0")? - before[0], sent(site, BRIDGE)? - before[1]];
    println!("{SAMPLE_MIB} MiB: {boot} bytes over the boot network, {storage} over the other");
    ensure!(storage > SAMPLE_MIB << 20 && boot < 1 << 20, "it came another way");
    Ok(())
}

fn to_shell(pc: &Pc) -> Result<()> {
    pc.console().wait_for("\n# ", BOOT)?;
    pc.console().shell("dmesg -n emerg", COMMAND).map(drop)
}

#[test]
fn a_disk_goes_over_the_storage_network_and_lives_without_the_one_that_booted() {
    test("storage-net", over_nbd);
}

fn over_nbd(name: &str) -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let site = site(name, SETTING, &[])?;
    let servers = site.up()?;
    let checked = site.run(&["check"])?;
    let words = "over the storage network 10.20.0.0/24, from 10.20.0.1 (interface br1); those of the pool are 10.20.0.100-";
    ensure!(checked.contains(words), "{checked}");

    // The kernel lists the other card first. A third one has a link, and leads elsewhere.
    let kernel = Preboot::start(&site, MAC)?.fetch()?;
    site.lan().add_bridge_of("br2", None)?;
    let first = Pc::builder("pc-1").mac(STORAGE_MAC).on(BRIDGE).kernel(&kernel);
    let boots = card(site.lan(), ("boots", MAC, VIRTIO), "br0")?;
    let third = card(site.lan(), ("third", "52:54:00:00:20:01", E1000), "br2")?;
    let cards: Vec<&str> = boots.iter().chain(&third).map(String::as_str).collect();
    let mut first = first.extra(&cards).start(site.lan())?;
    let words = format!(" attach: NBD {STORAGE}:10809 pc-1");
    first.console().wait_for(&words, BOOT)?;
    to_shell(&first)?;
    let console = first.console().clone();
    let stages = site.wait_for_stage("pc-1", "attach", COMMAND)?;
    let attach = stages.iter().find(|line| line.stage == "attach").context("no attach")?;
    let over = format!("over eth0 {STORAGE_MAC} as 10.20.0.1");
    ensure!(attach.detail.contains(&over), "{attach:?}");
    let links = console.shell("cat /sys/class/net/eth*/flags", COMMAND)?;
    let flags: Vec<&str> = links.lines().collect();
    ensure!(flags == ["0x1003", "0x1003", "0x1002"], "the third card is to be as it was: {links}");
    reads_over_storage(&site, &console, "/dev/nbd0", 128)?;
    set_link(&mut first, "boots", false)?;
    reads_over_storage(&site, &console, "/dev/nbd0", 160).context("without the boot network")?;
    set_link(&mut first, "boots", true)?;
    interfaces::wait_for(&site, FINDING, None)?;

    // Without the storage network it goes on over the other, and everybody sees it.
    console.shell("dmesg -n err", COMMAND)?;
    set_link(&mut first, "nic0", false)?;
    console.send_line("dd if=/dev/nbd0 of=/dev/null bs=1M skip=192 count=1 iflag=direct")?;
    console.wait_for(&format!("from {SERVER}:10809"), MOVE)?;
    interfaces::wait_for(&site, FINDING, Some("from 10.77.0.1, over the network that it boots"))?;
    drop(first);

    // The cable is plugged in late; the driver is in the initrd that was made for the machine, as it had such a card.
    let kernel = Preboot::start(&site, MAC)?.fetch()?;
    let storage = card(site.lan(), ("storage", STORAGE_MAC, E1000), BRIDGE)?;
    let mut late = pc(&site, &kernel, MAC, &[storage])?;
    set_link(&mut late, "storage", false)?;
    late.console().wait_for("for the storage network 10.20.0.0/24: is the cable", BOOT)?;
    set_link(&mut late, "storage", true)?;
    late.console().wait_for(&words, BOOT)?;
    drop(late);

    // A PC without a second card boots, and says what is wrong.
    let kernel = Preboot::start(&site, MAC)?.fetch()?;
    let poor = pc(&site, &kernel, MAC, &[])?;
    poor.console().wait_for(&format!(" attach: NBD {SERVER}:10809 pc-1"), BOOT)?;
    to_shell(&poor)?;
    interfaces::wait_for(&site, FINDING, Some("over the network that it boots from"))?;
    let page = site.browser().get("/machines/pc-1")?.body;
    ensure!(page.contains("this machine has no second network card"), "{page}");
    drop(poor);
    servers.stop()
}

#[test]
fn a_storage_network_that_comes_late_is_used_and_missed_until_then() {
    test("storage-late", comes_late);
}

fn comes_late(name: &str) -> Result<()> {
    let site = site(name, SETTING, &[])?;
    site.lan().netns().ip(&format!("address del {STORAGE}/24 dev {BRIDGE}"))?;
    let mut servers = site.up()?;
    let words = "No interface has an address in the storage network 10.20.0.0/24";
    interfaces::wait_for(&site, "network-not-served", Some(words))?;
    ensure!(site.run(&["check"]).is_err(), "it says so, too");
    let line = Preboot::start(&site, MAC)?.fetch()?.command_line;
    ensure!(
        line.contains(&format!("=nbd:{SERVER}:10809:")) && !line.contains(".storage"),
        "{line}"
    );
    site.lan().netns().ip(&format!("address add {STORAGE}/24 dev {BRIDGE}"))?;
    interfaces::wait_for(&site, "network-not-served", None)?;
    // It is no longer so before what changed has settled.
    for server in ["storage", "boot"] {
        servers.wait_for_log(&format!("10.20.0.1: the {server} server begins anew"), COMMAND)?;
    }
    servers.wait_until("serve again", COMMAND, |daemon| {
        daemon.log().matches("boot server ready").count() > 1
    })?;
    let line = Preboot::start(&site, MAC)?.fetch()?.command_line;
    let root = format!("=nbd:{STORAGE}:10809,{SERVER}:10809:pc-1");
    ensure!(line.contains(&root) && line.contains("bootlace.storage=10.20.0.1/24"), "{line}");
    servers.stop()
}

#[test]
fn what_does_not_fit_a_storage_network_is_said_in_one_line() {
    if require("storage-fit", &[Need::Root, Need::Program("grub-mkimage")]) {
        fits().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn fits() -> Result<()> {
    let check = |site: &Site, words: &str| -> Result<()> {
        let mut check = site.lan().netns().command(bootlace_binary()?, Signal::SIGKILL);
        let told = check.arg("--root").arg(site.root()).arg("check").output()?;
        let told = String::from_utf8(told.stdout)?;
        let is_one_line = told.lines().any(|line| line.contains(words));
        ensure!(is_one_line, "{words:?} is not in:\n{told}");
        Ok(())
    };
    // Machines know the server by a certificate, which must name it in both networks.
    let files = tempfile::tempdir()?;
    let authority = Authority::new("the school")?;
    authority.trust(files.path())?;
    authority.issue(files.path(), "server")?;
    let site = Site::builder().network(SETTING).storage(&tls(files.path())).create(lay("fit")?)?;
    check(&site, "it does not name 10.20.0.1: make one with subjectAltName=IP:10.20.0.1")?;
    authority.issue_for(files.path(), "server", &[SERVER, STORAGE])?;
    check(&site, "ok    NBD over TLS: certificate")?;
    // Without a card of its own it is no network of its own.
    site.lan().netns().ip(&format!("address del {STORAGE}/24 dev {BRIDGE}"))?;
    site.lan().netns().ip(&format!("address add {STORAGE}/24 dev br0"))?;
    check(&site, "That is the card by which they boot, too, so disks share its cable with all else")
}

/// Machines attach their disks over TLS only, with the files of [`Authority`] in this folder.
pub(crate) fn tls(files: &Path) -> String {
    let path = |name: &str| files.join(name).display().to_string();
    format!(
        "nbd_tls = {{ certificate = {:?}, key = {:?}, machine_ca = {:?}, require = true }}",
        path("server-cert.pem"),
        path("server-key.pem"),
        path("ca-cert.pem")
    )
}

#[test]
fn an_aoe_disk_goes_over_the_storage_network_to_a_card_of_the_machine() {
    test("storage-aoe", over_aoe);
}

fn over_aoe(name: &str) -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let network = format!("{SETTING}\nstorage_mtu = 9000");
    let site = site(name, &network, &["--add-mac", OTHER_MAC, "--root-kind", "aoe"])?;
    // The server sends large packets, and at first nothing passes them on.
    site.lan().netns().ip(&format!("link set {BRIDGE} mtu 9000"))?;
    let servers = site.up()?;
    // It boots from the card that was added.
    let kernel = Preboot::start(&site, OTHER_MAC)?.fetch()?;
    let storage = card(site.lan(), ("storage", STORAGE_MAC, VIRTIO), BRIDGE)?;
    let pc = pc(&site, &kernel, OTHER_MAC, &[storage])?;
    let command = format!("bootlace machine set pc-1 --add-mac {STORAGE_MAC}");
    pc.console().wait_for("MTU 1500 instead of 9000: packets of 9000 bytes don't get to", BOOT)?;
    pc.console().wait_for(&command, BOOT)?;
    drop(pc);
    site.lan().set_mtu(1500, 9000)?;
    site.run(&["machine", "set", "pc-1", "--add-mac", STORAGE_MAC])?;

    let kernel = Preboot::start(&site, OTHER_MAC)?.fetch()?;
    let storage = card(site.lan(), ("storage", STORAGE_MAC, VIRTIO), BRIDGE)?;
    let pc = self::pc(&site, &kernel, OTHER_MAC, &[storage])?;
    pc.console().wait_for(&format!("{STORAGE_MAC} as 10.20.0."), BOOT)?;
    pc.console().wait_for(", MTU 9000", COMMAND)?;
    to_shell(&pc)?;
    let device = pc.console().shell("ls /dev/etherd/e*.*", COMMAND)?;
    reads_over_storage(&site, pc.console(), device.trim(), 128)?;
    drop(pc);
    servers.stop()
}
