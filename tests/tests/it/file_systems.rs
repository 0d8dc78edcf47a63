//! Roots on every file system that init knows, written by the file system's own program.

use crate::boot::{SHUTDOWN, can_boot};
use crate::machine_disk::with_disk;
use anyhow::{Context, Result, ensure};
use lab::{Daemon, Lan, Need, Pc, PcSlots, Preboot, Recipe, Site, require, run, text_of};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// From power-on to the shell: 6 s on an idle machine.
const BOOT: Duration = Duration::from_secs(120);

const MAC: &str = "52:54:00:00:00:01";

/// A whole system. On btrfs it moves into a subvolume when it runs for the first time.
const INIT: &str = "#!/bin/busybox sh
busybox=/bin/busybox
echo \"a root on $($busybox grep ' / ' /proc/mounts | $busybox cut -d' ' -f3)\"
echo written >/file
$busybox sync
echo \"it was $($busybox cat /file)\"
if [ -x /bin/btrfs ] && ! [ -d /root/usr ]; then
    /bin/btrfs subvolume create /root >/dev/null
    $busybox cp -a /bin /lib /lib64 /sbin /usr /root
    $busybox mkdir /root/dev /root/proc /root/run /root/sys /root/tmp
    $busybox rm -rf /usr /sbin && echo moved
fi
$busybox sync
$busybox poweroff -f
";

#[test]
fn a_root_may_have_any_of_the_usual_file_systems() {
    let name = "filesystems";
    let programs = ["mkfs.btrfs", "mkfs.erofs", "mkfs.xfs", "mksquashfs", "udhcpc"];
    if can_boot(name) && require(name, &programs.map(Need::Program)) {
        all(name).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn all(name: &str) -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let room = Room::set_up(name)?;
    let folder = room.folder.path();
    let tree = tree(folder)?;
    let file = folder.join("disk");

    run(Command::new("mksquashfs").arg(&tree).arg(&file).args(["-quiet", "-no-progress"]))?;
    room.check(Some(&file), "squashfs on /dev/nbd0, read-only", "overlay")?;

    run(Command::new("mkfs.erofs").args(["--quiet"]).arg(&file).arg(&tree))?;
    room.check(Some(&file), "erofs on /dev/nbd0, read-only", "overlay")?;

    let empty = |mib: u64| -> Result<()> {
        std::fs::remove_file(&file)?;
        Ok(std::fs::File::create(&file)?.set_len(mib << 20)?)
    };
    // The smallest that mkfs.xfs makes.
    empty(300)?;
    let prototype = prototype(&tree)?;
    run(Command::new("mkfs.xfs").args(["-q", "-p"]).arg(&prototype).arg(&file))?;
    room.check(Some(&file), "xfs on /dev/nbd0", "xfs")?;

    empty(256)?;
    add_btrfs(&tree)?;
    run(Command::new("mkfs.btrfs").args(["-q", "--rootdir"]).arg(&tree).arg(&file))?;
    let first = room.check(Some(&file), "btrfs on /dev/nbd0", "btrfs")?;
    ensure!(first.contains("moved"), "{first}");
    room.check(None, "btrfs (subvolume root) on /dev/nbd0", "btrfs")?;
    room.servers.stop()
}

struct Room {
    servers: Daemon,
    site: Site,
    folder: tempfile::TempDir,
}

impl Room {
    fn set_up(name: &str) -> Result<Self> {
        let image = Recipe::default().image(|text| eprintln!("{text}"))?;
        let site = Site::builder().boot("fitted_initrds = false").create(Lan::lay(name)?)?;
        site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
        let machine = ["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"];
        site.run(&[&machine[..], &["--write-mode", "persistent"]].concat())?;
        let servers = site.up()?;
        Ok(Self { servers, site, folder: tempfile::tempdir()? })
    }

    /// Boots with this on the disk, or what was left there; returns what the screen showed.
    fn check(&self, disk: Option<&Path>, mounted: &str, root: &str) -> Result<String> {
        let preboot = Preboot::start(&self.site, MAC)?;
        let kernel = preboot.fetch()?;
        if let Some(disk) = disk {
            let bytes = std::fs::read(disk)?;
            with_disk(&preboot, &kernel, "pc-1", |disk| Ok(disk.write_start(&bytes)?))?;
        }
        drop(preboot);
        let mut pc = Pc::builder("pc-1").mac(MAC).kernel(&kernel).start(self.site.lan())?;
        let console = pc.console().clone();
        console
            .wait_for("it was written", BOOT)
            .and_then(|_| pc.wait_for_off(SHUTDOWN))
            .with_context(|| format!("{mounted}:\n{}", console.tail(20)))?;
        let text = console.text();
        ensure!(text.contains(mounted), "not {mounted}: {}", console.tail(20));
        ensure!(text.contains(&format!("a root on {root}")), "no {root}: {}", console.tail(20));
        println!("{mounted}: booted");
        Ok(text)
    }
}

/// The files of the system: busybox, and a script as init.
fn tree(folder: &Path) -> Result<PathBuf> {
    let tree = folder.join("tree");
    for name in ["bin", "dev", "lib", "lib64", "proc", "run", "sbin", "sys", "tmp", "usr"] {
        std::fs::create_dir_all(tree.join(name))?;
    }
    std::fs::copy("/bin/busybox", tree.join("bin/busybox"))?;
    let init = tree.join("sbin/init");
    std::fs::write(&init, INIT)?;
    run(Command::new("chmod").arg("755").arg(&init))?;
    Ok(tree)
}

/// The tree as a list for `mkfs.xfs`, which fills a file system by a list only.
fn prototype(tree: &Path) -> Result<PathBuf> {
    let bin = tree.join("bin/busybox");
    let init = tree.join("sbin/init");
    let folders: String = ["dev", "proc", "run", "sys", "tmp", "usr"]
        .map(|name| format!("{name} d--755 0 0 $\n"))
        .concat();
    let text = format!(
        "/\n0 0\nd--755 0 0\n{folders}bin d--755 0 0\nbusybox ---755 0 0 {}\n$\n\
         sbin d--755 0 0\ninit ---755 0 0 {}\n$\n$\n",
        bin.display(),
        init.display()
    );
    let file = tree.with_extension("prototype");
    std::fs::write(&file, text)?;
    Ok(file)
}

/// Adds the program that makes subvolumes, with its libraries.
fn add_btrfs(tree: &Path) -> Result<()> {
    let program = Path::new("/bin/btrfs");
    std::fs::copy(program, tree.join("bin/btrfs"))?;
    let list = text_of(Command::new("ldd").arg(program))?;
    let libraries = list.split_whitespace().filter(|word| word.starts_with('/'));
    for library in libraries {
        let place = tree.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(place.parent().context("it is in a folder")?)?;
        std::fs::copy(library, place)?;
    }
    Ok(())
}
