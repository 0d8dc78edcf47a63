//! The keeper: the one process of the initrd that stays. It carries the root disk through an outage, and
//! tells the boot server that the machine runs, and stops it if the boot server asks for that.
//!
//! When the connection to the storage server is lost, the kernel holds all requests; the keeper connects
//! anew and hands the kernel the new connection. Since nothing can be read from the root meanwhile, it
//! opens all that it needs before the real system starts, has its memory locked, and runs from the
//! initrd's own file system, which lives in memory. `@` in its name keeps systemd from killing it
//! (systemd: ROOT_STORAGE_DAEMONS).

pub(crate) mod await_login;
mod companion;
mod memory;
mod power;

use crate::boot_server::reporter::{Target, TokenCell, later_token, sealed};
use crate::console::Console;
use crate::keeper::memory::Memory;
use crate::keeper::power::Power;
use crate::net::dhcp::{Held, Renewal};
use crate::net::netlink::Socket;
use crate::net::nic::Nic;
use crate::root::disk::Disk;
use crate::root::iscsi;
use crate::root::nbd;
use crate::root::tls::Tls;
use initcfg::{BootConfig, Heartbeat, REPORT_MAX, Root, RootUrl};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::MlockAllFlags;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Its memory is locked: the usual two megabytes for a thread would be lost to the machine.
const STACK_BYTES: usize = 64 << 10;

/// What systemd and `ps` see.
const NAME: &str = "@bootlace-keeper";

/// Two hundred machines connect anew at once when a server comes back: they begin slowly and differ.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);

/// How often it is looked how full the memory for changes is: a gigabyte is written in a second or two.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often the person at the machine reads why everything stands still.
const HINT_EVERY: Duration = Duration::from_secs(10);

/// Ten minutes of warnings, then each ten minutes: the kernel's log is short.
const HINTS_MAX: u32 = 60;
const HINT_LATER: Duration = Duration::from_secs(600);

/// Shortest wait for an order.
const TICK: Duration = Duration::from_millis(100);

/// Starts the keeper, and waits until it is ready. `connection` is the kernel's to the storage server,
/// `own_lease` what it shall renew.
///
/// # Errors
/// It can't be started, or ends at once.
pub(crate) fn start(
    connection: Option<TcpStream>,
    own_lease: Option<(&Held, &Nic)>,
) -> io::Result<()> {
    let lease = own_lease.map(|(held, nic)| [vec![nic.name.clone()], held.to_words()].concat());
    let arguments = [vec!["keep".to_owned()], lease.unwrap_or_default()].concat();
    let input = connection.map_or_else(Stdio::null, |stream| OwnedFd::from(stream).into());
    let child = companion::start(NAME, &arguments, input)?;
    // sysvinit's name for what systemd does by the `@`.
    let _ = fs::create_dir_all("/run/sendsigs.omit.d")
        .and_then(|()| fs::write("/run/sendsigs.omit.d/bootlace", child.id().to_string()));
    Ok(())
}

/// `init keep [NIC LEASE]`: does not end while the machine runs.
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
    pulse: Pulse,
    renewal: Option<Renewal>,
    link: Option<Kept>,
}

/// A connection that the kernel can't make anew by itself.
enum Kept {
    Nbd(Link),
    Iscsi(iscsi::Link),
}

impl Keeper {
    /// Opens everything while there is an initrd to open it from.
    fn open(arguments: &[String]) -> io::Result<Self> {
        let console = Console::log_only();
        let command_line = fs::read_to_string("/proc/cmdline")?;
        let config = BootConfig::parse(&command_line).map_err(io::Error::other)?;
        // The kernel shall kill anything else before this when memory is short.
        fs::write("/proc/self/oom_score_adj", "-1000")?;
        let link = match &config.root {
            Root::Nbd { servers, export } => Some(Kept::Nbd(Link::open(servers, export)?)),
            Root::Foreign(RootUrl::Iscsi(root)) => {
                Some(Kept::Iscsi(iscsi::Link::open(root, config.mac)?))
            }
            Root::Aoe { .. } | Root::Foreign(RootUrl::Nfs(_)) => None,
        };
        let own_lease =
            arguments.split_first().and_then(|(nic, words)| Some((nic, Held::parse(words)?)));
        let renewal = own_lease.map(|(nic, held)| Renewal::open(held, nic, &config)).transpose()?;
        let memory = config.ram.map(|_| Memory::open()).transpose()?;
        let pulse = Pulse::open(Target::from(&config), memory, console.clone())?;
        let _ = rustix::process::setsid();
        // Memory for this process must never wait for a write to the disk that it has to bring back. A
        // kernel before 5.6 does not know the first; without them most outages are survived all the same.
        let flusher = rustix::process::configure_io_flusher_behavior(true);
        let locked = rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE);
        if let Err(error) = flusher.and(locked) {
            console.log(&format!("bootlace: the keeper's memory is not safe: {error}"));
        }
        Ok(Self { console, pulse, renewal, link })
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
        let mut pulse = self.pulse;
        let Some(mut link) = self.link else { pulse.beat() };
        in_thread("no signs of life will be sent", Box::new(move || pulse.beat()));
        loop {
            match &mut link {
                Kept::Nbd(link) => {
                    link.wait_for_loss();
                    restore(&self.console, || link.connect());
                }
                Kept::Iscsi(link) => {
                    link.wait_for_loss();
                    restore(&self.console, || link.reconnect().map(|()| link.portal()));
                }
            }
        }
    }
}

/// Connects anew, for as long as it takes.
fn restore(console: &Console, mut connect: impl FnMut() -> Result<SocketAddrV4, String>) {
    let lost = Instant::now();
    let mut n_hints = 0;
    let mut next_hint = HINT_EVERY;
    let mut pause = RETRY_FIRST;
    console.warn("bootlace: connection to the server of the root disk lost");
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
                "bootlace: no root disk since {seconds} s; everything waits and nothing is lost: {why}"
            ));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(RETRY_MAX);
    };
    let ms = lost.elapsed().as_millis();
    console.warn(&format!("bootlace: the root disk is back after {ms} ms, from {server}"));
}

/// Tells the boot server that this machine runs, so that the page is right and its address stays its own.
struct Pulse {
    socket: UdpSocket,
    target: Target,
    token: TokenCell,
    /// `None` without a token: then nobody can prove that he may stop this machine.
    power: Option<Power>,
    memory: Option<Memory>,
    console: Console,
}

impl Pulse {
    fn open(target: Target, memory: Option<Memory>, console: Console) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let token = later_token();
        let power = token.get().map(|token| Power::open(target, *token, console.clone()));
        Ok(Self { socket, target, power: power.transpose()?, token, memory, console })
    }

    fn beat(&mut self) -> ! {
        let mut used = None;
        let mut next_beat = Instant::now();
        let mut next_look = Instant::now();
        loop {
            if Instant::now() >= next_beat {
                let line = self.target.heartbeat(used).to_string();
                let line = sealed(self.token.get(), line);
                // A boot server that is away hears the next one.
                let _ = self.socket.send_to(line.as_bytes(), self.target.address());
                next_beat = Instant::now() + Duration::from_secs(Heartbeat::INTERVAL_SECONDS);
            }
            let deadline = self.power.as_ref().and_then(Power::deadline);
            let look = self.memory.as_ref().map(|_| next_look);
            let wake = [deadline, look].into_iter().flatten().fold(next_beat, Instant::min);
            self.listen_until(wake);
            if let Some(power) = &mut self.power {
                power.force();
            }
            if let Some(memory) = &mut self.memory
                && Instant::now() >= next_look
            {
                next_look = Instant::now() + LOOK_EVERY;
                let Ok((percent, warning)) = memory.look() else { continue };
                used = Some(percent);
                if let Some(warning) = warning {
                    self.console.warn(&format!("bootlace: {warning}"));
                    // The page shall know it at once.
                    next_beat = Instant::now();
                }
            }
        }
    }

    /// Waits for an order, and obeys it.
    fn listen_until(&mut self, end: Instant) {
        let started = Instant::now();
        let left = end.saturating_duration_since(started).max(TICK);
        let _ = self.socket.set_read_timeout(Some(left));
        let mut datagram = [0; REPORT_MAX];
        match self.socket.recv_from(&mut datagram) {
            Ok((length, sender)) if sender == self.target.address().into() => {
                let answer = self
                    .power
                    .as_mut()
                    .and_then(|power| power.on_datagram(datagram.get(..length)?));
                if let Some(answer) = answer {
                    let _ = self.socket.send_to(answer.as_bytes(), self.target.address());
                }
            }
            Ok(_) => {}
            // "Connection refused" comes at once when nobody listens there: not a reason to spin.
            Err(_) => std::thread::sleep(TICK.saturating_sub(started.elapsed())),
        }
    }
}

/// The kernel's connection to the storage server.
struct Link {
    servers: Vec<SocketAddrV4>,
    export: String,
    size_bytes: u64,
    /// Ours of the kernel's connection: it hangs up when the kernel gives it up.
    connection: OwnedFd,
    /// Number of the connection; the storage server ends those with smaller ones first, so that no
    /// late write of a former one overtakes a repeated one.
    generation: u32,
    tls: Option<Tls>,
    netlink: Socket,
    family: u16,
}

impl Link {
    fn open(servers: &[SocketAddrV4], export: &str) -> io::Result<Self> {
        let netlink = Socket::generic()?;
        let family = netlink.family("nbd")?;
        let disk = Disk { name: nbd::DEVICE.to_owned() };
        let size_bytes =
            disk.size_bytes().ok_or_else(|| io::Error::other("the root disk is gone"))?;
        Ok(Self {
            servers: servers.to_vec(),
            export: export.to_owned(),
            size_bytes,
            connection: io::stdin().as_fd().try_clone_to_owned()?,
            generation: 0,
            tls: Tls::open()?,
            netlink,
            family,
        })
    }

    /// Waits until the kernel has given the connection up.
    fn wait_for_loss(&self) {
        loop {
            // Hang-ups and errors are reported without being asked for; the data is the kernel's.
            let mut list = [PollFd::new(&self.connection, PollFlags::empty())];
            if poll(&mut list, None::<&Timespec>).is_ok()
                && list[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
            {
                return;
            }
        }
    }

    fn connect(&mut self) -> Result<SocketAddrV4, String> {
        self.generation += 1;
        let name = format!("{}?g={}", self.export, self.generation);
        let (server, (stream, found)) =
            nbd::negotiate_any(&self.servers, &name, self.tls.as_ref(), CONNECT_TIMEOUT)
                .map_err(|(server, error)| nbd::why(server, &self.export, &error))?;
        if found.size_bytes / 512 * 512 != self.size_bytes {
            return Err(format!(
                "the disk {} of {server} has {} bytes now, but had {}: this is not the disk of this system; \
                 start it again",
                self.export, found.size_bytes, self.size_bytes
            ));
        }
        nbd::reconfigure(&self.netlink, self.family, &stream, &self.export)
            .map_err(|error| format!("the kernel does not take the connection: {error}"))?;
        self.connection = stream.into();
        Ok(server)
    }
}
