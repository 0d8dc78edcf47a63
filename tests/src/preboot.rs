//! Firmware and loader of a PC, played by foreign programs: a boot without their half minute.

use crate::command::{run, text_of};
use crate::lan::{Client, SERVER};
use crate::site::Site;
use crate::vmlinux::unpacked;
use anyhow::{Context, Result};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What udhcpc calls at each step; it takes the address.
const SCRIPT: &str =
    "#!/bin/sh\n[ $1 = bound ] && ip address replace $ip/$mask dev $interface\nexit 0\n";

const SCRIPT_FILE: &str = "script";

/// How long the boot server may take until the machine may boot: its initrd may be in the works.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// The list of modules in an initrd.
const INDEX: &str = "lib/bootlace/modules";

/// A PC before its kernel runs. It has the PC's MAC: drop it before the PC is switched on.
pub struct Preboot {
    client: Client,
    folder: Arc<TempDir>,
    has_segment: bool,
}

/// What a loader puts into memory.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The kernel itself.
    pub image: PathBuf,
    /// Its initrd.
    pub initrd: PathBuf,
    /// Its command line.
    pub command_line: String,
    /// Where the files are.
    folders: Vec<Arc<TempDir>>,
}

impl Preboot {
    /// Asks for an address as a BIOS does, which opens a boot.
    ///
    /// # Errors
    /// There is no lease, or udhcpc is missing.
    pub fn start(site: &Site, mac: &str) -> Result<Self> {
        let preboot = Self::plug_in(site, mac)?;
        preboot.power_on()?;
        Ok(preboot)
    }

    /// A PC that is plugged in, and off.
    ///
    /// # Errors
    /// `ip` fails, or there is no room for files.
    pub fn plug_in(site: &Site, mac: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bootlace-preboot-").tempdir()?;
        let script = folder.path().join(SCRIPT_FILE);
        std::fs::write(&script, SCRIPT)?;
        std::fs::set_permissions(&script, Permissions::from_mode(0o755))?;
        let client = site.lan().add_client("preboot", mac)?;
        Ok(Self { client, folder: Arc::new(folder), has_segment: true })
    }

    /// Asks for an address as a BIOS does, which opens a boot. An answer that does not come is asked for again each
    /// second.
    ///
    /// # Errors
    /// There is no lease, or udhcpc is missing.
    pub fn power_on(&self) -> Result<()> {
        self.asks_for_address(&["-V", "PXEClient:Arch:00000:UNDI:002001", "-x", "0x5d:0000"])
    }

    /// Asks for an address as a loader does that is no firmware, from a boot medium.
    ///
    /// # Errors
    /// As [`Preboot::power_on`].
    pub fn starts_from_medium(&self) -> Result<()> {
        self.asks_for_address(&[])
    }

    fn asks_for_address(&self, options: &[&str]) -> Result<()> {
        let mut udhcpc = self.client.command("udhcpc");
        udhcpc.args(["-f", "-n", "-q", "-i", "eth0", "-t", "10", "-T", "1"]).args(options);
        run(udhcpc.arg("-s").arg(self.folder.path().join(SCRIPT_FILE)))
            .context("the PC gets no address")
    }

    /// The PC's place on the LAN, with the PC's address.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Loses what only this boot gets, as some loaders do.
    #[must_use]
    pub fn without_host_segment(self) -> Self {
        Self { has_segment: false, ..self }
    }

    /// The secret of this boot, out of what [`fetch`](Self::fetch) has fetched last, in hexadecimal digits.
    ///
    /// # Errors
    /// Nothing was fetched, or there is no secret in it.
    pub fn secret(&self) -> Result<String> {
        let segment = self.segment()?;
        let text = String::from_utf8_lossy(&segment);
        let secret = text.lines().find_map(|line| line.strip_prefix("token="));
        secret.map(str::to_owned).context("the host segment holds no secret")
    }

    /// What GRUB is told now: what to boot, or what it shows while it waits.
    ///
    /// # Errors
    /// It can't be fetched.
    pub fn config(&self) -> Result<String> {
        self.curl(&format!("tftp://{SERVER}/grub/machine.cfg"), "-")
    }

    /// What only this boot gets, as it came over the network when [`fetch`](Self::fetch) fetched it last.
    ///
    /// # Errors
    /// Nothing was fetched.
    pub fn segment(&self) -> Result<Vec<u8>> {
        Ok(std::fs::read(self.folder.path().join("segment"))?)
    }

    /// Fetches what GRUB would, with the kernel ready for QEMU; the boot server prepares the root disk.
    ///
    /// # Errors
    /// The machine has to wait in the loader; the error shows what it would show.
    pub fn fetch(&self) -> Result<Kernel> {
        let kernel = self.load()?;
        Ok(Kernel { image: unpacked(&kernel.image)?, ..kernel })
    }

    /// Fetches what GRUB would; the kernel stays as it comes.
    ///
    /// # Errors
    /// As [`Preboot::fetch`].
    pub fn load(&self) -> Result<Kernel> {
        let deadline = Instant::now() + READY_TIMEOUT;
        let (kernel, arguments, initrd, behind) = loop {
            let config = self.config()?;
            if let Some(Started { kernel, arguments, initrd, behind }) = Started::by(&config) {
                break (kernel, arguments, initrd, behind);
            }
            anyhow::ensure!(Instant::now() < deadline, "the loader waits:\n{config}");
            std::thread::sleep(Duration::from_millis(300));
        };
        let files = Kernel {
            image: self.folder.path().join("vmlinuz"),
            initrd: self.folder.path().join("initrd"),
            command_line: arguments,
            folders: vec![Arc::clone(&self.folder)],
        };
        for (path, file) in [(&kernel, &files.image), (&initrd, &files.initrd)] {
            self.curl(&format!("http://{SERVER}{path}"), &file.to_string_lossy())?;
        }
        for path in behind.iter().filter(|_| self.has_segment) {
            let segment = self.folder.path().join("segment");
            self.curl(&format!("http://{SERVER}{path}"), &segment.to_string_lossy())?;
            // Ours are a multiple of 4 bytes long, so that there is nothing to pad as GRUB does it.
            let mut initrd = std::fs::OpenOptions::new().append(true).open(&files.initrd)?;
            std::io::copy(&mut std::fs::File::open(segment)?, &mut initrd)?;
        }
        Ok(files)
    }

    /// Fetches this URL; `-` as `output` returns it.
    ///
    /// # Errors
    /// It does not come within a minute.
    pub fn curl(&self, url: &str, output: &str) -> Result<String> {
        let mut curl = self.client.command("curl");
        curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "60"]);
        text_of(curl.args(["--output", output, url])).with_context(|| format!("can't fetch {url}"))
    }
}

impl Kernel {
    /// Of files that stay where they are.
    pub fn of_files(image: PathBuf, initrd: PathBuf, command_line: String) -> Self {
        Self { image, initrd, command_line, folders: Vec::new() }
    }

    /// The same with its files in this folder, which goes with it.
    #[must_use]
    pub fn keeping(mut self, folder: TempDir) -> Self {
        self.folders.push(Arc::new(folder));
        self
    }

    /// This kernel with an initrd whose index of modules is another one.
    ///
    /// # Errors
    /// There is no index, or busybox is missing.
    pub fn with_index(&self, change: impl FnOnce(&str) -> String) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bootlace-initrd-").tempdir()?;
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh"]).arg(&self.initrd).arg(INDEX);
            text_of(command.current_dir(folder.path()))
        };
        // The index is in the first segment; what follows is no zstd, which the program objects to.
        let index = shell("zstd -dcq <\"$1\" 2>/dev/null | busybox cpio -i --to-stdout \"$2\"")?;
        anyhow::ensure!(!index.is_empty(), "the initrd has no {INDEX}");
        let file = folder.path().join(INDEX);
        std::fs::create_dir_all(file.parent().context("it is in a folder")?)?;
        std::fs::write(file, change(&index) + "\n")?;
        // What comes later in an initrd wins.
        shell("cp \"$1\" initrd && echo \"$2\" | busybox cpio -o -H newc >>initrd")?;
        let initrd = folder.path().join("initrd");
        let mut changed = Self { initrd, ..self.clone() };
        changed.folders.push(Arc::new(folder));
        Ok(changed)
    }
}

/// What a configuration for GRUB starts, by the paths of its files at the boot server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The kernel.
    pub kernel: String,
    /// Its command line.
    pub arguments: String,
    /// The initrd.
    pub initrd: String,
    /// What comes behind the initrd, for this boot only.
    pub behind: Vec<String>,
}

impl Started {
    /// `None`: it waits.
    pub fn by(config: &str) -> Option<Self> {
        let (kernel, arguments) = command(config, "linux")?;
        let (initrd, behind) = command(config, "initrd")?;
        let behind = behind.split(' ').filter_map(path_of).map(str::to_owned).collect();
        Some(Self { kernel, arguments, initrd, behind })
    }
}

/// Path and arguments of the first such command in a configuration for GRUB.
fn command(config: &str, name: &str) -> Option<(String, String)> {
    let line = config.lines().find_map(|line| line.strip_prefix(&format!("if ! {name} ")))?;
    let line = line.strip_suffix("; then")?;
    let (file, arguments) = line.split_once(' ').unwrap_or((line, ""));
    // GRUB's quotes, around words without quotes in them.
    Some((path_of(file)?.to_owned(), arguments.replace('\'', "")))
}

/// The path out of `(http,SERVER)PATH`.
fn path_of(file: &str) -> Option<&str> {
    file.split_once(')').map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::{command, path_of};

    #[test]
    fn commands_for_grub_are_understood() {
        let config = "echo 'x'\nif ! linux (http,10.77.0.1)/boot/a/1/vmlinuz 'a=1' 'b=2'; then\n  \
                      echo 'no'\nfi\nif ! initrd (http,10.77.0.1)/boot/a/1/initrd (http,10.77.0.1)/boot/host/7; then\n";
        let found = |path: &str, arguments: &str| Some((path.to_owned(), arguments.to_owned()));
        assert_eq!(command(config, "linux"), found("/boot/a/1/vmlinuz", "a=1 b=2"));
        assert_eq!(
            command(config, "initrd"),
            found("/boot/a/1/initrd", "(http,10.77.0.1)/boot/host/7")
        );
        assert_eq!(path_of("(http,10.77.0.1)/boot/host/7"), Some("/boot/host/7"));
        assert_eq!(command("echo 'waits'\n", "linux"), None);
    }
}
