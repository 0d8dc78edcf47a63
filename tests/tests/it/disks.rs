//! Disks that machines have beside their roots: folders that last, a disk that all read, swap space.

use crate::boot::{COMMAND, MAC, OTHER_MAC, QUICK, SHUTDOWN, can_boot, wait_for_login};
use anyhow::{Context, Result, ensure};
use lab::{Lan, Need, Pc, PcSlots, Preboot, Site, require};
use std::time::Duration;

/// How long the storage server is away.
const OUTAGE: Duration = Duration::from_secs(3);

/// How long a machine may need to find its disks again.
const BACK: Duration = Duration::from_secs(60);

/// Writes to the disk that is carried over and waits for it, until told to stop; counts in `/run/load`, which is in memory.
const LOAD: &str = "{ (while [ ! -e /run/enough ] && date > /home/anna/load && sync; do echo >> /run/load; done; \
                    echo over > /run/over) & }";

#[test]
fn folders_last_beside_a_root_that_forgets_and_through_outages() {
    let needs = ["udhcpc", "curl", "mkfs.ext4"].map(Need::Program);
    if can_boot("disks") && require("disks", &needs) {
        beside_the_root().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn beside_the_root() -> Result<()> {
    let _slots = PcSlots::take(2)?;
    let image = QUICK.image(|text| eprintln!("{text}"))?;
    let site = Site::builder().create(Lan::lay("disks")?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    let courses = tempfile::tempdir()?;
    std::fs::write(courses.path().join("lesson"), "one\n")?;
    let folder = courses.path().to_string_lossy().into_owned();
    site.run(&["image", "import", &folder, "--name", "courses", "--data"])?;
    let servers = site.serve()?;
    let storage = site.storage()?;
    for (name, mac) in [("pc-1", MAC), ("pc-2", OTHER_MAC)] {
        site.run(&["machine", "set", name, "--mac", mac, "--image", "debian"])?;
    }
    site.run(&[
        "disk",
        "put",
        "home",
        "--size",
        "64M",
        "--carry",
        "/home",
        "--carry",
        "/etc/cups",
    ])?;
    site.run(&["disk", "put", "courses", "--image", "courses", "--mount", "/srv/courses"])?;
    site.run(&["disk", "put", "swap", "--size", "64M", "--swap"])?;

    let mut pc = power_on(&site, "pc-1", MAC)?;
    let console = pc.console().clone();
    let seen = console.shell(
        "findmnt -rno SOURCE /home; findmnt -rno SOURCE /etc/cups; cat /srv/courses/lesson; \
         touch /srv/courses/x 2>&1; grep -c ^/dev/nbd /proc/swaps",
        COMMAND,
    )?;
    for expected in ["[/home]", "[/etc:cups]", "\none", "Read-only file system", "\n1"] {
        ensure!(seen.contains(expected), "no {expected:?} in {seen}");
    }
    console.shell(
        "mkdir /home/anna && chown 1000:1000 /home/anna && echo mine > /home/anna/letter && echo gone > /root/letter",
        COMMAND,
    )?;

    // The storage server is restarted while something is written.
    console.shell(LOAD, COMMAND)?;
    console.shell("until [ -s /run/load ]; do sleep 0.1; done", COMMAND)?;
    storage.kill()?;
    std::thread::sleep(OUTAGE);
    let storage = site.storage()?;
    console.shell("true", BACK)?;
    let lines = "wc -l < /run/load";
    let before = console.shell(lines, COMMAND)?;
    let more = format!(
        "n=$({lines}); until [ $({lines}) -gt $n ]; do sleep 0.1; done; touch /run/enough; until [ -e /run/over ]; do sleep 0.1; done"
    );
    console.shell(&more, BACK).with_context(|| format!("after {before} writes"))?;
    let said = console.shell("dmesg | grep -e 'disk home' -e 'I/O error'", COMMAND)?;
    ensure!(said.contains("the disk home is back after") && !said.contains("I/O"), "{said}");
    console.send_line("poweroff")?;
    pc.wait_for_off(SHUTDOWN)?;
    drop(pc);

    // Another machine has a home of its own.
    let pc = power_on(&site, "pc-1", MAC)?;
    let other = power_on(&site, "pc-2", OTHER_MAC)?;
    let left = "stat -c '%n %u' /home/anna; cat /home/anna/letter; ls /root/letter; dmesg | grep -c 'nbd1.*recover'";
    let left = pc.console().shell(left, COMMAND)?;
    for expected in ["/home/anna 1000", "mine", "/root/letter': No such file", "\n0"] {
        ensure!(left.contains(expected), "no {expected:?} in {left}");
    }
    let of_other = other.console().shell("findmnt -rno SOURCE /home; ls /home/anna", COMMAND)?;
    ensure!(of_other.contains("[/home]") && of_other.contains("No such file"), "{of_other}");
    for mut pc in [pc, other] {
        pc.console().send_line("poweroff")?;
        pc.wait_for_off(SHUTDOWN)?;
    }
    drop(storage);
    servers.stop()
}

/// A machine at its prompt, with somebody logged in.
fn power_on(site: &Site, name: &str, mac: &str) -> Result<Pc> {
    let kernel = Preboot::start(site, mac)?.fetch()?;
    let pc = Pc::builder(name).mac(mac).kernel(&kernel).start(site.lan())?;
    wait_for_login(&pc, name)?;
    pc.console().log_in(COMMAND)?;
    Ok(pc)
}
