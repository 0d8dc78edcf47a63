//! The servers, an image with enough to read, and the wire.

use crate::say;
use anyhow::{Context, Result};
use lab::{Client, Daemon, Lan, Recipe, Site};
use nix::sys::signal::Signal;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::Path;
use wire::Mac;

/// What goes over 1 Gbit/s a second in full packets, without their heads.
pub(super) const WIRE_BYTES_PER_SECOND: f64 = 125e6 * 1448.0 / 1514.0;

/// The wire of both sides. The limit is far: a network card takes no more than it can send, and drops nothing.
const SHAPED: [&str; 9] =
    ["tbf", "rate", "1gbit", "burst", "256kb", "limit", "64mb", "mtu", "68kb"];

/// Where what is written goes, behind what is read.
const WRITTEN_BYTES: u64 = 128 << 20;

const MIB: u64 = 1 << 20;

/// A PC at its switch.
pub(super) struct Pc {
    pub(super) machine: String,
    pub(super) mac: Mac,
    pub(super) client: Client,
}

/// Both servers, an image, machines, and their switch.
pub(super) struct Place {
    boot_server: Daemon,
    storage: Daemon,
    _switch: Client,
    pcs: Vec<Pc>,
    data: Range<u64>,
    site: Site,
}

impl Place {
    /// With so many machines, whose image holds so many bytes beside its file system.
    pub(super) fn start(binary: &Path, n_pcs: usize, n_bytes: u64) -> Result<Self> {
        let site = Site::builder().binary(binary).create(Lan::lay("storm")?)?;
        let image = site.root().join("disk");
        std::fs::copy(Recipe::BUSYBOX.image(say)?, &image)?;
        let begin = std::fs::metadata(&image)?.len().next_multiple_of(MIB);
        fill(&image, begin..begin + n_bytes)?;
        File::options().write(true).open(&image)?.set_len(begin + n_bytes + WRITTEN_BYTES)?;
        say("importing the image");
        site.run(&["image", "import", &image.to_string_lossy(), "--name", "room"])?;
        std::fs::remove_file(&image)?;
        let storage = site.storage()?;
        let boot_server = site.serve()?;
        let switch = site.lan().add_client("storm-switch", "52:54:00:00:02:01")?;
        switch.netns().ip("link add sw0 type bridge stp_state 0 forward_delay 0")?;
        switch.netns().ip("link set sw0 up")?;
        switch.netns().ip("link set eth0 master sw0")?;
        say(&format!("adding {n_pcs} machines"));
        let pcs = (0..n_pcs).map(|n| add(&site, &switch, n)).collect::<Result<Vec<_>>>()?;
        // What the servers send goes out by their bridge, and what the PCs send by the switch's port.
        for (netns, interface) in [(site.lan().netns(), "br0"), (switch.netns(), "eth0")] {
            let mut tc = netns.command("tc", Signal::SIGKILL);
            tc.args(["qdisc", "replace", "dev", interface, "root"]).args(SHAPED);
            lab::run(&mut tc).context("the wire can't be shaped")?;
        }
        Ok(Self { boot_server, storage, _switch: switch, pcs, data: begin..begin + n_bytes, site })
    }

    /// Where there is something to read.
    pub(super) fn data(&self) -> Range<u64> {
        self.data.clone()
    }

    /// Where a PC writes.
    pub(super) fn written(&self) -> Range<u64> {
        self.data.end..self.data.end + WRITTEN_BYTES
    }

    pub(super) fn pcs(&self) -> &[Pc] {
        &self.pcs
    }

    pub(super) fn boot_server(&self) -> u32 {
        self.boot_server.id()
    }

    pub(super) fn storage(&self) -> u32 {
        self.storage.id()
    }

    /// Returns what the servers said.
    pub(super) fn stop(self) -> Result<String> {
        let said = self.boot_server.log() + &self.storage.log();
        drop(self.pcs);
        self.boot_server.stop()?;
        self.storage.stop()?;
        drop(self.site);
        Ok(said)
    }
}

/// A machine, and a PC at the switch that is it.
fn add(site: &Site, switch: &Client, n: usize) -> Result<Pc> {
    let (machine, mac) = (format!("pc-{n}"), Mac([0x52, 0x54, 0, 0, 1, u8::try_from(n)?]));
    site.run(&["machine", "set", &machine, "--mac", &mac.to_string(), "--image", "room"])?;
    let client = Client::unplugged("storm")?;
    let (port, there) = (format!("port{n}"), client.netns().name());
    let end = format!("peer name eth0 address {mac} netns {there}");
    switch.netns().ip(&format!("link add {port} type veth {end}"))?;
    switch.netns().ip(&format!("link set {port} master sw0 up"))?;
    client.netns().ip("link set eth0 up")?;
    Ok(Pc { machine, mac, client })
}

/// Writes bytes of which no two blocks are the same.
fn fill(image: &Path, range: Range<u64>) -> Result<()> {
    let mut file = OpenOptions::new().write(true).open(image)?;
    file.seek(SeekFrom::Start(range.start))?;
    let mut file = BufWriter::with_capacity(MIB as usize, file);
    for n in range.start / 8..range.end / 8 {
        file.write_all(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())?;
    }
    Ok(file.flush()?)
}
