//! A machine's disk over AoE, behind a network that loses frames and their answers, repeats them, and delivers some late.

use crate::packet::Packets;
use aoe::{
    ATA_HEADER_BYTES, AtaCommand, AtaRequest, ConfigCommand, ConfigQuery, Header, Request,
    RequestBody, SECTOR_BYTES, emit_request,
};
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};
use wire::Mac;

/// How long to wait for frames before it is looked for what is due.
const PATIENCE: Duration = Duration::from_millis(5);

/// When a frame counts as lost, and is sent again with a new tag. Linux begins with about as much.
const RESEND: Duration = Duration::from_millis(250);

/// Sectors of a frame: what an MTU of 1500 bytes has room for.
const SECTORS: usize = 2;

/// One of so many frames and of their answers is lost, one frame is sent twice, and one comes late, too.
const LOST_ONE_IN: u64 = 32;
const REPEATED_ONE_IN: u64 = 16;
const LATE_ONE_IN: u64 = 16;

/// The longest that a late copy is on its way, milliseconds: less than any server needs to be there again, which then
/// can't know what it did before.
const LATE_MAX_MS: u64 = 300;

/// Why a disk over AoE can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AoeDiskError {
    /// There is no such interface, or we are not root.
    #[error("the interface can't be used")]
    Io(#[from] io::Error),
    /// Nobody answers for as long as was said.
    #[error("no answer from disk e{0}.{1} in {2:?}")]
    Silence(u16, u8, Duration),
    /// The answer tells an error, of AoE or of the disk: what Linux makes an I/O error of.
    #[error("disk e{0}.{1} answers sector {2} with an error: {3:02x?}")]
    Refused(u16, u8, u64, Vec<u8>),
}

/// What the network did to frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mishaps {
    /// Frames that never arrived.
    pub lost: u64,
    /// Answers that never arrived, so that what was done already was asked for again.
    pub answers_lost: u64,
    /// Frames that arrived twice.
    pub repeated: u64,
    /// Frames of which a copy arrived once more up to 300 ms later.
    pub late: u64,
}

/// The disk, as one NIC sees it.
pub struct AoeDisk {
    packets: Packets,
    header: Header,
    began: Instant,
    counter: u32,
    random: u64,
    late: Vec<(Instant, Vec<u8>)>,
    mishaps: Mishaps,
}

impl AoeDisk {
    /// Asks for the disk at `shelf.slot` behind `interface` until somebody answers, for `patience` at most. `seed` chooses
    /// which frames have mishaps. Needs root.
    ///
    /// # Errors
    /// Nobody answers, or the interface can't be used.
    pub fn open(
        interface: &str,
        mac: Mac,
        (shelf, slot): (u16, u8),
        seed: u64,
        patience: Duration,
    ) -> Result<Self, AoeDiskError> {
        let mut packets = Packets::open(interface, PATIENCE)?;
        let mut header = Header { destination: Mac::BROADCAST, source: mac, shelf, slot, tag: 0 };
        let query = ConfigQuery { command: ConfigCommand::Read, text: b"" };
        let query = emit_request(&Request { header, body: RequestBody::Config(query) });
        let began = Instant::now();
        let mut server = None;
        while server.is_none() {
            if began.elapsed() > patience {
                return Err(AoeDiskError::Silence(shelf, slot, patience));
            }
            // Lost, if the interface is down now.
            let _ = packets.send(std::slice::from_ref(&query));
            std::thread::sleep(Duration::from_millis(50));
            packets.receive(|frame| {
                let is_answer = frame.len() >= 32 && frame[14] & 0x08 != 0 && frame[19] == 1;
                if is_answer && let Some(Ok(source)) = frame.get(6..12).map(TryInto::try_into) {
                    server = Some(Mac(source));
                }
            })?;
        }
        header.destination = server.unwrap_or(Mac::BROADCAST);
        let mishaps = Mishaps::default();
        let random = seed | 1;
        Ok(Self { packets, header, began, counter: 0, random, late: Vec::new(), mishaps })
    }

    /// Writes whole sectors from `lba` on, until all is acknowledged.
    ///
    /// # Errors
    /// Nobody answers for `patience`, or the answer is an error.
    pub fn write(&mut self, lba: u64, data: &[u8], patience: Duration) -> Result<(), AoeDiskError> {
        let parts = (lba..).step_by(SECTORS).zip(data.chunks(SECTORS * SECTOR_BYTES));
        let jobs = parts.map(|(lba, data)| (lba, Some(data))).collect();
        self.exchange(jobs, patience).map(drop)
    }

    /// Reads so many sectors from `lba` on, an even number.
    ///
    /// # Errors
    /// Nobody answers for `patience`, or the answer is an error.
    pub fn read(
        &mut self,
        lba: u64,
        sectors: u64,
        patience: Duration,
    ) -> Result<Vec<u8>, AoeDiskError> {
        let jobs = (lba..lba + sectors).step_by(SECTORS).map(|lba| (lba, None)).collect();
        Ok(self.exchange(jobs, patience)?.into_values().flatten().collect())
    }

    /// What has happened to frames so far.
    pub fn mishaps(&self) -> Mishaps {
        self.mishaps
    }

    /// Sends all at once, and again what has no answer. Returns what was answered, by sector.
    fn exchange(
        &mut self,
        mut jobs: Vec<(u64, Option<&[u8]>)>,
        patience: Duration,
    ) -> Result<BTreeMap<u64, Vec<u8>>, AoeDiskError> {
        let (shelf, slot, began) = (self.header.shelf, self.header.slot, Instant::now());
        let mut answers = BTreeMap::new();
        // By tag: the job's place in the list, and when it was sent.
        let mut in_flight: BTreeMap<u32, (usize, Instant)> = BTreeMap::new();
        let turn = next(&mut self.random) as usize % jobs.len().max(1);
        jobs.rotate_left(turn);
        for (index, job) in jobs.iter().enumerate() {
            self.send(*job, index, &mut in_flight);
        }
        while !in_flight.is_empty() {
            if began.elapsed() > patience {
                return Err(AoeDiskError::Silence(shelf, slot, patience));
            }
            self.deliver_late();
            let mut refused = None;
            self.packets.receive(|frame| {
                let is_answer =
                    frame.len() >= ATA_HEADER_BYTES && frame[14] & 0x08 != 0 && frame[19] == 0;
                if !is_answer {
                    return;
                }
                let tag = u32::from_be_bytes([frame[20], frame[21], frame[22], frame[23]]);
                if one_in(&mut self.random, LOST_ONE_IN) {
                    self.mishaps.answers_lost += 1;
                    return;
                }
                let Some((index, _)) = in_flight.remove(&tag) else { return };
                let (lba, data) = jobs[index];
                // Neither an AoE error nor one of the disk (ERR, DF, BSY).
                if frame[14] & 0x04 != 0 || frame[27] & 0xa1 != 0 {
                    refused = Some((lba, frame[..ATA_HEADER_BYTES].to_vec()));
                }
                let wanted = if data.is_some() { 0 } else { SECTORS * SECTOR_BYTES };
                match frame.get(ATA_HEADER_BYTES..ATA_HEADER_BYTES + wanted) {
                    Some(data) => drop(answers.insert(lba, data.to_vec())),
                    None => refused = Some((lba, frame.to_vec())),
                }
            })?;
            if let Some((lba, frame)) = refused {
                return Err(AoeDiskError::Refused(shelf, slot, lba, frame));
            }
            let lost = in_flight.iter().filter(|(_, (_, sent))| sent.elapsed() > RESEND);
            for (tag, index) in lost.map(|(tag, (index, _))| (*tag, *index)).collect::<Vec<_>>() {
                in_flight.remove(&tag);
                self.send(jobs[index], index, &mut in_flight);
            }
        }
        Ok(answers)
    }

    fn send(
        &mut self,
        (lba, data): (u64, Option<&[u8]>),
        index: usize,
        in_flight: &mut BTreeMap<u32, (usize, Instant)>,
    ) {
        let command = match data {
            Some(_) => AtaCommand::Write { lba, fua: false },
            None => AtaCommand::Read { lba },
        };
        let data = data.unwrap_or_default();
        let body = RequestBody::Ata(AtaRequest { command, sectors: SECTORS as u8, data });
        let tag = self.tag();
        let frame = emit_request(&Request { header: Header { tag, ..self.header }, body });
        in_flight.insert(tag, (index, Instant::now()));
        self.transmit(frame);
    }

    /// Lets the network have the frame.
    fn transmit(&mut self, frame: Vec<u8>) {
        if one_in(&mut self.random, LATE_ONE_IN) {
            let time = Duration::from_millis(next(&mut self.random) % LATE_MAX_MS);
            self.late.push((Instant::now() + time, frame.clone()));
            self.mishaps.late += 1;
        }
        if one_in(&mut self.random, LOST_ONE_IN) {
            self.mishaps.lost += 1;
            return;
        }
        let copies = 1 + usize::from(one_in(&mut self.random, REPEATED_ONE_IN));
        self.mishaps.repeated += copies as u64 - 1;
        // What an interface does not take is lost.
        let _ = self.packets.send(&vec![frame; copies]);
    }

    fn deliver_late(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self.late.extract_if(.., |(due, _)| *due <= now).collect();
        // Nobody looked for a while: now they would be later than a network's.
        let frames = due.into_iter().filter(|(due, _)| now - *due < 5 * PATIENCE);
        let frames: Vec<_> = frames.map(|(_, frame)| frame).collect();
        let _ = self.packets.send(&frames);
    }

    /// As Linux makes them: a counter of 15 bits, and a clock of 250 Hz.
    fn tag(&mut self) -> u32 {
        self.counter = self.counter.wrapping_add(1);
        let ticks = self.began.elapsed().as_millis() as u32 / 4;
        (self.counter & 0x7fff) << 16 | ticks & 0xffff
    }
}

fn one_in(random: &mut u64, count: u64) -> bool {
    next(random).is_multiple_of(count)
}

/// The next of numbers without a pattern (xorshift); the first one is not 0.
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}
