//! What only one boot of one machine gets: it arrives behind the initrd or by HTTP, makes the machine the
//! same in each boot, and lets the boot server stop it.

use crate::boot::{BOOT, COMMAND, MAC, SHUTDOWN, can_boot, wait_for_login};
use anyhow::{Result, ensure};
use lab::{Console, Lan, Need, Pc, PcSlots, Preboot, Recipe, SERVER, Site, require};
use std::path::{Path, PathBuf};

/// As if the image's SSH server had been started before it was imported.
const SHARED_KEYS: &str = "mkdir /etc/ssh
cd /etc/ssh
write key ssh_host_rsa_key
write key ssh_host_ed25519_key
write key.pub ssh_host_ed25519_key.pub
";

#[test]
fn a_machine_has_an_identity_of_its_own_and_obeys_the_boot_server() {
    let name = "segment";
    if can_boot(name) && require(name, &["udhcpc", "curl", "debugfs"].map(Need::Program)) {
        identity_and_power(name).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn identity_and_power(name: &str) -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let folder = tempfile::tempdir()?;
    let image = with_shared_keys(folder.path())?;
    let site = Site::builder().create(Lan::lay(name)?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    site.run(&["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"])?;
    let servers = site.up()?;

    let preboot = Preboot::start(&site, MAC)?;
    let (mut pc, address) = power_on(&site, preboot)?;
    ensure!(!address.contains("segment"), "{address}");
    let console = pc.console().clone();
    let first = host_key(&console)?;
    ensure!(first.starts_with("ssh-ed25519 AAAA") && first.ends_with(" pc-1"), "{first}");
    check_secrecy(&site, &console)?;
    let said = site.run(&["machine", "power", "pc-1", "reboot"])?;
    ensure!(said.contains("pc-1: acknowledged (reboot)"), "{said}");
    pc.wait_for_off(SHUTDOWN)?;
    ensure!(console.text().contains("bootlace: root unmounted; reboot"), "{}", console.tail(20));
    drop(pc);

    let preboot = Preboot::start(&site, MAC)?.without_host_segment();
    let (mut pc, address) = power_on(&site, preboot)?;
    ensure!(address.contains("host segment lost, fetched by HTTP"), "{address}");
    let again = host_key(pc.console())?;
    ensure!(again == first, "the host key was {first} and is {again}");
    site.run(&["machine", "power", "pc-1", "poweroff"])?;
    let page = site.browser().get("/machines/pc-1")?.body;
    ensure!(page.contains("It was asked to shut down ("), "{page}");
    pc.wait_for_off(SHUTDOWN)?;
    servers.stop()
}

/// The image with host keys that all its machines share.
fn with_shared_keys(folder: &Path) -> Result<PathBuf> {
    let image = folder.join("image.raw");
    let original = Recipe::default().image(|text| eprintln!("{text}"))?;
    let mut copy = std::process::Command::new("cp");
    lab::run(copy.args(["--sparse=always", "--reflink=auto"]).args([&original, &image]))?;
    std::fs::write(folder.join("key"), "the image's\n")?;
    std::fs::write(folder.join("key.pub"), "ssh-ed25519 SHARED root@image\n")?;
    std::fs::write(folder.join("commands"), SHARED_KEYS)?;
    let mut debugfs = std::process::Command::new("debugfs");
    debugfs.current_dir(folder).args(["-w", "-f", "commands", "image.raw"]);
    lab::run(&mut debugfs)?;
    Ok(image)
}

/// Boots to a root shell; returns what was said when there was an address.
fn power_on(site: &Site, preboot: Preboot) -> Result<(Pc, String)> {
    let kernel = preboot.fetch()?;
    drop(preboot);
    // Another boot of the same kernel in QEMU would not be seen by the boot server.
    let pc =
        Pc::builder("pc-1").mac(MAC).kernel(&kernel).extra(&["-no-reboot"]).start(site.lan())?;
    wait_for_login(&pc, "pc-1")?;
    let stages = site.wait_for_stage("pc-1", "up", BOOT)?;
    pc.console().log_in(COMMAND)?;
    let address = stages.into_iter().find(|line| line.stage == "address");
    Ok((pc, address.map(|line| line.detail).unwrap_or_default()))
}

/// The public host key, which must be the only one.
fn host_key(console: &Console) -> Result<String> {
    let names = console.shell("cd /etc/ssh; stat -c '%a %n' ssh_host_*", COMMAND)?;
    ensure!(
        names.split_whitespace().eq([
            "600",
            "ssh_host_ed25519_key",
            "644",
            "ssh_host_ed25519_key.pub"
        ]),
        "{names}"
    );
    let head = console.shell("head -n 1 /etc/ssh/ssh_host_ed25519_key", COMMAND)?;
    ensure!(head == "-----BEGIN OPENSSH PRIVATE KEY-----", "{head}");
    console.shell("cat /etc/ssh/ssh_host_ed25519_key.pub", COMMAND)
}

/// Users of the machine get no secret, neither from it nor from the boot server; and nobody speaks for it.
fn check_secrecy(site: &Site, console: &Console) -> Result<()> {
    let secrets = console.shell("stat -c %a /run/bootlace/token; wc -w </proc/cmdline", COMMAND)?;
    ensure!(secrets.starts_with("600"), "{secrets}");
    let boot = site.stages("pc-1")?.first().map_or(0, |line| line.boot);
    for path in [format!("/host/{boot}"), format!("/boot/host/{boot}")] {
        let ask = format!(
            "bash -c 'exec 3<>/dev/tcp/{SERVER}/80; printf \"GET {path} HTTP/1.0\\r\\n\\r\\n\" >&3; \
             head -n 1 <&3'"
        );
        let answer = console.shell(&ask, COMMAND)?;
        ensure!(answer.contains("404"), "any user gets {path}: {answer}");
    }
    let forged = format!("bootlace/1 report {boot} {MAC} 200 failed 1 forged");
    let send = format!("bash -c 'printf \"{forged}\" >/dev/udp/{SERVER}/4915; sleep 1'");
    console.shell(&send, COMMAND)?;
    let view = site.browser().json("/api/v1/machines/pc-1")?;
    ensure!(view["state"]["word"] == "up" && view["n_refused"] == 3, "{view}");
    Ok(())
}
