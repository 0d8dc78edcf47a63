//! Many AoE initiators on one interface, as much at once as their windows allow.

mod content;
mod initiator;

use crate::Histogram;
use crate::packet::{BATCH_MAX, Packets};
use aoe::{ConfigCommand, ConfigQuery, Header, Request, RequestBody, emit_request};
use initiator::{Initiator, Outcome};
use std::io;
use std::time::{Duration, Instant};
use wire::Mac;

/// How long to wait for frames before it is looked for lost ones.
const PATIENCE: Duration = Duration::from_millis(5);

/// How often it is looked for lost frames while others arrive.
const LOST_POLL: Duration = Duration::from_millis(20);

/// How long the server may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// What initiators shall do to one disk, and for how long.
#[derive(Clone, Debug)]
pub struct Load {
    /// Network interface.
    pub interface: String,
    /// Major address of the disk.
    pub shelf: u16,
    /// Minor address of the disk.
    pub slot: u8,
    /// Initiators, each with a MAC address and a part of the disk of its own; at most 256.
    pub initiators: u16,
    /// Frames that each initiator has in flight at most.
    pub window: usize,
    /// Sectors of a frame.
    pub sectors: u8,
    /// Frames of a request, which follow each other on the disk.
    pub frames_per_request: u64,
    /// Requests go to random places, or one after the other.
    pub is_random: bool,
    /// How many of a hundred requests write.
    pub writes_percent: u32,
    /// Bytes of the disk that are used.
    pub size_bytes: u64,
    /// Whether what is read is compared with what was written.
    pub verify: bool,
    /// When a frame counts as lost, and is sent again.
    pub resend_after: Duration,
    /// How long requests are sent; answers to the last ones are waited for.
    pub duration: Duration,
}

/// What a [`Load`] came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Frames that were answered.
    pub frames: u64,
    /// Bytes that these carried.
    pub bytes: u64,
    /// Frames that were sent again.
    pub resent: u64,
    /// Answers to which nobody waited any more.
    pub late: u64,
    /// Answers that told an error.
    pub errors: u64,
    /// Blocks that were read and compared.
    pub verified: u64,
    /// Blocks that did not have what was written, and the first of them in words.
    pub wrong: u64,
    /// The first wrong block in words.
    pub first_wrong: Option<String>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// How long each answered frame took, from when it was sent first.
    pub times: Histogram,
}

impl Report {
    /// Answered frames in a second.
    pub fn frames_per_second(&self) -> f64 {
        self.frames as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Why a [`Load`] could not be put on a disk.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The interface is missing, or we may not use it.
    #[error("can't use the interface {interface}")]
    Interface {
        /// The interface.
        interface: String,
        /// Why the system refuses it.
        source: io::Error,
    },
    /// No server, or it does not answer these initiators.
    #[error("no answer from disk e{0}.{1}")]
    Silence(u16, u8),
    /// Frames can't be sent or received.
    #[error("the interface failed")]
    Io(#[from] io::Error),
}

/// The MAC address of the initiator with this number.
pub const fn mac(number: u8) -> Mac {
    Mac([0x02, 0xb0, 0x07, 0, 0, number])
}

/// Puts the load on the disk, and tells what came of it.
///
/// # Errors
/// No answer at all, or the interface fails. Lost frames and wrong data are in the report.
pub fn run(load: &Load) -> Result<Report, LoadError> {
    let mut packets = Packets::open(&load.interface, PATIENCE)
        .map_err(|source| LoadError::Interface { interface: load.interface.clone(), source })?;
    let server = discover(load, &mut packets)?;
    let began = Instant::now();
    let mut initiators: Vec<Initiator> = (0..load.initiators.min(256))
        .map(|at| Initiator::new(load, at as u8, server, began))
        .collect();
    let mut report = Report::default();
    let (mut heard, mut looked) = (began, began);
    let mut frames = Vec::with_capacity(BATCH_MAX);
    loop {
        let now = Instant::now();
        let is_over = now.duration_since(began) >= load.duration;
        if is_over && initiators.iter().all(Initiator::is_idle) {
            break;
        }
        if now.duration_since(heard) > SILENCE_MAX {
            return Err(LoadError::Silence(load.shelf, load.slot));
        }
        if now.duration_since(looked) > LOST_POLL {
            looked = now;
            for initiator in &mut initiators {
                report.resent += initiator.resend(now, load.resend_after, &mut frames);
            }
        }
        if !is_over {
            initiators.iter_mut().for_each(|initiator| initiator.fill_window(now, &mut frames));
        }
        packets.send(&frames)?;
        frames.clear();
        packets.receive(|frame| {
            let index = frame.get(5).copied().map_or(usize::MAX, usize::from);
            if frame.get(..5) == Some(&mac(0).0[..5])
                && let Some(initiator) = initiators.get_mut(index)
            {
                heard = Instant::now();
                count(&mut report, initiator.on_frame(frame, heard));
            }
        })?;
    }
    report.elapsed = began.elapsed();
    Ok(report)
}

fn count(report: &mut Report, outcome: Outcome) {
    match outcome {
        Outcome::Foreign => {}
        Outcome::Late => report.late += 1,
        Outcome::Failed => report.errors += 1,
        Outcome::Done { bytes, time, verified } => {
            report.frames += 1;
            report.bytes += bytes;
            report.times.add(time);
            match verified {
                None => {}
                Some(Ok(())) => report.verified += 1,
                Some(Err(text)) => {
                    report.wrong += 1;
                    report.first_wrong.get_or_insert(text);
                }
            }
        }
    }
}

/// Asks for the disk until it answers; the server's address.
fn discover(load: &Load, packets: &mut Packets) -> Result<Mac, LoadError> {
    let header = Header {
        destination: Mac::BROADCAST,
        source: mac(0),
        shelf: load.shelf,
        slot: load.slot,
        tag: 0,
    };
    let query = ConfigQuery { command: ConfigCommand::Read, text: b"" };
    let query = emit_request(&Request { header, body: RequestBody::Config(query) });
    for _ in 0..100 {
        packets.send(std::slice::from_ref(&query))?;
        std::thread::sleep(Duration::from_millis(20));
        let mut server = None;
        packets.receive(|frame| {
            let is_answer = frame.len() >= 32 && frame[14] & 0x08 != 0 && frame[19] == 1;
            if is_answer && let Some(source) = frame.get(6..12).and_then(|mac| mac.try_into().ok())
            {
                server = Some(Mac(source));
            }
        })?;
        if let Some(server) = server {
            return Ok(server);
        }
    }
    Err(LoadError::Silence(load.shelf, load.slot))
}
