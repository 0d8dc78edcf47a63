//! A disk that is shared by AoE: many machines at once, floods, and what changes while it is in use.

use crate::lan::{self, CLIENT, Initiator, SERVER, ata_frame, client_mac};
use crate::succeed;
use aoe::{AtaCommand, ConfigCommand, ConfigQuery, Header, Request, RequestBody, emit_request};
use fakeclient::aoe_load::{Load, Report};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use storage::{Allow, AoeAddress, Durability, Share, ShareConfig, Writes};
use wire::Mac;

const SECOND: Duration = Duration::from_secs(1);

/// A disk of 64 MiB that is shared by AoE as 1.1.
fn share(folder: &std::path::Path, mac: Option<Mac>, allow: Vec<Allow>) -> Share {
    share_at(folder, &["1.1"], mac, allow)
}

/// A disk of 64 MiB that is shared by AoE at several addresses, which are as many disks.
fn share_at(
    folder: &std::path::Path,
    addresses: &[&str],
    mac: Option<Mac>,
    allow: Vec<Allow>,
) -> Share {
    let file = folder.join("disk");
    std::fs::write(&file, vec![0x11; 64 << 20]).unwrap();
    let aoe = addresses.iter().map(|address| {
        let address = address.parse().unwrap();
        AoeAddress { interface: SERVER.into(), address, mac }
    });
    let config = ShareConfig {
        file,
        name: "lab".into(),
        writes: Writes::Through,
        durability: Durability::Durable,
        nbd: vec![],
        nbd_sockets: vec![],
        tls: None,
        aoe: aoe.collect(),
        allow,
    };
    Share::start(config).unwrap()
}

#[test]
fn a_disk_that_grows_is_announced_and_its_new_end_can_be_read() {
    lan::enter(1500);
    let folder = tempfile::tempdir().unwrap();
    let share = share(folder.path(), None, vec![Allow::Station(client_mac())]);
    let mut machine = Initiator::new();
    while machine.announcement(2 * SECOND).is_some() {}
    share.grow().unwrap();
    assert_eq!(machine.announcement(SECOND), None, "nothing is new");
    let file = std::fs::OpenOptions::new().write(true).open(folder.path().join("disk")).unwrap();
    file.set_len(65 << 20).unwrap();
    share.grow().unwrap();
    machine.announcement(5 * SECOND).expect("an announcement");
    let sectors = machine.ata(AtaCommand::Identify, 1, &[]).data[200..208].to_vec();
    assert_eq!(sectors, (65u64 << 20 >> 9).to_le_bytes());
    let last = AtaCommand::Read { lba: (65 << 20 >> 9) - 1 };
    assert_eq!(machine.ata(last, 1, &[]).data, [0; 512]);
}

#[test]
fn thirty_machines_at_once_lose_no_frame_and_read_what_they_wrote() {
    // The only disk is served by the thread that receives, one of several by its own.
    for addresses in [&["1.1"][..], &["1.1", "1.2"]] {
        thirty_machines(addresses);
    }
}

fn thirty_machines(addresses: &[&str]) {
    lan::enter(1500);
    let folder = tempfile::tempdir().unwrap();
    let _share = share_at(folder.path(), addresses, None, vec![]);
    let load = Load {
        interface: CLIENT.into(),
        shelf: 1,
        slot: 1,
        initiators: 30,
        window: 16,
        sectors: 2,
        frames_per_request: 8,
        is_random: true,
        writes_percent: 70,
        size_bytes: 64 << 20,
        verify: true,
        resend_after: 5 * SECOND,
        duration: 3 * SECOND,
    };
    let report = fakeclient::aoe_load::run(&load).unwrap();
    let Report { frames, resent, late, errors, verified, wrong, .. } = report;
    assert_eq!((resent, late, errors, wrong), (0, 0, 0, 0), "{:?}", report.first_wrong);
    assert!(frames > 1000 && verified > 100, "{frames} frames, {verified} verified");
}

#[test]
fn a_flood_of_discovery_disturbs_nobody() {
    lan::enter(1500);
    let folder = tempfile::tempdir().unwrap();
    let _share = share(folder.path(), None, vec![]);
    let load = Load {
        interface: CLIENT.into(),
        shelf: 1,
        slot: 1,
        initiators: 4,
        window: 16,
        sectors: 2,
        frames_per_request: 4,
        is_random: true,
        writes_percent: 50,
        size_bytes: 16 << 20,
        verify: true,
        resend_after: SECOND,
        duration: 3 * SECOND,
    };
    let header = Header {
        destination: Mac::BROADCAST,
        source: "52:54:00:00:00:77".parse().unwrap(),
        shelf: u16::MAX,
        slot: u8::MAX,
        tag: 1 << 31,
    };
    let query = ConfigQuery { command: ConfigCommand::Read, text: b"" };
    let query = emit_request(&Request { header, body: RequestBody::Config(query) });
    let is_done = AtomicBool::new(false);
    let flooder = Initiator::new();
    let began = Instant::now();
    let (report, sent) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut sent = 0;
            while !is_done.load(Ordering::Relaxed) {
                (0..200).for_each(|_| flooder.send(&query));
                sent += 200;
                std::thread::sleep(Duration::from_millis(5));
            }
            sent
        });
        let report = fakeclient::aoe_load::run(&load).unwrap();
        is_done.store(true, Ordering::Relaxed);
        (report, flood.join().unwrap())
    });
    let rate = f64::from(sent) / began.elapsed().as_secs_f64();
    let Report { frames, resent, errors, verified, wrong, .. } = report;
    println!("{rate:.0} queries a second beside {frames} frames, {resent} sent again");
    assert_eq!((errors, wrong), (0, 0), "{:?}", report.first_wrong);
    assert!(rate > 5000.0, "no flood: {rate:.0} a second");
    // The client's own buffer may lose some among the answers to the flood.
    assert!(frames > 1000 && resent * 50 < frames && verified > 100, "{frames}, {resent}");
}

#[test]
fn a_disk_with_an_address_of_its_own_is_the_same_on_any_server() {
    lan::enter(1500);
    let folder = tempfile::tempdir().unwrap();
    let mac: Mac = "02:00:00:00:01:00".parse().unwrap();
    let first = share(folder.path(), Some(mac), vec![]);
    let mut machine = Initiator::new();
    let to = |destination: Mac, tag| {
        let mut frame = ata_frame(tag, AtaCommand::Identify, 1, &[]);
        frame[..6].copy_from_slice(&destination.0);
        frame
    };
    machine.send(&to(Mac::BROADCAST, 1));
    let answer = machine.response(5 * SECOND).expect("a reply");
    assert_eq!(answer[6..12], mac.0);
    machine.send(&to(mac, 2));
    let identity = machine.response(5 * SECOND).expect("a reply")[36..].to_vec();
    machine.send(&to(lan::SERVER_MAC.parse().unwrap(), 3));
    assert_eq!(machine.response(SECOND), None, "the interface's own is not the disk's");
    // Another server, with another interface, takes over.
    drop(first);
    succeed("ip", &["link", "set", SERVER, "address", "52:54:00:00:00:fd"]);
    let _second = share(folder.path(), Some(mac), vec![]);
    machine.send(&to(mac, 4));
    let again = machine.response(5 * SECOND).expect("a reply")[36..].to_vec();
    assert!(again == identity);
}
