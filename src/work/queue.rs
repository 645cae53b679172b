//! The shards that wait for a worker.
//!
//! They are taken in their order, but for those of models that cannot be called at the moment: what
//! another model is asked need not wait for them.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shards by their numbers.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    shards: BTreeSet<u32>,
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
    }

    /// Whether there is none.
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
        queue.close();
        queue.add(5);
        assert_eq!(queue.take(|_| true), Next::Closed);
    }
}
