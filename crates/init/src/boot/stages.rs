//! The stages of a boot, in their order.

use crate::failure::Failure;
use crate::net::nic::Nic;
use crate::root::Attached;
use initcfg::{BootConfig, CaptureEnd, CaptureOrder, Stage};

/// What the stages do to the machine, each whole: so that their order and their words can be tested
/// without one.
pub(super) trait System {
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
    /// Sends what is on the PC's own disks to the boot server.
    fn capture(
        &mut self,
        order: &CaptureOrder,
        config: &BootConfig,
        drivers: &Self::Drivers,
    ) -> Result<(), Failure>;
    /// Mounts the root file system; returns what it is, for people.
    fn mount_root(
        &mut self,
        root: &Attached,
        config: &BootConfig,
        drivers: &Self::Drivers,
    ) -> Result<String, Failure>;
    /// Makes usable what this boot has beside its root: further disks, and swap space; returns what that is, for people.
    fn prepare_disks(
        &mut self,
        config: &BootConfig,
        drivers: &Self::Drivers,
    ) -> Result<String, Failure>;
    /// Lays over the root what is to be otherwise in it, and writes what the real system must know; returns its init, for people.
    fn hand_over(&mut self, nic: &Nic, config: &BootConfig) -> Result<String, Failure>;
}

/// How a boot ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// There is a root to switch to.
    Root,
    /// All that was to be captured is sent.
    Captured(CaptureEnd),
}

/// All stages in order, up to a root that can be switched to.
pub(super) fn run<S: System>(system: &mut S, config: &BootConfig) -> Result<Reached, Failure> {
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
    // Attached when it is captured, too: by its disk a boot proves itself, and has its secret by TLS where roots come so.
    let (root, found) = system.attach(&nic, config, &drivers)?;
    if let Some(order) = &config.capture {
        system.capture(order, config, &drivers)?;
        return Ok(Reached::Captured(order.then));
    }
    system.reached(Stage::Attach, &found);

    let mounted = system.mount_root(&root, config, &drivers)?;
    system.reached(Stage::Mount, &mounted);

    // Before anything is laid over the root: what is laid into their folders must not be hidden by them.
    let disks = system.prepare_disks(config, &drivers)?;
    let init = system.hand_over(&nic, config)?;
    system.reached(Stage::Handover, &format!("{init}{disks}"));
    Ok(Reached::Root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::disk::Disk;

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
                true => Err(Failure::new(format!("{what} is broken"), "fix it")),
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

        fn capture(
            &mut self,
            order: &CaptureOrder,
            _: &BootConfig,
            (): &(),
        ) -> Result<(), Failure> {
            self.act(&format!("capture {order}"))
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

        fn prepare_disks(&mut self, _: &BootConfig, (): &()) -> Result<String, Failure> {
            self.act("further disks")?;
            Ok(", disks: home".to_owned())
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

    const BOOT: [&str; 16] = [
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
        "> further disks",
        "> hand over",
        "handover: /sbin/init, disks: home",
    ];

    #[test]
    fn each_stage_is_reported_when_it_is_reached() {
        let mut machine = Fake::default();
        assert_eq!(run(&mut machine, &config()), Ok(Reached::Root));
        assert_eq!(machine.log, BOOT);
    }

    #[test]
    fn what_is_captured_is_not_mounted_and_nothing_is_started() {
        let capture = Some("poweroff,disk=sda2".parse().unwrap());
        let config = BootConfig { capture, ..config() };
        let mut machine = Fake::default();
        assert_eq!(run(&mut machine, &config), Ok(Reached::Captured(CaptureEnd::PowerOff)));
        let attach = BOOT.iter().position(|line| *line == "> attach for lab-07").unwrap();
        let expected = [&BOOT[..=attach], &["> capture poweroff,disk=sda2"]].concat();
        assert_eq!(machine.log, expected);
        let mut machine = Fake { fails_at: "capture poweroff,disk=sda2", log: Vec::new() };
        let failure = run(&mut machine, &config).unwrap_err();
        let screen = failure.explanation(Some(&config)).join("\n");
        assert!(screen.contains("can't be captured") && screen.contains("is broken"), "{screen}");
    }

    #[test]
    fn nothing_is_done_or_reported_after_a_failure_which_is_explained() {
        let operations = BOOT.iter().enumerate();
        for (at, operation) in
            operations.filter_map(|(at, line)| Some((at, line.strip_prefix("> ")?)))
        {
            let mut machine = Fake { fails_at: operation, log: Vec::new() };
            let failure = run(&mut machine, &config()).unwrap_err();
            assert_eq!(machine.log, BOOT[..=at]);
            let screen = failure.explanation(Some(&config())).join("\n");
            for text in [&format!("{operation} is broken"), "fix it", "lab-07, 52:54", "10.0.0.1"] {
                assert!(screen.contains(text), "{screen}");
            }
        }
    }
}
