//! Stopping a running system because the boot server asks for it, as an administrator wants.

use crate::boot_server::reporter::Target;
use crate::boot_server::token::sealed;
use crate::console::Console;
use initcfg::{PowerOrder, PowerVerb, Token, unseal};
use rustix::fs::{Mode, OFlags, open, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::system::RebootCommand;
use rustix_libc_wrappers::process::SignalExt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long the system may take. systemd gives each service 90 s, and then ends it by force.
const ORDERLY_MAX: Duration = Duration::from_secs(120);

/// How long processes have that no init stops.
const PROCESSES_MAX: Duration = Duration::from_secs(5);

/// What is written may go to a disk that is away.
const SYNC_MAX: Duration = Duration::from_secs(10);

/// systemd counts its signals from here (glibc's SIGRTMIN), whatever our own C library is.
const SYSTEMD_SIGRTMIN: i32 = 34;

/// What a datagram means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// Nothing, or nothing that can be believed.
    Nothing,
    /// The order that is obeyed already; the answer was lost.
    Again(u32),
    New(PowerOrder),
}

/// Decides which orders count: with the right tag, of this boot, and each once.
struct Orders {
    boot: u64,
    token: Token,
    last: u32,
}

impl Orders {
    fn hear(&mut self, datagram: &[u8]) -> Heard {
        let (line, tag) = unseal(datagram);
        if tag != Some(self.token.tag(line)) {
            return Heard::Nothing;
        }
        match PowerOrder::parse(line) {
            Ok(order) if order.boot != self.boot || order.counter < self.last => Heard::Nothing,
            Ok(order) if order.counter == self.last => Heard::Again(order.counter),
            Ok(order) => {
                self.last = order.counter;
                Heard::New(order)
            }
            Err(_) => Heard::Nothing,
        }
    }
}

/// What PID 1 is, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Init {
    Systemd,
    Busybox,
    Other,
}

impl Init {
    fn of_program(path: &[u8]) -> Self {
        let path = String::from_utf8_lossy(path);
        match path.rsplit('/').next() {
            Some("systemd") => Self::Systemd,
            Some("busybox") => Self::Busybox,
            _ => Self::Other,
        }
    }

    /// The signal that stops everything in order (systemd(1), "Signals"; busybox init/init.c).
    fn signal(self, verb: PowerVerb) -> Option<Signal> {
        let systemd = |n: i32| Signal::rt(SYSTEMD_SIGRTMIN + n - Signal::rt_min().as_raw());
        match (self, verb) {
            (Self::Systemd, PowerVerb::Reboot) => systemd(5),
            (Self::Systemd, PowerVerb::Poweroff) => systemd(4),
            (Self::Busybox, PowerVerb::Reboot) => Some(Signal::TERM),
            (Self::Busybox, PowerVerb::Poweroff) => Some(Signal::USR2),
            (Self::Other, _) => None,
        }
    }
}

/// `struct init_request` (sysvinit, src/initreq.h): magic number, command 1 (runlevel), the runlevel, no
/// seconds between the signals to processes, and room for other commands.
fn runlevel_request(verb: PowerVerb) -> [u8; 384] {
    let runlevel = match verb {
        PowerVerb::Reboot => b'6',
        PowerVerb::Poweroff => b'0',
    };
    let mut request = [0; 384];
    let words = [0x0309_1969_u32, 1, u32::from(runlevel), 0];
    for (place, word) in request.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    request
}

/// Obeys the boot server. [`on_datagram`](Self::on_datagram) takes what has come; [`force`](Self::force) must be
/// called when [`deadline`](Self::deadline) has passed, and may be called at any time.
pub(crate) struct Power {
    orders: Orders,
    target: Target,
    /// The real system's folders, which can't be opened by name any more when the root has changed.
    proc: OwnedFd,
    run: OwnedFd,
    console: Console,
    force: Option<(Instant, PowerVerb)>,
}

impl Power {
    /// Opens what is needed while there is an initrd.
    pub(crate) fn open(target: Target, token: Token, console: Console) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = open("/proc", flags, Mode::empty())?;
        let run = open("/run", flags, Mode::empty())?;
        let orders = Orders { boot: target.boot(), token, last: 0 };
        Ok(Self { orders, target, proc, run, console, force: None })
    }

    /// Obeys, if it is an order; returns the answer.
    pub(crate) fn on_datagram(&mut self, datagram: &[u8]) -> Option<String> {
        let counter = match self.orders.hear(datagram) {
            Heard::Nothing => return None,
            Heard::Again(counter) => counter,
            Heard::New(PowerOrder { counter, verb, .. }) => {
                self.stop(verb);
                counter
            }
        };
        let line = self.target.obedience(counter).to_string();
        Some(sealed(Some(&self.orders.token), line))
    }

    /// When [`Power::force`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.force.map(|(at, _)| at)
    }

    fn stop(&mut self, verb: PowerVerb) {
        self.console.warn(&format!("bootlace: the boot server asks for a {verb}"));
        let program = readlinkat(&self.proc, "1/exe", Vec::new()).unwrap_or_default();
        let init = Init::of_program(program.to_bytes());
        let is_orderly = match init.signal(verb) {
            Some(signal) => kill_process(Pid::INIT, signal).is_ok(),
            None => self.ask_sysvinit(verb).is_ok(),
        };
        if !is_orderly {
            // The group of PID 1 stands for all processes but it and this one (kill(2)).
            let _ = kill_process_group(Pid::INIT, Signal::TERM);
        }
        let patience = if is_orderly { ORDERLY_MAX } else { PROCESSES_MAX };
        self.force = Some((Instant::now() + patience, verb));
    }

    /// Puts the request for a runlevel into the pipe of sysvinit, as telinit does.
    fn ask_sysvinit(&self, verb: PowerVerb) -> io::Result<()> {
        // Without a reader there is no sysvinit, and this fails at once.
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let pipe = openat(&self.run, "initctl", flags, Mode::empty())?;
        File::from(pipe).write_all(&runlevel_request(verb))
    }

    /// Ends the machine when its system has not done it in time.
    pub(crate) fn force(&mut self) {
        let Some((at, verb)) = self.force else { return };
        if Instant::now() < at {
            return;
        }
        self.console.warn(&format!("bootlace: the system does not stop; forcing the {verb}"));
        // In a thread: the root disk may be away.
        let syncing = std::thread::Builder::new().stack_size(64 << 10).spawn(rustix::fs::sync);
        let started = Instant::now();
        while let Ok(thread) = &syncing
            && !thread.is_finished()
            && started.elapsed() < SYNC_MAX
        {
            std::thread::sleep(Duration::from_millis(50));
        }
        let command = match verb {
            PowerVerb::Reboot => RebootCommand::Restart,
            PowerVerb::Poweroff => RebootCommand::PowerOff,
        };
        let ended: Result<(), Errno> = rustix::system::reboot(command);
        if let Err(error) = ended {
            self.console.warn(&format!("bootlace: {verb} failed: {error}"));
        }
        self.force = Some((Instant::now() + ORDERLY_MAX, verb));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_counts_once_and_only_with_the_token_of_the_boot() {
        let token = Token::new([7; 32]);
        let mut orders = Orders { boot: 42, token, last: 0 };
        let order = |boot, counter| PowerOrder { boot, counter, verb: PowerVerb::Reboot };
        let mut hear = |token: Token, order: PowerOrder| {
            orders.hear(token.seal(&order.to_string()).as_bytes())
        };
        assert_eq!(hear(Token::new([8; 32]), order(42, 1)), Heard::Nothing);
        assert_eq!(hear(token, order(41, 1)), Heard::Nothing, "of an earlier boot");
        assert_eq!(hear(token, order(42, 2)), Heard::New(order(42, 2)));
        assert_eq!(hear(token, order(42, 2)), Heard::Again(2));
        assert_eq!(hear(token, order(42, 1)), Heard::Nothing, "said again by somebody else");
        let without = orders.hear(order(42, 3).to_string().as_bytes());
        assert_eq!(without, Heard::Nothing);
    }

    #[test]
    fn each_init_has_its_signals() {
        let check = |path: &[u8], reboot: Option<i32>, poweroff: Option<i32>| {
            let init = Init::of_program(path);
            let raw = |verb| init.signal(verb).map(Signal::as_raw);
            assert_eq!((raw(PowerVerb::Reboot), raw(PowerVerb::Poweroff)), (reboot, poweroff));
        };
        check(b"/usr/lib/systemd/systemd", Some(39), Some(38));
        check(b"/bin/busybox", Some(15), Some(12));
        check(b"/usr/sbin/init", None, None);
        check(b"", None, None);
        let request = runlevel_request(PowerVerb::Reboot);
        assert_eq!(request[..12], [0x69, 0x19, 9, 3, 1, 0, 0, 0, b'6', 0, 0, 0]);
        assert!(request[12..].iter().all(|&byte| byte == 0));
    }
}
