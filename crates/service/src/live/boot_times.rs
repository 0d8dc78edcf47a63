//! How many boots reached which stage, and how long each stage took.

use initcfg::Stage;
use model::Boot;
use std::sync::{Mutex, PoisonError};

/// Upper bounds of the classes, in milliseconds. What takes longer is in one more.
const BOUNDS_MS: [u64; 12] =
    [250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000, 60_000, 120_000, 300_000, 900_000];

/// Counts what machines' boots reach since the start of this process.
#[derive(Debug, Default)]
pub(crate) struct BootTimes {
    stages: Mutex<[StageTimes; Stage::ALL.len()]>,
    whole: Mutex<StageTimes>,
}

/// How long something took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// How many took at most as long as each of [`StageTimes::bounds_ms`] and longer than the one before it; the last
    /// ones took longer than all.
    pub counts: [u64; BOUNDS_MS.len() + 1],
    /// All of them together, in milliseconds.
    pub sum_ms: u64,
}

impl StageTimes {
    /// Upper bounds in milliseconds; `None`: there is none.
    pub fn bounds_ms() -> impl Iterator<Item = Option<u64>> {
        BOUNDS_MS.into_iter().map(Some).chain([None])
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn add(&mut self, ms: u64) {
        let class = BOUNDS_MS.iter().position(|&bound| ms <= bound).unwrap_or(BOUNDS_MS.len());
        self.counts[class] += 1;
        self.sum_ms = self.sum_ms.saturating_add(ms);
    }
}

impl BootTimes {
    /// The boot has reached this stage just now.
    pub(crate) fn reached(&self, boot: &Boot, stage: Stage) {
        let Some(event) = boot.stages.iter().find(|event| event.stage == stage) else { return };
        let before = boot.stages.iter().filter(|other| other.stage != stage);
        let before = before.map(|other| other.at_unix_ms).filter(|&at| at <= event.at_unix_ms);
        let since = before.max().unwrap_or(boot.started_unix_ms);
        let took_ms = event.at_unix_ms.saturating_sub(since);
        let index = Stage::ALL.iter().position(|&it| it == stage);
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = index.and_then(|index| stages.get_mut(index)) {
            times.add(took_ms);
        }
        drop(stages);
        if let Some(took_ms) = boot.took_ms().filter(|_| stage == Stage::Up) {
            self.whole.lock().unwrap_or_else(PoisonError::into_inner).add(took_ms);
        }
    }

    /// How long each stage took, from the one before it.
    pub(crate) fn by_stage(&self) -> Vec<(Stage, StageTimes)> {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Stage::ALL.into_iter().zip(stages).collect()
    }

    /// How long boots took from their start until the system was up.
    pub(crate) fn whole(&self) -> StageTimes {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::StageEvent;

    #[test]
    fn a_stage_takes_as_long_as_it_is_after_the_one_before_it() {
        let event = |stage, at_unix_ms| StageEvent { stage, at_unix_ms, detail: String::new() };
        let mut boot = Boot {
            id: 7,
            mac: wire::Mac([2, 0, 0, 0, 0, 1]),
            machine: None,
            firmware: model::Firmware::Bios,
            started_unix_ms: 10_000,
            image: None,
            root: None,
            stages: vec![],
        };
        let times = BootTimes::default();
        for (stage, at) in [(Stage::Loader, 11_500), (Stage::Config, 11_700), (Stage::Up, 40_000)] {
            boot.stages.push(event(stage, at));
            times.reached(&boot, stage);
        }
        let of = |stage| times.by_stage().into_iter().find(|(it, _)| *it == stage).unwrap().1;
        assert_eq!((of(Stage::Loader).sum_ms, of(Stage::Loader).count()), (1_500, 1));
        assert_eq!((of(Stage::Config).sum_ms, of(Stage::Config).counts[0]), (200, 1));
        assert_eq!(of(Stage::Up).sum_ms, 28_300);
        assert_eq!(of(Stage::Failed), StageTimes::default());
        assert_eq!((times.whole().sum_ms, times.whole().counts[7]), (30_000, 1));

        // The clock was set back meanwhile.
        boot.stages.push(event(Stage::Failed, 9_000));
        times.reached(&boot, Stage::Failed);
        assert_eq!((of(Stage::Failed).sum_ms, of(Stage::Failed).count()), (0, 1));
    }
}
