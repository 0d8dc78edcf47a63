//! Why machines wait and can't start is what is so now, and not what was so when they asked last.

use super::time::Hands;
use super::*;
use model::{FindingKind, MachineName};

fn name() -> MachineName {
    "lab-07".parse().unwrap()
}

fn said(service: &Service) -> (StateWord, String) {
    let state = service.machine(&name()).unwrap().state;
    (state.word, state.sentence)
}

async fn set(service: &Service, change: MachineChange) {
    service.set_machine(name(), change).await.unwrap();
}

fn image(image: &str) -> MachineChange {
    MachineChange { image: Some(Some(image.parse().unwrap())), ..MachineChange::default() }
}

#[tokio::test]
async fn what_was_cured_is_not_said_any_more() {
    let folder = tempfile::tempdir().unwrap();
    add_image(folder.path(), "debian", 1);
    add_files(folder.path(), "debian", 1);
    let hands = Hands::at(1_000_000_000_000);
    let clock = hands.clock();
    let service = Service::open(Options { clock, ..options(folder.path()) }).unwrap();
    pretend_initrds(&service);
    lease(&service, MAC, ADDRESS).await;
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    reached(&service, Stage::Loader).await;
    assert!(screen(&service).await.contains("not in the machine list"));

    // Adopted, without an image.
    set(&service, MachineChange { mac: Some(MAC), ..MachineChange::default() }).await;
    let (word, sentence) = said(&service);
    assert!(word == StateWord::Waiting && sentence.contains("has no image"), "{sentence}");

    hands.pass(3_500);
    set(&service, image("debian")).await;
    let over = "It waits in the loader: what it waited for is fixed, and it asks again within 6 s.";
    assert_eq!(said(&service), (StateWord::Loading, over.to_owned()));
    let findings = service.findings().await;
    assert!(findings.iter().all(|finding| finding.kind != FindingKind::MachineWaiting));
    hands.pass(7_000);
    assert!(said(&service).1.ends_with("it asks again at any moment."), "{}", said(&service).1);

    // What only shows when it asks stays, as long as nobody changes anything: no storage server answers.
    let told = screen(&service).await;
    assert!(told.contains("the storage server does not answer"), "{told}");
    hands.pass(1_000);
    assert_eq!(said(&service), (StateWord::Waiting, format!("It waits in the loader: {told}.")));
    let ram = MachineChange { write_mode: Some(WriteMode::Ram), ..MachineChange::default() };
    set(&service, ram).await;
    assert_eq!(said(&service).0, StateWord::Loading);
}

#[tokio::test]
async fn a_discovered_pc_has_asked_when_its_loader_asked_last() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(1_000_000_000_000);
    let clock = hands.clock();
    let service = Service::open(Options { clock, ..options(folder.path()) }).unwrap();
    lease(&service, MAC, ADDRESS).await;
    let sighting = Sighting {
        mac: MAC,
        firmware: Firmware::Bios,
        address: Some(ADDRESS),
        uuid: None,
        host_name: None,
    };
    service.saw(sighting).await.unwrap();
    hands.pass(600_000);
    assert_eq!(service.discovered()[0].seen.last_unix, 1_000_000_000);
    screen(&service).await;
    hands.pass(5_000);
    assert_eq!(service.discovered()[0].seen.last_unix, 1_000_000_600);
}

#[tokio::test]
async fn a_version_whose_files_are_damaged_or_gone_is_a_finding_with_its_machines() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    add_image(root, "debian", 1);
    let version = options(root).images.join("debian/1");
    let whole = || {
        std::fs::create_dir_all(&version).unwrap();
        add_image(root, "debian", 1);
        add_files(root, "debian", 1);
    };
    whole();
    let service = Service::open(options(root)).unwrap();
    pretend_initrds(&service);
    set(&service, MachineChange { mac: Some(MAC), ..image("debian") }).await;
    let found = async |service: &Service| {
        service.look_at_images().await;
        let all = service.findings().await;
        let found = all.into_iter().find(|finding| finding.kind == FindingKind::ImageDamaged);
        found.map(|finding| (finding.subject.to_string(), finding.cause))
    };
    let trouble = |service: &Service| service.machine(&name()).unwrap().start_trouble;
    assert_eq!((found(&service).await, trouble(&service)), (None, None));
    let remove = |file: &str| std::fs::remove_file(version.join(file)).unwrap();
    let (cut, empty) = (
        || std::fs::write(version.join("disk.raw"), [0; 512]).unwrap(),
        || {
            std::fs::write(version.join("vmlinuz"), "").unwrap();
        },
    );
    let damages: [(&dyn Fn(), &str); 6] = [
        (&|| remove("disk.raw"), "disk.raw is gone"),
        (&cut, "disk.raw has 512 bytes instead of 4096"),
        (&|| remove("vmlinuz"), "vmlinuz is gone"),
        (&empty, "vmlinuz can't be started: it is empty"),
        (&|| std::fs::write(version.join("image.toml"), "x").unwrap(), "image.toml is damaged"),
        (&|| std::fs::remove_dir_all(version.parent().unwrap()).unwrap(), "probably not mounted"),
    ];
    for (damage, says) in damages {
        damage();
        let (subject, cause) = found(&service).await.unwrap();
        assert_eq!(subject, "debian/v1");
        assert!(cause.contains(says), "{cause}");
        assert!(cause.ends_with("These machines can't start: lab-07."), "{cause}");
        let trouble = trouble(&service).unwrap();
        assert!(trouble.contains(says) && trouble.contains("import the image again"), "{trouble}");
        whole();
        assert_eq!(
            (found(&service).await, service.machine(&name()).unwrap().start_trouble),
            (None, None)
        );
    }

    // Machines do not get an older version without anybody knowing.
    add_image(root, "debian", 2);
    service.index_images().await;
    drop(service);
    let newest = options(root).images.join("debian/2");
    std::fs::rename(&newest, root.join("away")).unwrap();
    let service = Service::open(options(root)).unwrap();
    let (subject, cause) = found(&service).await.unwrap();
    assert_eq!(subject, "debian/v2");
    assert!(cause.ends_with("These machines start with version 1 instead: lab-07."), "{cause}");
    std::fs::rename(root.join("away"), &newest).unwrap();
    add_files(root, "debian", 2);
    assert_eq!(found(&service).await, None, "it is back");
}
