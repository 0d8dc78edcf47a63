//! How long PCs take that fetch a boot file by TFTP at once, and what they are sent twice, beside dnsmasq and others.

use super::boot_files::{Place, path};
use super::{median_figure, peers, program};
use crate::booted::SERVER_IP;
use anyhow::{Context, Result, ensure};
use clap::Args;
use fakeclient::tftp_crowd::{Fetch, Fetched, fetch_all};
use lab::{Daemon, Lan, Need};
use nix::sys::signal::Signal;
use std::io;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long firmware waits for a packet.
const PATIENCE: Duration = Duration::from_secs(1);

/// As long as Linux and GRUB wait.
const LOSSY_PATIENCE: Duration = Duration::from_millis(400);

/// The files: of a crowd, of one PC on a bad network, and an initrd.
const FILES: [(&str, u64); 3] =
    [("crowd", 1_000_000), ("long", 10_000_000), ("initrd", 50_000_000)];

const CROWDS: [usize; 3] = [1, 32, 200];
/// PCs that fetch the initrd.
const FEW: [usize; 2] = [1, 32];
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
    /// Only the initrd of 50 MB
    #[arg(long)]
    only_large: bool,
}

impl Default for Tftp {
    fn default() -> Self {
        Self { program: None, rounds: 3, only_large: false }
    }
}

impl Tftp {
    pub(crate) fn run(&self) -> Result<()> {
        let binary = program(self.program.as_deref())?;
        let n_clients = CROWDS.into_iter().max().unwrap_or_default();
        let mut servers = vec![
            ("bootlace", found(Place::of_bootlace(&binary, &FILES, n_clients)?)?),
            ("dnsmasq", found(Place::of_another(&FILES, n_clients, dnsmasq)?)?),
        ];
        if !self.only_large {
            self.crowds(&servers)?;
            lossy(&servers)?;
        }
        for (name, program, start) in [
            ("tftpd-hpa", "in.tftpd", tftpd_hpa as fn(&Lan, &Path, &Path) -> Result<Daemon>),
            ("atftpd", "atftpd", atftpd),
        ] {
            if lab::require(name, &[Need::Program(program)]) {
                servers.push((name, found(Place::of_another(&FILES, n_clients, start)?)?));
            }
        }
        self.large(&servers)?;
        servers.into_iter().try_for_each(|(_, place)| place.stop())
    }

    fn crowds(&self, servers: &[(&str, Place)]) -> Result<()> {
        println!(
            "PCs that fetch {} bytes each at once: seconds until the last has it, and of all {} rounds time-outs \
             of clients (after 1 s) and blocks that they had already",
            FILES[0].1, self.rounds
        );
        print_head(servers);
        for n in CROWDS {
            for block_size in BLOCK_SIZES {
                for window in WINDOWS {
                    let path = path(FILES[0].0);
                    let fetch = Fetch { block_size, window, ..fetch(&path) };
                    compare(servers, &fetch, n, (FILES[0].1, self.rounds))?;
                }
            }
        }
        Ok(())
    }

    fn large(&self, servers: &[(&str, Place)]) -> Result<()> {
        println!("\nPCs that fetch {} bytes each at once, likewise", FILES[2].1);
        print_head(servers);
        for n in FEW {
            for window in WINDOWS {
                let path = path(FILES[2].0);
                let fetch = Fetch { window, ..fetch(&path) };
                compare(servers, &fetch, n, (FILES[2].1, self.rounds))?;
            }
        }
        Ok(())
    }
}

fn lossy(servers: &[(&str, Place)]) -> Result<()> {
    println!("\none PC that fetches {} bytes, of whose packets 1 % get lost each way", FILES[1].1);
    print_head(servers);
    for window in WINDOWS {
        let path = path(FILES[1].0);
        let patience = LOSSY_PATIENCE;
        let fetch = Fetch { window, patience, lost_per_thousand: 10, ..fetch(&path) };
        // Once: it takes others minutes.
        compare(servers, &fetch, 1, (FILES[1].1, 1))?;
    }
    Ok(())
}

/// As UEFI fetches it, but without windows.
fn fetch(path: &str) -> Fetch<'_> {
    Fetch {
        server: SocketAddrV4::new(SERVER_IP, 69),
        path,
        block_size: 1428,
        window: 1,
        patience: PATIENCE,
        lost_per_thousand: 0,
    }
}

/// A line of the table, of so many clients and rounds.
fn compare(
    servers: &[(&str, Place)],
    fetch: &Fetch<'_>,
    n: usize,
    (n_bytes, rounds): (u64, usize),
) -> Result<()> {
    let mut sums: Vec<Sum> = servers.iter().map(|_| Sum::default()).collect();
    for _ in 0..rounds.max(1) {
        // In turns, so that a busy minute hits both.
        for ((_, place), sum) in servers.iter().zip(&mut sums) {
            sum.add(fetch_from(place, fetch, n)?, n_bytes)?;
        }
    }
    print!("{n:7} {:8} {:7} ", fetch.block_size, fetch.window);
    for sum in &sums {
        print!(" | {sum}");
    }
    println!();
    Ok(())
}

fn print_head(servers: &[(&str, Place)]) {
    print!("{:24}", "");
    servers.iter().for_each(|(name, _)| print!(" | {name:33}"));
    print!("\n{:>7} {:>8} {:>7} ", "clients", "blksize", "window");
    let columns = format!("{:>7} {:>9} {:>7} {:>7}", "seconds", "time-outs", "twice", "share");
    servers.iter().for_each(|_| print!(" | {columns:33}"));
    println!();
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

/// Both find each other once, which no boot waits for that has just got its address.
fn found(place: Place) -> Result<Place> {
    let path = path(FILES[0].0);
    for client in fetch_from(&place, &fetch(&path), place.addresses().len())? {
        client.context("a client gets no file")?;
    }
    Ok(place)
}

fn fetch_from(place: &Place, fetch: &Fetch<'_>, n: usize) -> Result<Vec<io::Result<Fetched>>> {
    let from = &place.addresses()[..n];
    place.client().netns().inside(|| Ok(fetch_all(fetch, from)))
}

/// Serves the files of a folder.
fn dnsmasq(lan: &Lan, files: &Path, log: &Path) -> Result<Daemon> {
    let mut dnsmasq = peers::dnsmasq(lan);
    // It serves 50 at once without this, and the others not at all.
    dnsmasq.args(["--enable-tftp", "--tftp-max=1000"]);
    dnsmasq.arg(format!("--tftp-root={}", files.display()));
    let mut daemon = Daemon::start("dnsmasq", &mut dnsmasq, log)?;
    daemon.wait_for_log("TFTP root is", Duration::from_secs(20))?;
    Ok(daemon)
}

/// Serves the files of a folder; a process for each transfer.
fn tftpd_hpa(lan: &Lan, files: &Path, log: &Path) -> Result<Daemon> {
    let mut tftpd = lan.netns().command("in.tftpd", Signal::SIGKILL);
    // What it serves is root's only.
    tftpd.args(["--listen", "--foreground", "--user", "root", "--secure"]).arg(files);
    Daemon::start_detached("in.tftpd", &mut tftpd, log)
}

/// Serves the files of a folder; a thread for each transfer.
fn atftpd(lan: &Lan, files: &Path, log: &Path) -> Result<Daemon> {
    let mut atftpd = lan.netns().command("atftpd", Signal::SIGKILL);
    atftpd.args(["--daemon", "--no-fork", "--user", "root.root", "--maxthread", "1000"]);
    atftpd.args(["--logfile", "-"]).arg(files);
    Daemon::start_detached("atftpd", &mut atftpd, log)
}
