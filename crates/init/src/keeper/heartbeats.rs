//! The keeper's signs of life, and what it hears in return: questions, and orders to stop.

use super::memory::Memory;
use super::power::Power;
use crate::boot_server::reporter::Target;
use crate::boot_server::token::{TokenCell, later_token, sealed};
use crate::console::Console;
use initcfg::{Heartbeat, Question, REPORT_MAX, SEAL_BYTES, unseal};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

/// How often it is looked how full the memory for changes is: a gigabyte is written in a second or two.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Shortest wait for an order.
const TICK: Duration = Duration::from_millis(100);

/// Tells the boot server that this machine runs, so that the page is right and its address stays its own.
pub(super) struct Heartbeats {
    socket: UdpSocket,
    target: Target,
    token: TokenCell,
    /// `None` without a token: then nobody can prove that he may stop this machine.
    power: Option<Power>,
    memory: Option<Memory>,
    console: Console,
}

impl Heartbeats {
    /// Opens what is needed while there is an initrd.
    pub(super) fn open(
        target: Target,
        memory: Option<Memory>,
        console: Console,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // The kernel drops what comes from others: enough of it would keep the boot server's questions out. If there is no way to the
        // server now, there is one later.
        let _ = socket.connect(target.address());
        let token = later_token();
        let power = token.get().map(|token| Power::open(target, *token, console.clone()));
        Ok(Self { socket, target, power: power.transpose()?, token, memory, console })
    }

    /// Sends one now and then, and obeys the boot server, as long as the machine runs.
    pub(super) fn send(&mut self) -> ! {
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

    /// Waits for a question and answers it, or for an order and obeys it.
    fn listen_until(&mut self, end: Instant) {
        let started = Instant::now();
        let left = end.saturating_duration_since(started).max(TICK);
        let _ = self.socket.set_read_timeout(Some(left));
        let mut datagram = [0; REPORT_MAX + SEAL_BYTES];
        match self.socket.recv_from(&mut datagram) {
            Ok((length, sender)) if sender == self.target.address().into() => {
                let answer = self.answer(datagram.get(..length).unwrap_or_default());
                if let Some(answer) = answer {
                    let _ = self.socket.send_to(answer.as_bytes(), self.target.address());
                }
            }
            Ok(_) => {}
            // "Connection refused" comes at once when nobody listens there: not a reason to spin.
            Err(_) => std::thread::sleep(TICK.saturating_sub(started.elapsed())),
        }
    }

    /// The answer to what the boot server says, which has its proof.
    fn answer(&mut self, datagram: &[u8]) -> Option<String> {
        let (line, tag) = unseal(datagram);
        let token = self.token.get().filter(|token| tag == Some(token.tag(line)))?;
        match Question::parse(line) {
            Ok(question) if question.boot == self.target.boot() => {
                let line = self.target.answer(question.id).to_string();
                Some(sealed(Some(token), line))
            }
            Ok(_) => None,
            Err(_) => self.power.as_mut()?.on_datagram(datagram),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use initcfg::{BootConfig, QuestionId, Token};

    #[test]
    fn only_the_boot_server_s_questions_about_this_boot_are_answered() {
        let line = "bootlace.server=10.0.0.1 bootlace.boot=4 bootlace.mac=52:54:00:00:00:01 bootlace.address=10.0.0.7/24 \
                    bootlace.host=lab-07 bootlace.root=nbd:10.0.0.1:10809:lab-07";
        let target = Target::from(&BootConfig::parse(line).unwrap());
        let secret = Token::new([7; 32]);
        let token = TokenCell::default();
        token.set(secret).unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let console = Console::log_only();
        let mut keeper = Heartbeats { socket, target, token, power: None, memory: None, console };
        let id = QuestionId::new([9; 16]);
        let question = |boot| Question { boot, id }.to_string();
        let answer = keeper.answer(secret.seal(&question(4)).as_bytes()).unwrap();
        assert_eq!(answer, secret.seal(&target.answer(id).to_string()));
        for wrong in
            [question(4), secret.seal(&question(5)), Token::new([8; 32]).seal(&question(4))]
        {
            assert_eq!(keeper.answer(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
