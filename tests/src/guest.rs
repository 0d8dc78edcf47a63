//! A small system of this host's programs on the kernel of an image, in the memory of a QEMU PC: for what the kernel of this host
//! can't do, or not everywhere.

use crate::command::{run, text_of};
use crate::preboot::Kernel;
use crate::vmlinux::unpacked;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What runs first. Kernel modules, and then what the test wants, come behind it.
const BEGIN: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
echo 1 >/proc/sys/kernel/panic
exec </dev/ttyS0 >/dev/ttyS0 2>&1
";

/// Files of such a system, until it is [finished](Self::with_script).
pub struct Guest {
    root: TempDir,
    image: PathBuf,
    modules: Vec<String>,
}

impl Guest {
    /// One with the kernel of this image, and busybox.
    ///
    /// # Errors
    /// busybox is missing, or there is no room.
    pub fn new(image: &Path) -> Result<Self> {
        let root = tempfile::Builder::new().prefix("bootlace-guest-").tempdir()?;
        for folder in ["bin", "dev", "proc", "sys", "run", "tmp", "etc", "sbin", "modules"] {
            std::fs::create_dir_all(root.path().join(folder))?;
        }
        std::fs::copy("/usr/bin/busybox", root.path().join("bin/busybox"))?;
        Ok(Self { root, image: image.to_owned(), modules: Vec::new() })
    }

    /// Adds a program of this host, or of ours, with the libraries that it needs.
    ///
    /// # Errors
    /// It is missing.
    pub fn program(&self, from: &Path, to: &str) -> Result<()> {
        let target = self.place(to)?;
        run(Command::new("strip").args(["--strip-debug", "-o"]).arg(&target).arg(from))?;
        let needed = text_of(Command::new("ldd").arg(from)).unwrap_or_default();
        let libraries: BTreeSet<&str> =
            needed.split_whitespace().filter(|word| word.starts_with('/')).collect();
        for library in libraries {
            let target = self.place(library)?;
            std::fs::copy(library, target).with_context(|| library.to_owned())?;
        }
        Ok(())
    }

    /// Adds a folder of this host.
    ///
    /// # Errors
    /// It is missing.
    pub fn folder(&self, folder: &str) -> Result<()> {
        let target = self.place(folder)?;
        run(Command::new("cp").args(["-a", folder]).arg(target))
    }

    /// Adds a file.
    ///
    /// # Errors
    /// It can't be written.
    pub fn file(&self, path: &str, text: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let target = self.place(path)?;
        std::fs::write(&target, text)?;
        Ok(std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o755))?)
    }

    /// Adds a module of the image's kernel, by its path below `kernel/`, with those that it needs. It is there as
    /// `/modules/NAME.ko`; those that it needs are loaded at the start, and itself if `is_loaded`.
    ///
    /// # Errors
    /// The image has none.
    pub fn module(&mut self, path: &str, is_loaded: bool) -> Result<()> {
        let folder = self.modules_folder()?;
        let index = self.debugfs(&format!("cat {folder}/modules.dep"))?;
        let wanted = format!("kernel/{path}.ko");
        let needed = index.lines().find_map(|line| line.strip_prefix(&format!("{wanted}:")));
        let needed = needed.with_context(|| format!("the image's kernel has no module {path}"))?;
        // What is needed first stands last.
        let mut all: Vec<&str> = needed.split_whitespace().rev().collect();
        all.push(&wanted);
        for module in all {
            let name = module.rsplit('/').next().unwrap_or_default();
            let place = format!("/modules/{name}");
            let target = self.place(&place)?;
            if !target.exists() {
                self.debugfs(&format!("dump {folder}/{module} {}", target.display()))?;
                ensure!(target.exists(), "the image has no {module}");
            }
            if (is_loaded || module != wanted) && !self.modules.contains(&place) {
                self.modules.push(place);
            }
        }
        Ok(())
    }

    /// The kernel and the system that runs this script of busybox's shell, and then switches the PC off.
    ///
    /// # Errors
    /// The image has no kernel, or there is no room.
    pub fn with_script(self, script: &str) -> Result<Kernel> {
        let load: String = self.modules.iter().map(|it| format!("insmod {it}\n")).collect();
        self.file("/init", &format!("{BEGIN}{load}{script}\nsync\npoweroff -f\n"))?;
        let listed = self.debugfs("ls -p /boot")?;
        let kernel = listed.split('/').find(|name| name.starts_with("vmlinuz-"));
        let kernel = kernel.context("the image has no kernel")?.to_owned();
        let folder = tempfile::Builder::new().prefix("bootlace-guest-").tempdir()?;
        let (image, initrd) = (folder.path().join("vmlinuz"), folder.path().join("initrd"));
        self.debugfs(&format!("dump /boot/{kernel} {}", image.display()))?;
        let pack = "find . | busybox cpio -o -H newc >\"$1\" 2>/dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", pack, "sh"]).arg(&initrd).current_dir(self.root.path());
        run(&mut command)?;
        let command_line = "console=ttyS0,115200 quiet rdinit=/init".to_owned();
        Ok(Kernel::of_files(unpacked(&image)?, initrd, command_line).keeping(folder))
    }

    fn modules_folder(&self) -> Result<String> {
        let listed = self.debugfs("ls -p /lib/modules")?;
        let version = listed.split('/').find(|name| name.ends_with("-amd64"));
        Ok(format!("/lib/modules/{}", version.context("the image has no modules")?))
    }

    fn debugfs(&self, request: &str) -> Result<String> {
        text_of(Command::new("debugfs").args(["-R", request]).arg(&self.image))
    }

    fn place(&self, path: &str) -> Result<PathBuf> {
        let place = self.root.path().join(path.trim_start_matches('/'));
        if let Some(folder) = place.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(place)
    }
}
