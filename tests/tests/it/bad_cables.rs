//! A boot goes well, or ends in a word that helps, also where the network fails in the middle of it: at each of its stages the
//! cable is out for some seconds, or both servers are killed and started again; and a whole boot where frames are lost and late.

use crate::boot::{BOOT, COMMAND, QUICK, can_boot, wait_for_login};
use anyhow::{Context, Result, bail, ensure};
use lab::{BreaksAfter, Daemon, Firmware, Lan, Pc, PcSlots, Quality, Site, Wire};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a cable is out: longer than switches and loaders overlook, and shorter than a person needs to plug it in again.
const CABLE_OUT: Duration = Duration::from_secs(5);

/// The same where frames are lost and late: GRUB gets 120 kB a second there.
const SLOW_BOOT: Duration = Duration::from_secs(900);

/// PCs that are at work at once.
const AT_ONCE: usize = 3;

/// What is in every DHCP message, and in nothing else.
const DHCP: &[u8] = &[0x63, 0x82, 0x53, 0x63];

/// The machine whose trouble comes when its system runs.
const RUNNING: &str = "running";

/// How often a page is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// So long it takes until the page shows that somebody has switched a PC off and on.
const HELPS: Duration = Duration::from_secs(60);

/// A word that something is wrong counts when it stays: one of a moment ago may be over.
const STAYS: Duration = Duration::from_secs(5);

/// Stages, by the name of the machine at which they are disturbed, and when that is. The last is the running system.
const STAGES: [(&str, BreaksAfter); 8] = [
    ("dhcp", BreaksAfter { marks: &[DHCP], n_frames: 0 }),
    ("loader", BreaksAfter { marks: &[b"bl.0"], n_frames: 20 }),
    ("config", BreaksAfter { marks: &[b"machine.cfg"], n_frames: 0 }),
    ("kernel", BreaksAfter { marks: &[b"/vmlinuz"], n_frames: 200 }),
    ("initrd", BreaksAfter { marks: &[b"/initrd"], n_frames: 200 }),
    ("address", BreaksAfter { marks: &[b"/initrd", DHCP], n_frames: 0 }),
    ("attach", BreaksAfter { marks: &[b"IHAVEOPT"], n_frames: 1 }),
    (RUNNING, BreaksAfter { marks: &[b"nothing says this"], n_frames: 0 }),
];

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    CableOut,
    ServersKilled,
}

/// A PC that boots, and is disturbed.
struct Boot {
    name: &'static str,
    pc: Pc,
    wire: Wire,
    begun: Instant,
    /// Since when the cable is out.
    out: Option<Instant>,
    is_over: bool,
    /// Since when the page says that something is wrong.
    wrong: Option<Instant>,
    /// When somebody has done what the page says.
    helped: Option<Instant>,
    looked: Instant,
    /// What its page said last.
    word: String,
}

fn mac(number: usize) -> String {
    format!("52:54:00:00:0d:{number:02x}")
}

fn site(name: &str) -> Result<Site> {
    // init asks for an address itself, which is one more thing that can fail.
    let site = Site::builder().network("address_by = \"dhcp\"").boot("secure_boot = \"never\"");
    let site = site.create(Lan::lay(name)?)?;
    let image = QUICK.image(|text| eprintln!("{text}"))?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    for (number, (name, _)) in STAGES.iter().enumerate() {
        site.run(&["machine", "set", name, "--mac", &mac(number), "--image", "debian"])?;
    }
    Ok(site)
}

impl Boot {
    fn begin(site: &Site, number: usize) -> Result<Self> {
        let (name, moment) = &STAGES[number];
        let wire = Wire::lay(site.lan(), Quality::GOOD)?;
        wire.break_after(moment);
        let pc = Pc::builder(name).mac(&mac(number)).through(&wire).start(site.lan())?;
        let (begun, looked) = (Instant::now(), Instant::now());
        let (out, wrong, helped) = (None, None, None);
        let word = String::new();
        Ok(Self { name, pc, wire, begun, out, is_over: false, wrong, helped, looked, word })
    }

    /// What its page says.
    fn state(&self, site: &Site) -> Result<(String, String)> {
        let view = site.browser().json(&format!("/api/v1/machines/{}", self.name))?;
        let text = |name: &str| view["state"][name].as_str().unwrap_or_default().to_owned();
        Ok((text("word"), text("sentence")))
    }

    /// Its root disk answers.
    fn works(&self) -> Result<()> {
        if self.name == RUNNING {
            let drop = "echo 3 > /proc/sys/vm/drop_caches";
            let read = format!("{drop}; md5sum /bin/busybox /usr/bin/* | wc -l");
            self.pc.console().shell(&read, COMMAND).context("the running system")?;
        }
        Ok(())
    }

    /// Does what is due; whether the boot is over, and how it is.
    fn go_on(
        &mut self,
        trouble: Trouble,
        site: &Site,
        servers: &mut Option<Daemon>,
    ) -> Result<Option<String>> {
        match (self.out, trouble) {
            _ if self.is_over || !self.wire.is_broken() => {}
            (None, Trouble::CableOut) => {
                self.pc.set_link(false)?;
                self.out = Some(Instant::now());
            }
            (None, Trouble::ServersKilled) => {
                if let Some(servers) = servers.take() {
                    servers.kill()?;
                }
                self.wire.mend();
                *servers = Some(site.up()?);
                self.is_over = true;
            }
            (Some(since), _) if since.elapsed() >= CABLE_OUT => {
                self.wire.mend();
                self.pc.set_link(true)?;
                self.is_over = true;
            }
            (Some(_), _) => {}
        }
        if self.looked.elapsed() < LOOK {
            return Ok(None);
        }
        self.looked = Instant::now();
        let (word, sentence) = self.state(site)?;
        self.word.clone_from(&word);
        match word.as_str() {
            "up" if self.is_over => {
                return self.works().map(|()| Some(format!("{word}: {sentence}")));
            }
            "up" if self.name == RUNNING && self.out.is_none() => {
                wait_for_login(&self.pc, self.name)?;
                self.pc.console().log_in(COMMAND)?;
                self.wire.cut();
            }
            // Firmware that loses its loader to a server that is started again does not ask a second time: TFTP has nothing by
            // which it could go on. The page says what helps, and somebody does it.
            "stuck" if trouble == Trouble::ServersKilled && sentence.contains("off and on") => {
                if self.helped.is_none_or(|helped| helped.elapsed() > HELPS) {
                    println!("{}: {sentence}", self.name);
                    self.helped = Some(Instant::now());
                    self.pc.reset()?;
                }
            }
            "stuck" | "failed" => {
                let since = *self.wrong.get_or_insert_with(Instant::now);
                if since.elapsed() > STAYS {
                    return Ok(Some(format!("{word}: {sentence}")));
                }
            }
            _ => self.wrong = None,
        }
        let end = || self.pc.console().tail(20);
        ensure!(self.begun.elapsed() < BOOT, "{}: {word}: {sentence}\n{}", self.name, end());
        Ok(None)
    }
}

fn each_stage(name: &str, trouble: Trouble) -> Result<()> {
    let _slots = PcSlots::take(AT_ONCE)?;
    let site = site(name)?;
    let mut servers = Some(site.up()?);
    let mut to_come: VecDeque<usize> = (0..STAGES.len()).collect();
    let mut boots: Vec<Boot> = Vec::new();
    let mut wrong = Vec::new();
    while !to_come.is_empty() || !boots.is_empty() {
        // Servers that are killed for one would disturb the others, too: twice in their loaders, a boot takes minutes.
        let is_quiet = trouble == Trouble::CableOut
            || boots.iter().all(|boot| boot.is_over && ["starting", "up"].contains(&&*boot.word));
        if boots.len() < AT_ONCE
            && is_quiet
            && let Some(number) = to_come.pop_front()
        {
            boots.push(Boot::begin(&site, number)?);
        }
        let mut index = 0;
        while let Some(boot) = boots.get_mut(index) {
            match boot.go_on(trouble, &site, &mut servers)? {
                None => index += 1,
                Some(end) => {
                    let took = boot.begun.elapsed().as_secs_f32();
                    println!("{trouble:?} at {}: after {took:.0} s {end}", boot.name);
                    if !end.starts_with("up: ") {
                        let tail = boot.pc.console().tail(12);
                        wrong.push(format!("{}: {end}\n{tail}", boot.name));
                    }
                    boots.remove(index);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    servers.context("they run")?.stop()
}

#[test]
fn a_boot_survives_a_cable_that_is_out_for_some_seconds_at_each_stage() {
    if can_boot("cable-out") {
        each_stage("cable-out", Trouble::CableOut).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

#[test]
fn a_boot_survives_servers_that_are_killed_and_started_again_at_each_stage() {
    if can_boot("killed-at") {
        each_stage("killed-at", Trouble::ServersKilled).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// Waits until the PC is up, of which nobody says meanwhile that it hangs.
fn is_up(site: &Site, pc: &Pc) -> Result<()> {
    let begun = Instant::now();
    let name = pc.name();
    loop {
        let view = site.browser().json(&format!("/api/v1/machines/{name}"))?;
        let state = &view["state"];
        match state["word"].as_str() {
            Some("up") => break,
            Some("stuck" | "failed") => bail!("{name} goes on, and its page says {state}"),
            _ => std::thread::sleep(Duration::from_millis(500)),
        }
        let console = || pc.console().tail(20);
        ensure!(begun.elapsed() < SLOW_BOOT, "{name}: {state}\n{}", console());
    }
    for line in site.stages(name)? {
        println!("{name}: {} {}", line.stage, line.detail);
    }
    Ok(())
}

#[test]
fn a_boot_survives_one_per_cent_of_loss_and_fifty_milliseconds_of_delay() {
    if !can_boot("lossy") {
        return;
    }
    let run = || -> Result<()> {
        let mut slots = PcSlots::take(2)?;
        let site = site("lossy")?;
        let servers = site.up()?;
        let mut pcs = Vec::new();
        for (number, firmware) in [Firmware::Bios, Firmware::Uefi].into_iter().enumerate() {
            let quality = Quality {
                lost_per_thousand: 10,
                delay: Duration::from_millis(25),
                seed: 7 + u64::try_from(number)?,
            };
            let wire = Wire::lay(site.lan(), quality)?;
            let pc = Pc::builder(STAGES[number].0).mac(&mac(number)).firmware(firmware);
            pcs.push((pc.through(&wire).start(site.lan())?, wire));
        }
        for (pc, _) in &pcs {
            // The files take minutes, and nobody works meanwhile.
            slots.lend(|| is_up(&site, pc))??;
        }
        let console = pcs[0].0.console();
        wait_for_login(&pcs[0].0, pcs[0].0.name())?;
        console.log_in(COMMAND)?;
        console.shell("md5sum /bin/busybox", COMMAND)?;
        servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}
