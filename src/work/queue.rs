//! The shards that wait for a worker.
//!
//! They are taken in their order, but for those of models that cannot be called at the moment: what
//! another model is asked need not wait for them. Where rows are answered by the names in them, a shard
//! whose rows wait for somebody may be put aside, to make room for the rows of others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::answerer::Needs;

/// Shards by their numbers.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    shards: BTreeSet<u32>,
    // What the rows need that are left of each.
    aside: BTreeMap<u32, Vec<Needs>>,
    is_closed: bool,
}

/// What a worker finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A shard, which is this worker's now.
    Shard(u32),
    /// None that it wants, though one may still come.
    None,
    /// None any more.
    Closed,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in a worker must not take the others with it: the state is always consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a shard.
    pub(super) fn add(&self, shard: u32) {
        let mut state = self.state();
        if !state.is_closed {
            state.shards.insert(shard);
        }
    }

    /// No further shard will come, and those that are there are not to be worked.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        state.shards.clear();
        state.aside.clear();
    }

    /// Puts a shard aside whose rows that are left need this.
    pub(super) fn put_aside(&self, shard: u32, needs: Vec<Needs>) {
        let mut state = self.state();
        if !state.is_closed {
            state.aside.insert(shard, needs);
        }
    }

    /// Takes the first shard that was put aside and has rows that are wanted.
    pub(super) fn take_aside(&self, is_wanted: impl Fn(Needs) -> bool) -> Option<u32> {
        let mut state = self.state();
        let mut aside = state.aside.iter();
        let is_any = |needs: &[Needs]| needs.iter().any(|needs| is_wanted(*needs));
        let shard = aside.find(|(_, needs)| is_any(needs)).map(|(shard, _)| *shard)?;
        state.aside.remove(&shard);
        Some(shard)
    }

    /// Whether there is none, but for those put aside.
    pub(super) fn is_empty(&self) -> bool {
        self.state().shards.is_empty()
    }

    /// Takes the first shard that is wanted.
    pub(super) fn take(&self, is_wanted: impl Fn(u32) -> bool) -> Next {
        let mut state = self.state();
        match state.shards.iter().copied().find(|shard| is_wanted(*shard)) {
            Some(shard) => {
                state.shards.remove(&shard);
                Next::Shard(shard)
            }
            None if state.is_closed => Next::Closed,
            None => Next::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_taken_in_order_by_those_who_want_them() {
        let queue = Queue::default();
        [3, 1, 2].into_iter().for_each(|shard| queue.add(shard));
        assert_eq!(queue.take(|shard| shard != 1), Next::Shard(2));
        assert_eq!(queue.take(|_| true), Next::Shard(1));
        assert_eq!(queue.take(|shard| shard != 3), Next::None);
        queue.add(2);
        assert_eq!(queue.take(|_| true), Next::Shard(2), "a shard may come back");
        let text = Needs::TEXT;
        let other = Needs { name: Some(1), ..text };
        queue.put_aside(7, vec![text]);
        queue.put_aside(6, vec![text, other]);
        assert_eq!(
            queue.take(|shard| shard > 2),
            Next::Shard(3),
            "what is aside is taken otherwise"
        );
        assert_eq!(queue.take_aside(|needs| needs == other), Some(6));
        assert_eq!(queue.take_aside(|needs| needs == other), None);
        queue.close();
        queue.put_aside(8, vec![text]);
        assert_eq!(queue.take_aside(|_| true), None);
        queue.add(5);
        assert_eq!(queue.take(|_| true), Next::Closed);
    }
}
