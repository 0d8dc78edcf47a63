//! What strangers can fill, and what it costs.

use super::time::Hands;
use super::*;

fn forged(n: u32) -> Mac {
    let [_, a, b, c] = n.to_be_bytes();
    Mac([2, 0x66, 0, a, b, c])
}

#[tokio::test]
async fn forged_macs_push_no_machine_out_and_few_of_whom_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(options(folder.path())).unwrap();
    let name: MachineName = "lab-07".parse().unwrap();
    adopt(&service, MAC, name.clone(), None).await.unwrap();
    let boot = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    const N_FORGED: u32 = 2100;
    for some in (0..N_FORGED).collect::<Vec<_>>().chunks(300) {
        let tasks = some.iter().map(|&n| {
            let service = service.clone();
            tokio::spawn(async move {
                let sighting = Sighting {
                    mac: forged(n),
                    firmware: Firmware::Bios,
                    address: None,
                    uuid: None,
                    host_name: None,
                };
                service.saw(sighting).await.unwrap();
                service.boot_started(forged(n), Firmware::Bios).await.unwrap();
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    }
    assert_eq!(service.boot_of(MAC).unwrap().id, boot, "a machine's boots are its own");
    let known = |service: &Service| {
        let boots = (0..N_FORGED).filter(|&n| service.boot_of(forged(n)).is_some()).count();
        (boots, service.discovered().len())
    };
    // A PC more may be noted each half second.
    let check = |(boots, discovered): (usize, usize)| {
        // They are forgotten some at once.
        assert!((1984..=2048).contains(&boots), "{boots}");
        assert!((512..1000).contains(&discovered), "{discovered}");
    };
    check(known(&service));
    // What readers see is what the tables hold.
    check(known(&Service::open(options(folder.path())).unwrap()));
}

#[tokio::test]
async fn the_oldest_boots_of_a_nic_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(1_800_000_000_000);
    let options = Options { clock: hands.clock(), ..options(folder.path()) };
    let service = Service::open(options).unwrap();
    let mut last = 0;
    for _ in 0..103 {
        hands.pass(60_000);
        last = service.boot_started(MAC, Firmware::Bios).await.unwrap();
        reached(&service, Stage::Config).await;
    }
    let boots = service.boots_of(MAC, 200).await.unwrap();
    assert_eq!((boots.len(), boots[0].id), (100, last));
}

#[tokio::test]
async fn stages_are_stored_in_the_order_in_which_they_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(options(folder.path())).unwrap();
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    // The second says the same stage once more: the first was the first, whoever waits for which.
    let first = service.stage(MAC, None, NewStage::noticed(Stage::Kernel, "first"));
    let second = service.stage(MAC, None, NewStage::noticed(Stage::Kernel, "second"));
    assert!(!second.await.unwrap());
    assert!(first.await.unwrap());
    assert_eq!(service.boot_of(MAC).unwrap().current().unwrap().detail, "first");
}

#[tokio::test]
async fn hardware_of_an_older_bootlace_moves_in_and_goes_with_its_machine() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let name: MachineName = "lab-07".parse().unwrap();
    let service = Service::open(options(root)).unwrap();
    adopt(&service, MAC, name.clone(), None).await.unwrap();
    drop(service);
    let files = options(root).hardware;
    std::fs::create_dir_all(&files).unwrap();
    let about = |failures: u32| {
        format!(r#"{{"boot":7,"modaliases":["pci:v1"],"fitted_boot":null,"failures":{failures}}}"#)
    };
    std::fs::write(files.join(format!("{}.json", MAC.compact())), about(2)).unwrap();
    std::fs::write(files.join("020000000009.json"), about(0)).unwrap();
    std::fs::write(files.join("notes.txt"), "of the administrator").unwrap();

    let service = Service::open(options(root)).unwrap();
    let hardware = service.hardware(&name).unwrap().unwrap();
    assert_eq!((hardware.boot, hardware.is_trusted()), (7, false));
    let left: Vec<_> =
        std::fs::read_dir(&files).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["notes.txt"], "what is not ours stays");
    service.remove_machine(name.clone()).await.unwrap();
    adopt(&service, MAC, name.clone(), None).await.unwrap();
    assert_eq!(service.hardware(&name).unwrap(), None);
}

#[tokio::test]
async fn readers_see_what_the_tables_hold_however_addresses_move() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(options(folder.path())).unwrap();
    let mut random = 1u32;
    let mut below = |n: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 16) % n
    };
    for _ in 0..20 {
        // Those that are queued together are stored together.
        let moves: Vec<_> = (0..below(40))
            .map(|_| {
                let (mac, address) = (forged(below(6)), Ipv4Addr::from(below(6)));
                let expires_unix = below(100).into();
                service.commit_lease(Lease { mac, address, expires_unix, host_name: None })
            })
            .collect();
        for moved in moves {
            moved.await.unwrap();
        }
        let seen = |service: &Service| {
            let mut leases = service.leases();
            leases.sort_by_key(|lease| lease.mac);
            let owners: Vec<_> = (0..6).map(|n| service.owner_of(Ipv4Addr::from(n))).collect();
            (leases, owners)
        };
        let (leases, owners) = seen(&service);
        for lease in &leases {
            let n = u32::from(lease.address) as usize;
            assert_eq!(owners[n], Some(lease.mac));
        }
        assert_eq!(owners.iter().flatten().count(), leases.len());
        let stored = seen(&Service::open(options(folder.path())).unwrap());
        // A process that starts counts by another clock, which is as far.
        assert_eq!(stored, (leases, owners));
    }
}
