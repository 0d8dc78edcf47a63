//! `bootlace up` loses its terminal, or is killed, and machines keep their disks.

use anyhow::{Context, Result, bail, ensure};
use lab::{Daemon, Lan, Need, Site, require};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Servers start and stop within seconds on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(100);

fn on_a_site(name: &str, test: impl FnOnce(&Site) -> Result<()>) {
    if require(name, &[Need::Root, Need::Program("grub-mkimage")]) {
        let site = Lan::lay(name).and_then(|lan| Site::builder().create(lan));
        site.and_then(|site| test(&site)).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// What the storage server says of itself; `None` if there is none.
fn health(site: &Site) -> Option<Value> {
    let mut stream = UnixStream::connect(site.root().join("run/bootlace/storage.sock")).ok()?;
    stream.write_all(b"GET /v1/health HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

fn storage_pid(site: &Site) -> Option<i32> {
    health(site)?["pid"].as_i64()?.try_into().ok()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so() {
        ensure!(Instant::now() < deadline, "it does not happen that {what}");
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn serves(site: &Site) -> bool {
    site.stranger().get("/healthz").is_ok_and(|answer| answer.status == 200)
}

fn end_at_once(up: Daemon) -> Result<()> {
    kill(Pid::from_raw(up.id().try_into()?), Signal::SIGKILL)?;
    drop(up);
    Ok(())
}

#[test]
fn a_terminal_that_is_closed_ends_both_servers() {
    on_a_site("terminal", |site| {
        let (mut up, terminal) = at_terminal(site)?;
        let storage = storage_pid(site).context("no storage server")?;
        drop(terminal);
        let ended = end_of(&mut up)?;
        ensure!(ended.success(), "it did not stop in order: {ended}");
        ensure!(!is_there(storage), "the storage server lives on");

        // Who has lost `up` and the terminal can still be stopped.
        let (mut up, terminal) = at_terminal(site)?;
        let storage = storage_pid(site).context("no storage server")?;
        up.kill()?;
        up.wait()?;
        drop(terminal);
        kill(Pid::from_raw(storage), Signal::SIGTERM)?;
        wait_until("the storage server ends", || !is_there(storage))?;
        // Nothing is in the way of the next.
        site.up()?.stop()
    });
}

/// `bootlace up` at a terminal, and the end of the terminal by whose closing that is closed.
fn at_terminal(site: &Site) -> Result<(Child, OwnedFd)> {
    let pty = openpty(None, None)?;
    // Or the servers would hold it open themselves.
    fcntl(&pty.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    let mut command = site.in_session("up");
    command.stdin(Stdio::from(pty.slave.try_clone()?));
    command.stdout(Stdio::from(pty.slave.try_clone()?)).stderr(Stdio::from(pty.slave));
    let up = command.spawn()?;
    wait_until("the servers start", || serves(site) && health(site).is_some())?;
    Ok((up, pty.master))
}

fn end_of(child: &mut Child) -> Result<std::process::ExitStatus> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            child.kill()?;
            bail!("it goes on without its terminal");
        }
        std::thread::sleep(POLL);
    }
}

/// Whether the process runs. Of one that has ended and whose new parent has not asked, an empty name is left.
fn is_there(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|name| !name.is_empty())
}

#[test]
fn a_storage_server_that_is_left_over_is_used_and_replaced_if_it_is_another() {
    on_a_site("left-over", |site| {
        let first = site.up()?;
        let storage = storage_pid(site).context("no storage server")?;
        ensure!(
            health(site).is_some_and(|health| health["started_by"] == "up"),
            "{:?}",
            health(site)
        );
        end_at_once(first)?;
        ensure!(storage_pid(site) == Some(storage), "disks went away with `up`");

        let mut second = site.up()?;
        second.wait_for_log("a storage server runs already, and is used", TIMEOUT)?;
        ensure!(storage_pid(site) == Some(storage), "it was not used");
        second.stop()?;
        ensure!(
            storage_pid(site) == Some(storage),
            "it ended with an `up` that had not started it"
        );

        // Who finds it with other settings needs another one; it is replaced when the boot server serves.
        let config = site.root().join("etc/bootlace/bootlace.toml");
        let text = fs::read_to_string(&config)?;
        fs::write(&config, text + "\naoe_mac = \"02:00:00:00:00:99\"\n")?;
        let third = site.up()?;
        wait_until("it is replaced", || storage_pid(site).is_some_and(|pid| pid != storage))?;
        ensure!(!is_there(storage), "both run");
        let log = third.log();
        ensure!(log.contains("restarting the storage server"), "{log}");
        ensure!(!log.contains("died"), "nothing has died: {log}");
        third.stop()?;
        ensure!(health(site).is_none(), "what it had started goes on");
        Ok(())
    });
}

#[test]
fn a_storage_server_of_its_own_stays_and_one_that_dies_is_started_again() {
    on_a_site("of-its-own", |site| {
        let storage = site.storage()?;
        let pid = i32::try_from(storage.id())?;
        let up = site.up()?;
        ensure!(storage_pid(site) == Some(pid), "it was not used");
        up.stop()?;
        ensure!(storage_pid(site) == Some(pid), "it was stopped");
        storage.stop()?;

        let first = site.up()?;
        let left_over = storage_pid(site).context("no storage server")?;
        end_at_once(first)?;
        let second = site.up()?;
        // An `up` that comes too late takes nothing away.
        let error = format!("{:#}", site.run(&["up"]).err().context("two at once")?);
        ensure!(storage_pid(site) == Some(left_over) && error.contains("runs already"), "{error}");
        kill(Pid::from_raw(left_over), Signal::SIGKILL)?;
        wait_until("it is started again", || storage_pid(site).is_some_and(|it| it != left_over))?;
        let error = format!("{:#}", site.run(&["up"]).err().context("two at once")?);
        ensure!(error.contains("up is running already"), "{error}");
        second.stop()?;
        ensure!(health(site).is_none(), "what it had started goes on");
        Ok(())
    });
}
