//! The whole chain on one machine: a virtual LAN, our servers on it, PCs that boot over it.

mod desktop;

use crate::interrupt::Interrupt;
use crate::pcs::NO_PXE;
use crate::{build, say, setup};
use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use lab::{Arm64, Daemon, DhcpServer, Lan, OtherDhcp, Pc, Recipe, Release, Site};
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time from power-on to the login prompt. A PC alone takes a minute; without KVM and with others
/// beside it several.
const BOOT_TIMEOUT: Duration = Duration::from_secs(300);

/// How often the servers are asked for news.
const LOOK: Duration = Duration::from_millis(250);

/// Lines of a console that a failure shows.
const TAIL_LINES: usize = 40;

/// Where the pages are on this machine, if it is free.
const PAGES: &str = "127.0.0.1:8080";

/// Memory of a PC with a desktop.
const DESKTOP_MIB: u32 = 2048;

/// The other DHCP server has so many addresses.
const BESIDE_MAX: u8 = 10;

#[derive(Args)]
pub(crate) struct Demo {
    /// End when all machines are up; exit code 1 with the reason if one does not come up
    #[arg(long)]
    once: bool,
    /// How the root disk reaches the machines
    #[arg(long, value_enum, default_value = "nbd")]
    root: Root,
    /// Firmware of the machines; default: bios, or uefi where that is needed
    #[arg(long, value_enum)]
    firmware: Option<Firmware>,
    /// Who gives the addresses: the boot server, or a dnsmasq beside it
    #[arg(long, value_enum, default_value = "dhcp")]
    mode: Mode,
    /// With UEFI, Secure Boot and Microsoft's keys, as PCs are sold
    #[arg(long)]
    secure_boot: bool,
    /// How the machines come to their loader
    #[arg(long, value_enum, default_value = "pxe")]
    boot: By,
    /// What the machines run
    #[arg(long, value_enum, default_value = "minimal")]
    image: Image,
    /// How many machines to switch on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=32))]
    machines: u8,
}

#[derive(Clone, Copy, ValueEnum)]
enum Root {
    Nbd,
    Aoe,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Firmware {
    Bios,
    Uefi,
    Arm64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Dhcp,
    Proxy,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// As firmware does, by TFTP
    Pxe,
    /// UEFI HTTP Boot
    Http,
    /// A CD that `bootlace medium build` makes
    Medium,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Image {
    /// A small Debian with a login prompt
    Minimal,
    /// Debian with XFCE, built by its recipe; a picture of the first machine's screen is kept
    Desktop,
}

/// A PC of the demo, and what was shown of it.
struct Running {
    name: String,
    pc: Pc,
    powered_on: SystemTime,
    n_shown: usize,
    boot: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Boots,
    IsUp,
    Failed,
}

impl Image {
    /// By which name it is imported.
    fn name(self) -> &'static str {
        match self {
            Self::Minimal => "debian-12",
            Self::Desktop => "debian-12-desktop",
        }
    }
}

impl Demo {
    pub(crate) fn run(&self) -> Result<()> {
        let firmware = self.firmware()?;
        if self.mode == Mode::Proxy && self.machines > BESIDE_MAX {
            bail!("dnsmasq has addresses for {BESIDE_MAX} machines");
        }
        setup()?;
        let binary = build::run()?;
        let is_arm64 = self.firmware == Some(Firmware::Arm64);
        let arm64 = if is_arm64 { Some(Arm64::make(say)?) } else { None };
        let image = match (&arm64, self.image) {
            (Some(_), Image::Desktop) => {
                bail!("the desktop is for PCs of x86: leave --firmware arm64 out")
            }
            (Some(arm64), _) => Some(arm64.image.clone()),
            (None, Image::Minimal) => Some(Recipe::default().image(say)?),
            (None, Image::Desktop) => None,
        };
        let interrupt = Interrupt::listen()?;

        say("laying a virtual LAN, 10.77.0.0/24");
        let mut builder = Site::builder().binary(&binary);
        if self.mode == Mode::Proxy {
            builder = builder.network("mode = \"proxy\"");
            if self.secure_boot {
                // Debian 12's asks the server that gave the address.
                let folder = lab::signed_loader(Release::Debian13, say)?;
                builder = builder.boot(&format!("signed_loader = \"{}\"", folder.display()));
            }
        }
        if let Some(arm64) = &arm64 {
            builder = builder
                .kernel_args("console=ttyAMA0,115200")
                .boot(&format!("arm64_grub = \"{}\"", arm64.grub.display()))
                .boot(&format!("arm64_signed_loader = \"{}\"", arm64.signed.display()));
        }
        let mut site = builder.create(Lan::lay("demo")?)?;
        match image {
            Some(image) => {
                say("importing the image");
                let image = image.to_string_lossy().into_owned();
                show(&site.run(&["image", "import", &image, "--name", self.image.name()])?);
            }
            None => site.build_image(self.image.name(), &["autologin=demo"], say)?,
        }
        for number in 1..=self.machines {
            show(&self.add_machine(&site, number)?);
        }
        let other = match self.mode {
            Mode::Dhcp => None,
            Mode::Proxy => {
                say("starting dnsmasq, which gives the addresses");
                Some(OtherDhcp::start(DhcpServer::Dnsmasq, &site, "")?)
            }
        };
        if self.boot == By::Medium {
            let medium = medium(&site);
            show(&site.run(&["medium", "build", "--output", &medium.to_string_lossy()])?);
        }
        say("starting the boot server and the storage server");
        let listener = TcpListener::bind(PAGES)
            .or_else(|_| TcpListener::bind("127.0.0.1:0"))
            .context("no port is free for the web page")?;
        let url = format!("http://{}/", listener.local_addr()?);
        let mut servers = site.up_with_pages_on(listener)?;
        say(&format!("web page: {}", site.login_link(&url)?));

        let result = self.boot_all(&site, firmware, &mut servers, &interrupt, &url);
        say("taking everything down");
        let stopped = servers.stop();
        drop(other);
        result.and(stopped)
    }

    /// What the machines have, unless that contradicts what else is wanted.
    fn firmware(&self) -> Result<lab::Firmware> {
        let needs_uefi = self.secure_boot || self.boot == By::Http;
        match (self.firmware, self.secure_boot) {
            (Some(Firmware::Bios), _) if needs_uefi => {
                bail!("Secure Boot and HTTP Boot are UEFI's: leave --firmware bios out")
            }
            (Some(Firmware::Arm64), _) if self.boot == By::Medium => {
                bail!("the medium is not for arm64: leave one of both out")
            }
            (Some(Firmware::Arm64), true) if self.boot == By::Http || self.mode == Mode::Proxy => {
                bail!(
                    "arm64 PCs with Secure Boot were seen to boot by PXE with our DHCP only: leave one of them out"
                )
            }
            (Some(Firmware::Arm64), _) if build::inits_for_arm64().is_empty() => {
                bail!("there is no init for arm64: {}", lab::INSTALL_ARM64_TARGET)
            }
            (Some(Firmware::Arm64), true) => Ok(lab::Firmware::Arm64SecureBoot),
            (_, true) => Ok(lab::Firmware::UefiSecureBoot),
            (Some(Firmware::Arm64), false) => Ok(lab::Firmware::Arm64),
            (Some(Firmware::Uefi), false) => Ok(lab::Firmware::Uefi),
            (None, false) if needs_uefi => Ok(lab::Firmware::Uefi),
            (Some(Firmware::Bios) | None, false) => Ok(lab::Firmware::Bios),
        }
    }

    fn add_machine(&self, site: &Site, number: u8) -> Result<String> {
        let (name, mac) = (name_of(number), mac_of(number));
        let root = match self.root {
            Root::Nbd => "nbd",
            Root::Aoe => "aoe",
        };
        let image = ["--image", self.image.name(), "--root-kind", root];
        let mut arguments = vec!["machine", "set", &name, "--mac", &mac];
        arguments.extend(image);
        site.run(&arguments)
    }

    fn boot_all(
        &self,
        site: &Site,
        firmware: lab::Firmware,
        servers: &mut Daemon,
        interrupt: &Interrupt,
        url: &str,
    ) -> Result<()> {
        let mut running = Vec::new();
        for number in 1..=self.machines {
            running.push(self.power_on(site, firmware, number)?);
        }
        let deadline = Instant::now() + BOOT_TIMEOUT * u32::from(self.machines).div_ceil(2);
        let mut has_told = false;
        loop {
            if interrupt.has_come() {
                eprintln!();
                let n_up = running.iter().filter(|pc| pc.state == State::IsUp).count();
                return if has_told || n_up == running.len() {
                    Ok(())
                } else {
                    Err(anyhow!("interrupted: {n_up} of {} machines were up", running.len()))
                };
            }
            if let Some(status) = servers.has_ended() {
                bail!("the servers ended ({status}); their log:\n{}", servers.log());
            }
            for pc in &mut running {
                pc.look(site)?;
                if pc.state == State::Boots && Instant::now() > deadline {
                    pc.give_up("no login prompt in time");
                }
            }
            if running.iter().any(|pc| pc.state == State::Failed) && (self.once || !has_told) {
                if self.once {
                    bail!("a machine did not come up; the servers' log:\n{}", servers.log());
                }
                has_told = true;
                say("a machine did not come up, see above. Ctrl-C takes everything down.");
            }
            if !has_told && running.iter().all(|pc| pc.state == State::IsUp) {
                if self.image == Image::Desktop {
                    desktop::wait(&mut running[0].pc, interrupt)?;
                }
                if self.once {
                    return Ok(());
                }
                has_told = true;
                say(&format!("all machines are up. See them at {url}"));
                say("Ctrl-C takes everything down.");
            }
            std::thread::sleep(LOOK);
        }
    }

    fn power_on(&self, site: &Site, firmware: lab::Firmware, number: u8) -> Result<Running> {
        let name = name_of(number);
        let kind = match firmware {
            lab::Firmware::Bios => "BIOS",
            lab::Firmware::Uefi => "UEFI",
            lab::Firmware::UefiSecureBoot => "UEFI, Secure Boot",
            lab::Firmware::Arm64 => "UEFI for arm64",
            lab::Firmware::Arm64SecureBoot => "UEFI for arm64, Secure Boot",
        };
        let drive =
            format!("if=none,id=medium,format=raw,readonly=on,file={}", medium(site).display());
        let extra: Vec<&str> = match self.boot {
            By::Pxe => Vec::new(),
            By::Http => NO_PXE.to_vec(),
            By::Medium => vec!["-drive", &drive, "-device", "ide-cd,drive=medium,bootindex=0"],
        };
        let mut builder =
            Pc::builder(&name).mac(&mac_of(number)).firmware(firmware).logs(site.root());
        if self.image == Image::Desktop {
            builder = builder.memory_mib(DESKTOP_MIB).cpus(2);
        }
        say(&format!("powering on {name}, a PC with {kind} and no disk ({})", mac_of(number)));
        say(&format!("its console: {}", site.root().join(format!("{name}.console")).display()));
        let powered_on = SystemTime::now();
        let pc = builder.extra(&extra).start(site.lan())?;
        Ok(Running { name, pc, powered_on, n_shown: 0, boot: 0, state: State::Boots })
    }
}

impl Running {
    /// Shows what is new.
    fn look(&mut self, site: &Site) -> Result<()> {
        let stages = site.stages(&self.name)?;
        if let Some(line) = stages.first()
            && line.boot != self.boot
        {
            // It was reset, or rebooted from inside.
            if self.boot != 0 {
                self.powered_on = UNIX_EPOCH + Duration::from_millis(line.at_unix_ms);
                self.state = State::Boots;
            }
            (self.boot, self.n_shown) = (line.boot, 0);
        }
        for line in stages.iter().skip(self.n_shown) {
            let at = UNIX_EPOCH + Duration::from_millis(line.at_unix_ms);
            let after = at.duration_since(self.powered_on).unwrap_or_default();
            let stage: Result<model::Stage, _> = line.stage.parse();
            let title = match &stage {
                Ok(stage) => stage.title(),
                Err(_) => &line.stage,
            };
            self.line(after, title, &line.detail);
            if line.stage == "failed" {
                self.give_up(&line.detail);
            }
        }
        self.n_shown = stages.len();
        let prompt = format!("{} login: ", self.name);
        if self.state == State::Boots && self.pc.console().wait_for(&prompt, Duration::ZERO).is_ok()
        {
            self.state = State::IsUp;
            let after = self.powered_on.elapsed().unwrap_or_default();
            self.line(after, "login prompt", "user root, no password");
        }
        if self.state == State::Boots && self.pc.console().has_ended() {
            self.give_up("the PC switched itself off");
        }
        Ok(())
    }

    fn line(&self, after: Duration, title: &str, detail: &str) {
        let seconds = after.as_secs_f64();
        println!("{:>7.1} s  {:10} {title:24} {detail}", seconds, self.name);
    }

    fn give_up(&mut self, why: &str) {
        self.state = State::Failed;
        let console = self.pc.console().tail(TAIL_LINES);
        println!("{}: {why}. Its console's end:\n{console}", self.name);
    }
}

/// Where the boot medium is.
fn medium(site: &Site) -> PathBuf {
    site.root().join("medium.iso")
}

fn name_of(number: u8) -> String {
    format!("demo-{number}")
}

fn mac_of(number: u8) -> String {
    format!("52:54:00:77:00:{number:02x}")
}

fn show(text: &str) {
    for line in text.lines() {
        println!("  {line}");
    }
}
