//! A version that one room tries: what its boots show, and what follows from that.

use super::time::Hands;
use super::*;
use crate::{Actor, Admin, RingView, RoomChange};
use model::{FindingKind, RingEnd, RoomName, VersionState};
use std::collections::BTreeSet;

const OTHER: Mac = Mac([0x52, 0x54, 0, 0, 0, 2]);

struct Lab {
    root: tempfile::TempDir,
    hands: Hands,
    service: Service,
    admin: Admin,
}

fn image() -> ImageName {
    "debian".parse().unwrap()
}

fn room() -> RoomName {
    "r1".parse().unwrap()
}

fn named(name: &str) -> MachineName {
    name.parse().unwrap()
}

fn open(root: &Path, hands: &Hands) -> (Service, Admin) {
    let service = Service::open(Options { clock: hands.clock(), ..options(root) }).unwrap();
    pretend_initrds(&service);
    let admin = service.admin(&Actor::command(0)).unwrap();
    (service, admin)
}

impl Lab {
    /// Versions 1 to 3, of which 3 is a draft; lab-01 and lab-02 are in the room and boot what is released, lab-03 is elsewhere.
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for version in 1..=3 {
            add_image(root.path(), "debian", version);
            add_files(root.path(), "debian", version);
        }
        let hands = Hands::at(1_700_000_000_000);
        let (service, admin) = open(root.path(), &hands);
        let lab = Self { root, hands, service, admin };
        lab.service.set_room(room(), RoomChange::default()).await.unwrap();
        for (mac, name, is_in) in [
            (MAC, "lab-01", true),
            (OTHER, "lab-02", true),
            (Mac([0x52, 0x54, 0, 0, 0, 3]), "lab-03", false),
        ] {
            let room = is_in.then(room);
            let change = MachineChange { room: Some(room), ..adoption(mac, Some(image())) };
            lab.service.add_machine(named(name), change).await.unwrap();
        }
        lab.set(3, VersionState::Draft).await;
        lab
    }

    async fn set(&self, version: u32, state: VersionState) {
        self.admin.set_image_state(image(), version, state).await.unwrap();
    }

    async fn begin(&self) -> RingView {
        self.admin.begin_ring(image(), 3, room(), BTreeSet::new()).await.unwrap()
    }

    async fn restart(&mut self) {
        (self.service, self.admin) = open(self.root.path(), &self.hands);
    }

    fn next(&self) -> Vec<Option<u32>> {
        self.service.machines().iter().map(|view| view.next_version).collect()
    }

    async fn ring(&self) -> RingView {
        self.admin.rings().await.unwrap().remove(0)
    }

    fn state(&self, number: u32) -> VersionState {
        let site = self.service.site();
        site.state(site.version(&image(), number).unwrap())
    }

    /// A machine is switched on, and fetches kernel and initrd.
    async fn switch_on(&self, mac: Mac) {
        self.hands.pass(400_000);
        let boot = self.service.boot_started(mac, Firmware::Bios).await.unwrap();
        let site = self.service.site();
        let machine = site.machine_by_mac(mac).unwrap().clone();
        let version = site.chosen_for(&machine).unwrap().clone();
        let assigned = self.service.database().write(move |tables| {
            Ok(tables.assign(mac, boot, &machine.name, &version, RootKind::Nbd)?)
        });
        assigned.await.unwrap();
        for stage in [Stage::Config, Stage::Kernel, Stage::Initrd] {
            self.reaches(mac, stage, "").await;
        }
    }

    async fn reaches(&self, mac: Mac, stage: Stage, detail: &str) {
        self.service.stage(mac, None, NewStage::noticed(stage, detail)).await.unwrap();
    }

    /// It proves that it is the machine, and goes on.
    async fn proves(&self, mac: Mac) {
        let boot = self.service.boot_of(mac).unwrap().id;
        let token = self.service.view().boot(mac, boot).unwrap().proof.token.unwrap();
        let noted =
            self.service.database().write(move |tables| Ok(tables.note_proof(mac, boot, token)?));
        noted.await.unwrap();
    }

    /// A boot that is up after so many seconds.
    async fn boots(&self, mac: Mac, seconds: u64) {
        self.switch_on(mac).await;
        self.proves(mac).await;
        self.hands.pass(seconds * 1000);
        self.reaches(mac, Stage::Up, "").await;
    }

    async fn fails(&self, mac: Mac, why: &str) {
        self.switch_on(mac).await;
        self.proves(mac).await;
        self.reaches(mac, Stage::Failed, why).await;
    }

    async fn findings(&self) -> Vec<FindingKind> {
        self.service.findings().await.into_iter().map(|finding| finding.kind).collect()
    }
}

#[tokio::test]
async fn a_version_passes_to_all_after_each_machine_and_ten_boots_were_up_in_time() {
    let mut lab = Lab::new().await;
    // How long they usually take.
    for mac in [MAC, OTHER] {
        lab.boots(mac, 20).await;
    }
    let ring = lab.begin().await;
    assert_eq!((ring.progress.n_machines, ring.progress.n_wanted), (2, 10));
    // Only the room gets it, and by its former choice.
    assert_eq!(lab.next(), [Some(3), Some(3), Some(2)]);
    assert_eq!(lab.state(3), VersionState::Test);
    for _ in 0..10 {
        lab.boots(MAC, 22).await;
    }
    let ring = lab.ring().await;
    assert_eq!((ring.progress.n_booted(), ring.progress.n_well), (1, 10), "{}", ring.sentence);
    assert!(ring.sentence.contains("it waits for lab-02"), "{}", ring.sentence);
    // A restart forgets nothing; a boot that takes too long is up, and does not count as one in time.
    lab.restart().await;
    assert_eq!(lab.ring().await, ring);
    assert_eq!(lab.next(), [Some(3), Some(3), Some(2)]);
    lab.boots(OTHER, 27).await;
    let ring = lab.ring().await;
    assert_eq!((ring.ring.end, ring.progress.n_slow), (Some(RingEnd::Passed), 1));
    assert_eq!(lab.state(3), VersionState::Released);
    assert_eq!(lab.next(), [Some(3); 3]);
    let log = lab.admin.audit(None, None, 9).await.unwrap();
    let by_itself = log.entries.iter().filter(|entry| entry.who == "bootlace");
    let subjects: Vec<&str> = by_itself.map(|entry| entry.subject.as_str()).collect();
    assert_eq!(subjects, ["debian/v3", "debian/v3"]);
}

#[tokio::test]
async fn two_boots_that_fail_by_the_images_fault_take_it_back_and_other_failures_do_not() {
    let lab = Lab::new().await;
    lab.begin().await;
    for _ in 0..3 {
        lab.fails(MAC, "no answer from 10.77.0.1:10809; start the storage server").await;
    }
    // Anybody could say this.
    lab.switch_on(MAC).await;
    lab.reaches(MAC, Stage::Failed, "its system is in emergency mode; its screen says more").await;
    lab.boots(MAC, 20).await;
    assert_eq!(lab.ring().await.progress.failures, []);
    lab.fails(MAC, "its system is in emergency mode; its screen says more").await;
    assert_eq!(lab.ring().await.progress.failures.len(), 1);
    assert!(!lab.findings().await.contains(&FindingKind::RingTakenBack));
    // A kernel that says nothing is noticed when the machine starts again.
    lab.switch_on(OTHER).await;
    assert_eq!(lab.ring().await.ring.end, None);
    lab.switch_on(OTHER).await;
    let ring = lab.ring().await;
    assert_eq!(ring.ring.end, Some(RingEnd::TakenBack));
    assert!(ring.sentence.contains("lab-01 (boot"), "{}", ring.sentence);
    assert!(ring.sentence.contains("nothing was heard of it"), "{}", ring.sentence);
    assert_eq!(lab.state(3), VersionState::Retired);
    assert_eq!(lab.next(), [Some(2); 3]);
    assert!(lab.findings().await.contains(&FindingKind::RingTakenBack));
    // Who has seen it puts it aside.
    lab.admin.end_ring(image(), false).await.unwrap();
    assert!(!lab.findings().await.contains(&FindingKind::RingTakenBack));
    assert_eq!(lab.admin.rings().await.unwrap(), []);
}

#[tokio::test]
async fn somebody_may_leave_machines_out_pass_it_on_or_stop_it() {
    let lab = Lab::new().await;
    lab.begin().await;
    for _ in 0..10 {
        lab.boots(MAC, 20).await;
    }
    let wrong = lab.admin.ring_without(image(), [named("lab-03")].into()).await.unwrap_err();
    assert!(wrong.to_string().contains("nobody waits for lab-03"), "{wrong}");
    let ring = lab.admin.ring_without(image(), [named("lab-02")].into()).await.unwrap();
    assert_eq!(ring.ring.end, Some(RingEnd::Passed), "{}", ring.sentence);

    lab.set(3, VersionState::Retired).await;
    lab.begin().await;
    assert_eq!(lab.ring().await.progress.n_well, 0, "former boots don't count");
    let ring = lab.admin.end_ring(image(), false).await.unwrap();
    assert_eq!((ring.ring.end, lab.state(3)), (Some(RingEnd::Stopped), VersionState::Test));
    assert_eq!(lab.next(), [Some(2); 3]);

    lab.begin().await;
    let ring = lab.admin.end_ring(image(), true).await.unwrap();
    assert_eq!((ring.ring.end, lab.state(3)), (Some(RingEnd::Passed), VersionState::Released));
    let nothing = lab.admin.end_ring(image(), true).await.unwrap_err();
    assert!(nothing.to_string().contains("no room tries"), "{nothing}");
}

#[tokio::test]
async fn what_somebody_says_of_versions_meanwhile_ends_it_with_words() {
    let lab = Lab::new().await;
    lab.begin().await;
    lab.set(3, VersionState::Retired).await;
    let ring = lab.ring().await;
    assert_eq!(ring.ring.end, Some(RingEnd::Stopped));
    assert!(ring.sentence.contains("has made it retired"), "{}", ring.sentence);
    assert_eq!(lab.next(), [Some(2); 3]);
    lab.begin().await;
    lab.set(3, VersionState::Released).await;
    assert_eq!(lab.ring().await.ring.end, Some(RingEnd::Passed));
    lab.set(3, VersionState::Draft).await;
    lab.begin().await;
    add_image(lab.root.path(), "debian", 4);
    add_files(lab.root.path(), "debian", 4);
    let (_version, _initrd) = lab.admin.record_image_version(image(), 4).await.unwrap();
    let ring = lab.ring().await;
    assert_eq!(ring.ring.end, Some(RingEnd::Overtaken));
    assert!(ring.sentence.contains("v4 was released"), "{}", ring.sentence);
    assert_eq!(lab.next(), [Some(4); 3]);
}

#[tokio::test]
async fn a_room_tries_only_what_is_new_and_what_somebody_would_boot() {
    let lab = Lab::new().await;
    let begin = async |version, room: &str| {
        let began = lab.admin.begin_ring(image(), version, room.parse().unwrap(), BTreeSet::new());
        began.await.unwrap_err().to_string()
    };
    for (version, room, words) in [
        (2, "r1", "v2 is released"),
        (1, "r1", "v2 is released"),
        (9, "r1", "there is no debian/v9"),
        (3, "r9", "r9"),
    ] {
        let told = begin(version, room).await;
        assert!(told.contains(words), "{told}");
    }
    // Who is told to boot one certain version takes no part.
    for name in ["lab-01", "lab-02"] {
        let change = MachineChange {
            image: Some(Some("debian/v1".parse().unwrap())),
            ..MachineChange::default()
        };
        lab.service.set_machine(named(name), change).await.unwrap();
    }
    let told = begin(3, "r1").await;
    assert!(told.contains("no machine of the room r1 would try it"), "{told}");
    assert_eq!((lab.state(3), lab.admin.rings().await.unwrap()), (VersionState::Draft, vec![]));
}

#[tokio::test]
async fn a_machine_that_keeps_its_disk_takes_no_part_and_another_room_waits_for_its_turn() {
    let lab = Lab::new().await;
    let change =
        MachineChange { write_mode: Some(WriteMode::Persistent), ..MachineChange::default() };
    lab.service.set_machine(named("lab-02"), change).await.unwrap();
    let without = |names: &[&str]| names.iter().copied().map(named).collect::<BTreeSet<_>>();
    let told = lab.admin.begin_ring(image(), 3, room(), without(&["lab-01"])).await.unwrap_err();
    assert!(told.to_string().contains("none that is waited for"), "{told}");
    let ring = lab.begin().await;
    assert!(!ring.sentence.contains("lab-02"), "{}", ring.sentence);
    assert_eq!(lab.next(), [Some(3), Some(2), Some(2)]);
    let told = lab.admin.ring_without(image(), without(&["lab-01"])).await.unwrap_err();
    assert!(told.to_string().contains("none that is waited for"), "{told}");

    let other: RoomName = "r2".parse().unwrap();
    lab.service.set_room(other.clone(), RoomChange::default()).await.unwrap();
    let change = MachineChange { room: Some(Some(other.clone())), ..MachineChange::default() };
    lab.service.set_machine(named("lab-03"), change).await.unwrap();
    let told = lab.admin.begin_ring(image(), 3, other.clone(), without(&[])).await.unwrap_err();
    assert!(told.to_string().contains("the room r1 tries debian/v3 already"), "{told}");
    lab.admin.end_ring(image(), false).await.unwrap();
    lab.admin.begin_ring(image(), 3, other, without(&[])).await.unwrap();
    assert_eq!(lab.next(), [Some(2), Some(2), Some(3)]);
}
