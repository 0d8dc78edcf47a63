//! What is kept, who sees it, and what is refused.

use super::*;
use model::FindingKind;

#[tokio::test]
async fn what_is_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(options(folder.path())).unwrap();
    let leases = (1..=200u8).map(|n| {
        let service = service.clone();
        tokio::spawn(async move {
            lease(&service, Mac([2, 0, 0, 0, 0, n]), Ipv4Addr::new(10, 77, 0, n)).await;
        })
    });
    for one in leases.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    assert_eq!(service.leases().len(), 200);
    // The address moves to another NIC.
    lease(&service, MAC, Ipv4Addr::new(10, 77, 0, 1)).await;
    let again = Service::open(options(folder.path())).unwrap();
    assert_eq!(again.leases().len(), 200);
    assert!(again.leases().iter().any(|lease| lease.mac == MAC));
}

#[tokio::test]
async fn a_server_that_can_store_nothing_any_more_ends() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(options(folder.path())).unwrap();
    let change = service.database().write::<(), _>(|_| panic!("a bug"));
    assert!(matches!(change.await, Err(Error::Stopping)));
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), service.run());
    ended.await.unwrap();
}

#[tokio::test]
async fn a_disk_without_any_room_left_is_not_said_to_have_some() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(options(folder.path())).unwrap();
    let database = service.database();
    database.keep_room();
    while !crate::store::Reserve::beside(&service.options().database).is_kept() {
        database.write(|_| Ok(())).await.unwrap();
    }
    let full = || {
        database.write(|_| {
            let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
            Err::<(), _>(rusqlite::Error::SqliteFailure(full, None).into())
        })
    };
    assert!(full().await.is_err());
    let kinds = async || -> Vec<FindingKind> {
        let found = service.findings().await.into_iter().map(|finding| finding.kind);
        let about_room = [FindingKind::StateNotStored, FindingKind::StateDiskFull];
        found.filter(|kind| about_room.contains(kind)).collect()
    };
    assert_eq!(kinds().await, [FindingKind::StateNotStored]);
    database.write(|_| Ok(())).await.unwrap();
    assert_eq!(kinds().await, [FindingKind::StateDiskFull]);
}

#[tokio::test]
async fn the_changes_of_another_process_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let server = Service::open(options(folder.path())).unwrap();
    let command = Service::open(options(folder.path())).unwrap();
    let change = MachineChange { mac: Some(MAC), ..MachineChange::default() };
    command.set_machine("lab-07".parse().unwrap(), change).await.unwrap();
    for _ in 0..50 {
        if server.site().machines.len() == 1 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the server did not notice the new machine");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(options(folder.path())).unwrap();
    let change = |mac| MachineChange { mac, ..MachineChange::default() };
    let one = || "lab-01".parse().unwrap();
    let refused = service.set_machine(one(), change(None)).await;
    assert!(matches!(refused, Err(Error::NoMac(_))));
    for mac in [Mac::BROADCAST, Mac([0; 6]), Mac([1, 0, 0x5e, 0, 0, 1])] {
        let refused = service.set_machine(one(), change(Some(mac))).await;
        assert!(matches!(refused, Err(Error::GroupMac(_))));
    }
    let with_image =
        MachineChange { image: Some(Some("gone".parse().unwrap())), ..change(Some(MAC)) };
    let refused = service.set_machine(one(), with_image).await.unwrap_err();
    assert!(refused.to_string().contains("import one first"), "{refused}");
    assert!(service.site().machines.is_empty());

    let first = service.set_machine(one(), change(Some(MAC))).await.unwrap();
    let refused = service.set_machine("lab-02".parse().unwrap(), change(Some(MAC))).await;
    assert!(matches!(refused, Err(Error::MacTaken { .. })));
    let other = Mac([2, 0, 0, 0, 0, 2]);
    let second = service.set_machine("lab-02".parse().unwrap(), change(Some(other))).await.unwrap();
    assert_ne!(first.shelf_slot, second.shelf_slot);
    service.remove_machine(one()).await.unwrap();
    let third = service.set_machine("lab-03".parse().unwrap(), change(Some(MAC))).await.unwrap();
    assert_eq!(third.shelf_slot, first.shelf_slot, "addresses are used again");
    assert!(matches!(service.remove_machine(one()).await, Err(Error::NoMachine(_))));
}

#[tokio::test]
async fn an_address_is_shown_for_the_pc_that_has_it_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(options(folder.path())).unwrap();
    let other = Mac([2, 0, 0, 0, 0, 2]);
    for mac in [MAC, other] {
        lease(&service, mac, ADDRESS).await;
        let sighting = Sighting {
            mac,
            firmware: Firmware::Bios,
            address: Some(ADDRESS),
            uuid: None,
            host_name: None,
        };
        service.saw(sighting).await.unwrap();
    }
    let mut shown: Vec<_> =
        service.discovered().into_iter().map(|it| (it.seen.mac, it.seen.address)).collect();
    shown.sort_unstable();
    let mut expected = [(MAC, None), (other, Some(ADDRESS))];
    expected.sort_unstable();
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn strangers_can_not_fill_the_disk_nor_write_into_others_boots() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(options(folder.path())).unwrap();
    let sighting = |mac| Sighting {
        mac,
        firmware: Firmware::Other(6),
        address: None,
        uuid: None,
        host_name: None,
    };
    service.saw(sighting(MAC)).await.unwrap();
    service.saw(sighting(MAC)).await.unwrap();
    let discovered = service.discovered();
    assert_eq!((discovered.len(), discovered[0].seen.firmware), (1, Firmware::Other(6)));

    let id = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    let event = NewStage {
        stage: Stage::Failed,
        detail: "\x1b[2J".to_owned() + &"ä".repeat(4000),
        uptime_ms: Some(1),
    };
    let stranger = Mac([2, 0, 0, 0, 0, 9]);
    assert!(!service.stage(stranger, Some(id), event.clone()).await.unwrap());
    assert!(service.stage(MAC, Some(id), event.clone()).await.unwrap());
    assert!(!service.stage(MAC, Some(id), event).await.unwrap(), "a repeated report");
    let detail = service.boot_of(MAC).unwrap().current().unwrap().detail.clone();
    assert!(detail.len() <= 512 && detail.starts_with(" [2J"), "{detail}");
}
