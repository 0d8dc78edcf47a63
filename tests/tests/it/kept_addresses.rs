//! Clients of other people keep their addresses, whatever happens to the server, its interface and its clock; and clients that
//! ask once take nobody else's.

use crate::dhcp::{EVERYONE, Udhcpc};
use anyhow::{Context, Result, ensure};
use lab::{Daemon, DhcpClient, DhcpHost, FAKETIME, Lan, Need, Site, require};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// NetworkManager waits for its first address the longest. Other tests may keep the machine busy.
const ANSWER: Duration = Duration::from_secs(90);

/// What a client that was told to stop has to be told again.
const ASK_AGAIN: Duration = Duration::from_secs(30);

struct Place {
    servers: Daemon,
    hosts: Vec<(DhcpHost, Ipv4Addr)>,
    site: Site,
    n_newcomers: u8,
}

/// Waits until the host has one address, and returns it.
fn address(host: &DhcpHost) -> Result<Ipv4Addr> {
    let deadline = Instant::now() + ANSWER;
    loop {
        let addresses = host.addresses()?;
        if let [address] = addresses[..] {
            return Ok(address);
        }
        let kind = host.kind();
        ensure!(Instant::now() < deadline, "{kind:?} has {addresses:?}:\n{}", host.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Place {
    fn lay(name: &str) -> Result<Self> {
        let site = Site::builder().verbose().with_clock().network(EVERYONE);
        let site = site.create(Lan::lay(name)?)?;
        site.set_clock(0)?;
        let servers = site.up()?;
        let mut hosts = Vec::new();
        for (number, kind) in DhcpClient::ALL.into_iter().enumerate() {
            let mac = format!("52:54:00:00:0b:{number:02x}");
            hosts.push(DhcpHost::plug_in(kind, site.lan(), &mac, |text| eprintln!("{text}"))?);
        }
        let with_address = |host| address(&host).map(|address| (host, address));
        let hosts = hosts.into_iter().map(with_address).collect::<Result<Vec<_>>>();
        let hosts = hosts.with_context(|| servers.log())?;
        Ok(Self { servers, hosts, site, n_newcomers: 0 })
    }

    /// So often the server has told this host that an address is its own.
    fn n_acks(&self, host: &DhcpHost) -> usize {
        let is_ack = |line: &&str| {
            line.contains("DHCP reply") && line.contains("Ack") && line.contains(host.mac())
        };
        self.servers.log().lines().filter(is_ack).count()
    }

    /// All ask for their addresses, and have what they had; a host that comes new gets another one.
    fn all_keep_theirs(&mut self, after: &str) -> Result<()> {
        let mut hosts = std::mem::take(&mut self.hosts);
        let before: Vec<usize> = hosts.iter().map(|(host, _)| self.n_acks(host)).collect();
        for (host, _) in &mut hosts {
            host.ask_again(self.site.lan())?;
        }
        let begun = Instant::now();
        let mut asked = begun;
        while hosts.iter().zip(&before).any(|((host, _), before)| self.n_acks(host) <= *before) {
            std::thread::sleep(Duration::from_millis(100));
            if asked.elapsed() > ASK_AGAIN {
                asked = Instant::now();
                for ((host, _), before) in hosts.iter_mut().zip(&before) {
                    if self.n_acks(host) <= *before {
                        host.ask_again(self.site.lan())?;
                    }
                }
            }
            if begun.elapsed() > ANSWER {
                let silent = hosts.iter().zip(&before);
                let silent = silent.filter(|((host, _), before)| self.n_acks(host) <= **before);
                let told: Vec<String> = silent
                    .map(|((host, _), _)| {
                        format!("{:?} is not answered:\n{}", host.kind(), host.log())
                    })
                    .collect();
                anyhow::bail!("after {after}: {}\n{}", told.join("\n"), self.servers.log());
            }
        }
        for (host, had) in &hosts {
            let has = address(host).with_context(|| format!("after {after}"))?;
            let kind = host.kind();
            ensure!(
                has == *had,
                "after {after}, {kind:?} has {has}, not {had}:\n{}",
                self.servers.log()
            );
        }
        self.n_newcomers += 1;
        let mac = format!("52:54:00:00:0c:{:02x}", self.n_newcomers);
        let client = self.site.lan().add_client("new", &mac)?;
        let folder = tempfile::tempdir()?;
        // It would like to have the first one's.
        let wanted = hosts[0].1.to_string();
        let told = Udhcpc::new(&client, folder.path())?.ask(&["-r", &wanted])?;
        let got: Ipv4Addr = told.get("ip").context("no address")?.parse()?;
        ensure!(hosts.iter().all(|(_, had)| *had != got), "after {after}, {got} is given twice");
        self.hosts = hosts;
        Ok(())
    }
}

#[test]
fn running_clients_keep_their_addresses_whatever_happens_to_the_server() {
    let name = "kept";
    let own = [Need::Root, Need::SlowTests, Need::Program("grub-mkimage"), Need::File(FAKETIME)];
    let clients = DhcpClient::ALL.map(DhcpClient::need);
    if !require(name, &[&own[..], &clients].concat()) {
        return;
    }
    let run = || -> Result<()> {
        let mut place = Place::lay(name)?;
        place.all_keep_theirs("nothing has happened")?;

        let Place { servers, hosts, site, n_newcomers } = place;
        servers.stop()?;
        let mut place = Place { servers: site.up()?, hosts, site, n_newcomers };
        place.all_keep_theirs("a restart")?;

        let Place { servers, hosts, site, n_newcomers } = place;
        servers.kill()?;
        let mut place = Place { servers: site.up()?, hosts, site, n_newcomers };
        place.all_keep_theirs("a kill")?;

        place.site.lan().make_bridge_again(|| Ok(()))?;
        for (host, _) in &place.hosts {
            host.plug_in_again(place.site.lan())?;
        }
        place.all_keep_theirs("the interface was made again")?;

        for days in [40, -400] {
            let place = &mut place;
            place.site.set_clock(days)?;
            place.all_keep_theirs(&format!("the clock was set by {days} days"))?;
        }
        let Place { servers, hosts, site, n_newcomers } = place;
        servers.kill()?;
        let mut place = Place { servers: site.up()?, hosts, site, n_newcomers };
        place.all_keep_theirs("a kill, with a clock that is behind")?;
        place.site.set_clock(0)?;
        place.all_keep_theirs("the clock was set right")?;
        let findings = place.site.browser().get("/api/v1/findings")?.body;
        ensure!(findings.contains("clock-set"), "nobody is told of the clock: {findings}");
        ensure!(!findings.contains("address-in-use"), "{findings}");
        place.servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn clients_that_ask_once_get_nobody_s_address_and_as_many_as_there_are() {
    let programs = ["nmap", "perfdhcp", "udhcpc", "grub-mkimage"].map(Need::Program);
    if !require("once", &[&[Need::Root], &programs[..]].concat()) {
        return;
    }
    let run = || -> Result<()> {
        let site = Site::builder().verbose().network(EVERYONE).create(Lan::lay("once")?)?;
        let servers = site.up()?;
        let owner = site.lan().add_client("owner", "52:54:00:00:00:01")?;
        let folder = tempfile::tempdir()?;
        let owner = Udhcpc::new(&owner, folder.path())?;
        let had = owner.ask(&[])?.get("ip").context("no address")?.clone();

        let client = site.lan().add_client("once", "52:54:00:00:00:02")?;
        client.netns().ip("address add 10.77.0.50/24 dev eth0")?;
        let said = |program: &str, words: &str| -> Result<String> {
            let output = client.command(program).args(words.split_ascii_whitespace()).output()?;
            Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
        };
        let offer = said("nmap", "-n --script broadcast-dhcp-discover -e eth0")?;
        for words in ["IP Offered: 10.77.0.", "Server Identifier: 10.77.0.1"] {
            ensure!(offer.contains(words), "{offer}");
        }
        ensure!(!offer.contains(&format!("IP Offered: {had}\n")), "{offer}");
        // A question of who has an address already.
        let inform = said("nmap", "-n -Pn -sU -p67 --script dhcp-discover 10.77.0.1")?;
        ensure!(inform.contains("DHCPACK") && !inform.contains("Lease Time"), "{inform}");

        // Half of the pool is for clients that nobody knows.
        let crowd = said("perfdhcp", "-4 -l eth0 -r 20 -R 40 -n 40 10.77.0.1")?;
        let acks = servers.log().matches("kind=Ack address=10.77.0.1").count();
        ensure!(crowd.contains("REQUEST-ACK") && acks > 35, "{acks} got one: {crowd}");
        ensure!(!crowd.contains("rejected leases: 1"), "{crowd}");
        let unique = crowd.matches("non unique addresses: 0").count();
        ensure!(unique == 2, "{crowd}");
        let has = owner.renew()?;
        ensure!(has.get("ip") == Some(&had), "it had {had}: {has:?}");
        servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}
