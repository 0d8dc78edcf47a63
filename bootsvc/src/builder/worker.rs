//! The part of building that needs root: packages are installed in a folder of its own, and its files leave as an archive. It hears
//! what to build on its standard input, and ends when that ends.

use super::Ordered;
use super::frames::{Frame, write_frame};
use crate::paths::Paths;
use anyhow::{Context as _, bail, ensure};
use images::Recipe;
use nix::unistd::geteuid;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, set_child_subreaper};
use std::collections::VecDeque;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longest order.
const ORDER_BYTES_MAX: u64 = 1 << 20;

/// Lines of the program that are kept, to say how it failed.
const LAST_LINES: usize = 25;

/// How soon it is seen that the build is over or not wanted.
const POLL: Duration = Duration::from_millis(100);

/// What no image needs, and what no two machines may share. Done inside of the new system: a recipe may have made any of these a
/// link, and outside that would lead to files of this server.
const SETTLE: &str = r#"chroot "$1" /bin/sh -euc "$BUILDER_SETTLE""#;
const SETTLES: &str = r#"cd /
rm -f etc/hostname etc/resolv.conf etc/ssh/ssh_host_*
rm -f etc/fstab etc/machine-id
: > etc/fstab
mkdir -p etc/systemd/system etc/systemd/journald.conf.d
: > etc/machine-id
printf '[Journal]\nStorage=volatile\n' > etc/systemd/journald.conf.d/50-diskless.conf
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer man-db.timer; do
    ln -sf /dev/null "etc/systemd/system/$unit"
done
"#;

/// Lends packages that were fetched before, and keeps those that were fetched now.
const LEND: &str = r#"mkdir -p "$1/var/cache/apt/archives"
for package in "$BUILDER_PACKAGES"/*.deb; do
    if [ -e "$package" ]; then ln "$package" "$1/var/cache/apt/archives/"; fi
done"#;
const KEEP: &str = r#"for package in "$1"/var/cache/apt/archives/*.deb; do
    name="$BUILDER_PACKAGES/${package##*/}"
    if [ -e "$package" ] && ! [ -e "$name" ]; then ln "$package" "$name"; fi
done"#;

/// The recipe's own script, inside of the new system.
const SCRIPT: &str = r#"chroot "$1" /bin/sh -eu -c "$RECIPE""#;

/// Does what standard input orders.
///
/// # Errors
/// The order can't be read, or nobody hears what is said: what becomes of the build is told to whoever has ordered it.
pub(crate) fn work(paths: &Paths, named_only: bool) -> anyhow::Result<()> {
    ensure!(geteuid().is_root(), "only root can build images");
    let mut stdin = BufReader::new(io::stdin());
    let mut order = String::new();
    stdin.by_ref().take(ORDER_BYTES_MAX).read_line(&mut order).context("no order came")?;
    let out = Out(Arc::new(Mutex::new(io::stdout())));
    let is_unwanted = Arc::new(AtomicBool::new(false));
    let unwanted = Arc::clone(&is_unwanted);
    std::thread::spawn(move || {
        let _ = io::copy(&mut stdin, &mut io::sink());
        unwanted.store(true, Ordering::Relaxed);
    });
    let built = serde_json::from_str(&order)
        .context("the order can't be read")
        .and_then(|ordered| build(&recipe_of(ordered, named_only)?, paths, &out, &is_unwanted));
    out.say(&match built {
        Ok(()) => Frame::Done,
        Err(error) => Frame::Failed(wire::error_chain(error.as_ref())),
    })?;
    Ok(())
}

fn recipe_of(ordered: Ordered, named_only: bool) -> anyhow::Result<Recipe> {
    match ordered {
        Ordered::Named { name, set } => {
            let mut recipe = Recipe::named(&name)?;
            recipe.choose(&set)?;
            Ok(recipe)
        }
        // What is in it is run as root.
        Ordered::Recipe(_) if named_only => bail!("only recipes that come along are built here"),
        // Whoever has sent it may have read it in another way.
        Ordered::Recipe(recipe) => Ok(Recipe::parse(&toml::to_string(&recipe)?)?),
    }
}

/// What is said, by several threads.
#[derive(Clone)]
struct Out(Arc<Mutex<io::Stdout>>);

impl Out {
    fn say(&self, frame: &Frame) -> io::Result<()> {
        write_frame(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), frame)
    }
}

fn build(
    recipe: &Recipe,
    paths: &Paths,
    out: &Out,
    is_unwanted: &AtomicBool,
) -> anyhow::Result<()> {
    // apt fetches as a user of its own, who finds his way through these.
    const WAY: u32 = 0o711;
    let own = own_folder(&paths.builder(), WAY)?;
    let packages = own_folder(&own.join("packages"), 0o700)?;
    let lock = File::create(own.join(".lock"))?;
    if lock.try_lock().is_err() {
        bail!("another image is being built: wait for its end (bootlace job ls shows it)");
    }
    remove_leftovers(&own)?;
    let permissions = Permissions::from_mode(WAY);
    let scratch =
        tempfile::Builder::new().prefix("build-").permissions(permissions).tempdir_in(&own)?;
    set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut command = command(recipe, &packages, scratch.path());
    command.process_group(0);
    let started =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match started {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("building an image needs unshare, of the package util-linux")
        }
        other => other.context("can't start unshare")?,
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = stdout.zip(stderr).context("the program has no output")?;
    let archive = {
        let out = out.clone();
        std::thread::spawn(move || send_archive(stdout, &out))
    };
    let lines = {
        let out = out.clone();
        std::thread::spawn(move || follow(stderr, &out))
    };
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if is_unwanted.load(Ordering::Relaxed) {
            // With it ends all that it has started: they are in a world of processes of their own.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(POLL);
    };
    wait_for_heirs();
    let status = status.context("it was told to stop")?;
    let sent = archive.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
    let last_lines = lines.join().unwrap_or_default();
    if !status.success() {
        if last_lines
            .iter()
            .any(|line| line.contains("mmdebstrap") && line.contains("No such file"))
        {
            bail!("building an image needs mmdebstrap: install the package of that name");
        }
        bail!("mmdebstrap ended with {status}:\n{}", Vec::from(last_lines).join("\n"));
    }
    sent.context("the archive was cut off")?;
    Ok(())
}

fn command(recipe: &Recipe, packages: &Path, scratch: &Path) -> Command {
    // However this process ends, all that it has started ends, too.
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child=KILL",
        "--mount-proc",
        "--",
    ]);
    command.args(["mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar", "--verbose"]);
    command.arg(format!("--components={}", recipe.components.join(",")));
    if !recipe.packages.is_empty() {
        command.arg(format!("--include={}", recipe.packages.join(",")));
    }
    command.args(["--aptopt=Acquire::Languages \"none\"", "--dpkgopt=force-unsafe-io"]);
    // Packages stay where they are until they were kept.
    command.arg("--skip=essential/unlink,download/empty");
    command.arg(format!("--setup-hook={LEND}"));
    command.arg(format!("--customize-hook={KEEP}"));
    if !recipe.script.trim().is_empty() {
        command.arg(format!("--customize-hook={SCRIPT}"));
    }
    command.arg(format!("--customize-hook={SETTLE}"));
    command.arg(&recipe.suite).arg("-").args(recipe.apt_lines());
    command.env_clear();
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.envs(recipe.environment()).env("RECIPE", &recipe.script);
    for name in ["http_proxy", "https_proxy", "no_proxy"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("LC_ALL", "C").env("TMPDIR", scratch).env("BUILDER_PACKAGES", packages);
    command.env("BUILDER_SETTLE", SETTLES);
    // Debian's own initrd takes as long as all the rest, and is not used (kernel's postinst.d).
    command.env("INITRD", "No");
    command
}

/// Waits until nothing is left that was started by who has ended: it would go on writing where all is about to be removed.
fn wait_for_heirs() {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            // There is no child any more.
            Err(_) => return,
        }
    }
}

/// A folder that is root's, to which nobody else writes.
fn own_folder(path: &Path, mode: u32) -> anyhow::Result<PathBuf> {
    if let Err(error) = DirBuilder::new().recursive(true).mode(mode).create(path) {
        return Err(error).with_context(|| format!("can't make {}", path.display()));
    }
    let about = path.symlink_metadata()?;
    ensure!(
        about.is_dir() && about.uid() == 0,
        "{} is not root's own folder: remove it, and begin again",
        path.display()
    );
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    // Hooks name it in a shell, quoted.
    Ok(std::path::absolute(path)?)
}

/// Removes what builds left that were killed: there is one at a time.
fn remove_leftovers(own: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(own)?.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b"build-") {
            std::fs::remove_dir_all(entry.path())
                .with_context(|| format!("can't remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn send_archive(mut stdout: ChildStdout, out: &Out) -> io::Result<()> {
    let mut bytes = vec![0; 256 << 10];
    loop {
        match stdout.read(&mut bytes)? {
            0 => return Ok(()),
            n => out.say(&Frame::Archive(bytes[..n].to_vec()))?,
        }
    }
}

/// Tells steps and what is worth a line; returns the last lines.
fn follow(stderr: ChildStderr, out: &Out) -> VecDeque<String> {
    let mut last = VecDeque::new();
    let mut steps = Steps::default();
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while let Ok(1..) = reader.by_ref().take(4096).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if let Some(step) = steps.on_line(&text) {
            let _ = out.say(&step);
        }
        let is_told = ["I: ", "W: ", "E: "].iter().any(|begin| text.starts_with(begin));
        // Hooks are ours, and long.
        if is_told && !text.contains("-hook in shell") {
            let _ = out.say(&Frame::Line(text.clone()));
        }
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(text);
    }
    last
}

/// How far apt and dpkg are, by what they print.
#[derive(Default)]
struct Steps {
    n_packages: u64,
    n_fetched: u64,
    n_installed: u64,
}

impl Steps {
    fn on_line(&mut self, line: &str) -> Option<Frame> {
        let told = |step: &str, done: u64, total: u64| {
            let step = step.to_owned();
            Some(Frame::Step { step, done: done.min(total), total })
        };
        if let Some((before, _)) = line.split_once(" newly installed") {
            let number = before.rsplit(' ').next()?;
            self.n_packages += number.parse::<u64>().ok()?;
            return None;
        }
        // Before that it fetches lists.
        if line.starts_with("Get:") && self.n_packages > 0 {
            self.n_fetched += 1;
            return told("fetching packages", self.n_fetched, self.n_packages);
        }
        if line.starts_with("Unpacking ") || line.starts_with("Setting up ") {
            self.n_installed += 1;
            return told("installing packages", self.n_installed, 2 * self.n_packages);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_by_what_apt_and_dpkg_print() {
        let mut steps = Steps::default();
        let lines = [
            "Get:1 http://deb.debian.org/debian bookworm InRelease [151 kB]",
            "0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.",
            "Get:2 http://deb.debian.org/debian bookworm/main amd64 gcc-12-base amd64 12.2.0-14 [37.5 kB]",
            "Unpacking gcc-12-base:amd64 (12.2.0-14+deb12u1) ...",
            "Setting up gcc-12-base:amd64 (12.2.0-14+deb12u1) ...",
        ];
        let told: Vec<_> = lines.iter().filter_map(|line| steps.on_line(line)).collect();
        let step = |step: &str, done, total| Frame::Step { step: step.to_owned(), done, total };
        let expected = [
            step("fetching packages", 1, 2),
            step("installing packages", 1, 4),
            step("installing packages", 2, 4),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn who_orders_for_pages_gets_what_comes_along_and_nothing_else() {
        let set = vec![("keyboard".to_owned(), "de".to_owned())];
        let named = |name: &str| Ordered::Named { name: name.to_owned(), set: set.clone() };
        let recipe = recipe_of(named("debian-12-desktop"), true).unwrap();
        assert_eq!(recipe.parameters["keyboard"].default, "de");
        for name in ["/etc/passwd", "./own.toml", "debian-minimal"] {
            assert!(recipe_of(named(name), true).is_err(), "{name}");
        }
        assert!(recipe_of(Ordered::Recipe(recipe.clone()), true).is_err());
        assert_eq!(recipe_of(Ordered::Recipe(recipe.clone()), false).unwrap(), recipe);
    }

    #[test]
    fn nothing_of_a_recipe_is_read_by_a_shell_of_the_server() {
        let recipe = "title = \"x\"\nsuite = \"bookworm\"\nscript = \"$(reboot) '\\\"\"\n[parameters.a]\nabout = \"x\"\ndefault = \"$b\"\n";
        let recipe = Recipe::parse(recipe).unwrap();
        let command = command(&recipe, Path::new("/p"), Path::new("/s"));
        assert!(command.get_args().all(|argument| !argument.to_string_lossy().contains("reboot")));
        let environment: Vec<_> = command.get_envs().collect();
        assert!(environment.iter().any(|(name, value)| {
            *name == "RECIPE_A" && value.is_some_and(|value| value == "$b")
        }));
    }
}
