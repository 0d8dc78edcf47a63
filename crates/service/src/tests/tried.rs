//! PCs that are tried on the server itself, and what only administrators see of it.

use super::candidates::Lab;
use super::disks::Holder;
use super::*;
use crate::Actor;
use crate::jobs::{JobKind, JobState, Jobs, NewJob};
use images::Stop;
use model::{FindingKind, Subject, TRY_MACHINE, tried_mac};

fn name() -> MachineName {
    TRY_MACHINE.parse().unwrap()
}

fn tried() -> MachineChange {
    adoption(tried_mac(0), None)
}

async fn audit(service: &Service) -> Vec<String> {
    let root = service.admin(&Actor::command(0)).unwrap();
    let page = root.audit(None, Some(TRY_MACHINE.to_owned()), 10).await.unwrap();
    let line = |entry: &crate::AuditEntry| format!("{} {} {}", entry.who, entry.via, entry.action);
    page.entries.iter().rev().map(line).collect()
}

#[tokio::test]
async fn a_trial_is_noted_and_its_pc_raises_no_alarm() {
    let lab = Lab::new(RootKind::Nbd).await;
    let somebody = lab.service.admin(&Actor::command(1000)).unwrap();
    let next = MachineChange {
        menu: Some("image,local-disk,3s".parse().unwrap()),
        next_boot: Some(Some(model::BootChoice::LocalDisk)),
        ..tried()
    };
    somebody.begin_trial(name(), next).await.unwrap();
    // Of what an earlier one left nothing stays.
    let machine = somebody.begin_trial(name(), tried()).await.unwrap();
    assert_eq!((machine.menu, machine.next_boot), (model::Menu::default(), None));

    let failed = |mac: Mac| {
        let service = lab.service.clone();
        async move {
            service.boot_started(mac, Firmware::Bios).await.unwrap();
            service.stage(mac, None, NewStage::noticed(Stage::Failed, "no root")).await.unwrap();
        }
    };
    failed(tried_mac(0)).await;
    let kind = FindingKind::LoaderNotAsked;
    lab.service.found(kind, &Subject::Pc(tried_mac(3)), "x");
    lab.service.found(kind, &Subject::Machine(name()), "x");
    let about = |findings: Vec<model::Finding>| -> Vec<String> {
        let is_of_pc =
            |it: &&model::Finding| matches!(it.subject, Subject::Machine(_) | Subject::Pc(_));
        findings.iter().filter(is_of_pc).map(|finding| finding.subject.to_string()).collect()
    };
    assert_eq!(about(lab.service.findings().await), [""; 0]);
    // What the same means of a machine of the site.
    failed(MAC).await;
    lab.service.found(kind, &Subject::Machine(lab.name.clone()), "x");
    let known = about(lab.service.findings().await);
    assert_eq!(known.iter().filter(|it| **it == "lab-07").count(), 2, "{known:?}");

    lab.service.forget_tried(|_| false).await.unwrap();
    assert!(lab.service.site().machine(&name()).is_none());
    let by = "root command of user 1000";
    let expected =
        [format!("{by} trial.begin"), format!("{by} trial.begin"), format!("{by} trial.end")];
    assert_eq!(audit(&lab.service).await, expected, "in the name of who began it");
}

#[tokio::test]
async fn somebodys_own_machine_of_that_name_is_left_alone_and_tells_its_troubles() {
    let lab = Lab::new(RootKind::Nbd).await;
    let root = lab.service.admin(&Actor::command(0)).unwrap();
    let own = Mac([0x52, 0x54, 0, 0, 0, 7]);
    root.add_machine(name(), adoption(own, None)).await.unwrap();
    let why = root.begin_trial(name(), tried()).await.unwrap_err();
    assert!(matches!(why, Error::NotForTrials { mac, .. } if mac == own), "{why}");
    lab.service.found(FindingKind::LoaderNotAsked, &Subject::Machine(name()), "x");
    let findings = lab.service.findings().await;
    assert!(findings.iter().any(|finding| finding.subject == Subject::Machine(name())));
    lab.service.forget_tried(|_| false).await.unwrap();
    assert_eq!(lab.service.site().machine(&name()).unwrap().mac, own);
}

#[tokio::test]
async fn what_the_doctor_saw_is_shown_to_administrators_only() {
    let lab = Lab::new(RootKind::Nbd).await;
    let jobs = Jobs::in_folder(lab.service.options().jobs.clone());
    let mut numbers = Vec::new();
    for (kind, what) in [(JobKind::ImageVerify, "debian-12/v1"), (JobKind::Doctor, "")] {
        let new = NewJob { kind, what: what.to_owned(), by: "root".to_owned() };
        let mut worker = jobs.begin(new, lab.hands.clock(), &Stop::default()).unwrap();
        worker.log("line");
        worker.end(JobState::Done, "well");
        numbers.push(jobs.list()[0].number);
    }
    let [verify, doctor] = numbers[..] else { panic!("{numbers:?}") };
    for (actor, is_shown) in [(Actor::command(0), true), (Actor::watcher(), false)] {
        let viewer = lab.service.viewer(&actor).unwrap();
        let listed: Vec<u64> = viewer.jobs().await.unwrap().iter().map(|job| job.number).collect();
        assert_eq!(listed.contains(&doctor), is_shown, "{listed:?}");
        assert!(listed.contains(&verify) && viewer.job(verify).await.is_ok());
        assert_eq!(viewer.last_ended_job(JobKind::Doctor).await.unwrap().is_some(), is_shown);
        match viewer.job(doctor).await {
            Ok((_, log)) => assert!(is_shown && log.contains("line")),
            Err(error) => assert!(!is_shown && matches!(error, Error::NotAllowed { .. })),
        }
    }
}

#[tokio::test]
async fn a_machine_still_runs_while_its_proven_boot_answers() {
    let lab = Lab::new(RootKind::Nbd).await;
    assert!(!lab.service.still_runs(MAC).await, "it never did");
    let machine = lab.boot().await;
    machine.comes_up().await;
    machine.live(60, true);
    let lives = async { assert!(machine.live(1, true) > 0) };
    assert!(tokio::join!(lab.service.still_runs(MAC), lives).0);
    machine.live(60, true);
    *lab.holder.lock().unwrap() = Holder::default();
    let is_silent = async { assert!(machine.live(5, false) > 0) };
    assert!(!tokio::join!(lab.service.still_runs(MAC), is_silent).0);
}
