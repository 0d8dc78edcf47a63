//! What a machine says to the boot server, as its init and its keeper say it.

pub use initcfg::Stage;

use initcfg::{Ack, Answer, Heartbeat, Question, Report, Token, unseal};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};
use wire::Mac;

/// A report is repeated after this time.
const REPEAT: Duration = Duration::from_secs(1);

/// How often; then nobody hears us.
const REPEATS_MAX: u32 = 30;

/// Longest line that comes back.
const DATAGRAM_BYTES: usize = 1500;

/// One boot of one machine, at the machine's place. Whatever it says carries the proof of its boot.
#[derive(Debug)]
pub struct Speaker {
    socket: UdpSocket,
    mac: Mac,
    boot: u64,
    token: Token,
    sequence: u32,
    began: Instant,
    said: Vec<String>,
}

impl Speaker {
    /// A machine that has just started.
    ///
    /// # Errors
    /// There is no way to the server.
    pub fn connect(server: Ipv4Addr, mac: Mac, boot: u64, token: Token) -> io::Result<Self> {
        Self::connect_from(Ipv4Addr::UNSPECIFIED, server, mac, boot, token)
    }

    /// The same from this address of this host.
    ///
    /// # Errors
    /// There is no way to the server, or no such address.
    pub fn connect_from(
        from: Ipv4Addr,
        server: Ipv4Addr,
        mac: Mac,
        boot: u64,
        token: Token,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect((server, initcfg::REPORT_PORT))?;
        let began = Instant::now();
        Ok(Self { socket, mac, boot, token, sequence: 0, began, said: Vec::new() })
    }

    /// Reports that it is up, with all stages before that; each until it is acknowledged.
    ///
    /// # Errors
    /// Nobody acknowledges one.
    pub fn report_up(&mut self) -> io::Result<()> {
        self.report_to(Stage::Up)
    }

    /// Reports all stages up to this one; each until it is acknowledged.
    ///
    /// # Errors
    /// Nobody acknowledges one.
    pub fn report_to(&mut self, last: Stage) -> io::Result<()> {
        let stages = Stage::ALL.into_iter().filter(|stage| stage.is_reported());
        let stages = stages.filter(|stage| *stage != Stage::Failed && *stage <= last);
        stages.into_iter().try_for_each(|stage| self.report(stage))
    }

    fn report(&mut self, stage: Stage) -> io::Result<()> {
        match self.report_times(stage, REPEATS_MAX)? {
            true => Ok(()),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Reports a stage until it is acknowledged, so many times at most, each second; whether it is.
    ///
    /// # Errors
    /// There is no way to the server.
    pub fn report_times(&mut self, stage: Stage, n_times: u32) -> io::Result<bool> {
        self.sequence += 1;
        let report = Report {
            boot: self.boot,
            mac: self.mac,
            sequence: self.sequence,
            stage: Some(stage),
            uptime_ms: self.began.elapsed().as_millis() as u64,
            detail: String::new(),
        };
        let acknowledged = Ack { boot: self.boot, sequence: self.sequence };
        for _ in 0..n_times {
            self.say(&report.to_datagram())?;
            let deadline = Instant::now() + REPEAT;
            while let Some(line) = self.hear(deadline)? {
                if Ack::parse(&line) == Ok(acknowledged) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Gives a sign of life.
    ///
    /// # Errors
    /// There is no way to the server.
    pub fn is_alive(&mut self) -> io::Result<()> {
        self.beat(false)
    }

    /// Says that the system stops.
    ///
    /// # Errors
    /// There is no way to the server.
    pub fn stops(&mut self) -> io::Result<()> {
        self.beat(true)
    }

    fn beat(&mut self, is_last: bool) -> io::Result<()> {
        let (boot, mac) = (self.boot, self.mac);
        self.say(&Heartbeat { boot, mac, is_last, ram_used_percent: None }.to_string())
    }

    /// Answers the boot server's questions that come within this time.
    ///
    /// # Errors
    /// There is no way to the server.
    pub fn answer(&mut self, time: Duration) -> io::Result<()> {
        let deadline = Instant::now() + time;
        while let Some(line) = self.hear(deadline)? {
            if let Ok(Question { boot, id }) = Question::parse(&line)
                && boot == self.boot
            {
                self.say(&Answer { boot, mac: self.mac, id }.to_string())?;
            }
        }
        Ok(())
    }

    /// All that it has said, with the proofs: what somebody hears who listens.
    pub fn said(&self) -> &[String] {
        &self.said
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        let sealed = self.token.seal(line);
        self.socket.send(sealed.as_bytes())?;
        self.said.push(sealed);
        Ok(())
    }

    /// The next line, without its proof, which is not looked at; `None` if there is none until then.
    fn hear(&self, until: Instant) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = [0; DATAGRAM_BYTES];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.recv(&mut buffer) {
                Ok(length) => return Ok(Some(unseal(&buffer[..length]).0.to_vec())),
                Err(error) if goes_on(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Nothing has come, or the server is being started again.
fn goes_on(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionRefused | Interrupted | WouldBlock)
}
