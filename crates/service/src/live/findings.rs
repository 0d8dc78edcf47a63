//! What a person should know, until it passes.

use crate::clock::Now;
use model::{Finding, FindingKind, Passes, Subject};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use wire::Moment;

/// Findings of one kind that are kept, each about something else: a large room whose switch has died.
const FINDINGS_OF_KIND_MAX: usize = 256;

/// News that wait for who tells them; a process without a boot server has nobody.
const NEWS_MAX: usize = 1024;

/// Longest cause in characters. It may quote what a stranger sent.
const CAUSE_CHARS_MAX: usize = 600;

/// All findings.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    by_kind: Mutex<BTreeMap<FindingKind, OfKind>>,
    /// What has come and gone by [`Findings::holds`], and was not told yet.
    news: Mutex<Vec<News>>,
}

/// Something is so now, or is so no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) kind: FindingKind,
    pub(crate) subject: Subject,
    /// `None`: it is over.
    pub(crate) cause: Option<String>,
}

#[derive(Debug, Default)]
struct OfKind {
    by_subject: BTreeMap<Subject, Entry>,
    /// How often there was no place for another one since the first of these was found.
    n_left_out: u64,
    n_found: u64,
}

#[derive(Debug)]
struct Entry {
    since: Moment,
    /// If it is known better than by when it was found.
    since_unix_ms: Option<u64>,
    last: Moment,
    count: u64,
    cause: String,
}

/// Something that is so now.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) subject: Subject,
    pub(crate) cause: String,
    /// Since when, milliseconds since 1970, if that is known.
    pub(crate) since_unix_ms: Option<u64>,
}

/// How often things of one kind were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FindingCount {
    /// Their kind.
    pub kind: FindingKind,
    /// How many there are now.
    pub n_now: usize,
    /// How often one was found since the start of the boot server.
    pub n_found: u64,
    /// How often one was found that is not kept, as there are so many of its kind.
    pub n_left_out: u64,
}

impl Findings {
    /// Something was found. Returns whether it was not known.
    pub(crate) fn found(
        &self,
        kind: FindingKind,
        subject: &Subject,
        cause: &str,
        now: Moment,
    ) -> bool {
        let mut by_kind = self.lock();
        let of_kind = by_kind.entry(kind).or_default();
        of_kind.forget_passed(kind, now);
        of_kind.n_found += 1;
        of_kind.put(subject, plain(cause), None, now, 1)
    }

    /// It is no longer so. Returns whether it was.
    pub(crate) fn resolved(&self, kind: FindingKind, subject: &Subject) -> bool {
        let mut by_kind = self.lock();
        by_kind.get_mut(&kind).is_some_and(|of_kind| of_kind.by_subject.remove(subject).is_some())
    }

    /// Of this kind exactly these are so now.
    pub(crate) fn holds(&self, kind: FindingKind, held: Vec<Held>, now: Moment) {
        let mut by_kind = self.lock();
        let of_kind = by_kind.entry(kind).or_default();
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tell = |subject: &Subject, cause: Option<&str>| {
            if news.len() < NEWS_MAX {
                let cause = cause.map(plain);
                news.push(News { kind, subject: subject.clone(), cause });
            }
        };
        of_kind.by_subject.retain(|subject, _| {
            let stays = held.iter().any(|held| held.subject == *subject);
            if !stays {
                tell(subject, None);
            }
            stays
        });
        of_kind.n_left_out = 0;
        for Held { subject, cause, since_unix_ms } in held {
            if of_kind.put(&subject, plain(&cause), since_unix_ms, now, 0) {
                of_kind.n_found += 1;
                tell(&subject, Some(&cause));
            }
        }
    }

    /// What has come and gone since this was asked last.
    pub(crate) fn take_news(&self) -> Vec<News> {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All there are now, the worst first.
    pub(crate) fn list(&self, now: Now) -> Vec<Finding> {
        let mut by_kind = self.lock();
        let mut list = Vec::new();
        for (&kind, of_kind) in by_kind.iter_mut() {
            of_kind.forget_passed(kind, now.moment);
            list.extend(of_kind.by_subject.iter().map(|(subject, entry)| Finding {
                kind,
                level: kind.level(),
                subject: subject.clone(),
                since_unix_ms: entry.since_unix_ms.unwrap_or_else(|| now.unix_ms_at(entry.since)),
                last_unix_ms: now.unix_ms_at(entry.last),
                count: entry.count,
                cause: entry.cause.clone(),
                remedy: remedy(kind, subject),
            }));
        }
        // Those with one cause stand together. Kinds and subjects are in order already.
        list.sort_by(|one: &Finding, other| {
            (one.level, one.kind, &one.cause).cmp(&(other.level, other.kind, &other.cause))
        });
        // Whatever a test of this crate finds must be said once.
        #[cfg(test)]
        list.iter().for_each(tests::assert_said_once);
        list
    }

    /// How often what was found, all kinds.
    pub(crate) fn counts(&self, now: Moment) -> Vec<FindingCount> {
        let mut by_kind = self.lock();
        let count = |&kind: &FindingKind| {
            let of_kind = by_kind.entry(kind).or_default();
            of_kind.forget_passed(kind, now);
            let OfKind { by_subject, n_left_out, n_found } = of_kind;
            FindingCount {
                kind,
                n_now: by_subject.len(),
                n_found: *n_found,
                n_left_out: *n_left_out,
            }
        };
        FindingKind::ALL.iter().map(count).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<FindingKind, OfKind>> {
        self.by_kind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfKind {
    fn forget_passed(&mut self, kind: FindingKind, now: Moment) {
        if let Passes::After(time) = kind.passes() {
            self.by_subject.retain(|_, entry| now.since(entry.last) < time);
        }
        if self.by_subject.is_empty() {
            self.n_left_out = 0;
        }
    }

    /// Returns whether it is new. What is known counts `n` times more.
    fn put(
        &mut self,
        subject: &Subject,
        cause: String,
        since_unix_ms: Option<u64>,
        now: Moment,
        n: u64,
    ) -> bool {
        if let Some(entry) = self.by_subject.get_mut(subject) {
            entry.count += n;
            (entry.last, entry.cause) = (now, cause);
            entry.since_unix_ms = since_unix_ms.or(entry.since_unix_ms);
            return false;
        }
        if self.by_subject.len() >= FINDINGS_OF_KIND_MAX {
            self.n_left_out += 1;
            return false;
        }
        let entry = Entry { since: now, since_unix_ms, last: now, count: 1, cause };
        self.by_subject.insert(subject.clone(), entry);
        true
    }
}

/// What to do about it, with the machine's name where it is known.
fn remedy(kind: FindingKind, subject: &Subject) -> String {
    match subject {
        Subject::Machine(name) => kind.remedy().replace("NAME", name.as_str()),
        _ => kind.remedy().to_owned(),
    }
}

/// A sentence as a terminal and a page can show it.
fn plain(cause: &str) -> String {
    let characters = cause.chars().take(CAUSE_CHARS_MAX);
    let mut plain: String = characters.map(|it| if it.is_control() { ' ' } else { it }).collect();
    if cause.chars().nth(CAUSE_CHARS_MAX).is_some() {
        plain.push('…');
    } else if !plain.ends_with(['.', '!', '?']) {
        plain.push('.');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    /// Words in a row that are no accident.
    const REPEATED_WORDS: usize = 5;

    /// A cause says what is so, and its remedy what helps: neither says what the other does, nor anything twice.
    pub(super) fn assert_said_once(finding: &Finding) {
        let word = |text: &str| text.trim_matches(|it: char| !it.is_alphanumeric()).to_lowercase();
        let text = format!("{} | {}", finding.cause, finding.remedy);
        let words: Vec<String> = text.split_whitespace().map(word).collect();
        let mut seen = std::collections::BTreeSet::new();
        for run in words.windows(REPEATED_WORDS) {
            assert!(seen.insert(run), "{}: {run:?} is said twice: {text}", finding.kind);
        }
        let advice = [
            "bootlace backup",
            "bootlace machine reset",
            "bootlace up",
            "bootlace storage",
            ". Mount ",
        ];
        let given = advice.iter().find(|advice| finding.cause.contains(*advice));
        assert_eq!(given, None, "{}: the remedy is in the cause: {text}", finding.kind);
    }

    const KIND: FindingKind = FindingKind::AddressInUse;

    fn at(seconds: u64) -> Now {
        // The wall clock is a thousand seconds ahead.
        let unix_ms = (seconds + 1000) * 1000;
        Now { unix_ms, moment: Moment::from_millis(seconds * 1000) }
    }

    fn address(n: u32) -> Subject {
        Subject::Address(Ipv4Addr::from_bits(n))
    }

    #[test]
    fn what_is_found_again_counts_and_what_is_not_passes() {
        let findings = Findings::default();
        assert!(findings.found(KIND, &address(1), "a PC has it", at(0).moment));
        assert!(!findings.found(KIND, &address(1), "a PC\nhas it still", at(3000).moment));
        let found = |seconds: u64| {
            let list = findings.list(at(seconds));
            let times = |it: &Finding| (it.since_unix_ms, it.last_unix_ms, it.count);
            list.first().map(|it| (times(it), it.cause.clone()))
        };
        let expected = ((1_000_000, 4_000_000, 2), "a PC has it still.".to_owned());
        assert_eq!(found(3000), Some(expected.clone()));
        assert_eq!(found(6599), Some(expected));
        assert_eq!(found(6600), None, "an hour after it was found last");
        assert!(findings.found(KIND, &address(1), "again", at(7000).moment), "it is news again");
        assert!(findings.resolved(KIND, &address(1)));
        assert!(!findings.resolved(KIND, &address(1)));
        assert_eq!(found(7000), None);
    }

    #[test]
    fn what_is_so_stays_until_it_is_not() {
        let findings = Findings::default();
        let kind = FindingKind::DiskNearlyFull;
        let hold = |held: &[u32], seconds: u64| {
            let held = held.iter().map(|&n| Held {
                subject: address(n),
                cause: format!("{n}"),
                since_unix_ms: None,
            });
            findings.holds(kind, held.collect(), at(seconds).moment);
            let list = findings.list(at(seconds));
            list.into_iter().map(|it| (it.subject, it.count, it.since_unix_ms)).collect::<Vec<_>>()
        };
        assert_eq!(hold(&[1, 2], 0), [(address(1), 1, 1_000_000), (address(2), 1, 1_000_000)]);
        assert_eq!(hold(&[2, 3], 9), [(address(2), 1, 1_000_000), (address(3), 1, 1_009_000)]);
        assert_eq!(hold(&[], 9), []);
        let count = findings.counts(at(9).moment).into_iter().find(|count| count.kind == kind);
        assert_eq!(count, Some(FindingCount { kind, n_now: 0, n_found: 3, n_left_out: 0 }));
    }

    #[test]
    fn a_crowd_is_counted_and_takes_no_room() {
        let findings = Findings::default();
        let n_max = u32::try_from(FINDINGS_OF_KIND_MAX).unwrap();
        for n in 0..n_max + 10 {
            let is_news = findings.found(KIND, &address(n), &"x".repeat(10_000), at(0).moment);
            assert_eq!(is_news, n < n_max);
        }
        assert!(findings.found(FindingKind::ForeignRelay, &address(1), "other", at(0).moment));
        let count = |now: Now| {
            let counts = findings.counts(now.moment);
            counts.into_iter().find(|count| count.kind == KIND).unwrap()
        };
        let FindingCount { n_now, n_found, n_left_out, .. } = count(at(0));
        assert_eq!((n_now, n_found, n_left_out), (256, 266, 10));
        let list = findings.list(at(0));
        assert!(list.iter().all(|it| it.cause.chars().count() <= CAUSE_CHARS_MAX + 1));
        assert_eq!(count(at(3600)).n_left_out, 0, "they have passed");
        assert!(findings.found(KIND, &address(9999), "now there is room", at(3600).moment));
    }

    #[test]
    fn what_helps_names_the_machine() {
        let findings = Findings::default();
        let machine = Subject::Machine("lab-07".parse().unwrap());
        findings.found(FindingKind::DiskOfAnother, &machine, "it is so", at(0).moment);
        let remedy = findings.list(at(0)).remove(0).remedy;
        assert!(
            remedy.contains("layers/lab-07/take-over; bootlace machine reset lab-07"),
            "{remedy}"
        );
    }

    #[test]
    fn the_worst_is_first() {
        let findings = Findings::default();
        for kind in [FindingKind::ClockSet, KIND, FindingKind::SecondDhcp] {
            findings.found(kind, &Subject::Server, "it is so", at(0).moment);
        }
        let kinds: Vec<_> = findings.list(at(0)).into_iter().map(|it| it.kind).collect();
        assert_eq!(kinds, [FindingKind::SecondDhcp, KIND, FindingKind::ClockSet]);
    }

    #[test]
    fn what_holds_is_news_when_it_comes_and_when_it_goes() {
        let findings = Findings::default();
        let now = Moment::from_millis(5);
        let kind = FindingKind::DiskNearlyFull;
        let held = || Held {
            subject: Subject::Server,
            cause: "The disk is nearly full".to_owned(),
            since_unix_ms: None,
        };
        let hold = |held: Vec<Held>| {
            findings.holds(kind, held, now);
            findings.take_news().into_iter().map(|news| news.cause).collect::<Vec<_>>()
        };
        assert_eq!(hold(vec![]), []);
        assert_eq!(hold(vec![held()]), [Some("The disk is nearly full.".to_owned())]);
        assert_eq!(hold(vec![held()]), []);
        assert_eq!(hold(vec![]), [None]);
    }
}
