//! Whose failure it is: the row's, or the endpoint's.

/// How often first tries of rows fail lately: what an endpoint does to rows it has nothing against.
/// That rows which never succeed are tried again and again does not count.
#[derive(Debug, Clone, Default)]
pub struct Blame {
    // The last few tell soon that it has changed, many tell surely how it is: the worse counts.
    lately: Share,
    long: Share,
}

/// How many first tries there were, and how many of them failed, the last ones weighing most.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    first: f64,
    failed: f64,
}

impl Share {
    fn add(&mut self, has_failed: bool, memory: f64) {
        let keep = 1.0 - 1.0 / memory;
        self.first = self.first * keep + 1.0;
        self.failed = self.failed * keep + f64::from(u8::from(has_failed));
    }

    /// The share that failed. One failure is left out: it may be that of the row which is judged.
    fn failed(self) -> f64 {
        (self.failed - 1.0).max(0.0) / (self.first + Blame::PRIOR)
    }
}

/// A row's failed tries: how many count, and how likely the endpoint alone would have failed them all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tried {
    /// How many.
    pub count: u32,
    /// The probability.
    pub by_chance: f64,
}

impl Default for Tried {
    fn default() -> Self {
        Self { count: 0, by_chance: 1.0 }
    }
}

impl Blame {
    /// How many first tries are remembered: each weighs less by a part of this with every next.
    const LATELY: f64 = 200.0;
    const LONG: f64 = 2000.0;
    /// So many that were answered are taken for granted at the beginning.
    const PRIOR: f64 = 20.0;
    /// What an endpoint that never failed is taken to do, and one that always does.
    const LEAST: f64 = 0.001;
    const MOST: f64 = 0.9;
    /// An endpoint that fails less often is taken for one that never does.
    const WELL: f64 = 0.01;
    /// A row is given up only if one in so many that are not to blame would be.
    const DOUBT: f64 = 1e-9;
    /// No row is tried more often than this and its retries, whoever is to blame.
    pub const HOPELESS: u32 = 60;

    /// The first try of a row was answered, or failed in a way that may be the endpoint's.
    pub fn first_try(&mut self, has_failed: bool) {
        self.lately.add(has_failed, Self::LATELY);
        self.long.add(has_failed, Self::LONG);
    }

    /// How likely a try fails by the endpoint alone.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let rate = self.lately.failed().max(self.long.failed());
        if rate <= Self::WELL { Self::LEAST } else { rate.min(Self::MOST) }
    }

    /// Adds a failed try to those of a row.
    #[must_use]
    pub fn add(&self, tried: Tried, is_out: bool) -> Tried {
        // While the endpoint is out, hardly anything else is needed to explain a failure.
        let rate = if is_out { Self::MOST } else { self.rate() };
        Tried { count: tried.count.saturating_add(1), by_chance: tried.by_chance * rate }
    }

    /// Whether a row whose tries failed so has failed for good, with so many retries allowed: when
    /// they are used up, and the endpoint does not explain that many failures. With fewer than two
    /// retries less doubt is asked for, as much as an endpoint that is well clears in those.
    #[must_use]
    pub fn is_rows_own(tried: Tried, retries: u32) -> bool {
        let doubt = Self::LEAST.powi(retries.min(2).cast_signed() + 1).max(Self::DOUBT);
        let is_explained = tried.by_chance > doubt * 1.000_001;
        tried.count > retries && !is_explained
            || tried.count > retries.saturating_add(Self::HOPELESS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How often a row that never succeeds is tried.
    fn tries(blame: &Blame, retries: u32, is_out: bool) -> u32 {
        let mut tried = Tried::default();
        while !Blame::is_rows_own(tried, retries) {
            tried = blame.add(tried, is_out);
        }
        tried.count
    }

    fn after(rows: u32, failing_of_100: u32) -> Blame {
        let mut blame = Blame::default();
        (0..rows).for_each(|row| blame.first_try(row * 37 % 100 < failing_of_100));
        blame
    }

    #[test]
    fn on_a_healthy_endpoint_a_row_has_its_retries_and_no_more() {
        for retries in [0, 1, 3, 9] {
            assert_eq!(tries(&Blame::default(), retries, false), retries + 1);
            let mut blame = after(1000, 0);
            assert_eq!(tries(&blame, retries, false), retries + 1);
            blame.first_try(true);
            assert_eq!(tries(&blame, retries, false), retries + 1, "its own failure is its own");
        }
    }

    #[test]
    fn in_a_brown_out_it_has_as_many_as_tell_it_from_others() {
        let (some, many) = (after(1000, 30), after(1000, 60));
        assert!((0.2..0.35).contains(&some.rate()), "{}", some.rate());
        assert!((14..20).contains(&tries(&some, 3, false)), "{}", tries(&some, 3, false));
        assert!((30..=60).contains(&tries(&many, 3, false)));
        assert_eq!(tries(&Blame::default(), 3, true), 3 + Blame::HOPELESS + 1);
    }

    #[test]
    fn what_failed_in_an_outage_costs_no_try_behind_it() {
        let (blame, mut tried) = (Blame::default(), Tried::default());
        for _ in 0..20 {
            tried = blame.add(tried, true);
        }
        let mut more = 0;
        while !Blame::is_rows_own(tried, 3) {
            (tried, more) = (blame.add(tried, false), more + 1);
        }
        assert_eq!(more, 3);
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let mut blame = after(1000, 60);
        (0..10_000).for_each(|_| blame.first_try(false));
        assert_eq!(tries(&blame, 3, false), 4);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// A brown-out of any rate up to half fails no row of many, from its first call on.
        #[test]
        fn a_brown_out_fails_no_row(rate in 0.02_f64..0.5, seed: u64) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut blame = Blame::default();
            let mut rows: Vec<(bool, Tried)> = vec![(true, Tried::default()); 64];
            for _ in 0..60_000 {
                let place = random.usize(..rows.len());
                let (is_first, tried) = rows[place];
                let has_failed = random.f64() < rate;
                if is_first {
                    blame.first_try(has_failed);
                }
                rows[place] = (!has_failed, if has_failed {
                    let tried = blame.add(tried, false);
                    prop_assert!(!Blame::is_rows_own(tried, 3), "{tried:?} {}", blame.rate());
                    tried
                } else {
                    Tried::default()
                });
            }
        }
    }
}
