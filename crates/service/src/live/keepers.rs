//! Keepers of running machines: where they listen, and whether they answer. Forgotten at a restart; within
//! [`HEARD_WITHIN`] all are heard again.

use initcfg::{Heartbeat, QuestionId};
use model::BootId;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wire::{Mac, Moment};

/// Boots whose keepers are remembered.
const KEEPERS_MAX: usize = 4096;

/// A question is sent so often, and so far apart.
const TRIES: u32 = 3;
const TRY_INTERVAL: Duration = Duration::from_secs(1);

/// Who has given no answer for so long after the first question is silent.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// An answer is good for so long: who must know then asks again.
const ANSWER_HOLDS: Duration = Duration::from_secs(3);

/// So is silence: whoever comes back gives a sign of life in between, and is asked then.
const SILENCE_HOLDS: Duration = Duration::from_secs(60);

/// Who runs is heard in this time: one interval of signs of life, and some more.
const HEARD_WITHIN: Duration = Duration::from_secs(25);

/// A keeper of an earlier Bootlace answers no questions: it is there for so long after each sign of life.
const SIGN_HOLDS: Duration = Duration::from_secs(Heartbeat::INTERVAL_SECONDS * 3 / 2);

/// Whether a machine is still in a boot, as far as its keeper tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It is.
    Here,
    /// It is not: it was asked and gave no answer, or would have been heard.
    Gone,
    /// It must be asked, or has not had time for an answer.
    Unknown,
}

/// What is known of keepers. [`ask`](Self::ask) begins to ask; as long as [`due`](Self::due) is called each second and
/// what it returns is sent, [`presence`](Self::presence) tells within three seconds.
#[derive(Debug)]
pub(crate) struct Keepers {
    listening_since: Moment,
    by_boot: Mutex<HashMap<BootId, Keeper>>,
}

/// A question to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) mac: Mac,
    pub(crate) boot: BootId,
    pub(crate) peer: SocketAddr,
    pub(crate) id: QuestionId,
}

#[derive(Debug)]
struct Keeper {
    mac: Mac,
    /// Where it listens: where its last answer came from, or its last sign of life as long as it gave none.
    peer: SocketAddr,
    /// Its last sign of life, which may be a repetition by somebody else.
    heard: Moment,
    /// It answers questions: that of an earlier Bootlace does not.
    can_answer: bool,
    /// Its last answer, which is not.
    answered: Option<Moment>,
    /// What its next answer must repeat.
    id: Option<QuestionId>,
    asked: Option<Asked>,
    /// How full it said that its memory for changes is. It counts when it has answered.
    ram_used_percent: Option<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    first: Option<Moment>,
    last: Option<Moment>,
    n_sent: u32,
}

impl Asked {
    fn is_over(&self, now: Moment) -> bool {
        self.first.is_some_and(|first| now.since(first) >= ANSWER_WITHIN)
    }
}

impl Keepers {
    pub(crate) fn new(now: Moment) -> Self {
        Self { listening_since: now, by_boot: Mutex::default() }
    }

    /// A sign of life with the right tag. Returns whether it counts by itself, and what to ask at `peer`: who can
    /// answer (`can_answer`: he has done so before a restart) is alive if he does, and not because somebody repeats what he
    /// said before.
    pub(crate) fn on_heartbeat(
        &self,
        (mac, boot, can_answer): (Mac, BootId, bool),
        peer: SocketAddr,
        ram_used_percent: Option<u8>,
        now: Moment,
        fresh: QuestionId,
    ) -> (bool, QuestionId) {
        let mut by_boot = self.lock();
        if by_boot.len() >= KEEPERS_MAX && !by_boot.contains_key(&boot) {
            // Numbers grow: the smallest is the oldest.
            let oldest = by_boot.keys().min().copied();
            oldest.and_then(|oldest| by_boot.remove(&oldest));
        }
        let keeper = by_boot.entry(boot).or_insert(Keeper {
            mac,
            peer,
            heard: now,
            can_answer,
            answered: None,
            id: None,
            asked: None,
            ram_used_percent,
        });
        keeper.heard = now;
        keeper.can_answer |= can_answer;
        keeper.ram_used_percent = ram_used_percent;
        if keeper.answered.is_none() {
            keeper.peer = peer;
        }
        let is_asked = keeper.asked.is_some_and(|asked| !asked.is_over(now));
        let id = match keeper.id.filter(|_| is_asked) {
            Some(id) => id,
            None => *keeper.id.insert(fresh),
        };
        (!keeper.can_answer, id)
    }

    /// An answer with the right tag. Returns how full its memory for changes is, if it has one; the outer `None` if
    /// it is no answer to what was asked last.
    pub(crate) fn on_answer(
        &self,
        boot: BootId,
        peer: SocketAddr,
        id: QuestionId,
        now: Moment,
    ) -> Option<Option<u8>> {
        let mut by_boot = self.lock();
        let keeper = by_boot.get_mut(&boot).filter(|keeper| keeper.id == Some(id))?;
        // It is said once.
        keeper.id = None;
        keeper.asked = None;
        keeper.can_answer = true;
        keeper.answered = Some(now);
        keeper.heard = now;
        keeper.peer = peer;
        Some(keeper.ram_used_percent)
    }

    /// Where the keeper of a boot listens.
    pub(crate) fn peer(&self, boot: BootId) -> Option<SocketAddr> {
        self.lock().get(&boot).map(|keeper| keeper.peer)
    }

    /// Begins to ask the keeper of a boot, unless it is being asked, or has told by its silence.
    pub(crate) fn ask(&self, boot: BootId, now: Moment, fresh: QuestionId) {
        let mut by_boot = self.lock();
        let Some(keeper) = by_boot.get_mut(&boot) else { return };
        if keeper.presence(self.listening_since, now) == Presence::Unknown
            && keeper.asked.is_none_or(|asked| asked.is_over(now))
        {
            keeper.id = Some(fresh);
            keeper.asked = Some(Asked { first: None, last: None, n_sent: 0 });
        }
    }

    /// Questions that must be sent now.
    pub(crate) fn due(&self, now: Moment) -> Vec<Due> {
        let mut by_boot = self.lock();
        let mut due = Vec::new();
        for (boot, keeper) in by_boot.iter_mut() {
            let (Some(asked), Some(id)) = (&mut keeper.asked, keeper.id) else { continue };
            let is_due = asked.last.is_none_or(|last| now.since(last) >= TRY_INTERVAL);
            if is_due && asked.n_sent < TRIES {
                asked.first = asked.first.or(Some(now));
                asked.last = Some(now);
                asked.n_sent += 1;
                due.push(Due { mac: keeper.mac, boot: *boot, peer: keeper.peer, id });
            }
        }
        due
    }

    /// Whether the machine is still in this boot.
    pub(crate) fn presence(&self, boot: BootId, now: Moment) -> Presence {
        match self.lock().get(&boot) {
            Some(keeper) => keeper.presence(self.listening_since, now),
            None if now.since(self.listening_since) > HEARD_WITHIN => Presence::Gone,
            None => Presence::Unknown,
        }
    }

    /// Whether its keeper answers questions: that of an earlier Bootlace does not.
    pub(crate) fn can_answer(&self, boot: BootId) -> bool {
        self.lock().get(&boot).is_some_and(|keeper| keeper.can_answer)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BootId, Keeper>> {
        self.by_boot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    fn presence(&self, listening_since: Moment, now: Moment) -> Presence {
        if !self.can_answer {
            let is_here = now.since(self.heard) <= SIGN_HOLDS;
            return if is_here { Presence::Here } else { Presence::Gone };
        }
        let is_fresh = |answered| now.since(answered) <= ANSWER_HOLDS;
        match self.asked {
            None if self.answered.is_some_and(is_fresh) => Presence::Here,
            // Who was asked is perhaps somebody who repeats what it said: itself is heard soon after a restart.
            _ if self.answered.is_none() && now.since(listening_since) <= HEARD_WITHIN => {
                Presence::Unknown
            }
            Some(Asked { first: Some(first), .. })
                if (ANSWER_WITHIN..ANSWER_WITHIN + SILENCE_HOLDS).contains(&now.since(first)) =>
            {
                Presence::Gone
            }
            _ => Presence::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const BOOT: BootId = 7;

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    fn id(n: u8) -> QuestionId {
        QuestionId::new([n; 16])
    }

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 7], port))
    }

    fn asked(keepers: &Keepers, ms: u64) -> Vec<QuestionId> {
        keepers.due(at(ms)).into_iter().map(|due| due.id).collect()
    }

    #[test]
    fn who_does_not_answer_three_questions_is_gone() {
        let keepers = Keepers::new(at(0));
        let (counts, question) =
            keepers.on_heartbeat((MAC, BOOT, false), peer(1), Some(9), at(0), id(1));
        assert!(counts, "it may be a keeper that can't answer");
        assert_eq!(keepers.on_answer(BOOT, peer(1), question, at(5)), Some(Some(9)));
        assert_eq!(keepers.presence(BOOT, at(3_005)), Presence::Here);
        assert_eq!(keepers.presence(BOOT, at(3_006)), Presence::Unknown);
        assert_eq!(asked(&keepers, 10_000), []);
        keepers.ask(BOOT, at(10_000), id(2));
        for (ms, expected) in [(10_100, 1), (10_900, 0), (11_100, 1), (12_100, 1), (13_050, 0)] {
            assert_eq!(asked(&keepers, ms), vec![id(2); expected], "{ms}");
            keepers.ask(BOOT, at(ms), id(3));
            assert_eq!(keepers.presence(BOOT, at(ms)), Presence::Unknown);
        }
        assert_eq!(keepers.presence(BOOT, at(13_100)), Presence::Gone);
        // It comes back.
        let (counts, question) =
            keepers.on_heartbeat((MAC, BOOT, false), peer(1), None, at(20_000), id(4));
        assert!(!counts);
        assert_eq!(keepers.presence(BOOT, at(20_000)), Presence::Gone);
        keepers.on_answer(BOOT, peer(1), question, at(20_001)).unwrap();
        assert_eq!(keepers.presence(BOOT, at(20_001)), Presence::Here);
    }

    #[test]
    fn what_was_said_before_is_no_sign_of_life() {
        let keepers = Keepers::new(at(0));
        let (_, question) = keepers.on_heartbeat((MAC, BOOT, false), peer(1), None, at(0), id(1));
        assert!(keepers.on_answer(BOOT, peer(1), question, at(1)).is_some());
        assert!(keepers.on_answer(BOOT, peer(2), question, at(2)).is_none(), "said again");
        keepers.ask(BOOT, at(50_000), id(2));
        assert_eq!(asked(&keepers, 50_000), [id(2)]);
        for ms in [50_001, 51_000, 54_000] {
            let (counts, _) =
                keepers.on_heartbeat((MAC, BOOT, false), peer(2), None, at(ms), id(3));
            assert!(!counts, "somebody repeats it");
            assert!(keepers.on_answer(BOOT, peer(2), id(1), at(ms)).is_none());
        }
        assert_eq!(keepers.presence(BOOT, at(54_000)), Presence::Gone);
        assert_eq!(keepers.peer(BOOT), Some(peer(1)), "orders still go where the answer came from");
    }

    #[test]
    fn a_keeper_that_answers_nothing_is_there_as_long_as_it_gives_signs_of_life() {
        let keepers = Keepers::new(at(0));
        assert_eq!(keepers.presence(BOOT, at(25_000)), Presence::Unknown, "not heard yet");
        assert_eq!(keepers.presence(BOOT, at(25_001)), Presence::Gone);
        keepers.on_heartbeat((MAC, BOOT, false), peer(1), None, at(30_000), id(1));
        keepers.ask(BOOT, at(31_000), id(2));
        assert_eq!(keepers.presence(BOOT, at(60_000)), Presence::Here);
        assert_eq!(keepers.presence(BOOT, at(60_001)), Presence::Gone);
    }

    #[test]
    fn a_crowd_takes_the_place_of_the_oldest_boot() {
        let keepers = Keepers::new(at(0));
        for boot in 0..=KEEPERS_MAX as u64 {
            keepers.on_heartbeat((MAC, boot, false), peer(1), None, at(0), id(1));
        }
        assert_eq!((keepers.peer(0), keepers.peer(1)), (None, Some(peer(1))));
    }

    #[test]
    fn what_was_recorded_counts_for_nothing_after_a_restart_either() {
        let keepers = Keepers::new(at(0));
        let replay = |ms| keepers.on_heartbeat((MAC, BOOT, true), peer(9), None, at(ms), id(1)).0;
        assert!(!replay(1000), "it has answered before the restart, so only answers count");
        assert_eq!(keepers.presence(BOOT, at(1000)), Presence::Unknown);
        keepers.ask(BOOT, at(22_000), id(2));
        keepers.due(at(22_000));
        assert_eq!(
            keepers.presence(BOOT, at(25_000)),
            Presence::Unknown,
            "itself may yet be heard"
        );
        assert!(!replay(24_000));
        assert_eq!(keepers.presence(BOOT, at(25_001)), Presence::Gone);
    }
}
