//! A boot begins in the name of a machine that runs over AoE: the disk stays the machine's while that sends frames.

use crate::boot::can_boot;
use anyhow::{Context, Result, ensure};
use fakeclient::aoe_load::{self, Load};
use fakeclient::speaker::{Speaker, Stage};
use lab::{Kernel, Lan, Need, Preboot, Recipe, SERVER, Site, require};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longer than the boot server believes that a machine runs that it has heard of: then only the storage server knows.
const RUNS: Duration = Duration::from_secs(45);

/// A boot server and a storage server that have just started take nobody for silent for 25 s.
const ADMITTED: Duration = Duration::from_secs(60);

#[test]
fn a_disk_over_aoe_is_the_machine_s_while_it_sends_frames() {
    let name = "aoe-candidate";
    if can_boot(name) && require(name, &["udhcpc", "curl"].map(Need::Program)) {
        candidate(name).unwrap_or_else(|error| panic!("{error:?}"));
    }
}

fn candidate(name: &str) -> Result<()> {
    let site = Site::builder().create(Lan::lay(name)?)?;
    let image = Recipe::default().image(|text| eprintln!("{text}"))?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    let mac = aoe_load::mac(0).to_string();
    let machine = ["machine", "set", "pc-1", "--mac", &mac, "--image", "debian"];
    site.run(&[&machine[..], &["--root-kind", "aoe"]].concat())?;
    let servers = site.up()?;

    let preboot = Preboot::start(&site, &mac)?;
    let kernel = preboot.fetch()?;
    let first = boot_of(&kernel)?;
    ensure!(says(&preboot, &kernel)?, "nobody else was there");
    ensure!(holder(&site)? == first, "the disk is for {}", holder(&site)?);
    drop(preboot);

    let preboot = Preboot::start(&site, &mac)?;
    let kernel = preboot.fetch()?;
    let second = boot_of(&kernel)?;
    ensure!(second > first, "{second} is no new boot");
    let began = Instant::now();
    while began.elapsed() < RUNS {
        reads(&site, &preboot)?;
        ensure!(!says(&preboot, &kernel)?, "after {:?} it is the machine's", began.elapsed());
        ensure!(holder(&site)? == first, "the disk was taken away");
    }
    let deadline = Instant::now() + ADMITTED;
    while !says(&preboot, &kernel)? {
        ensure!(Instant::now() < deadline, "it never gets the disk:\n{}", servers.log());
        std::thread::sleep(Duration::from_secs(1));
    }
    ensure!(holder(&site)? == second, "the disk is still for {}", holder(&site)?);
    reads(&site, &preboot)?;
    drop(preboot);
    servers.stop()
}

fn boot_of(kernel: &Kernel) -> Result<u64> {
    let mut words = kernel.command_line.split(' ');
    let boot = words.find_map(|word| word.strip_prefix("bootlace.boot="));
    Ok(boot.context("no boot")?.parse()?)
}

/// Whether the boot server acknowledges what the boot that has fetched `kernel` says with its secret.
fn says(preboot: &Preboot, kernel: &Kernel) -> Result<bool> {
    let token = preboot.secret()?.parse().ok().context("no secret")?;
    let boot = boot_of(kernel)?;
    preboot.client().netns().inside(|| {
        let mut machine = Speaker::connect(SERVER.parse()?, aoe_load::mac(0), boot, token)?;
        // Its disk is silent meanwhile, and must not be for three seconds.
        Ok(machine.report_times(Stage::Start, 2)?)
    })
}

/// The machine's export, as the storage server tells it.
fn export(site: &Site) -> Result<serde_json::Value> {
    let mut stream = UnixStream::connect(site.root().join("run/bootlace/storage.sock"))?;
    stream.write_all(b"GET /v1/exports HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let mut exports: serde_json::Value = serde_json::from_str(body)?;
    Ok(exports[0].take())
}

/// The boot that has the disk.
fn holder(site: &Site) -> Result<u64> {
    export(site)?["spec"]["boot"].as_u64().context("no export")
}

/// The machine's kernel reads a little.
fn reads(site: &Site, preboot: &Preboot) -> Result<()> {
    let export = export(site)?;
    let address = export["spec"]["shelf_slot"].as_str().context("no address")?;
    let (shelf, slot) = address.split_once('.').context("no address")?;
    let load = Load {
        interface: "eth0".into(),
        shelf: shelf.parse()?,
        slot: slot.parse()?,
        initiators: 1,
        window: 1,
        sectors: 2,
        frames_per_request: 1,
        is_random: true,
        writes_percent: 0,
        size_bytes: 1 << 20,
        verify: false,
        resend_after: Duration::from_millis(500),
        duration: Duration::from_millis(100),
    };
    let report = preboot.client().netns().inside(|| Ok(aoe_load::run(&load)?))?;
    ensure!(report.frames > 0 && report.errors == 0, "{report:?}");
    Ok(())
}
