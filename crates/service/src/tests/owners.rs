//! Which disk of a name is meant: whose it is, and which one an order means.

use super::lost::{Away, boot, cause, lose_database, name, order_of, site};
use super::{MAC, adopt, disks::start_storage, options, screen};
use crate::live::Answer;
use crate::{MachineChange, Service};
use model::{DiskOwner, DiskReport, FindingKind, MachineIdentity, WriteMode};
use std::sync::Arc;
use wire::Mac;

const OTHER: Mac = Mac([2, 0, 0, 0, 0, 9]);

#[tokio::test]
async fn the_storage_server_is_told_which_machine_of_the_name_boots() {
    let folder = tempfile::tempdir().unwrap();
    let asked = start_storage(folder.path());
    let service = site(folder.path(), WriteMode::Persistent).await;
    let first = boot(&service, &asked).await.owner.unwrap();
    assert_eq!(first.macs, [MAC]);
    // Its identity outlasts whatever of it changes, and a restart.
    let change = MachineChange { add_macs: vec![OTHER], ..MachineChange::default() };
    service.set_machine(name(), change).await.unwrap();
    drop(service);
    let service = Service::open(options(folder.path())).unwrap();
    super::pretend_initrds(&service);
    let owner = order_of(&service, &asked).await.owner.unwrap();
    assert_eq!(owner, DiskOwner { macs: vec![MAC, OTHER], ..first.clone() });

    // Another machine of its name has another one.
    service.remove_machine(name()).await.unwrap();
    adopt(&service, MAC, name(), Some("debian".parse().unwrap())).await.unwrap();
    let change =
        MachineChange { write_mode: Some(WriteMode::Persistent), ..MachineChange::default() };
    service.set_machine(name(), change).await.unwrap();
    let again = boot(&service, &asked).await.owner.unwrap();
    assert!(again.identity != first.identity && again.macs == [MAC], "{again:?}");
    drop(service);
    lose_database(folder.path());
    let service = site(folder.path(), WriteMode::Persistent).await;
    let last = boot(&service, &asked).await.owner.unwrap();
    assert_ne!(last.identity, again.identity);
}

#[tokio::test]
async fn a_disk_of_another_machine_of_the_name_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let service = site(folder.path(), WriteMode::Persistent).await;
    let told = |owner: Option<DiskOwner>| {
        let report = DiskReport {
            disk: name().into(),
            stands_on: None,
            trouble: None,
            owner,
            is_taken_over: false,
            no_snapshot: None,
            written_bytes: None,
            made_unix: None,
        };
        let asked = Some(service.now().moment);
        service.exports().put(Answer { asked, disks: Arc::new(vec![report]), ..Answer::default() });
    };
    let own = service.view().as_owner(&service.site().machines[0]).unwrap();
    let another = DiskOwner { identity: MachineIdentity::new([7; 16]), macs: vec![OTHER] };
    for its in [
        None,
        Some(own.clone()),
        Some(DiskOwner { macs: vec![OTHER], ..own }),
        Some(DiskOwner { macs: vec![OTHER, MAC], ..another.clone() }),
    ] {
        told(its.clone());
        assert_eq!(cause(&service, FindingKind::DiskOfAnother).await, None, "{its:?}");
    }
    told(Some(another));
    let text = cause(&service, FindingKind::DiskOfAnother).await.unwrap();
    for word in ["02:00:00:00:00:09, identity 07070707", &MAC.to_string(), "older database"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    // It gets a new one, as was asked for.
    let change = MachineChange { reset_disk: Some(true), ..MachineChange::default() };
    service.set_machine(name(), change).await.unwrap();
    assert_eq!(cause(&service, FindingKind::DiskOfAnother).await, None);
}

/// What the database is now, made ready as from a backup.
fn back_up(root: &std::path::Path, service: &Service) -> std::path::PathBuf {
    let copy = root.join("copy.db");
    let _ = std::fs::remove_file(&copy);
    crate::copy_database(&service.options().database, &copy).unwrap();
    copy
}

fn restore(root: &std::path::Path, copy: &std::path::Path) -> (Service, crate::Restored) {
    let restored = crate::prepare_restored(copy, &crate::Actor::command(0), 0).unwrap();
    lose_database(root);
    std::fs::copy(copy, options(root).database).unwrap();
    let service = Service::open(options(root)).unwrap();
    super::pretend_initrds(&service);
    (service, restored)
}

async fn resets(service: &Service) -> bool {
    service.refresh_exports().await;
    service.note_exports().await;
    service.site().machine(&name()).unwrap().reset_disk
}

async fn order_reset(service: &Service) {
    let change = MachineChange { reset_disk: Some(true), ..MachineChange::default() };
    service.set_machine(name(), change).await.unwrap();
}

#[tokio::test]
async fn a_reset_that_comes_back_with_a_database_hits_no_other_disk() {
    let folder = tempfile::tempdir().unwrap();
    let asked = start_storage(folder.path());
    let service = site(folder.path(), WriteMode::Persistent).await;
    boot(&service, &asked).await;
    assert!(!resets(&service).await);
    order_reset(&service).await;
    let copy = back_up(folder.path(), &service);
    // It has not been done yet, and is.
    let (service, restored) = restore(folder.path(), &copy);
    assert_eq!((restored.kept, resets(&service).await), (vec![], true));
    let order = boot(&service, &asked).await;
    assert!(order.reset && asked.lock().unwrap().len() == 1);
    assert!(!resets(&service).await);
    // It has been done.
    let (service, _) = restore(folder.path(), &copy);
    assert!(resets(&service).await);
    let order = boot(&service, &asked).await;
    assert!(!order.reset && asked.lock().unwrap().len() == 2, "{order:?}");
    assert!(!resets(&service).await);
    // One that does not know which disk it means is dropped.
    asked.lock().unwrap().clear();
    order_reset(&service).await;
    let copy = back_up(folder.path(), &service);
    let (service, restored) = restore(folder.path(), &copy);
    assert_eq!((restored.kept, resets(&service).await), (vec![name()], false));
}

#[tokio::test]
async fn a_deletion_that_comes_back_with_a_database_hits_no_other_disk() {
    let folder = tempfile::tempdir().unwrap();
    let asked = start_storage(folder.path());
    let service = site(folder.path(), WriteMode::Persistent).await;
    boot(&service, &asked).await;
    service.refresh_exports().await;
    service.exports().put(Answer {
        disks: Arc::new(vec![DiskReport {
            disk: name().into(),
            stands_on: Some(model::KeptDisk {
                image: "debian".parse().unwrap(),
                version: 1,
                id: Some("of boot 1".to_owned()),
            }),
            trouble: None,
            owner: None,
            is_taken_over: false,
            no_snapshot: None,
            written_bytes: None,
            made_unix: None,
        }]),
        ..Answer::default()
    });
    let away = Away::new(folder.path());
    service.remove_machine(name()).await.unwrap();
    drop(away);
    let copy = back_up(folder.path(), &service);
    let deletes = async |service: &Service| {
        assert!(service.has_left_disk(&name()));
        service.delete_left_disk(&name()).await.unwrap();
        assert!(!service.has_left_disk(&name()));
        asked.lock().unwrap().is_empty()
    };
    let before = asked.lock().unwrap().clone();
    let (service, restored) = restore(folder.path(), &copy);
    assert_eq!(restored.not_deleted, []);
    assert!(deletes(&service).await, "it is the disk that was meant");
    // There is none; and then another machine's.
    asked.lock().unwrap().extend(before);
    asked.lock().unwrap()[0].spec.boot = 9;
    let (service, _) = restore(folder.path(), &copy);
    assert!(!deletes(&service).await, "it is another one");
}

#[tokio::test]
async fn orders_that_come_back_by_hand_hit_no_disk_of_another_machine() {
    let folder = tempfile::tempdir().unwrap();
    let asked = start_storage(folder.path());
    // Nobody knew a disk when they were given: the storage server was away, and there was none.
    let away = Away::new(folder.path());
    let service = site(folder.path(), WriteMode::Persistent).await;
    order_reset(&service).await;
    let reset = copy_by_hand(folder.path(), &service, "reset.db");
    let former = service.view().as_owner(&service.site().machines[0]).unwrap();
    service.remove_machine(name()).await.unwrap();
    let removed = copy_by_hand(folder.path(), &service, "removed.db");
    let meant = service.view().disk_deletions[&name()].clone();
    assert_eq!((meant.id, meant.owner, meant.must_be_known), (None, Some(former), false));
    drop(away);
    service.delete_left_disk(&name()).await.unwrap();
    // The next machine of that name is the same PC, and has a disk now.
    drop(service);
    let service = site(folder.path(), WriteMode::Persistent).await;
    let order = boot(&service, &asked).await;
    drop(service);
    let put_back = |copy: &std::path::Path| {
        lose_database(folder.path());
        std::fs::copy(copy, options(folder.path()).database).unwrap();
        let service = Service::open(options(folder.path())).unwrap();
        super::pretend_initrds(&service);
        service
    };
    let service = put_back(&removed);
    assert!(service.has_left_disk(&name()));
    service.delete_left_disk(&name()).await.unwrap();
    assert!(!service.has_left_disk(&name()));
    assert_eq!(*asked.lock().unwrap(), std::slice::from_ref(&order), "it is left alone");
    drop(service);
    let service = put_back(&reset);
    assert!(resets(&service).await);
    service.boot_started(MAC, model::Firmware::Bios).await.unwrap();
    screen(&service).await;
    assert!(!resets(&service).await, "what it meant is gone");
    let asked = asked.lock().unwrap();
    assert!(asked[0] == order && asked.iter().all(|order| !order.reset), "{asked:?}");
}

/// What somebody has who copies the database while nobody has it open.
fn copy_by_hand(root: &std::path::Path, service: &Service, to: &str) -> std::path::PathBuf {
    let copy = root.join(to);
    crate::copy_database(&service.options().database, &copy).unwrap();
    copy
}

#[tokio::test]
async fn a_disk_that_another_nic_does_not_get_is_found_and_so_is_one_that_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let service = site(folder.path(), WriteMode::Persistent).await;
    let change = MachineChange { add_macs: vec![OTHER], ..MachineChange::default() };
    service.set_machine(name(), change).await.unwrap();
    let told = |macs: &[Mac], is_taken_over| {
        let report = DiskReport {
            disk: name().into(),
            stands_on: None,
            trouble: None,
            owner: Some(DiskOwner { identity: MachineIdentity::new([7; 16]), macs: macs.to_vec() }),
            is_taken_over,
            no_snapshot: None,
            written_bytes: None,
            made_unix: None,
        };
        let asked = Some(service.now().moment);
        service.exports().put(Answer { asked, disks: Arc::new(vec![report]), ..Answer::default() });
    };
    told(&[MAC, OTHER], false);
    assert_eq!(cause(&service, FindingKind::DiskOfAnother).await, None);
    told(&[MAC], false);
    let text = cause(&service, FindingKind::DiskOfAnother).await.unwrap();
    assert!(text.contains("no disk when it boots from 02:00:00:00:00:09: "), "{text}");
    told(&[Mac([2, 0, 0, 0, 0, 8])], true);
    assert_eq!(cause(&service, FindingKind::DiskOfAnother).await, None);
    let text = cause(&service, FindingKind::DiskTakenOver).await.unwrap();
    assert!(text.contains("will take over") && text.contains("at its next boot"), "{text}");
}

#[tokio::test]
async fn a_disk_that_is_missing_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let service = site(folder.path(), WriteMode::Persistent).await;
    super::add_files(folder.path(), "debian", 1);
    service.boot_started(MAC, model::Firmware::Bios).await.unwrap();
    let why = "lab-07 can't start yet: the storage server refuses: the persistent disk of lab-07 is not there";
    service.waits_in_loader(MAC, why);
    let told = |trouble: Option<&str>| {
        let report = DiskReport {
            disk: name().into(),
            stands_on: None,
            trouble: trouble.map(str::to_owned),
            owner: None,
            is_taken_over: false,
            no_snapshot: None,
            written_bytes: None,
            made_unix: None,
        };
        let asked = Some(service.now().moment);
        service.exports().put(Answer { asked, disks: Arc::new(vec![report]), ..Answer::default() });
    };
    told(None);
    let text = cause(&service, FindingKind::MachineWaiting).await.unwrap();
    assert!(text.contains("the persistent disk of lab-07"), "{text}");
    told(Some("the persistent disk of lab-07 is not there"));
    assert_eq!(cause(&service, FindingKind::MachineWaiting).await, None);
    assert!(cause(&service, FindingKind::DiskMissing).await.is_some());
}

#[tokio::test]
async fn a_machine_that_is_removed_takes_no_other_one_s_disk_along() {
    let folder = tempfile::tempdir().unwrap();
    let asked = start_storage(folder.path());
    let service = site(folder.path(), WriteMode::Persistent).await;
    boot(&service, &asked).await;
    let another = DiskOwner { identity: MachineIdentity::new([7; 16]), macs: vec![OTHER] };
    let report = DiskReport {
        disk: name().into(),
        stands_on: None,
        trouble: None,
        is_taken_over: false,
        no_snapshot: None,
        owner: Some(another),
        written_bytes: Some(1),
        made_unix: None,
    };
    let told = Some(service.now().moment);
    // The one that answers here knows no disks at all.
    std::fs::remove_file(&service.options().storage_socket).unwrap();
    service.exports().put(Answer {
        asked: told,
        disks: Arc::new(vec![report]),
        ..Answer::default()
    });
    let disk = service.written_disk(&name()).await.unwrap().unwrap();
    assert!(disk.of_another.unwrap().contains(&OTHER.to_string()));
    service.remove_machine(name()).await.unwrap();
    assert!(service.view().disk_deletions.is_empty(), "it is not deleted later either");
}
