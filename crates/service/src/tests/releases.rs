//! Which versions machines get, and which can be removed.

use super::*;
use crate::{Actor, Admin};
use model::VersionState;

const DEBIAN: &str = "debian";

/// A site with versions 1 to 3 of an image that lab-07 boots, and what root may do there.
async fn site(root: &Path) -> (Service, Admin) {
    for version in 1..=3 {
        add_image(root, DEBIAN, version);
        add_files(root, DEBIAN, version);
    }
    let service = Service::open(options(root)).unwrap();
    adopt(&service, MAC, "lab-07".parse().unwrap(), Some(image())).await.unwrap();
    let admin = service.admin(&Actor::command(0)).unwrap();
    (service, admin)
}

fn image() -> ImageName {
    DEBIAN.parse().unwrap()
}

/// What lab-07 gets at its next boot.
fn next(service: &Service) -> Option<u32> {
    service.machines()[0].next_version
}

async fn boots(service: &Service, choice: &str) {
    let change =
        MachineChange { image: Some(Some(choice.parse().unwrap())), ..MachineChange::default() };
    service.set_machine("lab-07".parse().unwrap(), change).await.unwrap();
}

fn refused<T: std::fmt::Debug>(refused: Result<T, Error>, words: &str) {
    let told = refused.unwrap_err().to_string();
    assert!(told.contains(words), "{told}");
}

#[tokio::test]
async fn machines_get_what_is_released_and_it_can_be_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (service, admin) = site(root).await;
    assert_eq!(next(&service), Some(3));
    let set = async |version, state| admin.set_image_state(image(), version, state).await;
    let now = set(3, VersionState::Test).await.unwrap();
    assert_eq!((now.version, next(&service)), (Some(2), Some(2)));
    boots(&service, "debian/test").await;
    assert_eq!(next(&service), Some(3));
    boots(&service, "debian/v1").await;
    assert_eq!(next(&service), Some(1));
    boots(&service, "debian").await;

    set(3, VersionState::Released).await.unwrap();
    let now = admin.roll_back_image(image(), None).await.unwrap();
    assert_eq!((now.version, next(&service)), (Some(2), Some(2)));
    refused(admin.roll_back_image(image(), Some(3)).await, "not older than v2");
    refused(admin.roll_back_image(image(), Some(9)).await, "there is no debian/v9");
    admin.roll_back_image(image(), None).await.unwrap();
    assert_eq!(next(&service), Some(1));
    refused(admin.roll_back_image(image(), None).await, "no version before v1");
    // What was taken back is passed over, and a second click on the same button changes nothing.
    set(3, VersionState::Released).await.unwrap();
    let now = admin.roll_back_image(image(), None).await.unwrap();
    assert_eq!((now.version, now.changed.as_slice()), (Some(1), &[(3, VersionState::Retired)][..]));
    let again = admin.roll_back_image(image(), Some(1)).await.unwrap();
    assert_eq!((again.version, again.changed.as_slice()), (Some(1), &[][..]));
    let nobody = "nobody".parse().unwrap();
    refused(admin.roll_back_image(nobody, None).await, "there is no image nobody");

    // Nobody is left with nothing.
    refused(set(1, VersionState::Retired).await, "no other version of debian is for lab-07");
    assert_eq!(next(&service), Some(1));
    refused(set(4, VersionState::Released).await, "there is no debian/v4");

    // A database that is lost does not release what was taken back.
    let states = service.site().states.clone();
    assert_eq!(states.len(), 2);
    drop((service, admin));
    let database = options(root).database;
    std::fs::remove_file(&database).unwrap();
    for left in ["state.db-wal", "state.db-shm", "state.db.exists"] {
        let _ = std::fs::remove_file(database.with_file_name(left));
    }
    for left in std::fs::read_dir(database.parent().unwrap()).unwrap() {
        let path = left.unwrap().path();
        if path.is_file() {
            std::fs::remove_file(path).unwrap();
        }
    }
    let service = Service::open(options(root)).unwrap();
    assert_eq!(service.site().states, states);
    // And where the store's word is lost or can't be read the former one holds.
    drop(service);
    std::fs::remove_file(options(root).images.join(".numbers.toml")).unwrap();
    let service = Service::open(options(root)).unwrap();
    assert_eq!(service.site().states, states);
    service.look_at_images().await;
    drop(service);
    let service = Service::open(options(root)).unwrap();
    assert_eq!(service.site().states, states, "and it is noted there again");
    drop(service);
    std::fs::write(options(root).images.join(".numbers.toml"), "given = 7").unwrap();
    let service = Service::open(options(root)).unwrap();
    assert_eq!(service.site().states, states);
}

#[tokio::test]
async fn who_runs_another_version_than_he_gets_next_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (service, admin) = site(folder.path()).await;
    let _asked = start_storage(folder.path());
    pretend_initrds(&service);
    lease(&service, MAC, ADDRESS).await;
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(screen(&service).await, "");
    reached(&service, Stage::Up).await;
    let now = admin.roll_back_image(image(), None).await.unwrap();
    assert_eq!(now.behind, ["lab-07".parse().unwrap()]);
    // It runs that one, though it would not get it again.
    refused(admin.remove_image_version(image(), 3).await, "lab-07 runs it");
    refused(admin.remove_image_version(image(), 2).await, "lab-07 boots it next");
    let now = admin.set_image_state(image(), 3, VersionState::Released).await.unwrap();
    assert_eq!(now.behind, []);
}

#[tokio::test]
async fn what_can_not_boot_is_not_released_and_a_menu_is_not_left_without_its_image() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (service, admin) = site(root).await;
    add_image(root, "xfce", 1);
    add_files(root, "xfce", 1);
    service.index_images().await;
    let menu = MachineChange {
        menu: Some("image,image:xfce/test".parse().unwrap()),
        ..MachineChange::default()
    };
    service.set_machine("lab-07".parse().unwrap(), menu).await.unwrap();
    let xfce: ImageName = "xfce".parse().unwrap();
    let gone = "no other version of xfce is for lab-07";
    refused(admin.set_image_state(xfce.clone(), 1, VersionState::Retired).await, gone);
    let _asked = start_storage(root);
    refused(admin.remove_image_version(xfce, 1).await, gone);

    admin.set_image_state(image(), 3, VersionState::Test).await.unwrap();
    std::fs::remove_file(options(root).images.join("debian/3/disk.raw")).unwrap();
    service.look_at_images().await;
    refused(
        admin.set_image_state(image(), 3, VersionState::Released).await,
        "can't boot debian/v3",
    );
    assert_eq!(next(&service), Some(2));
}

#[tokio::test]
async fn what_was_removed_and_is_put_back_by_hand_is_for_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (service, admin) = site(root).await;
    let _asked = start_storage(root);
    boots(&service, "debian/v1").await;
    admin.remove_image_version(image(), 3).await.unwrap();
    drop((service, admin));
    add_image(root, DEBIAN, 3);
    add_files(root, DEBIAN, 3);
    let service = Service::open(options(root)).unwrap();
    let admin = service.admin(&Actor::command(0)).unwrap();
    boots(&service, DEBIAN).await;
    assert_eq!(next(&service), Some(2));
    admin.set_image_state(image(), 3, VersionState::Released).await.unwrap();
    assert_eq!(next(&service), Some(3));
}

#[tokio::test]
async fn what_nobody_needs_is_removed_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (service, admin) = site(root).await;
    // Who keeps disks only the storage server knows.
    refused(admin.remove_image_version(image(), 1).await, "only the storage server knows");
    let _asked = start_storage(root);
    boots(&service, "debian/v2").await;
    refused(
        admin.removable(&image(), 2).await,
        "lab-07 names just this version; lab-07 boots it next",
    );
    refused(admin.remove_image_version(image(), 9).await, "there is no debian/v9");
    assert!(admin.removable(&image(), 1).await.unwrap() > 0);
    assert!(admin.remove_image_version(image(), 1).await.unwrap() > 0);
    let numbers = |service: &Service| -> Vec<u32> {
        service.site().images.iter().map(|version| version.version).collect()
    };
    assert_eq!(numbers(&service), [2, 3]);
    assert!(!options(root).images.join("debian/1").exists());
    assert!(service.version_trouble(&image(), 1).is_none(), "it is not missed");
    drop(service);
    let service = Service::open(options(root)).unwrap();
    assert_eq!(numbers(&service), [2, 3]);
}
