//! What is said of tests that have run.

use super::job::Outcome;
use std::process::ExitCode;

/// How many of the slowest tests are named at the end.
const SLOWEST: usize = 10;

/// Says what came of a job.
pub(crate) fn line(outcome: &Outcome) {
    let word = match outcome {
        Outcome { n_failed: 1.., .. } => "FAILED",
        Outcome { n_passed: 0, skipped, .. } if !skipped.is_empty() => "skipped",
        _ => "ok",
    };
    println!("{word:7} {}", times(outcome));
    for reason in &outcome.skipped {
        println!("        skipped: {reason}");
    }
}

/// Shows what failed and what was slowest. The last line is for programs, too.
pub(crate) fn summary(outcomes: &[Outcome]) -> ExitCode {
    let failed = || outcomes.iter().filter(|outcome| outcome.n_failed > 0);
    for outcome in failed() {
        println!("\n--- {} ---\n{}", outcome.name, outcome.output.trim());
    }
    let mut slowest: Vec<&Outcome> = outcomes.iter().collect();
    slowest.sort_by_key(|outcome| std::cmp::Reverse(outcome.took));
    println!("\nThe slowest, and how long they kept a processor at work:");
    for outcome in slowest.iter().take(SLOWEST) {
        println!("        {}", times(outcome));
    }
    for outcome in failed() {
        println!("FAILED  {}", outcome.name);
    }
    println!("\n{}", closing_line(outcomes));
    ExitCode::from(u8::from(failed().next().is_some()))
}

fn times(outcome: &Outcome) -> String {
    let (took, at_work) = (outcome.took.as_secs_f64(), outcome.at_work.as_secs_f64());
    format!("{took:6.1} s {at_work:6.1} s  {}", outcome.name)
}

/// Continuous integration reads this.
fn closing_line(outcomes: &[Outcome]) -> String {
    let sum = |number: fn(&Outcome) -> u64| outcomes.iter().map(number).sum::<u64>();
    let (n_passed, n_failed) = (sum(|one| one.n_passed), sum(|one| one.n_failed));
    let n_skipped = sum(|one| one.skipped.len() as u64);
    let skipped = if n_skipped > 0 { format!(", {n_skipped} skipped") } else { String::new() };
    format!("{n_passed} passed, {n_failed} failed{skipped}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_closing_line_counts_all_tests() {
        let outcome = |n_passed, n_failed, skipped: &[&str]| Outcome {
            name: String::new(),
            n_passed,
            n_failed,
            skipped: skipped.iter().map(|&reason| reason.to_owned()).collect(),
            output: String::new(),
            took: Duration::ZERO,
            at_work: Duration::ZERO,
        };
        let all = [outcome(3, 0, &[]), outcome(0, 0, &[])];
        assert_eq!(closing_line(&all), "3 passed, 0 failed");
        let all = [outcome(3, 1, &[]), outcome(0, 0, &["boot: it needs root"])];
        assert_eq!(closing_line(&all), "3 passed, 1 failed, 1 skipped");
    }
}
