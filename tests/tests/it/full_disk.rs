//! The disk with the boot server's state is full.

use anyhow::{Context, Result, ensure};
use lab::{Client, Lan, Need, Site, require, text_of};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A small file system in memory, until it is dropped.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: &Path, size: &str) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        let options = format!("size={size},mode=0755");
        text_of(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path))?;
        Ok(Self { path: path.to_owned() })
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    /// Leaves not one block free.
    fn fill(&self) -> Result<()> {
        let mut filler = File::options().create(true).append(true).open(self.filler())?;
        loop {
            match filler.write_all(&[1; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !is_so()? {
        ensure!(Instant::now() < deadline, "{what} does not come about");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// A PC that nobody has seen gets an address; returns it.
fn address_of(client: &Client, number: u8) -> Result<String> {
    client.netns().ip("link set eth0 down")?;
    client.netns().ip(&format!("link set eth0 address 52:54:00:00:00:{number:02x}"))?;
    client.netns().ip("link set eth0 up")?;
    let mut udhcpc = client.command("udhcpc");
    udhcpc.args(["-f", "-n", "-q", "-i", "eth0", "-t", "5", "-T", "2", "-s", "/bin/true"]);
    let output = udhcpc.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = said.lines().find_map(|line| line.split_once("lease of ").map(|(_, rest)| rest));
    let address = line.and_then(|rest| rest.split([' ', ',']).next());
    Ok(address.with_context(|| format!("no address: {said}"))?.to_owned())
}

#[test]
fn a_full_disk_keeps_no_address_from_a_pc_and_no_server_from_starting() {
    let name = "a_full_disk_keeps_no_address";
    if !require(name, &[Need::Root, Need::Program("udhcpc"), Need::Program("grub-mkimage")]) {
        return;
    }
    let run = || -> Result<()> {
        let site = Site::builder().create(Lan::lay("full")?)?;
        let state = site.root().join("var/lib/bootlace");
        let disk = SmallDisk::mount(&state, "64m")?;
        let servers = site.serve()?;
        let client = site.lan().add_client("client", "52:54:00:00:00:01")?;
        let reserve = state.join("state.reserve");
        wait_until("a reserve", || Ok(reserve.exists()))?;
        let is_found = || -> Result<bool> {
            let told = site.browser().json("/api/v1/findings")?;
            let findings = told["findings"].as_array().context("no list")?;
            Ok(findings.iter().any(|finding| finding["kind"] == "state-disk-full"))
        };
        ensure!(!is_found()?, "there is room");

        disk.fill()?;
        let mut addresses = Vec::new();
        for number in 1..=6 {
            let address = address_of(&client, number);
            addresses.push(address.with_context(|| format!("the log:\n{}", servers.log()))?);
        }
        wait_until("a finding", is_found)?;
        servers.stop()?;

        // What was the log of the database is others' room now.
        disk.fill()?;
        let servers = site.serve()?;
        for (number, address) in (1..=6).zip(&addresses) {
            ensure!(address_of(&client, number)? == *address, "PC {number} had {address}");
        }
        ensure!(!reserve.exists(), "it started without any room?");
        wait_until("a finding", is_found)?;

        std::fs::remove_file(disk.filler())?;
        wait_until("a new reserve", || Ok(reserve.exists()))?;
        wait_until("the end of the finding", || Ok(!is_found()?))?;
        servers.stop()?;
        drop(disk);
        Ok(())
    };
    run().unwrap_or_else(|error| panic!("{error:?}"));
}
