//! Image versions that go to another server, over a network that breaks.

use crate::boot::QUICK;
use anyhow::{Context, Result, ensure};
use lab::{Client, Lan, Need, SERVER, SERVERS_UID, Site, require};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Until a part of a version has come.
const BEGUN: Duration = Duration::from_secs(60);

#[test]
fn a_version_reaches_another_server_though_that_is_killed_in_the_middle() {
    let needs = [
        Need::Root,
        Need::Program("grub-mkimage"),
        Need::Program("mmdebstrap"),
        Need::Program("debugfs"),
        Need::Program("qemu-img"),
    ];
    if require("streams", &needs) {
        streams().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// A server that nobody has started, on another host of the LAN.
struct Sender {
    client: Client,
    folder: tempfile::TempDir,
}

impl Sender {
    fn command(&self) -> Result<Command> {
        let mut command = self.client.command(lab::bootlace_binary()?);
        command.arg("--root").arg(self.folder.path());
        Ok(command)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.command()?.args(arguments).output()?)
    }

    fn done(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        let told = said(&output);
        ensure!(output.status.success(), "{arguments:?}: {told}");
        Ok(told)
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// `image send` to the other server.
    fn send(&self, version: &str, token: &str) -> Vec<String> {
        let to = format!("https://{SERVER}:8443");
        let words = ["image", "send", version, "--to", &to, "--token-file"];
        let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        words.extend([self.at(token), "--ca".to_owned(), self.at("ca.pem")]);
        words
    }
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn streams() -> Result<()> {
    let first = QUICK.image(|text| eprintln!("{text}"))?;
    let pages = format!("{SERVER}:8443");
    let site = Site::builder().pages(&pages).create(Lan::lay("streams")?)?;
    site.add_user("anna", "admin", "three blue doors")?;
    let server = site.serve()?;
    let client = site.lan().add_client("streams-other", "52:54:00:00:00:41")?;
    client.netns().ip("addr add 10.77.0.41/24 dev eth0")?;
    let sender = Sender { client, folder: tempfile::tempdir()? };
    chown(sender.folder.path(), Some(SERVERS_UID), None)?;
    for scope in ["admin", "operate"] {
        let made = site.run(&["token", "add", scope, "--scope", scope])?;
        fs::write(sender.at(scope), made.lines().next().context("no token")?)?;
    }
    fs::copy(site.root().join("var/lib/bootlace/web/authority.pem"), sender.at("ca.pem"))?;

    let import = ["image", "import", &first.display().to_string(), "--name", "debian"];
    sender.done(&import)?;
    // Not to whoever answers, and not by whoever asks.
    let to = format!("https://{pages}");
    let token = sender.at("admin");
    let unknown = ["image", "send", "debian", "--to", &to, "--token-file", &token];
    let refused = said(&sender.run(&unknown)?);
    ensure!(refused.contains("authority.pem from that server"), "{refused}");
    let by_operator = sender.send("debian", "operate");
    let words: Vec<&str> = by_operator.iter().map(String::as_str).collect();
    let refused = said(&sender.run(&words)?);
    ensure!(refused.contains("admin"), "{refused}");
    ensure!(kept(&site)?.is_none(), "something is kept of what was refused");

    // The receiver dies when a part has come, and the sender goes on there.
    let mut sending = sender.command()?;
    sending.args(sender.send("debian/v1", "admin")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let sending = sending.spawn()?;
    let sending_id = Pid::from_raw(sending.id().try_into()?);
    let end = Instant::now() + BEGUN;
    while kept(&site)?.is_none_or(|(_, n_bytes)| n_bytes < 8 << 20) {
        ensure!(Instant::now() < end, "nothing has come");
        std::thread::sleep(Duration::from_millis(2));
    }
    kill(sending_id, Signal::SIGSTOP)?;
    server.kill()?;
    let left = kept(&site)?;
    let server = site.serve()?;
    kill(sending_id, Signal::SIGCONT)?;
    let sent = sending.wait_with_output()?;
    let told = said(&sent);
    ensure!(sent.status.success() && told.contains("it is debian/v1 there"), "{told}");
    if left.is_some() {
        ensure!(told.contains("trying again in 1 s"), "it did not break: {told}");
    }
    ensure!(kept(&site)?.is_none(), "a part is left");
    let there = site.run(&["image", "ls"])?;
    ensure!(there.contains("draft"), "{there}");
    let disk = |root: &Path, version: u32| -> PathBuf {
        root.join(format!("var/lib/bootlace/images/debian/{version}/disk.raw"))
    };
    let same = |version: u32| {
        let (here, there) = (disk(sender.folder.path(), version), disk(site.root(), version));
        lab::run(Command::new("cmp").args([here, there]))
    };
    same(1)?;

    // The next one is what differs.
    let second = PathBuf::from(sender.at("second.raw"));
    lab::copy_with(&first, &second, "/etc/second-version", "2\n")?;
    sender.done(&["image", "import", &second.display().to_string(), "--name", "debian"])?;
    let whole = sender.at("whole");
    let changes = sender.at("changes");
    sender.done(&["image", "send", "debian/v2", "-o", &whole])?;
    sender.done(&["image", "send", "debian/v2", "--from", "v1", "-o", &changes])?;
    let (n_whole, n_changes) = (fs::metadata(&whole)?.len(), fs::metadata(&changes)?.len());
    ensure!(n_changes < n_whole / 50, "{n_changes} of {n_whole}");
    sender.done(&["image", "receive", "--check", &whole])?;
    let to_server = sender.send("debian/v2", "admin");
    let words: Vec<&str> = to_server.iter().map(String::as_str).collect();
    let told = sender.done(&words)?;
    ensure!(told.contains("it is debian/v2 there"), "{told}");
    same(2)?;
    let told = sender.done(&words)?;
    ensure!(told.contains("nothing to do") && told.contains("already, as v2"), "{told}");
    let jobs = site.run(&["job", "ls"])?;
    ensure!(jobs.contains("receive debian from 10.77.0.41"), "{jobs}");

    let exported = sender.at("debian.qcow2");
    sender.done(&["image", "export", "debian/v2", &exported])?;
    let mut compare = Command::new("qemu-img");
    lab::run(compare.args(["compare", &exported]).arg(disk(sender.folder.path(), 2)))?;
    let again = said(&sender.run(&["image", "export", "debian/v2", &exported])?);
    ensure!(again.contains("--force replaces it"), "{again}");
    // It knows which versions disks stand on.
    let storage = site.storage()?;
    keep_elsewhere(&sender)?;
    storage.stop()?;
    server.stop()
}

/// What is done each night, and tried from time to time.
fn keep_elsewhere(sender: &Sender) -> Result<()> {
    let folder = sender.at("kept");
    fs::create_dir(&folder)?;
    chown(&folder, Some(SERVERS_UID), None)?;
    let to_folder = ["backup", "images", &folder, "--keep", "1"];
    let told = sender.done(&to_folder)?;
    ensure!(told.contains("debian/v2 saved") && !told.contains("debian/v1"), "{told}");
    let told = sender.done(&to_folder)?;
    ensure!(told.contains("debian/v2 is there already"), "{told}");
    let told = sender.done(&["status", "--json"])?;
    ensure!(told.contains("\"image_backup_unix\": 1"), "{told}");
    let drill = ["backup", "drill", &folder];
    let told = sender.done(&drill)?;
    ensure!(told.contains("debian/v2: ") && told.contains("its digest is right"), "{told}");

    let to = format!("https://{SERVER}:8443");
    let (token, ca) = (sender.at("admin"), sender.at("ca.pem"));
    let there = [to.as_str(), "--token-file", &token, "--ca", &ca];
    let to_server = [&["backup", "images"], &there[..], &["--keep", "1"]].concat();
    let told = sender.done(&to_server)?;
    ensure!(told.contains("already, as v2") && told.contains("debian/v1 deleted there"), "{told}");
    let told = sender.done(&[&["backup", "drill"], &there[..]].concat())?;
    ensure!(told.contains("its digest is right"), "{told}");

    let file = fs::read_dir(&folder)?.next().context("nothing is kept")??.path();
    let cut = fs::OpenOptions::new().write(true).open(&file)?;
    cut.set_len(cut.metadata()?.len() / 2)?;
    let refused = said(&sender.run(&drill)?);
    ensure!(refused.contains("debian/v2 can't be restored from there"), "{refused}");
    Ok(())
}

/// What the server keeps of a version that has not come as a whole: its folder, and how long its disk is so far.
fn kept(site: &Site) -> Result<Option<(PathBuf, u64)>> {
    let folder = site.root().join("var/lib/bootlace/images");
    let Ok(names) = fs::read_dir(&folder) else { return Ok(None) };
    for name in names {
        let path = name?.path();
        let is_kept =
            path.file_name().is_some_and(|it| it.to_string_lossy().starts_with(".receive-"));
        if let Some(disk) = fs::metadata(path.join("disk.raw")).ok().filter(|_| is_kept) {
            return Ok(Some((path, disk.len())));
        }
    }
    Ok(None)
}
