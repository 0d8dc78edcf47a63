//! The real machine: what the stages of a boot do to it.

use super::stages::System;
use crate::boot_server::reporter::Reporter;
use crate::boot_server::token::TokenCell;
use crate::boot_server::{files, hardware, host_segment};
use crate::capture;
use crate::console::Console;
use crate::failure::Failure;
use crate::handover::overlay::{self, LaidOver};
use crate::handover::site_files;
use crate::handover::{find_init, ssh};
use crate::modules::coldplug;
use crate::modules::{Modules, cannot_load};
use crate::net::dhcp::{self, Held};
use crate::net::mtu::{self, Proof};
use crate::net::nic;
use crate::net::nic::Nic;
use crate::net::storage_nic::{self, StorageNic, Way};
use crate::rescue::{self, Offer};
use crate::root::{Attached, ROOT, aoe, iscsi, mount, nbd, nfs};
use crate::{disks, handover, keeper};
use initcfg::{BootConfig, CaptureOrder, HostConfig, Root, RootUrl, Stage, Token};
use std::cell::OnceCell;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// What the machine's own DHCP found out.
const LEASE: &str = "/run/bootlace/lease.json";

/// How long the list of hardware may hold up the hand-over; it is sent while the disk is attached.
const HARDWARE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the boot server may take to say that the machine's earlier boot is over: it asks for 3 s, and knows nobody
/// for 25 s after its start.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(60);

/// How soon it is seen that it has said so.
const ADMISSION_POLL: Duration = Duration::from_millis(20);

/// How soon a host segment that was lost is asked for again.
const FETCH_AGAIN: Duration = Duration::from_secs(1);

/// A boot that is the first in a while is let in at once.
const ADMISSION_PATIENCE: Duration = Duration::from_secs(3);

/// How soon it is seen that somebody has left the rescue shell.
const SHELL_POLL: Duration = Duration::from_millis(200);

/// How often the boot server hears that the boot still waits.
const TELL_AGAIN: Duration = Duration::from_secs(20);

pub(crate) struct ThisMachine {
    pub(crate) console: Console,
    pub(crate) reporter: Reporter,
    command_line: String,
    /// What the boot server says to this boot only.
    host: Option<HostConfig>,
    pub(crate) token: TokenCell,
    /// The machine's own lease.
    held: Option<Held>,
    /// Why the card does not take packets of the size that the settings want.
    mtu_refused: Option<io::Error>,
    /// Hears when the boot server knows the hardware.
    hardware: Option<Receiver<()>>,
    /// How the storage network is reached, if there is one.
    way: Option<Way>,
    /// The card over which the disk is reached, if that is another one than has booted.
    storage: Option<StorageNic>,
}

impl ThisMachine {
    pub(crate) fn new(
        console: Console,
        reporter: Reporter,
        command_line: String,
        host: Option<HostConfig>,
        token: TokenCell,
    ) -> Self {
        Self {
            console,
            reporter,
            command_line,
            host,
            token,
            held: None,
            mtu_refused: None,
            hardware: None,
            way: None,
            storage: None,
        }
    }

    /// Starts the keeper; without a connection the kernel itself carries the root through outages.
    fn start_keeper(&self, connection: Option<(TcpStream, u32)>, own_lease: Option<(&Held, &Nic)>) {
        // The disk works: only an outage of its server would be the end of this system.
        let missed = match connection {
            Some(_) => "nobody will restore a lost connection",
            None => "no signs of life will be sent",
        };
        if let Err(error) = keeper::start(connection, own_lease) {
            self.console.say("attach", &format!("{missed}: {error}"));
        }
    }

    /// Waits until the boot server says that this boot is the machine's. Before that a disk that is reached by the MAC
    /// address alone is an earlier boot's, and would be exchanged under this one.
    fn await_admission(&mut self, config: &BootConfig) -> Result<(), Failure> {
        let started = Instant::now();
        let mut is_told = false;
        loop {
            if self.token.get().is_none() {
                match host_segment::fetch(config) {
                    Ok(host) => {
                        host_segment::keep_token(&host, &self.token);
                        self.host = Some(host);
                        // What was reported before had no proof.
                        self.reporter.report(Stage::Address, "with the host segment");
                    }
                    Err(_) => std::thread::sleep(FETCH_AGAIN),
                }
            }
            if self.token.get().is_some() && self.reporter.is_last_acknowledged() {
                return Ok(());
            }
            if started.elapsed() > ADMISSION_TIMEOUT {
                return Err(Failure::new(
                    "the boot server did not give this machine its disk",
                    "look at the machine's page: it may still run in an earlier boot, or another PC has the same MAC \
                     address; or start the boot server",
                ));
            }
            if !is_told && started.elapsed() > ADMISSION_PATIENCE {
                is_told = true;
                let text = "the boot server makes sure that nobody else uses this machine's disk";
                self.console.wait("attach", text);
            }
            std::thread::sleep(ADMISSION_POLL);
        }
    }

    /// Until somebody leaves the rescue shell; meanwhile the boot server hears what it does.
    fn stay_in_shell(&self) -> io::Result<()> {
        let mut shell = rescue::start(None)?;
        let mut told = (String::new(), Instant::now());
        while shell.try_wait()?.is_none() {
            let state = rescue::state();
            if told.0 != state || told.1.elapsed() > TELL_AGAIN {
                self.console.wait_silently(&state);
                told = (state, Instant::now());
            }
            std::thread::sleep(SHELL_POLL);
        }
        self.console.reopen();
        self.console.say("rescue", "the boot continues");
        Ok(())
    }

    /// Packets of the size that the settings want, if the network carries them; otherwise of the usual one,
    /// and a warning. Returns what is to be said about it; the settings then say what works.
    fn prove_mtu(&mut self, nic: &Nic, config: &mut BootConfig) -> String {
        let Some(wanted) = config.mtu else { return String::new() };
        let proof = match self.mtu_refused.take() {
            Some(error) => {
                Proof::NotCarried(format!("the card refuses packets of {wanted} bytes: {error}"))
            }
            None => mtu::prove(config, wanted),
        };
        let why = match proof {
            Proof::Carried => return format!(", MTU {wanted}"),
            Proof::NotCarried(why) => why,
        };
        config.mtu = None;
        if mtu::current(nic) != Some(mtu::USUAL.into()) {
            // Whoever refuses that has it, or smaller.
            let _ = mtu::set(nic, mtu::USUAL);
            // Many cards begin their negotiation again.
            nic::wait_for_link(nic, &self.console);
        }
        let warning = format!("MTU {} instead of {wanted}: {why}", mtu::USUAL);
        self.console.warn(&format!("bootlace: address: {warning}"));
        format!("; {warning}")
    }

    /// Fetches the host segment if it is not there; returns what is to be said about it.
    fn find_host(&mut self, config: &BootConfig) -> String {
        if self.host.is_some() {
            return String::new();
        }
        match host_segment::fetch(config) {
            Ok(host) => {
                if !super::is_exchanged(config) {
                    host_segment::keep_token(&host, &self.token);
                }
                self.host = Some(host);
                "; host segment lost, fetched by HTTP".to_owned()
            }
            Err(why) => format!("; host segment lost, and HTTP did not deliver it: {why}"),
        }
    }
}

impl System for ThisMachine {
    type Drivers = Arc<Modules>;

    fn reached(&mut self, stage: Stage, detail: &str) {
        self.console.say(stage.word(), detail);
        self.reporter.report(stage, detail);
    }

    fn kernel(&mut self) -> String {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        release.trim().to_owned()
    }

    fn load_drivers(&mut self, kernel: &str) -> Result<Arc<Modules>, Failure> {
        let modules = open_modules(kernel)?;
        coldplug::start(&modules).map_err(|error| {
            Failure::new(
                format!("can't listen for the kernel's hardware events: {error}"),
                "this kernel can't be used: try another version",
            )
        })?;
        Ok(modules)
    }

    fn find_nic(
        &mut self,
        config: &BootConfig,
        modules: &Arc<Modules>,
    ) -> Result<(Nic, String), Failure> {
        let nic = nic::find(config.mac, modules, &self.console)?;
        let loaded = modules.loaded();
        self.console.log(&format!("bootlace: loaded {}", loaded.join(" ")));
        let found = format!("{} loaded, {} has {}", loaded.len(), nic.name, nic.driver());
        Ok((nic, found))
    }

    fn bring_up(
        &mut self,
        nic: Nic,
        config: &BootConfig,
        modules: &Arc<Modules>,
    ) -> Result<(Nic, String), Failure> {
        let has_disks = self.host.as_ref().is_some_and(|host| !host.disks.is_empty());
        preload(modules, &config.root, has_disks);
        if let Some(mtu) = config.mtu {
            self.mtu_refused = mtu::set(&nic, mtu).err();
        }
        if config.storage.is_some() {
            storage_nic::raise_others(config.mac);
        }
        let speed = nic::bring_up(&nic, &self.console)?;
        let Some(vlan) = config.vlan else { return Ok((nic, speed)) };
        modules.load("8021q", "").map_err(|error| cannot_load("8021q", &error, modules))?;
        Ok((nic::join_vlan(&nic, vlan)?, speed))
    }

    fn configure(
        &mut self,
        nic: &Nic,
        config: &BootConfig,
    ) -> Result<(BootConfig, String), Failure> {
        let mut config = config.clone();
        let (address, origin) = match config.address {
            Some(address) => (address, String::new()),
            None => {
                let held = dhcp::obtain(nic, &config, &self.console)?;
                let lease = held.lease.clone();
                // For programs of the real system that care; the boot does not.
                let _ = fs::write(LEASE, held.to_json());
                self.held = Some(held);
                // What the boot server says counts more.
                if config.routes.is_empty() {
                    config.routes = lease.routes;
                }
                config.router = config.router.or(lease.router);
                config.domain = config.domain.or(lease.domain);
                if config.dns.is_empty() {
                    config.dns = lease.dns;
                }
                if config.ntp.is_empty() {
                    config.ntp = lease.ntp;
                }
                ((lease.address, lease.prefix), format!(" by DHCP from {}", lease.server))
            }
        };
        nic::configure(nic, address, config.router, &config.routes)?;
        config.address = Some(address);
        let lost = self.find_host(&config);
        let packets = self.prove_mtu(nic, &mut config);
        let token = Arc::clone(&self.token);
        self.hardware = Some(hardware::send(config.server, config.boot, token));
        Ok((config, format!("{}/{}{origin}{packets}{lost}", address.0, address.1)))
    }

    fn rescue(&mut self) {
        match rescue::offer() {
            Offer::No => {}
            Offer::Lost => {
                let text =
                    "the rescue shell was lost on the way here; the boot continues without it";
                self.console.wait("rescue", text);
            }
            Offer::Yes => {
                if let Err(error) = self.stay_in_shell() {
                    self.console.wait("rescue", &format!("no rescue shell: {error}"));
                }
            }
        }
    }

    fn attach(
        &mut self,
        nic: &Nic,
        config: &BootConfig,
        modules: &Arc<Modules>,
    ) -> Result<(Attached, String), Failure> {
        if let Some(ram) = config.ram {
            // The keeper starts with the disk, and watches this.
            mount::mount_memory(ram)?;
        }
        if let Root::Aoe { .. } = config.root {
            self.await_admission(config)?;
        }
        let way = match &config.storage {
            Some(network) => Some(storage_nic::find(nic, config, network, modules, &self.console)?),
            None => None,
        };
        self.storage = way.as_ref().and_then(Way::card).cloned();
        let (over, servers) = match (&way, &config.storage, &config.root) {
            (Some(way), Some(network), Root::Nbd { servers, .. }) => {
                (way.to_string(), way.servers(network, servers))
            }
            (_, _, Root::Nbd { servers, .. }) => (String::new(), servers.clone()),
            (way, ..) => (way.as_ref().map(Way::to_string).unwrap_or_default(), Vec::new()),
        };
        self.way = way;
        let own_lease = self.held.as_ref().map(|held| (held, nic));
        let console = &self.console;
        let (disk, place) = match &config.root {
            Root::Nbd { export, .. } => {
                let found = OnceCell::new();
                let find_key = || {
                    // Whether it comes or not, the refusal is what people read.
                    if let Ok(host) = host_segment::fetch(config) {
                        host_segment::keep_token(&host, &self.token);
                        let _ = found.set(host);
                    }
                    self.token.get().map(Token::disk_key)
                };
                let plain = self.host.as_ref().map(|host| host.token);
                let exchange = plain.filter(|_| super::is_exchanged(config));
                let exchange = exchange.map(nbd::Exchange::of);
                let key = plain.as_ref().map(Token::disk_key);
                let request = nbd::Request {
                    machine: export.clone(),
                    is_foreign: false,
                    boot: config.boot,
                    key,
                    exchange,
                    generation: 0,
                    index: nbd::ROOT_INDEX,
                };
                let nbd::Attached { disk, server, connection, generation, told } =
                    nbd::attach(&servers, request, None, find_key, modules, console)?;
                if let Some(host) = told.or_else(|| found.into_inner()) {
                    self.host = Some(host);
                }
                if let Some(host) = &self.host {
                    host_segment::keep_token(host, &self.token);
                }
                self.start_keeper(Some((connection, generation)), own_lease);
                (disk, format!("NBD {server} {export}"))
            }
            Root::Aoe { shelf, slot } => {
                let (nic, hint) = match &self.storage {
                    Some(card) => (&card.nic, aoe_hint(config, card)),
                    None => (nic, ": is the storage server running, and on this network?".into()),
                };
                let disk = aoe::attach(nic, (*shelf, *slot), &hint, modules, console)?;
                self.start_keeper(None, own_lease);
                (disk, format!("AoE {shelf}.{slot}"))
            }
            Root::Foreign(RootUrl::Aoe(root)) => {
                let nic = self.storage.as_ref().map_or(nic, |card| &card.nic);
                let hint = ": does a target have this address, and answer this card?";
                let disk = aoe::attach(nic, (root.shelf, root.slot), hint, modules, console)?;
                self.start_keeper(None, own_lease);
                (disk, format!("AoE {}.{} of another server", root.shelf, root.slot))
            }
            Root::Foreign(RootUrl::Nbd(root)) => {
                let request = nbd::Request::foreign(root, 0);
                let nbd::Attached { disk, connection, generation, .. } =
                    nbd::attach(&[root.server], request, None, || None, modules, console)?;
                self.start_keeper(Some((connection, generation)), own_lease);
                (disk, format!("NBD {} {:?} of another server", root.server, root.export))
            }
            Root::Foreign(RootUrl::Iscsi(root)) => {
                let disk = iscsi::attach(root, config.mac, modules, console)?;
                self.start_keeper(None, own_lease);
                (disk, format!("iSCSI {} {} disk {}", root.portal, root.target, root.lun))
            }
            Root::Foreign(RootUrl::Nfs(root)) => {
                let of_boot = config.address.unwrap_or((Ipv4Addr::UNSPECIFIED, 0));
                let (address, _) = self.storage.as_ref().map_or(of_boot, |card| card.address);
                let mounted = nfs::mount(root, config, address, modules, console)?;
                self.start_keeper(None, own_lease);
                let place = format!("NFS {} {}{over}", root.server, root.folder);
                return Ok((Attached::Folder(mounted), place));
            }
        };
        let megabytes = disk.size_bytes().unwrap_or(0) >> 20;
        Ok((Attached::Disk(disk), format!("{place}, {megabytes} MiB{over}")))
    }

    fn capture(
        &mut self,
        order: &CaptureOrder,
        config: &BootConfig,
        modules: &Arc<Modules>,
    ) -> Result<(), Failure> {
        if let Some(hardware) = self.hardware.take() {
            hardware::finish(&hardware, HARDWARE_TIMEOUT);
        }
        capture::run(order, config, self.token.get(), modules, &self.console)
    }

    fn mount_root(
        &mut self,
        root: &Attached,
        config: &BootConfig,
        modules: &Arc<Modules>,
    ) -> Result<String, Failure> {
        let place = match &config.root {
            Root::Foreign(url) => url.on_disk().map_or((None, None), |on_disk| {
                (on_disk.partition, on_disk.logical_volume.as_ref())
            }),
            _ => (config.partition, config.logical_volume.as_ref()),
        };
        match root {
            Attached::Disk(disk) => mount::mount_root(disk, place, config.ram, modules),
            Attached::Folder(mounted) => Ok(mounted.clone()),
        }
    }

    fn prepare_disks(
        &mut self,
        config: &BootConfig,
        modules: &Arc<Modules>,
    ) -> Result<String, Failure> {
        let Some(host) = &self.host else { return Ok(String::new()) };
        let servers = match (&self.way, &config.storage) {
            (Some(way), Some(network)) => way.servers(network, &host.disk_servers),
            _ => host.disk_servers.clone(),
        };
        let key = self.token.get().map(Token::disk_key);
        let wanted = disks::Wanted::of(host, &config.host_name, key, &servers);
        let done = disks::prepare(&wanted, Path::new(ROOT), modules, &self.console)?;
        for (name, about) in &done.there {
            self.console.say("disks", &format!("{name}: {about}"));
        }
        for trouble in &done.troubles {
            self.console.say("disks", trouble);
        }
        Ok(done.in_words())
    }

    fn hand_over(&mut self, nic: &Nic, config: &BootConfig) -> Result<String, Failure> {
        if let Some(hardware) = self.hardware.take() {
            hardware::finish(&hardware, HARDWARE_TIMEOUT);
        }
        let init = find_init(Path::new(ROOT), &self.command_line)?;
        let laid = match &config.root {
            // That root is another system than the image's.
            Root::Foreign(_) => LaidOver::default(),
            Root::Nbd { .. } | Root::Aoe { .. } => self.lay_over(config)?,
        };
        for path in &laid.paths {
            self.console.log(&format!("bootlace: laid over {path}"));
        }
        for trouble in &laid.troubles {
            self.console.log(&format!("bootlace: not laid over: {trouble}"));
        }
        for trouble in
            handover::write_all(config, (nic, self.storage.as_ref()), &self.command_line, &init)
        {
            self.console.log(&format!("bootlace: handover: {trouble}"));
        }
        if let Some(key) = self.host.as_ref().and_then(|host| host.ssh.as_ref())
            && let Err(error) = ssh::give_host_key(Path::new(ROOT), key)
        {
            self.console.log(&format!("bootlace: SSH host key: {error}"));
        }
        Ok(match (laid.paths.len(), laid.troubles.first()) {
            (0, None) => init,
            (n, None) => format!("{init}, files laid over: {n}"),
            (n, Some(first)) => {
                let n_not = laid.troubles.len();
                format!("{init}, files laid over: {n}, not laid over: {n_not}, the first: {first}")
            }
        })
    }
}

impl ThisMachine {
    /// Lays over the root what its version has for it, and then what the site has.
    fn lay_over(&self, config: &BootConfig) -> Result<LaidOver, Failure> {
        let root = Path::new(ROOT);
        let mut laid = overlay::lay_over(root);
        let token = self.token.get();
        let is_wanted = match &self.host {
            Some(host) => host.has_files,
            // The boot server knows; without a secret it can't be asked.
            None => token.is_some(),
        };
        if is_wanted || site_files::were_laid(root) {
            let overlay = files::fetch(config, token)?;
            let LaidOver { paths, troubles } = site_files::lay(root, &overlay);
            laid.paths.extend(paths);
            laid.troubles.extend(troubles);
        } else if token.is_none() {
            let trouble =
                "the site's files, if it has any: this boot has no secret to ask for them";
            laid.troubles.push(trouble.to_owned());
        }
        Ok(laid)
    }
}

/// What else may be wrong where an AoE target does not answer in the storage network.
fn aoe_hint(config: &BootConfig, card: &StorageNic) -> String {
    let (name, mac) = (&config.host_name, card.mac);
    format!(
        ": is the storage server running, and on this network? It answers cards of this machine only: bootlace machine set {name} --add-mac {mac}"
    )
}

/// Loads what will be needed while the link comes up, which takes seconds on real cards.
fn preload(modules: &Arc<Modules>, root: &Root, has_disks: bool) {
    let modules = Arc::clone(modules);
    let is_nbd = has_disks || matches!(root, Root::Nbd { .. } | Root::Foreign(RootUrl::Nbd(_)));
    let is_disk = has_disks || !matches!(root, Root::Foreign(RootUrl::Nfs(_)));
    std::thread::spawn(move || {
        // Whoever needs it loads it again, and says what is wrong.
        if is_nbd {
            let _ = nbd::load_driver(&modules);
        }
        if is_disk {
            let _ = modules.load("ext4", "");
        }
    });
}

fn open_modules(release: &str) -> Result<Arc<Modules>, Failure> {
    let remedy = "use kernel and initrd of the same image, as the boot server offers them";
    let modules = Modules::open().map_err(|error| {
        Failure::new(format!("the initrd has no usable list of modules: {error}"), remedy)
    })?;
    if modules.kernel() != release {
        let what = format!("the initrd is for kernel {}, but {release} runs", modules.kernel());
        return Err(Failure::new(what, remedy));
    }
    Ok(Arc::new(modules))
}
