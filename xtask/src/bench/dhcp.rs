//! How many PCs that were never seen get an address in a second, and how soon, beside Kea and dnsmasq.

use super::perfdhcp::{Clients, Load, Said};
use super::{median_figure, peers, program};
use crate::say;
use anyhow::{Context, Result};
use clap::Args;
use lab::{Client, Daemon, Lan, Site};
use nix::sys::signal::Signal;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Leases that are there before.
const LEASES: u32 = 15_000;

/// Exchanges that are begun each second.
const RATES: [u32; 2] = [1000, 2000];

/// A network that has addresses for all who come.
const NETWORK: &str = "10.64.0.0/12";
const PREFIX: u32 = 12;
const SERVER: &str = "10.64.0.1";
const CROWD: &str = "10.64.0.2";
const NETMASK: &str = "255.240.0.0";
const POOL: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 65, 0, 0), Ipv4Addr::new(10, 79, 255, 254)];

const START: Duration = Duration::from_secs(60);

/// Syncs of the disk that are measured.
const SYNCS: u32 = 50;

#[derive(Args)]
pub(crate) struct Dhcp {
    /// The program to measure, in place of the one that this tree makes
    #[arg(long)]
    program: Option<PathBuf>,
    /// How often each server starts; the medians are told, and the sums of what got no answer
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long the crowd comes at each rate
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// Only Bootlace
    #[arg(long)]
    alone: bool,
}

impl Default for Dhcp {
    fn default() -> Self {
        Self { program: None, rounds: 3, seconds: 8, alone: false }
    }
}

/// A line of the table.
#[derive(Default)]
struct Line {
    name: &'static str,
    rate: u32,
    rounds: Vec<Said>,
}

impl Dhcp {
    pub(crate) fn run(&self) -> Result<()> {
        let binary = program(self.program.as_deref())?;
        let mut cases = vec![
            (Kind::Bootlace, Clients::Any, "bootlace"),
            (Kind::Kea, Clients::Any, "Kea"),
            (Kind::Dnsmasq, Clients::Any, "dnsmasq"),
            (Kind::Bootlace, Clients::Firmware, "bootlace, firmware"),
        ];
        if self.alone {
            cases.retain(|(kind, ..)| *kind == Kind::Bootlace);
        }
        let line = |name, rate| Line { name, rate, rounds: Vec::new() };
        let mut lines: Vec<Line> = RATES
            .into_iter()
            .flat_map(|rate| cases.iter().map(move |(.., name)| line(*name, rate)))
            .collect();
        for round in 1..=self.rounds.max(1) {
            // In turns, so that a busy minute hits all.
            for (kind, clients, name) in &cases {
                say(&format!("round {round} of {}: {name}", self.rounds));
                let place = Place::start(*kind, &binary)?;
                for (n, rate) in (1..).zip(RATES) {
                    let load = Load {
                        clients: *clients,
                        rate,
                        seconds: self.seconds,
                        first_mac: [2, n, 0, 0, 0, 0],
                        server: SERVER,
                    };
                    let said = load.run(&place.crowd)?;
                    let is_it = |line: &&mut Line| line.name == *name && line.rate == rate;
                    lines.iter_mut().find(is_it).context("no such line")?.rounds.push(said);
                }
                place.stop()?;
            }
        }
        print(&lines, self.rounds, self.seconds)
    }
}

fn print(lines: &[Line], rounds: usize, seconds: u32) -> Result<()> {
    println!(
        "new PCs by perfdhcp, {LEASES} leases before, {seconds} s at each rate, {rounds} rounds; a sync of this disk takes \
         {:.2} ms",
        sync_ms()?
    );
    println!(
        "Bootlace syncs before each ACK, for many at once; dnsmasq writes all leases anew for each; Kea leaves it to the kernel"
    );
    println!(
        "{:20} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10} {:>10} {:>10}",
        "", "offered/s", "reached/s", "no OFFER", "no ACK", "OFFER p50", "p99", "ACK p50", "p99"
    );
    for Line { name, rate, rounds } in lines {
        let middle = |of: fn(&Said) -> f64| median_figure(rounds.iter().map(of));
        let sum = |of: fn(&Said) -> u64| rounds.iter().map(of).sum::<u64>();
        println!(
            "{name:20} {rate:9} {:9.0} {:9} {:9} {:7.2} ms {:7.2} ms {:7.2} ms {:7.2} ms",
            middle(|said| said.reached),
            sum(|said| said.offers.n_missing),
            sum(|said| said.acks.n_missing),
            middle(|said| said.offers.p50_ms),
            middle(|said| said.offers.p99_ms),
            middle(|said| said.acks.p50_ms),
            middle(|said| said.acks.p99_ms),
        );
    }
    Ok(())
}

/// How long it takes until a few bytes are on the disk where the servers write; the median.
fn sync_ms() -> Result<f64> {
    let mut file = tempfile::tempfile()?;
    let mut all = Vec::new();
    for _ in 0..SYNCS {
        file.write_all(&[1; 4096])?;
        let start = Instant::now();
        file.sync_data()?;
        all.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median_figure(all.into_iter()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bootlace,
    Kea,
    Dnsmasq,
}

/// A server with its leases on a LAN of its own, and the host that all PCs are behind.
struct Place {
    crowd: Client,
    daemon: Daemon,
    _site: Option<Site>,
    _lan: Option<Lan>,
    _folder: tempfile::TempDir,
}

impl Place {
    fn start(kind: Kind, binary: &Path) -> Result<Self> {
        let lan = Lan::lay("dhcp")?;
        lan.netns().ip(&format!("address del {} dev br0", lab::SERVER_PREFIX))?;
        lan.netns().ip(&format!("address add {SERVER}/{PREFIX} dev br0"))?;
        let crowd = lan.add_client("dhcp-crowd", "52:54:00:00:02:01")?;
        crowd.netns().ip(&format!("address add {CROWD}/{PREFIX} dev eth0"))?;
        let folder = tempfile::tempdir()?;
        let leases = folder.path().join("leases");
        File::create(&leases)?.write_all(leases_before(kind)?.as_bytes())?;
        let log = folder.path().join("log");
        match kind {
            Kind::Bootlace => {
                let site = Site::builder().binary(binary).network("serve_everyone = true");
                let site = site.pool(&format!("{}-{}", POOL[0], POOL[1])).create(lan)?;
                site.run(&["lease", "import", &leases.to_string_lossy()])?;
                let daemon = site.up()?;
                Ok(Self { crowd, daemon, _site: Some(site), _lan: None, _folder: folder })
            }
            Kind::Kea => {
                let config = folder.path().join("config");
                std::fs::write(&config, kea_config(&leases))?;
                let mut kea = lan.netns().command("kea-dhcp4", Signal::SIGKILL);
                kea.arg("-c").arg(&config).env("KEA_PIDFILE_DIR", folder.path());
                kea.env("KEA_LOCKFILE_DIR", folder.path());
                let mut daemon = Daemon::start_detached("kea-dhcp4", &mut kea, &log)?;
                daemon.wait_for_log("DHCP4_STARTED", START)?;
                Ok(Self { crowd, daemon, _site: None, _lan: Some(lan), _folder: folder })
            }
            Kind::Dnsmasq => {
                let mut dnsmasq = peers::dnsmasq(&lan);
                dnsmasq.args(["--quiet-dhcp", "--dhcp-lease-max=1000000"]);
                // It waits for three seconds before each new address without this; Kea never does.
                dnsmasq.arg("--no-ping").arg(format!("--dhcp-leasefile={}", leases.display()));
                dnsmasq.arg(format!("--dhcp-range={},{},{NETMASK},12h", POOL[0], POOL[1]));
                let mut daemon = Daemon::start("dnsmasq", &mut dnsmasq, &log)?;
                daemon.wait_for_log("DHCP, IP range", START)?;
                Ok(Self { crowd, daemon, _site: None, _lan: Some(lan), _folder: folder })
            }
        }
    }

    fn stop(self) -> Result<()> {
        drop(self.crowd);
        self.daemon.stop()
    }
}

/// A file of leases as the server keeps it; Bootlace imports that of dnsmasq.
fn leases_before(kind: Kind) -> Result<String> {
    let end = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 43_200;
    let mut file = String::new();
    if kind == Kind::Kea {
        file.push_str(
            "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context\n",
        );
    }
    for n in 0..LEASES {
        let address = Ipv4Addr::from_bits(POOL[0].to_bits() + n);
        let [a, b, c, d] = n.to_be_bytes();
        let mac = format!("06:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
        match kind {
            Kind::Kea => writeln!(file, "{address},{mac},,43200,{end},1,0,0,,0,")?,
            Kind::Bootlace | Kind::Dnsmasq => writeln!(file, "{end} {mac} {address} * *")?,
        }
    }
    Ok(file)
}

fn kea_config(leases: &Path) -> String {
    format!(
        r#"{{ "Dhcp4": {{
  "interfaces-config": {{ "interfaces": [ "br0" ] }},
  "lease-database": {{ "type": "memfile", "persist": true, "name": "{}" }},
  "valid-lifetime": 43200,
  "loggers": [ {{ "name": "kea-dhcp4", "severity": "INFO", "output_options": [ {{ "output": "stdout" }} ] }},
               {{ "name": "kea-dhcp4.leases", "severity": "WARN" }}, {{ "name": "kea-dhcp4.packets", "severity": "WARN" }} ],
  "subnet4": [ {{ "subnet": "{NETWORK}", "pools": [ {{ "pool": "{} - {}" }} ] }} ]
}} }}
"#,
        leases.display(),
        POOL[0],
        POOL[1]
    )
}
