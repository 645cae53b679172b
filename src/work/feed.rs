//! Which row of a shard comes next: the state of its rows, without a clock or a disk.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Instant;

use crate::policy::Tries;

/// A row's place in its shard, from 0.
pub(super) type RowIndex = usize;

/// A shard's rows on their way from pending to done.
#[derive(Debug)]
pub(super) struct Feed {
    // Which rows are wanted and have no outcome that counts.
    wanted: Vec<bool>,
    next: RowIndex,
    // Rows that will be tried again, and when.
    retries: BinaryHeap<Reverse<(Instant, RowIndex)>>,
    tries: HashMap<RowIndex, Tries>,
    left: usize,
}

/// Which rows may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// One that is due for another try, else one that is new.
    DueFirst,
    /// One that is new, else one that is due for another try.
    NewFirst,
}

impl Feed {
    /// Rows of which the wanted ones are true.
    pub(super) fn new(wanted: Vec<bool>) -> Self {
        let left = wanted.iter().filter(|wanted| **wanted).count();
        let mut feed =
            Self { wanted, next: 0, retries: BinaryHeap::new(), tries: HashMap::new(), left };
        feed.skip();
        feed
    }

    /// Moves to the next wanted row that was not started yet.
    fn skip(&mut self) {
        while self.wanted.get(self.next) == Some(&false) {
            self.next += 1;
        }
    }

    /// Whether a row could be started now.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.next < self.wanted.len() || self.retry_at().is_some_and(|at| at <= now)
    }

    /// The next row to start.
    pub(super) fn take(&mut self, now: Instant, choice: Choice) -> Option<RowIndex> {
        let is_new = match choice {
            Choice::DueFirst => false,
            Choice::NewFirst => !self.is_exhausted(),
        };
        if !is_new && self.retry_at().is_some_and(|at| at <= now) {
            return self.retries.pop().map(|Reverse((_, row))| row);
        }
        if self.is_exhausted() {
            return None;
        }
        let row = self.next;
        self.next += 1;
        self.skip();
        Some(row)
    }

    /// When the next row is due for another try.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retries.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes back the row that was taken last: it was not started.
    pub(super) fn put_back(&mut self, row: RowIndex, now: Instant) {
        match self.tries.contains_key(&row) {
            true => self.again(row, now),
            false => self.next = row,
        }
    }

    /// A call for a row has ended; one that was not made is none. Gives how many there were.
    pub(super) fn tried(&mut self, row: RowIndex, is_made: bool) -> u32 {
        let tries = self.tries.entry(row).or_default();
        tries.made += u32::from(is_made);
        tries.made
    }

    /// Changes what is noted of a row's tries.
    pub(super) fn note(&mut self, row: RowIndex) -> &mut Tries {
        self.tries.entry(row).or_default()
    }

    /// How often a row was tried before.
    pub(super) fn tries(&self, row: RowIndex) -> Tries {
        self.tries.get(&row).copied().unwrap_or_default()
    }

    /// A row will be tried again then.
    pub(super) fn again(&mut self, row: RowIndex, at: Instant) {
        self.retries.push(Reverse((at, row)));
    }

    /// A row has its outcome.
    pub(super) fn done(&mut self, row: RowIndex) {
        self.tries.remove(&row);
        self.left -= 1;
    }

    /// Rows without an outcome.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Whether every row was started at least once.
    pub(super) fn is_exhausted(&self) -> bool {
        self.next >= self.wanted.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::Choice::{DueFirst, NewFirst};
    use super::*;

    #[test]
    fn due_retries_come_before_new_rows() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut feed = Feed::new(vec![false, true, true, false, true]);
        assert_eq!(feed.take(now, DueFirst), Some(1));
        feed.again(1, later);
        assert_eq!(feed.take(now, DueFirst), Some(2));
        assert_eq!(feed.take(later, DueFirst), Some(1));
        assert_eq!(feed.take(later, DueFirst), Some(4));
        assert!(feed.is_exhausted() && !feed.is_ready(later));
        assert_eq!((feed.take(later, DueFirst), feed.left()), (None, 3));
        assert_eq!((feed.tried(1, true), feed.tried(1, true), feed.tried(1, false)), (1, 2, 2));
        for row in [1, 2, 4] {
            feed.done(row);
        }
        assert_eq!((feed.left(), feed.tries(1)), (0, Tries::default()));
    }

    #[test]
    fn a_row_that_was_not_started_is_the_next() {
        let now = Instant::now();
        let mut feed = Feed::new(vec![true, false, true, true]);
        assert_eq!(feed.take(now, DueFirst), Some(0));
        feed.put_back(0, now);
        assert_eq!(feed.take(now, DueFirst), Some(0));
        feed.tried(0, true);
        feed.again(0, now);
        assert_eq!((feed.take(now, NewFirst), feed.take(now, NewFirst)), (Some(2), Some(3)));
        assert_eq!(feed.take(now, NewFirst), Some(0));
        feed.put_back(0, now);
        assert_eq!((feed.take(now, DueFirst), feed.left()), (Some(0), 3));
    }

    proptest! {
        /// Whatever fails and whenever, each wanted row is done once and no other is started.
        #[test]
        fn every_wanted_row_is_done_once(
            wanted in proptest::collection::vec(any::<bool>(), 0..60),
            fails in proptest::collection::vec(0_u64..4, 0..200),
        ) {
            let start = Instant::now();
            let mut feed = Feed::new(wanted.clone());
            let mut fails = fails.into_iter();
            let mut done = vec![false; wanted.len()];
            let mut second = 0;
            while feed.left() > 0 {
                let now = start + Duration::from_secs(second);
                let Some(row) = feed.take(now, DueFirst) else {
                    prop_assert!(feed.retry_at().is_some_and(|at| at > now), "nothing is lost");
                    second += 1;
                    continue;
                };
                prop_assert!(wanted[row] && !done[row]);
                match fails.next() {
                    Some(wait) if wait > 0 => {
                        feed.tried(row, true);
                        feed.again(row, now + Duration::from_secs(wait));
                    }
                    _ => {
                        done[row] = true;
                        feed.done(row);
                    }
                }
            }
            prop_assert_eq!(done, wanted);
        }
    }
}
