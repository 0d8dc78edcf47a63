//! How long PCs take that fetch a boot file by TFTP at once, and what they are sent twice, beside dnsmasq.

use super::{median_figure, program};
use crate::booted::SERVER_IP;
use crate::say;
use anyhow::{Context, Result, ensure};
use clap::Args;
use fakeclient::room::Room;
use fakeclient::tftp_crowd::{Fetch, Fetched, fetch_all};
use lab::{Client, Daemon, Lan, Site};
use nix::sys::signal::Signal;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use wire::Mac;

/// Addresses for all, in place of the lab's hundred.
const POOL: [&str; 2] = ["10.77.0.100-10.77.0.199", "10.77.0.10-10.77.0.250"];

/// How long firmware waits for a packet.
const PATIENCE: Duration = Duration::from_secs(1);

/// As long as Linux and GRUB wait.
const LOSSY_PATIENCE: Duration = Duration::from_millis(400);

/// The files: of a crowd, and of one PC on a bad network.
const FILES: [(&str, u64); 2] = [("crowd", 1_000_000), ("long", 10_000_000)];

const CROWDS: [usize; 3] = [1, 32, 200];
const WINDOWS: [u16; 2] = [1, 16];
const BLOCK_SIZES: [u16; 2] = [512, 1428];

#[derive(Args)]
pub(crate) struct Tftp {
    /// The program to measure, in place of the one that this tree makes
    #[arg(long)]
    program: Option<PathBuf>,
    /// How often crowds start; the median time is told, and the sums of what went wrong
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

impl Default for Tftp {
    fn default() -> Self {
        Self { program: None, rounds: 3 }
    }
}

impl Tftp {
    pub(crate) fn run(&self) -> Result<()> {
        let binary = program(self.program.as_deref())?;
        let n_clients = CROWDS.into_iter().max().unwrap_or_default();
        let ours = Place::of_bootlace(&binary, n_clients)?;
        let theirs = Place::of_dnsmasq(n_clients)?;
        println!(
            "PCs that fetch {} bytes each at once: seconds until the last has it, and of all {} rounds time-outs \
             of clients (after 1 s) and blocks that they had already",
            FILES[0].1, self.rounds
        );
        print_head();
        for n in CROWDS {
            for block_size in BLOCK_SIZES {
                for window in WINDOWS {
                    let fetch = Fetch {
                        server: SocketAddrV4::new(SERVER_IP, 69),
                        path: "boot/crowd/1/vmlinuz",
                        block_size,
                        window,
                        patience: PATIENCE,
                        lost_per_thousand: 0,
                    };
                    compare([&ours, &theirs], &fetch, n, (FILES[0].1, self.rounds))?;
                }
            }
        }
        println!(
            "\none PC that fetches {} bytes, of whose packets 1 % get lost each way",
            FILES[1].1
        );
        print_head();
        for window in WINDOWS {
            let fetch = Fetch {
                server: SocketAddrV4::new(SERVER_IP, 69),
                path: "boot/long/1/vmlinuz",
                block_size: 1428,
                window,
                patience: LOSSY_PATIENCE,
                lost_per_thousand: 10,
            };
            // Once: it takes others minutes.
            compare([&ours, &theirs], &fetch, 1, (FILES[1].1, 1))?;
        }
        ours.stop()?;
        theirs.stop()
    }
}

/// A line of the table, of so many clients and rounds.
fn compare(
    places: [&Place; 2],
    fetch: &Fetch<'_>,
    n: usize,
    (n_bytes, rounds): (u64, usize),
) -> Result<()> {
    let mut sums = [Sum::default(), Sum::default()];
    for _ in 0..rounds.max(1) {
        // In turns, so that a busy minute hits both.
        for (place, sum) in places.into_iter().zip(&mut sums) {
            sum.add(place.fetch(fetch, n)?, n_bytes)?;
        }
    }
    print!("{n:7} {:8} {:7} ", fetch.block_size, fetch.window);
    for sum in &sums {
        print!(" | {sum}");
    }
    println!();
    Ok(())
}

fn print_head() {
    let server = format!("{:>7} {:>9} {:>7} {:>7}", "seconds", "time-outs", "twice", "share");
    println!("{:24} | bootlace{:25} | dnsmasq", "", "");
    println!("{:>7} {:>8} {:>7}  | {server} | {server}", "clients", "blksize", "window");
}

/// What went on in all rounds.
#[derive(Default)]
struct Sum {
    seconds: Vec<f64>,
    n_timeouts: u64,
    n_packets: u64,
    n_copies: u64,
    n_failed: usize,
}

impl Sum {
    fn add(&mut self, clients: Vec<io::Result<Fetched>>, n_bytes: u64) -> Result<()> {
        let mut last = Duration::ZERO;
        let mut digest = None;
        for client in clients {
            let Ok(got) = client else {
                self.n_failed += 1;
                continue;
            };
            ensure!(got.n_bytes == n_bytes, "a client got {} bytes", got.n_bytes);
            ensure!(*digest.get_or_insert(got.digest) == got.digest, "clients got other bytes");
            last = last.max(got.took);
            self.n_timeouts += u64::from(got.n_timeouts);
            self.n_packets += got.n_packets;
            self.n_copies += got.n_copies;
        }
        self.seconds.push(last.as_secs_f64());
        Ok(())
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = median_figure(self.seconds.iter().copied());
        let share = 100.0 * self.n_copies as f64 / self.n_packets.max(1) as f64;
        let (n_timeouts, n_copies) = (self.n_timeouts, self.n_copies);
        write!(f, "{seconds:7.2} {n_timeouts:9} {n_copies:7} {share:6.2}%")?;
        if self.n_failed > 0 {
            write!(f, " ({} gave up)", self.n_failed)?;
        }
        Ok(())
    }
}

/// A server on a LAN of its own, and the host of all its clients.
struct Place {
    client: Client,
    addresses: Vec<Ipv4Addr>,
    servers: Vec<Daemon>,
    _site: Option<Site>,
    _lan: Option<Lan>,
    _folder: tempfile::TempDir,
}

impl Place {
    fn of_bootlace(binary: &Path, n_clients: usize) -> Result<Self> {
        let site = Site::builder().binary(binary).create(Lan::lay("tftp")?)?;
        let path = site.root().join("etc/bootlace/bootlace.toml");
        let config = std::fs::read_to_string(&path)?;
        ensure!(config.contains(POOL[0]), "the lab has another pool");
        std::fs::write(&path, config.replace(POOL[0], POOL[1]))?;
        for (name, n_bytes) in FILES {
            let version = site.root().join("var/lib/bootlace/images").join(name).join("1");
            std::fs::create_dir_all(&version)?;
            std::fs::write(version.join("image.toml"), about(name))?;
            std::fs::write(version.join("vmlinuz"), content(n_bytes))?;
            std::fs::File::create(version.join("disk.raw"))?.set_len(4096)?;
        }
        let servers = vec![site.storage()?, site.serve()?];
        let client = site.lan().add_client("tftp", "52:54:00:00:02:01")?;
        // Hosts without a lease would be answered seldom.
        say(&format!("adding {n_clients} machines"));
        let macs: Vec<Mac> = (0..n_clients).map(|n| Mac([0x52, 0x54, 0, 0, 1, n as u8])).collect();
        for (n, mac) in macs.iter().enumerate() {
            site.run(&["machine", "set", &format!("pc-{n}"), "--mac", &mac.to_string()])?;
        }
        let placed = client.netns().inside(|| {
            let room = Room::open("eth0", macs)?;
            let placed = room.discover()?;
            room.request(&placed)?;
            Ok(placed)
        })?;
        let addresses = placed.iter().map(|pc| pc.address).collect();
        let folder = tempfile::tempdir()?;
        Self { client, addresses, servers, _site: Some(site), _lan: None, _folder: folder }.placed()
    }

    fn of_dnsmasq(n_clients: usize) -> Result<Self> {
        let lan = Lan::lay("tftp-peer")?;
        let folder = tempfile::tempdir()?;
        for (name, n_bytes) in FILES {
            let version = folder.path().join("boot").join(name).join("1");
            std::fs::create_dir_all(&version)?;
            std::fs::write(version.join("vmlinuz"), content(n_bytes))?;
        }
        let mut dnsmasq = lan.netns().command("dnsmasq", Signal::SIGKILL);
        dnsmasq.args([
            "--keep-in-foreground",
            "--log-facility=-",
            "--conf-file=/dev/null",
            "--port=0",
            "--interface=br0",
            "--bind-interfaces",
            "--user=root",
            "--pid-file=",
            "--enable-tftp",
            // It serves 50 at once without this, and the others not at all.
            "--tftp-max=1000",
        ]);
        dnsmasq.arg(format!("--tftp-root={}", folder.path().display()));
        let log = folder.path().join("log");
        let mut daemon = Daemon::start("dnsmasq", dnsmasq.stdin(Stdio::null()), &log)?;
        daemon.wait_for_log("TFTP root is", Duration::from_secs(20))?;
        let client = lan.add_client("tftp-peer", "52:54:00:00:02:02")?;
        let addresses = (10..).take(n_clients).map(|host| Ipv4Addr::new(10, 77, 0, host)).collect();
        let servers = vec![daemon];
        Self { client, addresses, servers, _site: None, _lan: Some(lan), _folder: folder }.placed()
    }

    /// Gives the host all addresses.
    fn placed(self) -> Result<Self> {
        for address in &self.addresses {
            self.client.netns().ip(&format!("address add {address}/24 dev eth0"))?;
        }
        // Both find each other once, which no boot waits for that has just got its address.
        let fetch = Fetch {
            server: SocketAddrV4::new(SERVER_IP, 69),
            path: "boot/crowd/1/vmlinuz",
            block_size: 1428,
            window: 1,
            patience: PATIENCE,
            lost_per_thousand: 0,
        };
        for client in self.fetch(&fetch, self.addresses.len())? {
            client.context("a client gets no file")?;
        }
        Ok(self)
    }

    fn fetch(&self, fetch: &Fetch<'_>, n: usize) -> Result<Vec<io::Result<Fetched>>> {
        let from = &self.addresses[..n];
        self.client.netns().inside(|| Ok(fetch_all(fetch, from)))
    }

    fn stop(self) -> Result<()> {
        drop(self.client);
        self.servers.into_iter().rev().try_for_each(Daemon::stop)
    }
}

/// What an image version says of itself.
fn about(name: &str) -> String {
    format!(
        "image = \"{name}\"\nversion = 1\ndigest = \"00\"\nsize_bytes = 4096\n\
         file_system = \"ext4\"\nkernel_version = \"6.1.0\"\nimported_unix = 0\n"
    )
}

/// Bytes of which no two blocks are the same.
fn content(n_bytes: u64) -> Vec<u8> {
    (0..n_bytes / 8).flat_map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()).collect()
}
