//! What a machine's init says to its boot server.

pub use initcfg::Stage;

use initcfg::{Ack, REPORT_PORT, Report, Token};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;
use wire::Mac;

/// How long an acknowledgement may take; init says it again after less.
const PATIENCE: Duration = Duration::from_secs(2);

/// One boot of a machine, which has the boot's secret.
#[derive(Debug)]
pub struct MachineWords {
    socket: UdpSocket,
    mac: Mac,
    boot: u64,
    token: Token,
    sequence: u32,
}

impl MachineWords {
    /// It speaks to the boot server at that address.
    ///
    /// # Errors
    /// There is no socket to be had.
    pub fn open(server: Ipv4Addr, mac: Mac, boot: u64, token: Token) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((server, REPORT_PORT))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, mac, boot, token, sequence: 0 })
    }

    /// Says with the proof of its boot that it has reached a stage; whether that is acknowledged.
    ///
    /// # Errors
    /// The boot server can't be reached.
    pub fn report(&mut self, stage: Stage) -> io::Result<bool> {
        self.sequence += 1;
        let report = Report {
            boot: self.boot,
            mac: self.mac,
            sequence: self.sequence,
            stage: Some(stage),
            uptime_ms: u64::from(self.sequence) * 1000,
            detail: String::new(),
        };
        self.socket.send(self.token.seal(&report.to_datagram()).as_bytes())?;
        let mut answer = [0; 256];
        loop {
            match self.socket.recv(&mut answer) {
                // It may be a question, or for an earlier report.
                Ok(length) => {
                    let ack = Ack { boot: self.boot, sequence: self.sequence };
                    if Ack::parse(&answer[..length]) == Ok(ack) {
                        return Ok(true);
                    }
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
