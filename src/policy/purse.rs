//! A cap on what calls may cost: money is set aside before a call, and what it did cost is taken when
//! it has ended.
//!
//! What is spent and set aside together never passes the cap, so calls that cost no more than was set
//! aside for them never do. A cap is passed only by what calls in flight cost beyond their estimates.

use crate::job::Money;

/// Money for calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purse {
    cap: Money,
    spent: Money,
    reserved: Money,
    in_flight: u64,
}

/// Whether there is money for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Funds {
    /// There was, and it is set aside.
    Reserved,
    /// There may be when calls in flight have ended.
    Wait,
    /// There is not, and nothing is in flight that could leave any.
    Gone,
}

impl Purse {
    /// One of which so much is spent already.
    #[must_use]
    pub fn new(cap: Money, spent: Money) -> Self {
        Self { cap, spent, reserved: Money::ZERO, in_flight: 0 }
    }

    /// What may be spent in all.
    #[must_use]
    pub fn cap(&self) -> Money {
        self.cap
    }

    /// What is spent.
    #[must_use]
    pub fn spent(&self) -> Money {
        self.spent
    }

    /// Sets money aside for a call that is estimated at so much, if there is any.
    pub fn reserve(&mut self, estimate: Money) -> Funds {
        if self.spent.plus(self.reserved).plus(estimate) <= self.cap {
            self.reserved = self.reserved.plus(estimate);
            self.in_flight += 1;
            Funds::Reserved
        } else if self.in_flight > 0 {
            Funds::Wait
        } else {
            Funds::Gone
        }
    }

    /// A call has ended for which so much was set aside, and has cost so much.
    pub fn settle(&mut self, estimate: Money, cost: Money) {
        self.reserved = self.reserved.minus(estimate);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.spent = self.spent.plus(cost);
    }
}

/// What is known of a call's answers before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answers {
    /// The most tokens that they may have together, where that is said.
    pub most: Option<u64>,
    /// How many it asks for.
    pub count: u64,
}

impl From<Option<u64>> for Answers {
    /// One answer of at most so many tokens.
    fn from(most: Option<u64>) -> Self {
        Self { most, count: 1 }
    }
}

/// What is learned of calls from those that have ended, so that estimates are high enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learned {
    // How many tokens of a prompt there may be for a thousand that were guessed.
    input_per_mille: u64,
    // The longest answer there was, of calls of which is not known how many they asked for.
    before: Option<u64>,
    // The longest there was of one.
    longest: Option<u64>,
    // The most there was of calls that were to have none.
    unasked: u64,
    // How many tokens of answers there may be for a thousand that are said to be the most.
    beyond_per_mille: u64,
}

/// Tokens of an answer where none has come yet and nobody said how long it may be.
const FIRST_ANSWER: u64 = 1024;
/// A guess at a prompt's tokens is taken for as much too low, at first.
const FIRST_PER_MILLE: u64 = 1250;

impl Learned {
    /// Of calls of which it is known how long the answers to one were at most so far, or not.
    #[must_use]
    pub fn new(longest: Option<u64>) -> Self {
        Self {
            input_per_mille: FIRST_PER_MILLE,
            before: longest,
            longest: None,
            unasked: 0,
            beyond_per_mille: 1000,
        }
    }

    /// Takes note of a call whose prompt was guessed to have so many tokens, and that used so many.
    pub fn saw(&mut self, guessed: u64, answers: Answers, (input, output): (u64, u64)) {
        let ratio = |of: u64, to: u64| of.saturating_mul(1000).div_ceil(to.max(1));
        self.input_per_mille = self.input_per_mille.max(ratio(input, guessed));
        self.longest = self.longest.max(Some(output.div_ceil(answers.count.max(1))));
        match answers.most {
            Some(0) => self.unasked = self.unasked.max(output),
            Some(most) => self.beyond_per_mille = self.beyond_per_mille.max(ratio(output, most)),
            None => {}
        }
    }

    /// The tokens that a prompt may have which was guessed to have so many.
    #[must_use]
    pub fn input(&self, guessed: u64) -> u64 {
        guessed.saturating_mul(self.input_per_mille).div_ceil(1000)
    }

    /// The tokens that a call's answers may have: what they may have at most, where that is said, and as much more as
    /// others had beyond what was said of them; else a quarter more than the longest had.
    #[must_use]
    pub fn output(&self, answers: impl Into<Answers>) -> u64 {
        let Answers { most, count } = answers.into();
        match most {
            Some(0) => self.unasked,
            Some(most) => {
                let beyond = u128::from(most) * u128::from(self.beyond_per_mille);
                u64::try_from(beyond.div_ceil(1000)).unwrap_or(u64::MAX)
            }
            None => {
                let longest = self.longest.map(|longest| longest.saturating_mul(count));
                match longest.max(self.before) {
                    Some(longest) => longest.saturating_add(longest.div_ceil(4)),
                    None => FIRST_ANSWER.saturating_mul(count),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cents(amount: u64) -> Money {
        Money::from_picodollars(amount)
    }

    #[test]
    fn the_last_call_waits_for_those_in_flight_and_then_is_made_or_not() {
        let mut purse = Purse::new(cents(10), cents(2));
        assert_eq!(purse.reserve(cents(4)), Funds::Reserved);
        assert_eq!(purse.reserve(cents(5)), Funds::Wait);
        purse.settle(cents(4), cents(1));
        assert_eq!(purse.reserve(cents(7)), Funds::Reserved, "to the last cent");
        purse.settle(cents(7), cents(7));
        assert_eq!(purse.reserve(cents(1)), Funds::Gone);
        assert_eq!(purse.spent(), cents(10));
    }

    #[test]
    fn estimates_grow_with_what_is_seen_and_a_bound_is_a_bound() {
        let mut learned = Learned::new(None);
        assert_eq!((learned.input(100), learned.output(None)), (125, 1024));
        let open = Answers::from(None);
        learned.saw(100, open, (110, 40));
        assert_eq!((learned.input(100), learned.output(None)), (125, 50));
        learned.saw(100, open, (300, 20));
        assert_eq!((learned.input(100), learned.output(None)), (300, 50));
        assert_eq!(learned.output(Some(7)), 7);
        assert_eq!(Learned::new(Some(100)).output(None), 125);
        // Several answers are as many times as long; what earlier calls asked for is not known.
        let ten = Answers { most: None, count: 10 };
        assert_eq!((learned.output(ten), Learned::new(None).output(ten)), (500, 10_240));
        assert_eq!(Learned::new(Some(100)).output(ten), 125);
        learned.saw(100, ten, (100, 1000));
        assert_eq!((learned.output(None), learned.output(ten)), (125, 1250));
        // Who has gone beyond what was said may do so again.
        learned.saw(100, Some(100).into(), (100, 250));
        assert_eq!((learned.output(Some(7)), learned.output(Some(0))), (18, 0));
        learned.saw(100, Some(0).into(), (100, 3));
        assert_eq!((learned.output(Some(7)), learned.output(Some(0))), (18, 3));
    }

    proptest! {
        /// Whatever is asked and in whatever order it ends, the cap is never passed by more than what
        /// calls cost beyond their estimates; and while there is money for a call, it is made or
        /// others are in flight.
        #[test]
        fn a_cap_holds_and_nobody_is_stuck_below_it(
            cap in 0_u64..1000,
            before in 0_u64..1000,
            calls in proptest::collection::vec((1_u64..200, 0_u64..200, any::<bool>()), 0..100),
        ) {
            let mut purse = Purse::new(cents(cap), cents(before));
            let mut flights = Vec::new();
            let (mut paid, mut beyond) = (before, 0);
            for (estimate, cost, ends) in calls {
                match purse.reserve(cents(estimate)) {
                    Funds::Reserved => flights.push((estimate, cost)),
                    Funds::Wait => prop_assert!(!flights.is_empty()),
                    Funds::Gone => prop_assert!(flights.is_empty() && paid + estimate > cap),
                }
                if ends && let Some((estimate, cost)) = flights.pop() {
                    purse.settle(cents(estimate), cents(cost));
                    paid += cost;
                    beyond += cost.saturating_sub(estimate);
                }
                prop_assert_eq!(purse.spent(), cents(paid));
                prop_assert!(paid <= cap.max(before) + beyond);
            }
            for (estimate, cost) in flights {
                purse.settle(cents(estimate), cents(cost));
                paid += cost;
                beyond += cost.saturating_sub(estimate);
            }
            prop_assert!(paid <= cap.max(before) + beyond);
            // All has ended: what is left is there to be had.
            let left = cap.saturating_sub(paid);
            prop_assert_eq!(purse.reserve(cents(left)) == Funds::Reserved, paid <= cap);
        }
    }
}
