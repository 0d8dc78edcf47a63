//! The package on servers of its own, with systemd: installed, configured, upgraded under machines that write, and purged.

use super::crowd::Crowd;
use crate::say;
use anyhow::{Context, Result, ensure};
use lab::{Installed, Knocked, Knocker, Lan, Pc, Recipe, Release, SERVER, Site};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// The PC, by the firmware and all the way.
const NAME: &str = "desk";
const MAC: &str = "52:54:00:77:00:01";

/// A PC without KVM on a busy host.
const BOOT: Duration = Duration::from_secs(600);
const COMMAND: Duration = Duration::from_secs(60);
const SHUTDOWN: Duration = Duration::from_secs(60);

/// How long machines write before and after a change of the package.
const LOAD: Duration = Duration::from_secs(10);

/// Writes and waits for the disk, for ever. The last line of `/run/load` has how often, and the longest time that it took, in
/// milliseconds; the file only grows, so that a reader never meets it empty.
const WRITES: &str = "{ (n=0; m=0; a=$(date +%s%3N); while dd if=/dev/urandom of=/root/load bs=4k count=8 conv=fsync \
                      2>/dev/null; do n=$((n+1)); b=$(date +%s%3N); d=$((b-a)); [ $d -gt $m ] && m=$d; a=$b; \
                      echo $n $m >> /run/load; done; echo failed >> /run/load) & }";

/// A step, and what was seen.
type Row = (&'static str, String);

/// Does all of it on a release of Debian.
pub(super) fn on(release: Release, package: &Path, program: &Path) -> Result<Vec<Row>> {
    let image = Recipe::BUSYBOX.image(say)?;
    let site = Site::builder().binary(program).create(Lan::lay("deb")?)?;
    let mut rows = Vec::new();
    let mut row = |step: &'static str, seen: String| {
        say(&format!("{release:?}: {step}: {seen}"));
        rows.push((step, seen));
    };
    let began = Instant::now();
    let installed = Installed::on(release, site.lan(), package, say)?;
    let listeners = installed.listeners()?;
    ensure!(listeners.trim().is_empty(), "somebody answers: {listeners}");
    installed.check_health()?;
    row(
        "install",
        format!(
            "{:.0} s with the server's start; nothing listens, no unit failed",
            began.elapsed().as_secs_f64()
        ),
    );
    row("exposure (0 to 10)", installed.check_units()?);
    let began = Instant::now();
    installed.set_up_on_page(site.lan())?;
    row(
        "`setup --lan` in a browser",
        format!(
            "walked through with an account to servers that serve, {:.1} s",
            began.elapsed().as_secs_f64()
        ),
    );
    installed.server().run(&["bootlace", "setup", "--undo"])?;
    let began = Instant::now();
    installed.configure()?;
    row("configure", format!("both servers serve after {:.1} s", began.elapsed().as_secs_f64()));

    let server = installed.server();
    let path = server.image(&image)?;
    server.run(&["bootlace", "image", "import", &path, "--name", "debian"])?;
    let machine = ["bootlace", "machine", "set", NAME, "--mac", MAC, "--image", "debian"];
    installed.follow_logs("machine stored", || {
        server.run(&[&machine[..], &["--write-mode", "persistent"]].concat()).map(drop)
    })?;
    row(
        "`logs --follow`",
        "shows the line of a command that is given meanwhile; Ctrl-C ends it".to_owned(),
    );
    let began = Instant::now();
    let mut pc = Pc::builder(NAME).mac(MAC).start(site.lan())?;
    pc.console().wait_for(&format!("{NAME} login: "), BOOT)?;
    row(
        "boot a PC",
        format!("login prompt after {:.0} s, without KVM", began.elapsed().as_secs_f64()),
    );
    pc.console().log_in(COMMAND)?;
    pc.console().shell(WRITES, COMMAND)?;
    let crowd = Crowd::start(&site, &image, |words| server.run(words))?;

    for (step, version) in [("upgrade under load", "9999"), ("downgrade under load", "0.0.1")] {
        row(step, change(&installed, &site, &pc, &crowd, version).context(step)?);
    }
    row("20 machines in software", crowd.end()?);
    let (writes, _) = load(&pc)?;
    pc.console().send_line("poweroff")?;
    pc.wait_for_off(SHUTDOWN)?;
    row("the PC switches off", format!("after {writes} writes with fsync"));

    server.run(&["dpkg", "--purge", "bootlace"])?;
    let state = server.path("/var/lib/bootlace");
    ensure!(state.join("images").exists(), "images went with the package");
    installed.check_health()?;
    row("purge", "images and disks are kept".to_owned());
    installed.install()?;
    let yes = "echo bootlace bootlace/purge-images boolean true | debconf-set-selections";
    server.run(&["sh", "-c", yes])?;
    server.run(&["dpkg", "--purge", "bootlace"])?;
    ensure!(!state.exists(), "images are still there");
    row("purge with the answer \"yes\"", "everything is gone".to_owned());
    Ok(rows)
}

/// Installs another version while all write, and tells what they noticed.
fn change(
    installed: &Installed,
    site: &Site,
    pc: &Pc,
    crowd: &Crowd,
    version: &str,
) -> Result<String> {
    std::thread::sleep(LOAD);
    let (writes, _) = load(pc)?;
    let knock = |address: &str, question| {
        Knocker::start(site.lan().netns(), address.parse::<SocketAddr>()?, question)
    };
    let nbd = knock(&format!("{SERVER}:10809"), b"")?;
    let pages = knock("127.0.0.1:8080", b"GET /api/v1/status HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let began = Instant::now();
    installed.install_as(version)?;
    installed.wait_for_servers()?;
    let took = began.elapsed();
    std::thread::sleep(LOAD);
    let (nbd, pages) = (nbd.stop()?, pages.stop()?);
    for (what, Knocked { n_refused, first_refused, .. }) in [("NBD", &nbd), ("pages", &pages)] {
        ensure!(
            *n_refused == 0,
            "{n_refused} connections to {what} were refused, the first: {first_refused:?}"
        );
    }
    let (after, longest_ms) = load(pc)?;
    ensure!(after > writes, "the PC writes nothing any more");
    let errors = "dmesg | grep -ci 'i/o error\\|remount.*read-only\\|aborting journal'";
    let errors = pc.console().shell(errors, COMMAND)?;
    ensure!(errors.trim() == "0", "{}", pc.console().shell("dmesg | tail -30", COMMAND)?);
    let n_checked = crowd.check()?;
    Ok(format!(
        "dpkg took {:.1} s; the PC saw no error, and waited {:.1} s at most for a write; {n_checked} machines have all that they \
         wrote; {} connections to NBD and {} to the pages, none refused, longest {:.1} s",
        took.as_secs_f64(),
        longest_ms as f64 / 1000.0,
        nbd.n_answered,
        pages.n_answered,
        nbd.longest.max(pages.longest).as_secs_f64(),
    ))
}

/// How many writes the PC has done, and the longest in milliseconds.
fn load(pc: &Pc) -> Result<(u64, u64)> {
    let text = "until [ -s /run/load ]; do sleep 0.1; done; tail -n 1 /run/load";
    let text = pc.console().shell(text, COMMAND)?;
    let numbers =
        text.trim().split_once(' ').and_then(|(n, ms)| n.parse().ok().zip(ms.parse().ok()));
    numbers.with_context(|| format!("the PC's load ended: {text:?}"))
}
