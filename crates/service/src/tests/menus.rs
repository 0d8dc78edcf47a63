//! What can be chosen in a loader, and what a PC does that is no machine.

use super::*;
use crate::{LoaderConfig, RoomChange, SettingsChange};
use model::{BootChoice, LoaderAsk, Menu, Origin, Setting, Strangers};

const MACHINE: LoaderAsk = LoaderAsk::Machine;

fn menu(text: &str) -> Option<Menu> {
    Some(text.parse().unwrap())
}

/// A site with a machine that has an image, and another image.
async fn site(root: &Path, of_it: MachineChange) -> (Service, MachineName) {
    add_image(root, "debian-12", 1);
    add_image(root, "xfce", 1);
    let service = Service::open(options(root)).unwrap();
    start_storage(root);
    pretend_initrds(&service);
    let name: MachineName = "lab-07".parse().unwrap();
    let image = Some(Some("debian-12".parse().unwrap()));
    let of_it = MachineChange { mac: Some(MAC), image, ..of_it };
    service.add_machine(name.clone(), of_it).await.unwrap();
    start(&service).await;
    (service, name)
}

/// It is switched on.
async fn start(service: &Service) {
    lease(service, MAC, ADDRESS).await;
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    reached(service, Stage::Dhcp).await;
}

async fn ask(service: &Service, ask: &LoaderAsk) -> LoaderConfig {
    service.loader_config(ADDRESS, ask).await
}

fn chosen(text: &str) -> LoaderAsk {
    LoaderAsk::Chosen(text.parse().unwrap())
}

#[tokio::test]
async fn a_menu_is_shown_and_what_is_chosen_there_starts() {
    let folder = tempfile::tempdir().unwrap();
    let of_it =
        MachineChange { menu: menu("image,image:xfce,local-disk,5s"), ..MachineChange::default() };
    let (service, name) = site(folder.path(), of_it).await;
    assert_eq!(
        ask(&service, &MACHINE).await.text,
        "set bootlace_answered=1\nconfigfile (tftp,10.77.0.1)/grub/menu.cfg\n"
    );
    let text = ask(&service, &LoaderAsk::Menu).await.text;
    for part in
        ["timeout=5\n", "menuentry debian-12 --", "menuentry xfce --", "The disk of this PC"]
    {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let text = ask(&service, &chosen("image:xfce")).await.text;
    assert!(text.contains("/boot/xfce/1/vmlinuz"), "{text}");
    let boot = service.boot_of(MAC).unwrap();
    assert_eq!(boot.image.as_ref().unwrap().0.as_str(), "xfce");

    start(&service).await;
    let text = ask(&service, &chosen("local-disk")).await.text;
    assert!(text.contains("chainloader"), "{text}");
    let state = service.machine(&name).unwrap().state;
    assert_eq!(state.word, StateWord::Local, "{}", state.sentence);
    assert!(state.sentence.contains("its own disk"), "{}", state.sentence);

    let waiting = ask(&service, &chosen("memory-test")).await.waiting.unwrap();
    assert!(waiting.contains("memory-test is not in the menu of lab-07"), "{waiting}");
}

#[tokio::test]
async fn a_memory_test_is_started_if_the_server_has_one() {
    let folder = tempfile::tempdir().unwrap();
    let of_it = MachineChange { menu: menu("image,memory-test"), ..MachineChange::default() };
    let (service, _) = site(folder.path(), of_it).await;
    let asked = ask(&service, &chosen("memory-test")).await;
    match crate::memory_test("i386-pc") {
        Some(_) => assert!(asked.text.contains("/boot/memory-test/"), "{}", asked.text),
        None => {
            let waiting = asked.waiting.unwrap();
            assert!(waiting.contains("lab-07 is to test its memory"), "{waiting}");
            assert!(waiting.contains("the Debian package memtest86+"), "{waiting}");
        }
    }
}

#[tokio::test]
async fn what_is_to_start_once_starts_once() {
    let folder = tempfile::tempdir().unwrap();
    let (service, name) = site(folder.path(), MachineChange::default()).await;
    let next = |choice: Option<&str>| MachineChange {
        next_boot: Some(choice.map(|choice| choice.parse().unwrap())),
        ..MachineChange::default()
    };
    let error = service.set_machine(name.clone(), next(Some("image:nosuch"))).await.unwrap_err();
    assert!(error.chain().contains("there is no image nosuch"), "{error}");
    service.set_machine(name.clone(), next(Some("image:xfce"))).await.unwrap();
    let preview = service.preview(&name).await.unwrap().unwrap().grub_cfg;
    assert!(preview.contains("/boot/xfce/1/"), "{preview}");
    for _ in 0..2 {
        let text = ask(&service, &MACHINE).await.text;
        assert!(text.contains("/boot/xfce/1/vmlinuz"), "as often as this boot asks: {text}");
        assert_eq!(service.site().machine(&name).unwrap().next_boot, None);
    }
    start(&service).await;
    assert!(ask(&service, &MACHINE).await.text.contains("/boot/debian-12/1/vmlinuz"));

    // Who has chosen already can't use up what the next start is to be.
    service.set_machine(name.clone(), next(Some("local-disk"))).await.unwrap();
    assert!(ask(&service, &MACHINE).await.text.contains("/boot/debian-12/1/vmlinuz"));
    assert!(service.site().machine(&name).unwrap().next_boot.is_some());
    service.set_machine(name.clone(), next(None)).await.unwrap();
    start(&service).await;
    assert!(ask(&service, &MACHINE).await.text.contains("/boot/debian-12/1/vmlinuz"));
}

#[tokio::test]
async fn a_menu_is_inherited_as_other_settings_are() {
    let folder = tempfile::tempdir().unwrap();
    let (service, name) = site(folder.path(), MachineChange::default()).await;
    let now = || {
        let machine = service.site().machine(&name).unwrap().clone();
        (machine.menu.to_string(), machine.set_by.menu)
    };
    assert_eq!(now(), ("image".to_owned(), Origin::Default));
    let of_site = SettingsChange { menu: menu("image,memory-test"), ..SettingsChange::default() };
    service.set_site_settings(of_site).await.unwrap();
    assert_eq!(now(), ("image,memory-test,10s".to_owned(), Origin::Site));
    let of_room = RoomChange { menu: menu("local-disk,image,3s"), ..RoomChange::default() };
    service.set_room("r101".parse().unwrap(), of_room).await.unwrap();
    let room = Some(Some("r101".parse().unwrap()));
    let moves = MachineChange { room, ..MachineChange::default() };
    service.set_machine(name.clone(), moves).await.unwrap();
    assert_eq!(now(), ("local-disk,image,3s".to_owned(), Origin::Room));
    let renames = RoomChange { name: Some("r102".parse().unwrap()), ..RoomChange::default() };
    service.set_room("r101".parse().unwrap(), renames).await.unwrap();
    assert_eq!(now().1, Origin::Room);
    let own = MachineChange { menu: menu("image"), ..MachineChange::default() };
    service.set_machine(name.clone(), own).await.unwrap();
    assert_eq!(now(), ("image".to_owned(), Origin::Machine));
    let gives_up = MachineChange { inherit: vec![Setting::Menu], ..MachineChange::default() };
    service.set_machine(name.clone(), gives_up).await.unwrap();
    assert_eq!(now(), ("local-disk,image,3s".to_owned(), Origin::Room));
    // A later start reads the same.
    let again = Service::open(options(folder.path())).unwrap();
    assert_eq!(again.site().machine(&name).unwrap().menu.first(), &BootChoice::LocalDisk);

    let locked =
        MachineChange { menu: menu("image,memory-test/locked"), ..MachineChange::default() };
    let error = service.set_machine(name.clone(), locked).await.unwrap_err();
    assert!(error.is_wrong_input() && error.chain().contains("menu_password"), "{error}");
    let unknown = MachineChange { menu: menu("image,image:nosuch"), ..MachineChange::default() };
    let error = service.set_machine(name.clone(), unknown).await.unwrap_err();
    assert!(error.chain().contains("there is no image nosuch"), "{error}");
}

#[tokio::test]
async fn who_is_no_machine_goes_on_to_its_disk_if_the_site_wants_that() {
    for strangers in [Strangers::Wait, Strangers::LocalDisk, Strangers::Nothing] {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(folder.path());
        options.network.as_mut().unwrap().strangers = strangers;
        let service = Service::open(options).unwrap();
        start(&service).await;
        let loader = service.choose_loader(MAC, Firmware::Bios, false).loader;
        assert_eq!(loader.is_none(), strangers == Strangers::Nothing);
        let LoaderConfig { text, waiting, .. } = ask(&service, &MACHINE).await;
        assert!(waiting.unwrap().contains("is not in the machine list"));
        assert_eq!(text.contains("chainloader"), strangers != Strangers::Wait, "{text}");

        // Who is adopted meanwhile moves on by itself.
        add_image(folder.path(), "debian-12", 1);
        service.index_images().await;
        start_storage(folder.path());
        let image = Some("debian-12".parse().unwrap());
        adopt(&service, MAC, "lab-07".parse().unwrap(), image).await.unwrap();
        pretend_initrds(&service);
        let text = ask(&service, &MACHINE).await.text;
        assert!(text.contains("/boot/debian-12/1/vmlinuz"), "{text}");
        assert!(service.choose_loader(MAC, Firmware::Bios, false).loader.is_some());
    }
}
