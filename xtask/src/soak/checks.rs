//! What the boot server has promised: addresses and machines.

use super::machine::Machine;
use anyhow::{Context, Result, ensure};
use lab::{Client, Site};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// PCs that are no machines, and have addresses.
const STRANGERS: u8 = 2;

/// How long the list may take: the servers start.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What was promised.
pub(super) struct Records {
    strangers: Client,
    /// Addresses of strangers by number, and those of machines by name.
    leases: BTreeMap<u8, String>,
    addresses: BTreeMap<&'static str, String>,
    /// The list of machines.
    machines: Value,
    n_added: u32,
}

impl Records {
    pub(super) fn begin(site: &Site) -> Result<Self> {
        let strangers = site.lan().add_client("strangers", "52:54:00:00:02:00")?;
        let machines = list(site)?;
        let (leases, addresses) = Default::default();
        Ok(Self { strangers, leases, addresses, machines, n_added: 0 })
    }

    /// Asks for the addresses for the first time.
    pub(super) fn learn(&mut self, site: &Site, machines: &[Machine]) -> Result<()> {
        for number in 1..=STRANGERS {
            self.leases.insert(number, self.lease_of(number)?);
        }
        for machine in machines {
            self.addresses.insert(machine.who.named.machine, lease(machine.preboot.client())?);
        }
        self.check(site, machines)
    }

    /// Adds a machine by the command line.
    pub(super) fn add_machine(&mut self, site: &Site) -> Result<()> {
        self.n_added += 1;
        let (name, mac) = (
            format!("added-{}", self.n_added),
            format!("52:54:00:01:{:02x}:{:02x}", self.n_added >> 8, self.n_added & 0xff),
        );
        site.run(&["machine", "set", &name, "--mac", &mac, "--image", "debian"])?;
        self.machines = list(site)?;
        let names = self.machines.as_array().context("no list")?.iter().map(|it| &it["name"]);
        ensure!(names.into_iter().any(|it| *it == name.as_str()), "{name} is not in the list");
        Ok(())
    }

    /// Strangers have the addresses that they had.
    pub(super) fn check_leases(&self) -> Result<()> {
        for (number, address) in &self.leases {
            let now = self.lease_of(*number)?;
            ensure!(now == *address, "stranger {number} had {address}, and now has {now}");
        }
        Ok(())
    }

    /// All addresses, and the list of machines, are what they were.
    pub(super) fn check(&self, site: &Site, machines: &[Machine]) -> Result<()> {
        self.check_leases()?;
        for machine in machines {
            let name = machine.who.named.machine;
            let now = lease(machine.preboot.client())?;
            let before = self.addresses.get(name);
            ensure!(before == Some(&now), "{name} had {before:?}, and now has {now}");
        }
        let now = list(site)?;
        ensure!(now == self.machines, "the machines were\n{}\nand now are\n{now}", self.machines);
        Ok(())
    }

    fn lease_of(&self, number: u8) -> Result<String> {
        let netns = self.strangers.netns();
        netns.ip("link set eth0 down")?;
        netns.ip(&format!("link set eth0 address 52:54:00:00:02:{number:02x}"))?;
        netns.ip("link set eth0 up")?;
        lease(&self.strangers)
    }
}

/// The address that a client gets.
fn lease(client: &Client) -> Result<String> {
    let mut udhcpc = client.command("udhcpc");
    udhcpc.args(["-f", "-n", "-q", "-i", "eth0", "-t", "20", "-T", "1", "-s", "/bin/true"]);
    let output = udhcpc.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = said.lines().find_map(|line| line.split_once("lease of ").map(|(_, rest)| rest));
    let address = line.and_then(|rest| rest.split([' ', ',']).next());
    Ok(address.with_context(|| format!("no address: {said}"))?.to_owned())
}

/// All machines, as the command line tells them.
fn list(site: &Site) -> Result<Value> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match site.run(&["machine", "ls", "--json"]) {
            Ok(text) => return Ok(serde_json::from_str::<Value>(&text)?["machines"].take()),
            Err(error) => ensure!(Instant::now() < deadline, "no list of machines: {error}"),
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}
