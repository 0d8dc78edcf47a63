//! A PC that is switched on, as far as servers can tell: all that its firmware, its loader, its init and its system ask for.

use super::place::{Pc, Place};
use super::trace::Read;
use crate::booted::{NBD_PORT, SERVER_IP};
use anyhow::{Context, Result, bail};
use fakeclient::Histogram;
use fakeclient::http_file::{connect_from, get_from};
use fakeclient::machine_disk::MachineDisk;
use fakeclient::room::Room;
use fakeclient::speaker::{Speaker, Stage};
use fakeclient::tftp_crowd::{self, Fetch};
use initcfg::Token;
use lab::Started;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Firmware waits so long for a packet, and loaders for a byte.
const FIRMWARE_PATIENCE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// The server may prepare something first: the loader asks again.
const ASK_AGAIN: Duration = Duration::from_secs(2);
const READY_MAX: Duration = Duration::from_secs(120);

/// No kernel and no initrd is larger.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Like a system that writes a large file: in long pieces, which it has made durable now and then.
const WRITE_BYTES: u32 = 256 << 10;
const WRITES_BETWEEN_FLUSHES: u64 = 64;

/// Longest read of the trace.
const READ_BYTES_MAX: usize = 1 << 20;

const STALL: Duration = super::STALL;

/// Which request an answer is for.
const READ: u64 = 1;
const WRITE: u64 = 2;

/// What all PCs do.
pub(super) struct Orders<'a> {
    pub(super) reads: &'a [Read],
    /// The first so many write, too.
    pub(super) n_writers: usize,
}

/// What a PC noticed.
#[derive(Default)]
pub(super) struct Ran {
    /// From power-on until it was up.
    pub(super) took: Duration,
    pub(super) latencies: Histogram,
    pub(super) longest: Duration,
    pub(super) n_stalls: u64,
    pub(super) n_read: u64,
    pub(super) n_written: u64,
    pub(super) failed: Option<anyhow::Error>,
}

/// Switches all on.
pub(super) fn switch_on(place: &Place, orders: &Orders<'_>) -> Vec<Ran> {
    let start = Instant::now();
    let place_of_writes = place.written();
    std::thread::scope(|scope| {
        let pcs: Vec<_> = place
            .pcs()
            .iter()
            .enumerate()
            .map(|(n, pc)| {
                let written = (n < orders.n_writers).then(|| place_of_writes.clone());
                scope.spawn(move || run(start, pc, orders.reads, written))
            })
            .collect();
        let joined = pcs
            .into_iter()
            .map(|pc| pc.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect()
    })
}

fn run(start: Instant, pc: &Pc, reads: &[Read], written: Option<Range<u64>>) -> Ran {
    let mut ran = Ran::default();
    let booted = pc.client.netns().inside(|| boot(pc, reads, written, &mut ran));
    ran.failed = booted.err().map(|error| error.context(pc.machine.clone()));
    ran.took = start.elapsed();
    ran
}

/// In the PC's namespace.
fn boot(pc: &Pc, reads: &[Read], written: Option<Range<u64>>, ran: &mut Ran) -> Result<()> {
    let room = Room::open("eth0", vec![pc.mac])?;
    let placed = room.discover()?;
    room.request(&placed)?;
    let address = placed.first().context("the firmware got no offer")?.address;
    pc.client.netns().ip(&format!("address add {address}/24 dev eth0"))?;
    let files = Files { from: address };
    for path in ["bl.0", "grub/grub.cfg"] {
        files.by_tftp(path)?;
    }
    let deadline = Instant::now() + READY_MAX;
    let started = loop {
        let config = String::from_utf8_lossy(&files.by_tftp("grub/machine.cfg")?).into_owned();
        if let Some(started) = Started::by(&config) {
            break started;
        }
        if Instant::now() > deadline {
            bail!("the loader waits:\n{config}");
        }
        std::thread::sleep(ASK_AGAIN);
    };
    for path in [&started.kernel, &started.initrd] {
        files.by_http(path)?;
    }
    let mut token = None;
    for path in &started.behind {
        let segment = files.by_http(path)?;
        let text = String::from_utf8_lossy(&segment);
        token = token
            .or(text.lines().find_map(|line| line.strip_prefix("token=")?.parse::<Token>().ok()));
    }
    let token = token.context("the loader got no secret")?;
    let boot = started.arguments.split(' ').find_map(|word| word.strip_prefix("bootlace.boot="));
    let boot: u64 = boot.context("the command line names no boot")?.parse()?;

    let stream = connect_from(address, SocketAddrV4::new(SERVER_IP, NBD_PORT), PATIENCE)?;
    stream.set_nodelay(true)?;
    let mut disk = MachineDisk::open_over(stream, &pc.machine, boot, token, 1)?;
    let mut speaker = Speaker::connect_from(address, SERVER_IP, pc.mac, boot, token)?;
    speaker.report_to(Stage::Handover)?;
    use_disk(&mut disk, reads, written, ran)?;
    Ok(speaker.report_up()?)
}

/// Reads one after the other, as a system that starts; and writes all the time if there is a place for that.
fn use_disk(
    disk: &mut MachineDisk,
    reads: &[Read],
    written: Option<Range<u64>>,
    ran: &mut Ran,
) -> Result<()> {
    let mut buffer = vec![0; READ_BYTES_MAX];
    let mut writer =
        written.map(|place| Writer { place, n_writes: 0, bytes: vec![0x5a; WRITE_BYTES as usize] });
    if let Some(writer) = &mut writer {
        writer.next(disk)?;
    }
    for read in reads {
        let asked = Instant::now();
        disk.ask_read(READ, read.offset, read.length)?;
        loop {
            let buffer = &mut buffer;
            let length = read.length as usize;
            let cookie =
                disk.answered(
                    move |cookie| {
                        if cookie == READ { &mut buffer[..length] } else { &mut [] }
                    },
                )?;
            if cookie == READ {
                break;
            }
            if let Some(writer) = &mut writer {
                writer.next(disk)?;
            }
        }
        let took = asked.elapsed();
        ran.latencies.add(took);
        ran.longest = ran.longest.max(took);
        ran.n_stalls += u64::from(took > STALL);
        ran.n_read += u64::from(read.length);
    }
    if let Some(writer) = writer {
        disk.answered(|_| &mut [])?;
        ran.n_written = writer.n_written();
    }
    Ok(())
}

/// What a PC writes.
struct Writer {
    place: Range<u64>,
    n_writes: u64,
    bytes: Vec<u8>,
}

impl Writer {
    /// Asks for the next piece, or that all is made durable.
    fn next(&mut self, disk: &mut MachineDisk) -> Result<()> {
        self.n_writes += 1;
        if self.n_writes.is_multiple_of(WRITES_BETWEEN_FLUSHES + 1) {
            return Ok(disk.ask_flush(WRITE)?);
        }
        let n_places = (self.place.end - self.place.start) / u64::from(WRITE_BYTES);
        let offset = self.place.start + self.n_writes % n_places * u64::from(WRITE_BYTES);
        Ok(disk.ask_write(WRITE, offset, &self.bytes)?)
    }

    fn n_written(&self) -> u64 {
        (self.n_writes - self.n_writes / (WRITES_BETWEEN_FLUSHES + 1)) * u64::from(WRITE_BYTES)
    }
}

/// The boot server's files, for a PC with this address.
struct Files {
    from: Ipv4Addr,
}

impl Files {
    fn by_tftp(&self, path: &str) -> Result<Vec<u8>> {
        let fetch = Fetch {
            server: SocketAddrV4::new(SERVER_IP, 69),
            path,
            block_size: 1428,
            window: 1,
            patience: FIRMWARE_PATIENCE,
            lost_per_thousand: 0,
        };
        let got = tftp_crowd::fetch(&fetch, self.from);
        got.map(|(_, content)| content).with_context(|| format!("can't fetch {path} by TFTP"))
    }

    fn by_http(&self, path: &str) -> Result<Vec<u8>> {
        let server = SocketAddrV4::new(SERVER_IP, 80);
        get_from(self.from, server, path, FILE_BYTES_MAX, PATIENCE)
            .with_context(|| format!("can't fetch {path} by HTTP"))
    }
}
