//! A site with its servers, a machine that runs, and an attacker.

use super::attack::{Attack, Facts, Place, Rogue};
use super::honest::{BEFORE, MEANWHILE, PCS, boot_all, boot_pc};
use super::working::Working;
use crate::booted::{Named, load};
use crate::say;
use anyhow::{Context, Result, ensure};
use lab::{Client, Daemon, Lan, Preboot, Recipe, Site, run, text_of};
use std::collections::BTreeSet;
use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// The machine that runs.
const WORKING: Named = Named { machine: "working", mac: "52:54:00:00:00:07" };

/// Machines whose users are the attackers.
const ROGUES: [Named; 8] = [
    Named { machine: "rogue-1", mac: "52:54:00:00:01:01" },
    Named { machine: "rogue-2", mac: "52:54:00:00:01:02" },
    Named { machine: "rogue-3", mac: "52:54:00:00:01:03" },
    Named { machine: "rogue-4", mac: "52:54:00:00:01:04" },
    Named { machine: "rogue-5", mac: "52:54:00:00:01:05" },
    Named { machine: "rogue-6", mac: "52:54:00:00:01:06" },
    Named { machine: "rogue-7", mac: "52:54:00:00:01:07" },
    Named { machine: "rogue-8", mac: "52:54:00:00:01:08" },
];

const ATTACKER_MAC: &str = "52:54:00:00:00:66";

/// What the attacker's host takes beside its own address. The pool is elsewhere.
const NETWORKS: [&str; 4] = ["10.77.0.32/27", "10.77.0.64/27", "10.77.0.208/28", "10.77.0.224/28"];

/// All addresses of these.
pub(super) fn addresses() -> Vec<Ipv4Addr> {
    (32..96).chain(208..240).map(|host| Ipv4Addr::new(10, 77, 0, host)).collect()
}

/// The attack goes on for so long before others boot: each has reached what it goes up to by then.
const AHEAD: Duration = Duration::from_secs(11);

/// A user without rights.
const NOBODY: &str = "65534";

/// What was seen in one attack.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// The most that the boot server took (`VmHWM`).
    pub(super) boot_server_bytes: u64,
    /// The most that the storage server took.
    pub(super) storage_server_bytes: u64,
    /// How long machines need until they are up; the median of three.
    pub(super) usual_boot: Duration,
    /// Meanwhile.
    pub(super) boot: Duration,
    /// Meanwhile, a PC in QEMU from power-on.
    pub(super) pc: Option<Duration>,
    /// Of the machine that runs, until it was on the disk.
    pub(super) longest_write: Duration,
    /// Kinds of findings.
    pub(super) found: Vec<String>,
    /// How often the attacker got what is not for him.
    pub(super) n_taken: u64,
}

/// A site from which each attack gets a copy.
pub(super) struct Template {
    site: Site,
    binary: PathBuf,
}

impl Template {
    /// Imports an image and adds machines.
    pub(super) fn make(binary: &Path) -> Result<Self> {
        let image = Recipe::BUSYBOX.image(say)?;
        let site = new_site("template", binary)?;
        site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
        for Named { machine, mac } in
            [WORKING].iter().chain(&PCS).chain(&BEFORE).chain(&MEANWHILE).chain(&ROGUES)
        {
            site.run(&["machine", "set", machine, "--mac", mac, "--image", "debian"])?;
        }
        Ok(Self { site, binary: binary.to_owned() })
    }

    /// How long a PC in QEMU needs.
    pub(super) fn usual_pc(&self) -> Result<Duration> {
        let servers = self.site.up()?;
        let time = boot_pc(&self.site, PCS[0])?;
        servers.stop()?;
        Ok(time)
    }

    /// A new site like this one.
    pub(super) fn scene(&self, attack: Attack) -> Result<Scene> {
        let folder = tempfile::Builder::new().prefix("bootlace-matrix-").tempdir()?;
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let binary = match attack.descriptors_max() {
            Some(few) => with_descriptors(&self.binary, few, folder.path())?,
            None => self.binary.clone(),
        };
        let site = new_site("matrix", &binary)?;
        let mut copy = Command::new("cp");
        copy.args(["-a", "--sparse=always", "--reflink=auto"]);
        run(copy.arg(self.site.root().join("var")).arg(site.root()))?;
        let servers = site.up()?;
        let attacker = site.lan().add_client("attacker", ATTACKER_MAC)?;
        attacker.netns().ip("addr add 10.77.0.50/24 dev eth0")?;
        for network in NETWORKS {
            attacker.netns().ip(&format!("route add local {network} dev lo"))?;
        }
        Ok(Scene { servers, attacker, site, folder, attack })
    }
}

fn new_site(name: &str, binary: &Path) -> Result<Site> {
    Site::builder().boot("fitted_initrds = false").binary(binary).create(Lan::lay(name)?)
}

/// A program like `binary` that may have no more descriptors than this.
fn with_descriptors(binary: &Path, few: u64, folder: &Path) -> Result<PathBuf> {
    let program = folder.join("bootlace");
    let binary = binary.display();
    let script = format!("#!/bin/sh\nulimit -n {few}\nexec {binary} \"$@\"\n");
    std::fs::write(&program, script)?;
    std::fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    Ok(program)
}

/// Fields are dropped in this order.
pub(super) struct Scene {
    servers: Daemon,
    attacker: Client,
    site: Site,
    folder: TempDir,
    attack: Attack,
}

impl Scene {
    /// Lets a machine run and others boot, attacks, lets others boot again, and looks what came of it.
    pub(super) fn run(self, with_pc: bool) -> Result<Measured> {
        let working = Working::start(&self.site, WORKING)?;
        let usual_boot = boot_all(&self.site, &BEFORE).context("before the attack")?;
        let usual = self.findings()?;
        let attacker = self.start(&working)?;
        std::thread::sleep(AHEAD);
        let boot = boot_all(&self.site, &MEANWHILE);
        let pc = with_pc.then(|| boot_pc(&self.site, PCS[1])).transpose();
        let n_taken = end(attacker)?;
        let log = || format!("the log:\n{}", self.servers.log());
        let (boot, pc) = (boot.with_context(log)?, pc.with_context(log)?);
        let found = self.findings()?.difference(&usual).cloned().collect();
        let view = self.site.browser().json("/api/v1/machines/working")?;
        ensure!(
            view["state"]["word"] == "up",
            "the machine that runs is said to be {}",
            view["state"]
        );
        let longest_write = working.end()?;
        let boot_server = self.servers.id();
        let storage_server = child_of(boot_server)?;
        let measured = Measured {
            boot_server_bytes: memory(boot_server)?,
            storage_server_bytes: memory(storage_server)?,
            usual_boot,
            boot,
            pc,
            longest_write,
            found,
            n_taken,
        };
        drop(self.attacker);
        self.servers.stop()?;
        Ok(measured)
    }

    /// Starts the attacker's process.
    fn start(&self, working: &Working) -> Result<Child> {
        let attack = self.attack;
        let rogues = match attack.wants_rogues() {
            true => ROGUES.iter().map(|named| self.rogue(*named)).collect::<Result<_>>()?,
            false => Vec::new(),
        };
        let facts = Facts {
            machine: WORKING.machine.to_owned(),
            mac: working.booted.mac,
            address: working.address,
            boot: working.booted.boot,
            disk_name: working.heard.0.clone(),
            said: working.heard.1.clone(),
            rogues,
        };
        let file = self.folder.path().join("facts");
        std::fs::write(&file, facts.to_json().to_string())?;
        let program = std::env::current_exe()?;
        let mut command = match attack.place() {
            Place::Elsewhere => self.attacker.command("nice"),
            Place::Machine => {
                let mut command = working.preboot.client().command("setpriv");
                command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "nice"]);
                command
            }
        };
        command.args(["-n", "19"]).arg(program).arg("matrix-attacker").arg(attack.name()).arg(file);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().context("can't start the attacker")
    }

    fn rogue(&self, named: Named) -> Result<Rogue> {
        let preboot = Preboot::start(&self.site, named.mac)?;
        Ok(load(&preboot, named)?.into())
    }

    /// Kinds of all findings.
    fn findings(&self) -> Result<BTreeSet<String>> {
        let answer = self.site.browser().json("/api/v1/findings")?;
        let findings = answer["findings"].as_array().context("no list of findings")?;
        Ok(findings.iter().filter_map(|it| Some(it["kind"].as_str()?.to_owned())).collect())
    }
}

/// Ends the attacker. Says what it did, and returns how often it got what is not for it.
fn end(mut attacker: Child) -> Result<u64> {
    drop(attacker.stdin.take());
    let output = attacker.wait_with_output()?;
    ensure!(output.status.success(), "the attacker failed ({})", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [n_tries, n_taken] = numbers[..] else { anyhow::bail!("the attacker says {text:?}") };
    say(&format!("{n_tries} tries, {n_taken} with success"));
    ensure!(n_tries > 0, "the attacker did nothing");
    Ok(n_taken)
}

/// The storage server, which the boot server has started.
fn child_of(parent: u32) -> Result<u32> {
    let children = text_of(Command::new("pgrep").args(["-P", &parent.to_string()]))?;
    children.lines().next().and_then(|line| line.parse().ok()).context("no storage server")
}

/// The most that a process ever took.
fn memory(id: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmHWM")?;
    Ok(kib.trim().parse::<u64>()? << 10)
}
