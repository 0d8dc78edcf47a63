//! The Debian package on a server of its own: nothing answers before it is configured, and nobody notices an upgrade.

use anyhow::{Context, Result, ensure};
use lab::{Installed, Knocker, Lan, Need, Release, SERVER, require};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What the client says first: to NBD nothing, as the server speaks first.
const NBD: (&str, u16, &[u8]) = (SERVER, 10809, b"");
const PAGES: (&str, u16, &[u8]) =
    ("127.0.0.1", 8080, b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n");

/// The package to install: `cargo xtask test` makes it.
fn package() -> Option<PathBuf> {
    std::env::var_os("BOOTLACE_DEB").map(PathBuf::from)
}

#[test]
fn the_package_installs_upgrades_and_goes() {
    let needs =
        [Need::Root, Need::SlowTests, Need::Variable("BOOTLACE_DEB"), Need::Program("lintian")];
    if require("package", &needs) {
        let package = package().expect("it is needed");
        lives(&package).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn lives(package: &Path) -> Result<()> {
    std::thread::scope(|scope| {
        let judge = scope.spawn(|| lintian(package));
        let lived = on_a_server(package);
        let judged = judge.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        lived.and(judged)
    })
}

fn on_a_server(package: &Path) -> Result<()> {
    let lan = Lan::lay("package")?;
    let nobody = |installed: &Installed| -> Result<()> {
        let listeners = installed.listeners()?;
        ensure!(listeners.trim().is_empty(), "somebody answers: {listeners}");
        installed.check_health()
    };
    let installed = Installed::on(Release::Debian12, &lan, package, |text| eprintln!("{text}"))?;
    nobody(&installed).context("after the installation")?;
    let journal = installed.server().run(&["journalctl", "--no-pager", "--unit=bootlace"])?;
    ensure!(journal.contains("not configured yet"), "{journal}");
    installed.check_units()?;
    // As a conffile it would have dpkg ask at an upgrade, once setup has written it.
    let conffiles = ["dpkg-query", "--show", "--showformat=${Conffiles}", "bootlace"];
    let conffiles = installed.server().run(&conffiles)?;
    ensure!(conffiles.trim().is_empty(), "dpkg asks what to do about {conffiles}");
    for page in ["bootlace", "bootlace-machine-set"] {
        let path = format!("/usr/share/man/man1/{page}.1.gz");
        ensure!(installed.server().path(&path).exists(), "there is no {path}");
    }
    installed.server().run(&["bash", "-n", "/usr/share/bash-completion/completions/bootlace"])?;

    installed.set_up_on_page(&lan)?;
    let undone = installed.server().run(&["bootlace", "setup", "--undo"])?;
    ensure!(undone.contains("answers nobody"), "{undone}");
    nobody(&installed).context("after the setup was undone")?;
    installed.configure()?;
    let machine = ["bootlace", "machine", "set", "lab-07", "--mac", "52:54:00:00:00:01"];
    installed.follow_logs("machine stored", || installed.server().run(&machine).map(drop))?;
    has_only_its_rights(&installed)?;
    upgrades(&installed, &lan)?;
    hangs(&installed)?;
    installed.server().run(&["systemctl", "start", "bootlace-backup.service"])?;
    let backups = installed.server().path("/var/backups/bootlace");
    ensure!(fs::read_dir(&backups)?.count() == 1, "there is no backup");
    installed.check_health()?;

    installed.server().run(&["dpkg", "--remove", "bootlace"])?;
    nobody(&installed).context("after the removal")?;
    let state = installed.server().path("/var/lib/bootlace/state.db");
    ensure!(state.exists(), "the database is gone with the package");
    installed.install()?;
    installed.wait_for_servers().context("with the configuration that was kept")?;
    let machines = installed.server().run(&["bootlace", "machine", "ls"])?;
    ensure!(machines.contains("lab-07"), "{machines}");
    let aside = installed.server().path("/etc/bootlace");
    let is_aside = |name: &str| name.starts_with("bootlace.toml.");
    let mut names = fs::read_dir(aside)?.filter_map(|it| it.ok()?.file_name().into_string().ok());
    ensure!(names.any(|name| is_aside(&name)), "setup has put nothing aside");

    installed.server().run(&["dpkg", "--purge", "bootlace"])?;
    ensure!(state.exists(), "nobody has said that images may go");
    ensure!(!installed.server().path("/etc/bootlace").exists(), "the configuration is there");
    installed.install()?;
    nobody(&installed).context("installed again")?;
    let yes = "echo bootlace bootlace/purge-images boolean true | debconf-set-selections";
    installed.server().run(&["sh", "-c", yes])?;
    installed.server().run(&["dpkg", "--purge", "bootlace"])?;
    ensure!(
        !installed.server().path("/var/lib/bootlace").exists(),
        "images shall go, and are there"
    );
    ensure!(!backups.exists(), "backups have the secrets of what went");
    installed.check_health()
}

/// Both servers are the user, with two capabilities.
fn has_only_its_rights(installed: &Installed) -> Result<()> {
    for unit in ["bootlace.service", "bootlace-storage.service"] {
        let path = format!("/proc/{}/status", installed.process(unit)?);
        let status = fs::read_to_string(installed.server().path(&path))?;
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
            line.unwrap_or_default().to_owned()
        };
        ensure!(!value("Uid").starts_with("0\t"), "{unit} is root");
        // CAP_NET_BIND_SERVICE and CAP_NET_RAW.
        for set in ["CapEff", "CapBnd"] {
            ensure!(value(set) == "0000000000002400", "{unit} has {set} {}", value(set));
        }
        ensure!(value("Seccomp") == "2", "{unit} may call everything");
    }
    Ok(())
}

/// Whoever connects while the package is upgraded, or goes back, waits, and is served.
fn upgrades(installed: &Installed, lan: &Lan) -> Result<()> {
    let knock = |(host, port, question): (&str, u16, &'static [u8])| {
        Knocker::start(lan.netns(), SocketAddr::new(host.parse()?, port), question)
    };
    let knockers = [knock(NBD)?, knock(PAGES)?];
    for version in ["9999", "0.0.1"] {
        let before = processes(installed)?;
        installed.install_as(version)?;
        installed.wait_for_servers()?;
        let after = processes(installed)?;
        ensure!(before[0] != after[0] && before[1] != after[1], "{before:?} {after:?}");
    }
    for knocker in knockers {
        let knocked = knocker.stop()?;
        ensure!(knocked.n_refused == 0 && knocked.n_answered > 20, "{knocked:?}");
    }
    let machines = installed.server().run(&["bootlace", "machine", "ls"])?;
    ensure!(machines.contains("lab-07"), "{machines}");
    installed.install()
}

fn processes(installed: &Installed) -> Result<[u32; 2]> {
    Ok([installed.process("bootlace.service")?, installed.process("bootlace-storage.service")?])
}

/// A server that hangs is ended, and comes back.
fn hangs(installed: &Installed) -> Result<()> {
    let server = installed.server();
    for unit in ["bootlace.service", "bootlace-storage.service"] {
        let folder = server.path(&format!("/run/systemd/system/{unit}.d"));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("soon.conf"), "[Service]\nWatchdogSec=6\nWatchdogSignal=SIGKILL\n")?;
    }
    server.run(&["systemctl", "daemon-reload"])?;
    server.run(&["systemctl", "restart", "bootlace-storage", "bootlace"])?;
    // Whoever gives signs of life goes on.
    std::thread::sleep(Duration::from_secs(8));
    installed.wait_for_servers()?;
    let before = processes(installed)?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(processes(installed)? == before, "a server that is well was ended");
    for process in before {
        server.run(&["sh", "-c", &format!("kill -STOP {process}")])?;
    }
    server.wait_until("restarts servers that hang", Duration::from_secs(60), |_| {
        processes(installed)
            .is_ok_and(|now| now.iter().zip(before).all(|(now, old)| *now != 0 && *now != old))
    })?;
    installed.wait_for_servers()
}

/// The judge of Debian packages.
fn lintian(package: &Path) -> Result<()> {
    let output = Command::new("lintian").args(["--fail-on", "error"]).arg(package).output()?;
    let said = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    ensure!(output.status.success(), "{}", said.concat());
    Ok(())
}
