//! PCs that are captured: who may send, once, and what becomes of what nobody takes.

use super::secrets::{configured, segment};
use super::*;
use crate::jobs::{Job, JobKind, JobState};
use crate::{CaptureError, NewCapture};
use bytes::Bytes;
use initcfg::{CaptureAbout, CaptureProof, CaptureSealer, Token};
use model::{BootChoice, RootKind, WriteMode};

impl Service {
    pub(super) fn by_root(&self) -> crate::Admin {
        self.admin(&crate::Actor::command(0)).unwrap()
    }

    async fn jobs_now(&self) -> Vec<Job> {
        let jobs = self.job_folder();
        tokio::task::spawn_blocking(move || jobs.list()).await.unwrap()
    }
}

fn wanted() -> NewCapture {
    NewCapture {
        image: "office".parse().unwrap(),
        machine: "lab-07".parse().unwrap(),
        with: None,
        order: "restart,without=/home".parse().unwrap(),
        note: None,
        state: model::VersionState::Draft,
        fixes: false,
    }
}

/// A stream of this boot up to here, of what is no archive.
fn stream(boot: u64, token: &Token, is_whole: bool) -> Vec<u8> {
    let mut sealer = CaptureSealer::new(token, boot, [9; 16]);
    let about = CaptureAbout { used_bytes: 5000, what: "Debian on sda1".into(), remarks: vec![] };
    let mut bytes = sealer.start();
    bytes.extend(sealer.seal(&about.to_piece(), false).unwrap());
    bytes.extend(sealer.seal(&[b'x'; 2000], is_whole).unwrap());
    bytes
}

#[tokio::test]
async fn a_machine_that_is_captured_boots_that_and_its_settings_stay() {
    let folder = tempfile::tempdir().unwrap();
    add_image(folder.path(), "debian-12", 1);
    let service = Service::open(options(folder.path())).unwrap();
    configured(folder.path(), &service).await;
    let menu = MachineChange {
        root: Some(RootKind::Aoe),
        write_mode: Some(WriteMode::Ram),
        next_boot: Some(Some(BootChoice::LocalDisk)),
        ..MachineChange::default()
    };
    let name: MachineName = "lab-07".parse().unwrap();
    service.set_machine(name.clone(), menu).await.unwrap();
    let former = service.site().machine(&name).unwrap().clone();
    let begun = service.by_root().begin_capture(wanted()).await.unwrap();
    assert_eq!((begun.capture.with.as_str(), begun.capture.with_version), ("debian-12", 1));
    let machine = service.site().machine(&name).unwrap().clone();
    let boots = machine.as_it_boots();
    let how = (boots.root, boots.write_mode, boots.next_boot.clone());
    assert_eq!(how, (RootKind::Nbd, WriteMode::Discard, None));
    let again = service.by_root().begin_capture(wanted()).await.unwrap_err();
    assert!(matches!(again, Error::Capture(CaptureError::Begun { .. })), "{again}");
    service.by_root().cancel_capture(&name).await.unwrap();
    assert_eq!(*service.site().machine(&name).unwrap(), former);
    let none = service.by_root().cancel_capture(&name).await.unwrap_err();
    assert!(matches!(none, Error::Capture(CaptureError::None(_))), "{none}");
}

#[tokio::test]
async fn one_boot_that_proves_itself_sends_once_and_only_if_somebody_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    add_image(folder.path(), "debian-12", 1);
    let service = Service::open(options(folder.path())).unwrap();
    let boot = configured(folder.path(), &service).await;
    let token = segment(&service, boot).await.unwrap().token;
    let ask = |boot, token: &Token| service.capture(ADDRESS, CaptureProof::new(boot, token));
    assert!(ask(boot, &token).await.unwrap().is_none(), "nobody wants it");
    service.by_root().begin_capture(wanted()).await.unwrap();
    let foreign = Token::new([8; 32]);
    assert!(ask(boot, &foreign).await.unwrap().is_none(), "another secret");
    assert!(ask(boot + 1, &token).await.unwrap().is_none(), "another boot");
    let elsewhere = Ipv4Addr::new(10, 77, 0, 250);
    let proof = CaptureProof::new(boot, &token);
    assert!(service.capture(elsewhere, proof).await.unwrap().is_none(), "another PC");

    let capturing = ask(boot, &token).await.unwrap().expect("this is it");
    assert!(ask(boot, &token).await.unwrap().is_none(), "a second time");
    let sends = service.by_root().cancel_capture(&"lab-07".parse().unwrap()).await.unwrap_err();
    assert!(matches!(sends, Error::Capture(CaptureError::Sends(_))), "{sends}");
    assert!(capturing.write(Bytes::from(stream(boot, &token, true))).await);
    let refused = capturing.finish().await;
    // All has come; that it is no archive is the job's affair.
    assert!(refused.is_ok() || refused.as_ref().is_err_and(|it| it.contains("no tar archive")));
    let captured =
        |service: &Service| service.site().machines.iter().any(|it| it.capture.is_some());
    assert!(!captured(&service), "its next boot is as usual");
    let job = ended(&service).await;
    assert_eq!((job.kind, job.state), (Some(JobKind::ImageCapture), JobState::Failed));
    assert!(job.told.as_ref().unwrap().contains("no tar archive"), "{job:?}");
    assert!(service.site().images.iter().all(|it| it.image.as_str() != "office"));
}

#[tokio::test]
async fn what_breaks_off_is_no_image_and_the_machine_boots_as_usual() {
    let folder = tempfile::tempdir().unwrap();
    add_image(folder.path(), "debian-12", 1);
    let service = Service::open(options(folder.path())).unwrap();
    let boot = configured(folder.path(), &service).await;
    let token = segment(&service, boot).await.unwrap().token;
    service.by_root().begin_capture(wanted()).await.unwrap();
    let proof = CaptureProof::new(boot, &token);
    let capturing = service.capture(ADDRESS, proof).await.unwrap().unwrap();
    capturing.write(Bytes::from(stream(boot, &token, false))).await;
    let why = capturing.finish().await.unwrap_err();
    assert!(!why.is_empty());
    let job = ended(&service).await;
    assert_eq!(job.state, JobState::Failed);
    assert!(job.told.as_ref().unwrap().contains("broken off"), "{job:?}");
    assert!(service.site().machines.iter().all(|machine| machine.capture.is_none()));

    // One that fails before it sends anything.
    service.by_root().begin_capture(wanted()).await.unwrap();
    let failed = NewStage::noticed(Stage::Failed, "there are several systems: a; b");
    service.stage(MAC, Some(boot), failed).await.unwrap();
    assert!(service.site().machines.iter().all(|machine| machine.capture.is_none()));
    let jobs = service.jobs_now().await;
    assert_eq!(jobs.len(), 2);
    assert_eq!(jobs[0].told.as_deref(), Some("there are several systems: a; b"));
}

/// The job, when it has ended.
async fn ended(service: &Service) -> Job {
    loop {
        let job = service.jobs_now().await.into_iter().find(|job| job.state.has_ended());
        match job {
            Some(job) => return job,
            None => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}
