//! `init boot`: all the work up to a complete root below `/sysroot`.

use crate::console::Console;
use crate::disk::{Disk, ROOT};
use crate::failure::Failure;
use crate::loader::Loader;
use crate::nic::Nic;
use crate::reporter::{Reporter, STATE_PATH, Target};
use crate::resolve::resolve;
use crate::{aoe, coldplug, disk, handover, iscsi, keeper, kernel_log, nbd, nfs, nic};
use initcfg::{BootConfig, Root, RootUrl, Stage};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How long the last reports may hold up the hand-over; a server that is there answers in a millisecond.
const LAST_REPORTS_TIMEOUT: Duration = Duration::from_millis(500);

/// Reports of waiting are sent beside those of stages, of which there are fewer than this.
const SEQUENCE_WAITING: u32 = 50;

/// How long the boot server may take to note a failure, before the person at the machine gets the
/// whole remaining minute to read.
const FAILURE_REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Does everything, says everything, and exits with success if there is a root to switch to.
pub(crate) fn run() -> ExitCode {
    let mut console = Console::open();
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let config = match BootConfig::parse(&command_line) {
        Ok(config) => config,
        Err(error) => {
            let failure = Failure::new(
                error.to_string(),
                "start the machine over the network, with the loader of the boot server",
            );
            show(&console, None, &failure);
            return ExitCode::FAILURE;
        }
    };
    let target = Target::from(&config);
    // Early, so that PID 1 can tell the server if this process dies.
    if let Some(folder) = Path::new(STATE_PATH).parent() {
        let _ = fs::create_dir_all(folder).and_then(|()| fs::write(STATE_PATH, target.to_line()));
    }
    let mut waits = Reporter::start(target, SEQUENCE_WAITING);
    console.on_wait(move |text| waits.report(Stage::Waiting, text));
    let mut boot = Boot { console, config, reporter: Reporter::start(target, 1), command_line };
    match boot.stages() {
        Ok(()) => {
            boot.reporter.finish(LAST_REPORTS_TIMEOUT);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            show(&boot.console, Some(&boot.config), &failure);
            boot.reporter.report(Stage::Failed, &failure.to_string());
            boot.reporter.finish(FAILURE_REPORT_TIMEOUT);
            // Before there is an address this fails at once, and the screen has said what counts.
            let _ = kernel_log::send(boot.config.server, boot.config.boot, &kernel_log::read());
            ExitCode::FAILURE
        }
    }
}

/// Tells the person in front of the machine.
pub(crate) fn show(console: &Console, config: Option<&BootConfig>, failure: &Failure) {
    console.line("");
    console.line("*** This machine can't start ***");
    console.line(&format!("  What happened:  {}", failure.what));
    console.line(&format!("  What helps:     {}", failure.remedy));
    if let Some(config) = config {
        let BootConfig { host_name, mac, address: (address, prefix), server, .. } = config;
        console.line(&format!("  This machine:   {host_name}, {mac}, {address}/{prefix}"));
        console.line(&format!("  Boot server:    {server}"));
    }
    console.line("");
}

struct Boot {
    console: Console,
    config: BootConfig,
    reporter: Reporter,
    command_line: String,
}

impl Boot {
    fn reached(&mut self, stage: Stage, detail: &str) {
        self.console.say(stage.word(), detail);
        self.reporter.report(stage, detail);
    }

    fn stages(&mut self) -> Result<(), Failure> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let release = release.trim();
        self.reached(Stage::Start, &format!("kernel {release}, {}", self.config.host_name));

        let loader = open_loader(release)?;
        coldplug::start(&loader).map_err(|error| {
            Failure::new(
                format!("can't listen for the kernel's hardware events: {error}"),
                "this kernel can't be used: try another version",
            )
        })?;
        let nic = nic::find(self.config.mac, &loader, &self.console)?;
        let n_loaded = loader.loaded().len();
        let driver = nic.driver();
        self.reached(Stage::Modules, &format!("{n_loaded} loaded, {} has {driver}", nic.name));
        self.console.log(&format!("bootlace: loaded {}", loader.loaded().join(" ")));

        preload(&loader, &self.config.root);
        let speed = nic::bring_up(&nic, &self.console)?;
        self.reached(Stage::Link, &format!("{} up{speed}", nic.name));

        nic::configure(&nic, &self.config)?;
        let (address, prefix) = self.config.address;
        let router = match self.config.router {
            Some(router) => format!(", router {router}"),
            None => String::new(),
        };
        self.reached(Stage::Address, &format!("{address}/{prefix}{router}"));

        let mounted = self.attach_and_mount(&nic, &loader)?;
        self.reached(Stage::Mount, &mounted);

        self.hand_over(&nic)
    }

    /// Returns what is mounted, for people.
    fn attach_and_mount(&mut self, nic: &Nic, loader: &Loader) -> Result<String, Failure> {
        let console = &self.console;
        match self.config.root.clone() {
            Root::Nbd { server, export } => {
                let disk = nbd::attach(server, &export, loader, console)?;
                self.mount(&disk, self.config.partition, false, loader)
            }
            Root::Aoe { shelf, slot } => {
                let disk = aoe::attach(nic, shelf, slot, loader, console)?;
                self.start_keeper();
                self.mount(&disk, self.config.partition, false, loader)
            }
            Root::Foreign(RootUrl::Iscsi(root)) => {
                let disk = iscsi::attach(&root, self.config.mac, loader, console)?;
                self.mount(&disk, root.partition, root.is_read_only, loader)
            }
            Root::Foreign(RootUrl::Nfs(root)) => {
                let mounted = nfs::mount(&root, &self.config, loader, console)?;
                self.reached(Stage::Attach, &root_name(&self.config.root));
                self.start_keeper();
                Ok(mounted)
            }
        }
    }

    fn mount(
        &mut self,
        disk: &Disk,
        partition: Option<u8>,
        is_read_only: bool,
        loader: &Loader,
    ) -> Result<String, Failure> {
        let megabytes = disk.size_bytes().unwrap_or(0) >> 20;
        let name = root_name(&self.config.root);
        self.reached(Stage::Attach, &format!("{name}, {megabytes} MiB"));
        disk::mount_root(disk, partition, is_read_only, loader)
    }

    /// Starts the keeper of a root that the kernel itself carries through outages.
    fn start_keeper(&self) {
        if let Err(error) = keeper::start(None) {
            self.console.say("attach", &format!("no signs of life will be sent: {error}"));
        }
    }

    fn hand_over(&mut self, nic: &Nic) -> Result<(), Failure> {
        let init = find_init(Path::new(ROOT), &self.command_line)?;
        for trouble in handover::write_all(&self.config, nic, &self.command_line) {
            self.console.log(&format!("bootlace: handover: {trouble}"));
        }
        self.reached(Stage::Handover, &init);
        Ok(())
    }
}

fn root_name(root: &Root) -> String {
    match root {
        Root::Nbd { server, export } => format!("NBD {server} {export}"),
        Root::Aoe { shelf, slot } => format!("AoE {shelf}.{slot}"),
        Root::Foreign(RootUrl::Nfs(root)) => format!("NFS {} {}", root.server, root.folder),
        Root::Foreign(RootUrl::Iscsi(root)) => {
            format!("iSCSI {} {} disk {}", root.portal, root.target, root.lun)
        }
    }
}

/// Loads what will be needed while the link comes up, which takes seconds on real cards.
fn preload(loader: &Arc<Loader>, root: &Root) {
    let loader = Arc::clone(loader);
    let is_nbd = matches!(root, Root::Nbd { .. });
    let is_disk = !matches!(root, Root::Foreign(RootUrl::Nfs(_)));
    std::thread::spawn(move || {
        // Whoever needs it loads it again, and says what is wrong.
        if is_nbd {
            let _ = nbd::load_driver(&loader);
        }
        if is_disk {
            let _ = loader.load("ext4", "");
        }
    });
}

fn open_loader(release: &str) -> Result<Arc<Loader>, Failure> {
    let remedy = "use kernel and initrd of the same image, as the boot server offers them";
    let loader = Loader::open().map_err(|error| {
        Failure::new(format!("the initrd has no usable list of modules: {error}"), remedy)
    })?;
    if loader.kernel() != release {
        let what = format!("the initrd is for kernel {}, but {release} runs", loader.kernel());
        return Err(Failure::new(what, remedy));
    }
    Ok(Arc::new(loader))
}

/// Programs that are tried as the real init, as the kernel does it.
const INITS: [&str; 4] = ["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"];

/// The real system's init: what the command line says, or the first one that is there.
pub(crate) fn find_init(root: &Path, command_line: &str) -> Result<String, Failure> {
    let wanted =
        command_line.split_ascii_whitespace().rev().find_map(|word| word.strip_prefix("init="));
    let is_program = |path: &str| {
        resolve(root, Path::new(path))
            .and_then(|file| fs::metadata(file).ok())
            .is_some_and(|status| status.is_file() && status.permissions().mode() & 0o111 != 0)
    };
    let candidates: Vec<&str> = match wanted {
        Some(path) => vec![path],
        None => INITS.to_vec(),
    };
    candidates.iter().find(|path| is_program(path)).map(|path| (*path).to_owned()).ok_or_else(|| {
        Failure::new(
            format!("the root disk has no {}: it is not a complete system", candidates[0]),
            "assign an image that holds an installed Linux; perhaps its root is another partition",
        )
    })
}
