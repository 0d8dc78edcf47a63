//! What happens as time passes, and when somebody sets the clock.

use super::*;
use crate::{Clock, Now};
use initcfg::PowerVerb;
use wire::Moment;

const YEAR_MS: u64 = 365 * 86_400_000;

/// The clocks of a computer, in a test's hand.
#[derive(Clone)]
pub(super) struct Hands(Arc<Mutex<Now>>);

impl Hands {
    pub(super) fn at(unix_ms: u64) -> Self {
        Self(Arc::new(Mutex::new(Now { unix_ms, moment: Moment::from_millis(5_000) })))
    }

    pub(super) fn clock(&self) -> Clock {
        let hands = Arc::clone(&self.0);
        Clock::from_fn(move || *hands.lock().unwrap())
    }

    fn now(&self) -> Now {
        *self.0.lock().unwrap()
    }

    pub(super) fn pass(&self, ms: u64) {
        let mut now = self.0.lock().unwrap();
        now.unix_ms += ms;
        now.moment = Moment::from_millis(now.moment.as_millis() + ms);
    }

    /// Somebody sets the wall clock.
    pub(super) fn set(&self, unix_ms: u64) {
        self.0.lock().unwrap().unix_ms = unix_ms;
    }
}

fn open(root: &Path, hands: &Hands) -> Service {
    Service::open(Options { clock: hands.clock(), ..options(root) }).unwrap()
}

#[tokio::test]
async fn after_a_minute_of_silence_firmware_was_switched_off_and_on() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(40 * YEAR_MS);
    let service = open(folder.path(), &hands);
    let started = || service.boot_started(MAC, Firmware::Bios);
    let first = started().await.unwrap();
    hands.pass(59_999);
    assert_eq!(started().await.unwrap(), first);
    assert!(service.is_in_firmware(MAC));
    reached(&service, Stage::Dhcp).await;
    hands.pass(59_999);
    assert_eq!(started().await.unwrap(), first, "its last sign counts");
    hands.pass(1);
    assert!(!service.is_in_firmware(MAC));
    let second = started().await.unwrap();
    assert_ne!(second, first);

    // Whichever way the clock is set, what was before is over.
    for unix_ms in [10 * YEAR_MS, 50 * YEAR_MS] {
        let before = started().await.unwrap();
        hands.set(unix_ms);
        assert_ne!(started().await.unwrap(), before);
    }
}

#[tokio::test]
async fn a_machine_boots_whatever_the_clock_does_meanwhile() {
    for set_to in [0, 10 * YEAR_MS, 80 * YEAR_MS] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        add_image(root, "debian-12", 1);
        let hands = Hands::at(40 * YEAR_MS);
        let service = open(root, &hands);
        start_storage(root);
        let name: MachineName = "lab-07".parse().unwrap();
        let image = Some("debian-12".parse().unwrap());
        adopt(&service, MAC, name.clone(), image).await.unwrap();
        pretend_initrds(&service);
        lease(&service, MAC, ADDRESS).await;
        let boot = service.boot_started(MAC, Firmware::Bios).await.unwrap();
        hands.set(set_to);
        service.look_at_wall_clock().await;
        assert_eq!(
            service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await.boot,
            Some(boot)
        );
        for stage in [Stage::Start, Stage::Attach, Stage::Up] {
            hands.pass(1000);
            reached(&service, stage).await;
        }
        let heartbeat =
            initcfg::Heartbeat { boot, mac: MAC, is_last: false, ram_used_percent: None };
        service.heartbeat(heartbeat, None);
        hands.pass(70_000);
        let state = service.machine(&name).unwrap().state;
        assert_eq!(state.word, StateWord::Up, "{}", state.sentence);
        assert!(state.sentence.contains("took 3.0 s"), "{}", state.sentence);
        hands.pass(1);
        assert_eq!(service.machine(&name).unwrap().state.word, StateWord::Off, "it fell silent");
    }
}

#[tokio::test]
async fn an_order_is_given_for_two_minutes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let hands = Hands::at(40 * YEAR_MS);
    let service = open(root, &hands);
    let name: MachineName = "lab-07".parse().unwrap();
    adopt(&service, MAC, name.clone(), None).await.unwrap();
    lease(&service, MAC, ADDRESS).await;
    let boot = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    let file = service.new_host_file(ADDRESS, OWN, boot).await.unwrap().unwrap();
    let token = initcfg::HostConfig::parse(file.as_bytes()).unwrap().token;
    assert!(service.believes(MAC, boot, b"alive", Some(token.tag(b"alive"))).await);
    service.database().write(|_| Ok(())).await.unwrap();

    service.order(&name, PowerVerb::Reboot).await.unwrap();
    hands.pass(119_999);
    assert_eq!(service.open_orders().len(), 1);
    hands.pass(1);
    assert_eq!(service.open_orders(), []);
    // A clock that is set back does not bring it back, nor make the next one last.
    hands.set(39 * YEAR_MS);
    assert_eq!(service.open_orders(), []);
    service.order(&name, PowerVerb::Reboot).await.unwrap();
    assert_eq!(service.open_orders().len(), 1);
    hands.set(38 * YEAR_MS);
    assert_eq!(service.open_orders(), []);
}

#[tokio::test]
async fn leases_are_moved_with_the_wall_clock() {
    for set_to in [YEAR_MS, 80 * YEAR_MS] {
        let folder = tempfile::tempdir().unwrap();
        let hands = Hands::at(40 * YEAR_MS);
        let service = open(folder.path(), &hands);
        let give = |n: u8| {
            let mac = Mac([2, 0, 0, 0, 0, n]);
            let expires_unix = service.lease_clock_unix() + 3600;
            let address = Ipv4Addr::new(10, 77, 0, n);
            service.commit_lease(Lease { mac, address, expires_unix, host_name: None })
        };
        give(1).await.unwrap();
        hands.pass(600_000);
        hands.set(set_to);
        give(2).await.unwrap();
        service.look_at_wall_clock().await;
        give(3).await.unwrap();
        let left = |service: &Service| -> Vec<u64> {
            let now = service.lease_clock_unix();
            let mut leases = service.leases();
            leases.sort_by_key(|lease| lease.mac);
            leases.iter().map(|lease| lease.expires_unix - now).collect()
        };
        assert_eq!(left(&service), [3000, 3600, 3600]);
        // A process that starts now knows only the wall clock.
        hands.pass(60_000);
        assert_eq!(left(&open(folder.path(), &Hands::at(hands.now().unix_ms))), [2940, 3540, 3540]);
        // What NTP changes is no reason to write.
        hands.set(hands.now().unix_ms + 4_000);
        service.look_at_wall_clock().await;
        assert_eq!(left(&service), [2940, 3540, 3540]);
    }
}

#[tokio::test]
async fn leases_that_could_not_be_moved_are_moved_later() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(40 * YEAR_MS);
    let service = open(folder.path(), &hands);
    lease(&service, MAC, ADDRESS).await;
    let expires_unix = service.lease_clock_unix() + 3600;
    service
        .commit_lease(Lease { mac: MAC, address: ADDRESS, expires_unix, host_name: None })
        .await
        .unwrap();
    hands.set(41 * YEAR_MS);
    // What is stored together with the move breaks the whole transaction.
    let other = rusqlite::Connection::open(options(folder.path()).database).unwrap();
    let spoil =
        "CREATE TRIGGER spoil AFTER INSERT ON seen BEGIN SELECT raise(ROLLBACK, 'full'); END";
    other.execute_batch(spoil).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The writer waits with this one; the next two stand behind it.
    let first = service.database().write(|_| Ok(()));
    let spoiled = async {
        let sighting = Sighting {
            mac: MAC,
            firmware: Firmware::Bios,
            address: None,
            uuid: None,
            host_name: None,
        };
        let spoiled = service.saw(sighting);
        other.execute_batch("COMMIT").unwrap();
        spoiled.await
    };
    let (_, (), spoiled) = tokio::join!(first, service.look_at_wall_clock(), spoiled);
    assert!(spoiled.is_err());
    let left = |service: &Service| service.leases()[0].expires_unix - service.lease_clock_unix();
    assert_eq!(left(&service), 3600);
    service.look_at_wall_clock().await;
    assert_eq!(left(&service), 3600);
    assert_eq!(left(&open(folder.path(), &Hands::at(hands.now().unix_ms))), 3600);
}

#[tokio::test]
async fn a_lease_that_never_ends_does_not_keep_the_others_from_being_moved() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(40 * YEAR_MS);
    let service = open(folder.path(), &hands);
    lease(&service, MAC, ADDRESS).await;
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let expires_unix = service.lease_clock_unix() + 3600;
    let address = Ipv4Addr::new(10, 77, 0, 9);
    let ends = Lease { mac, address, expires_unix, host_name: None };
    service.commit_lease(ends.clone()).await.unwrap();
    hands.set(80 * YEAR_MS);
    service.look_at_wall_clock().await;
    assert!(service.leases().contains(&ends));
    let again = open(folder.path(), &Hands::at(hands.now().unix_ms));
    let left: Vec<u64> =
        again.leases().iter().map(|lease| lease.expires_unix - again.lease_clock_unix()).collect();
    assert!(left.contains(&3600), "{left:?}");
    // And one is stored after it.
    lease(&service, MAC, ADDRESS).await;
}

#[tokio::test]
async fn a_lease_never_has_more_time_left_than_it_was_given_for() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(40 * YEAR_MS);
    let service = open(folder.path(), &hands);
    let expires_unix = service.lease_clock_unix() + 7200;
    let lease = Lease { mac: MAC, address: ADDRESS, expires_unix, host_name: None };
    service.commit_lease(lease).await.unwrap();
    let left = |service: &Service| {
        service.leases()[0].expires_unix.saturating_sub(service.lease_clock_unix())
    };

    // The lease has ended long ago when the server starts with an empty battery, and gets its time again.
    let hands = Hands::at(YEAR_MS);
    let service = open(folder.path(), &hands);
    service.bound_leases().await.unwrap();
    assert_eq!(left(&service), 7200);
    hands.set(41 * YEAR_MS);
    service.look_at_wall_clock().await;
    assert_eq!(left(&service), 7200);
    let service = open(folder.path(), &Hands::at(41 * YEAR_MS + 3_600_000));
    service.bound_leases().await.unwrap();
    assert_eq!(left(&service), 3600);
}

#[tokio::test]
async fn a_boot_that_is_under_way_is_not_given_up_because_the_clock_was_set() {
    for set_to in [10 * YEAR_MS, 80 * YEAR_MS] {
        let folder = tempfile::tempdir().unwrap();
        let hands = Hands::at(40 * YEAR_MS);
        let earlier = open(folder.path(), &hands);
        let name: MachineName = "lab-07".parse().unwrap();
        adopt(&earlier, MAC, name.clone(), None).await.unwrap();
        let old = earlier.boot_started(MAC, Firmware::Bios).await.unwrap();
        reached(&earlier, Stage::Config).await;
        hands.pass(3_600_000);
        let service = open(folder.path(), &hands);
        service.boot_started(MAC, Firmware::Bios).await.unwrap();
        let sighting = Sighting {
            mac: MAC,
            firmware: Firmware::Bios,
            address: None,
            uuid: None,
            host_name: None,
        };
        service.saw(sighting).await.unwrap();
        reached(&service, Stage::Link).await;
        hands.set(set_to);
        // Noted by the clock that is right now, before the server has looked.
        service.stage(MAC, Some(old), NewStage::noticed(Stage::Failed, "")).await.unwrap();
        service.look_at_wall_clock().await;
        let state = |service: &Service| service.machine(&name).unwrap().state;
        assert_eq!(state(&service).word, StateWord::Starting, "{}", state(&service).sentence);
        assert_eq!(state(&service).since_unix_ms, Some(set_to));
        hands.pass(60_001);
        assert_eq!(state(&service).word, StateWord::Stuck, "{}", state(&service).sentence);
        assert_eq!(service.view().seen.get(&MAC).unwrap().last_unix, set_to / 1000);
        // What was noted before this process started was right then.
        let boots = service.boots_of(MAC, 9).await.unwrap();
        let old = boots.iter().find(|boot| boot.id == old).unwrap();
        assert_eq!(old.started_unix_ms, 40 * YEAR_MS);
        let failed = old.stages.iter().find(|event| event.stage == Stage::Failed).unwrap();
        assert_eq!(failed.at_unix_ms, set_to);
    }
}
