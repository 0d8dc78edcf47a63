//! The boot server's interface is made again under it, as networks are restarted and USB NICs replugged.

use crate::dhcp::Udhcpc;
use anyhow::{Context, Result, ensure};
use lab::{Lan, Need, SERVER, SERVER_PREFIX, Site, require, run, text_of};
use std::time::{Duration, Instant};

/// What the kernel tells is seen at once on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What the finding about the interface says; `None` if there is none.
fn cause(site: &Site) -> Result<Option<String>> {
    let findings = site.browser().json("/api/v1/findings")?;
    let findings = findings["findings"].as_array().context("no list")?;
    let deaf = findings.iter().find(|finding| finding["kind"] == "dhcp-deaf");
    Ok(deaf.and_then(|finding| finding["cause"].as_str()).map(ToOwned::to_owned))
}

fn wait_for(site: &Site, words: Option<&str>) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let cause = cause(site)?;
        let is_so = match (words, &cause) {
            (None, None) => true,
            (Some(words), Some(cause)) => cause.contains(words),
            _ => false,
        };
        if is_so {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the page says {cause:?}, not {words:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn an_interface_that_is_made_again_is_served_and_the_page_says_what_it_lacks() {
    if require("link", &[Need::Root, Need::Program("grub-mkimage"), Need::Program("udhcpc")]) {
        made_again().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn made_again() -> Result<()> {
    let site = Site::builder().verbose().create(Lan::lay("link")?)?;
    let servers = site.up()?;
    serves(&site, "52:54:00:00:00:01").context("at first")?;
    let lan = site.lan();
    for (change, words, back) in [
        ("link set br0 down", "br0 is down", "link set br0 up"),
        ("link set end0 down", "br0 has no link", "link set end0 up"),
    ] {
        wait_for(&site, None)?;
        lan.netns().ip(change)?;
        wait_for(&site, Some(words)).context(change)?;
        lan.netns().ip(back)?;
        wait_for(&site, None).context(back)?;
    }
    lan.netns().ip(&format!("addr del {SERVER_PREFIX} dev br0"))?;
    wait_for(&site, Some("does not have the server's address 10.77.0.1"))?;
    ensure!(serves(&site, "52:54:00:00:00:02").is_err(), "an address without a server behind it");
    ensure!(servers.log().contains("not answered: br0 does not have"), "{}", servers.log());
    lan.netns().ip(&format!("addr add {SERVER_PREFIX} dev br0"))?;
    wait_for(&site, None)?;
    serves(&site, "52:54:00:00:00:02").context("after its address was away")?;
    for round in 3..5 {
        lan.make_bridge_again(|| wait_for(&site, Some("br0 is not there")))?;
        wait_for(&site, None)?;
        serves(&site, &format!("52:54:00:00:00:0{round}")).context("after it was made again")?;
    }
    let log = servers.log();
    ensure!(!log.contains("panicked"), "{log}");
    servers.stop()
}

/// DHCP, TFTP and HTTP answer a PC.
fn serves(site: &Site, mac: &str) -> Result<()> {
    let client = site.lan().add_client("link-pc", mac)?;
    let folder = tempfile::tempdir()?;
    let told = Udhcpc::new(&client, folder.path())?.ask(&[
        "-V",
        "PXEClient:Arch:00000:UNDI:002001",
        "-x",
        "0x5d:0000",
    ])?;
    let file = told.get("boot_file").context("no loader is named")?;
    let loader = folder.path().join("loader");
    let url = format!("tftp://{SERVER}/{file}");
    run(client.command("curl").args(["-sS", "-m", "20", "-o"]).arg(&loader).arg(&url))?;
    ensure!(loader.metadata()?.len() > 10_000, "no loader came by TFTP");
    let url = format!("http://{SERVER}/grub/grub.cfg");
    let config = text_of(client.command("curl").args(["-sS", "-m", "20"]).arg(&url))?;
    ensure!(!config.is_empty(), "nothing came by HTTP");
    Ok(())
}
