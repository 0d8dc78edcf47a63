//! What a machine gets that boots.

use super::*;
use crate::LoaderRules;
use model::LoaderRule;

#[tokio::test]
async fn a_pc_from_its_first_packet_to_its_root_disk() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    add_image(root, "debian-12", 1);
    let service = Service::open(options(root)).unwrap();
    assert!(screen(&service).await.contains("not leased by this boot server"));

    lease(&service, MAC, ADDRESS).await;
    let first = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(service.boot_started(MAC, Firmware::Bios).await.unwrap(), first, "asks twice");
    reached(&service, Stage::Dhcp).await;
    assert!(screen(&service).await.contains("is not in the machine list"));

    let name: MachineName = "lab-07".parse().unwrap();
    let image = Some("debian-12".parse().unwrap());
    adopt(&service, MAC, name.clone(), image).await.unwrap();
    assert!(screen(&service).await.contains("is being built"));
    assert_eq!(service.machine(&name).unwrap().state.word, StateWord::Waiting);
    pretend_initrds(&service);
    let text = screen(&service).await;
    assert!(text.contains("the storage server does not answer"), "{text}");

    let asked = start_storage(root);
    let config = service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await;
    assert_eq!((config.mac, config.boot, config.waiting), (Some(MAC), Some(first), None));
    assert!(config.text.contains("/boot/debian-12/1/vmlinuz"), "{}", config.text);
    assert!(config.text.contains(&format!("bootlace.boot={first}")), "{}", config.text);
    let order = asked.lock().unwrap()[0].clone();
    let spec = &order.spec;
    assert_eq!((spec.boot, spec.address, spec.mac), (first, ADDRESS, MAC));
    let token = service.view().boots[&MAC].proof.token.unwrap();
    assert_eq!(order.key, Some(token.disk_key()), "the disk is for who has this boot's secret");
    let boot = service.boot_of(MAC).unwrap();
    assert_eq!(boot.current().unwrap().stage, Stage::Config);
    assert_eq!(boot.image.as_ref().unwrap().1, 1);

    // GRUB asks again after a failed fetch: the same boot, so that the disk stays.
    assert_eq!(service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await.boot, Some(first));
    // The next power-on is another.
    let second = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await.boot, Some(second));
}

#[tokio::test]
async fn a_running_machine_never_loses_its_disk_by_a_stray_request() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    add_image(root, "debian-12", 1);
    add_image(root, "kiosk", 1);
    let service = Service::open(options(root)).unwrap();
    let asked = start_storage(root);
    pretend_initrds(&service);
    let name: MachineName = "lab-07".parse().unwrap();
    let image = Some("debian-12".parse().unwrap());
    adopt(&service, MAC, name.clone(), image).await.unwrap();
    lease(&service, MAC, ADDRESS).await;
    assert!(screen(&service).await.contains("its firmware never asked"));
    assert!(asked.lock().unwrap().is_empty());

    let first = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(screen(&service).await, "");
    // It could not load its kernel, and is given another image: that is a new boot.
    let to_kiosk =
        MachineChange { image: Some(Some("kiosk".parse().unwrap())), ..MachineChange::default() };
    service.set_machine(name.clone(), to_kiosk).await.unwrap();
    let config = service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await;
    assert!(config.boot.unwrap() > first && config.text.contains("kiosk"));
    // Its kernel runs: whatever is asked from its address now, its export stays as it is.
    reached(&service, Stage::Start).await;
    let n_asked = asked.lock().unwrap().len();
    let back = MachineChange {
        image: Some(Some("debian-12".parse().unwrap())),
        ..MachineChange::default()
    };
    service.set_machine(name, back).await.unwrap();
    assert!(screen(&service).await.contains("still runs kiosk version 1"));
    assert_eq!(asked.lock().unwrap().len(), n_asked);
}

#[tokio::test]
async fn a_root_on_a_foreign_server_needs_no_storage_server() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    add_image(root, "debian-12", 1);
    let service = Service::open(options(root)).unwrap();
    pretend_initrds(&service);
    let name: MachineName = "lab-07".parse().unwrap();
    let set = |change| service.set_machine(name.clone(), change);
    let url = "nfs://10.0.0.5/srv/debian-12?vers=3";
    let change = MachineChange {
        mac: Some(MAC),
        image: Some(Some("debian-12".parse().unwrap())),
        root_url: Some(url.parse().unwrap()),
        write_mode: Some(WriteMode::Persistent),
        reset_disk: Some(true),
        ..MachineChange::default()
    };
    assert_eq!(set(change).await.unwrap().root, RootKind::Nfs);
    lease(&service, MAC, ADDRESS).await;
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    let config = service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await;
    assert_eq!(config.waiting, None);
    assert!(config.text.contains(&format!("bootlace.root={url}")), "{}", config.text);
    assert_eq!(service.boot_of(MAC).unwrap().root, Some(RootKind::Nfs));

    // Its initrd can do NFS, but not iSCSI.
    let iscsi = "iscsi://10.0.0.5/iqn.2026-11.example:disk/0";
    let change =
        MachineChange { root_url: Some(iscsi.parse().unwrap()), ..MachineChange::default() };
    set(change).await.unwrap();
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert!(screen(&service).await.contains("is being built"));
    let nfs = MachineChange { root_url: Some(url.parse().unwrap()), ..MachineChange::default() };
    set(nfs).await.unwrap();

    // Kind and address go together.
    let to = |kind| MachineChange { root: Some(kind), ..MachineChange::default() };
    assert!(set(to(RootKind::Nfs)).await.is_ok(), "it has the address");
    let error = set(to(RootKind::Iscsi)).await.unwrap_err().to_string();
    assert!(error.contains("lab-07 has no address of its iscsi root"), "{error}");
    let change = MachineChange { root_url: Some(url.parse().unwrap()), ..to(RootKind::Nbd) };
    let error = set(change).await.unwrap_err().to_string();
    assert!(error.contains("not an address for the root kind nbd"), "{error}");
    assert_eq!(set(to(RootKind::Nbd)).await.unwrap().root_url, None);
    assert!(set(to(RootKind::Nfs)).await.is_err());
}

#[tokio::test]
async fn a_machine_that_keeps_its_disk_stays_on_the_version_it_was_made_on() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    add_image(root, "debian-12", 1);
    let service = Service::open(options(root)).unwrap();
    let (asked, holder) = disks::start_disks(root);
    let name: MachineName = "lab-07".parse().unwrap();
    let change = MachineChange {
        mac: Some(MAC),
        image: Some(Some("debian-12".parse().unwrap())),
        write_mode: Some(WriteMode::Persistent),
        ..MachineChange::default()
    };
    service.set_machine(name.clone(), change).await.unwrap();
    lease(&service, MAC, ADDRESS).await;
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    pretend_initrds(&service);
    assert_eq!(screen(&service).await, "");

    add_image(root, "debian-12", 2);
    let service = Service::open(options(root)).unwrap();
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert!(screen(&service).await.contains("debian-12 version 1 is being built"));
    pretend_initrds(&service);
    let config = service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await;
    assert!(config.text.contains("/boot/debian-12/1/vmlinuz"), "{}", config.text);
    assert_eq!(asked.lock().unwrap().last().unwrap().spec.version, 1);
    assert_eq!(service.boot_of(MAC).unwrap().image.as_ref().unwrap().1, 1);

    // After a reset it takes the newest; what it wrote is thrown away when it boots, and once.
    let reset = MachineChange { reset_disk: Some(true), ..MachineChange::default() };
    service.set_machine(name.clone(), reset).await.unwrap();
    reached(&service, Stage::Start).await;
    assert!(screen(&service).await.contains("has been given something else since"));
    assert_eq!(asked.lock().unwrap().len(), 2, "the disk of a running machine was thrown away");
    holder.lock().unwrap().boot = service.boot_of(MAC).map(|boot| boot.id);
    let second = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    for n_asked in [1, 2] {
        let config = service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await;
        assert!(config.text.contains("/boot/debian-12/2/vmlinuz"), "{}", config.text);
        assert_eq!(asked.lock().unwrap().len(), n_asked);
        assert!(asked.lock().unwrap().last().unwrap().reset, "when this boot gets its disk");
        let is_wanted = service.site().machine(&name).unwrap().reset_disk;
        assert!(is_wanted, "a boot that never proves itself throws nothing away");
        service.refresh_exports().await;
        service.note_exports().await;
    }
    // It has its disk, which may be seen when it is over only.
    holder.lock().unwrap().boot = Some(second);
    service.refresh_exports().await;
    service.note_exports().await;
    assert!(!service.site().machine(&name).unwrap().reset_disk);
    reached(&service, Stage::Handover).await;
    assert_ne!(service.boot_started(MAC, Firmware::Bios).await.unwrap(), second);
    assert_eq!(screen(&service).await, "");
    assert!(!asked.lock().unwrap().last().unwrap().reset);
}

#[tokio::test]
async fn the_kernel_log_of_a_failed_boot_is_kept_for_its_machine_only() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(options(folder.path())).unwrap();
    lease(&service, MAC, ADDRESS).await;
    let boot = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    let log = "[ 1.0] first\n\u{1b}[2J[ 2.0] last\n".as_bytes();
    assert!(!service.keep_kernel_log(MAC, boot, log).await.unwrap(), "a stranger's");
    let name: MachineName = "lab-07".parse().unwrap();
    adopt(&service, MAC, name.clone(), None).await.unwrap();
    assert!(service.kernel_log(&name).await.unwrap().is_none());
    assert!(!service.keep_kernel_log(MAC, boot + 1, log).await.unwrap(), "of another boot");
    assert!(service.keep_kernel_log(MAC, boot, log).await.unwrap());
    let kept = service.kernel_log(&name).await.unwrap().unwrap();
    assert_eq!((kept.boot, kept.text.as_str()), (boot, "[ 1.0] first\n[2J[ 2.0] last\n"));
    let long = [b"old ".repeat(20_000), b"new".to_vec()].concat();
    assert!(service.keep_kernel_log(MAC, boot, &long).await.unwrap());
    let text = service.kernel_log(&name).await.unwrap().unwrap().text;
    assert!(text.len() == 64 << 10 && text.ends_with("new"));
}

#[tokio::test]
async fn a_disk_under_a_running_system_is_not_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    add_image(root, "debian-12", 1);
    let service = Service::open(options(root)).unwrap();
    let asked = start_storage(root);
    let name: MachineName = "lab-07".parse().unwrap();
    let image = Some("debian-12".parse().unwrap());
    adopt(&service, MAC, name.clone(), image).await.unwrap();
    pretend_initrds(&service);
    lease(&service, MAC, ADDRESS).await;
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(screen(&service).await, "");
    reached(&service, Stage::Start).await;
    let reset = MachineChange { reset_disk: Some(true), ..MachineChange::default() };
    service.set_machine(name.clone(), reset).await.unwrap();
    // Whoever asks from its address now gets what it was given, and the disk stays until it is switched on again.
    assert_eq!(screen(&service).await, "");
    assert_eq!(asked.lock().unwrap().len(), 2, "its disk was thrown away");
    assert!(service.site().machine(&name).unwrap().reset_disk);
}

#[tokio::test]
async fn boots_whose_kernels_say_nothing_are_counted_in_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    add_image(root, "debian-12", 1);
    let service = Service::open(options(root)).unwrap();
    lease(&service, MAC, ADDRESS).await;
    let name: MachineName = "lab-07".parse().unwrap();
    let image = Some("debian-12".parse().unwrap());
    adopt(&service, MAC, name.clone(), image).await.unwrap();
    let state = |service: &Service| service.machine(&name).unwrap().state;
    for stages in [&[Stage::Initrd, Stage::Start][..], &[Stage::Initrd], &[Stage::Initrd]] {
        service.boot_started(MAC, Firmware::Bios).await.unwrap();
        for &stage in stages {
            reached(&service, stage).await;
        }
        assert_ne!(state(&service).word, StateWord::Failed, "{}", state(&service).sentence);
    }
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(state(&service).word, StateWord::Failed);
    assert!(state(&service).sentence.starts_with("2 boots in a row: "));
    // A server that starts knows it, too.
    drop(service);
    let service = Service::open(options(root)).unwrap();
    assert_eq!(state(&service).word, StateWord::Failed);
    reached(&service, Stage::Start).await;
    assert_eq!(state(&service).word, StateWord::Starting);
}

#[tokio::test]
async fn what_is_known_of_a_pc_decides_its_loader() {
    let folder = tempfile::tempdir().unwrap();
    let loader_rules = LoaderRules { signed: Some(false), ..LoaderRules::default() };
    let service = Service::open(Options { loader_rules, ..options(folder.path()) }).unwrap();
    lease(&service, MAC, ADDRESS).await;
    adopt(&service, MAC, "lab-07".parse().unwrap(), None).await.unwrap();
    let given = || service.choose_loader(MAC, Firmware::UefiX64, false);
    assert_eq!(given().rule, LoaderRule::Unknown);

    // Its firmware refuses ours.
    service.boot_started(MAC, Firmware::UefiX64).await.unwrap();
    let fetched = |file: &str| {
        let detail = model::loader_detail(file, "0.8 MB by TFTP in 0.1 s");
        service.stage(MAC, None, NewStage::noticed(Stage::Loader, detail))
    };
    assert!(fetched("bl.efi").await.unwrap());
    assert_eq!(given().rule, LoaderRule::RefusedOwn);
    // In the same power-on it takes the other.
    for (file, is_new) in [("shimx64.efi", true), ("grubx64.efi", true), ("shimx64.efi", false)] {
        assert_eq!(fetched(file).await.unwrap(), is_new, "{file}");
    }
    let boot = service.boot_of(MAC).unwrap();
    let files: Vec<_> = boot.stages.last().unwrap().detail.split("; ").collect();
    assert_eq!((boot.stages.len(), files.len()), (1, 3), "{files:?}");
    assert_eq!(given().rule, LoaderRule::Unknown);

    // Its init tells.
    for (told, rule) in [("on", LoaderRule::IsOn), ("off", LoaderRule::IsOff)] {
        let list = format!("pci:v00008086d0000100E\nuefi:secure-boot-{told}\n");
        assert!(service.keep_hardware(MAC, boot.id, list.as_bytes()).await.unwrap());
        assert_eq!(given().rule, rule);
        let view = service.machine(&"lab-07".parse().unwrap()).unwrap();
        assert_eq!(view.loader.unwrap().rule, rule.to_string());
        assert_eq!(view.secure_boot.unwrap().to_string(), told);
    }
    let by_http = service.choose_loader(MAC, Firmware::UefiX64Http, false);
    assert_eq!(by_http.rule, LoaderRule::SignedNeedsPxe);
}

#[tokio::test]
async fn a_configuration_is_had_by_http_in_a_loader_that_came_by_http_only() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(options(folder.path())).unwrap();
    lease(&service, MAC, ADDRESS).await;
    let by_http = || service.loader_config_by_http(ADDRESS, &model::LoaderAsk::Machine);
    assert!(by_http().await.is_none());
    service.boot_started(MAC, Firmware::UefiX64Http).await.unwrap();
    let waiting = by_http().await.unwrap().waiting.unwrap();
    assert!(waiting.contains("is not in the machine list"), "{waiting}");
    reached(&service, Stage::Start).await;
    assert!(by_http().await.is_none(), "any program of its system could ask");
}
