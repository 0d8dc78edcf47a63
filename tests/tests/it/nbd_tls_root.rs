//! A machine's root over NBD with TLS: the kernel's driver on the kernel's encryption.

use crate::boot::{BOOT, COMMAND, MAC, can_boot};
use crate::files::SECRET;
use crate::storage_network::tls;
use anyhow::{Result, ensure};
use lab::{Authority, Console, Lan, Need, Pc, PcSlots, Preboot, Recipe, Site, require};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::time::Duration;

/// The keeper tries each two seconds.
const BACK: Duration = Duration::from_secs(60);

#[test]
fn a_root_over_tls_keeps_what_is_written_and_survives_its_server() {
    let needs = ["udhcpc", "curl"].map(Need::Program);
    if can_boot("nbd-tls-root") && require("nbd-tls-root", &needs) {
        root_over_tls().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn root_over_tls() -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let image = Recipe::default().image(|text| eprintln!("{text}"))?;
    let files = tempfile::tempdir()?;
    let authority = Authority::new("the school")?;
    authority.trust(files.path())?;
    authority.issue(files.path(), "server")?;
    let site = site(files.path())?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    let machine = ["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"];
    site.run(&[&machine[..], &["--write-mode", "persistent"]].concat())?;
    let secret = files.path().join("secret");
    std::fs::write(&secret, SECRET)?;
    site.run(&["files", "put", "/etc/key", &secret.to_string_lossy(), "--secret"])?;
    let servers = site.serve()?;
    let mut storage = site.storage()?;
    put_disks(&site)?;

    let preboot = Preboot::start(&site, MAC)?;
    let kernel = preboot.fetch()?;
    let mut heard = preboot.segment()?;
    drop(preboot);
    let wire = files.path().join("wire.pcap");
    let dump = format!("filter-dump,id=wire,netdev=n0,maxlen=65536,file={}", wire.display());
    let pc = Pc::builder("pc-1").mac(MAC).kernel(&kernel).extra(&["-object", &dump]);
    let pc = pc.start(site.lan())?;
    let console = pc.console();
    console.wait_for("\n# ", BOOT)?;
    storage.wait_for_log("tls=\"TLSv1_3\"", COMMAND)?;
    // It is proven in TLS, now and when the server is back.
    storage.wait_for_log("has_key=true", COMMAND)?;
    let begin = "export PATH=/usr/sbin:/usr/bin; dmesg -n err; mount -o remount,rw /; \
                 dd if=/dev/urandom of=/run/wanted bs=1M count=24 2>/dev/null";
    console.shell(begin, COMMAND)?;
    let sessions = console
        .shell("grep -E 'Curr(Tx|Rx)Sw' /proc/net/tls_stat | tr -s ' \\t\\n' ' '", COMMAND)?;
    let n = 1 + N_DISKS;
    ensure!(sessions.trim() == format!("TlsCurrTxSw {n} TlsCurrRxSw {n}"), "{sessions:?}");
    let places = console.shell("grep -c '^/dev/nbd[1-4] /srv/' /proc/mounts", COMMAND)?;
    ensure!(places.trim() == (N_DISKS * N_FOLDERS).to_string(), "{places:?}");
    writes_and_reads(console, "before")?;
    heard.extend(std::fs::read(&wire)?);
    check_secrets(console, &heard)?;

    console
        .shell("{ (cp /run/wanted /during; sync /during; echo done > /run/done) & }", COMMAND)?;
    kill(Pid::from_raw(storage.id().try_into()?), Signal::SIGKILL)?;
    drop(storage);
    console.send_line("echo 3 >/proc/sys/vm/drop_caches; cksum /usr/bin/perl")?;
    console.wait_for("connection to the server of the root disk lost", BACK)?;
    let storage = site.storage()?;
    console.wait_for("the root disk is back", BACK)?;
    console.shell("until [ -s /run/done ]; do sleep 0.1; done; cmp /run/wanted /during", BACK)?;
    writes_and_reads(console, "after")?;
    drop(pc);

    // Somebody who only looks like the storage server does not get the machine.
    Authority::new("the school")?.issue(files.path(), "server")?;
    let pc = boot(&site)?;
    pc.console().wait_for("can't be trusted with the disk pc-1", BOOT)?;
    drop(pc);
    storage.stop()?;
    servers.stop()
}

/// Disks beside the root, and folders of each on it.
const N_DISKS: usize = 4;
const N_FOLDERS: usize = 3;

/// What a machine is told of its disks is long: their folders have long names.
fn put_disks(site: &Site) -> Result<()> {
    for disk in 1..=N_DISKS {
        let folders = (1..=N_FOLDERS).map(|n| format!("/srv/{}-{disk}-{n}", "folder".repeat(24)));
        let carried: Vec<String> = folders.flat_map(|it| ["--carry".to_owned(), it]).collect();
        let name = format!("disk-{disk}");
        let put = ["disk", "put", &name, "--size", "64M"].into_iter();
        site.run(&put.chain(carried.iter().map(String::as_str)).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Who heard all that passed the network has neither the secret of this boot nor the machine's SSH host key.
fn check_secrets(console: &Console, heard: &[u8]) -> Result<()> {
    let token = console.shell("cat /run/bootlace/token", COMMAND)?;
    let key = console.shell("sed '1d;$d' /etc/ssh/ssh_host_ed25519_key | head -n 1", COMMAND)?;
    let laid = console.shell("cat /etc/key", COMMAND)?;
    ensure!(laid.trim() == SECRET, "{laid:?}");
    let (token, key) = (token.trim(), key.trim());
    ensure!(token.len() == 64 && key.len() >= 64, "{token:?} {key:?}");
    let has = |bytes: &[u8]| heard.windows(bytes.len()).any(|part| part == bytes);
    ensure!(has(b"bootlace-files/1") && !has(SECRET.as_bytes()), "a file came in clear text");
    ensure!(has(b"bootlace/1 report") && has(b"token="), "nothing was heard");
    let bytes: Vec<u8> = (0..64)
        .step_by(2)
        .map(|at| u8::from_str_radix(&token[at..at + 2], 16))
        .collect::<Result<_, _>>()?;
    ensure!(!has(token.as_bytes()) && !has(&bytes), "the secret of the boot was heard");
    // Of the key's first bytes others have the same.
    ensure!(!has(&key.as_bytes()[key.len() - 24..]), "the SSH host key was heard");
    Ok(())
}

fn site(files: &Path) -> Result<Site> {
    Site::builder()
        .kernel_args("console=tty0 console=ttyS0,115200 init=/bin/sh quiet")
        .storage(&tls(files))
        .create(Lan::lay("nbd-tls-root")?)
}

fn boot(site: &Site) -> Result<Pc> {
    let kernel = Preboot::start(site, MAC)?.fetch()?;
    Pc::builder("pc-1").mac(MAC).kernel(&kernel).start(site.lan())
}

/// Writes a file to the disk, and reads it from there again.
fn writes_and_reads(console: &Console, name: &str) -> Result<()> {
    let script = format!(
        "cp /run/wanted /{name} && sync /{name} && echo 3 >/proc/sys/vm/drop_caches && \
         cmp /run/wanted /{name} && echo equal"
    );
    let said = console.shell(&script, BACK)?;
    ensure!(said.trim() == "equal", "{said:?}");
    let errors = console.shell("dmesg | grep -ci 'i/o error\\|aborting journal'", COMMAND)?;
    ensure!(errors.trim() == "0", "{}", console.shell("dmesg | tail -30", COMMAND)?);
    Ok(())
}
