//! `bootlace try`

use super::{WrongUsage, note, say};
use crate::paths::Paths;
use crate::site::{Refused, Site};
use crate::trial;
use crate::trial::pc::{Firmware, Parts, Pc};
use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use model::{ImageChoice, MachineName};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A system that is not up after so long hangs, also where QEMU plays the processor.
const UP_WITHIN: Duration = Duration::from_secs(900);

/// How often it is looked how far the PC is.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How often its page gets another picture of its screen.
const PICTURE_INTERVAL: Duration = Duration::from_secs(2);

const NAME: &str = trial::TRY_MACHINE;

/// Boot a PC in software from this server, in this terminal
///
/// It needs no network, no KVM and no PC: QEMU plays one on this host, which gets its address, loader, kernel and disk from the
/// boot server that runs, in a network of its own. What it writes is discarded. The boot server forgets it when it ends.
///
/// The terminal is its serial port; Ctrl-A X switches it off. Needs root and Debian's packages qemu-system-x86 and ipxe-qemu; for
/// UEFI ovmf, too.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Try {
    /// Image to boot; default: what machines of no room boot, or the only one
    image: Option<ImageChoice>,
    /// Boot what this machine boots, with its menu, its kernel parameters and its room's
    #[arg(long, value_name = "MACHINE", conflicts_with = "image")]
    like: Option<MachineName>,
    /// Its firmware; default: bios
    #[arg(long)]
    firmware: Option<Kind>,
    /// With UEFI, Secure Boot and Microsoft's keys, as PCs are sold
    #[arg(long)]
    secure_boot: bool,
    /// Its memory in MiB
    #[arg(long, default_value_t = 1024, value_name = "MIB", value_parser = clap::value_parser!(u32).range(256..=65536))]
    memory: u32,
    /// Its processors
    #[arg(long, default_value_t = 2, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// Have QEMU play its processor, too: slower, and works on virtual hosts whose KVM does not
    #[arg(long)]
    no_kvm: bool,
    /// Switch it off when its system is up; ends with 1 if its boot fails
    #[arg(long)]
    until_up: bool,
    /// Keep what its screen showed last in this file, as PNG
    #[arg(long, value_name = "FILE")]
    screen: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// PC BIOS
    Bios,
    /// 64-bit UEFI
    Uefi,
}

impl Try {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let firmware = match (self.firmware, self.secure_boot) {
            (None | Some(Kind::Bios), false) => Firmware::Bios,
            (Some(Kind::Uefi), false) => Firmware::Uefi,
            (None | Some(Kind::Uefi), true) => Firmware::UefiSecureBoot,
            (Some(Kind::Bios), true) => {
                let text = "a PC BIOS has no Secure Boot: leave --firmware bios out";
                return Err(WrongUsage(text.to_owned()).into());
            }
        };
        if !nix::unistd::geteuid().is_root() {
            bail!("only root can make the network for it: run it with sudo");
        }
        let stream = crate::site::connect(paths)?
            .context("no boot server runs here: start it, then try again")?;
        let site = Site::of_server(paths, stream)?;
        trial::check(&site)?;
        let machine = self.machine(&site)?;
        let parts = Parts {
            mac: trial::mac(0),
            firmware,
            memory_mib: self.memory,
            n_cpus: self.cpus,
            with_kvm: !self.no_kvm,
        };
        let wants_end = Arc::new(AtomicBool::new(false));
        let _signals = hear_signals(&wants_end)?;
        let mut pc = Pc::plug_in(&parts)?;
        trial::wait_until_served(&site)?;
        trial::add_machine(&site, NAME, &machine)?;
        note(format!("{NAME} is switched on; Ctrl-A X switches it off"));
        pc.switch_on()?;
        let mut view = Value::Null;
        let told = self.watch(&site, &mut pc, &wants_end, &mut view);
        drop(pc);
        let _ = std::io::stdout().write_all(b"\n");
        trial::wait_until_forgotten(&site, NAME)?;
        for line in time_line(&view) {
            say(line);
        }
        told
    }

    /// What it boots.
    fn machine(&self, site: &Site) -> anyhow::Result<Value> {
        let mut machine = json!({
            "mac": trial::mac(0), "root": "nbd", "write_mode": "discard",
            "kernel_args": "console=tty0 console=ttyS0,115200",
        });
        let image = match (&self.image, &self.like) {
            (Some(image), _) => Some(image.to_string()),
            (None, Some(name)) => {
                let like: Value = site.get(&format!("/api/v1/machines/{name}"))?;
                let args = like["kernel_args"].as_str().unwrap_or_default();
                machine["kernel_args"] = format!("{args} console=tty0 console=ttyS0,115200").into();
                for same in ["room", "menu", "next_boot"] {
                    machine[same] = like[same].clone();
                }
                if like["root_url"].is_string() {
                    bail!(
                        "{name} has its root on another server, which is not tried: name its image instead"
                    );
                }
                let image = like["image"].as_str();
                Some(image.with_context(|| format!("{name} boots no image"))?.to_owned())
            }
            (None, None) => only_image(site)?,
        };
        if let Some(image) = image {
            machine["image"] = image.into();
        }
        Ok(machine)
    }

    /// Waits until the PC is off, or up, or somebody wants it to end.
    /// `view` is what is known of it then.
    fn watch(
        &self,
        site: &Site,
        pc: &mut Pc,
        wants_end: &AtomicBool,
        view: &mut Value,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let (mut looked, mut pictured) = (Instant::now(), Instant::now());
        let mut is_away = false;
        loop {
            if let Some(status) = pc.ended()? {
                if !status.success() {
                    bail!("QEMU has ended ({status}): {}", pc.complaint());
                }
                return self.ended_early("it was switched off");
            }
            if wants_end.load(Ordering::Relaxed) || is_unread() {
                return self.ended_early("nobody wants it any more");
            }
            if self.until_up && began.elapsed() > UP_WITHIN {
                bail!("its system is not up within {} minutes", UP_WITHIN.as_secs() / 60);
            }
            if looked.elapsed() >= LOOK_INTERVAL {
                looked = Instant::now();
                match self.look(site, pc, &mut pictured) {
                    Ok(seen) => *view = seen,
                    Err(error) if error.is::<Refused>() => return Err(error),
                    // It is restarted, perhaps.
                    Err(error) => {
                        if !is_away {
                            note(format!("{error:#}: the PC goes on, and waits for it"));
                        }
                        is_away = true;
                        continue;
                    }
                }
                if std::mem::take(&mut is_away) {
                    note("the boot server answers again");
                }
                match view["state"]["word"].as_str().unwrap_or_default() {
                    "up" if self.until_up => return self.picture(site, pc),
                    "failed" if self.until_up => {
                        bail!(
                            "its boot failed: {}",
                            view["state"]["sentence"].as_str().unwrap_or_default()
                        )
                    }
                    _ => {}
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Try {
    /// That is wrong only if it was to come up.
    fn ended_early(&self, why: &str) -> anyhow::Result<()> {
        match self.until_up {
            true => bail!("its system is not up: {why}"),
            false => Ok(()),
        }
    }

    /// What the boot server knows of it; its page gets another picture of its screen now and then.
    fn look(&self, site: &Site, pc: &mut Pc, pictured: &mut Instant) -> anyhow::Result<Value> {
        if pictured.elapsed() >= PICTURE_INTERVAL {
            *pictured = Instant::now();
            self.picture(site, pc)?;
        }
        site.get(&url())
    }

    /// Has its page show its screen.
    fn picture(&self, site: &Site, pc: &mut Pc) -> anyhow::Result<()> {
        // An old QEMU can't; the serial port tells as much.
        let Ok(picture) = pc.screen() else { return Ok(()) };
        if let Some(file) = &self.screen {
            std::fs::write(file, &picture)
                .with_context(|| format!("can't write {}", file.display()))?;
        }
        site.put_file(&format!("{}/screen", url()), picture)
    }
}

/// Whether whoever has read standard output has gone: it is a pipe without a reader, or a terminal that was hung up.
fn is_unread() -> bool {
    let output = std::io::stdout();
    let mut polled = [PollFd::new(&output, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let looked = poll(&mut polled, Some(&at_once));
    looked.is_ok() && polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

fn url() -> String {
    format!("/api/v1/machines/{NAME}")
}

/// The image, if there is one only and machines of no room don't boot another.
fn only_image(site: &Site) -> anyhow::Result<Option<String>> {
    let settings: Value = site.get("/api/v1/site")?;
    if settings["image"].is_string() {
        return Ok(None);
    }
    let images: Value = site.get("/api/v1/images")?;
    let mut names: Vec<&str> =
        images.as_array().into_iter().flatten().filter_map(|it| it["image"].as_str()).collect();
    names.dedup();
    match names[..] {
        [image] => Ok(Some(image.to_owned())),
        [] => bail!("there is no image yet: bootlace help import-an-image tells how to get one"),
        _ => Err(WrongUsage(format!("name an image: {}", names.join(", "))).into()),
    }
}

/// What its boot has reached, and when.
fn time_line(view: &Value) -> Vec<String> {
    let boot = &view["boot"];
    let Some(begun) = boot["started_unix_ms"].as_u64() else {
        return vec!["It never asked for an address".to_owned()];
    };
    let stages = boot["stages"].as_array().into_iter().flatten();
    stages
        .filter_map(|it| {
            let after = it["at_unix_ms"].as_u64()?.saturating_sub(begun);
            let (stage, detail) = (it["stage"].as_str()?, it["detail"].as_str()?);
            Some(format!("{:7.1} s  {stage:<10} {detail}", after as f64 / 1e3))
        })
        .collect()
}

/// Ctrl-C is the PC's as long as the terminal is its serial port; other signals end it in order.
fn hear_signals(wants_end: &Arc<AtomicBool>) -> anyhow::Result<tokio::runtime::Runtime> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = super::runtime()?;
    let _in_runtime = runtime.enter();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind)?;
        let wants_end = Arc::clone(wants_end);
        runtime.spawn(async move {
            signals.recv().await;
            wants_end.store(true, Ordering::Relaxed);
        });
    }
    drop(_in_runtime);
    Ok(runtime)
}
