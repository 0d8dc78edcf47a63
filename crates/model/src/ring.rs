//! A version that one room tries before all get it: who takes part, what has come of it, and what follows from that.

use crate::{Boot, BootId, Follows, ImageName, Machine, MachineName, RoomName, WriteMode};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use initcfg::{Stage, is_images_fault};

/// So many boots must have been up in the usual time before a version passes to all.
pub const RING_BOOTS_WANTED: usize = 10;

/// A boot that takes more than this share of the usual time, in percent, is up and does not count.
const USUAL_PERCENT: u64 = 130;

/// So many failed boots that are the image's own fault take a version back. One may be an accident.
const RING_FAILURES_MAX: usize = 2;

/// Names and failures that are told; those beyond are counted.
const TOLD_MAX: usize = 4;

/// How a ring has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RingEnd {
    /// All get the version.
    Passed,
    /// It was taken back by itself, since boots failed by its fault.
    TakenBack,
    /// Somebody has stopped it.
    Stopped,
    /// A newer version was released meanwhile.
    Overtaken,
}

impl RingEnd {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Passed, Self::TakenBack, Self::Stopped, Self::Overtaken];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::TakenBack => "taken_back",
            Self::Stopped => "stopped",
            Self::Overtaken => "overtaken",
        }
    }

    /// The one with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.word() == word)
    }
}

/// A version that one room tries. As long as it does, the version is *to be tested*.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Ring {
    /// The image. It has one ring at most.
    pub image: ImageName,
    /// The version.
    pub version: u32,
    /// Who tries it.
    pub room: RoomName,
    /// When it began, milliseconds since 1970.
    pub started_unix_ms: u64,
    /// Who has begun it.
    pub by: String,
    /// Machines of the room that nobody waits for.
    pub without: BTreeSet<MachineName>,
    /// How it has ended; `None`: it goes on.
    pub end: Option<RingEnd>,
    /// Why it has ended so, in words; empty as long as it goes on.
    pub why: String,
}

impl Ring {
    /// Whether the machine gets the version by it: it is in the room, and told to boot no other image and no certain version, and keeps
    /// no disk, which would stay on the version on which it was made.
    pub fn is_for(&self, machine: &Machine) -> bool {
        let follows = |choice: &crate::ImageChoice| {
            choice.image == self.image && !matches!(choice.follows, Follows::Version(_))
        };
        self.end.is_none()
            && machine.edit.is_none()
            && machine.writes() != WriteMode::Persistent
            && machine.capture.is_none()
            && machine.room.as_ref() == Some(&self.room)
            && machine.image.as_ref().is_some_and(follows)
    }
}

/// How a boot of a version that is tried has ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RingOutcome {
    /// The system was up after so many milliseconds.
    Up(u64),
    /// It failed, and that is the image's fault; why.
    Failed(String),
}

impl RingOutcome {
    /// What a boot says about its image; `None`: nothing. `is_left`: the machine begins another boot instead of it.
    pub fn of(boot: &Boot, is_left: bool) -> Option<Self> {
        let last = boot.current()?;
        match last.stage {
            Stage::Up => Some(Self::Up(boot.took_ms()?)),
            Stage::Failed => {
                is_images_fault(&last.detail).then(|| Self::Failed(last.detail.clone()))
            }
            // Nothing runs yet that could tell why.
            Stage::Initrd if is_left => Some(Self::Failed(
                "its kernel and initrd were fetched, and nothing was heard of it: probably the kernel panics before it can tell"
                    .to_string(),
            )),
            _ => None,
        }
    }
}

/// A boot of a version that is tried, which tells something.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RingBoot {
    /// Its number.
    pub boot: BootId,
    /// The machine.
    pub machine: MachineName,
    /// How it has ended.
    pub outcome: RingOutcome,
}

/// What a ring does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingNext {
    /// It waits for more boots.
    Wait,
    /// All get the version.
    Pass,
    /// The version is taken back, and why.
    TakeBack(String),
}

/// How far a ring is.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RingProgress {
    /// How many machines take part, those aside that nobody waits for.
    pub n_machines: usize,
    /// Which of these were not up with the version yet.
    pub waits_for: Vec<MachineName>,
    /// Boots that were up in the usual time.
    pub n_well: usize,
    /// So many of them are wanted.
    pub n_wanted: usize,
    /// Boots that were up, and took longer.
    pub n_slow: usize,
    /// Boots that failed by the image's fault.
    pub failures: Vec<RingBoot>,
}

impl RingProgress {
    /// How far a ring is: `machines` take part, `boots` were so far, and `usual_ms` is how long those of each machine took before.
    pub fn of(
        ring: &Ring,
        machines: &[&Machine],
        boots: &[RingBoot],
        usual_ms: &BTreeMap<MachineName, u64>,
    ) -> Self {
        let in_room = median(usual_ms.values().copied().collect());
        let is_well = |machine: &MachineName, took_ms: u64| {
            let usual = usual_ms.get(machine).copied().or(in_room);
            usual.is_none_or(|usual| took_ms <= usual.saturating_mul(USUAL_PERCENT) / 100)
        };
        let mut up = BTreeSet::new();
        let mut progress = Self { n_wanted: RING_BOOTS_WANTED, ..Self::default() };
        for boot in boots {
            match &boot.outcome {
                RingOutcome::Up(took_ms) => {
                    up.insert(&boot.machine);
                    match is_well(&boot.machine, *took_ms) {
                        true => progress.n_well += 1,
                        false => progress.n_slow += 1,
                    }
                }
                RingOutcome::Failed(_) => progress.failures.push(boot.clone()),
            }
        }
        let awaited = machines.iter().filter(|machine| ring.is_for(machine));
        let awaited = awaited.filter(|machine| !ring.without.contains(&machine.name));
        for machine in awaited {
            progress.n_machines += 1;
            if !up.contains(&machine.name) {
                progress.waits_for.push(machine.name.clone());
            }
        }
        progress
    }

    /// How many of the machines were up with the version.
    pub const fn n_booted(&self) -> usize {
        self.n_machines - self.waits_for.len()
    }

    /// What follows.
    pub fn next(&self) -> RingNext {
        if self.failures.len() >= RING_FAILURES_MAX {
            return RingNext::TakeBack(self.failures_in_words());
        }
        let is_done = self.n_machines > 0 && self.waits_for.is_empty();
        match is_done && self.n_well >= self.n_wanted {
            true => RingNext::Pass,
            false => RingNext::Wait,
        }
    }

    /// What it waits for, in words.
    pub fn in_words(&self) -> String {
        let mut waits = Vec::new();
        if self.n_machines == 0 {
            waits.push("no machine of the room takes part any more".to_string());
        } else if !self.waits_for.is_empty() {
            waits.push(format!("it waits for {} to be up with it", told(&self.waits_for)));
        }
        let missing = self.n_wanted.saturating_sub(self.n_well);
        if missing > 0 {
            let boots = if missing == 1 { "boot" } else { "boots" };
            waits.push(format!("{missing} more {boots} must be up in the usual time"));
        }
        if self.n_slow > 0 {
            waits.push(format!("{} took longer than usual", self.n_slow));
        }
        if !self.failures.is_empty() {
            waits.push(format!("failed: {}", self.failures_in_words()));
        }
        format!(
            "{} of {} machines were up with it, {} of {} boots in the usual time; {}",
            self.n_booted(),
            self.n_machines,
            self.n_well.min(self.n_wanted),
            self.n_wanted,
            waits.join("; ")
        )
    }

    fn failures_in_words(&self) -> String {
        let one = |failure: &RingBoot| match &failure.outcome {
            RingOutcome::Failed(why) => {
                format!("{} (boot {}): {why}", failure.machine, failure.boot)
            }
            RingOutcome::Up(_) => String::new(),
        };
        let shown: Vec<String> = self.failures.iter().take(TOLD_MAX).map(one).collect();
        shown.join("; ")
    }
}

/// `lab-01, lab-02 and 3 more`.
fn told(names: &[MachineName]) -> String {
    let shown: Vec<&str> = names.iter().take(TOLD_MAX).map(MachineName::as_str).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        n_more => format!("{} and {n_more} more", shown.join(", ")),
    }
}

/// The one in the middle; of two the smaller one.
pub fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ImageChoice, StageEvent};
    use wire::{Firmware, Mac};

    fn name(text: &str) -> MachineName {
        text.parse().unwrap()
    }

    fn machine(number: u8, room: Option<&str>, image: &str) -> Machine {
        let mut machine = crate::plan::tests::lab_07();
        machine.name = name(&format!("lab-{number}"));
        machine.room = room.map(|room| room.parse().unwrap());
        machine.image = image.parse::<ImageChoice>().ok();
        machine
    }

    fn ring() -> Ring {
        Ring {
            image: "debian".parse().unwrap(),
            version: 4,
            room: "r1".parse().unwrap(),
            started_unix_ms: 0,
            by: "root".into(),
            without: BTreeSet::new(),
            end: None,
            why: String::new(),
        }
    }

    fn up(machine: &str, took_ms: u64) -> RingBoot {
        RingBoot { boot: 7, machine: name(machine), outcome: RingOutcome::Up(took_ms) }
    }

    fn failed(machine: &str) -> RingBoot {
        let outcome = RingOutcome::Failed("its system is in emergency mode".into());
        RingBoot { boot: 8, machine: name(machine), outcome }
    }

    #[test]
    fn who_is_told_to_boot_something_else_takes_no_part() {
        let ring = ring();
        for (image, room, is_in) in [
            ("debian", Some("r1"), true),
            ("debian/test", Some("r1"), true),
            ("debian/v4", Some("r1"), false),
            ("xfce", Some("r1"), false),
            ("debian", Some("r2"), false),
            ("debian", None, false),
        ] {
            assert_eq!(ring.is_for(&machine(1, room, image)), is_in, "{image} {room:?}");
        }
        let ended = Ring { end: Some(RingEnd::Stopped), ..ring };
        assert!(!ended.is_for(&machine(1, Some("r1"), "debian")));
    }

    #[test]
    fn a_ring_passes_when_each_machine_and_ten_boots_were_up_in_time() {
        let [one, two, elsewhere] =
            [(1, "debian"), (2, "debian"), (3, "xfce")].map(|(n, it)| machine(n, Some("r1"), it));
        let machines = [&one, &two, &elsewhere];
        let usual = BTreeMap::from([(name("lab-1"), 20_000)]);
        let of = |boots: &[RingBoot], ring: &Ring| RingProgress::of(ring, &machines, boots, &usual);
        let mut ring = ring();
        let mut boots: Vec<RingBoot> = (0..10).map(|_| up("lab-1", 26_000)).collect();
        let progress = of(&boots, &ring);
        assert_eq!((progress.n_booted(), progress.n_machines, progress.n_well), (1, 2, 10));
        assert_eq!(progress.next(), RingNext::Wait);
        assert!(progress.in_words().contains("it waits for lab-2"), "{}", progress.in_words());
        // Somebody says that it is off.
        ring.without.insert(name("lab-2"));
        assert_eq!(of(&boots, &ring).next(), RingNext::Pass);
        ring.without.clear();
        // Nobody knows what is usual for it: as in its room.
        boots.push(up("lab-2", 26_001));
        assert_eq!((of(&boots, &ring).n_slow, of(&boots, &ring).next()), (1, RingNext::Pass));
        boots.remove(0);
        let progress = of(&boots, &ring);
        assert_eq!(progress.next(), RingNext::Wait);
        let words = progress.in_words();
        assert!(words.contains("1 more boot must") && words.contains("1 took longer"), "{words}");
        let none = RingProgress::of(&ring, &[&elsewhere], &boots, &usual);
        assert_eq!(none.next(), RingNext::Wait, "a room that is empty has tried nothing");
    }

    #[test]
    fn two_failures_take_it_back_and_one_does_not() {
        let one = machine(1, Some("r1"), "debian");
        let of =
            |boots: &[RingBoot]| RingProgress::of(&ring(), &[&one], boots, &BTreeMap::new()).next();
        let mut boots: Vec<RingBoot> = (0..9).map(|_| up("lab-1", 1)).collect();
        boots.push(failed("lab-1"));
        assert_eq!(of(&boots), RingNext::Wait);
        boots.push(failed("lab-1"));
        boots.push(up("lab-1", 1));
        let RingNext::TakeBack(why) = of(&boots) else { panic!("it goes on") };
        assert!(why.starts_with("lab-1 (boot 8): its system is in emergency mode; lab-1"), "{why}");
    }

    #[test]
    fn a_boot_tells_something_only_when_it_is_over() {
        let boot = |stages: &[(Stage, &str)]| Boot {
            id: 1,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            machine: None,
            firmware: Firmware::Bios,
            started_unix_ms: 1_000,
            image: None,
            root: None,
            stages: stages
                .iter()
                .map(|&(stage, detail)| StageEvent {
                    stage,
                    at_unix_ms: 5_000,
                    detail: detail.into(),
                })
                .collect(),
        };
        let of = |stages: &[(Stage, &str)], is_left| RingOutcome::of(&boot(stages), is_left);
        assert_eq!(of(&[], true), None);
        assert_eq!(
            of(&[(Stage::Config, ""), (Stage::Up, "")], false),
            Some(RingOutcome::Up(4_000))
        );
        let cable = "no answer from the storage server; check the cable";
        assert_eq!(of(&[(Stage::Failed, cable)], false), None);
        let emergency = "its system is in emergency mode; its screen says more";
        assert_eq!(
            of(&[(Stage::Failed, emergency)], false),
            Some(RingOutcome::Failed(emergency.into()))
        );
        assert_eq!(of(&[(Stage::Initrd, "")], false), None);
        assert!(matches!(of(&[(Stage::Initrd, "")], true), Some(RingOutcome::Failed(_))));
        assert_eq!(of(&[(Stage::Handover, "")], true), None, "somebody may have switched it off");
    }
}
