//! A set of addresses, as ranges: a pool of which few were ever given is a handful of entries, however large it is.

use alloc::collections::BTreeMap;

/// Addresses, as numbers.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    /// First and last of each range. Ranges neither meet nor overlap.
    last_by_first: BTreeMap<u32, u32>,
}

impl Ranges {
    pub(crate) fn new(first: u32, last: u32) -> Self {
        let range = (first <= last).then_some((first, last));
        Self { last_by_first: range.into_iter().collect() }
    }

    /// The range that holds `address`.
    fn around(&self, address: u32) -> Option<(u32, u32)> {
        let (&first, &last) = self.last_by_first.range(..=address).next_back()?;
        (address <= last).then_some((first, last))
    }

    pub(crate) fn insert(&mut self, address: u32) {
        if self.around(address).is_some() {
            return;
        }
        let (mut first, mut last) = (address, address);
        let below = address.checked_sub(1).and_then(|below| self.around(below));
        let above = address.checked_add(1).and_then(|above| self.around(above));
        for (from, to) in below.into_iter().chain(above) {
            self.last_by_first.remove(&from);
            (first, last) = (first.min(from), last.max(to));
        }
        self.last_by_first.insert(first, last);
    }

    pub(crate) fn remove(&mut self, address: u32) {
        let Some((first, last)) = self.around(address) else { return };
        self.last_by_first.remove(&first);
        if first < address {
            self.last_by_first.insert(first, address - 1);
        }
        if address < last {
            self.last_by_first.insert(address + 1, last);
        }
    }

    /// The next address from `start` on; behind the last comes the first.
    pub(crate) fn next(&self, start: u32) -> Option<u32> {
        if self.around(start).is_some() {
            return Some(start);
        }
        let above = self.last_by_first.range(start..).next();
        above.or_else(|| self.last_by_first.first_key_value()).map(|(&first, _)| first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn ranges_hold_what_a_set_of_addresses_would() {
        let mut ranges = Ranges::new(0, 15);
        let mut set: BTreeSet<u32> = (0..16).collect();
        let mut random = 1u32;
        for _ in 0..2000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (address, is_inserted) = ((random >> 16) % 16, random >> 31 == 0);
            if is_inserted {
                ranges.insert(address);
                set.insert(address);
            } else {
                ranges.remove(address);
                set.remove(&address);
            }
            for start in 0..16 {
                let expected = set.range(start..).next().or_else(|| set.first()).copied();
                assert_eq!(ranges.next(start), expected);
            }
            let gaps = ranges.last_by_first.iter().zip(ranges.last_by_first.iter().skip(1));
            assert!(gaps.into_iter().all(|((_, last), (first, _))| last + 1 < *first));
        }
    }

    #[test]
    fn the_ends_of_all_addresses_are_addresses() {
        let mut ranges = Ranges::new(0, u32::MAX);
        for address in [0, u32::MAX] {
            ranges.remove(address);
            ranges.insert(address);
            assert_eq!(ranges.next(address), Some(address));
        }
        assert_eq!(ranges.last_by_first.len(), 1);
        assert_eq!(Ranges::new(2, 1).next(0), None);
    }
}
