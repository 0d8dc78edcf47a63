//! Tells the boot server which stage is reached, without ever holding up the boot.

use super::kernel_log;
use super::token::{TokenCell, later_token, sealed};
use crate::console::uptime;
use initcfg::{
    Ack, Answer, BootConfig, Heartbeat, Obedience, QuestionId, REPORT_MAX, REPORT_PORT, Report,
    Stage, Token,
};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wire::Mac;

/// Where `bootlace-init report` finds whom to tell: `SERVER BOOT MAC`.
pub(crate) const STATE_PATH: &str = "/run/bootlace/report";

/// Reports that wait for their acknowledgement; a boot has nine stages.
const WAITING_MAX: usize = 32;

/// Reports of one process count up from 1; those of later processes from here, which is far more than
/// one boot's stages.
pub(crate) const SEQUENCE_LATER: u32 = 100;

/// A report is repeated after this time, then after twice as long and so on.
const REPEAT_FIRST: Duration = Duration::from_millis(250);
const REPEAT_MAX: Duration = Duration::from_secs(2);

/// How soon the sender notices a new report.
const TICK: Duration = Duration::from_millis(20);

/// How long `bootlace-init report` tries.
const LATER_TIMEOUT: Duration = Duration::from_secs(60);

/// Whom to tell, and what names this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    server: Ipv4Addr,
    boot: u64,
    mac: Mac,
}

impl From<&BootConfig> for Target {
    fn from(config: &BootConfig) -> Self {
        Self { server: config.server, boot: config.boot, mac: config.mac }
    }
}

impl Target {
    /// Text for [`STATE_PATH`].
    pub(crate) fn to_line(self) -> String {
        format!("{} {} {}\n", self.server, self.boot, self.mac)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        Some(Self {
            server: words.next()?.parse().ok()?,
            boot: words.next()?.parse().ok()?,
            mac: words.next()?.parse().ok()?,
        })
    }
}

impl Target {
    /// A sign of life.
    pub(crate) fn heartbeat(self, ram_used_percent: Option<u8>) -> Heartbeat {
        Heartbeat { boot: self.boot, mac: self.mac, is_last: false, ram_used_percent }
    }

    /// The answer to an order.
    pub(crate) fn obedience(self, counter: u32) -> Obedience {
        Obedience { boot: self.boot, mac: self.mac, counter }
    }

    /// The answer to a question.
    pub(crate) fn answer(self, id: QuestionId) -> Answer {
        Answer { boot: self.boot, mac: self.mac, id }
    }

    /// Number of the boot.
    pub(crate) fn boot(self) -> u64 {
        self.boot
    }

    /// Where reports go.
    pub(crate) fn address(self) -> SocketAddrV4 {
        SocketAddrV4::new(self.server, REPORT_PORT)
    }
}

/// Sends reports from a thread of its own; each is repeated until the boot server has it. After
/// [`start`](Self::start) comes [`report`](Self::report) as often as there is something to tell, and
/// [`finish`](Self::finish) at the end.
pub(crate) struct Reporter {
    reports: Sender<Report>,
    all_acknowledged: Receiver<()>,
    /// The largest sequence number that was acknowledged; 0: none was.
    acknowledged: Arc<AtomicU32>,
    thread: JoinHandle<()>,
    target: Target,
    next_sequence: u32,
}

impl Reporter {
    pub(crate) fn start(target: Target, token: TokenCell, first_sequence: u32) -> Self {
        let (reports, queue) = mpsc::channel();
        let (done, all_acknowledged) = mpsc::channel();
        let acknowledged = Arc::new(AtomicU32::new(0));
        let heard = Arc::clone(&acknowledged);
        let thread = std::thread::spawn(move || {
            // Without a socket there is nobody to tell; the boot goes on.
            if let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) {
                send_all(&socket, target, &token, &queue, &heard);
            }
            let _ = done.send(());
        });
        let next_sequence = first_sequence;
        Self { reports, all_acknowledged, acknowledged, thread, target, next_sequence }
    }

    /// Whether the boot server has noted what was reported last.
    pub(crate) fn is_last_acknowledged(&self) -> bool {
        self.acknowledged.load(Ordering::Relaxed) + 1 >= self.next_sequence
    }

    /// Queues the report that a stage is reached; returns at once.
    pub(crate) fn report(&mut self, stage: Stage, detail: &str) {
        self.queue(Some(stage), detail);
    }

    /// Queues the report that the boot waits, and for what; returns at once.
    pub(crate) fn report_wait(&mut self, detail: &str) {
        self.queue(None, detail);
    }

    fn queue(&mut self, stage: Option<Stage>, detail: &str) {
        let report = Report {
            boot: self.target.boot,
            mac: self.target.mac,
            sequence: self.next_sequence,
            stage,
            uptime_ms: u64::try_from(uptime().as_millis()).unwrap_or(u64::MAX),
            detail: detail.to_owned(),
        };
        self.next_sequence += 1;
        let _ = self.reports.send(report);
    }

    /// Waits until all reports are acknowledged; `false` if that took longer than the limit.
    pub(crate) fn finish(self, limit: Duration) -> bool {
        drop(self.reports);
        let is_done = self.all_acknowledged.recv_timeout(limit).is_ok();
        if is_done {
            let _ = self.thread.join();
        }
        is_done
    }
}

/// Runs until the queue is closed and everything in it is acknowledged.
fn send_all(
    socket: &UdpSocket,
    target: Target,
    token: &OnceLock<Token>,
    queue: &Receiver<Report>,
    acknowledged: &AtomicU32,
) {
    let server = target.address();
    let mut waiting: VecDeque<Report> = VecDeque::new();
    let mut repeat = REPEAT_FIRST;
    let mut next_send = Instant::now();
    let mut is_open = true;
    while is_open || !waiting.is_empty() {
        loop {
            match queue.try_recv() {
                Ok(report) => {
                    if waiting.len() == WAITING_MAX {
                        waiting.pop_front();
                    }
                    waiting.push_back(report);
                    repeat = REPEAT_FIRST;
                    next_send = Instant::now();
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    is_open = false;
                    break;
                }
            }
        }
        if !waiting.is_empty() && Instant::now() >= next_send {
            for report in &waiting {
                // Fails until the NIC has its address: then it is sent next time.
                let datagram = sealed(token.get(), report.to_datagram());
                let _ = socket.send_to(datagram.as_bytes(), server);
            }
            next_send = Instant::now() + repeat;
            repeat = (repeat * 2).min(REPEAT_MAX);
        }
        read_acks(socket, target, &mut waiting, acknowledged);
    }
}

/// Takes what has come; waits for one tick at most.
fn read_acks(
    socket: &UdpSocket,
    target: Target,
    waiting: &mut VecDeque<Report>,
    acknowledged: &AtomicU32,
) {
    let mut buffer = [0; REPORT_MAX];
    let _ = socket.set_read_timeout(Some(TICK));
    let started = Instant::now();
    match socket.recv_from(&mut buffer) {
        Ok((length, sender)) => {
            let ack = Ack::parse(buffer.get(..length).unwrap_or_default());
            if let Ok(ack) = ack
                && sender.ip() == target.server
                && ack.boot == target.boot
            {
                waiting.retain(|report| report.sequence != ack.sequence);
                acknowledged.fetch_max(ack.sequence, Ordering::Relaxed);
            }
        }
        // "Connection refused" comes at once when nobody listens there: not a reason to spin.
        Err(_) => std::thread::sleep(TICK.saturating_sub(started.elapsed())),
    }
}

/// The last heartbeat is sent so often: it is not acknowledged, and nobody waits for it.
const LAST_HEARTBEATS: u32 = 3;

/// `report STAGE [DETAIL]`: tells the boot server about a stage that comes after the initrd; `report
/// off`: that this machine is being shut down.
pub(crate) fn report_later(arguments: &[String]) -> ExitCode {
    let word = arguments.first().map(String::as_str).unwrap_or_default();
    let target = std::fs::read_to_string(STATE_PATH).ok().and_then(|line| Target::parse(&line));
    let Some(target) = target else { return ExitCode::from(2) };
    if word == "off" {
        return report_off(target);
    }
    let Ok(stage) = word.parse::<Stage>() else { return ExitCode::from(2) };
    let token = later_token();
    let mut reporter = Reporter::start(target, token.clone(), SEQUENCE_LATER);
    reporter.report(stage, arguments.get(1).map(String::as_str).unwrap_or_default());
    // A boot server that is away is no fault of this machine.
    let is_told = reporter.finish(LATER_TIMEOUT);
    if stage == Stage::Failed && is_told {
        let _ = kernel_log::send(target.server, target.boot, token.get());
    }
    ExitCode::SUCCESS
}

fn report_off(target: Target) -> ExitCode {
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) else { return ExitCode::FAILURE };
    let line = Heartbeat { is_last: true, ..target.heartbeat(None) }.to_string();
    let line = sealed(later_token().get(), line);
    for _ in 0..LAST_HEARTBEATS {
        let _ = socket.send_to(line.as_bytes(), target.address());
        std::thread::sleep(TICK);
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use initcfg::{SEAL_BYTES, Word};

    #[test]
    fn the_state_file_reads_back() {
        let target =
            Target { server: Ipv4Addr::new(10, 0, 0, 1), boot: 7, mac: Mac([2, 0, 0, 0, 0, 1]) };
        assert_eq!(Target::parse(&target.to_line()), Some(target));
        assert_eq!(Target::parse("10.0.0.1 7"), None);
        assert_eq!(Target::parse(""), None);
    }

    #[test]
    fn a_lost_report_is_repeated_until_it_is_acknowledged() {
        // The port is fixed, so the test has an address of its own on loopback.
        let address = Ipv4Addr::new(127, 83, 5, 9);
        let Ok(server) = UdpSocket::bind((address, REPORT_PORT)) else { return };
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let target = Target { server: address, boot: 7, mac: Mac([2, 0, 0, 0, 0, 1]) };
        let token = TokenCell::default();
        let mut reporter = Reporter::start(target, token.clone(), 1);
        reporter.report(Stage::Start, "first");
        let mut buffer = [0; REPORT_MAX + SEAL_BYTES];
        server.recv_from(&mut buffer).unwrap();
        let secret = Token::new([7; 32]);
        token.set(secret).unwrap();
        // What was queued before there was a token proves itself when it is sent again.
        let (sender, report) = loop {
            let (length, sender) = server.recv_from(&mut buffer).unwrap();
            let (line, tag) = initcfg::unseal(&buffer[..length]);
            if let Some(tag) = tag {
                assert_eq!(tag, secret.tag(line));
                let Ok(Word::Report(report)) = Word::parse(line) else { panic!("no report") };
                break (sender, report);
            }
        };
        assert_eq!(
            (report.sequence, report.stage, report.detail.as_str()),
            (1, Some(Stage::Start), "first")
        );
        for (boot, sequence) in [(8, 1), (7, 2), (7, 1)] {
            let ack = Ack { boot, sequence }.to_string();
            server.send_to(ack.as_bytes(), sender).unwrap();
        }
        while !reporter.is_last_acknowledged() {
            std::thread::sleep(TICK);
        }
        assert!(reporter.finish(Duration::from_secs(10)));
    }
}
