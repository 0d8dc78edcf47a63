//! The attacker's process: does one thing as fast as it may, until its standard input is closed, and says how often it
//! did it, and how often it got what is not for it.

use super::attack::{Attack, Facts};
use super::pace::Pace;
use super::scene::addresses;
use crate::booted::SERVER_IP;
use anyhow::{Context, Result};
use clap::Args;
use fakeclient::aoe_crowd::AoeCrowd;
use fakeclient::crowd::Crowd;
use fakeclient::dhcp_crowd::DhcpCrowd;
use fakeclient::forged::Forger;
use fakeclient::machine_disk::{MachineDisk, opens};
use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use wire::Mac;

const NBD: u16 = 10809;
const HTTP: u16 = 80;
const TFTP: u16 = 69;

/// A file that all machines fetch.
const KERNEL: &str = "boot/debian/1/vmlinuz";

/// Connections of a crowd that come at once.
const CROWD_PART: usize = 50;

/// A server may answer that late.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(crate) struct Attacker {
    #[arg(value_enum)]
    attack: Attack,
    /// What it knows
    facts: PathBuf,
}

/// How often something was tried, and had what an attacker wants.
#[derive(Default)]
struct Tally {
    tries: u64,
    taken: u64,
}

impl Tally {
    fn note(&mut self, is_taken: bool) {
        self.tries += 1;
        self.taken += u64::from(is_taken);
    }
}

impl Attacker {
    pub(crate) fn run(self) -> Result<()> {
        let facts = Facts::from_json(&serde_json::from_slice(&std::fs::read(&self.facts)?)?)?;
        let tally = match self.attack {
            Attack::GuessDisks | Attack::UserOfTheMachine => guess_disks(&facts),
            Attack::Replay => replay(&facts)?,
            Attack::ForgedRelease => release(&facts)?,
            Attack::ForgedBoot => begin_boots(&facts)?,
            Attack::HostSegments => ask_for_secrets(&facts),
            Attack::ForgedWords => forge_words(&facts)?,
            Attack::NbdHalfOpen => crowd(&[NBD], 200, 2000, "")?,
            Attack::NbdUnread => leave_replies(&facts)?,
            Attack::HttpHalfOpen => {
                crowd(&[HTTP], 500, 5000, &format!("GET /{KERNEL} HTTP/1.1\r\nX: "))?
            }
            Attack::HttpDeaf => crowd(&[HTTP], 200, 1100, &request(&format!("/{KERNEL}")))?,
            Attack::TftpForged => forge_transfers()?,
            Attack::DhcpDiscover => discover()?,
            Attack::DhcpLeases => take_leases()?,
            Attack::LogLines => fill_the_log(&facts)?,
            Attack::AoeDeaf => ask_over_aoe()?,
            Attack::FewDescriptors => crowd(&[NBD, HTTP], 200, 2000, "")?,
        };
        println!("{} {}", tally.tries, tally.taken);
        Ok(())
    }
}

fn server(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(SERVER_IP, port)
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

/// A NIC that nobody has; another one for each number.
fn invented(number: u64) -> Mac {
    let [_, _, _, _, a, b, c, d] = number.wrapping_mul(0x9e37_79b9).to_be_bytes();
    Mac([0x02, 0x66, a, b, c, d])
}

fn guess_disks(facts: &Facts) -> Tally {
    let Facts { machine, boot, .. } = facts;
    let proof = "5a".repeat(32);
    let names = [
        machine.clone(),
        format!("{machine}?g=4294967295"),
        format!("{machine}?boot={boot}&g=4294967295&proof={proof}"),
        format!("{machine}?boot={}&g=1&proof={proof}", boot + 1),
        "honest-1".to_owned(),
        String::new(),
    ];
    let mut tally = Tally::default();
    let mut pace = Pace::new(100);
    while let Some(number) = pace.next() {
        let name = &names[number as usize % names.len()];
        tally.note(matches!(opens(server(NBD).into(), name, name), Ok(true)));
    }
    tally
}

fn replay(facts: &Facts) -> Result<Tally> {
    let forger = Forger::open()?;
    let mut tally = Tally::default();
    let mut pace = Pace::new(50);
    while let Some(number) = pace.next() {
        let is_open = opens(server(NBD).into(), &facts.machine, &facts.disk_name);
        tally.note(matches!(is_open, Ok(true)));
        let said = &facts.said[number as usize % facts.said.len()];
        let from = SocketAddrV4::new(facts.address, 40_000);
        forger.send(from, server(initcfg::REPORT_PORT), said.as_bytes())?;
    }
    Ok(tally)
}

fn release(facts: &Facts) -> Result<Tally> {
    let Facts { mac, address, .. } = *facts;
    let dhcp = DhcpCrowd::open("eth0")?;
    let own = invented(0);
    let mut tally = Tally::default();
    let mut pace = Pace::new(50);
    while let Some(number) = pace.next() {
        match number % 3 {
            0 => dhcp.release(mac, address, SERVER_IP)?,
            1 => dhcp.decline(mac, address, SERVER_IP)?,
            _ => dhcp.request(own, address, SERVER_IP)?,
        }
        let is_given = |of: &(Mac, _, Ipv4Addr)| of.0 == own && of.2 == address;
        tally.note(dhcp.answers()?.iter().any(is_given));
    }
    Ok(tally)
}

fn begin_boots(facts: &Facts) -> Result<Tally> {
    let Facts { mac, address, .. } = *facts;
    let dhcp = DhcpCrowd::open("eth0")?;
    let forger = Forger::open()?;
    let mut tally = Tally::default();
    let mut pace = Pace::new(20);
    while let Some(number) = pace.next() {
        dhcp.discover(mac)?;
        dhcp.request(mac, address, SERVER_IP)?;
        let from = SocketAddrV4::new(address, 2000 + (number % 30_000) as u16);
        forger.send(from, server(TFTP), b"\0\x01grub/machine.cfg\0octet\0")?;
        // Whether the machine goes on is seen from it.
        tally.note(false);
        dhcp.answers()?;
    }
    Ok(tally)
}

fn ask_for_secrets(facts: &Facts) -> Tally {
    let mut tally = Tally::default();
    let mut pace = Pace::new(100);
    while let Some(number) = pace.next() {
        let boot = facts.boot + number % 8;
        let path = if number.is_multiple_of(2) { "/host/" } else { "/boot/host/" };
        let answer = ask(&request(&format!("{path}{boot}"))).unwrap_or_default();
        tally.note(answer.contains("token="));
    }
    tally
}

/// What the boot server answers over HTTP.
fn ask(request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(server(HTTP)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn forge_words(facts: &Facts) -> Result<Tally> {
    let Facts { mac, boot, .. } = *facts;
    let boots = [boot, boot + 1, 1, 999_999];
    let forger = Forger::open()?;
    let mut tally = Tally::default();
    let mut pace = Pace::new(1000);
    while let Some(number) = pace.next() {
        let boot = boots[number as usize / 3 % boots.len()];
        let word = match number % 3 {
            0 => format!("bootlace/1 alive {boot} {mac}"),
            1 => format!("bootlace/1 off {boot} {mac}"),
            _ => format!("bootlace/1 report {boot} {mac} 200 failed 1000 forged"),
        };
        let from = SocketAddrV4::new(facts.address, 40_000);
        forger.send(from, server(initcfg::REPORT_PORT), word.as_bytes())?;
        tally.note(false);
    }
    Ok(tally)
}

/// Keeps so many connections open, which send this and read nothing; the oldest make room for new ones.
fn crowd(ports: &[u16], per_second: u32, count: usize, text: &str) -> Result<Tally> {
    let addresses = addresses();
    let mut parts = VecDeque::new();
    let mut tally = Tally::default();
    let mut pace = Pace::new(per_second.div_ceil(CROWD_PART as u32));
    while let Some(number) = pace.next() {
        let port = ports[number as usize % ports.len()];
        parts.push_back(Crowd::open(server(port), &addresses, CROWD_PART, text)?);
        if parts.len() * CROWD_PART > count {
            parts.pop_front();
        }
        tally.tries += CROWD_PART as u64;
    }
    Ok(tally)
}

fn leave_replies(facts: &Facts) -> Result<Tally> {
    let mut disks = Vec::new();
    for rogue in &facts.rogues {
        let token = rogue.token.parse().ok().context("no token")?;
        let open = move |generation| {
            MachineDisk::open_as(server(NBD).into(), &rogue.machine, rogue.boot, token, generation)
        };
        disks.push((open, None));
    }
    let mut tally = Tally::default();
    let mut pace = Pace::new(1);
    let mut last: Option<Instant> = None;
    let mut generation = 0;
    while pace.next().is_some() {
        if last.is_some_and(|last| last.elapsed() < PATIENCE) {
            continue;
        }
        last = Some(Instant::now());
        generation += 1;
        for (open, disk) in &mut disks {
            let mut new = open(generation)?;
            new.ask_and_leave(64, 8 << 20)?;
            // The former connection is ended by the server; it must not be waited for.
            if let Some(former) = disk.replace(new) {
                MachineDisk::abandon(former);
            }
            tally.note(false);
        }
    }
    disks.into_iter().filter_map(|(_, disk)| disk).for_each(MachineDisk::abandon);
    Ok(tally)
}

fn forge_transfers() -> Result<Tally> {
    let forger = Forger::open()?;
    let request = format!("\0\x01{KERNEL}\0octet\0");
    let mut tally = Tally::default();
    let mut pace = Pace::new(2000);
    while let Some(number) = pace.next() {
        let host = Ipv4Addr::new(10, 77, 0, (number % 250 + 3) as u8);
        let from = SocketAddrV4::new(host, 1025 + (number % 60_000) as u16);
        forger.send(from, server(TFTP), request.as_bytes())?;
        tally.note(false);
    }
    Ok(tally)
}

fn discover() -> Result<Tally> {
    let dhcp = DhcpCrowd::open("eth0")?;
    let mut tally = Tally::default();
    let mut pace = Pace::new(1000);
    while let Some(number) = pace.next() {
        dhcp.discover(invented(number))?;
        dhcp.answers()?;
        tally.note(false);
    }
    Ok(tally)
}

fn take_leases() -> Result<Tally> {
    let dhcp = DhcpCrowd::open("eth0")?;
    let mut tally = Tally::default();
    let mut pace = Pace::new(100);
    while let Some(number) = pace.next() {
        dhcp.discover(invented(number))?;
        for (mac, kind, address) in dhcp.answers()? {
            if format!("{kind:?}") == "Offer" {
                dhcp.request(mac, address, SERVER_IP)?;
            }
        }
        tally.note(false);
    }
    Ok(tally)
}

fn fill_the_log(facts: &Facts) -> Result<Tally> {
    let forger = Forger::open()?;
    let addresses = addresses();
    let mut tally = Tally::default();
    let mut pace = Pace::new(5000);
    let text = request("/no-such-file");
    while let Some(number) = pace.next() {
        let word = format!("bootlace/1 report {number} {} 1 failed 1000 x", facts.mac);
        let from = SocketAddrV4::new(facts.address, 40_000);
        forger.send(from, server(initcfg::REPORT_PORT), word.as_bytes())?;
        if number.is_multiple_of(100) {
            drop(Crowd::open(server(HTTP), &addresses, 1, &text)?);
        }
        tally.note(false);
    }
    Ok(tally)
}

fn ask_over_aoe() -> Result<Tally> {
    let aoe = AoeCrowd::open("eth0")?;
    let mut tally = Tally::default();
    let mut pace = Pace::new(2000);
    while let Some(number) = pace.next() {
        match number % 2 {
            0 => aoe.discover(invented(number), number as u32)?,
            _ => aoe.read(invented(number), number as u32)?,
        }
        tally.note(false);
    }
    Ok(tally)
}
