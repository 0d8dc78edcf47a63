//! `bootlace try`: a PC in software boots from the server that runs, and leaves nothing behind.

use crate::boot::{BOOT, MAC, OTHER_MAC, QUICK, can_boot};
use anyhow::{Context, Result, ensure};
use lab::{Client, Daemon, Lan, Need, PcSlots, SERVER, Site, bootlace_binary, require, text_of};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What another machine starts the next time, which would start its own disk otherwise.
const NEXT: &str = "image:debian/v1";

/// What the site has that a trial could leave behind.
fn left_behind(site: &Site) -> Result<Value> {
    let mut all = serde_json::Map::new();
    for what in ["machines", "discovered", "leases"] {
        all.insert(what.to_owned(), site.browser().json(&format!("/api/v1/{what}"))?);
    }
    Ok(all.into())
}

/// Waits until there is nothing of trials any more, and says what is.
fn is_forgotten(site: &Site) -> Result<()> {
    let mut text = String::new();
    for _ in 0..100 {
        text = left_behind(site)?.to_string();
        if !text.contains("bootlace-try") && !text.contains("02:62:6c") && !text.contains("198.18.")
        {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("it is not forgotten: {text}")
}

/// A host behind a switch that can filter broadcasts.
struct Filter {
    switch: Client,
    host: Client,
}

const DEAF: &str = "10.77.0.60";
const DEAF_MAC: &str = "52:54:00:00:00:60";

impl Filter {
    fn lay(site: &Site) -> Result<Self> {
        let (switch, host) = (Client::unplugged("switch")?, Client::unplugged("deaf")?);
        site.lan().plug("br0", &switch, "up0", "52:54:00:00:00:61")?;
        let end = format!("peer name eth0 address {DEAF_MAC} netns {}", host.netns().name());
        switch.netns().ip(&format!("link add down0 type veth {end}"))?;
        switch.netns().ip("link add sw0 type bridge stp_state 0 forward_delay 0")?;
        for port in ["up0", "down0"] {
            switch.netns().ip(&format!("link set {port} master sw0 up"))?;
        }
        switch.netns().ip("link set sw0 up")?;
        host.netns().ip("link set eth0 up")?;
        host.netns().ip(&format!("address add {DEAF}/24 dev eth0"))?;
        let filter = Self { switch, host };
        filter.is_heard()?;
        Ok(filter)
    }

    /// Lets the server and its switch know where it is.
    fn is_heard(&self) -> Result<()> {
        text_of(self.host.command("busybox").args(["ping", "-c", "1", "-W", "5", SERVER])).map(drop)
    }

    fn begin(&self) -> Result<()> {
        self.is_heard()?;
        self.switch.netns().ip("link set dev down0 type bridge_slave bcast_flood off")
    }
}

/// Who began and ended trials of this machine, by the audit log, the first first: each that began has ended.
fn begun_and_ended(site: &Site, machine: &str) -> Result<Vec<String>> {
    let page = site.browser().json(&format!("/api/v1/audit?subject={machine}"))?;
    let entries = page["entries"].as_array().context("no entries")?;
    let word = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let mut lines: Vec<String> = entries
        .iter()
        .map(|it| ["action", "who", "via"].map(|name| word(it, name)).join(" "))
        .collect();
    // A machine of that name was added and removed by hand.
    lines.retain(|line| line.starts_with("trial."));
    lines.reverse();
    let [begun, ended] = ["trial.begin root command", "trial.end root command"];
    let are_pairs = lines.chunks(2).all(|pair| pair == [begun, ended]);
    ensure!(!lines.is_empty() && are_pairs, "{lines:?}");
    Ok(lines)
}

/// Kills the command while its PC is in the loader; its page shows the screen until then.
fn is_killed(site: &Site) -> Result<()> {
    let mut command = site.lan().netns().command(bootlace_binary()?, Signal::SIGKILL);
    command.arg("--root").arg(site.root()).args(["try", "--no-kvm"]);
    // What it leaves here is the next one's to remove.
    let folders = site.root().join("temporary");
    fs::create_dir_all(&folders)?;
    command.env("TMPDIR", &folders);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let page = site.browser().get("/machines/bootlace-try")?;
        if page.body.contains("<img class=\"screen\" src=\"/machines/bootlace-try/screen\"") {
            break;
        }
        ensure!(Instant::now() < end, "its page shows no screen: {}", page.body);
        std::thread::sleep(Duration::from_millis(200));
    }
    let second = site.run(&["try"]).expect_err("there is one already").to_string();
    ensure!(second.contains("is tried here already"), "{second}");
    child.kill()?;
    child.wait()?;
    is_forgotten(site)?;
    ensure!(fs::read_dir(&folders)?.count() == 1, "it left no folder");
    Ok(())
}

/// Both servers are restarted while a PC with Secure Boot boots: it goes on, and is forgotten all the same.
fn goes_on(site: &Site, servers: Daemon) -> Result<Daemon> {
    let mut command = site.lan().netns().command(bootlace_binary()?, Signal::SIGKILL);
    command.arg("--root").arg(site.root()).args(["try", "--no-kvm", "--until-up"]);
    command.args(["--like", "lab-07", "--secure-boot"]);
    let folders = site.root().join("temporary");
    command.env("TMPDIR", &folders);
    let left = fs::read_dir(&folders)?.next().context("no folder is left")??.path();
    let shown = site.root().join("shown");
    let child = command.stdin(Stdio::null()).stdout(fs::File::create(&shown)?);
    let child = child.stderr(Stdio::piped()).spawn()?;
    site.wait_for_stage("bootlace-try", "kernel", BOOT)?;
    ensure!(!left.exists(), "what was left of another stays");
    let of = |name: &str, what: &str| -> Result<Value> {
        Ok(site.browser().json(&format!("/api/v1/machines/{name}"))?[what].clone())
    };
    ensure!(of("bootlace-try", "menu")? == of("lab-07", "menu")?, "its menu is another one");
    let stages = site.stages("bootlace-try")?;
    let starts_next = stages.iter().any(|line| line.detail.contains("debian version 1"));
    ensure!(starts_next, "it does not start what lab-07 starts next: {stages:#?}");
    servers.stop()?;
    std::thread::sleep(Duration::from_secs(1));
    let servers = site.up()?;
    let ended = child.wait_with_output()?;
    // Menus have lines that are no UTF-8.
    let shown = fs::read(&shown)?;
    let [shown, said] = [&shown, &ended.stderr].map(|it| String::from_utf8_lossy(it));
    ensure!(ended.status.success(), "{said}\n{shown}");
    ensure!(said.contains("the PC goes on") && said.contains("answers again"), "{said}");
    ensure!(shown.contains("UEFI Secure Boot is enabled"), "{shown}");
    ensure!(of("lab-07", "next_boot")? == NEXT, "what lab-07 starts next is used up");
    is_forgotten(site)?;
    Ok(servers)
}

#[test]
fn firmware_of_six_kinds_is_sent_on_its_way_by_the_doctor() {
    let name = "walk";
    let needs = ["grub-mkimage", "mmdebstrap", "vblade"].map(Need::Program);
    if !require(name, &[Need::Root]) || !require(name, &needs) {
        return;
    }
    let run = || -> Result<()> {
        let image = QUICK.image(|text| eprintln!("{text}"))?;
        let site = Site::builder().create(Lan::lay(name)?)?;
        let (boot, storage) = (site.serve()?, site.storage()?);
        let doctor = || -> Result<String> {
            let mut command = site.lan().netns().command(bootlace_binary()?, Signal::SIGKILL);
            let output = command.arg("--root").arg(site.root()).arg("doctor").output()?;
            Ok(String::from_utf8(output.stdout)?)
        };
        let text = doctor()?;
        ensure!(text.contains("ok    PC BIOS: ") && text.contains("needs an image"), "{text}");
        site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
        site.run(&["machine", "set", "lab-07", "--mac", MAC, "--image", "debian"])?;
        let text = doctor()?;
        let kinds = [
            "64-bit UEFI: address 198.18.77.",
            "64-bit UEFI that calls itself number 9: address 198.18.77.",
            "UEFI HTTP Boot: address 198.18.77.",
            "iPXE on 64-bit UEFI: address 198.18.77.",
            "iPXE on a PC BIOS: address 198.18.77.",
            "PC BIOS: address 198.18.77.",
        ];
        for kind in kinds {
            ensure!(text.contains(&format!("ok    {kind}")), "{kind:?} is not in:\n{text}");
        }
        ensure!(text.contains(", disk over NBD: "), "{text}");
        ensure!(text.contains("ok    A disk over AoE: address 198.18.77."), "{text}");
        ensure!(text.contains(" over AoE: 0."), "{text}");
        ensure!(text.contains("ok    nobody else on br0 has the address 10.77.0.1"), "{text}");
        ensure!(text.contains("ok    nobody else serves disks over AoE on br0"), "{text}");
        is_forgotten(&site)?;
        let first = begun_and_ended(&site, "bootlace-doctor")?;
        ensure!(first == begun_and_ended(&site, "bootlace-doctor-aoe")?, "{first:?}");

        // Something on the way lets no broadcasts through, but what is for one host.
        let filter = Filter::lay(&site)?;
        let text = doctor()?;
        let all = "ok    packets to everybody get through on br0: 1 of those";
        ensure!(text.contains(all), "{text}");
        filter.begin()?;
        let text = doctor()?;
        let deaf = format!("so PCs there hear no DHCP: {DEAF} ({DEAF_MAC})");
        ensure!(
            text.contains("WRONG packets to everybody on br0") && text.contains(&deaf),
            "{text}"
        );
        drop(filter);

        // Somebody has what is ours.
        let slot = site.browser().json("/api/v1/machines/lab-07")?["shelf_slot"].clone();
        let slot = slot.as_str().unwrap_or_default().to_owned();
        let (shelf, number) = slot.split_once('.').unwrap_or_default();
        let thief = site.lan().add_client("thief", "52:54:00:99:00:01")?;
        thief.netns().ip("address add 10.77.0.1/24 dev eth0")?;
        let disk = site.root().join("foreign.raw");
        fs::File::create(&disk)?.set_len(1 << 20)?;
        let mut vblade = thief.command("vblade");
        vblade.args([shelf, number, "eth0"]).arg(&disk).stdout(Stdio::null());
        let mut vblade = vblade.spawn()?;
        std::thread::sleep(Duration::from_secs(1));
        storage.stop()?;
        let text = doctor()?;
        vblade.kill()?;
        vblade.wait()?;
        let wrong = [
            "WRONG 52:54:00:99:00:01 on br0 has the server's address 10.77.0.1, too",
            &format!("disks of our machines: {slot}, which is lab-07's, at 52:54:00:99:00:01"),
            "WRONG PC BIOS: ",
        ];
        for wrong in wrong {
            ensure!(text.contains(wrong), "{wrong:?} is not in:\n{text}");
        }
        is_forgotten(&site)?;
        boot.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn a_pc_is_tried_on_the_server_itself_and_forgotten() {
    let name = "try";
    let needs = [
        Need::Program("setpriv"),
        Need::File("/usr/lib/shim/shimx64.efi.signed"),
        Need::File("/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"),
    ];
    if !can_boot(name) || !require(name, &needs) {
        return;
    }
    let run = || -> Result<()> {
        let _slot = PcSlots::take(1)?;
        let image = QUICK.image(|text| eprintln!("{text}"))?;
        let site = Site::builder().create(Lan::lay(name)?)?;
        site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
        let none = site.run(&["try"]).unwrap_err().to_string();
        ensure!(none.contains("no boot server runs here"), "{none}");
        let servers = site.up()?;
        let menu = ["--menu", "local-disk,image,1s"];
        let machine = ["machine", "set", "lab-07", "--mac", MAC, "--image", "debian"];
        site.run(&[&machine[..], &menu].concat())?;
        site.run(&["machine", "next", "lab-07", NEXT])?;
        // Somebody's own machine has the name.
        site.run(&["machine", "set", "bootlace-try", "--mac", OTHER_MAC, "--image", "debian"])?;
        let own = site.run(&["try"]).unwrap_err().to_string();
        ensure!(
            own.contains("there is a machine bootlace-try") && own.contains(OTHER_MAC),
            "{own}"
        );
        site.run(&["machine", "rm", "bootlace-try", "--yes"])?;
        let picture = site.root().join("screen.png");
        let screen = picture.to_string_lossy();
        let shown = site.run(&["try", "--no-kvm", "--until-up", "--screen", &screen])?;
        ensure!(
            shown.contains("bootlace: handover: /sbin/init"),
            "its console is not shown: {shown}"
        );
        ensure!(shown.lines().any(|line| line.contains(" s  up ")), "no time line: {shown}");
        ensure!(fs::read(&picture)?.starts_with(b"\x89PNG"), "no picture");
        is_forgotten(&site)?;
        is_killed(&site)?;
        let servers = goes_on(&site, servers)?;
        begun_and_ended(&site, "bootlace-try")?;
        servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}
