//! What a real PC read of its disk while it booted, in this order.

use super::super::boot::RECIPE;
use crate::say;
use anyhow::{Context, Result, ensure};
use lab::{Daemon, Lan, Pc, Site};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

/// Debian 12 with systemd, from power-on to the login prompt, recorded by `cargo xtask bench storm --record`.
const RECORDED: &str = include_str!("boot.trace");

/// Reads are counted in blocks of so many bytes.
const BLOCK_BYTES: u64 = 4096;

/// What lies together stays together.
const PART_BYTES: u64 = 1 << 20;

/// Requests of NBD begin so (NBD protocol, "request message").
const REQUEST_MAGIC: [u8; 4] = 0x2560_9513_u32.to_be_bytes();
const REQUEST_BYTES: usize = 28;

const BOOT: Duration = Duration::from_secs(400);

/// A read request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// The reads of a boot.
pub(super) struct Trace {
    reads: Vec<Read>,
}

impl Trace {
    pub(super) fn recorded() -> Result<Self> {
        Self::parse(RECORDED)
    }

    /// A line a read: its first block, and how many.
    fn parse(text: &str) -> Result<Self> {
        let read = |line: &str| {
            let (block, count) =
                line.split_once(' ').context("a line of a trace has two numbers")?;
            let (block, count): (u64, u64) = (block.parse()?, count.parse()?);
            Ok(Read { offset: block * BLOCK_BYTES, length: u32::try_from(count * BLOCK_BYTES)? })
        };
        let reads = text.lines().map(read).collect::<Result<Vec<_>>>()?;
        ensure!(!reads.is_empty(), "the trace is empty");
        Ok(Self { reads })
    }

    fn text(&self) -> String {
        let line = |read: &Read| {
            let end = (read.offset + u64::from(read.length)).div_ceil(BLOCK_BYTES);
            let block = read.offset / BLOCK_BYTES;
            format!("{block} {}\n", end - block)
        };
        self.reads.iter().map(line).collect()
    }

    fn n_bytes(&self) -> u64 {
        self.reads.iter().map(|read| u64::from(read.length)).sum()
    }

    pub(super) fn said(&self) -> String {
        format!("{} reads, {} MB", self.reads.len(), self.n_bytes() / 1_000_000)
    }

    fn n_parts(&self) -> u64 {
        let mut parts: Vec<u64> = self.reads.iter().map(|read| read.offset / PART_BYTES).collect();
        parts.sort_unstable();
        parts.dedup();
        parts.len() as u64
    }

    /// Bytes of a disk from which so many are read without that any comes twice.
    pub(super) fn needs(&self, n_bytes: u64) -> u64 {
        // The last part may reach into one more.
        (n_bytes.div_ceil(self.n_bytes()) * self.n_parts() + 1) * PART_BYTES
    }

    /// So many bytes out of `data`, in the order and the pieces of this trace, which begins again with what nobody has read yet.
    pub(super) fn scaled(&self, n_bytes: u64, data: Range<u64>) -> Vec<Read> {
        let (mut reads, mut left, mut next) = (Vec::new(), n_bytes, data.start);
        while left > 0 {
            let mut places = HashMap::new();
            for read in &self.reads {
                let place = *places.entry(read.offset / PART_BYTES).or_insert_with(|| {
                    let place = next;
                    next += PART_BYTES;
                    place
                });
                let offset = place + read.offset % PART_BYTES;
                let length = u64::from(read.length).min(left).min(data.end.saturating_sub(offset));
                if length > 0 {
                    reads.push(Read { offset, length: length as u32 });
                }
                left -= length;
                if left == 0 {
                    break;
                }
            }
            if next >= data.end {
                break;
            }
        }
        reads
    }
}

/// Boots Debian in QEMU from `binary`, and keeps what it read.
pub(super) fn record(binary: &Path, path: &Path) -> Result<()> {
    let image = RECIPE.image(say)?;
    let site = Site::builder().binary(binary).create(Lan::lay("record")?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    site.run(&["machine", "set", "pc-1", "--mac", "52:54:00:00:00:01", "--image", "debian"])?;
    let servers = site.up()?;
    let packets = site.root().join("packets");
    let mut tcpdump = site.lan().netns().command("tcpdump", Signal::SIGKILL);
    tcpdump.args(["-i", "br0", "-U", "-s", "2000", "-Z", "root", "-w"]).arg(&packets);
    tcpdump.arg("tcp dst port 10809");
    let mut tcpdump =
        Daemon::start_detached("tcpdump", &mut tcpdump, &site.root().join("tcpdump"))?;
    tcpdump.wait_for_log("listening on", Duration::from_secs(20))?;
    let pc = Pc::builder("pc-1").mac("52:54:00:00:00:01").start(site.lan())?;
    pc.console().wait_for(" login: ", BOOT)?;
    drop(pc);
    tcpdump.stop()?;
    let trace = Trace { reads: requests(&std::fs::read(&packets)?)? };
    std::fs::write(path, trace.text())?;
    say(&format!("{}: {}", path.display(), trace.said()));
    servers.stop()
}

/// The read requests in a file of packets (pcap: 24 bytes of head, 16 before each packet, whose third number is its length).
fn requests(packets: &[u8]) -> Result<Vec<Read>> {
    ensure!(packets.starts_with(&0xa1b2_c3d4_u32.to_le_bytes()), "tcpdump wrote another format");
    let (mut reads, mut rest) = (Vec::new(), &packets[24..]);
    while let Some((head, behind)) = rest.split_at_checked(16) {
        let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let (packet, behind) =
            behind.split_at_checked(length).context("the last packet is cut off")?;
        let mut packet = packet;
        while let Some(at) = packet.windows(4).position(|four| four == REQUEST_MAGIC) {
            let Some(request) = packet.get(at..at + REQUEST_BYTES) else { break };
            let number = |range: Range<usize>| {
                request[range].iter().fold(0u64, |number, &byte| number << 8 | u64::from(byte))
            };
            // Type 0 is a read.
            if number(6..8) == 0 {
                reads.push(Read { offset: number(16..24), length: number(24..28) as u32 });
            }
            packet = &packet[at + REQUEST_BYTES..];
        }
        rest = behind;
    }
    Ok(reads)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0 1\n1000 32\n1 2\n";

    #[test]
    fn a_trace_goes_on_with_what_nobody_has_read() {
        let trace = Trace::parse(TRACE).unwrap();
        assert_eq!((trace.text().as_str(), trace.n_bytes()), (TRACE, 35 * BLOCK_BYTES));
        let n_bytes = 36 * BLOCK_BYTES;
        let data = PART_BYTES..PART_BYTES + trace.needs(n_bytes);
        let reads = trace.scaled(n_bytes, data.clone());
        let read = |offset, blocks: u64| Read { offset, length: (blocks * BLOCK_BYTES) as u32 };
        let inside = 1000 * BLOCK_BYTES % PART_BYTES;
        assert_eq!(
            reads,
            [
                read(PART_BYTES, 1),
                read(2 * PART_BYTES + inside, 32),
                read(PART_BYTES + BLOCK_BYTES, 2),
                read(3 * PART_BYTES, 1),
            ]
        );
        let is_inside = |read: &Read| read.offset + u64::from(read.length) <= data.end;
        assert!(trace.scaled(u64::MAX, data.clone()).iter().all(is_inside));
    }

    #[test]
    fn requests_are_found_in_packets() {
        let mut request = REQUEST_MAGIC.to_vec();
        request.extend([0, 0, 0, 0]);
        request.extend([7; 8]);
        request.extend(8192_u64.to_be_bytes());
        request.extend(4096_u32.to_be_bytes());
        let mut write = request.clone();
        write[7] = 1;
        let payload = [b"ethernet, ip, tcp".to_vec(), write, request].concat();
        let mut packets = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
        packets.extend([0; 20]);
        packets.extend([0; 8]);
        packets.extend((payload.len() as u32).to_le_bytes());
        packets.extend([0; 4]);
        packets.extend(payload);
        assert_eq!(requests(&packets).unwrap(), [Read { offset: 8192, length: 4096 }]);
        requests(&packets[..packets.len() - 1]).unwrap_err();
    }

    #[test]
    fn the_recorded_one_is_of_a_whole_boot() {
        assert!(Trace::recorded().unwrap().n_bytes() > 40_000_000);
    }
}
