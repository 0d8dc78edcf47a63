//! How long PCs take that fetch a boot file by TFTP at once, and what they are sent twice, beside dnsmasq.

use super::boot_files::{Place, path};
use super::{median_figure, peers, program};
use crate::booted::SERVER_IP;
use anyhow::{Context, Result, ensure};
use clap::Args;
use fakeclient::tftp_crowd::{Fetch, Fetched, fetch_all};
use lab::{Daemon, Lan};
use std::io;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
        let ours = found(Place::of_bootlace(&binary, &FILES, n_clients)?)?;
        let theirs = found(Place::of_another(&FILES, n_clients, dnsmasq)?)?;
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

/// Both find each other once, which no boot waits for that has just got its address.
fn found(place: Place) -> Result<Place> {
    let path = path(FILES[0].0);
    let fetch = Fetch {
        server: SocketAddrV4::new(SERVER_IP, 69),
        path: &path,
        block_size: 1428,
        window: 1,
        patience: PATIENCE,
        lost_per_thousand: 0,
    };
    for client in fetch_from(&place, &fetch, place.addresses().len())? {
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
