//! What is told by alerts: to whom what is due, and what came of it.

use crate::options::{AlertOptions, Channel};
use model::{Finding, FindingKind, Level, Passes};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wire::Moment;

/// How long something must be known before it is told: what is found together is told together, and what passes at
/// once not at all.
const SETTLES_AFTER: Duration = Duration::from_secs(30);

/// How long something must be gone before it is told to be over; until then it may come back unnoticed.
const OVER_AFTER: Duration = Duration::from_secs(5 * 60);

/// Time between two messages, unless there is a new alarm.
const APART: Duration = Duration::from_secs(5 * 60);

/// Messages are counted over this time.
const HOUR: Duration = Duration::from_secs(3600);

/// Time until the first message that failed is tried again; it doubles each time.
const RETRY_FIRST: Duration = Duration::from_secs(30);

/// The longest such time.
const RETRY_MAX: Duration = Duration::from_secs(15 * 60);

/// Attempts that fail in a row before it is a finding: many mail servers refuse a stranger's first one.
const FAILURES_UNTOLD: u32 = 2;

/// Things that one channel keeps in mind. What comes beyond is not told there, but on the page.
const ENTRIES_MAX: usize = 4096;

/// Something that is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AlertItem {
    /// What it is.
    pub kind: FindingKind,
    /// How bad it is.
    pub level: Level,
    /// What its subject is: `machine`, `server` and so on.
    pub about: String,
    /// The name of what it is about.
    pub subject: String,
    /// Why, in a sentence.
    pub cause: String,
    /// What to do, in a sentence.
    pub remedy: String,
    /// Since when it was so, milliseconds since 1970.
    pub since_unix_ms: u64,
}

/// A message. What is in it has an order: the worst first, and what has one cause side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Alert {
    /// What is so, and was not told yet.
    pub found: Vec<AlertItem>,
    /// What was told, and is over.
    pub resolved: Vec<AlertItem>,
    /// What came and went while nothing could be sent.
    pub passed: Vec<AlertItem>,
}

/// How many messages went by one way since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertCount {
    /// The way.
    pub channel: Channel,
    /// Messages that were taken.
    pub n_sent: u64,
    /// Attempts that failed, and recipients to whom a message did not go that others got.
    pub n_failed: u64,
}

/// All channels.
#[derive(Debug)]
pub(crate) struct Alerts {
    options: AlertOptions,
    channels: Mutex<BTreeMap<Channel, Outbox>>,
}

/// What is found, by kind, what it is about and its name.
pub(crate) type Key = (FindingKind, String, String);

#[derive(Debug, Default)]
struct Outbox {
    entries: BTreeMap<Key, Entry>,
    sent: VecDeque<Moment>,
    n_failures: u32,
    retry_at: Option<Moment>,
    trouble: Option<String>,
    /// Recipients who did not get the last message, which others got.
    n_left_out: u32,
    n_sent: u64,
    n_failed: u64,
}

#[derive(Debug)]
struct Entry {
    item: AlertItem,
    first: Moment,
    gone: Option<Moment>,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Perhaps it passes at once.
    Settling,
    /// It is to be told, whether it passes or not.
    Due,
    Told,
}

impl AlertItem {
    pub(crate) fn key(&self) -> Key {
        (self.kind, self.about.clone(), self.subject.clone())
    }

    fn of(finding: &Finding) -> Self {
        Self {
            kind: finding.kind,
            level: finding.level,
            about: finding.subject.about().to_owned(),
            subject: finding.subject.to_string(),
            cause: finding.cause.clone(),
            remedy: finding.remedy.clone(),
            since_unix_ms: finding.since_unix_ms,
        }
    }
}

impl Alerts {
    pub(crate) fn new(options: AlertOptions) -> Self {
        let channels = options.channels.iter().map(|&channel| (channel, Outbox::default()));
        Self { channels: Mutex::new(channels.collect()), options }
    }

    /// Whether anything is told to anybody.
    pub(crate) fn are_wanted(&self) -> bool {
        !self.options.channels.is_empty()
    }

    /// An earlier process has told this, and not that it is over.
    pub(crate) fn remember(&self, channel: Channel, item: AlertItem, now: Moment) {
        if let Some(outbox) = self.lock().get_mut(&channel) {
            let entry = Entry { first: now, gone: Some(now), progress: Progress::Told, item };
            outbox.entries.insert(entry.item.key(), entry);
        }
    }

    /// This is all that is found now.
    pub(crate) fn look(&self, findings: &[Finding], now: Moment) {
        for outbox in self.lock().values_mut() {
            let is_failing = outbox.n_failures > 0;
            let is_told = |finding: &&Finding| {
                // Nobody is told by a way that it does not work.
                finding.level <= self.options.least
                    && !(is_failing && finding.kind == FindingKind::AlertsNotSent)
            };
            outbox.look(findings.iter().filter(is_told), now);
        }
    }

    /// What is to be sent now.
    pub(crate) fn due(&self, channel: Channel, now: Moment) -> Option<Alert> {
        self.lock().get_mut(&channel)?.due(self.options.per_hour, now)
    }

    /// It was sent, and to how many recipients of several it was not; or why not.
    pub(crate) fn done(
        &self,
        channel: Channel,
        alert: &Alert,
        sent: Result<u32, String>,
        now: Moment,
    ) {
        if let Some(outbox) = self.lock().get_mut(&channel) {
            outbox.done(alert, sent, now);
        }
    }

    /// Why nothing can be sent by a way.
    pub(crate) fn troubles(&self) -> Vec<(Channel, String)> {
        let channels = self.lock();
        let troubles = channels.iter().filter(|(_, it)| it.n_failures >= FAILURES_UNTOLD);
        troubles.filter_map(|(&channel, it)| Some((channel, it.trouble.clone()?))).collect()
    }

    /// How many recipients did not get the last message, which others got.
    pub(crate) fn n_left_out(&self) -> u32 {
        self.lock().values().map(|outbox| outbox.n_left_out).sum()
    }

    pub(crate) fn counts(&self) -> Vec<AlertCount> {
        let count = |(&channel, outbox): (&Channel, &Outbox)| AlertCount {
            channel,
            n_sent: outbox.n_sent,
            n_failed: outbox.n_failed,
        };
        self.lock().iter().map(count).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Channel, Outbox>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbox {
    fn look<'a>(&mut self, findings: impl Iterator<Item = &'a Finding>, now: Moment) {
        let mut is_there = Vec::new();
        for finding in findings {
            let item = AlertItem::of(finding);
            let key = item.key();
            let has_place = self.entries.len() < ENTRIES_MAX;
            match self.entries.get_mut(&key) {
                Some(entry) => (entry.item, entry.gone) = (item, None),
                None if has_place => {
                    let progress = Progress::Settling;
                    self.entries
                        .insert(key.clone(), Entry { item, first: now, gone: None, progress });
                }
                None => {}
            }
            is_there.push(key);
        }
        is_there.sort_unstable();
        self.entries.retain(|key, entry| {
            if is_there.binary_search(key).is_err() {
                entry.gone.get_or_insert(now);
            } else if entry.progress == Progress::Settling
                && now.since(entry.first) >= SETTLES_AFTER
            {
                entry.progress = Progress::Due;
            }
            entry.progress != Progress::Settling || !entry.is_over(now)
        });
    }

    fn due(&mut self, per_hour: u32, now: Moment) -> Option<Alert> {
        if self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        while self.sent.front().is_some_and(|&at| now.since(at) >= HOUR) {
            self.sent.pop_front();
        }
        let mut alert = Alert::default();
        for entry in self.entries.values() {
            let list = match (entry.progress, entry.is_over(now)) {
                (Progress::Due, false) => &mut alert.found,
                (Progress::Due, true) => &mut alert.passed,
                (Progress::Told, true) => &mut alert.resolved,
                (Progress::Settling, _) | (Progress::Told, false) => continue,
            };
            list.push(entry.item.clone());
        }
        if alert == Alert::default() {
            return None;
        }
        let is_urgent = alert.found.iter().any(|item| item.level == Level::Alarm);
        let is_apart = self.sent.back().is_none_or(|&last| now.since(last) >= APART);
        let kept_for_alarms = u32::from(!is_urgent && per_hour > 1);
        let has_place = self.sent.len() < per_hour.saturating_sub(kept_for_alarms) as usize;
        if !has_place || !(is_urgent || is_apart) {
            return None;
        }
        for list in [&mut alert.found, &mut alert.resolved, &mut alert.passed] {
            list.sort_by(|one, other| {
                (one.level, one.kind, &one.cause).cmp(&(other.level, other.kind, &other.cause))
            });
        }
        Some(alert)
    }

    fn done(&mut self, alert: &Alert, sent: Result<u32, String>, now: Moment) {
        if let Err(trouble) = sent {
            self.n_failed += 1;
            let doubled = RETRY_FIRST.saturating_mul(1 << self.n_failures.min(16));
            self.n_failures = self.n_failures.saturating_add(1);
            self.retry_at = Some(now + doubled.min(RETRY_MAX));
            self.trouble = Some(trouble);
            return;
        }
        self.n_left_out = sent.unwrap_or_default();
        self.n_failed += u64::from(self.n_left_out);
        self.n_sent += 1;
        (self.n_failures, self.retry_at, self.trouble) = (0, None, None);
        self.sent.push_back(now);
        for item in &alert.found {
            if let Some(entry) = self.entries.get_mut(&item.key()) {
                entry.progress = Progress::Told;
            }
        }
        for key in alert.resolved.iter().chain(&alert.passed).map(AlertItem::key) {
            match self.entries.get_mut(&key) {
                // It has come back while that was being said.
                Some(entry) if entry.gone.is_none() => {
                    (entry.first, entry.progress) = (now, Progress::Settling);
                }
                _ => drop(self.entries.remove(&key)),
            }
        }
    }
}

impl Entry {
    fn is_over(&self, now: Moment) -> bool {
        let after = match self.item.kind.passes() {
            // An earlier process may have found it: this one has not seen when it was last so.
            Passes::After(time) if self.first == self.gone.unwrap_or(self.first) => {
                time.max(OVER_AFTER)
            }
            _ => OVER_AFTER,
        };
        self.gone.is_some_and(|gone| now.since(gone) >= after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Subject;
    use std::fmt::Write as _;

    /// One way, and the time in seconds.
    struct Trial {
        alerts: Alerts,
        now: u64,
        findings: Vec<Finding>,
    }

    const KIND: FindingKind = FindingKind::MachineFailed;

    fn finding(kind: FindingKind, name: &str) -> Finding {
        Finding {
            kind,
            level: kind.level(),
            subject: Subject::Machine(name.parse().unwrap()),
            since_unix_ms: 0,
            last_unix_ms: 0,
            count: 1,
            cause: "It is so.".to_owned(),
            remedy: kind.remedy().to_owned(),
        }
    }

    impl Trial {
        fn new() -> Self {
            let options = AlertOptions {
                per_hour: 4,
                channels: vec![Channel::Mail],
                ..AlertOptions::default()
            };
            Self { alerts: Alerts::new(options), now: 1000, findings: vec![] }
        }

        fn moment(&self) -> Moment {
            Moment::from_millis(self.now * 1000)
        }

        fn set(&mut self, kind: FindingKind, names: &[&str]) {
            self.findings.retain(|it| it.kind != kind);
            self.findings.extend(names.iter().map(|name| finding(kind, name)));
        }

        /// What is sent while `seconds` pass: at which second, and `+` what is found, `-` resolved, `~` passed.
        fn pass(&mut self, seconds: u64, works: bool) -> Vec<String> {
            let mut told = Vec::new();
            for _ in 0..seconds / 5 {
                self.now += 5;
                self.alerts.look(&self.findings, self.moment());
                let Some(alert) = self.alerts.due(Channel::Mail, self.moment()) else { continue };
                let mut text = String::new();
                for (sign, list) in
                    [('+', &alert.found), ('-', &alert.resolved), ('~', &alert.passed)]
                {
                    for item in list {
                        let _ = write!(text, "{sign}{}", item.subject);
                    }
                }
                let result = if works { Ok(0) } else { Err("It is away".to_owned()) };
                self.alerts.done(Channel::Mail, &alert, result, self.moment());
                told.push(text);
            }
            told
        }
    }

    #[test]
    fn what_is_found_together_is_one_message_and_so_is_its_end() {
        let mut trial = Trial::new();
        trial.set(KIND, &["a", "b", "c"]);
        assert_eq!(trial.pass(600, true), ["+a+b+c"]);
        trial.set(KIND, &["b"]);
        assert_eq!(trial.pass(295, true), [""; 0], "it may come back");
        assert_eq!(trial.pass(600, true), ["-a-c"]);
        assert_eq!(trial.pass(10_000, true), [""; 0]);
    }

    #[test]
    fn what_comes_and_goes_is_one_message() {
        let mut trial = Trial::new();
        trial.set(KIND, &["a"]);
        assert_eq!(trial.pass(20, true), [""; 0]);
        trial.set(KIND, &[]);
        assert_eq!(trial.pass(600, true), [""; 0], "it was a moment only");
        let mut told = Vec::new();
        for _ in 0..30 {
            trial.set(KIND, &["a"]);
            told.extend(trial.pass(20, true));
            trial.set(KIND, &[]);
            told.extend(trial.pass(60, true));
        }
        assert_eq!(told, ["+a"]);
        assert_eq!(trial.pass(600, true), ["-a"]);
    }

    #[test]
    fn messages_in_an_hour_are_bounded_and_the_last_is_kept_for_alarms() {
        let mut trial = Trial::new();
        let mut told = Vec::new();
        let names: Vec<String> = (0..9).map(|n| format!("m{n}")).collect();
        for n in 1..9 {
            let names: Vec<&str> = names[..n].iter().map(String::as_str).collect();
            trial.set(KIND, &names);
            told.extend(trial.pass(310, true));
        }
        assert_eq!(told, ["+m0", "+m1", "+m2"]);
        trial.set(FindingKind::DiskMissing, &["x"]);
        assert_eq!(trial.pass(300, true), ["+x+m3+m4+m5+m6+m7"]);
        trial.set(FindingKind::DiskMissing, &["x", "y"]);
        assert_eq!(trial.pass(300, true), [""; 0], "not even those");
        assert_eq!(trial.pass(3600, true), ["+y"]);
    }

    #[test]
    fn what_can_not_be_sent_is_tried_again_ever_more_rarely_and_becomes_a_finding() {
        let mut trial = Trial::new();
        trial.set(KIND, &["a"]);
        assert_eq!(trial.pass(35, false).len(), 1);
        assert_eq!(trial.alerts.troubles(), []);
        // After 30 s, 60, 120, 240, 480 and 900, and then each 900.
        assert_eq!(trial.pass(30 + 60 + 120 + 240 + 480 + 900 + 900, false).len(), 7);
        assert_eq!(trial.alerts.troubles(), [(Channel::Mail, "It is away".to_owned())]);
        trial.set(FindingKind::AlertsNotSent, &["server"]);
        trial.set(KIND, &["b"]);
        trial.pass(900, false);
        assert_eq!(trial.pass(900, true), ["+b~a"]);
        assert_eq!(trial.alerts.troubles(), []);
        let count = trial.alerts.counts()[0];
        assert_eq!((count.n_sent, count.n_failed), (1, 9));
    }

    #[test]
    fn who_is_refused_while_others_are_not_is_counted_until_nobody_is() {
        let mut trial = Trial::new();
        for n_left_out in [2, 0] {
            trial.set(KIND, if n_left_out > 0 { &["a"] } else { &["b"] });
            trial.alerts.look(&trial.findings, trial.moment());
            trial.now += 600;
            trial.alerts.look(&trial.findings, trial.moment());
            let alert = trial.alerts.due(Channel::Mail, trial.moment()).unwrap();
            trial.alerts.done(Channel::Mail, &alert, Ok(n_left_out), trial.moment());
            assert_eq!(trial.alerts.n_left_out(), n_left_out);
        }
        let count = trial.alerts.counts()[0];
        assert_eq!((count.n_sent, count.n_failed), (2, 2));
        assert_eq!(trial.alerts.troubles(), [], "others are told");
    }

    #[test]
    fn after_a_restart_nothing_is_told_again_and_ends_are_told() {
        let mut trial = Trial::new();
        for name in ["a", "b"] {
            let item = AlertItem::of(&finding(KIND, name));
            trial.alerts.remember(Channel::Mail, item, trial.moment());
        }
        let rare = AlertItem::of(&finding(FindingKind::WordsRefused, "c"));
        trial.alerts.remember(Channel::Mail, rare, trial.moment());
        trial.set(KIND, &["a"]);
        assert_eq!(trial.pass(600, true), ["-b"]);
        assert_eq!(trial.pass(3600, true), ["-c"], "an hour after it can have been so last");
    }

    #[test]
    fn what_is_less_bad_is_not_told() {
        let mut trial = Trial::new();
        trial.set(FindingKind::ClockSet, &["a"]);
        assert_eq!(trial.pass(600, true), [""; 0]);
    }

    #[test]
    fn what_comes_back_while_its_end_is_told_is_told_again() {
        let mut trial = Trial::new();
        trial.set(KIND, &["a"]);
        trial.pass(40, true);
        trial.set(KIND, &[]);
        trial.pass(295, true);
        trial.now += 10;
        trial.alerts.look(&[], trial.moment());
        let alert = trial.alerts.due(Channel::Mail, trial.moment()).unwrap();
        assert_eq!(alert.resolved.len(), 1);
        trial.set(KIND, &["a"]);
        trial.alerts.look(&trial.findings, trial.moment());
        trial.alerts.done(Channel::Mail, &alert, Ok(0), trial.moment());
        assert_eq!(trial.pass(600, true), ["+a"]);
    }
}
