//! How long requests took.

use std::time::Duration;

/// Parts of each power of two: values are right to 3 %.
const PARTS_BITS: u32 = 5;

/// A distribution of times, in bounded memory.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; (64 << PARTS_BITS) as usize] }
    }
}

impl Histogram {
    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanoseconds)] += 1;
    }

    /// Adds all of another one.
    pub fn add_all(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// The time that this share of all (0 to 1) did not exceed; zero if there is none.
    pub fn quantile(&self, share: f64) -> Duration {
        let total: u64 = self.counts.iter().sum();
        let wanted = (total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(middle(index));
            }
        }
        Duration::ZERO
    }
}

fn bucket(value: u64) -> usize {
    if value < 1 << PARTS_BITS {
        return value as usize;
    }
    let power = value.ilog2();
    let part = (value >> (power - PARTS_BITS)) - (1 << PARTS_BITS);
    (u64::from(power - PARTS_BITS + 1) << PARTS_BITS | part) as usize
}

fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    match bucket >> PARTS_BITS {
        0 => bucket,
        group => {
            let part = bucket & ((1 << PARTS_BITS) - 1);
            let width = 1 << (group - 1);
            ((1 << PARTS_BITS) + part) * width + width / 2
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_few_percent() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        (1..=10_000).for_each(|us| histogram.add(Duration::from_micros(us)));
        for (share, us) in [(0.5, 5000.0), (0.99, 9900.0), (1.0, 10_000.0)] {
            let is = histogram.quantile(share).as_secs_f64() * 1e6;
            assert!((is / us - 1.0).abs() < 0.04, "{share}: {is}");
        }
    }
}
