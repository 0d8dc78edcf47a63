//! A container in a copy of an image. What needs root is a process of its own ([`work`]); who keeps the store tells it which disk.

use anyhow::{Context as _, bail, ensure};
use images::{Stop, ToMount};
use nix::unistd::{geteuid, getppid};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longest order.
const ORDER_BYTES_MAX: u64 = 1 << 20;

/// How soon it is seen that it is to stop.
const POLL: Duration = Duration::from_millis(100);

/// With this the worker says that it could not begin; no program of the container's may end so.
const NOT_BEGUN: i32 = 254;

/// With this, that what ran has ended well and changed nothing.
const UNCHANGED: i32 = 253;

/// Below the root: what is written by whoever only looks, and no reason for another version.
const PASSING: [&str; 8] = [
    "root/.bash_history",
    "run",
    "tmp",
    "var/cache",
    "var/lib/apt/lists",
    "var/lib/apt/periodic",
    "var/log",
    "var/tmp",
];

/// What may run in it, and where.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Ordered {
    /// Of the disk, the root first.
    pub(crate) file_systems: Vec<ToMount>,
    /// Empty: a shell.
    pub(crate) command: Vec<String>,
    pub(crate) host_name: String,
}

/// The same, as the worker is told it.
#[derive(serde::Serialize, serde::Deserialize)]
struct Told {
    /// The disk's number among the files that are open in who orders.
    disk: i32,
    ordered: Ordered,
}

/// Who starts the container.
pub(crate) struct Shell(Child);

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// What ran in it, with this.
    Code(i32),
    /// What ran in it, well, and it has changed nothing but perhaps logs and caches.
    Unchanged,
    /// It never began, or was killed; for people.
    Failed(String),
}

impl Shell {
    /// Starts the worker, which needs root; this process may become another user afterwards.
    ///
    /// # Errors
    /// It can't be started.
    pub(crate) fn begin(root: &Path) -> io::Result<Self> {
        // What is mounted for it is seen by nobody else, and is gone with it.
        Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--kill-child", "--fork", "--"])
            .arg(std::env::current_exe()?)
            .arg("--root")
            .arg(root)
            .args(["image", "shell-worker"])
            .stdin(Stdio::piped())
            .spawn()
            .map(Self)
    }

    /// Runs it, and waits for its end.
    ///
    /// # Errors
    /// The disk can't be opened, or the worker is gone.
    pub(crate) fn run(self, disk: &Path, ordered: &Ordered, stop: &Stop) -> anyhow::Result<Ended> {
        let Self(mut child) = self;
        let disk = OpenOptions::new().read(true).write(true).open(disk)?;
        let told = serde_json::json!({ "disk": disk.as_raw_fd(), "ordered": ordered });
        let mut stdin = child.stdin.take().context("nobody takes the order")?;
        writeln!(stdin, "{told}").context("who starts the container has ended")?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if stop.is_stopping() {
                // It hears of that by this.
                drop(stdin);
                break child.wait()?;
            }
            std::thread::sleep(POLL);
        };
        Ok(match status.code() {
            Some(UNCHANGED) => Ended::Unchanged,
            Some(NOT_BEGUN) => Ended::Failed("the container could not be started".to_owned()),
            Some(code) => Ended::Code(code),
            None => Ended::Failed(format!("the container was ended ({status})")),
        })
    }
}

/// Does what standard input orders, in the mounts that this process has for itself. Returns with what ran in the container has ended, or that
/// it never began, of which it has said why.
pub(crate) fn work() -> i32 {
    match begin() {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            NOT_BEGUN
        }
    }
}

fn begin() -> anyhow::Result<i32> {
    ensure!(geteuid().is_root(), "only root can start containers");
    let mut stdin = BufReader::new(io::stdin());
    let mut order = String::new();
    stdin.by_ref().take(ORDER_BYTES_MAX).read_line(&mut order).context("no order came")?;
    if order.is_empty() {
        // Whoever wanted it has thought better of it, and says why.
        return Ok(0);
    }
    let Told { disk, ordered } = serde_json::from_str(&order).context("the order can't be read")?;
    let root = mount_point()?;
    let mounted = mount_all(&disk_of(disk)?, &ordered.file_systems, &root).and_then(|()| {
        // What can't be read is no reason to throw away what somebody did there: it counts as changed.
        let before = fingerprint(&root).ok();
        let code = contain(&root, &ordered, stdin)?;
        // Whatever the last command in a shell was.
        let may_be_unchanged = before.is_some() && (code == 0 || ordered.command.is_empty());
        Ok(match code {
            _ if may_be_unchanged && fingerprint(&root).ok() == before => UNCHANGED,
            // A program of its own may end so, too.
            UNCHANGED => 1,
            code => code,
        })
    });
    // Before its disk is read: all of it must be there. The mounts themselves go with this process.
    let unmounted = run("umount", &["--recursive", &root.to_string_lossy()]);
    let _ = fs::remove_dir(&root);
    let code = mounted?;
    unmounted?;
    Ok(code)
}

/// Another one when any file below is another one, apart from those that are [`PASSING`].
fn fingerprint(root: &Path) -> io::Result<blake3::Hash> {
    let mut hash = blake3::Hasher::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = fs::read_dir(&folder)?.collect::<io::Result<_>>()?;
        entries.sort_unstable_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let below = path.strip_prefix(root).unwrap_or(&path);
            if PASSING.iter().any(|passing| below == Path::new(passing)) {
                continue;
            }
            let about = entry.metadata()?;
            hash.update(below.as_os_str().as_bytes()).update(&[0]);
            // The time of the last change of a file or of what is said of it can't be set by anybody.
            for value in [
                about.ino(),
                about.mode().into(),
                about.size(),
                about.ctime().cast_unsigned(),
                about.ctime_nsec().cast_unsigned(),
            ] {
                hash.update(&value.to_le_bytes());
            }
            if about.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(hash.finalize())
}

/// The disk, as who orders has it open: that he may write to it is shown.
fn disk_of(number: i32) -> anyhow::Result<PathBuf> {
    // Between us and him is `unshare`.
    let parent = fs::read_to_string(format!("/proc/{}/stat", getppid()))?;
    let of_parent = parent.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
    let owner: u32 = of_parent.context("nobody has ordered this")?.parse()?;
    let path = PathBuf::from(format!("/proc/{owner}/fd/{number}"));
    let about = fs::metadata(&path).context("who has ordered this is gone")?;
    ensure!(about.is_file(), "the disk is no file");
    Ok(path)
}

fn mount_point() -> anyhow::Result<PathBuf> {
    let root = PathBuf::from(format!("/run/bootlace-shell-{}", std::process::id()));
    DirBuilder::new()
        .mode(0o700)
        .create(&root)
        .with_context(|| format!("can't make {}", root.display()))?;
    Ok(root)
}

fn mount_all(disk: &Path, file_systems: &[ToMount], root: &Path) -> anyhow::Result<()> {
    for ToMount { at, file_system, offset, size_bytes } in file_systems {
        if matches!(file_system.as_str(), "squashfs" | "erofs") {
            bail!("nothing can be written to {file_system}: build or import another version");
        }
        let target = root.join(at.trim_start_matches('/'));
        let options = format!("loop,nodev,offset={offset},sizelimit={size_bytes}");
        let (disk, target) = (disk.to_string_lossy(), target.to_string_lossy());
        run("mount", &["-t", file_system, "-o", &options, &disk, &target]).with_context(|| {
            format!(
                "this server's kernel does not mount its {at} ({file_system}): change the image by booting it (bootlace image edit)"
            )
        })?;
    }
    Ok(())
}

/// Runs what was ordered in the container, and ends it when standard input ends. Returns with what it has ended.
fn contain(root: &Path, ordered: &Ordered, mut stdin: BufReader<io::Stdin>) -> anyhow::Result<i32> {
    // However this process ends, the container ends, too.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "systemd-nspawn"])
        .arg("--quiet")
        .arg(format!("--directory={}", root.display()));
    command.args([
        "--register=no",
        "--keep-unit",
        "--as-pid2",
        "--resolv-conf=bind-host",
        "--timezone=off",
    ]);
    // Services are not to be started here, as Debian's packages ask.
    command.args(["--setenv=RUNLEVEL=1", "--setenv=DEBIAN_FRONTEND=noninteractive"]);
    command.arg(format!("--machine=shell-{}", std::process::id()));
    command.arg(format!("--hostname={}", ordered.host_name));
    match File::open("/dev/tty") {
        Ok(terminal) if ordered.command.is_empty() && io::stdout().is_terminal() => {
            command.arg("--console=interactive").stdin(terminal);
        }
        _ => {
            command.arg("--console=pipe").stdin(Stdio::null());
        }
    }
    command.arg("--");
    match ordered.command.is_empty() {
        true => command.args(["/bin/sh", "-c", "exec ${SHELL:-/bin/bash} -l || exec /bin/sh -l"]),
        false => command.args(&ordered.command),
    };
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow::anyhow!(
            "the program systemd-nspawn is missing: install the package systemd-container"
        ),
        _ => error.into(),
    })?;
    let (unwanted, is_unwanted) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = io::copy(&mut stdin, &mut io::sink());
        let _ = unwanted.send(());
    });
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code().unwrap_or(NOT_BEGUN));
        }
        if is_unwanted.recv_timeout(POLL).is_ok() {
            let _ = child.kill();
            let _ = child.wait();
            bail!("it was told to stop");
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let done = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let done = done.with_context(|| format!("can't start {program}"))?;
    let complaint = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{program}: {}", complaint.trim());
    Ok(())
}
