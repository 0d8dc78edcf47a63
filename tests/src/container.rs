//! A Debian server with systemd, in namespaces: as quick as a process, and its network is that of a LAN.

use crate::command::{run, text_of};
use crate::image::{CACHE, Release, fnv1a};
use crate::lan::Lan;
use crate::lock::Lock;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a server has on which Bootlace is installed: all that the package depends on, so that nothing is downloaded in tests.
const PACKAGES: &str = "adduser,busybox-static,dbus,debconf,grub-common,grub-efi-amd64-bin,grub-pc-bin,\
                        iproute2,qemu-utils,systemd-sysv,udev";

/// What no server in a test needs.
const LEFT_OUT: &[&str] =
    &["/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*"];

/// How long a server may take to start, and to stop.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// systemd's signal for switching off (systemd(1)): the fourth real-time signal, which libraries don't name.
const POWER_OFF: &str = "RTMIN+4";

/// Where the server sees the folder in which images for tests are kept.
const IMAGES: &str = "srv/lab";

/// Becomes the first process of a server: `$1` is its cgroup, `$2` the folder with its root, `$3` the root that it is made of,
/// `$4` a folder that it sees, `$5` its network. The cgroup comes first, since `ip netns` has a /sys of its own. The server's is
/// read-only, so that udev does not begin.
const ENTER: &str = r#"set -eu
mkdir -p "$1"
echo $$ > "$1/cgroup.procs"
exec ip netns exec "$5" unshare --mount --pid --fork --kill-child --uts --ipc --cgroup --propagation private sh -c '
set -eu
mount -t overlay overlay -o "lowerdir=$3,upperdir=$2/changes,workdir=$2/work" "$2/root"
cd "$2/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do
  : > dev/$name
  mount --bind /dev/$name dev/$name
done
mkdir -p dev/pts dev/shm srv/lab
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount --bind -o ro "$4" srv/lab
hostname server
mkdir former
pivot_root . former
exec env -i container=bootlace PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c "umount -l /former; rmdir /former; exec /lib/systemd/systemd"
' sh "$@"
"#;

/// A Debian server. It is switched off when dropped, and all that it has written is deleted.
pub struct Container {
    child: Child,
    /// systemd's number here.
    init: Pid,
    cgroup: PathBuf,
    _folder: TempDir,
}

impl Container {
    /// Switches it on, with the interfaces of the LAN's server as its own.
    ///
    /// # Errors
    /// Not root, there is no cgroup2, its root can't be made, or it does not start.
    pub fn start(release: Release, lan: &Lan, say: impl Fn(&str)) -> Result<Self> {
        let base = root(release, say)?;
        let folder = tempfile::Builder::new().prefix("server-").tempdir_in(CACHE)?;
        for name in ["changes", "work", "root"] {
            fs::create_dir(folder.path().join(name))?;
        }
        // The server's users must get through.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let name = folder.path().file_name().context("a folder has a name")?;
        let cgroup = cgroups()?.join("bootlace-lab").join(name);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "sh", "-c", ENTER, "sh"]);
        command.arg(&cgroup).arg(folder.path()).arg(&base).arg(CACHE).arg(lan.netns().name());
        let log = File::create(folder.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().context("can't start a server")?;
        let log = folder.path().join("log");
        let init = match wait_for_init(&mut child) {
            Ok(init) => init,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("{error:#}: {}", fs::read_to_string(log).unwrap_or_default());
            }
        };
        let server = Self { child, init, cgroup, _folder: folder };
        server.wait_until("is up", START_TIMEOUT, |server| {
            let state = server.ask(&["systemctl", "is-system-running"]);
            state.is_ok_and(|state| ["running", "degraded"].contains(&state.trim()))
        })?;
        Ok(server)
    }

    /// Makes what [`start`](Self::start) starts from, if it is not there yet; `say` hears about the long work.
    ///
    /// # Errors
    /// mmdebstrap fails: mostly no network, or no room.
    pub fn prepare(release: Release, say: impl Fn(&str)) -> Result<()> {
        root(release, say).map(drop)
    }

    /// Where a file of the server is for us.
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.init.to_string())
            .join("root")
            .join(path.trim_start_matches('/'))
    }

    /// Where the server sees a file of the folder in which images for tests are kept.
    ///
    /// # Errors
    /// It is not there.
    pub fn image(&self, image: &Path) -> Result<String> {
        let name = image.strip_prefix(CACHE).context("no image of the lab")?;
        Ok(format!("/{IMAGES}/{}", name.display()))
    }

    /// A command in the server, as its root.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--all", "--target", &self.init.to_string(), "env", "-i"]);
        command.args([
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL=C",
            "DEBIAN_FRONTEND=noninteractive",
        ]);
        command.args(words).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, and returns what it printed.
    ///
    /// # Errors
    /// It fails; the text has all that it said.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let Output { status, stdout, stderr } = self.command(words).output()?;
        let said = [stdout, stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
        ensure!(status.success(), "{} ({status}): {}", words.join(" "), said.concat());
        Ok(said.into_iter().next().unwrap_or_default())
    }

    /// What a command prints, however it ends.
    ///
    /// # Errors
    /// It can't be started.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.command(words).output()?.stdout).into_owned())
    }

    /// Waits until it is so; `what` completes the sentence "the server never …".
    ///
    /// # Errors
    /// It never is; the error shows the end of its journal.
    pub fn wait_until(
        &self,
        what: &str,
        timeout: Duration,
        is_so: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while !is_so(self) {
            if Instant::now() > deadline {
                let journal = self.ask(&["journalctl", "--no-pager", "--lines=40"])?;
                bail!("the server never {what}. Its journal ends:\n{journal}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = run(Command::new("kill").args(["-s", POWER_OFF, &self.init.to_string()]));
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(50));
        }
        // All that is in its namespace ends with its first process.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = kill(self.init, Signal::SIGKILL);
        }
        let _ = self.child.wait();
        remove_cgroup(&self.cgroup);
    }
}

/// The first process in the namespace, which is the only child of ours.
fn wait_for_init(child: &mut Child) -> Result<Pid> {
    let id = child.id();
    let children = format!("/proc/{id}/task/{id}/children");
    let deadline = Instant::now() + START_TIMEOUT;
    while child.try_wait()?.is_none() && Instant::now() < deadline {
        let pid = fs::read_to_string(&children).unwrap_or_default().trim().parse::<i32>().ok();
        let is_systemd = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|it| it.trim() == "systemd")
        };
        if let Some(pid) = pid.filter(is_systemd) {
            return Ok(Pid::from_raw(pid));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("the server does not begin")
}

/// Where cgroup2 is mounted.
fn cgroups() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    mount.context("this host has no cgroup2")
}

/// What is below goes first; nobody is in it any more.
fn remove_cgroup(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// The folder with a server's root, which is made if it is not there yet.
fn root(release: Release, say: impl Fn(&str)) -> Result<PathBuf> {
    let mut parts = vec![PACKAGES];
    parts.extend(LEFT_OUT);
    let key = fnv1a(parts.join("\0").as_bytes());
    let name = format!("server-debian-{}-{key:016x}", release.number());
    let path = Path::new(CACHE).join(&name);
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(CACHE).with_context(|| format!("can't make {CACHE}"))?;
    let _lock = Lock::take(&name, || say("waiting for another run that makes the server's root"))?;
    if path.exists() {
        return Ok(path);
    }
    say(&format!(
        "making a Debian {} server by mmdebstrap, kept for the next time; this takes 2 to 5 minutes",
        release.number()
    ));
    let folder = tempfile::Builder::new().prefix("new-").tempdir_in(CACHE)?;
    let root = folder.path().join("root");
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", "--mode=root", "--quiet"]);
    command.arg(format!("--include={PACKAGES}"));
    command.arg("--aptopt=Acquire::Languages \"none\"");
    command.args(LEFT_OUT.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
    // What the package brings is looked at: documents and manual pages, too.
    command.arg("--customize-hook=rm \"$1\"/etc/dpkg/dpkg.cfg.d/99mmdebstrap");
    command.arg(release.suite()).arg(&root);
    text_of(command.env("LC_ALL", "C")).context("can't make a Debian server")?;
    fs::rename(&root, &path)?;
    Ok(path)
}
