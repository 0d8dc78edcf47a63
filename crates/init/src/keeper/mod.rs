//! The keeper: the one process of the initrd that stays. It carries the root disk through an outage, and
//! tells the boot server that the machine runs, and stops it if the boot server asks for that.
//!
//! When the connection to the storage server is lost, the kernel holds all requests; the keeper connects
//! again and hands the kernel the new connection. Since nothing can be read from the root meanwhile, it
//! opens all that it needs before the real system starts, has its memory locked, and runs from the
//! initrd's own file system, which lives in memory. `@` in its name keeps systemd from killing it
//! (systemd: ROOT_STORAGE_DAEMONS).

pub(crate) mod await_login;
mod companion;
pub(crate) mod further_disk;
mod heartbeats;
mod memory;
mod power;

use crate::boot_server::reporter::Target;
use crate::boot_server::token::later_token;
use crate::console::Console;
use crate::net::dhcp::{Held, Renewal};
use crate::net::nic::Nic;
use crate::root::{iscsi, nbd};
use heartbeats::Heartbeats;
use initcfg::{BootConfig, Root, RootUrl, Token};
use memory::Memory;
use rustix::mm::MlockAllFlags;
use std::fs;
use std::io;
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

/// The keeper's memory is locked: the usual two megabytes for a thread would be lost to the machine.
const STACK_BYTES: usize = 64 << 10;

/// What systemd and `ps` see.
const NAME: &str = "@bootlace-keeper";

/// What it keeps, for people.
const ROOT_DISK: &str = "root disk";

/// Two hundred machines connect again at once when a server comes back: they begin slowly and differ.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// How often the person at the machine reads why everything stands still.
const HINT_EVERY: Duration = Duration::from_secs(10);

/// Ten minutes of warnings, then each ten minutes: the kernel's log is short.
const HINTS_MAX: u32 = 60;
const HINT_LATER: Duration = Duration::from_secs(600);

/// Starts the keeper, and waits until it is ready. `connection` is the kernel's to the storage server, and the number
/// of that; `own_lease` is what it shall renew.
///
/// # Errors
/// It can't be started, or ends at once.
pub(crate) fn start(
    connection: Option<(TcpStream, u32)>,
    own_lease: Option<(&Held, &Nic)>,
) -> io::Result<()> {
    let lease = own_lease.map(|(held, nic)| [vec![nic.name.clone()], held.to_words()].concat());
    let generation = connection.as_ref().map_or(0, |(_, generation)| *generation);
    let arguments = vec!["keep".to_owned(), generation.to_string()];
    let arguments = [arguments, lease.unwrap_or_default()].concat();
    let input = connection.map_or_else(Stdio::null, |(stream, _)| OwnedFd::from(stream).into());
    let child = companion::start(NAME, &arguments, input)?;
    companion::omit_from_sendsigs("bootlace", &child);
    Ok(())
}

/// `init keep GENERATION [NIC LEASE]`: does not end while the machine runs.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    match Keeper::open(arguments) {
        Ok(keeper) => keeper.keep(),
        Err(error) => {
            Console::open().line(&format!("bootlace: the keeper can't start: {error}"));
            ExitCode::FAILURE
        }
    }
}

struct Keeper {
    console: Console,
    heartbeats: Heartbeats,
    renewal: Option<Renewal>,
    link: Option<Kept>,
}

/// A connection that the kernel can't restore by itself.
enum Kept {
    Nbd(nbd::Link),
    Iscsi(iscsi::Link),
}

impl Keeper {
    /// Opens everything while there is an initrd to open it from.
    fn open(arguments: &[String]) -> io::Result<Self> {
        let console = Console::log_only();
        let command_line = fs::read_to_string("/proc/cmdline")?;
        let config = BootConfig::parse(&command_line).map_err(io::Error::other)?;
        let (generation, lease) = arguments.split_first().unzip();
        let generation = generation.and_then(|word| word.parse().ok()).unwrap_or(0);
        // The kernel's connection, as `start` has given it.
        let connection = || io::stdin().as_fd().try_clone_to_owned();
        let link = match &config.root {
            Root::Nbd { servers, export } => {
                // From here on it is in this process's memory only.
                let key = later_token().get().map(Token::disk_key);
                let (machine, boot) = (export.clone(), config.boot);
                let (is_foreign, exchange) = (false, None);
                let index = nbd::ROOT_INDEX;
                let request =
                    nbd::Request { machine, is_foreign, boot, key, exchange, generation, index };
                Some(Kept::Nbd(nbd::Link::open(servers, request, connection()?)?))
            }
            Root::Foreign(RootUrl::Nbd(root)) => {
                let request = nbd::Request::foreign(root, generation);
                Some(Kept::Nbd(nbd::Link::open(&[root.server], request, connection()?)?))
            }
            Root::Foreign(RootUrl::Iscsi(root)) => {
                Some(Kept::Iscsi(iscsi::Link::open(root, config.mac)?))
            }
            Root::Aoe { .. } | Root::Foreign(RootUrl::Nfs(_) | RootUrl::Aoe(_)) => None,
        };
        let own_lease = lease
            .and_then(|lease| lease.split_first())
            .and_then(|(nic, words)| Some((nic, Held::parse(words)?)));
        let renewal = own_lease.map(|(nic, held)| Renewal::open(held, nic, &config)).transpose()?;
        let memory = config.ram.map(|_| Memory::open()).transpose()?;
        let heartbeats = Heartbeats::open(Target::from(&config), memory, console.clone())?;
        spare_from_shortage(&console)?;
        Ok(Self { console, heartbeats, renewal, link })
    }

    fn keep(self) -> ExitCode {
        if companion::say_ready().is_err() {
            return ExitCode::FAILURE;
        }
        let in_thread = |what: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            if let Err(error) = thread.spawn(work) {
                self.console.warn(&format!("bootlace: {what}: {error}"));
            }
        };
        if let Some(renewal) = self.renewal {
            let console = self.console.clone();
            in_thread("the lease is not renewed", Box::new(move || renewal.keep(&console)));
        }
        let mut heartbeats = self.heartbeats;
        let Some(mut link) = self.link else { heartbeats.send() };
        in_thread("no signs of life will be sent", Box::new(move || heartbeats.send()));
        loop {
            match &mut link {
                Kept::Nbd(link) => {
                    link.wait_for_loss();
                    restore(&self.console, ROOT_DISK, || link.connect());
                }
                Kept::Iscsi(link) => {
                    link.wait_for_loss();
                    restore(&self.console, ROOT_DISK, || link.reconnect().map(|()| link.portal()));
                }
            }
        }
    }
}

/// Makes this process one that lives on when memory is short, and needs no more of it. Called when all is opened.
fn spare_from_shortage(console: &Console) -> io::Result<()> {
    // The kernel shall kill anything else before this.
    fs::write("/proc/self/oom_score_adj", "-1000")?;
    let _ = rustix::process::setsid();
    // Memory for this process must never wait for a write to the disk that it has to bring back. A
    // kernel before 5.6 does not know the first; without them most outages are survived all the same.
    let flusher = rustix::process::configure_io_flusher_behavior(true);
    let locked = rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE);
    if let Err(error) = flusher.and(locked) {
        console.log(&format!("bootlace: the keeper's memory is not safe: {error}"));
    }
    Ok(())
}

/// Connects again, for as long as it takes; `disk` is what is lost, for people.
fn restore(
    console: &Console,
    disk: &str,
    mut connect: impl FnMut() -> Result<SocketAddrV4, String>,
) {
    let lost = Instant::now();
    let mut n_hints = 0;
    let mut next_hint = HINT_EVERY;
    let mut pause = RETRY_FIRST;
    console.warn(&format!("bootlace: connection to the server of the {disk} lost"));
    let server = loop {
        let why = match connect() {
            Ok(server) => break server,
            Err(why) => why,
        };
        let seconds = lost.elapsed().as_secs();
        if lost.elapsed() >= next_hint {
            n_hints += 1;
            next_hint += if n_hints < HINTS_MAX { HINT_EVERY } else { HINT_LATER };
            console.warn(&format!(
                "bootlace: the {disk} has been gone for {seconds} s; everything waits and nothing is lost: {why}"
            ));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(RETRY_MAX);
    };
    let ms = lost.elapsed().as_millis();
    console.warn(&format!("bootlace: the {disk} is back after {ms} ms, from {server}"));
}
