//! Disks that machines have beside their roots.

use super::exchange::lab;
use super::secrets::segment;
use super::*;
use crate::{NewDisk, NewEdit, RoomChange};
use initcfg::HostConfig;
use model::{DiskId, DiskWrites, WriteMode};

/// An image without a system.
fn add_data(root: &Path, name: &str, version: u32) {
    add_image(root, name, version);
    let about = options(root).images.join(name).join(version.to_string()).join("image.toml");
    let text = std::fs::read_to_string(&about).unwrap();
    let text = text.replace("kernel_version = \"6.1.0\"", "kernel_version = \"\"");
    std::fs::write(about, text).unwrap();
}

fn disk(name: &str) -> NewDisk {
    NewDisk {
        room: None,
        machine: None,
        name: name.parse().unwrap(),
        image: Some("homes".parse().unwrap()),
        mount: None,
        carry: Vec::new(),
        swap: false,
        none: false,
        writes: None,
    }
}

fn home() -> NewDisk {
    NewDisk { carry: vec!["/home".to_owned(), "/etc/cups/".to_owned()], ..disk("home") }
}

fn none(name: &str) -> NewDisk {
    NewDisk { image: None, none: true, ..disk(name) }
}

fn machine() -> MachineName {
    "lab-07".parse().unwrap()
}

async fn refused(service: &Service, new: NewDisk) -> String {
    let error = service.by_root().put_site_disk(new).await.unwrap_err();
    assert!(error.is_wrong_input() || error.is_not_found(), "{error}");
    error.chain()
}

fn told(host: &HostConfig) -> Vec<String> {
    host.disks.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_boot_has_its_disks_by_its_own_key_told_where_nobody_else_hears_it() {
    let folder = tempfile::tempdir().unwrap();
    add_data(folder.path(), "homes", 1);
    let (service, asked) = lab(folder.path()).await;
    service.by_root().put_site_disk(home()).await.unwrap();
    let swap = NewDisk { swap: true, ..disk("swap") };
    service.by_root().put_site_disk(swap).await.unwrap();
    let boot = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(screen(&service).await, "");

    let plain = segment(&service, boot).await.unwrap();
    assert!(plain.disks.is_empty() && plain.disk_servers.is_empty(), "who listens hears that");
    let orders = asked.lock().unwrap().clone();
    let of = |name: &str| {
        let id: DiskId = name.parse().unwrap();
        orders.iter().rfind(|order| order.spec.disk == id).unwrap().clone()
    };
    let exchange = of("lab-07").exchange.unwrap();
    let inside = HostConfig::parse(exchange.text.as_bytes()).unwrap();
    assert_eq!(told(&inside), ["home kept carry /home /etc/cups", "swap forgotten swap"]);
    assert_eq!(inside.disk_servers, ["10.77.0.1:10809".parse().unwrap()]);
    let (home, swap) = (of("lab-07+home"), of("lab-07+swap"));
    for order in [&home, &swap] {
        assert_eq!((order.key, order.spec.boot), (Some(exchange.key), boot));
        assert_eq!((order.spec.image.as_str(), order.spec.version), ("homes", 1));
        assert_eq!(order.exchange, None);
    }
    assert_eq!(home.spec.write_mode, WriteMode::Persistent);
    assert!(home.owner.is_some(), "another machine of this name does not get it");
    assert_eq!((swap.spec.write_mode, swap.owner), (WriteMode::Discard, None));
}

#[tokio::test]
async fn without_tls_the_host_segment_tells_and_where_an_image_is_changed_there_are_none() {
    let folder = tempfile::tempdir().unwrap();
    add_image(folder.path(), "debian-12", 1);
    add_data(folder.path(), "homes", 1);
    add_data(folder.path(), "homes", 2);
    let service = Service::open(options(folder.path())).unwrap();
    let asked = start_storage(folder.path());
    let room: model::RoomName = "r101".parse().unwrap();
    service.set_room(room.clone(), RoomChange::default()).await.unwrap();
    adopt(&service, MAC, machine(), Some("debian-12".parse().unwrap())).await.unwrap();
    pretend_initrds(&service);
    lease(&service, MAC, ADDRESS).await;
    let in_room = MachineChange { room: Some(Some(room.clone())), ..MachineChange::default() };
    service.set_machine(machine(), in_room).await.unwrap();
    let root = service.by_root();
    root.put_site_disk(home()).await.unwrap();
    let of_room = NewDisk { mount: Some("/srv/books".to_owned()), ..disk("books") };
    root.put_site_disk(NewDisk { room: Some(room), ..of_room }).await.unwrap();

    let boot = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(screen(&service).await, "");
    let host = segment(&service, boot).await.unwrap();
    assert_eq!(told(&host), ["books ro mount /srv/books", "home kept carry /home /etc/cups"]);
    let orders = asked.lock().unwrap().clone();
    let books = orders.iter().find(|order| order.spec.disk.to_string() == "lab-07+books").unwrap();
    assert_eq!((books.spec.version, books.spec.write_mode), (2, WriteMode::Ram));
    assert_eq!(books.key, Some(host.token.disk_key()));

    // One machine has none of that name.
    root.put_site_disk(NewDisk { machine: Some(machine()), ..none("home") }).await.unwrap();
    let host = segment(&service, boot).await.unwrap();
    assert_eq!(told(&host), ["books ro mount /srv/books"]);

    let edit = NewEdit { image: "debian-12".parse().unwrap(), version: None, machine: machine() };
    asked.lock().unwrap().clear();
    root.begin_edit(edit).await.unwrap();
    let boot = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(screen(&service).await, "");
    assert!(segment(&service, boot).await.unwrap().disks.is_empty());
    let orders = asked.lock().unwrap().clone();
    assert!(!orders.is_empty() && orders.iter().all(|order| order.spec.disk.is_root()));
}

#[tokio::test]
async fn what_can_not_be_a_disk_is_refused_and_what_is_named_stays() {
    let folder = tempfile::tempdir().unwrap();
    add_image(folder.path(), "debian-12", 1);
    add_data(folder.path(), "homes", 1);
    let service = Service::open(options(folder.path())).unwrap();
    adopt(&service, MAC, machine(), Some("debian-12".parse().unwrap())).await.unwrap();
    let mounted = |at: &str| NewDisk { mount: Some(at.to_owned()), ..disk("data") };
    let image = |name: &str| Some(name.parse().unwrap());
    for (new, why) in [
        (disk("data"), "say one of what the disk is for"),
        (NewDisk { swap: true, ..mounted("/data") }, "say one of what the disk is for"),
        (mounted("/usr"), "none that the system itself needs"),
        (mounted("data"), "a folder like /home"),
        (NewDisk { image: None, ..mounted("/data") }, "image new"),
        (NewDisk { image: image("debian-12"), ..mounted("/data") }, "is a system"),
        (NewDisk { image: image("nothing"), ..mounted("/data") }, "no version"),
        (NewDisk { writes: Some(DiskWrites::Forgotten), ..home() }, "is kept"),
        (NewDisk { machine: Some("lab-99".parse().unwrap()), ..home() }, "lab-99"),
        (
            NewDisk { machine: Some(machine()), room: Some("r1".parse().unwrap()), ..home() },
            "not both",
        ),
    ] {
        let said = refused(&service, new).await;
        assert!(said.contains(why), "{said}");
    }
    let root = service.by_root();
    root.put_site_disk(home()).await.unwrap();
    let said = refused(&service, mounted("/home/books")).await;
    assert!(said.contains("/home/books") && said.contains("the disk home"), "{said}");
    assert_eq!(root.site_disks().len(), 1, "what was refused is not there");
    // Also where no machine is yet.
    service.set_room("r101".parse().unwrap(), RoomChange::default()).await.unwrap();
    let of_room = NewDisk { room: Some("r101".parse().unwrap()), ..mounted("/home/books") };
    let said = refused(&service, of_room).await;
    assert!(said.contains("the machines of room r101"), "{said}");

    // A disk is no system, and a system that is named stays.
    let boots = MachineChange { image: Some(image("homes")), ..MachineChange::default() };
    let said = service.set_machine(machine(), boots).await.unwrap_err().chain();
    assert!(said.contains("no system"), "{said}");
    let retire = root.set_image_state("homes".parse().unwrap(), 1, model::VersionState::Retired);
    let said = retire.await.unwrap_err().chain();
    assert!(said.contains("the disk home of the site"), "{said}");

    root.remove_site_disk(model::FilesOf::Site, "home".parse().unwrap()).await.unwrap();
    let gone = root.remove_site_disk(model::FilesOf::Site, "home".parse().unwrap()).await;
    assert!(gone.unwrap_err().is_not_found());
}
