//! How long PCs take that fetch a boot file by HTTP at once, beside nginx, and what the server works for it.

use super::boot_files::{Place, path};
use super::processes::cpu_seconds;
use super::{median_figure, program};
use crate::booted::SERVER_IP;
use anyhow::{Context, Result, ensure};
use clap::Args;
use fakeclient::crowd::{Crowd, Drip};
use fakeclient::http_crowd::{Fetched, fetch_all};
use lab::{Daemon, Lan};
use nix::sys::signal::Signal;
use std::io;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file.
const FILES: [(&str, u64); 1] = [("large", 50_000_000)];

const CROWDS: [usize; 2] = [1, 64];

/// Connections of one host.
const IDLERS: usize = 1000;

/// nginx lets those go after a minute whom it lets go.
const DRIP_MAX: Duration = Duration::from_secs(90);

/// A single PC is done so soon that it comes so often in a round.
const TIMES_ALONE: usize = 10;

#[derive(Args)]
pub(crate) struct Http {
    /// The program to measure, in place of the one that this tree makes
    #[arg(long)]
    program: Option<PathBuf>,
    /// How often crowds start; the medians are told
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

impl Default for Http {
    fn default() -> Self {
        Self { program: None, rounds: 7 }
    }
}

/// One round of a crowd.
#[derive(Clone, Copy)]
struct Round {
    /// Of all PCs together.
    megabytes_per_second: f64,
    cpu_ms_per_gigabyte: f64,
}

impl Http {
    pub(crate) fn run(&self) -> Result<()> {
        let binary = program(self.program.as_deref())?;
        let n_clients = CROWDS.into_iter().max().unwrap_or_default();
        let ours = Place::of_bootlace(&binary, &FILES, n_clients)?;
        let theirs = Place::of_another(&FILES, n_clients, nginx)?;
        let digests = [&ours, &theirs].map(|place| {
            let all = fetch(place, n_clients, true)?;
            let digests: Result<Vec<u64>, io::Error> =
                all.into_iter().map(|got| got.map(|got| got.digest)).collect();
            digests.context("a client gets no file")
        });
        let [own, other] = digests;
        ensure!(own? == other?, "clients got other bytes");
        println!(
            "PCs that fetch {} bytes each at once by HTTP; medians of {} rounds",
            FILES[0].1, self.rounds
        );
        println!(
            "{:>7} | {:>26} | {:>26} | {:>7}",
            "clients", "bootlace: MB/s, CPU ms/GB", "nginx: MB/s, CPU ms/GB", "speed"
        );
        for n in CROWDS {
            let mut rounds = [Vec::new(), Vec::new()];
            for _ in 0..self.rounds.max(1) {
                // In turns, so that a busy minute hits both.
                for (place, rounds) in [&ours, &theirs].into_iter().zip(&mut rounds) {
                    rounds.push(measure(place, n)?);
                }
            }
            let middle =
                |rounds: &[Round], of: fn(&Round) -> f64| median_figure(rounds.iter().map(of));
            let speeds = rounds.each_ref().map(|all| middle(all, |it| it.megabytes_per_second));
            let works = rounds.each_ref().map(|all| middle(all, |it| it.cpu_ms_per_gigabyte));
            println!(
                "{n:7} | {:12.0} {:13.0} | {:12.0} {:13.0} | {:5.0} %",
                speeds[0],
                works[0],
                speeds[1],
                works[1],
                100.0 * speeds[0] / speeds[1]
            );
        }
        println!(
            "\none host with {IDLERS} connections that asks for it and reads nothing; another one fetches it then"
        );
        for (name, place) in [("bootlace", &ours), ("nginx", &theirs)] {
            println!("{name:>9} | {}", beside_idlers(place)?);
        }
        println!(
            "\na client that sends its request, or takes the file, byte by byte; for {} s at most",
            DRIP_MAX.as_secs()
        );
        for (name, place) in [("bootlace", &ours), ("nginx", &theirs)] {
            println!("{name:>9} | {}", dripping(place)?);
        }
        ours.stop()?;
        theirs.stop()
    }
}

/// What becomes of another client.
fn beside_idlers(place: &Place) -> Result<String> {
    let server = SocketAddrV4::new(SERVER_IP, 80);
    let request = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", path(FILES[0].0));
    let idler = [*place.addresses().last().context("nobody is there")?];
    let crowd =
        place.client().netns().inside(|| Ok(Crowd::open(server, &idler, IDLERS, &request)?))?;
    let got = fetch(place, 1, false)?.remove(0);
    let alive = crowd.alive()?;
    let got = match got {
        Ok(got) => format!("it has it after {:.2} s", got.took.as_secs_f64()),
        Err(error) => format!("it gets nothing: {error}"),
    };
    Ok(format!("{got}; {alive} of the {IDLERS} are there"))
}

/// How long such a client may stay.
fn dripping(place: &Place) -> Result<String> {
    let server = SocketAddrV4::new(SERVER_IP, 80);
    let from = place.addresses()[0];
    let path = format!("/{}", path(FILES[0].0));
    let both = place.client().netns().inside(|| {
        let (asks, reads) = (Drip::open(server, from)?, Drip::open(server, from)?);
        std::thread::scope(|scope| {
            let asks = scope.spawn(move || asks.asks(DRIP_MAX));
            let reads = reads.reads(&path, DRIP_MAX);
            Ok([asks.join().unwrap_or_default(), reads])
        })
    })?;
    let [asks, reads] = both.map(|ended| {
        ended.map_or("stays".to_owned(), |it| format!("is let go after {:.0} s", it.as_secs_f64()))
    });
    Ok(format!("who asks so {asks}, who takes so {reads}"))
}

fn measure(place: &Place, n: usize) -> Result<Round> {
    let times = if n == 1 { TIMES_ALONE } else { 1 };
    let before = cpu_seconds(place.server());
    let mut took = Duration::ZERO;
    for _ in 0..times {
        let mut last = Duration::ZERO;
        for got in fetch(place, n, false)? {
            let got = got.context("a client gets no file")?;
            ensure!(got.n_bytes == FILES[0].1, "a client got {} bytes", got.n_bytes);
            last = last.max(got.took);
        }
        took += last;
    }
    let gigabytes = (times * n) as f64 * FILES[0].1 as f64 / 1e9;
    Ok(Round {
        megabytes_per_second: gigabytes * 1e3 / took.as_secs_f64(),
        cpu_ms_per_gigabyte: (cpu_seconds(place.server()) - before) * 1e3 / gigabytes,
    })
}

fn fetch(place: &Place, n: usize, wants_digest: bool) -> Result<Vec<io::Result<Fetched>>> {
    let (from, path) = (&place.addresses()[..n], format!("/{}", path(FILES[0].0)));
    let server = SocketAddrV4::new(SERVER_IP, 80);
    place.client().netns().inside(|| Ok(fetch_all(server, &path, from, wants_digest)))
}

/// Serves the files of a folder as Debian's package is set up: a worker for each processor, and sendfile.
fn nginx(lan: &Lan, files: &Path, log: &Path) -> Result<Daemon> {
    let folder = log.parent().context("the log is in no folder")?;
    let config = folder.join("nginx.conf");
    let text = format!(
        "daemon off;\nuser root;\nworker_processes auto;\npid {pid};\nerror_log stderr;\n\
         events {{ worker_connections 768; }}\n\
         http {{\n  sendfile on;\n  tcp_nopush on;\n  access_log off;\n  default_type application/octet-stream;\n  \
         server {{ listen 80; root {root}; }}\n}}\n",
        pid = folder.join("pid").display(),
        root = files.display()
    );
    std::fs::write(&config, text)?;
    let mut nginx = lan.netns().command("nginx", Signal::SIGKILL);
    nginx.arg("-c").arg(&config).arg("-p").arg(folder).args(["-e", "stderr"]);
    let mut daemon = Daemon::start_detached("nginx", &mut nginx, log)?;
    let pid = folder.join("pid");
    daemon.wait_until("start", Duration::from_secs(20), |_| {
        std::fs::read_to_string(&pid).is_ok_and(|pid| !pid.trim().is_empty())
    })?;
    Ok(daemon)
}
