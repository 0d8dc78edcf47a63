//! Rooms, and what machines inherit.

use super::*;
use crate::{RoomChange, SettingsChange};
use model::{Origin, Origins, RoomName, Setting};

fn mac(n: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 1, n])
}

fn room() -> RoomName {
    "r101".parse().unwrap()
}

fn image(name: &str) -> Option<Option<model::ImageChoice>> {
    Some(Some(name.parse().unwrap()))
}

/// A site with two images, a room, and two machines in it that say nothing themselves.
async fn site(folder: &Path) -> (Service, [MachineName; 2]) {
    add_image(folder, "debian-12", 1);
    add_image(folder, "debian-13", 1);
    let service = Service::open(options(folder)).unwrap();
    service.set_room(room(), RoomChange::default()).await.unwrap();
    let names = ["r101-01", "r101-02"].map(|name| name.parse::<MachineName>().unwrap());
    for (n, name) in (1..).zip(&names) {
        let place = Some(format!("1.{n}").parse().unwrap());
        let of_it =
            MachineChange { room: Some(Some(room())), seat: Some(place), ..adoption(mac(n), None) };
        service.add_machine(name.clone(), of_it).await.unwrap();
    }
    (service, names)
}

fn now(service: &Service, name: &MachineName) -> Machine {
    service.site().machine(name).unwrap().clone()
}

fn text_of<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().chain()
}

/// As an image that there is not: the machine was found, and its setting is wrong.
#[tokio::test]
async fn a_room_that_there_is_not_is_a_wrong_setting() {
    let folder = tempfile::tempdir().unwrap();
    let (service, [first, _]) = site(folder.path()).await;
    let nowhere = || Some(Some("nosuch".parse::<RoomName>().unwrap()));
    let to_it = MachineChange { room: nowhere(), ..MachineChange::default() };
    let error = service.set_machine(first, to_it).await.unwrap_err();
    assert!(error.is_wrong_input() && !error.is_not_found(), "{error}");
    assert!(error.chain().contains("no room nosuch"), "{error}");
    let removed = service.remove_room("nosuch".parse().unwrap()).await.unwrap_err();
    assert!(removed.is_not_found(), "{removed}");
}

#[tokio::test]
async fn a_whole_room_gets_an_image_and_who_has_its_own_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let (service, [first, second]) = site(folder.path()).await;
    let own = MachineChange { image: image("debian-13"), ..MachineChange::default() };
    service.set_machine(second.clone(), own).await.unwrap();

    let of_site = SettingsChange {
        image: image("debian-13"),
        write_mode: Some(WriteMode::Ram),
        ..SettingsChange::default()
    };
    service.set_site_settings(of_site).await.unwrap();
    assert_eq!(now(&service, &first).image.unwrap().to_string(), "debian-13");
    assert_eq!(now(&service, &first).set_by.image, Origin::Site);
    let of_room = RoomChange { image: image("debian-12"), ..RoomChange::default() };
    service.set_room(room(), of_room).await.unwrap();

    let check = |service: &Service| {
        let (first, second) = (now(service, &first), now(service, &second));
        assert_eq!(first.image.unwrap().to_string(), "debian-12");
        let origins = Origins {
            image: Origin::Room,
            root: Origin::Default,
            write_mode: Origin::Site,
            menu: Origin::Default,
        };
        assert_eq!((first.set_by, first.write_mode), (origins, WriteMode::Ram));
        assert_eq!(second.image.unwrap().to_string(), "debian-13");
        assert_eq!(second.set_by, Origins { image: Origin::Machine, ..origins });
    };
    check(&service);
    drop(service);
    let service = Service::open(options(folder.path())).unwrap();
    check(&service);

    let gives_up = MachineChange { inherit: vec![Setting::Image], ..MachineChange::default() };
    service.set_machine(second.clone(), gives_up).await.unwrap();
    assert_eq!(now(&service, &second).image.unwrap().to_string(), "debian-12");
    let leaves = MachineChange { room: Some(None), ..MachineChange::default() };
    let machine = service.set_machine(second.clone(), leaves).await.unwrap();
    assert_eq!((machine.image.unwrap().to_string().as_str(), machine.seat), ("debian-13", None));
    assert_eq!(service.rooms()[0].machines, [first]);
}

#[tokio::test]
async fn an_older_bootlace_boots_machines_as_their_room_says_and_what_it_changes_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (service, [first, second]) = site(folder.path()).await;
    let of_room = RoomChange {
        image: image("debian-12"),
        write_mode: Some(WriteMode::Ram),
        ..RoomChange::default()
    };
    service.set_room(room(), of_room).await.unwrap();
    drop(service);

    // It reads the rows of machines only, and writes them.
    let database = rusqlite::Connection::open(options(folder.path()).database).unwrap();
    let row = |name: &MachineName| {
        let query = "SELECT image, write_mode FROM machine WHERE name = ?1";
        let row = database.query_row(query, [name.as_str()], |row| Ok((row.get(0)?, row.get(1)?)));
        row.unwrap()
    };
    assert_eq!(row(&first), ("debian-12".to_owned(), "ram".to_owned()));
    let change = "UPDATE machine SET image = 'debian-13' WHERE name = ?1";
    database.execute(change, [second.as_str()]).unwrap();
    drop(database);

    let service = Service::open(options(folder.path())).unwrap();
    assert_eq!(now(&service, &first).set_by.image, Origin::Room);
    let changed = now(&service, &second);
    assert_eq!(changed.image.unwrap().to_string(), "debian-13");
    assert_eq!((changed.set_by.image, changed.set_by.write_mode), (Origin::Machine, Origin::Room));
}

#[tokio::test]
async fn what_contradicts_itself_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (service, [first, second]) = site(folder.path()).await;
    let before = (service.rooms(), now(&service, &first), now(&service, &second));
    let set =
        async |change: MachineChange| text_of(service.set_machine(second.clone(), change).await);
    let change = MachineChange::default;
    let other: RoomName = "r102".parse().unwrap();

    let error = set(MachineChange { room: Some(Some(other.clone())), ..change() }).await;
    assert!(error.contains("no room r102: bootlace room ls shows all"), "{error}");
    let error = set(MachineChange { seat: Some("1.1".parse().ok()), ..change() }).await;
    assert!(error.contains("seat 1.1 of the room r101 is that of r101-01"), "{error}");
    let error =
        set(MachineChange { room: Some(None), seat: Some("1.7".parse().ok()), ..change() }).await;
    assert!(error.contains("r101-02 is in no room"), "{error}");
    let both = MachineChange {
        image: image("debian-12"),
        inherit: vec![Setting::WriteMode, Setting::Image],
        ..change()
    };
    assert!(set(both).await.contains("image is given, and to be inherited"));
    let tags = (0..17).map(|n| format!("t{n}").parse().unwrap()).collect();
    let error = set(MachineChange { tags: Some(tags), ..change() }).await;
    assert!(error.contains("more than 16 tags"), "{error}");

    let set = async |change: RoomChange| text_of(service.set_room(room(), change).await);
    let change = RoomChange::default;
    let error = set(RoomChange { image: image("gone"), ..change() }).await;
    assert!(error.contains("choose one of debian-12, debian-13"), "{error}");
    let error = set(RoomChange { size: Some("4.1".parse().ok()), ..change() }).await;
    assert!(error.contains("seat 1.2 of r101-02 would be outside"), "{error}");
    let url = |text: &str| Some(text.parse().unwrap());
    let error = set(RoomChange { root_url: url("nfs://10.0.0.5/srv/a"), ..change() }).await;
    assert!(error.contains("spoil it for each other: add the option ro"), "{error}");
    let error = set(RoomChange { root: Some(RootKind::Iscsi), ..change() }).await;
    assert!(error.contains("the room r101 has no address of its iscsi root"), "{error}");
    let note = Some("x".repeat(model::NOTE_MAX + 1));
    assert!(set(RoomChange { note, ..change() }).await.contains("at most 200 bytes"));
    let note = Some("two\nlines".to_owned());
    assert!(set(RoomChange { note, ..change() }).await.contains("without control characters"));
    let error = text_of(service.remove_room(room()).await);
    assert!(error.contains("r101-01, r101-02 are in the room r101"), "{error}");
    let error = text_of(service.remove_room(other.clone()).await);
    assert!(error.contains("no room r102"), "{error}");
    let after = (service.rooms(), now(&service, &first), now(&service, &second));
    assert_eq!(format!("{before:?}"), format!("{after:?}"));

    // And what makes sense is done.
    let read_only = RoomChange { root_url: url("nfs://10.0.0.5/srv/a?ro"), ..change() };
    service.set_room(room(), read_only).await.unwrap();
    assert_eq!(now(&service, &first).root, RootKind::Nfs);
    let renamed = RoomChange { name: Some(other.clone()), ..change() };
    service.set_room(room(), renamed).await.unwrap();
    assert_eq!(service.room(&other).unwrap().machines, [first.clone(), second.clone()]);
    assert_eq!(now(&service, &first).root, RootKind::Nfs);
    for name in [first, second] {
        service.remove_machine(name).await.unwrap();
    }
    service.remove_room(other).await.unwrap();
    assert!(service.rooms().is_empty());
}

#[tokio::test]
async fn rooms_and_machines_together_have_no_command_line_that_linux_would_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (service, [first, _]) = site(folder.path()).await;
    let args = |n: usize| Some("x".repeat(n).parse().unwrap());
    let own = MachineChange { kernel_args: args(600), ..MachineChange::default() };
    service.set_machine(first.clone(), own).await.unwrap();
    let of_room = |n| RoomChange { kernel_args: args(n), ..RoomChange::default() };
    let error = text_of(service.set_room(room(), of_room(500)).await);
    assert!(error.contains("of the room r101 and of r101-01 together"), "{error}");
    service.set_room(room(), of_room(400)).await.unwrap();
    let own = MachineChange { kernel_args: args(700), ..MachineChange::default() };
    let error = text_of(service.set_machine(first, own).await);
    assert!(error.contains("longer than 1024 bytes"), "{error}");
}
