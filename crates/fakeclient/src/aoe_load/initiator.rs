//! One initiator: its window, its part of the disk and what it has written there.

use super::{Load, content, mac};
use aoe::{
    ATA_HEADER_BYTES, AtaCommand, AtaRequest, Header, Request, RequestBody, SECTOR_BYTES,
    emit_request,
};
use std::time::{Duration, Instant};
use wire::Mac;

/// What a frame was.
pub(super) enum Outcome {
    /// The frame is no answer to this load.
    Foreign,
    /// The answer comes too late: nobody waits for it any more.
    Late,
    /// The answer tells an error.
    Failed,
    /// The request is done. `verified` is `None` where nothing was compared.
    Done { bytes: u64, time: Duration, verified: Option<Result<(), String>> },
}

struct InFlight {
    tag: u32,
    block: u64,
    is_write: bool,
    first_sent: Instant,
    sent: Instant,
}

pub(super) struct Initiator {
    began: Instant,
    read: Vec<u8>,
    write: Vec<u8>,
    sectors: u8,
    window: usize,
    frames_per_request: u64,
    is_random: bool,
    writes_percent: u32,
    verify: bool,
    /// First sector of its part.
    first: u64,
    /// What each block of a frame's size holds; 0 is "unknown".
    generations: Vec<u32>,
    is_busy: Vec<bool>,
    in_flight: Vec<InFlight>,
    /// Next block, and how many more of the same request follow.
    next: u64,
    left: u64,
    is_writing: bool,
    random: u64,
    counter: u32,
}

impl Initiator {
    pub(super) fn new(load: &Load, number: u8, server: Mac, began: Instant) -> Self {
        let header = Header {
            destination: server,
            source: mac(number),
            shelf: load.shelf,
            slot: load.slot,
            tag: 0,
        };
        let length = usize::from(load.sectors) * SECTOR_BYTES;
        let template = |command, data: &[u8]| {
            let body = RequestBody::Ata(AtaRequest { command, sectors: load.sectors, data });
            emit_request(&Request { header, body })
        };
        let blocks = load.size_bytes / length as u64 / u64::from(load.initiators.max(1));
        Self {
            began,
            read: template(AtaCommand::Read { lba: 0 }, &[]),
            write: template(AtaCommand::Write { lba: 0, fua: false }, &vec![number; length]),
            sectors: load.sectors,
            window: load.window,
            frames_per_request: load.frames_per_request.max(1),
            is_random: load.is_random,
            writes_percent: load.writes_percent,
            verify: load.verify,
            first: blocks * u64::from(number) * u64::from(load.sectors),
            generations: vec![0; blocks as usize],
            is_busy: vec![false; blocks as usize],
            in_flight: Vec::with_capacity(load.window),
            next: 0,
            left: 0,
            is_writing: false,
            random: 0x9e37_79b9_7f4a_7c15 ^ (u64::from(number) << 32),
            counter: 0,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Frames for what the window has room for.
    pub(super) fn fill_window(&mut self, now: Instant, frames: &mut Vec<Vec<u8>>) {
        while self.in_flight.len() < self.window {
            let Some(block) = self.next_block() else { return };
            let is_write = self.is_writing;
            self.is_busy[block as usize] = true;
            if is_write {
                let generation = &mut self.generations[block as usize];
                *generation = generation.wrapping_add(1).max(1);
            }
            let tag = self.tag(now);
            self.in_flight.push(InFlight { tag, block, is_write, first_sent: now, sent: now });
            frames.push(self.frame(tag, block, is_write));
        }
    }

    /// Sends again what was lost, with new tags; how many.
    pub(super) fn resend(
        &mut self,
        now: Instant,
        after: Duration,
        frames: &mut Vec<Vec<u8>>,
    ) -> u64 {
        let mut count = 0;
        for index in 0..self.in_flight.len() {
            if now.duration_since(self.in_flight[index].sent) < after {
                continue;
            }
            let tag = self.tag(now);
            let lost = &mut self.in_flight[index];
            (lost.tag, lost.sent) = (tag, now);
            let (block, is_write) = (lost.block, lost.is_write);
            frames.push(self.frame(tag, block, is_write));
            count += 1;
        }
        count
    }

    pub(super) fn on_frame(&mut self, frame: &[u8], now: Instant) -> Outcome {
        let is_answer = frame.len() >= ATA_HEADER_BYTES && frame[14] & 0x08 != 0 && frame[19] == 0;
        if !is_answer {
            return Outcome::Foreign;
        }
        let tag = u32::from_be_bytes([frame[20], frame[21], frame[22], frame[23]]);
        let Some(index) = self.in_flight.iter().position(|one| one.tag == tag) else {
            return Outcome::Late;
        };
        let InFlight { block, is_write, first_sent, .. } = self.in_flight.swap_remove(index);
        self.is_busy[block as usize] = false;
        // Neither an AoE error nor one of the disk (ERR, DF, BSY).
        if frame[14] & 0x04 != 0 || frame[27] & 0xa1 != 0 {
            return Outcome::Failed;
        }
        let length = usize::from(self.sectors) * SECTOR_BYTES;
        let generation = self.generations[block as usize];
        let verified = (self.verify && !is_write && generation > 0).then(|| {
            let data = frame.get(ATA_HEADER_BYTES..ATA_HEADER_BYTES + length);
            let data = data.ok_or_else(|| format!("an answer of only {} bytes", frame.len()))?;
            content::check(data, self.lba(block), generation)
        });
        Outcome::Done { bytes: length as u64, time: now.duration_since(first_sent), verified }
    }

    /// The next block that is not in flight; `None` if all chances are.
    fn next_block(&mut self) -> Option<u64> {
        let blocks = self.generations.len() as u64;
        for _ in 0..8 {
            if self.left == 0 {
                self.left = self.frames_per_request.min(blocks);
                self.is_writing = self.random() % 100 < u64::from(self.writes_percent);
                if self.is_random {
                    let requests = blocks / self.frames_per_request;
                    self.next = self.random() % requests.max(1) * self.frames_per_request;
                }
            }
            let block = self.next % blocks.max(1);
            (self.next, self.left) = (block + 1, self.left - 1);
            if self.is_busy.get(block as usize) == Some(&false) {
                return Some(block);
            }
        }
        None
    }

    fn frame(&self, tag: u32, block: u64, is_write: bool) -> Vec<u8> {
        let mut frame = if is_write { self.write.clone() } else { self.read.clone() };
        let lba = self.lba(block);
        frame[20..24].copy_from_slice(&tag.to_be_bytes());
        frame[28..34].copy_from_slice(&lba.to_le_bytes()[..6]);
        if is_write && self.verify {
            let generation = self.generations[block as usize];
            content::fill(&mut frame[ATA_HEADER_BYTES..], lba, generation);
        }
        frame
    }

    fn lba(&self, block: u64) -> u64 {
        self.first + block * u64::from(self.sectors)
    }

    /// As Linux makes them: a counter of 15 bits, and a clock of 250 Hz.
    fn tag(&mut self, now: Instant) -> u32 {
        self.counter = self.counter.wrapping_add(1);
        let ticks = now.duration_since(self.began).as_millis() as u32 / 4;
        (self.counter & 0x7fff) << 16 | ticks & 0xffff
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}
