//! Hosts that speak in a machine's name.

use crate::dhcp::Udhcpc;
use crate::machine_disk::with_disk;
use anyhow::{Context, Result, ensure};
use fakeclient::forged::Forger;
use fakeclient::room::Room;
use lab::{Client, Lan, Need, Preboot, Recipe, SERVER, Site, require, text_of};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

const MAC: &str = "52:54:00:00:00:07";
const THIEF: &str = "52:54:00:00:00:66";

/// What a BIOS says when it asks for an address.
/// From a change at the storage server to the page.
const EXPORTS: Duration = Duration::from_secs(15);

const FIRMWARE: [&str; 4] = ["-x", "0x5d:0000", "-V", "PXEClient:Arch:00000:UNDI:002001"];

#[test]
fn the_secret_of_a_boot_is_for_the_nic_that_boots() {
    let name = "impostors";
    let needs = [Need::Root, Need::Program("grub-mkimage"), Need::Program("udhcpc")];
    if require(name, &needs) && require(name, &[Need::Program("curl")]) {
        ask_for_a_secret(name).unwrap_or_else(|error| panic!("{error:?}"));
    }
}

fn ask_for_a_secret(name: &str) -> Result<()> {
    let site = Site::builder().create(Lan::lay(name)?)?;
    site.run(&["machine", "set", "lab-07", "--mac", MAC])?;
    let servers = site.up()?;
    let machine = site.lan().add_client("machine", MAC)?;
    let thief = site.lan().add_client("thief", THIEF)?;
    let folder = tempfile::tempdir()?;
    let told = Udhcpc::new(&machine, folder.path())?.ask(&FIRMWARE)?;
    let address = told.get("ip").context("no address")?;
    let view = || site.browser().json("/api/v1/machines/lab-07");
    let boot = view()?["boot"]["id"].as_u64().context("no boot")?;

    // The loader may ask twice; the former secret is void then.
    let first = secret(&machine, boot)?;
    ensure!(first.contains("token=") && first.contains("ssh_host_private="), "{first}");
    ensure!(secret(&machine, boot)? != first, "the same secret twice");

    machine.netns().ip("address flush dev eth0")?;
    thief.netns().ip(&format!("address add {address}/24 dev eth0"))?;
    let stolen = secret(&thief, boot)?;
    ensure!(stolen.is_empty(), "with the machine's address and another NIC: {stolen}");
    let found = view()?;
    ensure!(found["n_refused"].as_u64() >= Some(1), "nobody sees it: {found}");
    let findings = site.browser().json("/api/v1/findings")?.to_string();
    ensure!(findings.contains(THIEF), "{findings}");

    // The machine itself still boots.
    thief.netns().ip("address flush dev eth0")?;
    machine.netns().ip(&format!("address add {address}/24 dev eth0"))?;
    ensure!(secret(&machine, boot)?.contains("token="), "the machine is kept out");
    drop((machine, thief));
    servers.stop()
}

#[test]
fn boots_that_others_begin_do_not_stop_a_machine_that_is_in_its_loader() {
    let name = "forged-boots";
    let programs = ["grub-mkimage", "udhcpc", "curl"].map(Need::Program);
    if require(name, &[&[Need::Root][..], &programs].concat()) {
        boot_beside_a_forger(name).unwrap_or_else(|error| panic!("{error:?}"));
    }
}

fn boot_beside_a_forger(name: &str) -> Result<()> {
    let image = Recipe::default().image(|text| eprintln!("{text}"))?;
    let site = Site::builder().create(Lan::lay(name)?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    site.run(&["machine", "set", "lab-07", "--mac", MAC, "--image", "debian"])?;
    let servers = site.up()?;
    let forger = site.lan().add_client("forger", THIEF)?;
    forger.netns().ip("addr add 10.77.0.50/24 dev eth0")?;
    let preboot = Preboot::start(&site, MAC)?;
    let view = || site.browser().json("/api/v1/machines/lab-07");
    let address: Ipv4Addr = view()?["address"].as_str().context("no address")?.parse()?;
    let forging = Forging::default();
    std::thread::scope(|scope| {
        let forged = scope.spawn(|| forger.netns().inside(|| forging.run(address)));
        let booted = boot_meanwhile(&site, &preboot, &forging);
        forging.is_over.store(true, Ordering::Relaxed);
        forged.join().map_err(|_| anyhow::anyhow!("the forger has died"))??;
        booted
    })?;
    drop((preboot, forger));
    servers.stop()
}

/// From its configuration to its disk, with time for others between all that it does.
fn boot_meanwhile(site: &Site, preboot: &Preboot, forging: &Forging) -> Result<()> {
    forging.await_rounds(3)?;
    let kernel = preboot.fetch()?;
    let boot = kernel.command_line.split(' ').find_map(|word| word.strip_prefix("bootlace.boot="));
    let boot: u64 = boot.context("no boot")?.parse()?;
    forging.await_rounds(10)?;
    let view = || site.browser().json("/api/v1/machines/lab-07");
    let last = view()?["boot"]["id"].as_u64();
    ensure!(last > Some(boot), "nobody has begun another boot than {boot}: {last:?}");
    with_disk(preboot, &kernel, "lab-07", |disk| Ok(disk.write_start(&[0; 512])?))?;
    // The storage server is asked each two seconds.
    let deadline = Instant::now() + EXPORTS;
    loop {
        let export = &view()?["export"];
        if export["spec"]["boot"].as_u64() == Some(boot) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "it is not boot {boot}: {export}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Somebody who sends what a PC's firmware and its loader send, again and again.
#[derive(Default)]
struct Forging {
    n_rounds: AtomicU32,
    is_over: AtomicBool,
}

impl Forging {
    fn run(&self, address: Ipv4Addr) -> Result<()> {
        let room = Room::open("eth0", vec![MAC.parse().context("no MAC")?])?;
        let forger = Forger::open()?;
        let tftp = SocketAddrV4::new(SERVER.parse()?, 69);
        while !self.is_over.load(Ordering::Relaxed) {
            // The machine's own messages may come in between.
            if let Ok(placed) = room.discover() {
                let _ = room.request(&placed);
            }
            let secrets = (1..40).map(|boot| format!("boot/host/{boot}"));
            for path in std::iter::once("grub/machine.cfg".to_owned()).chain(secrets) {
                let request = format!("\0\u{1}{path}\0octet\0");
                forger.send(SocketAddrV4::new(address, 2000), tftp, request.as_bytes())?;
            }
            self.n_rounds.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Waits for so many more rounds.
    fn await_rounds(&self, n: u32) -> Result<()> {
        let until = self.n_rounds.load(Ordering::Relaxed) + n;
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.n_rounds.load(Ordering::Relaxed) < until {
            ensure!(Instant::now() < deadline, "nothing is forged");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// What the boot server answers; empty if it refuses.
fn secret(client: &Client, boot: u64) -> Result<String> {
    let url = format!("http://{SERVER}/host/{boot}");
    let mut curl = client.command("curl");
    curl.args(["--silent", "--retry", "5", "--retry-all-errors", "--max-time", "30"]);
    text_of(curl.args(["--write-out", "\n%{http_code}", &url])).map(|answer| {
        match answer.rsplit_once('\n') {
            Some((body, "200")) => body.to_owned(),
            _ => String::new(),
        }
    })
}
