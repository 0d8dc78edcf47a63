//! Finds late copies of writes by the order of Linux's tags.
//!
//! Linux sends a frame that was not answered again with a new tag. When the first copy was only late,
//! it may arrive after a newer write to the same place, and would undo it. To drop a frame is always
//! safe, so where this is not sure, it says "late".

use wire::{Mac, Moment};

/// How long a late copy may be on its way: what switches and the server's age limit allow, and more.
const LATE_MAX_MS: u32 = 10_000;

/// What one entry covers.
const GRANULE_SECTORS: u64 = 8;

/// Entries of a source. Places that share one are told apart no more, which only drops more.
const ENTRIES: usize = 16_384;

/// Initiators that are watched. Of more the one that was silent longest is forgotten.
const SOURCES_MAX: usize = 32;

/// Tags in a row that look like Linux's until a source is taken for one, and the most that count.
const TRUST: u8 = 8;
const TRUST_MAX: u8 = 16;

/// Frames that may be lost between two that arrive.
const LOST_MAX: u16 = 1024;

/// Writes of the last seconds, by source and place.
///
/// Call [`observe`](Self::observe) for every frame in order of arrival; for a write then ask
/// [`is_stale`](Self::is_stale), and call [`written`](Self::written) if it was done.
#[derive(Default)]
pub(super) struct StaleGuard {
    sources: Vec<Source>,
}

struct Source {
    mac: Mac,
    newest: Tag,
    newest_at: Moment,
    trust: u8,
    /// Empty until the first write.
    writes: Vec<Entry>,
}

/// The newest write to a place.
#[derive(Clone, Copy, Default)]
struct Entry {
    tag: Tag,
    /// Milliseconds, wrapped; 0 is "none".
    at: u32,
}

/// Bit 31 is 0, then a counter of 15 bits, then the lower half of the kernel's clock in ticks
/// (`newtag` of drivers/block/aoe/aoecmd.c).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tag(u32);

impl Tag {
    fn parse(tag: u32) -> Option<Self> {
        (tag >> 31 == 0).then_some(Self(tag))
    }

    fn ticks_since(self, other: Self) -> i16 {
        (self.0 as u16).wrapping_sub(other.0 as u16).cast_signed()
    }

    fn count_since(self, other: Self) -> i16 {
        let difference = ((self.0 >> 16) as u16).wrapping_sub((other.0 >> 16) as u16);
        (difference << 1).cast_signed() >> 1
    }

    fn is_older_than(self, other: Self) -> bool {
        match self.ticks_since(other) {
            0 => self.count_since(other) < 0,
            ticks => ticks < 0,
        }
    }
}

impl StaleGuard {
    /// Learns how a source makes its tags. Called for every frame in order of arrival.
    pub(super) fn observe(&mut self, source: Mac, tag: u32, now: Moment) {
        // Tools on the same machine use the upper half.
        let Some(tag) = Tag::parse(tag) else { return };
        let Some(known) = self.sources.iter_mut().find(|known| known.mac == source) else {
            self.forget_one();
            let new = Source { mac: source, newest: tag, newest_at: now, trust: 0, writes: vec![] };
            self.sources.push(new);
            return;
        };
        known.observe(tag, now);
    }

    fn forget_one(&mut self) {
        if self.sources.len() >= SOURCES_MAX {
            let silent = self.sources.iter().enumerate().min_by_key(|(_, it)| it.newest_at);
            if let Some((index, _)) = silent {
                self.sources.swap_remove(index);
            }
        }
    }

    /// Whether a write is, or may be, older than one that was done.
    pub(super) fn is_stale(
        &self,
        source: Mac,
        tag: u32,
        lba: u64,
        sectors: u8,
        now: Moment,
    ) -> bool {
        let Some(tag) = Tag::parse(tag) else { return false };
        let Some(known) = self.sources.iter().find(|known| known.mac == source) else {
            return false;
        };
        let is_newer = |entry: &Entry| {
            entry.at != 0
                && stamp(now).wrapping_sub(entry.at) < LATE_MAX_MS
                && tag.is_older_than(entry.tag)
        };
        known.trust >= TRUST
            && entries(lba, sectors).any(|index| known.writes.get(index).is_some_and(is_newer))
    }

    /// Notes a write that was done.
    pub(super) fn written(&mut self, source: Mac, tag: u32, lba: u64, sectors: u8, now: Moment) {
        let Some(tag) = Tag::parse(tag) else { return };
        let Some(known) = self.sources.iter_mut().find(|known| known.mac == source) else {
            return;
        };
        if known.writes.is_empty() {
            known.writes.resize(ENTRIES, Entry::default());
        }
        for index in entries(lba, sectors) {
            known.writes[index] = Entry { tag, at: stamp(now) };
        }
    }
}

impl Source {
    fn observe(&mut self, tag: Tag, now: Moment) {
        let (ticks, count) = (tag.ticks_since(self.newest), tag.count_since(self.newest));
        let elapsed_ms = now.since(self.newest_at).as_millis() as u32;
        if elapsed_ms > LATE_MAX_MS {
            // The clock's half may have wrapped, or the machine has restarted: nothing to learn.
            (self.newest, self.newest_at) = (tag, now);
        } else if tag == self.newest {
            // A copy.
        } else if ticks < 0 || (ticks == 0 && count < 0) {
            // A late frame. But as long as it is not known how this source counts, the newest tag so far may
            // itself be the odd one: a tool's on the same machine, or a frame of its former boot.
            if self.trust < TRUST {
                (self.trust, self.newest, self.newest_at) = (0, tag, now);
            }
        } else if (1..=LOST_MAX).contains(&count.cast_unsigned())
            // A tick is a millisecond or longer, and the former frame may itself have been late.
            && u32::from(ticks.cast_unsigned()) <= elapsed_ms + LATE_MAX_MS
        {
            self.trust = (self.trust + 1).min(TRUST_MAX);
            (self.newest, self.newest_at) = (tag, now);
        } else {
            self.trust = self.trust.saturating_sub(1);
            if self.trust < TRUST {
                (self.newest, self.newest_at) = (tag, now);
            }
        }
    }
}

fn entries(lba: u64, sectors: u8) -> impl Iterator<Item = usize> {
    let last = lba + u64::from(sectors.max(1)) - 1;
    (lba / GRANULE_SECTORS..=last / GRANULE_SECTORS).map(|granule| granule as usize % ENTRIES)
}

fn stamp(now: Moment) -> u32 {
    (now.as_millis() as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    /// A guard that has seen this many frames, one a millisecond, with these tags.
    fn after(frames: u32, tag: impl Fn(u32) -> u32) -> StaleGuard {
        let mut guard = StaleGuard::default();
        (0..frames).for_each(|index| guard.observe(MACHINE, tag(index), at(u64::from(index))));
        guard
    }

    fn linux(count: u32) -> u32 {
        (count & 0x7fff) << 16 | (65_530 + count / 4) & 0xffff
    }

    #[test]
    fn an_older_write_is_stale_for_ten_seconds_even_when_counters_wrap() {
        for begin in [0, 32_760] {
            let mut guard = after(20, |index| linux(begin + index));
            let check = |guard: &StaleGuard, count, ms| {
                guard.is_stale(MACHINE, linux(begin + count), 100, 2, at(ms))
            };
            guard.written(MACHINE, linux(begin + 10), 102, 8, at(20));
            assert!(check(&guard, 9, 21), "the same 4 KiB");
            assert!(!check(&guard, 10, 21), "a copy of itself");
            assert!(!check(&guard, 11, 21));
            assert!(check(&guard, 9, 10_019) && !check(&guard, 9, 10_021));
            let elsewhere = guard.is_stale(MACHINE, linux(begin + 9), 4096, 2, at(21));
            assert!(!elsewhere);
        }
    }

    #[test]
    fn an_odd_first_tag_blinds_nobody() {
        for odd in [0x7ff0_0000 | 3000, 0x7ff0_ffff, linux(5000), linux(0x7000), 1] {
            for odd_at in [0, 1, 5] {
                let mut guard = StaleGuard::default();
                for index in 0..20 {
                    if index == odd_at {
                        guard.observe(MACHINE, odd, at(u64::from(index)));
                    }
                    guard.observe(MACHINE, linux(index), at(u64::from(index)));
                }
                guard.written(MACHINE, linux(19), 100, 2, at(20));
                assert!(guard.is_stale(MACHINE, linux(18), 100, 2, at(21)), "{odd:#x} at {odd_at}");
            }
        }
    }

    #[test]
    fn other_clients_tags_say_nothing() {
        let ipxe = |index: u32| 0x18ae_0000 | index;
        let plan9 = |index: u32| 0x8000_0000 | linux(index);
        let counting = |index: u32| index;
        let random = |index: u32| index.wrapping_mul(2_654_435_761) >> 1;
        // The same tags again and again.
        let back_and_forth = |index: u32| linux(index % 4);
        for tag in [&ipxe as &dyn Fn(u32) -> u32, &plan9, &counting, &random, &back_and_forth] {
            let mut guard = after(200, tag);
            guard.written(MACHINE, tag(199), 100, 2, at(200));
            let stale = (0..200).any(|count| guard.is_stale(MACHINE, tag(count), 100, 2, at(201)));
            assert!(!stale, "{:#x}", tag(7));
        }
    }

    #[test]
    fn tools_on_the_machine_do_not_change_the_driver_s_order() {
        let mut guard = after(20, linux);
        for index in 0..1000 {
            guard.observe(MACHINE, 0x8000_0000 | index, at(30));
        }
        guard.written(MACHINE, linux(19), 0, 2, at(30));
        assert!(guard.is_stale(MACHINE, linux(18), 0, 2, at(31)));
    }

    #[test]
    fn many_sources_cost_bounded_memory() {
        let mut guard = StaleGuard::default();
        for index in 0..1000u32 {
            let [_, _, a, b] = index.to_be_bytes();
            guard.observe(Mac([2, 0, 0, 0, a, b]), 0, at(u64::from(index)));
        }
        assert_eq!(guard.sources.len(), SOURCES_MAX);
    }
}
