//! Boots that others begin in a machine's name while it is between its firmware and its first proven word.

use super::candidates::{Lab, Machine};
use super::*;
use initcfg::{HostConfig, RescuePassword};
use model::{BootId, FindingKind};

const THIEF: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x66]);

impl Lab {
    /// What DHCP and TFTP messages in a machine's name begin: a boot that has its configuration.
    async fn forge_boot(&self) -> BootId {
        let boot = self.service.boot_started(MAC, Firmware::Bios).await.unwrap();
        self.service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await;
        boot
    }

    /// A machine that has its loader's configuration, and has no secret yet.
    async fn in_loader(&self) -> BootId {
        let boot = self.service.boot_started(MAC, Firmware::Bios).await.unwrap();
        reached(&self.service, Stage::Loader).await;
        assert_eq!(screen(&self.service).await, "");
        boot
    }

    /// The host segment of this boot, as its own NIC gets it.
    async fn fetch(&self, boot: BootId) -> Option<(Machine<'_>, HostConfig)> {
        let file = self.service.new_host_file(ADDRESS, OWN, boot).await.unwrap()?;
        let host = HostConfig::parse(file.as_bytes()).unwrap();
        let machine = Machine { lab: self, mac: MAC, address: ADDRESS, boot, token: host.token };
        Some((machine, host))
    }
}

#[tokio::test]
async fn a_boot_that_begins_while_the_machine_is_in_its_loader_takes_nothing_of_it() {
    for root in [RootKind::Nbd, RootKind::Aoe] {
        let lab = Lab::new(root).await;
        let boot = lab.in_loader().await;
        let forged = lab.forge_boot().await;
        assert_ne!(boot, forged);
        let (machine, _) = lab.fetch(boot).await.unwrap();
        assert_eq!(
            lab.service.new_host_file(ADDRESS, Link::Neighbour(THIEF), forged).await.unwrap(),
            None
        );
        // Nor does one that begins when it has its secret.
        let another = lab.forge_boot().await;
        if root == RootKind::Nbd {
            machine.gets_its_disk();
        }
        assert!(machine.says("report").await, "{root}");
        assert_eq!(lab.holder.lock().unwrap().boot, Some(boot));
        lab.service.stage(MAC, Some(boot), NewStage::noticed(Stage::Start, "")).await.unwrap();
        assert_eq!((lab.shown_boot(), lab.candidate()), (boot, Some(another)));
        assert!(lab.service.machines_in_use().contains_key(&MAC));
        let findings = lab.service.findings().await;
        let kinds = || findings.iter().map(|finding| finding.kind);
        assert!(kinds().any(|kind| kind == FindingKind::CandidateBoot), "{findings:?}");

        // Boots before it are void for ever, also over AoE, where nothing else would keep two from one disk.
        let earlier = boot - 1;
        assert!(!lab.service.is_admitted(MAC, earlier).await);
        assert!(lab.fetch(boot).await.is_none(), "it has shown that it has it");
    }
}

#[tokio::test]
async fn the_first_boot_that_proves_itself_ends_those_before_it() {
    for root in [RootKind::Nbd, RootKind::Aoe] {
        let lab = Lab::new(root).await;
        let first = lab.in_loader().await;
        let second = lab.in_loader().await;
        let (first, _) = lab.fetch(first).await.unwrap();
        let (second, _) = lab.fetch(second).await.unwrap();
        if root == RootKind::Nbd {
            second.gets_its_disk();
        }
        assert!(second.says("report").await);
        assert!(!first.says("report").await, "{root}");
        assert!(!lab.service.is_heard_as_candidate(&first.report(Stage::Start)), "{root}");
        assert!(lab.service.is_heard_as_candidate(&first.report(Stage::Failed)));
        assert!(lab.fetch(first.boot).await.is_none());
        assert_eq!(lab.holder.lock().unwrap().boot, Some(second.boot));
    }
}

#[tokio::test]
async fn boots_that_begin_each_second_push_out_none_that_is_on_its_way() {
    let lab = Lab::new(RootKind::Nbd).await;
    let boot = lab.in_loader().await;
    let mut forged = std::collections::BTreeSet::new();
    let mut flood = async |seconds: u32| {
        for _ in 0..seconds {
            forged.insert(lab.forge_boot().await);
            lab.hands.pass(1000);
        }
        forged.len()
    };
    assert!(flood(240).await <= 8);
    let (machine, _) = lab.fetch(boot).await.unwrap();
    assert!(flood(240).await <= 16);
    // A server that starts now knows it, too.
    let again = Service::open(lab.service.options().clone()).unwrap();
    let tag = Some(machine.token.tag(b"report"));
    assert_eq!(again.believe(MAC, boot, b"report", tag), crate::Belief::Proven);
    machine.gets_its_disk();
    assert!(machine.says("report").await);
    assert!(lab.service.boots_of(MAC, 99).await.unwrap().len() <= 17);
    // A machine that is really switched off and on, and has proven that each time, always begins another one.
    for _ in 0..20 {
        let boot = lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
        assert_eq!(screen(&lab.service).await, "");
        let (machine, _) = lab.fetch(boot).await.unwrap();
        machine.gets_its_disk();
        lab.hands.pass(1000);
        assert!(machine.says("report").await);
    }
}

#[tokio::test]
async fn who_asks_for_a_secret_when_there_is_no_boot_changes_nothing() {
    let lab = Lab::new(RootKind::Nbd).await;
    for boot in [0, 1, BootId::MAX >> 1] {
        assert!(lab.fetch(boot).await.is_none());
    }
    assert_eq!(lab.asked.lock().unwrap().len(), 0);
    let boot = lab.in_loader().await;
    assert!(lab.fetch(boot + 1).await.is_none());
    assert!(lab.fetch(boot).await.is_some());
}

#[tokio::test]
async fn a_machine_keeps_its_address_from_its_loader_on() {
    let lab = Lab::new(RootKind::Nbd).await;
    lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
    let is_in_use = || lab.service.machines_in_use().contains_key(&MAC);
    assert!(!is_in_use(), "its firmware may find somebody else at the address");
    reached(&lab.service, Stage::Loader).await;
    assert!(is_in_use());
    lab.hands.pass(299_000);
    assert!(is_in_use());
    lab.hands.pass(2_000);
    assert!(!is_in_use(), "it was switched off");
}

#[tokio::test]
async fn a_machine_that_somebody_says_has_failed_keeps_its_address() {
    let lab = Lab::new(RootKind::Nbd).await;
    let boot = lab.in_loader().await;
    let failed = NewStage::noticed(Stage::Failed, "forged");
    assert!(lab.service.stage(MAC, Some(boot), failed).await.unwrap());
    assert!(lab.service.machines_in_use().contains_key(&MAC));
}

#[tokio::test]
async fn who_gives_up_a_machine_s_address_or_moves_it_does_not_stop_its_boot() {
    let lab = Lab::new(RootKind::Nbd).await;
    lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
    let until = lab.service.lease_clock_unix() + 600;
    lab.service.commit_declined(ADDRESS, until).await.unwrap();
    let elsewhere = Ipv4Addr::new(10, 77, 0, 177);
    for moved in [false, true] {
        if moved {
            lease(&lab.service, MAC, elsewhere).await;
        }
        assert_eq!(lab.service.owner_of(ADDRESS), Some(MAC));
        let boot =
            lab.service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await.boot.unwrap();
        assert!(lab.fetch(boot).await.is_some());
    }
    // Until somebody else has it.
    lease(&lab.service, THIEF, ADDRESS).await;
    assert_eq!(lab.service.owner_of(ADDRESS), Some(THIEF));
    assert_eq!(lab.service.owner_of(elsewhere), Some(MAC));
}

#[tokio::test]
async fn a_rescue_shell_is_not_taken_away_by_a_boot_that_proves_nothing() {
    let lab = Lab::new(RootKind::Nbd).await;
    let wanted = lab
        .service
        .database()
        .write({
            let name = lab.name.clone();
            move |tables| Ok(tables.want_rescue(&name, RescuePassword::new(7).as_str())?)
        })
        .await
        .unwrap();
    let forged = lab.forge_boot().await;
    let shown = || lab.service.machine(&lab.name).unwrap().rescue.unwrap();
    assert_eq!((shown().password, shown().boot), (Some(wanted.clone()), None));
    let boot = lab.in_loader().await;
    assert_ne!(boot, forged);
    assert!(
        lab.service
            .loader_config(ADDRESS, &model::LoaderAsk::Machine)
            .await
            .text
            .contains("/boot/rescue")
    );
    let (machine, host) = lab.fetch(boot).await.unwrap();
    let password: RescuePassword = wanted.parse().unwrap();
    assert_eq!(host.rescue, Some(password.hash(&host.token)));
    let another = lab.forge_boot().await;
    // It stops there, before it has a disk.
    machine.says("report").await;
    lab.service.database().write(|_| Ok(())).await.unwrap();
    assert_eq!((shown().password, shown().boot), (Some(wanted.clone()), Some(boot)));
    assert_ne!(another, boot);
    let later = lab.forge_boot().await;
    assert_eq!(lab.service.view().boots[&MAC].boot.id, later);
    assert_eq!(lab.service.view().boots[&MAC].rescue, None, "one boot stops");
    assert_eq!((shown().password, shown().boot), (Some(wanted), Some(boot)));
}

#[tokio::test]
async fn nor_by_a_boot_in_the_name_of_a_machine_that_runs() {
    let lab = Lab::new(RootKind::Nbd).await;
    let machine = lab.boot().await;
    machine.comes_up().await;
    machine.live(30, true);
    let name = lab.name.clone();
    let wanted = lab
        .service
        .database()
        .write(move |tables| Ok(tables.want_rescue(&name, RescuePassword::new(7).as_str())?));
    wanted.await.unwrap();
    let forged = lab.boot().await;
    machine.live(1, true);
    forged.says("report").await;
    machine.live(20, true);
    forged.says("report").await;
    assert_eq!(lab.service.machine(&lab.name).unwrap().rescue.unwrap().boot, None);
    assert_eq!(lab.word(), StateWord::Up);
}
