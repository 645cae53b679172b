//! Which of several lanes takes the next call, so that each has its share of them.
//!
//! Each call is a slot of time, and a lane of the share *s* is a task that wants one of 1/*s* slots.
//! Among the lanes whose turn has come, the one whose turn ends first is chosen: earliest deadline
//! first over windows, as in Pfair scheduling (Baruah et al., "Proportionate Progress", Algorithmica
//! 15, 1996). A lane is then never a whole call ahead of its share, and never a whole one behind.

/// Calls are spread in proportion to weights. It knows nothing of time or of who is well: it is told
/// who may take each call.
#[derive(Debug, Clone)]
pub struct Balance {
    lanes: Vec<Share>,
}

#[derive(Debug, Clone, Copy)]
struct Share {
    weight: f64,
    /// Calls that are due to it, less those it took.
    due: f64,
}

/// What sums of shares may be off by.
const BLUR: f64 = 1e-9;

impl Balance {
    /// Lanes with these weights; none of them is 0.
    #[must_use]
    pub fn new(weights: &[u32]) -> Self {
        let share = |weight: &u32| Share { weight: f64::from((*weight).max(1)), due: 0.0 };
        Self { lanes: weights.iter().map(share).collect() }
    }

    /// The lane that is next among those that may take a call; nothing where none may.
    #[must_use]
    pub fn next(&self, may: impl Fn(usize) -> bool) -> Option<usize> {
        let sum = self.sum(&may);
        let mut best: Option<(bool, f64, usize)> = None;
        for (index, lane) in self.lanes.iter().enumerate().filter(|(index, _)| may(*index)) {
            let share = lane.weight / sum;
            let due = lane.due + share;
            let (is_early, deadline) = (due <= BLUR, (1.0 - due) / share);
            let is_better = best.is_none_or(|(was_early, earliest, _)| {
                (is_early, deadline) < (was_early, earliest - BLUR)
            });
            if is_better {
                best = Some((is_early, deadline, index));
            }
        }
        best.map(|(_, _, index)| index)
    }

    /// A lane took a call that these could have taken. What a lane could not take is not made up for
    /// later, beyond one call.
    pub fn took(&mut self, taken: usize, may: impl Fn(usize) -> bool) {
        let sum = self.sum(&may);
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if may(index) {
                lane.due += lane.weight / sum;
            }
            if index == taken {
                lane.due -= 1.0;
            }
            lane.due = lane.due.clamp(-1.0, 1.0);
        }
    }

    /// A lane did not make the call that it took.
    pub fn returned(&mut self, lane: usize) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.due = (lane.due + 1.0).min(1.0);
        }
    }

    fn sum(&self, may: &impl Fn(usize) -> bool) -> f64 {
        let lanes = self.lanes.iter().enumerate().filter(|(index, _)| may(*index));
        lanes.map(|(_, lane)| lane.weight).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take(balance: &mut Balance, may: impl Fn(usize) -> bool + Copy) -> Option<usize> {
        let chosen = balance.next(may)?;
        balance.took(chosen, may);
        Some(chosen)
    }

    #[test]
    fn calls_are_interleaved_not_bunched() {
        let mut balance = Balance::new(&[2, 1, 1]);
        let order: Vec<_> = (0..8).map(|_| take(&mut balance, |_| true).unwrap()).collect();
        assert_eq!(order, [0, 1, 0, 2, 0, 1, 0, 2]);
        assert_eq!(take(&mut balance, |_| false), None);
        assert_eq!(Balance::new(&[]).next(|_| true), None);
    }

    #[test]
    fn a_lane_that_was_away_is_not_flooded_when_it_is_back() {
        let mut balance = Balance::new(&[1, 1]);
        for _ in 0..1000 {
            assert_eq!(take(&mut balance, |lane| lane == 0), Some(0));
        }
        let first: Vec<_> = (0..6).map(|_| take(&mut balance, |_| true).unwrap()).collect();
        assert_eq!(first.iter().filter(|lane| **lane == 1).count(), 3, "{first:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// From a fresh start no lane is ever a call away from its share; within any stretch, whose
        /// both ends may be off, not two.
        #[test]
        fn shares_are_kept_to_within_a_call(weights in proptest::collection::vec(1_u32..1000, 1..8)) {
            let mut balance = Balance::new(&weights);
            let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            let mut counts = vec![0.0; weights.len()];
            for call in 1..=3000 {
                counts[take(&mut balance, |_| true).unwrap()] += 1.0;
                for (count, weight) in counts.iter().zip(&weights) {
                    let away = count - f64::from(call) * f64::from(*weight) / sum;
                    prop_assert!(away.abs() < 1.0 + 1e-6, "{weights:?}: {away} after {call}");
                }
            }
        }

        /// Whoever comes and goes: only those who may are chosen, and one who may take every call has
        /// a turn within as many calls as its weight allows for.
        #[test]
        fn nobody_starves(
            weights in proptest::collection::vec(1_u32..20, 2..6),
            comings in proptest::collection::vec(any::<u8>(), 400..800),
        ) {
            let mut balance = Balance::new(&weights);
            let most: u32 = weights.iter().sum();
            let mut waited = 0;
            for here in comings {
                // The first is always here.
                let may = |lane: usize| lane == 0 || here & (1 << lane) != 0;
                let chosen = take(&mut balance, may).unwrap();
                prop_assert!(may(chosen));
                waited = if chosen == 0 { 0 } else { waited + 1 };
                let bound = 2 * most / weights[0] + 2 * u32::try_from(weights.len()).unwrap();
                prop_assert!(waited <= bound, "{waited} calls went by");
            }
        }

        /// Where the same lanes may take calls again, they have their shares again, whatever was
        /// before: off by what both ends of the stretch may be off.
        #[test]
        fn shares_are_kept_after_any_history(
            weights in proptest::collection::vec(1_u32..50, 2..6),
            before in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut balance = Balance::new(&weights);
            for here in before {
                take(&mut balance, |lane| here & (1 << lane) != 0);
            }
            let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            let mut counts = vec![0.0; weights.len()];
            for call in 1..=600 {
                counts[take(&mut balance, |_| true).unwrap()] += 1.0;
                for (count, weight) in counts.iter().zip(&weights) {
                    let away: f64 = count - f64::from(call) * f64::from(*weight) / sum;
                    prop_assert!(away.abs() <= 3.0, "{weights:?}: {away} after {call}");
                }
            }
        }
    }
}
