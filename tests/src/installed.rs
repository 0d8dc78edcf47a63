//! A server on which Bootlace is installed from its Debian package.

use crate::command::{run, text_of};
use crate::container::Container;
use crate::image::Release;
use crate::lan::Lan;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The units that the package brings.
pub const UNITS: [&str; 3] = ["bootlace.target", "bootlace.service", "bootlace-storage.service"];

/// What `systemd-analyze security` may give each server at most, in tenths: 100 is a process that may do everything.
const EXPOSURE_MAX: &str = "--threshold=25";

/// How long servers may take to start: a debug build makes loaders first.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The addresses that are leased on a [`Lan`].
const POOL: &str = "10.77.0.100-10.77.0.199";

/// What a virtual PC needs besides.
const BOOT: &str = "\n[boot]\nkernel_args = \"console=tty0 console=ttyS0,115200\"\n";

/// The server, and what is known of the package.
pub struct Installed {
    server: Container,
    package: PathBuf,
    version: String,
}

/// What is done now and then: reading images as a whole, and backups.
const JOBS: [&str; 2] = ["bootlace-verify.service", "bootlace-backup.service"];

/// When, or for whom.
const TIMERS: [&str; 3] =
    ["bootlace-verify.timer", "bootlace-backup.timer", "bootlace-builder.socket"];

impl Installed {
    /// Installs the package on a new server.
    ///
    /// # Errors
    /// There is no such server here, or dpkg fails.
    pub fn on(release: Release, lan: &Lan, package: &Path, say: impl Fn(&str)) -> Result<Self> {
        let server = Container::start(release, lan, say)?;
        let field = ["--field"].map(str::to_owned);
        let version = text_of(Command::new("dpkg-deb").args(field).arg(package).arg("Version"))?;
        let version = version.trim().to_owned();
        let installed = Self { server, package: package.to_owned(), version };
        installed.install()?;
        Ok(installed)
    }

    /// The server.
    pub fn server(&self) -> &Container {
        &self.server
    }

    /// Installs the package again, which is an upgrade to the same version if it is there already.
    ///
    /// # Errors
    /// dpkg fails.
    pub fn install(&self) -> Result<()> {
        self.dpkg_install(&self.package)
    }

    /// Installs the same package as another version: an upgrade, or the way back.
    ///
    /// # Errors
    /// It can't be packed again, or dpkg fails.
    pub fn install_as(&self, version: &str) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let tree = folder.path().join("tree");
        run(Command::new("dpkg-deb").arg("--raw-extract").arg(&self.package).arg(&tree))?;
        let control = tree.join("DEBIAN/control");
        let text = fs::read_to_string(&control)?;
        let (old, new) = (format!("Version: {}\n", self.version), format!("Version: {version}\n"));
        ensure!(text.contains(&old), "the package has another version: {text}");
        fs::write(&control, text.replace(&old, &new))?;
        let other = folder.path().join("other.deb");
        run(Command::new("dpkg-deb")
            .args(["-Zgzip", "-z1", "--root-owner-group", "--build"])
            .args([&tree, &other]))?;
        self.dpkg_install(&other)?;
        let said =
            self.server.run(&["dpkg-query", "--show", "--showformat=${Version}", "bootlace"])?;
        ensure!(said == version, "{version} is not installed, but {said}");
        Ok(())
    }

    fn dpkg_install(&self, package: &Path) -> Result<()> {
        let inside = "/root/bootlace.deb";
        fs::copy(package, self.server.path(inside)).context("can't copy the package")?;
        self.server.run(&["dpkg", "--install", inside]).map(drop)
    }

    /// Nothing has failed.
    ///
    /// # Errors
    /// Something has.
    pub fn check_health(&self) -> Result<()> {
        let failed = self.server.ask(&["systemctl", "--failed", "--no-legend", "--plain"])?;
        ensure!(failed.trim().is_empty(), "failed: {failed}");
        let state = self.server.ask(&["systemctl", "is-system-running"])?;
        ensure!(state.trim() == "running", "the server is {state}");
        Ok(())
    }

    /// systemd finds nothing wrong with the units, and little that they could do without.
    ///
    /// # Errors
    /// It does.
    pub fn check_units(&self) -> Result<String> {
        let verify = ["systemd-analyze", "verify", "--man=no"];
        let verify = [&verify[..], &UNITS, &JOBS, &TIMERS].concat();
        let output = self.server.command(&verify).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success() && !said.contains("bootlace"), "{said}");
        let mut exposures = Vec::new();
        for unit in UNITS[1..].iter().chain(&JOBS) {
            let path = format!("/usr/lib/systemd/system/{unit}");
            let security =
                ["systemd-analyze", "security", "--offline=yes", "--no-pager", EXPOSURE_MAX, &path];
            let said = self.server.run(&security)?;
            let line = said.lines().find(|line| line.contains("exposure level"));
            let number = line.and_then(|line| {
                line.split_whitespace().find(|it| it.contains('.') && it.parse::<f64>().is_ok())
            });
            exposures.push(format!("{unit} {}", number.with_context(|| said.clone())?));
        }
        Ok(exposures.join(", "))
    }

    /// Who listens on the server.
    ///
    /// # Errors
    /// `ss` fails.
    pub fn listeners(&self) -> Result<String> {
        self.server.run(&[
            "ss",
            "--no-header",
            "--listening",
            "--tcp",
            "--udp",
            "--packet",
            "--numeric",
        ])
    }

    /// Sets Bootlace up, as a script would; the servers serve then.
    ///
    /// # Errors
    /// It is refused, or they don't start; the error shows the journal's end.
    pub fn set_up(&self) -> Result<()> {
        let network = ["--interface", "br0", "--pool", POOL, "--router", "none"];
        self.server.run(&[&["bootlace", "setup", "--yes"][..], &network].concat())?;
        self.wait_for_servers()
    }

    /// The same, with a configuration for virtual PCs.
    ///
    /// # Errors
    /// As [`set_up`](Self::set_up).
    pub fn configure(&self) -> Result<()> {
        self.set_up()?;
        let path = self.server.path("/etc/bootlace/bootlace.toml");
        let written = fs::read_to_string(&path)?;
        fs::write(path, written + BOOT)?;
        self.server.run(&["bootlace", "check"])?;
        self.server.run(&["systemctl", "restart", "bootlace.target"])?;
        self.wait_for_servers()
    }

    /// Waits until both servers serve.
    ///
    /// # Errors
    /// They don't; the error shows the journal's end.
    pub fn wait_for_servers(&self) -> Result<()> {
        self.server.wait_until("starts Bootlace", START_TIMEOUT, |server| {
            UNITS.iter().chain(&TIMERS).all(|unit| {
                let state = server.ask(&["systemctl", "is-active", unit]);
                state.is_ok_and(|state| state.trim() == "active")
            })
        })
    }

    /// The process of a unit; 0 if there is none.
    ///
    /// # Errors
    /// systemctl fails.
    pub fn process(&self, unit: &str) -> Result<u32> {
        let said =
            self.server.run(&["systemctl", "show", "--property=MainPID", "--value", unit])?;
        Ok(said.trim().parse()?)
    }
}
