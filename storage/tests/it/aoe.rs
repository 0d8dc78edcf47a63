//! AoE on a wire: aoetools, and an initiator that does what Linux does and worse.

use crate::lan::{self, CLIENT, CLIENT_MAC, Initiator, SERVER, ata_frame, client_mac};
use crate::server::Server;
use crate::{run, succeed};
use aoe::AtaCommand;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
const DISK_SECTORS: u64 = 16_384;

#[test]
fn aoetools_find_the_machine_s_disk() {
    lan::enter(1500);
    let server = Server::start_on(SERVER);
    server.prepare_aoe("lab-01", CLIENT_MAC, 1, "discard");
    let identity = succeed("aoeping", &["-i", "-t", "5", "1", "1", CLIENT]);
    // "BL52…", the serial number, with the bytes of a pair swapped.
    assert!(identity.contains("4c 42 32 35"), "{identity}");
    let text = succeed("aoecfg", &["-t", "5", "1", "1", CLIENT]);
    assert!(text.contains("lab-01"), "{text}");
    let check = succeed("aoe-sancheck", &[]);
    let disk = check.lines().find(|line| line.starts_with("e1.1")).unwrap_or_default();
    assert!(disk.contains("1024") && disk.contains(CLIENT), "{check}");
}

#[test]
fn a_jumbo_network_carries_8_kib_frames() {
    lan::enter(9000);
    let server = Server::start_on(SERVER);
    server.prepare_aoe("lab-01", CLIENT_MAC, 1, "discard");
    let check = succeed("aoe-sancheck", &[]);
    let disk = check.lines().find(|line| line.starts_with("e1.1")).unwrap_or_default();
    assert!(disk.contains("8192"), "{check}");
    let mut machine = Initiator::new();
    let block: Vec<u8> = (0..8192).map(|index| (index % 251) as u8).collect();
    machine.write(16, &block);
    assert!(machine.read(16, 16) == block);
}

#[test]
fn a_disk_is_silent_to_all_but_its_machine() {
    lan::enter(1500);
    let server = Server::start_on(SERVER);
    server.prepare_aoe("lab-01", "52:54:00:00:00:99", 1, "discard");
    let ping = run("timeout", &["2", "aoeping", "1", "1", CLIENT]);
    assert!(!ping.status.success(), "a stranger must get no answer");
    let mut machine = Initiator::new();
    machine.send(&ata_frame(1, AtaCommand::Identify, 1, &[]));
    machine.send(&ata_frame(2, AtaCommand::Write { lba: 0, fua: false }, 1, &[0; 512]));
    assert_eq!(machine.response(SECOND), None);
    let exports = server.exports();
    assert!(!exports.contains("\"refused\":0,"), "{exports}");
    assert!(exports.contains("\"writes\":0,"), "{exports}");
    // A frame that the machine sends to another server must not be taken either.
    server.prepare_aoe("lab-01", CLIENT_MAC, 2, "discard");
    assert!(machine.announcement(SECOND).is_some());
    succeed("ip", &["link", "set", SERVER, "promisc", "on"]);
    let mut elsewhere = ata_frame(3, AtaCommand::Identify, 1, &[]);
    elsewhere[..6].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 0x77]);
    machine.send(&elsewhere);
    assert_eq!(machine.response(SECOND), None);
}

#[test]
fn what_is_written_is_read_and_gone_with_the_next_boot() {
    lan::enter(1500);
    let server = Server::start_on(SERVER);
    let mut machine = Initiator::new();
    server.prepare_aoe("lab-01", CLIENT_MAC, 1, "discard");
    let announcement = machine.announcement(5 * SECOND).expect("a machine that waits need not ask");
    assert_eq!(announcement[14..24], [0x18, 0, 0, 1, 1, 1, 0, 0, 0, 0]);
    assert_eq!(machine.read(100, 2), [0x11; 1024]);
    machine.write(100, &[0xaa; 1024]);
    assert_eq!(machine.read(99, 2), [[0x11; 512], [0xaa; 512]].concat());
    server.prepare_aoe("lab-01", CLIENT_MAC, 2, "discard");
    assert_eq!(machine.read(100, 2), [0x11; 1024]);
    server.prepare_aoe("lab-01", CLIENT_MAC, 3, "ram");
    let refused = machine.ata(AtaCommand::Write { lba: 100, fua: false }, 1, &[7; 512]);
    assert_eq!((refused.status, refused.error), (0x41, 0x04));
    assert_eq!(machine.read(100, 2), [0x11; 1024]);
}

#[test]
fn wrong_ranges_and_commands_get_ata_errors() {
    lan::enter(1500);
    let server = Server::start_on(SERVER);
    server.prepare_aoe("lab-01", CLIENT_MAC, 1, "persistent");
    let mut machine = Initiator::new();
    let mut ask = |command, sectors, data: &[u8]| {
        let reply = machine.ata(command, sectors, data);
        (reply.status, reply.error)
    };
    const GOOD: (u8, u8) = (0x40, 0);
    const OUTSIDE: (u8, u8) = (0x41, 0x10);
    const ABORTED: (u8, u8) = (0x41, 0x04);
    assert_eq!(ask(AtaCommand::Read { lba: DISK_SECTORS - 1 }, 1, &[]), GOOD);
    assert_eq!(ask(AtaCommand::Read { lba: DISK_SECTORS - 1 }, 2, &[]), OUTSIDE);
    assert_eq!(ask(AtaCommand::Read { lba: (1 << 48) - 1 }, 1, &[]), OUTSIDE);
    assert_eq!(ask(AtaCommand::Read { lba: 0 }, 0, &[]), ABORTED);
    assert_eq!(ask(AtaCommand::Read { lba: 0 }, 255, &[]), ABORTED);
    let end = AtaCommand::Write { lba: DISK_SECTORS, fua: false };
    assert_eq!(ask(end, 1, &[7; 512]), OUTSIDE);
    // Linux probes with a read that carries a full frame.
    assert_eq!(ask(AtaCommand::Read { lba: 0 }, 1, &[0; 1024]), GOOD);
    assert_eq!(ask(AtaCommand::Write { lba: 0, fua: true }, 1, &[7; 512]), GOOD);
    assert_eq!(ask(AtaCommand::Verify { lba: 0 }, 2, &[]), GOOD);
    assert_eq!(ask(AtaCommand::Flush, 0, &[]), GOOD);
    assert_eq!(ask(AtaCommand::CheckPowerMode, 0, &[]), GOOD);
    assert_eq!(ask(AtaCommand::SetFeature(0x82), 0, &[]), GOOD);
    assert_eq!(ask(AtaCommand::SmartEnable, 0, &[]), GOOD);
    assert_eq!(ask(AtaCommand::SmartStatus, 0, &[]), GOOD);
    assert_eq!(ask(AtaCommand::SmartData, 1, &[]), GOOD);
    assert_eq!(ask(AtaCommand::Unknown(0xf7), 0, &[]), ABORTED);
}

#[test]
fn what_may_be_right_the_next_time_gets_no_answer() {
    lan::enter(1500);
    let server = Server::start_on(SERVER);
    server.prepare_aoe("lab-01", CLIENT_MAC, 1, "persistent");
    let mut machine = Initiator::new();
    machine.write(0, &[7; 1024]);
    // A frame that was cut off on its way, by its length still a whole one.
    let cut = ata_frame(100, AtaCommand::Write { lba: 0, fua: false }, 2, &[8; 512]);
    machine.send(&cut);
    assert_eq!(machine.response(SECOND), None);
    assert_eq!(machine.read(0, 2), [7; 1024]);
    // The disk was attached while the interface had an MTU of 9000.
    let large = ata_frame(101, AtaCommand::Read { lba: 0 }, 16, &[]);
    machine.send(&large);
    assert_eq!(machine.response(SECOND), None);
    for interface in [SERVER, CLIENT] {
        succeed("ip", &["link", "set", interface, "mtu", "9000"]);
    }
    let began = Instant::now();
    let answer = loop {
        machine.send(&large);
        if let Some(answer) = machine.response(SECOND) {
            break answer;
        }
        assert!(began.elapsed() < 10 * SECOND);
    };
    assert_eq!((answer[25], answer[27]), (0, 0x40), "no error");
    assert_eq!(answer.len(), 36 + 16 * 512);
}

#[test]
fn garbage_and_cut_frames_disturb_nobody() {
    lan::enter(1500);
    let server = Server::start_on(SERVER);
    server.prepare_aoe("lab-01", CLIENT_MAC, 1, "discard");
    let mut machine = Initiator::new();
    let write = ata_frame(7, AtaCommand::Write { lba: 5, fua: false }, 2, &[0xee; 1024]);
    for length in 14..60 {
        machine.send(&write[..length]);
    }
    let mut noise = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..2000usize {
        let mut frame = write[..60 + round % 900].to_vec();
        for byte in &mut frame[14..] {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (noise >> 56) as u8;
        }
        if round % 2 == 0 {
            // Valid up to the command.
            frame[14..20].copy_from_slice(&[0x10, 0, 0, 1, 1, (round / 2 % 5) as u8]);
        }
        // An ATA write that hits the disk by chance is a write like any other.
        if frame[19] == 0 && [0x30, 0x31, 0xca, 0x34, 0x35, 0x3d, 0xce].contains(&frame[27]) {
            frame[27] = 0xff;
        }
        machine.send(&frame);
    }
    assert_eq!(machine.read(5, 2), [0x11; 1024]);
}

#[test]
fn a_burst_of_writes_loses_no_frame() {
    lan::enter(1500);
    let server = Server::start_on(SERVER);
    let mut machine = Initiator::new();
    server.prepare_aoe("lab-01", CLIENT_MAC, 1, "persistent");
    assert!(machine.announcement(5 * SECOND).is_some());
    // A whole window at once, as Linux sends it, eight times.
    for window in 0..8u32 {
        for tag in window * 64..(window + 1) * 64 {
            let command = AtaCommand::Write { lba: u64::from(tag) * 2, fua: false };
            machine.send(&ata_frame(tag, command, 2, &[tag as u8; 1024]));
        }
        let mut left = 64;
        let began = Instant::now();
        while left > 0 {
            machine.response(5 * SECOND).unwrap_or_else(|| panic!("{left} replies are missing"));
            left -= 1;
        }
        assert!(began.elapsed() < 10 * SECOND);
    }
    for tag in 0..512u32 {
        assert_eq!(machine.read(u64::from(tag) * 2, 2), [tag as u8; 1024], "write {tag}");
    }
    // Acknowledged is durable, but not one by one.
    let exports = server.exports();
    assert_eq!((counter(&exports, "writes"), counter(&exports, "dropped")), (512, 0));
    assert!((1..400).contains(&counter(&exports, "flushes")), "{exports}");
}

fn counter(exports: &str, name: &str) -> u32 {
    let after = exports.split(&format!("\"{name}\":")).nth(1).unwrap();
    after.split([',', '}']).next().unwrap().parse().unwrap()
}

#[test]
fn a_disk_is_back_after_a_restart_and_when_the_interface_is() {
    lan::enter(1500);
    let server = Server::start_on(SERVER);
    server.prepare_aoe("lab-01", CLIENT_MAC, 1, "discard");
    let mut machine = Initiator::new();
    machine.write(8, &[0xaa; 1024]);
    let server = server.restart();
    assert_eq!(machine.read(8, 2), [0xaa; 1024]);
    succeed("ip", &["link", "del", SERVER]);
    std::thread::sleep(2 * SECOND);
    lan::connect(1500);
    let mut machine = Initiator::new();
    assert_eq!(machine.read(8, 2), [0xaa; 1024]);
    drop(server);
}

/// A request of this machine with these bytes behind the header.
fn raw_frame(command: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = ata_frame(9, AtaCommand::Flush, 0, &[])[..24].to_vec();
    frame[19] = command;
    frame.extend(body);
    frame.resize(frame.len().max(60), 0);
    frame
}

#[test]
fn the_network_may_see_who_may_use_a_disk_but_not_change_it() {
    lan::enter(1500);
    let server = Server::start_on(SERVER);
    server.prepare_aoe("lab-01", CLIENT_MAC, 1, "discard");
    let mut machine = Initiator::new();
    let mac = client_mac().0;
    let mut ask = |command, body: &[u8]| {
        machine.send(&raw_frame(command, body));
        let reply = machine.response(5 * SECOND).expect("a reply");
        (reply[14] & 0x04 != 0, reply[15], reply[24..].to_vec())
    };
    let (_, _, mask) = ask(2, &[0; 4]);
    assert_eq!((&mask[..4], &mask[6..12]), (&[0, 0, 0, 1][..], &mac[..]));
    let (_, _, refused) = ask(2, &[0, 1, 0, 1, 0, 1, 2, 0, 0, 0, 0, 9]);
    assert_eq!(refused[..4], [0, 1, 1, 0], "error 1 at the first directive");
    let (_, _, reserved) = ask(3, &[0, 0]);
    assert_eq!((&reserved[..2], &reserved[2..8]), (&[0, 1][..], &mac[..]));
    assert!(!ask(3, &[&[1, 1][..], &mac].concat()).0, "it is reserved for this machine already");
    assert!(matches!(ask(3, &[2, 0]), (true, 6, _)));
    let force = [0, 0, 0, 0, 0, 4, 0, 4, b'm', b'i', b'n', b'e'];
    assert!(matches!(ask(1, &force), (true, 4, _)));
    assert!(matches!(ask(0xf0, &[]), (true, 1, _)));
}

#[test]
fn frames_of_a_vlan_are_dropped_and_counted() {
    lan::enter(1500);
    let server = Server::start_on(SERVER);
    server.prepare_aoe("lab-01", CLIENT_MAC, 1, "discard");
    let mut machine = Initiator::new();
    let identify = ata_frame(5, AtaCommand::Identify, 1, &[]);
    let tagged = |number: u8| {
        let mut frame = identify.clone();
        frame.splice(12..12, [0x81, 0, 0x60, number]);
        frame
    };
    machine.send(&tagged(7));
    assert_eq!(machine.response(SECOND), None);
    assert_eq!(counter(&server.exports(), "dropped_vlan"), 1);
    machine.send(&tagged(0));
    assert!(machine.response(5 * SECOND).is_some(), "a priority alone is no VLAN");
}

#[test]
fn a_disk_is_announced_three_times_and_again_when_the_link_is_back() {
    lan::enter(1500);
    let server = Server::start_on(SERVER);
    let mut machine = Initiator::new();
    server.prepare_aoe("lab-01", CLIENT_MAC, 1, "discard");
    let began = Instant::now();
    for _ in 0..3 {
        machine.announcement(5 * SECOND).expect("an announcement");
    }
    assert!(began.elapsed() > Duration::from_millis(900), "not all at once");
    assert_eq!(machine.announcement(SECOND), None);
    succeed("ip", &["link", "set", SERVER, "down"]);
    std::thread::sleep(2 * SECOND);
    succeed("ip", &["link", "set", SERVER, "up"]);
    machine.announcement(5 * SECOND).expect("an announcement when the link is up");
    assert_eq!(machine.read(8, 2), [0x11; 1024]);
    succeed("ip", &["link", "set", SERVER, "mtu", "9000"]);
    let is_large = |frame: &[u8]| frame[28] == 16;
    while !is_large(&machine.announcement(5 * SECOND).expect("one with the new frame size")) {}
}

#[test]
fn a_late_copy_of_a_write_does_not_undo_a_newer_one() {
    lan::enter(1500);
    let server = Server::start_on(SERVER);
    server.prepare_aoe("lab-01", CLIENT_MAC, 1, "persistent");
    let mut machine = Initiator::new();
    // Tags as Linux makes them.
    let mut count = 0u32;
    let began = Instant::now();
    let mut tag = || {
        count += 1;
        count << 16 | began.elapsed().as_millis() as u32
    };
    let mut ask = |tag: u32, command, data: &[u8]| {
        machine.send(&ata_frame(tag, command, 2, data));
        machine.response(SECOND)
    };
    for _ in 0..20 {
        assert!(ask(tag(), AtaCommand::Read { lba: 0 }, &[]).is_some());
    }
    let write = AtaCommand::Write { lba: 8, fua: false };
    let late = tag();
    assert!(ask(tag(), write, &[1; 1024]).is_some(), "the same once more");
    assert!(ask(tag(), write, &[2; 1024]).is_some());
    assert_eq!(ask(late, write, &[1; 1024]), None);
    let read = ask(tag(), AtaCommand::Read { lba: 8 }, &[]).expect("a reply");
    assert!(read[36..] == [2; 1024], "the newer data");
    assert_eq!(counter(&server.exports(), "dropped_stale"), 1);
}
