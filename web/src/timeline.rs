//! The stages of a boot as rows with bars.
//!
//! A table whose bars are small drawings in percent: on a phone the words keep their size, and readers
//! of the screen get the numbers.

use crate::text;
use model::{Boot, Stage};

/// Boots that tell how long a stage usually takes.
const USUAL_BOOTS_MIN: usize = 3;

/// One row: what was done between the stage before and this one.
pub(crate) struct Row {
    pub(crate) label: &'static str,
    pub(crate) detail: String,
    pub(crate) took: String,
    /// Exact time of its end.
    pub(crate) at: String,
    pub(crate) class: &'static str,
    /// Start and width of the bar, percent.
    pub(crate) x: String,
    pub(crate) width: String,
    /// Where the bar usually ends, percent.
    pub(crate) usual_x: Option<String>,
}

/// A boot's stages on a common scale.
pub(crate) struct Timeline {
    pub(crate) rows: Vec<Row>,
    /// Numbers of the scale: text and place in percent.
    pub(crate) ticks: Vec<(String, String)>,
    pub(crate) has_usual: bool,
}

/// Draws a boot; `history` are earlier boots of the same machine.
pub(crate) fn timeline(boot: &Boot, history: &[Boot], now_unix_ms: u64) -> Timeline {
    let mut bars = bars(boot);
    if !boot.is_over()
        && let Some(next) = next_stage(boot)
    {
        let from = bars.last().map_or(0, |bar| bar.until);
        let until = now_unix_ms.saturating_sub(boot.started_unix_ms).max(from);
        bars.push(Bar { stage: next, from, until, detail: String::new(), is_open: true });
    }
    let end_ms = bars.iter().map(|bar| bar.until).max().unwrap_or(0).max(1000);
    let step_ms = step(end_ms);
    // A little room on the right, so that the longest bar does not touch the edge.
    let scale_ms = end_ms as f64 * 1.02;
    let percent = |ms: u64| format!("{:.2}%", ms as f64 * 100.0 / scale_ms);
    let rows: Vec<Row> = bars
        .into_iter()
        .map(|bar| {
            let took_ms = bar.until - bar.from;
            let usual_ms = usual(history, bar.stage);
            let is_slow = usual_ms.is_some_and(|usual| took_ms > 2 * usual + 1000);
            let class = match bar.stage {
                Stage::Failed => "fail",
                _ if bar.is_open => "open",
                _ if is_slow => "slow",
                Stage::Dhcp => "firmware",
                _ => "busy",
            };
            let mut detail = bar.detail;
            if let Some(usual_ms) = usual_ms.filter(|_| is_slow) {
                let usual = format!("usually {}", text::duration_ms(usual_ms));
                detail = if detail.is_empty() { usual } else { format!("{detail}; {usual}") };
            }
            Row {
                label: label(bar.stage),
                detail,
                took: text::duration_ms(took_ms),
                at: text::clock(boot.started_unix_ms + bar.until),
                class,
                x: percent(bar.from),
                // Even the shortest stage is to be seen.
                width: percent(took_ms.max(end_ms / 150)),
                usual_x: usual_ms.map(|usual| percent((bar.from + usual).min(end_ms))),
            }
        })
        .collect();
    let ticks = (0..=end_ms / step_ms)
        .map(|n| (format!("{} s", n * step_ms / 1000), percent(n * step_ms)))
        .collect();
    let has_usual = rows.iter().any(|row| row.usual_x.is_some());
    Timeline { rows, ticks, has_usual }
}

struct Bar {
    stage: Stage,
    from: u64,
    until: u64,
    detail: String,
    is_open: bool,
}

/// What was done, in milliseconds since the boot's start.
fn bars(boot: &Boot) -> Vec<Bar> {
    let mut from = 0;
    let bar = |event: &model::StageEvent| {
        let until = event.at_unix_ms.saturating_sub(boot.started_unix_ms).max(from);
        let bar =
            Bar { stage: event.stage, from, until, detail: event.detail.clone(), is_open: false };
        from = until;
        bar
    };
    boot.stages.iter().map(bar).collect()
}

fn next_stage(boot: &Boot) -> Option<Stage> {
    let last = boot.current().map(|event| event.stage);
    Stage::ALL.into_iter().find(|stage| last.is_none_or(|last| *stage > last))
}

/// How long a stage takes in the middle of the boots that came up.
fn usual(history: &[Boot], stage: Stage) -> Option<u64> {
    let came_up = |boot: &&Boot| boot.stages.iter().any(|event| event.stage == Stage::Up);
    let mut times: Vec<u64> = history
        .iter()
        .filter(came_up)
        .filter_map(|boot| bars(boot).into_iter().find(|bar| bar.stage == stage))
        .map(|bar| bar.until - bar.from)
        .collect();
    times.sort_unstable();
    (times.len() >= USUAL_BOOTS_MIN).then(|| times[times.len() / 2])
}

/// Distance of the numbers on the scale: at most six of them.
fn step(end_ms: u64) -> u64 {
    let steps = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600].map(|seconds| seconds * 1000);
    steps.into_iter().find(|step| end_ms / step <= 5).unwrap_or_else(|| end_ms.div_ceil(5))
}

const fn label(stage: Stage) -> &'static str {
    match stage {
        Stage::Dhcp => "Address (DHCP)",
        Stage::Loader => "Loader (TFTP)",
        Stage::Config => "Configuration",
        Stage::Kernel => "Kernel",
        Stage::Initrd => "Initrd",
        Stage::Start => "Kernel starts",
        Stage::Modules => "Drivers",
        Stage::Link => "Network link",
        Stage::Address => "Network address",
        Stage::Attach => "Root disk",
        Stage::Mount => "Root mounted",
        Stage::Handover => "Handed over",
        Stage::Up => "System start",
        Stage::Failed => "Failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Firmware, StageEvent};
    use wire::Mac;

    fn boot(stages: &[(Stage, u64)]) -> Boot {
        Boot {
            id: 1,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            machine: None,
            firmware: Firmware::Bios,
            started_unix_ms: 1_000_000,
            image: None,
            root: None,
            stages: stages
                .iter()
                .map(|&(stage, after_ms)| StageEvent {
                    stage,
                    at_unix_ms: 1_000_000 + after_ms,
                    detail: String::new(),
                })
                .collect(),
        }
    }

    #[test]
    fn bars_follow_each_other_and_the_last_grows() {
        let boot = boot(&[(Stage::Dhcp, 500), (Stage::Loader, 1500)]);
        let drawn = timeline(&boot, &[], 1_004_000);
        let rows: Vec<_> =
            drawn.rows.iter().map(|row| (row.label, row.took.as_str(), row.class)).collect();
        assert_eq!(
            rows,
            [
                ("Address (DHCP)", "0.5 s", "firmware"),
                ("Loader (TFTP)", "1.0 s", "busy"),
                ("Configuration", "2.5 s", "open"),
            ]
        );
        assert_eq!(drawn.ticks.len(), 5);
        assert!(!drawn.has_usual);
    }

    #[test]
    fn a_slow_stage_says_what_is_usual() {
        let usual = boot(&[(Stage::Kernel, 1000), (Stage::Up, 20_000)]);
        let slow = boot(&[(Stage::Kernel, 9000), (Stage::Up, 28_000)]);
        let drawn = timeline(&slow, &[usual.clone(), usual.clone(), usual], 0);
        assert_eq!((drawn.rows[0].class, drawn.rows[0].detail.as_str()), ("slow", "usually 1.0 s"));
        assert_eq!(drawn.rows[1].class, "busy");
    }

    #[test]
    fn clocks_that_jump_back_do_no_harm() {
        let boot = boot(&[(Stage::Kernel, 9000), (Stage::Up, 100)]);
        assert_eq!(timeline(&boot, &[], 0).rows.len(), 2);
        assert_eq!(step(0), 1000);
        assert!(step(u64::MAX / 2) > 0);
    }
}
