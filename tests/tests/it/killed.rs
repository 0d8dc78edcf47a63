//! The storage server is killed again and again under machines that write, and nothing is lost.

use crate::boot::{COMMAND, MAC, OTHER_MAC, can_boot};
use crate::machine_disk::with_disk;
use anyhow::{Context, Result, ensure};
use lab::{Console, Lan, Need, Pc, PcSlots, Preboot, Recipe, Site, require, run};
use std::process::Command;
use std::time::{Duration, Instant};

/// Twenty crashes, and then orderly restarts.
const KILLS: usize = 20;
const RESTARTS: usize = 3;

/// How long nobody serves the disks.
const AWAY: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(700), Duration::from_millis(1900)];

/// From power-on to the shell: 6 s on an idle machine.
const BOOT: Duration = Duration::from_secs(120);

/// From the server's start to the next file that is on the disk; TCP is tried each two seconds.
const BACK: Duration = Duration::from_secs(60);

/// What a file holds: 32 KiB of lines with its number.
const FILE_BYTES: usize = 32 << 10;

/// Writes file after file. Says the number of each that is on the disk, as far as `fsync` can tell.
const LOAD: &str = "mkdir /srv/load; (n=1; until [ -e /run/enough ]; do \
                    yes $n | dd of=/srv/load/$n bs=4k count=8 iflag=fullblock conv=fsync 2>/dev/null \
                    || break; echo on-disk $n.; n=$((n+1)); done; echo the load has ended) &";

#[test]
fn the_storage_server_is_killed_twenty_times() {
    let needs = [Need::Program("udhcpc"), Need::Program("curl")];
    if can_boot("killed") && require("killed", &needs) {
        killed().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

struct Machine {
    name: &'static str,
    mac: &'static str,
    pc: Pc,
}

fn killed() -> Result<()> {
    let _slots = PcSlots::take(2)?;
    let image = Recipe::default().image(|text| eprintln!("{text}"))?;
    let site = Site::builder()
        .boot("fitted_initrds = false")
        .kernel_args("console=tty0 console=ttyS0,115200 init=/bin/sh quiet")
        .create(Lan::lay("killed")?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    let servers = site.serve()?;
    let mut storage = site.storage()?;
    let mut machines = Vec::new();
    for (name, mac, root) in [("over-nbd", MAC, "nbd"), ("over-aoe", OTHER_MAC, "aoe")] {
        let machine = ["machine", "set", name, "--mac", mac, "--image", "debian"];
        let settings = ["--root-kind", root, "--write-mode", "persistent"];
        site.run(&[&machine[..], &settings].concat())?;
        let kernel = Preboot::start(&site, mac)?.fetch()?;
        let pc = Pc::builder(name).mac(mac).kernel(&kernel).start(site.lan())?;
        machines.push(Machine { name, mac, pc });
    }
    for Machine { name, pc, .. } in &machines {
        pc.console().wait_for("\n# ", BOOT).with_context(|| format!("{name} does not boot"))?;
        pc.console().shell("export PATH=/usr/sbin:/usr/bin; dmesg -n emerg", COMMAND)?;
        pc.console().send_line(LOAD)?;
    }
    for round in 0..KILLS + RESTARTS {
        for machine in &machines {
            let context = || format!("{} before outage {round}", machine.name);
            goes_on(machine.pc.console()).with_context(context)?;
        }
        // Not always at the same point of what the machines do.
        std::thread::sleep(Duration::from_millis(97 * (round as u64 % 11)));
        match round < KILLS {
            true => storage.kill()?,
            false => storage.stop()?,
        }
        std::thread::sleep(AWAY[round % AWAY.len()]);
        storage = site.storage()?;
    }
    for machine in machines {
        let name = machine.name;
        check(&site, machine).with_context(|| format!("{name} after all outages"))?;
    }
    storage.stop()?;
    servers.stop()
}

/// The number of the last file that was on the disk.
fn written(console: &Console) -> usize {
    let text = console.text();
    let mut numbers = text.lines().rev().filter_map(|line| line.strip_prefix("on-disk "));
    numbers.find_map(|line| line.strip_suffix('.')?.parse().ok()).unwrap_or(0)
}

/// Waits for two more: the first may have been written before.
fn goes_on(console: &Console) -> Result<()> {
    let (wanted, deadline) = (written(console) + 2, Instant::now() + BACK);
    while written(console) < wanted {
        ensure!(Instant::now() < deadline, "nothing is written any more: {}", console.tail(10));
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Ends the load, switches the PC off and looks at its disk from outside.
fn check(site: &Site, machine: Machine) -> Result<()> {
    let Machine { name, mac, mut pc } = machine;
    let console = pc.console().clone();
    goes_on(&console)?;
    console.send_line("> /run/enough")?;
    console.wait_for("the load has ended\n", BACK)?;
    let count = written(&console);
    let errors = "dmesg | grep -ci 'i/o error\\|remount.*read-only\\|aborting journal'";
    let errors = console.shell(errors, COMMAND)?;
    ensure!(errors == "0", "{}", console.shell("dmesg | tail -30", COMMAND)?);
    console.send_line("mount -o remount,ro / && echo o > /proc/sysrq-trigger")?;
    pc.wait_for_off(COMMAND)?;
    drop(pc);

    // As the machine itself; to the other protocol its disk is the same.
    site.run(&["machine", "set", name, "--root-kind", "nbd"])?;
    let preboot = Preboot::start(site, mac)?;
    let kernel = preboot.fetch()?;
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk");
    let mut copy = std::fs::File::create(&disk)?;
    with_disk(&preboot, &kernel, name, |disk| Ok(disk.copy_to(&mut copy)?))?;
    run(Command::new("e2fsck").arg("-fn").arg(&disk)).context("the file system is damaged")?;
    let dump = format!("rdump /srv/load {}", folder.path().display());
    run(Command::new("debugfs").args(["-R", &dump]).arg(&disk))?;
    for number in 1..=count {
        let file = folder.path().join("load").join(number.to_string());
        let found = std::fs::read(&file).with_context(|| format!("file {number} is gone"))?;
        let line = format!("{number}\n");
        let wanted = line.bytes().cycle().take(FILE_BYTES);
        ensure!(wanted.eq(found), "file {number} of {count} has other contents");
    }
    println!("{name}: {count} files");
    Ok(())
}
