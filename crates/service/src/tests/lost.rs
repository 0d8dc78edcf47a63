//! A database that was lost, or is an older one; disks and images that are not there.

use super::*;
use crate::DamagedVersion;
use crate::live::Answer;
use model::{DiskReport, ExportOrder, FindingKind, ImageName, KeptDisk, MachineName};
use rusqlite::Connection;

pub(super) fn name() -> MachineName {
    "lab-07".parse().unwrap()
}

/// A site with one machine, of which the orders to the storage server are noted.
pub(super) async fn site(root: &Path, write_mode: WriteMode) -> Service {
    add_image(root, "debian", 1);
    let service = Service::open(options(root)).unwrap();
    let change = MachineChange {
        mac: Some(MAC),
        image: Some(Some("debian".parse().unwrap())),
        write_mode: Some(write_mode),
        ..MachineChange::default()
    };
    service.set_machine(name(), change).await.unwrap();
    pretend_initrds(&service);
    lease(&service, MAC, ADDRESS).await;
    service
}

/// The machine is switched on, and gets as far as its configuration.
pub(super) async fn boot(service: &Service, asked: &disks::Asked) -> ExportOrder {
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(screen(service).await, "");
    asked.lock().unwrap().last().unwrap().clone()
}

pub(super) fn lose_database(root: &Path) {
    for file in ["state.db", "state.db-wal", "state.db-shm", "state.was-here"] {
        let _ = std::fs::remove_file(root.join("var/lib/bootlace").join(file));
    }
}

/// The same with a database that was lost.
async fn boot_with_lost_database(root: &Path, asked: &disks::Asked) -> (Service, ExportOrder) {
    lose_database(root);
    let service = site(root, WriteMode::Discard).await;
    let order = boot(&service, asked).await;
    (service, order)
}

#[tokio::test]
async fn boots_with_the_same_number_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let asked = start_storage(folder.path());
    let service = site(folder.path(), WriteMode::Discard).await;
    let before = boot(&service, &asked).await;
    assert_eq!(order_of(&service, &asked).await, before, "it is the same boot");
    drop(service);
    let (service, after) = boot_with_lost_database(folder.path(), &asked).await;
    assert_eq!((before.spec.boot, after.spec.boot), (1, 1));
    assert!(before.identity.is_some() && after.identity.is_some());
    assert_ne!(before.identity, after.identity);
    // What an earlier Bootlace has opened has none.
    let sql = Connection::open(&service.options().database).unwrap();
    sql.execute("DELETE FROM boot_identity", []).unwrap();
    drop(service);
    let service = Service::open(options(folder.path())).unwrap();
    pretend_initrds(&service);
    assert_eq!(order_of(&service, &asked).await.identity, None);
}

#[tokio::test]
async fn boots_are_counted_beyond_those_that_the_storage_server_knows() {
    let folder = tempfile::tempdir().unwrap();
    let asked = start_storage(folder.path());
    let service = site(folder.path(), WriteMode::Discard).await;
    let mut earlier = boot(&service, &asked).await;
    earlier.spec.boot = 70;
    asked.lock().unwrap().push(earlier);
    service.refresh_exports().await;
    service.note_exports().await;
    let stranger = Mac([2, 0, 0, 0, 0, 9]);
    assert_eq!(service.boot_started(stranger, Firmware::Bios).await.unwrap(), 71);
    service.note_exports().await;
    let stranger = Mac([2, 0, 0, 0, 0, 8]);
    assert_eq!(service.boot_started(stranger, Firmware::Bios).await.unwrap(), 72);
}

#[tokio::test]
async fn an_export_of_an_earlier_boot_with_that_number_is_not_this_one_s() {
    let folder = tempfile::tempdir().unwrap();
    let asked = start_storage(folder.path());
    let service = site(folder.path(), WriteMode::Persistent).await;
    let order = boot(&service, &asked).await;
    let before = ExportOrder { identity: Some(model::BootIdentity::new([9; 16])), ..order.clone() };
    service
        .database()
        .write(move |tables| Ok(tables.want_disk_reset(order.spec.boot)?))
        .await
        .unwrap();
    asked.lock().unwrap().push(before);
    service.refresh_exports().await;
    service.note_exports().await;
    assert!(!service.view().disk_resets.is_empty(), "its disk was not thrown away");
    order_of(&service, &asked).await;
    service.refresh_exports().await;
    service.note_exports().await;
    assert!(service.view().disk_resets.is_empty());
}

pub(super) async fn order_of(service: &Service, asked: &disks::Asked) -> ExportOrder {
    assert_eq!(screen(service).await, "");
    asked.lock().unwrap().last().unwrap().clone()
}

#[tokio::test]
async fn the_storage_server_is_told_that_a_machine_has_a_disk() {
    let folder = tempfile::tempdir().unwrap();
    let asked = start_storage(folder.path());
    let service = site(folder.path(), WriteMode::Persistent).await;
    assert!(!boot(&service, &asked).await.has_disk, "it is its first boot");
    service.refresh_exports().await;
    service.note_exports().await;
    assert!(order_of(&service, &asked).await.has_disk);
    // It is as true after a restart, and until the disk is thrown away.
    let again = Service::open(options(folder.path())).unwrap();
    pretend_initrds(&again);
    let order = order_of(&again, &asked).await;
    assert!(order.has_disk);
    again
        .database()
        .write(move |tables| {
            tables.want_disk_reset(order.spec.boot)?;
            Ok(tables.note_disk_reset(&name(), order.spec.boot)?)
        })
        .await
        .unwrap();
    assert!(again.view().kept_disks.is_empty());
}

#[tokio::test]
async fn a_machine_whose_version_is_gone_waits_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    start_storage(folder.path());
    let service = site(folder.path(), WriteMode::Persistent).await;
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(screen(&service).await, "");
    add_image(folder.path(), "debian", 2);
    std::fs::remove_dir_all(options(folder.path()).images.join("debian/1")).unwrap();
    service.index_images().await;
    let service = Service::open(options(folder.path())).unwrap();
    pretend_initrds(&service);
    let text = screen(&service).await;
    assert!(text.contains("made on debian version 1") && text.contains("reset lab-07"), "{text}");
}

pub(super) async fn cause(service: &Service, kind: FindingKind) -> Option<String> {
    let findings = service.findings().await;
    findings.into_iter().find(|finding| finding.kind == kind).map(|finding| finding.cause)
}

#[tokio::test]
async fn images_that_are_not_mounted_are_missed_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let service = site(folder.path(), WriteMode::Discard).await;
    assert_eq!(cause(&service, FindingKind::ImageMissing).await, None);
    drop(service);
    let (images, away) = (options(folder.path()).images, folder.path().join("away"));
    std::fs::rename(&images, &away).unwrap();
    let service = Service::open(options(folder.path())).unwrap();
    let text = cause(&service, FindingKind::ImageMissing).await.unwrap();
    assert!(text.contains("debian") && text.contains("probably not mounted"), "{text}");
    std::fs::remove_dir_all(&images).unwrap();
    std::fs::rename(&away, &images).unwrap();
    service.index_images().await;
    for _ in 0..50 {
        if cause(&service, FindingKind::ImageMissing).await.is_none() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the images are there, and nobody sees them");
}

#[tokio::test]
async fn a_version_that_is_lost_is_missed_at_each_start_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    drop(site(folder.path(), WriteMode::Discard).await);
    let (version, away) = (options.images.join("debian/1"), folder.path().join("away"));
    std::fs::rename(&version, &away).unwrap();
    for _ in 0..3 {
        let service = Service::open(options.clone()).unwrap();
        let damaged = service.damaged_images().await;
        let [DamagedVersion { version: 1, why, starts: false, .. }] = &damaged[..] else {
            panic!("{damaged:?}");
        };
        assert!(why.ends_with("debian/1 is gone"), "{why}");
        assert!(cause(&service, FindingKind::ImageDamaged).await.is_some());
        let expected = crate::expected(&options.database).unwrap();
        assert_eq!(expected.images, [("debian".to_owned(), 1)]);
    }
    std::fs::rename(&away, &version).unwrap();
    add_files(folder.path(), "debian", 1);
    for _ in 0..2 {
        let service = Service::open(options.clone()).unwrap();
        assert_eq!(service.damaged_images().await, []);
    }
}

#[tokio::test]
async fn a_lost_version_on_which_a_disk_stands_is_missed_whatever_newer_one_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let service = site(folder.path(), WriteMode::Persistent).await;
    drop(service);
    for version in [1, 2] {
        add_image(folder.path(), "debian", version);
        add_files(folder.path(), "debian", version);
    }
    let image: ImageName = "debian".parse().unwrap();
    let open = || {
        let service = Service::open(options(folder.path())).unwrap();
        let stands_on = KeptDisk { image: image.clone(), version: 1, id: None };
        let disk = DiskReport {
            disk: name().into(),
            stands_on: Some(stands_on),
            trouble: None,
            is_taken_over: false,
            no_snapshot: None,
            owner: None,
            written_bytes: None,
            made_unix: None,
        };
        let asked = Some(service.now().moment);
        service.exports().put(Answer { asked, disks: Arc::new(vec![disk]), ..Answer::default() });
        service
    };
    assert_eq!(open().machine(&name()).unwrap().next_version, Some(1), "as if it were off");
    std::fs::remove_dir_all(options(folder.path()).images.join("debian/1")).unwrap();
    for _ in 0..3 {
        let service = open();
        service.look_at_images().await;
        assert_eq!(service.damaged_images().await.len(), 1);
        let text = cause(&service, FindingKind::ImageDamaged).await.unwrap();
        assert!(text.contains("1 is gone. These machines can't start: lab-07."), "{text}");
    }
}

#[tokio::test]
async fn disks_that_are_missing_or_belong_to_no_machine_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let service = site(folder.path(), WriteMode::Persistent).await;
    let report = |name: &str, trouble: Option<&str>| DiskReport {
        disk: name.parse().unwrap(),
        stands_on: None,
        trouble: trouble.map(str::to_owned),
        owner: None,
        is_taken_over: false,
        no_snapshot: None,
        written_bytes: None,
        made_unix: None,
    };
    let disks = vec![report("lab-07", Some("the disk is gone")), report("lab-08", None)];
    let asked = Some(service.now().moment);
    service.exports().put(Answer { asked, disks: Arc::new(disks), ..Answer::default() });
    let text = cause(&service, FindingKind::DiskMissing).await;
    assert_eq!(text.as_deref(), Some("The disk is gone."));
    let text = cause(&service, FindingKind::DiskLeft).await.unwrap();
    assert!(text.contains("the database was lost"), "{text}");
}

#[tokio::test]
async fn a_kept_disk_of_which_a_storage_server_knows_nothing_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let service = site(folder.path(), WriteMode::Persistent).await;
    let kept = service.database().write(|tables| Ok(tables.note_kept_disk(&name())?));
    kept.await.unwrap();
    let told = |disks_asked| {
        let asked = Some(service.now().moment);
        service.exports().put(Answer { asked, disks_asked, ..Answer::default() });
    };
    told(None);
    assert_eq!(cause(&service, FindingKind::DiskMissing).await, None, "it was not asked");
    told(Some(service.now().moment));
    let text = cause(&service, FindingKind::DiskMissing).await.unwrap();
    assert!(text.contains("knows nothing of the disk"), "{text}");
    let change = MachineChange { reset_disk: Some(true), ..MachineChange::default() };
    service.set_machine(name(), change).await.unwrap();
    told(Some(service.now().moment));
    assert_eq!(cause(&service, FindingKind::DiskMissing).await, None, "it gets a new one");
}

#[tokio::test]
async fn a_machine_of_which_the_storage_server_has_lost_writes_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let service = site(folder.path(), WriteMode::Persistent).await;
    let mut export = serde_json::json!({
        "spec": {
            "machine": "lab-07", "image": "debian", "version": 1, "write_mode": "persistent", "boot": 1, "root": "nbd",
            "address": "10.0.0.7", "mac": "02:00:00:00:00:01", "shelf_slot": "1.0",
        },
        "size_bytes": 4096, "connections": 1, "idle_seconds": 1, "layer_bytes": 0,
        "counters": model::ExportCounters::default(),
    });
    let told = |export: &serde_json::Value| {
        let list = vec![serde_json::from_value(export.clone()).unwrap()];
        service.exports().put(Answer {
            asked: Some(service.now().moment),
            list,
            ..Answer::default()
        });
    };
    told(&export);
    let text = cause(&service, FindingKind::WritesLost).await;
    assert_eq!(text, None, "an older storage server does not say it");
    export["has_lost_writes"] = true.into();
    told(&export);
    let text = cause(&service, FindingKind::WritesLost).await.unwrap();
    assert!(text.contains("read-only until it boots again"), "{text}");

    export["spec"]["machine"] = "lab-08".into();
    told(&export);
    assert!(cause(&service, FindingKind::DiskLeft).await.is_some());
    service.exports().forget_disk(&"lab-08".parse().unwrap());
    assert_eq!(cause(&service, FindingKind::DiskLeft).await, None, "it was just deleted");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "how long it takes is what is tested")]
async fn while_another_program_has_the_lock_what_needs_no_write_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let asked = start_storage(folder.path());
    let service = site(folder.path(), WriteMode::Discard).await;
    boot(&service, &asked).await;
    let other = Connection::open(&service.options().database).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let stranger = Mac([2, 0, 0, 0, 0, 9]);
    let error = service.boot_started(stranger, Firmware::Bios).await.unwrap_err().to_string();
    assert!(error.contains("has locked the database"), "{error}");
    let began = std::time::Instant::now();
    assert_eq!(screen(&service).await, "", "GRUB asks once more for what it has got");
    assert_eq!((service.machines().len(), service.leases().len()), (1, 1));
    assert!(service.boots_of(MAC, 9).await.unwrap().len() == 1, "history is shown");
    assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
    let text = cause(&service, FindingKind::StateLocked).await.unwrap();
    assert!(text.contains("nothing can be stored"), "{text}");
    assert_eq!(cause(&service, FindingKind::StateNotStored).await, None, "it is said once");
    other.execute_batch("ROLLBACK").unwrap();
    service.boot_started(stranger, Firmware::Bios).await.unwrap();
    assert_eq!(cause(&service, FindingKind::StateLocked).await, None);
}

#[tokio::test]
async fn machines_that_are_added_again_have_the_addresses_that_their_disks_have() {
    let folder = tempfile::tempdir().unwrap();
    let asked = start_storage(folder.path());
    let service = site(folder.path(), WriteMode::Persistent).await;
    let before = boot(&service, &asked).await.spec;
    drop(service);
    lose_database(folder.path());
    let service = Service::open(options(folder.path())).unwrap();
    let other = adopt(&service, Mac([2, 0, 0, 0, 0, 9]), "lab-00".parse().unwrap(), None).await;
    assert_eq!(other.unwrap().shelf_slot.to_string(), "1.1", "another machine's disk has 1.0");
    let again = adopt(&service, MAC, before.disk.machine, None).await.unwrap();
    assert_eq!((again.shelf_slot, again.shelf_slot.to_string()), (before.shelf_slot, "1.0".into()));
}

/// The storage server does not answer for as long as this lives.
pub(super) struct Away(std::path::PathBuf);

impl Away {
    pub(super) fn new(root: &Path) -> Self {
        let socket = options(root).storage_socket;
        std::fs::rename(&socket, socket.with_extension("away")).unwrap();
        Self(socket)
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        std::fs::rename(self.0.with_extension("away"), &self.0).unwrap();
    }
}

#[tokio::test]
async fn nobody_gets_the_disk_of_a_machine_that_was_removed_while_the_storage_server_was_away() {
    let folder = tempfile::tempdir().unwrap();
    let asked = start_storage(folder.path());
    let service = site(folder.path(), WriteMode::Persistent).await;
    boot(&service, &asked).await;
    service.refresh_exports().await;
    service.note_exports().await;
    let away = Away::new(folder.path());
    service.remove_machine(name()).await.unwrap();
    service.refresh_exports().await;
    let text = cause(&service, FindingKind::DiskNotDeleted).await.unwrap();
    assert!(text.contains("was removed") && text.contains("does not answer"), "{text}");

    // It is remembered over a restart; a new machine of that name waits, and has no disk.
    drop(service);
    let service = site(folder.path(), WriteMode::Persistent).await;
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    let text = screen(&service).await;
    assert!(text.contains("the disk of a former machine lab-07 must be deleted first"), "{text}");
    assert!(text.contains("does not answer"), "{text}");
    assert_eq!(asked.lock().unwrap().len(), 1, "its disk is still there");
    drop(away);
    // What the storage server has is the former machine's.
    service.refresh_exports().await;
    service.note_exports().await;
    let order = boot(&service, &asked).await;
    assert_eq!(asked.lock().unwrap().len(), 1, "the former one was deleted before");
    assert!(!order.has_disk);
    assert_eq!(cause(&service, FindingKind::DiskNotDeleted).await, None);
    assert_eq!(order_of(&service, &asked).await.spec.boot, order.spec.boot);
    assert_eq!(asked.lock().unwrap().len(), 2, "the new disk was deleted, too");
}

#[tokio::test]
async fn a_disk_that_was_to_be_deleted_goes_when_the_storage_server_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let asked = start_storage(folder.path());
    let service = site(folder.path(), WriteMode::Persistent).await;
    boot(&service, &asked).await;
    let away = Away::new(folder.path());
    service.remove_machine(name()).await.unwrap();
    drop(service);
    let service = Service::open(options(folder.path())).unwrap();
    assert!(service.has_left_disk(&name()));
    drop(away);
    let running = service.clone();
    let running = tokio::spawn(async move { running.run().await });
    for _ in 0..100 {
        if !service.has_left_disk(&name()) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    running.abort();
    assert!(asked.lock().unwrap().is_empty() && !service.has_left_disk(&name()));
}

#[tokio::test]
async fn a_version_whose_description_is_damaged_does_not_vanish() {
    let folder = tempfile::tempdir().unwrap();
    let service = site(folder.path(), WriteMode::Discard).await;
    drop(service);
    add_image(folder.path(), "debian", 2);
    add_files(folder.path(), "debian", 1);
    add_files(folder.path(), "debian", 2);
    let about = options(folder.path()).images.join("debian/2/image.toml");
    drop(Service::open(options(folder.path())).unwrap());
    std::fs::write(about, "").unwrap();
    // The first start takes it out of the index, and the second one knows nothing of it. No boot server runs.
    for _ in 0..2 {
        let service = Service::open(options(folder.path())).unwrap();
        let damaged = service.damaged_images().await;
        let [DamagedVersion { version: 2, why, .. }] = &damaged[..] else { panic!("{damaged:?}") };
        assert!(why.ends_with("debian/2/image.toml is damaged: it is empty"), "{why}");
        let text = cause(&service, FindingKind::ImageDamaged).await.unwrap();
        assert!(text.contains("it is empty") && text.contains("with version 1 instead"), "{text}");
    }
}

#[tokio::test]
async fn a_version_whose_content_has_changed_is_told_and_booted() {
    let folder = tempfile::tempdir().unwrap();
    let service = site(folder.path(), WriteMode::Discard).await;
    add_files(folder.path(), "debian", 1);
    service.look_at_images().await;
    assert_eq!(cause(&service, FindingKind::ImageChanged).await, None);
    let store = images::Store::look(&options(folder.path()).images).unwrap();
    let debian = "debian".parse().unwrap();
    // Its digest is none.
    store.verify(&debian, 1, 0, &images::Stop::default(), &mut |_| ()).unwrap();
    service.look_at_images().await;
    let text = cause(&service, FindingKind::ImageChanged).await.unwrap();
    assert!(text.contains("debian/1/disk.raw has changed"), "{text}");
    assert_eq!(cause(&service, FindingKind::ImageDamaged).await, None);
    assert_eq!(service.machine(&name()).unwrap().start_trouble, None);
    assert!(service.version_trouble(&debian, 1).unwrap().starts);
}
