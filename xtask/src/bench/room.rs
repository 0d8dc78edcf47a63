//! How long a room of PCs waits that is switched on at once, with a disk that is slow to sync.

use super::median;
use crate::{build, say};
use anyhow::{Context, Result, ensure};
use clap::Args;
use fakeclient::room::{Placed, Room, report};
use initcfg::Stage;
use lab::{Lan, Site};
use std::collections::HashMap;
use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use wire::Mac;

const SLOW_SYNC: &str = include_str!("slow_sync.c");

/// As many as the pool of the lab has addresses.
const PCS: u8 = 100;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// What is reported; the first makes the server know the PCs' hardware addresses, and is not counted. Later stages are
/// heard only with a proof.
const STAGES: [Stage; 4] = [Stage::Start, Stage::Modules, Stage::Link, Stage::Address];

#[derive(Args)]
pub(crate) struct RoomBench {
    /// How much longer each sync of the disk takes, in milliseconds
    #[arg(long, default_value_t = 12)]
    sync_ms: u64,
    /// How often the room is switched on
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

impl Default for RoomBench {
    fn default() -> Self {
        Self { sync_ms: 12, rounds: 3 }
    }
}

/// How long the last of the room waited, in one round.
struct Waited {
    /// For its address.
    answers: Duration,
    /// For the acknowledgement of a stage; the median of the stages.
    reports: Duration,
}

impl RoomBench {
    pub(crate) fn run(&self) -> Result<()> {
        let binary = build::run_release()?;
        let folder = tempfile::tempdir()?;
        let slow = slowed(&binary, folder.path(), self.sync_ms)?;
        let mut rounds = Vec::new();
        for round in 1..=self.rounds.max(1) {
            say(&format!(
                "round {round} of {}: {PCS} PCs, {} ms a sync",
                self.rounds, self.sync_ms
            ));
            rounds.push(switch_on(&slow)?);
        }
        let ms = |of: fn(&Waited) -> Duration| {
            let all: Vec<Duration> = rounds.iter().map(of).collect();
            median(&all).unwrap_or_default().as_secs_f64() * 1e3
        };
        let (answers, reports) = (ms(|round| round.answers), ms(|round| round.reports));
        println!(
            "{PCS} PCs at once, {} ms more for each sync of the disk; until the last:",
            self.sync_ms
        );
        println!("  DHCP answer       {answers:7.0} ms");
        println!("  stage report      {reports:7.0} ms   {:.2} x", reports / answers);
        Ok(())
    }
}

/// A program like `binary` whose syncs take longer.
fn slowed(binary: &Path, folder: &Path, sync_ms: u64) -> Result<PathBuf> {
    let (source, library) = (folder.join("slow_sync.c"), folder.join("slow_sync.so"));
    std::fs::write(&source, SLOW_SYNC)?;
    let mut compile = Command::new("cc");
    compile.args(["-O2", "-shared", "-fPIC", "-o"]).args([&library, &source]);
    ensure!(compile.status()?.success(), "cc can't compile slow_sync.c");
    let script = format!(
        "#!/bin/sh\nexport LD_PRELOAD={} SLOW_SYNC_MS={sync_ms}\nexec {} \"$@\"\n",
        library.display(),
        binary.display()
    );
    let program = folder.join("bootlace");
    std::fs::write(&program, script)?;
    std::fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    Ok(program)
}

fn switch_on(binary: &Path) -> Result<Waited> {
    let site = Site::builder().binary(binary).create(Lan::lay("room")?)?;
    let servers = site.up()?;
    let macs: Vec<Mac> = (0..PCS).map(|n| Mac([0x52, 0x54, 0, 0, 1, n])).collect();
    for (n, mac) in macs.iter().enumerate() {
        site.run(&["machine", "set", &format!("pc-{n}"), "--mac", &mac.to_string()])?;
    }
    let client = site.lan().add_client("room", "52:54:00:00:02:01")?;
    let (placed, answers) = client.netns().inside(|| {
        let room = Room::open("eth0", macs.clone())?;
        let placed = room.discover()?;
        let answers = room.request(&placed)?;
        Ok((placed, answers))
    })?;
    for pc in &placed {
        client.netns().ip(&format!("address add {}/24 dev eth0", pc.address))?;
    }
    let machines = with_boots(&site, &placed)?;
    let mut reports = Vec::new();
    for (sequence, stage) in (1..).zip(STAGES) {
        reports.push(client.netns().inside(|| Ok(report(SERVER, &machines, stage, sequence)?))?);
    }
    servers.stop()?;
    let reports = median(&reports[1..]).context("no stage was reported")?;
    Ok(Waited { answers, reports })
}

/// The boot that each PC is in.
fn with_boots(site: &Site, placed: &[Placed]) -> Result<Vec<(Placed, u64)>> {
    let answer = site.browser().json("/api/v1/machines")?;
    let machines = answer.as_array().context("the API lists no machines")?;
    let boots: HashMap<&str, u64> = machines
        .iter()
        .filter_map(|machine| Some((machine["mac"].as_str()?, machine["boot"]["id"].as_u64()?)))
        .collect();
    let boot = |pc: &Placed| {
        let boot = boots.get(pc.mac.to_string().as_str()).copied();
        Ok((*pc, boot.with_context(|| format!("{} has no boot", pc.mac))?))
    };
    placed.iter().map(boot).collect()
}
