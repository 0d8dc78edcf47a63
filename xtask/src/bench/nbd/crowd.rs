//! Many clients at once: what one that takes all it can get leaves to the others, and what idle ones cost.

use super::servers::{Ground, Kind, Server};
use super::{fio, job};
use anyhow::{Context, Result};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Beside the greedy one.
const MODEST_CLIENTS: u32 = 29;

const IDLE_CLIENTS: u32 = 200;

/// What the greedy one may cost the others, as a share of their latency when they are alone.
const SLOWER_MAX: f64 = 3.0;

/// Memory of the server with all idle clients.
const IDLE_MB_MAX: f64 = 40.0;

/// Prints both for bootlace and nbdkit.
pub(super) fn measure(ground: &Ground, seconds: u32) -> Result<()> {
    println!(
        "\n{MODEST_CLIENTS} clients with 50 reads of 4 KiB a second each, 99 % of which are done within \
         (wanted beside a greedy one: {SLOWER_MAX:.2} times that)"
    );
    for kind in [Kind::Bootlace, Kind::Nbdkit] {
        let alone = modest(ground, &Server::start(ground, kind, false)?, seconds)?;
        for rw in ["randread", "randwrite"] {
            let server = Server::start(ground, kind, false)?;
            let greedy = Fio(greedy(ground, &server, rw).spawn().context("can't start fio")?);
            std::thread::sleep(Duration::from_millis(500));
            let beside = modest(ground, &server, seconds)?;
            drop(greedy);
            println!(
                "  {:12} {alone:>6.0} us alone, {beside:>6.0} us beside {rw} ({:.2})",
                kind.name(),
                beside / alone
            );
        }
    }
    println!("\n{IDLE_CLIENTS} idle clients (wanted: {IDLE_MB_MAX:.0} MB)");
    for kind in [Kind::Bootlace, Kind::Nbdkit] {
        let server = Server::start(ground, kind, false)?;
        let none = server.resident_mb()?;
        let mut idle = fio(ground, &server, &["fio"], ("randread", "4k", 1), IDLE_CLIENTS);
        idle.args(["--rate_iops=1", "--runtime=30"]);
        let idle = Fio(idle.stdout(Stdio::null()).spawn().context("can't start fio")?);
        std::thread::sleep(Duration::from_secs(4));
        println!("  {:12} {:>6.1} MB, {none:.1} MB without", kind.name(), server.resident_mb()?);
        drop(idle);
    }
    Ok(())
}

/// Ends with its value.
struct Fio(Child);

impl Drop for Fio {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As much as Linux has in flight at once, without an end.
fn greedy(ground: &Ground, server: &Server, rw: &str) -> Command {
    // What the client itself does is done on another machine in truth, and hinders nobody here.
    let mut greedy = fio(ground, server, &["nice", "-n", "19", "fio"], (rw, "128k", 128), 1);
    greedy.arg("--runtime=600").stdout(Stdio::null());
    greedy
}

/// Microseconds within which 99 % of the requests of modest clients are done.
fn modest(ground: &Ground, server: &Server, seconds: u32) -> Result<f64> {
    let mut modest = fio(ground, server, &["fio"], ("randread", "4k", 1), MODEST_CLIENTS);
    modest.arg("--rate_iops=50").arg(format!("--runtime={seconds}"));
    let said = lab::text_of(&mut modest)?;
    let slow = job(&said)?["read"]["clat_ns"]["percentile"]["99.000000"].as_f64();
    Ok(slow.with_context(|| format!("fio said: {said}"))? / 1e3)
}
