//! A site as the boot server uses it, with a storage server that only takes notes.

mod bounds;
mod secrets;
mod time;

use crate::initrds::{InitrdState, Recipe};
use crate::{Error, MachineChange, NewStage, Options, Service, Sighting, StateWord};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use model::{ExportSpec, Firmware, Lease, Network, RootKind, Stage, WriteMode};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::{Arc, Mutex};
use wire::Mac;

const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 101);

fn options(root: &Path) -> Options {
    let server = Ipv4Addr::new(10, 77, 0, 1);
    let network = Network {
        server,
        prefix: 24,
        router: None,
        dns: vec![],
        domain: None,
        mtu: None,
        vlan: None,
        nbd: vec![SocketAddrV4::new(server, 10809)],
        kernel_args: "".parse().unwrap(),
        own_dhcp: false,
        ram: Default::default(),
    };
    Options { init: None, network: Some(network), ..Options::under(root) }
}

fn add_image(root: &Path, name: &str, version: u32) {
    let folder = options(root).images.join(name).join(version.to_string());
    std::fs::create_dir_all(&folder).unwrap();
    let about = format!(
        "image = \"{name}\"\nversion = {version}\ndigest = \"00\"\nsize_bytes = 4096\n\
         file_system = \"ext4\"\nkernel_version = \"6.1.0\"\nimported_unix = 0\n"
    );
    std::fs::write(folder.join("image.toml"), about).unwrap();
}

/// Pretends that the initrds are built.
fn pretend_initrds(service: &Service) {
    for version in &service.site().images {
        let ready = InitrdState::Ready { path: "/dev/null".into(), size_bytes: 0 };
        let recipe = Recipe {
            image: version.image.clone(),
            version: version.version,
            roots: [RootKind::Nfs].into(),
            fit: None,
        };
        service.initrds().shelf().put(recipe, ready);
    }
}

/// Answers the storage API, and tells which exports were asked for since a disk was thrown away.
fn start_storage(root: &Path) -> Arc<Mutex<Vec<ExportSpec>>> {
    let socket = options(root).storage_socket;
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    let asked: Arc<Mutex<Vec<ExportSpec>>> = Arc::default();
    let notes = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let notes = Arc::clone(&notes);
            let answer = move |request: Request<hyper::body::Incoming>| {
                let notes = Arc::clone(&notes);
                async move {
                    let answer = |text: String| {
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
                    };
                    if request.method() == hyper::Method::DELETE {
                        notes.lock().unwrap().clear();
                    }
                    if request.uri().path().starts_with("/v1/disks/") {
                        return answer(kept_disk(&notes.lock().unwrap()));
                    }
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let Ok(spec) = serde_json::from_slice::<ExportSpec>(&body) else {
                        return answer("[]".to_owned());
                    };
                    notes.lock().unwrap().push(spec.clone());
                    let counters = model::ExportCounters::default();
                    let status = serde_json::json!({
                        "spec": spec, "size_bytes": 4096, "connections": 0, "idle_seconds": null,
                        "layer_bytes": 0, "counters": counters,
                    });
                    answer(status.to_string())
                }
            };
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer)),
            );
        }
    });
    asked
}

/// A persistent disk stays what it was when it was made.
fn kept_disk(asked: &[ExportSpec]) -> String {
    let first = asked.iter().find(|spec| spec.write_mode == WriteMode::Persistent);
    let disk =
        first.map(|spec| model::KeptDisk { image: spec.image.clone(), version: spec.version });
    serde_json::to_string(&disk).unwrap()
}

async fn lease(service: &Service, mac: Mac, address: Ipv4Addr) {
    let lease = Lease { mac, address, expires_unix: u64::MAX >> 1, host_name: None };
    service.commit_lease(lease).await.unwrap();
}

async fn reached(service: &Service, stage: Stage) {
    service.stage(MAC, None, NewStage::noticed(stage, "")).await.unwrap();
}

/// What the PC's screen shows while it waits; empty if it boots.
async fn screen(service: &Service) -> String {
    service.loader_config(ADDRESS).await.waiting.unwrap_or_default()
}

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

    let name: model::MachineName = "lab-07".parse().unwrap();
    let image = Some("debian-12".parse().unwrap());
    service.adopt(MAC, name.clone(), image, RootKind::Nbd).await.unwrap();
    assert!(screen(&service).await.contains("is being built"));
    assert_eq!(service.machine(&name).unwrap().state.word, StateWord::Waiting);
    pretend_initrds(&service);
    let text = screen(&service).await;
    assert!(text.contains("the storage server does not answer"), "{text}");

    let asked = start_storage(root);
    let config = service.loader_config(ADDRESS).await;
    assert_eq!((config.mac, config.boot, config.waiting), (Some(MAC), Some(first), None));
    assert!(config.text.contains("/boot/debian-12/1/vmlinuz"), "{}", config.text);
    assert!(config.text.contains(&format!("bootlace.boot={first}")), "{}", config.text);
    let spec = asked.lock().unwrap()[0].clone();
    assert_eq!((spec.boot, spec.address, spec.mac), (first, ADDRESS, MAC));
    let boot = service.boot_of(MAC).unwrap();
    assert_eq!(boot.current().unwrap().stage, Stage::Config);
    assert_eq!(boot.image.as_ref().unwrap().1, 1);

    // GRUB asks again after a failed fetch: the same boot, so that the disk stays.
    assert_eq!(service.loader_config(ADDRESS).await.boot, Some(first));
    // The next power-on is another.
    let second = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(service.loader_config(ADDRESS).await.boot, Some(second));
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
    let name: model::MachineName = "lab-07".parse().unwrap();
    let image = Some("debian-12".parse().unwrap());
    service.adopt(MAC, name.clone(), image, RootKind::Nbd).await.unwrap();
    lease(&service, MAC, ADDRESS).await;
    assert!(screen(&service).await.contains("its firmware never asked"));
    assert!(asked.lock().unwrap().is_empty());

    let first = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(screen(&service).await, "");
    // It could not load its kernel, and is given another image: that is a new boot.
    let to_kiosk =
        MachineChange { image: Some(Some("kiosk".parse().unwrap())), ..MachineChange::default() };
    service.set_machine(name.clone(), to_kiosk).await.unwrap();
    let config = service.loader_config(ADDRESS).await;
    assert!(config.boot.unwrap() > first && config.text.contains("kiosk"));
    // Its kernel runs: whatever is asked from its address now, its export stays as it is.
    reached(&service, Stage::Start).await;
    let n_asked = asked.lock().unwrap().len();
    let back = MachineChange {
        image: Some(Some("debian-12".parse().unwrap())),
        ..MachineChange::default()
    };
    service.set_machine(name, back).await.unwrap();
    assert!(screen(&service).await.contains("runs kiosk version 1 already"));
    assert_eq!(asked.lock().unwrap().len(), n_asked);
}

#[tokio::test]
async fn a_root_on_a_foreign_server_needs_no_storage_server() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    add_image(root, "debian-12", 1);
    let service = Service::open(options(root)).unwrap();
    pretend_initrds(&service);
    let name: model::MachineName = "lab-07".parse().unwrap();
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
    let config = service.loader_config(ADDRESS).await;
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
    let refused = service.set_machine(one(), change(Some(Mac::BROADCAST))).await;
    assert!(matches!(refused, Err(Error::GroupMac(_))));
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
async fn strangers_can_not_fill_the_disk_nor_write_into_others_boots() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(options(folder.path())).unwrap();
    let sighting = |mac| Sighting {
        mac,
        firmware: Firmware::Other(11),
        address: None,
        uuid: None,
        host_name: None,
    };
    service.saw(sighting(MAC)).await.unwrap();
    service.saw(sighting(MAC)).await.unwrap();
    let discovered = service.discovered();
    assert_eq!((discovered.len(), discovered[0].firmware), (1, Firmware::Other(11)));

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

#[tokio::test]
async fn an_emptied_cache_is_no_broken_boot() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    add_image(root, "debian-12", 1);
    let service = Service::open(options(root)).unwrap();
    let asked = start_storage(root);
    let image: model::ImageName = "debian-12".parse().unwrap();
    let name: model::MachineName = "lab-07".parse().unwrap();
    service.adopt(MAC, name, Some(image.clone()), RootKind::Nbd).await.unwrap();
    lease(&service, MAC, ADDRESS).await;
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    let gone = InitrdState::Ready { path: root.join("gone.img"), size_bytes: 1 };
    service.initrds().shelf().put(Recipe::for_all(&service.site(), &image, 1), gone);
    assert!(screen(&service).await.contains("is being built"));
    assert!(asked.lock().unwrap().is_empty(), "a disk was prepared for a PC that can't start");

    // The builder is woken by the PC that waits; without bootlace-init it then knows why it can't.
    let building = service.clone();
    let builder = tokio::spawn(async move { building.initrds().keep_built().await });
    let failed = async {
        while !matches!(service.initrd_state(&image, 1), InitrdState::Failed(_)) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), failed).await.unwrap();
    builder.abort();
    assert!(screen(&service).await.contains("bootlace-init"));
}

#[tokio::test]
async fn a_machine_that_keeps_its_disk_stays_on_the_version_it_was_made_on() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    add_image(root, "debian-12", 1);
    let service = Service::open(options(root)).unwrap();
    let asked = start_storage(root);
    let name: model::MachineName = "lab-07".parse().unwrap();
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
    let config = service.loader_config(ADDRESS).await;
    assert!(config.text.contains("/boot/debian-12/1/vmlinuz"), "{}", config.text);
    assert_eq!(asked.lock().unwrap().last().unwrap().version, 1);
    assert_eq!(service.boot_of(MAC).unwrap().image.as_ref().unwrap().1, 1);

    // After a reset it takes the newest; what it wrote is thrown away when it boots, and once.
    let reset = MachineChange { reset_disk: Some(true), ..MachineChange::default() };
    service.set_machine(name.clone(), reset).await.unwrap();
    reached(&service, Stage::Start).await;
    assert!(screen(&service).await.contains("already, and was given something else"));
    assert_eq!(asked.lock().unwrap().len(), 2, "the disk of a running machine was thrown away");
    for n_asked in [1, 2] {
        service.boot_started(MAC, Firmware::Bios).await.unwrap();
        let config = service.loader_config(ADDRESS).await;
        assert!(config.text.contains("/boot/debian-12/2/vmlinuz"), "{}", config.text);
        assert_eq!(asked.lock().unwrap().len(), n_asked);
        assert!(!service.site().machine(&name).unwrap().reset_disk);
    }
}

#[tokio::test]
async fn a_disk_under_a_running_system_is_not_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    add_image(root, "debian-12", 1);
    let service = Service::open(options(root)).unwrap();
    let asked = start_storage(root);
    let name: model::MachineName = "lab-07".parse().unwrap();
    let image = Some("debian-12".parse().unwrap());
    service.adopt(MAC, name.clone(), image, RootKind::Nbd).await.unwrap();
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
async fn initrds_of_the_cache_are_listed_with_their_state() {
    let root = tempfile::tempdir().unwrap();
    let init = root.path().join("init");
    std::fs::write(&init, "init").unwrap();
    for version in 1..=3 {
        add_image(root.path(), "debian", version);
    }
    let options = Options { init: Some(init), ..options(root.path()) };
    let folder = options.initrds.clone();
    let service = Service::open(options).unwrap();
    let names = |service: &Service| -> Vec<String> {
        let files = service.initrd_files().unwrap();
        let word = |file: &crate::InitrdFile| {
            let size = file.size_bytes.map_or("-".to_owned(), |size| size.to_string());
            format!("{}/{} {size} {}", file.image, file.version, file.is_current)
        };
        files.iter().map(word).collect()
    };
    assert_eq!(names(&service), ["debian/1 - false", "debian/2 - false", "debian/3 - false"]);
    std::fs::create_dir_all(&folder).unwrap();
    let site = service.site();
    let first = site.images.iter().find(|version| version.version == 1).unwrap();
    let current =
        crate::initrds::file_name(b"init", first, &Recipe::for_all(&site, &first.image, 1));
    for name in [&current, "debian@1-0000.img", "debian@2-0000.img", "gone@7-0000.img", "x"] {
        std::fs::write(folder.join(name), name).unwrap();
    }
    let size = current.len();
    assert_eq!(
        names(&service),
        [
            &format!("debian/1 {size} true"),
            "debian/2 17 false",
            "debian/3 - false",
            "gone/7 15 false"
        ]
    );
}

#[tokio::test]
async fn initrds_for_hardware_go_when_nobody_is_to_get_them() {
    for are_fitted in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { fitted_initrds: are_fitted, ..options(folder.path()) };
        let initrds = options.initrds.clone();
        std::fs::create_dir_all(&initrds).unwrap();
        std::fs::write(initrds.join("debian@1+0123-4567.img"), "for hardware").unwrap();
        std::fs::write(initrds.join("debian@1-4567.img"), "for all").unwrap();
        let service = Service::open(options).unwrap();
        let builder = tokio::spawn(async move { service.initrds().keep_built().await });
        let left = || std::fs::read_dir(&initrds).unwrap().count();
        for _ in 0..200 {
            if left() < 2 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        builder.abort();
        assert!(initrds.join("debian@1-4567.img").exists() && left() == 1, "{are_fitted}");
    }
}

#[tokio::test]
async fn the_kernel_log_of_a_failed_boot_is_kept_for_its_machine_only() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(options(folder.path())).unwrap();
    lease(&service, MAC, ADDRESS).await;
    let boot = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    let log = "[ 1.0] first\n\u{1b}[2J[ 2.0] last\n".as_bytes();
    assert!(!service.keep_kernel_log(MAC, boot, log).await.unwrap(), "a stranger's");
    let name: model::MachineName = "lab-07".parse().unwrap();
    service.adopt(MAC, name.clone(), None, RootKind::Nbd).await.unwrap();
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
async fn a_machine_gets_its_own_initrd_and_loses_it_if_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    add_image(root, "debian", 1);
    let service = Service::open(options(root)).unwrap();
    lease(&service, MAC, ADDRESS).await;
    let name: model::MachineName = "lab-07".parse().unwrap();
    service.adopt(MAC, name.clone(), Some("debian".parse().unwrap()), RootKind::Nbd).await.unwrap();
    let site = service.site();
    let network = options(root).network.unwrap();
    let plan = |boot| match model::plan(&site, &network, MAC, ADDRESS, boot) {
        model::Plan::Boot(plan) => plan,
        model::Plan::Wait(why) => panic!("{why}"),
    };
    let first = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    let list = b"pci:v00008086d0000100Ebc02sc00i00\nusb:v1ic03\n";
    assert!(!service.keep_hardware(MAC, first + 1, list).await.unwrap(), "of another boot");
    assert!(service.keep_hardware(MAC, first, list).await.unwrap());
    let hardware = service.hardware(&name).unwrap().unwrap();
    assert_eq!((hardware.modaliases.len(), hardware.is_trusted()), (2, true));
    assert_eq!(service.fitted_initrd(&plan(first), first, false).await.unwrap(), None, "not built");

    let file = root.join("fitted.img");
    std::fs::write(&file, "initrd").unwrap();
    let version = site.newest(&"debian".parse().unwrap()).unwrap();
    let ready = InitrdState::Ready { path: file, size_bytes: 6 };
    service.initrds().shelf().put(Recipe::fitted(version, &hardware.key()), ready);
    let key = Some(hardware.key());
    let fetched = NewStage::noticed(Stage::Initrd, "");
    for (n, expected) in [(1, &key), (2, &None), (3, &key), (4, &None), (5, &None)] {
        let boot = open_boot(&service).await;
        let given = service.fitted_initrd(&plan(boot), boot, false).await.unwrap();
        assert_eq!(given, *expected, "attempt {n}");
        assert_eq!(service.fitted_initrd(&plan(boot), boot, true).await.unwrap(), given, "again");
        service.stage(MAC, Some(boot), fetched.clone()).await.unwrap();
    }
    let boot = open_boot(&service).await;
    assert!(service.keep_hardware(MAC, boot, b"pci:v2bc02\n").await.unwrap());
    assert!(service.hardware(&name).unwrap().unwrap().is_trusted(), "other hardware");
}

/// The machine is switched off and on.
async fn open_boot(service: &Service) -> model::BootId {
    let last = service.boot_of(MAC).unwrap().id;
    service.stage(MAC, Some(last), NewStage::noticed(Stage::Config, "")).await.unwrap();
    service.boot_started(MAC, Firmware::Bios).await.unwrap()
}
