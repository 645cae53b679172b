//! Distributions of times in bounded memory.

use std::time::Duration;

use serde::Serialize;

/// How times are distributed. Count, sum, least and most are exact; every other value is off by
/// less than 0.1 %.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    // By microseconds: each power of two above 1024 is divided in 1024 steps.
    counts: Vec<u64>,
    count: u64,
    sum: u128,
    min: u64,
    max: u64,
}

/// A distribution in a few numbers, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// How many values there are.
    pub count: u64,
    /// The least.
    pub min: f64,
    /// Their mean.
    pub mean: f64,
    /// Half of them are no more.
    pub p50: f64,
    /// Nine of ten are no more.
    pub p90: f64,
    /// Ninety-nine of a hundred are no more.
    pub p99: f64,
    /// The most.
    pub max: f64,
}

const STEP_BITS: u32 = 10;

fn bucket(micros: u64) -> usize {
    let power = (u64::BITS - micros.leading_zeros()).saturating_sub(STEP_BITS + 1);
    // Below 55 << 10: it fits.
    ((u64::from(power) << STEP_BITS) + (micros >> power)) as usize
}

/// The middle of a bucket.
fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let power = (bucket >> STEP_BITS).saturating_sub(1);
    let low = (bucket - (power << STEP_BITS)) << power;
    low + ((1_u64 << power) - 1) / 2
}

impl Histogram {
    /// Adds a time.
    pub fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = bucket(micros);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.min = if self.count == 0 { micros } else { self.min.min(micros) };
        self.max = self.max.max(micros);
        self.count += 1;
        self.sum += u128::from(micros);
    }

    /// Adds all times of another.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.min = if self.count == 0 { other.min } else { self.min.min(other.min) };
        self.max = self.max.max(other.max);
        self.count += other.count;
        self.sum += other.sum;
    }

    /// The least value that so many of a thousand are no more than.
    fn per_mille(&self, share: u64) -> u64 {
        let rank = (self.count * share).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle(bucket).clamp(self.min, self.max);
            }
        }
        self.max
    }

    /// Its numbers; nothing without values.
    #[must_use]
    pub fn spread(&self) -> Option<Spread> {
        if self.count == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 microseconds")]
        let ms = |micros: u64| micros as f64 / 1000.0;
        #[expect(clippy::cast_precision_loss, reason = "a mean need not be exact")]
        let mean = (self.sum as f64 / self.count as f64).round() / 1000.0;
        Some(Spread {
            count: self.count,
            min: ms(self.min),
            mean,
            p50: ms(self.per_mille(500)),
            p90: ms(self.per_mille(900)),
            p99: ms(self.per_mille(990)),
            max: ms(self.max),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_sets_are_exact() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.spread(), None);
        for micros in 1..=1000 {
            histogram.add(Duration::from_micros(micros));
        }
        let spread = histogram.spread().unwrap();
        assert_eq!((spread.count, spread.min, spread.max), (1000, 0.001, 1.0));
        assert_eq!((spread.p50, spread.p90, spread.p99), (0.5, 0.9, 0.99));
        assert!((spread.mean - 0.501).abs() < 1e-9, "{}", spread.mean);
    }

    proptest! {
        #[test]
        fn buckets_are_in_order_and_close(a: u64, b: u64) {
            prop_assert!(bucket(a.min(b)) <= bucket(a.max(b)));
            let off = middle(bucket(a)).abs_diff(a);
            prop_assert!(u128::from(off) * 1000 <= u128::from(a), "{} is off by {}", a, off);
        }

        #[test]
        fn merging_is_adding(a in proptest::collection::vec(0_u64..1 << 40, 0..50),
                             b in proptest::collection::vec(0_u64..1 << 40, 0..50)) {
            let of = |values: &[u64]| {
                let mut histogram = Histogram::default();
                values.iter().for_each(|v| histogram.add(Duration::from_micros(*v)));
                histogram
            };
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(merged.spread(), of(&[a, b].concat()).spread());
        }
    }
}
