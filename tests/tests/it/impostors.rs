//! Hosts that speak in a machine's name.

use crate::dhcp::Udhcpc;
use anyhow::{Context, Result, ensure};
use lab::{Client, Lan, Need, SERVER, Site, require, text_of};

const MAC: &str = "52:54:00:00:00:07";
const THIEF: &str = "52:54:00:00:00:66";

/// What a BIOS says when it asks for an address.
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
