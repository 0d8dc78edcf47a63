//! Either server is killed and started again in the middle of a boot, and the machine boots all the same.

use crate::boot::{BOOT, MAC, QUICK, SHUTDOWN, can_boot, wait_for_login};
use anyhow::{Context, Result, ensure};
use lab::{Daemon, Lan, Netns, Pc, PcSlots, SERVER, Site};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// Where the machine finds the storage server: a relay that passes on what both say.
const RELAY_PORT: u16 = 10809;

/// Where it is.
const STORAGE_PORT: u16 = 10810;

/// How the option of the NBD handshake begins that opens a disk.
const GO: &[u8] = b"IHAVEOPT\0\0\0\x07";

/// So slow is the LAN that the initrd takes seconds.
const SLOW: &str = "root tbf rate 16mbit burst 64kb latency 2s";

/// How long nobody serves.
const AWAY: Duration = Duration::from_secs(2);

#[test]
fn a_machine_boots_whichever_server_is_killed_meanwhile() {
    if can_boot("restarted") {
        restarted().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn restarted() -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let image = QUICK.image(|text| eprintln!("{text}"))?;
    let site = Site::builder()
        .storage(&format!("nbd_port = {RELAY_PORT}"))
        .create(Lan::lay("restarted")?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    site.run(&["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"])?;
    let storage = start_storage(&site)?;
    let mut servers = site.serve()?;

    // The loader fetches the initrd.
    shape(&site, &format!("add dev br0 {SLOW}"))?;
    let mut pc = Pc::builder("pc-1").mac(MAC).start(site.lan())?;
    site.wait_for_stage("pc-1", "kernel", BOOT)?;
    std::thread::sleep(Duration::from_secs(1));
    servers.kill()?;
    std::thread::sleep(AWAY);
    shape(&site, "del dev br0 root")?;
    servers = site.serve()?;
    let stages = site.stages("pc-1")?;
    ensure!(stages.iter().all(|it| it.stage != "initrd"), "killed too late: {stages:#?}");

    // Init waits for the storage server: nobody is at the relay's port.
    let console = pc.console().clone();
    console.wait_for(&format!("waiting for the storage server {SERVER}:{RELAY_PORT}"), BOOT)?;
    servers.kill()?;
    std::thread::sleep(AWAY);
    servers = site.serve()?;

    // Init has the number that it must answer to, and nobody takes the answer.
    let relay = Relay::open(site.lan().netns(), storage)?;
    relay.wait_for_kill()?;
    std::thread::sleep(AWAY);
    let storage = start_storage(&site)?;

    // The real system starts.
    console.wait_for("bootlace: handover", BOOT)?;
    storage.kill()?;
    servers.kill()?;
    std::thread::sleep(AWAY);
    let storage = start_storage(&site)?;
    servers = site.serve()?;
    wait_for_login(&pc, "pc-1")?;
    let stages = site.wait_for_stage("pc-1", "up", BOOT)?;
    ensure!(stages.iter().all(|it| it.stage != "failed"), "{stages:#?}");
    let view = site.browser().json("/api/v1/machines/pc-1")?;
    ensure!(view["is_proven"] == true, "the machine has not shown that it is itself: {view}");
    console.log_in(BOOT)?;
    let errors = console.shell("dmesg | grep -ci 'i/o error'", BOOT)?;
    ensure!(errors == "0", "{}", console.shell("dmesg | tail -30", BOOT)?);
    console.send_line("poweroff")?;
    pc.wait_for_off(SHUTDOWN)?;
    drop((pc, relay));
    storage.stop()?;
    servers.stop()
}

/// The storage server, behind the relay.
fn start_storage(site: &Site) -> Result<Daemon> {
    let path = site.root().join("etc/bootlace/bootlace.toml");
    let config = std::fs::read_to_string(&path)?;
    std::fs::write(&path, config.replace(&RELAY_PORT.to_string(), &STORAGE_PORT.to_string()))?;
    let storage = site.storage();
    std::fs::write(&path, config)?;
    storage
}

/// Sets how fast the server may send, by `tc qdisc`.
fn shape(site: &Site, arguments: &str) -> Result<()> {
    let mut tc = site.lan().netns().command("tc", nix::sys::signal::Signal::SIGKILL);
    lab::run(tc.arg("qdisc").args(arguments.split(' ')))
}

/// Passes on what machines and the storage server say, until it is dropped.
struct Relay {
    is_over: Arc<AtomicBool>,
    killed: mpsc::Receiver<Result<()>>,
    listens: Option<JoinHandle<()>>,
}

/// The storage server, until somebody asks it for a disk.
type Doomed = Arc<Mutex<Option<Daemon>>>;

impl Relay {
    /// A relay at this place. It kills the storage server as soon as somebody has been told what to answer to, and does.
    fn open(place: &Netns, storage: Daemon) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let (told, killed) = mpsc::channel();
        let listens = place.inside(|| {
            let listener = TcpListener::bind((SERVER, RELAY_PORT))?;
            listener.set_nonblocking(true)?;
            let (is_over, doomed) = (Arc::clone(&is_over), Arc::new(Mutex::new(Some(storage))));
            // A new thread is in its parent's namespace.
            Ok(std::thread::spawn(move || listen(&listener, &is_over, &doomed, &told)))
        })?;
        Ok(Self { is_over, killed, listens: Some(listens) })
    }

    fn wait_for_kill(&self) -> Result<()> {
        self.killed.recv_timeout(BOOT).context("the machine asks for no disk")?
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(listens) = self.listens.take() {
            let _ = listens.join();
        }
    }
}

fn listen(
    listener: &TcpListener,
    is_over: &AtomicBool,
    doomed: &Doomed,
    told: &mpsc::Sender<Result<()>>,
) {
    while !is_over.load(Ordering::Relaxed) {
        let Ok((machine, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        // Nobody there: the machine's connection ends at once.
        let Ok(server) = TcpStream::connect((SERVER, STORAGE_PORT)) else { continue };
        let both = || Some((machine.try_clone().ok()?, server.try_clone().ok()?));
        let Some((to_machine, from_server)) = both() else { continue };
        let (doomed, told) = (Arc::clone(doomed), told.clone());
        // They end with the connection, and it ends with the machine or the server.
        std::thread::spawn(move || pass_on(from_server, to_machine, |_| true));
        std::thread::spawn(move || {
            pass_on(machine, server, |bytes| {
                let asks = bytes.windows(GO.len()).any(|part| part == GO);
                let storage =
                    doomed.lock().unwrap_or_else(PoisonError::into_inner).take_if(|_| asks);
                storage.map(|storage| told.send(storage.kill())).is_none()
            });
        });
    }
}

/// Passes on what comes, as long as `lets_pass`; then ends both directions.
fn pass_on(mut from: TcpStream, mut to: TcpStream, mut lets_pass: impl FnMut(&[u8]) -> bool) {
    let _ = from.set_nonblocking(false);
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length) = from.read(&mut buffer)
        && length > 0
        && lets_pass(&buffer[..length])
        && to.write_all(&buffer[..length]).is_ok()
    {}
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
