//! A boot that begins in the name of a machine that runs.

use super::time::Hands;
use super::*;
use initcfg::{Answer, Heartbeat, HostConfig, PowerVerb, Question, Token, Word};
use model::{BootId, MachineName};
use std::net::SocketAddr;

/// A machine whose keeper is heard, on a site with a clock in the test's hand.
struct Lab {
    _folder: tempfile::TempDir,
    hands: Hands,
    service: Service,
    name: MachineName,
}

impl Lab {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        add_image(folder.path(), "debian-12", 1);
        let hands = Hands::at(1_800_000_000_000);
        let service =
            Service::open(Options { clock: hands.clock(), ..options(folder.path()) }).unwrap();
        start_storage(folder.path());
        let name: MachineName = "lab-07".parse().unwrap();
        let image = Some("debian-12".parse().unwrap());
        service.adopt(MAC, name.clone(), image, RootKind::Nbd).await.unwrap();
        pretend_initrds(&service);
        lease(&service, MAC, ADDRESS).await;
        Self { _folder: folder, hands, service, name }
    }

    /// A boot from the firmware's DHCP to its host segment.
    async fn boot(&self) -> Machine<'_> {
        let boot = self.service.boot_started(MAC, Firmware::Bios).await.unwrap();
        assert_eq!(screen(&self.service).await, "");
        let file = self.service.host_file(ADDRESS, boot).await.unwrap().unwrap();
        let token = HostConfig::parse(file.as_bytes()).unwrap().token;
        Machine { lab: self, boot, token }
    }

    fn shown_boot(&self) -> BootId {
        self.service.machine(&self.name).unwrap().boot.unwrap().id
    }

    fn candidate(&self) -> Option<BootId> {
        self.service.machine(&self.name).unwrap().candidate.map(|boot| boot.id)
    }

    fn word(&self) -> StateWord {
        self.service.machine(&self.name).unwrap().state.word
    }
}

#[derive(Clone, Copy)]
struct Machine<'a> {
    lab: &'a Lab,
    boot: BootId,
    token: Token,
}

fn keeper() -> SocketAddr {
    SocketAddr::from((ADDRESS, 5000))
}

impl Machine<'_> {
    /// Its system comes up, and its keeper is heard.
    async fn comes_up(&self) {
        for stage in [Stage::Start, Stage::Attach, Stage::Handover, Stage::Up] {
            self.says("report").await;
            let stage = NewStage::noticed(stage, "");
            self.lab.service.stage(MAC, Some(self.boot), stage).await.unwrap();
        }
        self.gives_sign_of_life();
    }

    async fn says(&self, text: &str) {
        let tag = Some(self.token.tag(text.as_bytes()));
        assert!(self.lab.service.believes(MAC, self.boot, text.as_bytes(), tag).await);
        self.lab.service.database().write(|_| Ok(())).await.unwrap();
    }

    fn heartbeat(&self) -> Heartbeat {
        Heartbeat { boot: self.boot, mac: MAC, is_last: false, ram_used_percent: None }
    }

    fn gives_sign_of_life(&self) {
        let heard = self.lab.service.heartbeat(self.heartbeat(), Some(keeper()));
        assert!(self.answers(&heard.question.unwrap()));
    }

    /// Whether it was its question, and the answer is taken.
    fn answers(&self, datagram: &str) -> bool {
        let (line, tag) = initcfg::unseal(datagram.as_bytes());
        let Ok(Question { boot, id }) = Question::parse(line) else { return false };
        let is_mine = tag == Some(self.token.tag(line)) && boot == self.boot;
        is_mine && self.lab.service.answered(Answer { boot, mac: MAC, id }, keeper())
    }

    /// For some seconds, in which it answers what it is asked, if it does.
    fn live(&self, seconds: u64, answers: bool) -> usize {
        let mut n_asked = 0;
        for second in 0..seconds {
            for (peer, message) in self.lab.service.messages_to_keepers() {
                assert_eq!(peer, keeper());
                n_asked += 1;
                assert!(!answers || self.answers(&message));
            }
            if second % 20 == 0 && answers {
                self.gives_sign_of_life();
            }
            self.lab.hands.pass(1000);
        }
        n_asked
    }
}

#[tokio::test]
async fn a_boot_in_the_name_of_a_machine_that_runs_changes_nothing_of_it() {
    let lab = Lab::new().await;
    let machine = lab.boot().await;
    machine.comes_up().await;
    assert_eq!((lab.shown_boot(), lab.word()), (machine.boot, StateWord::Up));
    machine.live(60, true);

    let forged = lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_ne!(forged, machine.boot);
    assert!(machine.live(60, true) > 0, "it was asked");
    assert_eq!((lab.shown_boot(), lab.word()), (machine.boot, StateWord::Up));
    assert_eq!(lab.candidate(), Some(forged));
    assert!(lab.service.machines_in_use().contains(&MAC));

    // Words without a proof change nothing of either.
    for text in ["bootlace/1 off", "bootlace/1 alive"] {
        for boot in [machine.boot, forged, forged + 9] {
            let word = Word::parse(format!("{text} {boot} {MAC}").as_bytes()).unwrap();
            assert!(!lab.service.is_heard_unproven(&word, ADDRESS), "{word}");
        }
        let text = text.as_bytes();
        assert!(!lab.service.believes(MAC, machine.boot, text, None).await);
        assert!(!lab.service.believes(MAC, forged + 9, text, None).await);
    }
    lab.service.machine_waits(MAC, forged, "nothing");
    assert_eq!(lab.word(), StateWord::Up);

    // It still hears orders, where it listens.
    lab.service.order(&lab.name, PowerVerb::Reboot).await.unwrap();
    let orders = lab.service.messages_to_keepers();
    assert!(orders.iter().any(|(peer, text)| *peer == keeper() && text.contains(" power ")));
    lab.service.obeyed(MAC, machine.boot, 1).await.unwrap();
    assert!(lab.service.machine(&lab.name).unwrap().power.unwrap().obeyed_unix_ms.is_some());

    // A server that starts now finds it so.
    let options = lab.service.options().clone();
    let again = Service::open(options).unwrap();
    let view = again.machine(&lab.name).unwrap();
    assert_eq!((view.boot.unwrap().id, view.state.word), (machine.boot, StateWord::Up));
    assert_eq!(view.candidate.unwrap().id, forged);
}

#[tokio::test]
async fn a_machine_that_was_switched_off_and_on_is_seen_after_three_seconds() {
    let lab = Lab::new().await;
    let first = lab.boot().await;
    first.comes_up().await;
    first.live(30, true);
    let second = lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(first.live(3, false), 3);
    assert_eq!((lab.shown_boot(), lab.candidate()), (second, None), "it answers no more");
    assert_eq!(lab.word(), StateWord::Loading);
    let error = lab.service.order(&lab.name, PowerVerb::Reboot).await.unwrap_err().to_string();
    assert!(error.contains("can't be told to stop"), "{error}");

    // What it said before is no sign that it runs.
    for _ in 0..5 {
        lab.service.heartbeat(first.heartbeat(), Some(SocketAddr::from((ADDRESS, 6000))));
        lab.hands.pass(1000);
        assert_eq!(lab.shown_boot(), second);
    }
    let boots = lab.service.boots_of(MAC, 9).await.unwrap();
    assert_eq!(boots.len(), 2);
}

#[tokio::test]
async fn a_machine_that_said_that_it_restarts_is_seen_at_once() {
    let lab = Lab::new().await;
    let first = lab.boot().await;
    first.comes_up().await;
    lab.service.heartbeat(Heartbeat { is_last: true, ..first.heartbeat() }, Some(keeper()));
    let second = lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!((lab.shown_boot(), lab.candidate()), (second, None));
}

#[tokio::test]
async fn the_keeper_of_an_earlier_bootlace_is_believed_by_its_signs_of_life() {
    let lab = Lab::new().await;
    let machine = lab.boot().await;
    machine.says("report").await;
    machine.lab.service.heartbeat(machine.heartbeat(), Some(keeper()));
    let forged = lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
    machine.live(29, false);
    assert_eq!((lab.shown_boot(), lab.candidate()), (machine.boot, Some(forged)));
    machine.live(3, false);
    assert_eq!((lab.shown_boot(), lab.candidate()), (forged, None));
}
