//! A boot that begins in the name of a machine that runs.

use super::disks::{Asked, Holder, start_disks};
use super::time::Hands;
use super::*;
use initcfg::{Answer, Heartbeat, HostConfig, PowerVerb, Question, Token, Word};
use model::{BootId, MachineName};
use std::net::SocketAddr;
use std::time::Duration;

/// A machine whose keeper is heard, on a site with a clock in the test's hand.
pub(super) struct Lab {
    _folder: tempfile::TempDir,
    pub(super) hands: Hands,
    pub(super) service: Service,
    pub(super) name: MachineName,
    pub(super) asked: Asked,
    pub(super) holder: Arc<Mutex<Holder>>,
}

impl Lab {
    pub(super) async fn new(root: RootKind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        add_image(folder.path(), "debian-12", 1);
        let hands = Hands::at(1_800_000_000_000);
        let service =
            Service::open(Options { clock: hands.clock(), ..options(folder.path()) }).unwrap();
        let (asked, holder) = start_disks(folder.path());
        let name: MachineName = "lab-07".parse().unwrap();
        let image = Some("debian-12".parse().unwrap());
        let machine = MachineChange { root: Some(root), ..adoption(MAC, image) };
        service.add_machine(name.clone(), machine).await.unwrap();
        pretend_initrds(&service);
        lease(&service, MAC, ADDRESS).await;
        Self { _folder: folder, hands, service, name, asked, holder }
    }

    /// A boot from the firmware's DHCP to its host segment.
    pub(super) async fn boot(&self) -> Machine<'_> {
        self.boot_from(MAC, ADDRESS).await
    }

    /// The same from this NIC.
    pub(super) async fn boot_from(&self, mac: Mac, address: Ipv4Addr) -> Machine<'_> {
        let boot = self.service.boot_started(mac, Firmware::Bios).await.unwrap();
        let config = self.service.loader_config(address, &model::LoaderAsk::Machine).await;
        assert_eq!((config.boot, config.waiting), (Some(boot), None));
        let link = Link::Neighbour(mac);
        let file = self.service.new_host_file(address, link, boot).await.unwrap().unwrap();
        let token = HostConfig::parse(file.as_bytes()).unwrap().token;
        Machine { lab: self, mac, address, boot, token }
    }

    pub(super) fn shown_boot(&self) -> BootId {
        self.service.machine(&self.name).unwrap().boot.unwrap().id
    }

    pub(super) fn candidate(&self) -> Option<BootId> {
        self.service.machine(&self.name).unwrap().candidate.map(|boot| boot.id)
    }

    pub(super) fn word(&self) -> StateWord {
        self.service.machine(&self.name).unwrap().state.word
    }
}

#[derive(Clone, Copy)]
pub(super) struct Machine<'a> {
    pub(super) lab: &'a Lab,
    pub(super) mac: Mac,
    pub(super) address: Ipv4Addr,
    pub(super) boot: BootId,
    pub(super) token: Token,
}

fn keeper() -> SocketAddr {
    SocketAddr::from((ADDRESS, 5000))
}

impl Machine<'_> {
    fn keeper(&self) -> SocketAddr {
        SocketAddr::from((self.address, 5000))
    }

    /// The same with the secret that it got later.
    pub(super) fn with_token(self, token: Token) -> Self {
        Self { token, ..self }
    }

    /// Its system comes up, and its keeper is heard.
    pub(super) async fn comes_up(&self) {
        self.gets_its_disk();
        assert!(self.says("report").await);
        for stage in [Stage::Start, Stage::Attach, Stage::Handover, Stage::Up] {
            let stage = NewStage::noticed(stage, "");
            self.lab.service.stage(self.mac, Some(self.boot), stage).await.unwrap();
        }
        self.gives_sign_of_life();
    }

    pub(super) fn gets_its_disk(&self) {
        *self.lab.holder.lock().unwrap() = Holder { boot: Some(self.boot), runs: true };
    }

    /// Whether its boot is the machine's when it has said so.
    pub(super) async fn says(&self, text: &str) -> bool {
        let tag = Some(self.token.tag(text.as_bytes()));
        assert!(self.lab.service.believes(self.mac, self.boot, text.as_bytes(), tag).await);
        self.lab.service.database().write(|_| Ok(())).await.unwrap();
        self.lab.service.is_admitted(self.mac, self.boot).await
    }

    pub(super) fn report(&self, stage: Stage) -> Word {
        let line = format!("bootlace/1 report {} {} 1 {stage} 1 x", self.boot, self.mac);
        Word::parse(line.as_bytes()).unwrap()
    }

    pub(super) fn heartbeat(&self) -> Heartbeat {
        Heartbeat { boot: self.boot, mac: self.mac, is_last: false, ram_used_percent: None }
    }

    fn gives_sign_of_life(&self) {
        let heard = self.lab.service.heartbeat(self.heartbeat(), Some(self.keeper()));
        assert!(self.answers(&heard.question.unwrap()));
    }

    /// Whether it was its question, and the answer is taken.
    fn answers(&self, datagram: &str) -> bool {
        let (line, tag) = initcfg::unseal(datagram.as_bytes());
        let Ok(Question { boot, id }) = Question::parse(line) else { return false };
        let is_mine = tag == Some(self.token.tag(line)) && boot == self.boot;
        let answer = Answer { boot, mac: self.mac, id };
        is_mine && self.lab.service.answered(answer, self.keeper())
    }

    /// Gives no answer for so long that it is taken for gone.
    async fn is_silent_when_asked(&self) {
        // What it answered before counts no more, and it is asked again.
        self.lab.hands.pass(4000);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(self.live(5, false) > 0);
    }

    /// For some seconds, in which it answers what it is asked, if it does.
    pub(super) fn live(&self, seconds: u64, answers: bool) -> usize {
        let mut n_asked = 0;
        for second in 0..seconds {
            for (peer, message) in self.lab.service.messages_to_keepers() {
                assert_eq!(peer, self.keeper());
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
    let lab = Lab::new(RootKind::Nbd).await;
    let machine = lab.boot().await;
    machine.comes_up().await;
    assert_eq!((lab.shown_boot(), lab.word()), (machine.boot, StateWord::Up));
    machine.live(60, true);

    let forged = lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_ne!(forged, machine.boot);
    assert!(machine.live(60, true) > 0, "it was asked");
    assert_eq!((lab.shown_boot(), lab.word()), (machine.boot, StateWord::Up));
    assert_eq!(lab.candidate(), Some(forged));
    assert!(lab.service.machine(&lab.name).unwrap().candidate_sentence().is_some());
    let in_use = lab.service.machines_in_use();
    assert_eq!(in_use.get(&MAC), Some(&Some(machine.address)), "where it was heard");

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
    assert!(view.candidate_sentence().is_none(), "it may have been switched off and on meanwhile");
    assert_eq!((view.boot.unwrap().id, view.state.word), (machine.boot, StateWord::Up));
    assert_eq!(view.candidate.unwrap().id, forged);
}

#[tokio::test]
async fn a_machine_that_was_switched_off_and_on_is_seen_after_three_seconds() {
    let lab = Lab::new(RootKind::Nbd).await;
    let first = lab.boot().await;
    first.comes_up().await;
    first.live(30, true);
    let second = lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
    let suspects = || lab.service.machine(&lab.name).unwrap().candidate_sentence();
    // Whether it is gone is not known yet, so nobody is suspected.
    for _ in 0..3 {
        assert_eq!((lab.candidate(), suspects()), (Some(second), None));
        assert_eq!(first.live(1, false), 1);
    }
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
    let lab = Lab::new(RootKind::Nbd).await;
    let first = lab.boot().await;
    first.comes_up().await;
    lab.service.heartbeat(Heartbeat { is_last: true, ..first.heartbeat() }, Some(keeper()));
    let second = lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!((lab.shown_boot(), lab.candidate()), (second, None));
}

#[tokio::test]
async fn the_keeper_of_an_earlier_bootlace_is_believed_by_its_signs_of_life() {
    let lab = Lab::new(RootKind::Nbd).await;
    let machine = lab.boot().await;
    machine.gets_its_disk();
    assert!(machine.says("report").await);
    machine.lab.service.heartbeat(machine.heartbeat(), Some(keeper()));
    let forged = lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
    machine.live(29, false);
    assert_eq!((lab.shown_boot(), lab.candidate()), (machine.boot, Some(forged)));
    machine.live(3, false);
    assert_eq!((lab.shown_boot(), lab.candidate()), (forged, None));
}

#[tokio::test]
async fn over_nbd_the_storage_server_says_whose_boot_is_the_machine_s() {
    let lab = Lab::new(RootKind::Nbd).await;
    let machine = lab.boot().await;
    machine.comes_up().await;
    machine.live(30, true);

    // Somebody has even got the secret of the boot that he began.
    let forged = lab.boot().await;
    assert_ne!(forged.token, machine.token);
    for _ in 0..3 {
        assert!(!forged.says("report").await);
        machine.live(20, true);
        assert_eq!((lab.shown_boot(), lab.candidate()), (machine.boot, Some(forged.boot)));
    }
    let refused = lab.service.new_host_file(ADDRESS, OWN, forged.boot).await.unwrap();
    assert_eq!(refused, None, "it has shown that it has its secret");

    // The machine was switched off and on, and the storage server has noticed.
    *lab.holder.lock().unwrap() = Holder::default();
    lab.hands.pass(1000);
    assert!(forged.says("report").await);
    assert_eq!((lab.shown_boot(), lab.candidate()), (forged.boot, None));
    // The former boot can't come back.
    assert!(machine.says("report").await, "nothing is to be decided of it");
    assert_eq!(lab.shown_boot(), forged.boot);
}

#[tokio::test]
async fn over_aoe_a_boot_gets_the_disk_when_the_machine_answers_no_more() {
    let lab = Lab::new(RootKind::Aoe).await;
    let machine = lab.boot().await;
    assert!(machine.says("report").await, "nobody else was there");
    assert_eq!(lab.holder.lock().unwrap().boot, Some(machine.boot), "the storage server is told");
    machine.comes_up().await;
    machine.live(30, true);

    let second = lab.boot().await;
    machine.live(1, true);
    for _ in 0..3 {
        assert!(!second.says("report").await);
        assert!(!lab.service.is_heard_as_candidate(&second.report(Stage::Start)));
        assert!(lab.service.is_heard_as_candidate(&second.report(Stage::Failed)));
        machine.live(20, true);
        assert_eq!((lab.shown_boot(), lab.candidate()), (machine.boot, Some(second.boot)));
    }
    // It is switched off; the storage server has seen a frame just now.
    machine.live(1, false);
    assert!(!second.says("report").await);
    assert_eq!(machine.live(3, false), 3);
    assert!(!second.says("report").await, "the storage server does not agree");
    assert_eq!(lab.holder.lock().unwrap().boot, Some(machine.boot));
    lab.holder.lock().unwrap().runs = false;
    assert!(second.says("report").await);
    assert_eq!(lab.holder.lock().unwrap().boot, Some(second.boot));
    assert_eq!((lab.shown_boot(), lab.candidate()), (second.boot, None));
}

#[tokio::test]
async fn a_server_that_was_restarted_takes_nobody_for_silent_before_he_could_speak() {
    let lab = Lab::new(RootKind::Aoe).await;
    let machine = lab.boot().await;
    machine.comes_up().await;
    let second = lab.boot().await;
    lab.holder.lock().unwrap().runs = false;
    let again = Service::open(lab.service.options().clone()).unwrap();
    let report = second.token.tag(b"report");
    assert!(again.believes(MAC, second.boot, b"report", Some(report)).await);
    again.database().write(|_| Ok(())).await.unwrap();
    for seconds in [0, 25] {
        lab.hands.pass(seconds * 1000);
        assert!(!again.is_admitted(MAC, second.boot).await, "{seconds}");
    }
    lab.hands.pass(1000);
    assert!(again.is_admitted(MAC, second.boot).await);
}

#[tokio::test]
async fn forged_boots_do_not_push_out_the_one_that_runs() {
    let lab = Lab::new(RootKind::Nbd).await;
    let machine = lab.boot().await;
    machine.comes_up().await;
    for _ in 0..120 {
        lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
        reached(&lab.service, Stage::Config).await;
    }
    assert_eq!(lab.shown_boot(), machine.boot);
    assert!(machine.says("report").await);
    lab.service.order(&lab.name, PowerVerb::Reboot).await.unwrap();
}

#[tokio::test]
async fn each_copy_of_the_secret_is_told_to_the_storage_server_first() {
    for root in [RootKind::Nbd, RootKind::Aoe] {
        let lab = Lab::new(root).await;
        let first = lab.boot().await;
        let key = || lab.asked.lock().unwrap().last().unwrap().key;
        assert_eq!(key(), Some(first.token.disk_key()));
        let file = lab.service.new_host_file(ADDRESS, OWN, first.boot).await.unwrap().unwrap();
        let token = HostConfig::parse(file.as_bytes()).unwrap().token;
        assert_ne!(token, first.token);
        assert_eq!(key(), Some(token.disk_key()));
        // The loader asks for its configuration again.
        assert_eq!(screen(&lab.service).await, "");
        assert_eq!(key(), Some(token.disk_key()));
        // Two at once: one of them has the secret that counts, everywhere the same.
        let ask = || lab.service.new_host_file(ADDRESS, OWN, first.boot);
        let (one, other) = tokio::join!(ask(), ask());
        let tokens = [one, other]
            .map(|file| HostConfig::parse(file.unwrap().unwrap().as_bytes()).unwrap().token);
        let counts = lab.service.view().boots[&MAC].proof.token.unwrap();
        assert!(tokens.contains(&counts));
        assert_eq!(key(), Some(counts.disk_key()));
    }
}

#[tokio::test]
async fn who_is_logged_in_gets_no_secret_of_a_boot_that_somebody_began() {
    let lab = Lab::new(RootKind::Nbd).await;
    let machine = lab.boot().await;
    machine.comes_up().await;
    machine.live(30, true);
    let forged = lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(
        lab.service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await.boot,
        Some(forged)
    );
    let fetched = lab.service.host_archive(ADDRESS, OWN, forged);
    let lives = async {
        for _ in 0..5 {
            machine.live(1, true);
            tokio::time::sleep(Duration::from_millis(1000)).await;
        }
    };
    let (fetched, ()) = tokio::join!(fetched, lives);
    assert_eq!(fetched.unwrap(), None);
    // As init would ask for it.
    assert_eq!(lab.service.host_file(ADDRESS, OWN, forged).await.unwrap(), None);
    // He keeps the machine's keeper from answering, but not its kernel.
    let fetched = lab.service.host_archive(ADDRESS, OWN, forged);
    let (fetched, ()) = tokio::join!(fetched, machine.is_silent_when_asked());
    assert_eq!(fetched.unwrap(), None);
    // When the machine is off its next boot has one.
    *lab.holder.lock().unwrap() = Holder::default();
    assert!(lab.service.host_archive(ADDRESS, OWN, forged).await.unwrap().is_some());
}

#[tokio::test]
async fn a_server_that_was_restarted_tells_no_secret_before_the_machine_could_speak() {
    let lab = Lab::new(RootKind::Nbd).await;
    let machine = lab.boot().await;
    machine.comes_up().await;
    let forged = lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
    lab.service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await;
    *lab.holder.lock().unwrap() = Holder::default();
    let again = Service::open(lab.service.options().clone()).unwrap();
    assert_eq!(again.host_file(ADDRESS, OWN, forged).await.unwrap(), None);
    lab.hands.pass(26_000);
    assert!(again.host_file(ADDRESS, OWN, forged).await.unwrap().is_some());
}

#[tokio::test]
async fn who_is_logged_in_does_not_use_up_what_starts_once() {
    let lab = Lab::new(RootKind::Nbd).await;
    let machine = lab.boot().await;
    machine.comes_up().await;
    let next_boot = Some(Some(model::BootChoice::LocalDisk));
    let once = MachineChange { next_boot, ..MachineChange::default() };
    lab.service.set_machine(lab.name.clone(), once).await.unwrap();
    let next = || lab.service.site().machine(&lab.name).unwrap().next_boot.clone();
    lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
    let waits = lab.service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await;
    assert!(waits.text.contains("its system still runs"), "{}", waits.text);
    assert!(next().is_some());
    *lab.holder.lock().unwrap() = Holder::default();
    let config = lab.service.loader_config(ADDRESS, &model::LoaderAsk::Machine);
    tokio::join!(config, machine.is_silent_when_asked());
    assert_eq!(next(), None);
}

#[tokio::test]
async fn another_kind_of_firmware_in_a_machine_s_name_does_not_stop_its_boot() {
    let lab = Lab::new(RootKind::Nbd).await;
    lab.service.boot_started(MAC, Firmware::UefiArm64).await.unwrap();
    let config = lab.service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await;
    assert!(config.waiting.unwrap().contains("arm64"), "it is no such PC yet");
    lab.service.boot_started(MAC, Firmware::Bios).await.unwrap();
    lab.service.boot_started(MAC, Firmware::UefiArm64).await.unwrap();
    let config = lab.service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await;
    assert_eq!(config.waiting, None);
}
