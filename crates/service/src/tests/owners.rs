//! Whose the disk of a name is: the storage server is told, and what it says is compared.

use super::lost::{boot, cause, lose_database, name, order_of, site};
use super::{MAC, adopt, disks::start_storage, options};
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
            machine: name(),
            stands_on: None,
            trouble: None,
            owner,
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
