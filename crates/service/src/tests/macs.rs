//! Machines with several NICs.

use super::candidates::Lab;
use super::*;
use model::{BootId, Machine, MachineName};

/// The NIC of the dock.
const DOCK: Mac = Mac([0x52, 0x54, 0, 0, 0, 2]);
const DOCK_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 102);

fn add(mac: Mac) -> MachineChange {
    MachineChange { add_macs: vec![mac], ..MachineChange::default() }
}

fn take_away(mac: Mac) -> MachineChange {
    MachineChange { remove_macs: vec![mac], ..MachineChange::default() }
}

/// A laptop with a dock.
async fn laptop(root: RootKind) -> Lab {
    let lab = Lab::new(root).await;
    lab.service.set_machine(lab.name.clone(), add(DOCK)).await.unwrap();
    lease(&lab.service, DOCK, DOCK_ADDRESS).await;
    lab
}

/// The NICs of the machine's boots, the last first.
async fn history(service: &Service, mac: Mac) -> Vec<(BootId, Mac)> {
    let boots = service.boots_of(mac, 9).await.unwrap();
    boots.iter().map(|boot| (boot.id, boot.mac)).collect()
}

#[tokio::test]
async fn a_laptop_is_the_same_machine_with_and_without_its_dock() {
    let lab = laptop(RootKind::Nbd).await;
    let mode = MachineChange { write_mode: Some(WriteMode::Persistent), ..Default::default() };
    lab.service.set_machine(lab.name.clone(), mode).await.unwrap();
    let segment = |boot, mac, address| {
        let service = lab.service.clone();
        async move { service.new_host_file(address, Link::Neighbour(mac), boot).await.unwrap() }
    };
    let key = |file: Option<String>| {
        let file = initcfg::HostConfig::parse(file.unwrap().as_bytes()).unwrap();
        file.ssh.unwrap().public
    };

    let docked = lab.boot_from(DOCK, DOCK_ADDRESS).await;
    let docked_key = key(segment(docked.boot, DOCK, DOCK_ADDRESS).await);
    let spec = lab.asked.lock().unwrap().last().unwrap().spec.clone();
    assert_eq!((spec.mac, spec.address), (DOCK, DOCK_ADDRESS), "over AoE it sends from the dock");
    assert_eq!(spec.disk.machine, lab.name);
    // It is asked for by the laptop's own NIC, which does not boot.
    assert_eq!(segment(docked.boot, MAC, ADDRESS).await, None);
    let docked = {
        let config = segment(docked.boot, DOCK, DOCK_ADDRESS).await.unwrap();
        docked.with_token(initcfg::HostConfig::parse(config.as_bytes()).unwrap().token)
    };
    docked.comes_up().await;
    docked.live(30, true);
    let view = lab.service.machine(&lab.name).unwrap();
    assert_eq!((view.state.word, view.address), (StateWord::Up, Some(DOCK_ADDRESS)));
    let in_use: Vec<_> = lab.service.machines_in_use().into_keys().collect();
    assert_eq!(in_use, [DOCK], "the other NIC has nothing to lose");

    // It is shut down, and started again without its dock.
    let off = initcfg::Heartbeat { is_last: true, ..docked.heartbeat() };
    lab.service.heartbeat(off, None);
    *lab.holder.lock().unwrap() = Default::default();
    lab.hands.pass(60_000);
    let alone = lab.boot_from(MAC, ADDRESS).await;
    assert_eq!((lab.shown_boot(), lab.candidate()), (alone.boot, None));
    let alone_key = key(segment(alone.boot, MAC, ADDRESS).await);
    assert_eq!(alone_key, docked_key);
    let order = lab.asked.lock().unwrap().last().unwrap().clone();
    assert_eq!((order.spec.mac, order.spec.address), (MAC, ADDRESS));
    assert_eq!((&order.spec.disk.machine, order.spec.boot), (&lab.name, alone.boot));
    let expected = [(alone.boot, MAC), (docked.boot, DOCK)];
    for mac in [MAC, DOCK] {
        assert_eq!(history(&lab.service, mac).await, expected);
        assert_eq!(lab.service.boot_of(mac).unwrap().id, alone.boot);
    }

    // A server that starts now finds it so.
    let config = segment(alone.boot, MAC, ADDRESS).await.unwrap();
    let alone = alone.with_token(initcfg::HostConfig::parse(config.as_bytes()).unwrap().token);
    alone.comes_up().await;
    let again = Service::open(lab.service.options().clone()).unwrap();
    let view = again.machine(&lab.name).unwrap();
    assert_eq!(view.boot.unwrap().id, alone.boot);
    assert_eq!(view.machine.macs().collect::<Vec<_>>(), [MAC, DOCK]);
    assert_eq!(again.boot_of(DOCK).unwrap().id, alone.boot);
}

#[tokio::test]
async fn a_boot_from_another_nic_of_a_machine_that_runs_is_a_candidate() {
    for root in [RootKind::Nbd, RootKind::Aoe] {
        let lab = laptop(root).await;
        let machine = lab.boot_from(MAC, ADDRESS).await;
        assert!(root == RootKind::Nbd || machine.says("report").await);
        machine.comes_up().await;
        machine.live(30, true);

        let other = lab.boot_from(DOCK, DOCK_ADDRESS).await;
        for _ in 0..3 {
            assert!(!other.says("report").await);
            machine.live(20, true);
            assert_eq!((lab.shown_boot(), lab.candidate()), (machine.boot, Some(other.boot)));
            assert_eq!(lab.word(), StateWord::Up);
        }
        let view = lab.service.machine(&lab.name).unwrap();
        assert!(view.candidate_sentence().unwrap().contains("another of its MAC addresses"));
        assert_eq!(view.address, Some(ADDRESS), "where it runs");
        assert!(lab.service.machines_in_use().contains_key(&MAC));
        // It is told once what it is asked to do.
        lab.service.order(&lab.name, initcfg::PowerVerb::Reboot).await.unwrap();
        let messages = lab.service.messages_to_keepers();
        assert_eq!(messages.iter().filter(|(_, text)| text.contains(" power ")).count(), 1);
        lab.service.obeyed(MAC, machine.boot, 1).await.unwrap();
        assert!(lab.service.machine(&lab.name).unwrap().power.unwrap().obeyed_unix_ms.is_some());

        // A server that starts now finds it so.
        let again = Service::open(lab.service.options().clone()).unwrap();
        let view = again.machine(&lab.name).unwrap();
        assert_eq!(view.boot.unwrap().id, machine.boot);
        assert_eq!(view.candidate.unwrap().id, other.boot);

        // It is switched off: who asks next gets the disk when it has not answered.
        *lab.holder.lock().unwrap() = Default::default();
        machine.live(1, false);
        other.says("report").await;
        machine.live(4, false);
        assert!(other.says("report").await);
        assert_eq!((lab.shown_boot(), lab.candidate()), (other.boot, None));
    }
}

#[tokio::test]
async fn firmware_that_tries_one_nic_after_the_other_boots_from_where_its_loader_comes() {
    let lab = laptop(RootKind::Nbd).await;
    let service = &lab.service;
    let start = |mac| service.boot_started(mac, Firmware::Bios);
    let first = start(MAC).await.unwrap();
    assert_eq!(start(MAC).await.unwrap(), first);
    let second = start(DOCK).await.unwrap();
    assert!(second > first);
    assert!(service.is_in_firmware(DOCK) && !service.is_in_firmware(MAC));
    assert_eq!(
        service.loader_config(DOCK_ADDRESS, &model::LoaderAsk::Machine).await.boot,
        Some(second)
    );
    assert_eq!(service.machine(&lab.name).unwrap().state.word, StateWord::Loading);

    // The loader came from the first all the same: it has a boot of its own, once.
    let third = service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await.boot.unwrap();
    assert!(third > second);
    assert_eq!(service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await.boot, Some(third));
    assert_eq!(lab.shown_boot(), third);
    let stages = [(MAC, third), (DOCK, second)].map(|(mac, boot)| async move {
        service.stage(mac, None, NewStage::noticed(Stage::Kernel, "")).await.unwrap();
        let boots = service.boots_of(mac, 9).await.unwrap();
        let its = boots.into_iter().find(|it| it.id == boot).unwrap();
        assert_eq!(its.current().unwrap().stage, Stage::Kernel, "a stage of the NIC's own boot");
    });
    for noted in stages {
        noted.await;
    }
}

#[tokio::test]
async fn who_is_logged_in_on_a_machine_begins_no_boot_by_its_other_nic() {
    let lab = laptop(RootKind::Nbd).await;
    // Its firmware tried this one first.
    lab.service.boot_started(DOCK, Firmware::Bios).await.unwrap();
    let machine = lab.boot_from(MAC, ADDRESS).await;
    machine.comes_up().await;
    machine.live(30, true);
    let asks = || lab.service.loader_config(DOCK_ADDRESS, &model::LoaderAsk::Machine);
    assert!(asks().await.waiting.unwrap().contains("its firmware never asked"));
    // Neither when somebody else has begun one in its name.
    lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert!(asks().await.waiting.unwrap().contains("its firmware never asked"));
    assert_eq!(lab.service.boots_of(DOCK, 9).await.unwrap().len(), 3);
}

#[tokio::test]
async fn nics_come_and_go_and_belong_to_one_machine() {
    let lab = Lab::new(RootKind::Nbd).await;
    let (service, name) = (&lab.service, &lab.name);
    let set = |change| service.set_machine(name.clone(), change);
    let refused = |error: Result<Machine, Error>, text: &str| {
        let error = error.unwrap_err();
        assert!(error.is_wrong_input() && error.to_string().contains(text), "{error}");
    };
    let boot = service.boot_started(DOCK, Firmware::Bios).await.unwrap();
    refused(set(take_away(MAC)).await, "is the only MAC of lab-07");
    refused(set(take_away(DOCK)).await, "is not a MAC of lab-07: it has 52:54:00:00:00:01");
    refused(set(add(Mac::BROADCAST)).await, "no network card has it");
    let eighth = |n: u8| Mac([2, 0, 0, 0, 0, n]);
    let many = MachineChange { add_macs: (0..8).map(eighth).collect(), ..Default::default() };
    refused(set(many).await, "more than 8 MACs");
    assert_eq!(service.boot_of(MAC), None);

    // Boots of a PC that was none are the machine's from then on.
    set(add(DOCK)).await.unwrap();
    let twice = set(add(DOCK)).await.unwrap();
    assert_eq!(twice.macs().collect::<Vec<_>>(), [MAC, DOCK]);
    assert_eq!(service.boot_of(MAC).unwrap().id, boot);
    assert!(service.discovered().is_empty());
    let other: MachineName = "lab-08".parse().unwrap();
    let taken = adopt(service, DOCK, other.clone(), None).await;
    refused(taken, "belongs to the machine lab-07");
    adopt(service, eighth(8), other.clone(), None).await.unwrap();
    refused(service.set_machine(other.clone(), add(DOCK)).await, "belongs to the machine lab-07");

    // The first goes, and the other is the first; then it is another machine's.
    let left = set(take_away(MAC)).await.unwrap();
    assert_eq!(left.macs().collect::<Vec<_>>(), [DOCK]);
    assert_eq!((service.boot_of(MAC), service.boot_of(DOCK).unwrap().id), (None, boot));
    let replaced = MachineChange { mac: Some(MAC), ..add(eighth(1)) };
    let replaced = set(replaced).await.unwrap();
    assert_eq!(replaced.macs().collect::<Vec<_>>(), [MAC, eighth(1)]);
    service.set_machine(other.clone(), add(DOCK)).await.unwrap();
    assert_eq!(service.site().machine_by_mac(DOCK).unwrap().name, other);
    let whole = MachineChange { other_macs: Some(vec![]), ..Default::default() };
    assert_eq!(set(whole).await.unwrap().macs().collect::<Vec<_>>(), [MAC]);
    service.remove_machine(other).await.unwrap();
    assert_eq!(service.site().machine_by_mac(DOCK), None);
}

#[tokio::test]
async fn a_dock_is_other_hardware_than_the_laptop_alone() {
    let lab = laptop(RootKind::Nbd).await;
    let mut lists = Vec::new();
    for (mac, address, list) in [
        (
            DOCK,
            DOCK_ADDRESS,
            "pci:v00008086d000015F3\nusb:v0BDAp8153d3100dc00dsc00dp00icFFisc00ip00in00\n",
        ),
        (MAC, ADDRESS, "pci:v00008086d000015F3\n"),
    ] {
        let boot = lab.boot_from(mac, address).await.boot;
        assert!(lab.service.keep_hardware(mac, boot, list.as_bytes()).await.unwrap());
        assert!(lab.service.keep_kernel_log(mac, boot, b"panic\n").await.unwrap());
        assert_eq!(lab.service.kernel_log(&lab.name).await.unwrap().unwrap().boot, boot);
        let told = lab.service.hardware(&lab.name).unwrap().unwrap();
        assert_eq!(told.boot, boot, "what it told last");
        lists.push(told.key());
        lab.hands.pass(60_000);
    }
    assert_ne!(lists[0], lists[1]);
    // Both are kept, each for the boots from its NIC.
    let view = lab.service.view();
    assert_eq!([DOCK, MAC].map(|mac| view.hardware.get(&mac).unwrap().key()).to_vec(), lists);
    lab.service.set_machine(lab.name.clone(), take_away(DOCK)).await.unwrap();
    assert!(lab.service.view().hardware.get(&DOCK).is_none());
}

/// Somebody asks by this NIC and says this UUID.
async fn asks(service: &Service, mac: Mac, uuid: &str) {
    let sighting = Sighting {
        mac,
        firmware: Firmware::Bios,
        address: None,
        uuid: Some(uuid.to_owned()),
        host_name: None,
    };
    service.saw(sighting).await.unwrap();
}

fn proposed(service: &Service) -> Vec<(Mac, Option<String>)> {
    let discovered = service.discovered().into_iter();
    discovered.map(|pc| (pc.seen.mac, pc.probable_machine.map(|name| name.to_string()))).collect()
}

const UUID: &str = "b9a7c1de-52f0-11ec-8d3f-0242ac130003";

#[tokio::test]
async fn a_pc_with_the_uuid_of_one_machine_is_probably_another_nic_of_it() {
    let lab = Lab::new(RootKind::Nbd).await;
    let service = &lab.service;
    let yes = || vec![(DOCK, Some("lab-07".to_owned()))];
    let no = || vec![(DOCK, None)];
    for default in ["03000200-0400-0500-0006-000700080009", "11111111-1111-1111-1111-111111111111"]
    {
        asks(service, MAC, default).await;
        asks(service, DOCK, default).await;
        assert_eq!(proposed(service), no(), "{default} is on many boards");
    }
    asks(service, MAC, UUID).await;
    assert_eq!(proposed(service), no(), "another UUID");
    asks(service, DOCK, UUID).await;
    assert_eq!(proposed(service), yes());
    assert_eq!(service.machine(&lab.name).unwrap().uuid.as_deref(), Some(UUID));
    assert_eq!(service.site().machine_by_mac(DOCK), None, "nothing follows of itself");

    // However many others ask, and after a restart.
    for batch in 0..5u8 {
        // Those that come together are stored together.
        let all: Vec<_> = (0..500u16)
            .map(|n| {
                let [a, b] = n.to_be_bytes();
                service.saw(Sighting {
                    mac: Mac([2, 0, 0, batch, a, b]),
                    firmware: Firmware::Bios,
                    address: None,
                    uuid: Some(format!("b9a7c1de-52f0-11ec-8d3f-0242ac{batch:02x}{a:02x}{b:02x}")),
                    host_name: None,
                })
            })
            .collect();
        for stored in all {
            stored.await.unwrap();
        }
    }
    lab.hands.pass(10_000);
    asks(service, DOCK, UUID).await;
    let again = Service::open(service.options().clone()).unwrap();
    assert_eq!(proposed(&again)[0], yes()[0]);

    // More PCs than one machine can have NICs: their maker gives all the same.
    for n in 0..6 {
        asks(service, Mac([2, 1, 0, 0, 0, n]), UUID).await;
    }
    assert!(proposed(service).contains(&yes()[0]), "seven others and one of its own");
    asks(service, Mac([2, 1, 0, 0, 0, 6]), UUID).await;
    assert!(proposed(service).contains(&no()[0]));
}

#[tokio::test]
async fn a_uuid_of_two_machines_or_of_one_that_ran_meanwhile_says_nothing() {
    let lab = Lab::new(RootKind::Nbd).await;
    let service = &lab.service;
    asks(service, MAC, UUID).await;
    let machine = lab.boot_from(MAC, ADDRESS).await;
    machine.comes_up().await;
    machine.live(20, true);
    asks(service, DOCK, UUID).await;
    assert_eq!(proposed(service), [(DOCK, None)], "the same PC can't run and ask");
    service.heartbeat(initcfg::Heartbeat { is_last: true, ..machine.heartbeat() }, None);
    assert_eq!(proposed(service), [(DOCK, Some("lab-07".to_owned()))], "it was switched off");

    let second: MachineName = "lab-08".parse().unwrap();
    let mac = Mac([2, 0, 0, 0, 0, 8]);
    adopt(service, mac, second.clone(), None).await.unwrap();
    asks(service, mac, UUID).await;
    assert_eq!(proposed(service), [(DOCK, None)]);
    service.remove_machine(second).await.unwrap();
    assert!(proposed(service).contains(&(DOCK, Some("lab-07".to_owned()))));
    // Who says yes has it so.
    service.set_machine(lab.name.clone(), add(DOCK)).await.unwrap();
    assert!(!proposed(service).iter().any(|(mac, _)| *mac == DOCK));
}

#[tokio::test]
async fn questions_of_two_nics_in_turn_push_out_no_boot_that_is_on_its_way() {
    let lab = laptop(RootKind::Nbd).await;
    let boot = lab.boot_from(MAC, ADDRESS).await;
    lab.service.boot_started(DOCK, Firmware::Bios).await.unwrap();
    // Each needs one forged datagram.
    for _ in 0..40 {
        for address in [DOCK_ADDRESS, ADDRESS] {
            lab.service.loader_config(address, &model::LoaderAsk::Machine).await;
        }
        lab.hands.pass(1000);
    }
    assert!(lab.service.boots_of(MAC, 99).await.unwrap().len() <= 17);
    let link = Link::Neighbour(MAC);
    assert!(lab.service.new_host_file(ADDRESS, link, boot.boot).await.unwrap().is_some());
}

#[tokio::test]
async fn a_word_without_a_proof_keeps_no_loader_of_another_nic_waiting() {
    let lab = laptop(RootKind::Nbd).await;
    lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
    // Somebody begins a boot by the other NIC, and says in its name that its kernel has started.
    let forged = lab.service.boot_started(DOCK, Firmware::Bios).await.unwrap();
    lab.service.loader_config(DOCK_ADDRESS, &model::LoaderAsk::Machine).await;
    let line = format!("bootlace/1 report {forged} {DOCK} 1 start 1 x");
    let word = initcfg::Word::parse(line.as_bytes()).unwrap();
    if lab.service.is_heard_unproven(&word, DOCK_ADDRESS) {
        let start = NewStage::noticed(Stage::Start, "");
        lab.service.stage(DOCK, Some(forged), start).await.unwrap();
    }
    let config = lab.service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await;
    assert_eq!(config.waiting, None);
    assert!(config.boot.is_some());
}

#[tokio::test]
async fn a_machine_in_a_storage_network_is_known_there_and_found_where_it_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let asked = start_storage(folder.path());
    add_image(folder.path(), "debian", 1);
    let mut options = options(folder.path());
    let network = options.network.as_mut().unwrap();
    network.storage = Some("10.20.0.1/24".parse().unwrap());
    network.nbd.insert(0, "10.20.0.1:10809".parse().unwrap());
    let service = Service::open(options).unwrap();
    let change = MachineChange {
        mac: Some(MAC),
        add_macs: vec![DOCK],
        image: Some(Some("debian".parse().unwrap())),
        ..MachineChange::default()
    };
    service.set_machine("lab-07".parse().unwrap(), change).await.unwrap();
    pretend_initrds(&service);
    lease(&service, MAC, ADDRESS).await;
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(screen(&service).await, "");
    let order = asked.lock().unwrap().last().unwrap().clone();
    let path = order.storage_path.unwrap();
    assert_eq!(path.address, Some(Ipv4Addr::new(10, 20, 0, 101)), "the same number");
    assert_eq!(path.cards, [DOCK], "its disk may be seen by it over AoE");

    let told = |servers: &[&str]| {
        let export = serde_json::json!({
            "spec": order.spec, "size_bytes": 4096, "connections": 1, "servers": servers,
            "idle_seconds": 1, "layer_bytes": 0, "counters": model::ExportCounters::default(),
        });
        service.exports().put(crate::live::Answer {
            asked: Some(service.now().moment),
            list: vec![serde_json::from_value(export).unwrap()],
            ..crate::live::Answer::default()
        });
    };
    let kind = model::FindingKind::DiskOverBootNetwork;
    told(&["10.20.0.1"]);
    assert_eq!(lost::cause(&service, kind).await, None);
    told(&["10.77.0.1"]);
    let cause = lost::cause(&service, kind).await.unwrap();
    assert!(cause.contains("from 10.77.0.1, over") && cause.contains("10.20.0.0/24"), "{cause}");
    told(&[]);
    assert_eq!(lost::cause(&service, kind).await, None, "it has none now");
}
