//! Every attack that the threat model names, one after the other, while machines boot and one machine works.
//!
//! Each has a site of its own, with `bootlace up` in a network namespace. The attacker is a process of its own in another
//! one, with the lowest priority and so many requests a second, so that what is measured is what the servers do and not who
//! gets the processor.

mod attack;
mod attacker;
mod honest;
mod pace;
mod scene;
mod working;

pub(crate) use attacker::Attacker;

use crate::{build, say};
use anyhow::{Result, ensure};
use attack::Attack;
use clap::{Args, ValueEnum as _};
use scene::{Measured, Template};
use std::time::Duration;

/// What the boot server takes at most, in each attack.
const BOOT_SERVER_BYTES_MAX: u64 = 128 << 20;

/// What the storage server takes at most, in each attack.
const STORAGE_SERVER_BYTES_MAX: u64 = 128 << 20;

/// How many times longer than usual a boot may take.
const SLOWDOWN_MAX: u32 = 3;

#[derive(Args)]
pub(crate) struct Matrix {
    /// Only these attacks
    #[arg(value_enum)]
    attacks: Vec<Attack>,
    /// Boot a PC in QEMU in each attack, too
    #[arg(long)]
    pc: bool,
}

impl Matrix {
    pub(crate) fn run(self) -> Result<()> {
        crate::setup()?;
        let binary = build::run()?;
        let template = Template::make(&binary)?;
        let usual_pc = self.pc.then(|| template.usual_pc()).transpose()?;
        let attacks = match self.attacks[..] {
            [] => Attack::value_variants(),
            ref named => named,
        };
        let (mut rows, mut wrong) = (Vec::new(), Vec::new());
        for &attack in attacks {
            say(&format!("{}: {}", attack.name(), attack.load()));
            match template.scene(attack).and_then(|scene| scene.run(self.pc)) {
                Ok(measured) => {
                    wrong.extend(faults(attack, &measured, usual_pc));
                    let row = row(attack, &measured, usual_pc);
                    say(&row);
                    rows.push(row);
                }
                Err(error) => wrong.push(format!("{}: {error:#}", attack.name())),
            }
        }
        println!("{HEAD}\n{}", rows.join("\n"));
        ensure!(wrong.is_empty(), "not as it should be:\n{}", wrong.join("\n"));
        Ok(())
    }
}

const HEAD: &str = "| attack | load | boot server | storage server | a boot before | meanwhile | longest write of a \
                    machine that runs | found |\n|---|---|---|---|---|---|---|---|";

fn row(attack: Attack, measured: &Measured, usual_pc: Option<Duration>) -> String {
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    let compared = |time, usual| format!("{} ({:.1} x)", seconds(time), times(time, usual));
    let pc = match measured.pc.zip(usual_pc) {
        Some((pc, usual)) => format!(", a PC {}", compared(pc, usual)),
        None => String::new(),
    };
    format!(
        "| {} | {} | {} MiB | {} MiB | {} | {}{pc} | {} | {} |",
        attack.name(),
        attack.load(),
        measured.boot_server_bytes >> 20,
        measured.storage_server_bytes >> 20,
        seconds(measured.usual_boot),
        compared(measured.boot, measured.usual_boot),
        seconds(measured.longest_write),
        measured.found.join(", "),
    )
}

fn times(time: Duration, usual: Duration) -> f64 {
    time.as_secs_f64() / usual.as_secs_f64()
}

/// What is not as it should be.
fn faults(attack: Attack, measured: &Measured, usual_pc: Option<Duration>) -> Vec<String> {
    let mut faults = Vec::new();
    let memory = [
        ("boot", measured.boot_server_bytes, BOOT_SERVER_BYTES_MAX),
        ("storage", measured.storage_server_bytes, STORAGE_SERVER_BYTES_MAX),
    ];
    for (server, bytes, bytes_max) in memory {
        if bytes > bytes_max {
            let (mib, mib_max) = (bytes >> 20, bytes_max >> 20);
            faults.push(format!("the {server} server took {mib} MiB; its bound is {mib_max} MiB"));
        }
    }
    let boots = [Some((measured.boot, measured.usual_boot)), measured.pc.zip(usual_pc)];
    for times in boots.into_iter().flatten().map(|(time, usual)| times(time, usual)) {
        if times > f64::from(SLOWDOWN_MAX) {
            faults.push(format!("a boot took {times:.1} times its usual time"));
        }
    }
    if measured.n_taken > 0 {
        let count = measured.n_taken;
        faults.push(format!("the attacker got what is not for him, {count} times"));
    }
    let is_found = |kind: &&&str| measured.found.iter().any(|found| found == **kind);
    let missing = attack.findings().iter().filter(|kind| !is_found(kind));
    faults.extend(missing.map(|kind| format!("nobody is told: there is no finding {kind:?}")));
    faults.into_iter().map(|fault| format!("{}: {fault}", attack.name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(mib: u64, seconds: u64) -> Measured {
        Measured {
            boot_server_bytes: mib << 20,
            storage_server_bytes: mib << 20,
            usual_boot: Duration::from_secs(2),
            boot: Duration::from_secs(seconds),
            pc: None,
            longest_write: Duration::ZERO,
            found: Vec::new(),
            n_taken: 0,
        }
    }

    #[test]
    fn what_is_beyond_a_bound_is_a_fault() {
        // One of which nobody needs to be told.
        let attack = Attack::HostSegments;
        let faults_of =
            |measured: Measured| faults(attack, &measured, Some(Duration::from_secs(9)));
        let is_one = |measured, text: &str| {
            let faults = faults_of(measured);
            assert!(faults.len() == 1 && faults[0].contains(text), "{faults:?}");
        };
        let mib_max = STORAGE_SERVER_BYTES_MAX >> 20;
        assert_eq!(faults_of(measured(mib_max, 6)), Vec::<String>::new());
        is_one(measured(mib_max, 7), "a boot took 3.5 times its usual time");
        let pc = Some(Duration::from_secs(36));
        is_one(Measured { pc, ..measured(30, 2) }, "a boot took 4.0 times its usual time");
        is_one(Measured { n_taken: 1, ..measured(30, 2) }, "not for him, 1 times");
        let storage_server_bytes = STORAGE_SERVER_BYTES_MAX + 1;
        is_one(Measured { storage_server_bytes, ..measured(30, 2) }, "the storage server took");
        let faults = faults(Attack::HttpHalfOpen, &measured(30, 2), None);
        assert!(faults.len() == 1 && faults[0].contains("\"asks-too-much\""), "{faults:?}");
    }
}
