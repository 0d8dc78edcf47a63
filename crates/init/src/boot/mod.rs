//! `init boot`: all the work up to a complete root below `/sysroot`.

pub(crate) mod this_machine;

use crate::boot::this_machine::ThisMachine;
use crate::boot_server::reporter::{Reporter, STATE_PATH, Target, TokenCell};
use crate::boot_server::{host_segment, kernel_log};
use crate::console::Console;
use crate::failure::Failure;
use crate::net::nic::Nic;
use crate::root::disk::Disk;
use initcfg::{BootConfig, Stage, failure_code};
use std::fs;
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
    let token = TokenCell::default();
    let host = host_segment::read(config.boot, &token);
    let mut waits = Reporter::start(target, Arc::clone(&token), SEQUENCE_WAITING);
    console.on_wait(move |text| waits.report(Stage::Waiting, text));
    let reporter = Reporter::start(target, Arc::clone(&token), 1);
    let mut machine = ThisMachine::new(console, reporter, command_line, host, token);
    match stages(&mut machine, &config) {
        Ok(()) => {
            machine.reporter.finish(LAST_REPORTS_TIMEOUT);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            show(&machine.console, Some(&config), &failure);
            machine.reporter.report(Stage::Failed, &failure.to_string());
            machine.reporter.finish(FAILURE_REPORT_TIMEOUT);
            // Before there is an address this fails at once, and the screen has said what counts.
            let log = kernel_log::read();
            let _ = kernel_log::send(config.server, config.boot, machine.token.get(), &log);
            ExitCode::FAILURE
        }
    }
}

/// Tells the person in front of the machine.
pub(crate) fn show(console: &Console, config: Option<&BootConfig>, failure: &Failure) {
    for line in explanation(config, failure) {
        console.line(&line);
    }
}

fn explanation(config: Option<&BootConfig>, failure: &Failure) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        "*** This machine can't start ***".to_owned(),
        format!("  What happened:  {}", failure.what),
        format!("  What helps:     {}", failure.remedy),
    ];
    if let Some(config) = config {
        let BootConfig { host_name, mac, address, server, .. } = config;
        let address = address.map_or_else(
            || "address by DHCP".to_owned(),
            |(address, prefix)| format!("{address}/{prefix}"),
        );
        lines.push(format!("  This machine:   {host_name}, {mac}, {address}"));
        lines.push(format!("  Boot server:    {server}"));
        let code = failure_code(config.boot, config.mac);
        lines.push(format!("  Code:           {code}, which the boot server's page shows, too"));
    }
    lines.push(String::new());
    lines
}

/// A root that can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attached {
    /// A disk.
    Disk(Disk),
    /// A folder of a server, which is mounted already; the text says what it is.
    Folder(String),
}

/// What the stages do to the machine, each whole: so that their order and their words can be tested
/// without one.
pub(crate) trait System {
    /// What finds and loads drivers.
    type Drivers;

    /// Tells people and the boot server that a stage is reached.
    fn reached(&mut self, stage: Stage, detail: &str);
    /// Release of the kernel that runs.
    fn kernel(&mut self) -> String;
    /// Loads the drivers of all hardware, now and later.
    fn load_drivers(&mut self, kernel: &str) -> Result<Self::Drivers, Failure>;
    /// Waits for the boot NIC; also returns what was found, for people.
    fn find_nic(
        &mut self,
        config: &BootConfig,
        drivers: &Self::Drivers,
    ) -> Result<(Nic, String), Failure>;
    /// Waits for the link, and loads meanwhile what this root will need; returns the interface that has the
    /// address, which is another one in a VLAN, and the link's speed, for people.
    fn bring_up(
        &mut self,
        nic: Nic,
        config: &BootConfig,
        drivers: &Self::Drivers,
    ) -> Result<(Nic, String), Failure>;
    /// Gives the NIC its address and routes; asks for them first if it has none. Returns what is known
    /// then, and the address for people.
    fn configure(
        &mut self,
        nic: &Nic,
        config: &BootConfig,
    ) -> Result<(BootConfig, String), Failure>;
    /// Stops in the rescue shell, if this boot has one, until somebody leaves it.
    fn rescue(&mut self);
    /// Attaches the root; also returns where it is and how large, for people.
    fn attach(
        &mut self,
        nic: &Nic,
        config: &BootConfig,
        drivers: &Self::Drivers,
    ) -> Result<(Attached, String), Failure>;
    /// Mounts the root file system; returns what it is, for people.
    fn mount_root(
        &mut self,
        root: &Attached,
        config: &BootConfig,
        drivers: &Self::Drivers,
    ) -> Result<String, Failure>;
    /// Writes what the real system must know; returns its init.
    fn hand_over(&mut self, nic: &Nic, config: &BootConfig) -> Result<String, Failure>;
}

/// All stages in order, up to a root that can be switched to.
fn stages<S: System>(system: &mut S, config: &BootConfig) -> Result<(), Failure> {
    let kernel = system.kernel();
    system.reached(Stage::Start, &format!("kernel {kernel}, {}", config.host_name));

    let drivers = system.load_drivers(&kernel)?;
    let (nic, found) = system.find_nic(config, &drivers)?;
    system.reached(Stage::Modules, &found);

    let (nic, speed) = system.bring_up(nic, config, &drivers)?;
    system.reached(Stage::Link, &format!("{} up{speed}", nic.name));

    let (config, address) = system.configure(&nic, config)?;
    let config = &config;
    let router = match config.router {
        Some(router) => format!(", router {router}"),
        None => String::new(),
    };
    system.reached(Stage::Address, &format!("{address}{router}"));

    system.rescue();
    let (root, found) = system.attach(&nic, config, &drivers)?;
    system.reached(Stage::Attach, &found);

    let mounted = system.mount_root(&root, config, &drivers)?;
    system.reached(Stage::Mount, &mounted);

    let init = system.hand_over(&nic, config)?;
    system.reached(Stage::Handover, &init);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which everything works up to one operation.
    #[derive(Default)]
    struct Fake {
        fails_at: &'static str,
        log: Vec<String>,
    }

    impl Fake {
        fn act(&mut self, what: &str) -> Result<(), Failure> {
            self.log.push(format!("> {what}"));
            match self.fails_at == what {
                true => Err(Failure::new(format!("{what} is broken"), "mend it")),
                false => Ok(()),
            }
        }
    }

    impl System for Fake {
        type Drivers = ();

        fn reached(&mut self, stage: Stage, detail: &str) {
            self.log.push(format!("{stage}: {detail}"));
        }

        fn kernel(&mut self) -> String {
            "6.1".to_owned()
        }

        fn load_drivers(&mut self, kernel: &str) -> Result<(), Failure> {
            self.act(&format!("drivers for {kernel}"))
        }

        fn find_nic(&mut self, config: &BootConfig, (): &()) -> Result<(Nic, String), Failure> {
            self.act(&format!("find {}", config.mac))?;
            Ok((Nic { name: "eth0".to_owned(), index: 2 }, "3 loaded".to_owned()))
        }

        fn bring_up(
            &mut self,
            nic: Nic,
            _: &BootConfig,
            (): &(),
        ) -> Result<(Nic, String), Failure> {
            self.act(&format!("link of {}", nic.name))?;
            Ok((nic, ", 1000 Mbit/s".to_owned()))
        }

        fn configure(
            &mut self,
            nic: &Nic,
            config: &BootConfig,
        ) -> Result<(BootConfig, String), Failure> {
            self.act(&format!("address for {}", nic.name))?;
            Ok((config.clone(), "10.0.0.7/24".to_owned()))
        }

        fn rescue(&mut self) {
            self.log.push("rescue shell, if there is one".to_owned());
        }

        fn attach(
            &mut self,
            _: &Nic,
            config: &BootConfig,
            (): &(),
        ) -> Result<(Attached, String), Failure> {
            self.act(&format!("attach for {}", config.host_name))?;
            let disk = Attached::Disk(Disk { name: "nbd0".to_owned() });
            Ok((disk, "NBD 10.0.0.1:10809 lab-07, 512 MiB".to_owned()))
        }

        fn mount_root(
            &mut self,
            root: &Attached,
            _: &BootConfig,
            (): &(),
        ) -> Result<String, Failure> {
            let Attached::Disk(disk) = root else { panic!("{root:?}") };
            self.act(&format!("mount {}", disk.name))?;
            Ok("ext4 on /dev/nbd0".to_owned())
        }

        fn hand_over(&mut self, _: &Nic, _: &BootConfig) -> Result<String, Failure> {
            self.act("hand over")?;
            Ok("/sbin/init".to_owned())
        }
    }

    fn config() -> BootConfig {
        let line = "bootlace.server=10.0.0.1 bootlace.boot=4 bootlace.mac=52:54:00:00:00:01 \
                    bootlace.address=10.0.0.7/24 bootlace.router=10.0.0.254 bootlace.host=lab-07 \
                    bootlace.root=nbd:10.0.0.1:10809:lab-07";
        BootConfig::parse(line).unwrap()
    }

    const BOOT: [&str; 15] = [
        "start: kernel 6.1, lab-07",
        "> drivers for 6.1",
        "> find 52:54:00:00:00:01",
        "modules: 3 loaded",
        "> link of eth0",
        "link: eth0 up, 1000 Mbit/s",
        "> address for eth0",
        "address: 10.0.0.7/24, router 10.0.0.254",
        "rescue shell, if there is one",
        "> attach for lab-07",
        "attach: NBD 10.0.0.1:10809 lab-07, 512 MiB",
        "> mount nbd0",
        "mount: ext4 on /dev/nbd0",
        "> hand over",
        "handover: /sbin/init",
    ];

    #[test]
    fn each_stage_is_reported_when_it_is_reached() {
        let mut machine = Fake::default();
        assert_eq!(stages(&mut machine, &config()), Ok(()));
        assert_eq!(machine.log, BOOT);
    }

    #[test]
    fn nothing_is_done_or_reported_after_a_failure_which_is_explained() {
        let operations = BOOT.iter().enumerate();
        for (at, operation) in
            operations.filter_map(|(at, line)| Some((at, line.strip_prefix("> ")?)))
        {
            let mut machine = Fake { fails_at: operation, log: Vec::new() };
            let failure = stages(&mut machine, &config()).unwrap_err();
            assert_eq!(machine.log, BOOT[..=at]);
            let screen = explanation(Some(&config()), &failure).join("\n");
            for text in [&format!("{operation} is broken"), "mend it", "lab-07, 52:54", "10.0.0.1"]
            {
                assert!(screen.contains(text), "{screen}");
            }
        }
    }
}
