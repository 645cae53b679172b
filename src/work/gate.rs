//! Permits: how many requests are in flight, over all workers.
//!
//! The bound is strict: one counter, taken from before a call and given back after its outcome is
//! written. Who gets the permits is fair: while nobody goes without, a worker may have as many as
//! it can use; while somebody does, none takes more than its share. A worker hands a permit it got
//! back straight to its next row, so that at full speed the counter is seldom touched.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::policy::share;

/// The permits of a run.
#[derive(Debug)]
pub(super) struct Gate {
    limit: usize,
    used: AtomicUsize,
    // How many workers have rows to send; how many of those found no permit.
    demanding: AtomicUsize,
    hungry: AtomicUsize,
    seats: Vec<Seat>,
}

#[derive(Debug, Default)]
struct Seat {
    demanding: AtomicBool,
    hungry: AtomicBool,
    wake: Notify,
}

impl Gate {
    /// `limit` permits for `workers`.
    pub(super) fn new(limit: usize, workers: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
            demanding: AtomicUsize::new(0),
            hungry: AtomicUsize::new(0),
            seats: (0..workers).map(|_| Seat::default()).collect(),
        }
    }

    /// How many are taken.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// How many a worker may hold at this moment.
    fn allowed(&self, worker: usize) -> usize {
        let own = usize::from(self.seats[worker].hungry.load(Ordering::Relaxed));
        if self.hungry.load(Ordering::Relaxed) > own {
            share(self.limit, self.demanding.load(Ordering::Relaxed))
        } else {
            self.limit
        }
    }

    /// Takes one for the next row of a worker that has so many calls under way, and `spare` permits that
    /// came back from others: one of those, if it may keep it. Else all of those go back, and it asks as
    /// everybody does, so that it is woken: it may have no call under way whose end would do that.
    pub(super) fn take_next(&self, worker: usize, in_flight: usize, spare: &mut usize) -> bool {
        if *spare > 0 && self.may_keep(worker, in_flight + *spare) {
            *spare -= 1;
            return true;
        }
        self.give_back(worker, std::mem::take(spare));
        self.take(worker, in_flight)
    }

    /// Whether a worker that holds so many may keep one for its next row.
    fn may_keep(&self, worker: usize, held: usize) -> bool {
        held <= self.allowed(worker) && self.used() <= self.limit
    }

    /// Takes one for a worker that holds so many. When there is none for it, it is woken once there
    /// may be.
    fn take(&self, worker: usize, held: usize) -> bool {
        let taken = held < self.allowed(worker) && self.count_up();
        self.set_hungry(worker, !taken);
        // One may have been given back before the wish was noted.
        if !taken && held < self.allowed(worker) && self.count_up() {
            self.set_hungry(worker, false);
            return true;
        }
        taken
    }

    fn count_up(&self) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
                (used < self.limit).then_some(used + 1)
            })
            .is_ok()
    }

    /// Gives some back, and wakes a worker that goes without.
    pub(super) fn give_back(&self, worker: usize, count: usize) {
        if count == 0 {
            return;
        }
        self.used.fetch_sub(count, Ordering::AcqRel);
        if self.hungry.load(Ordering::Acquire) == 0 {
            return;
        }
        let others = (1..self.seats.len()).map(|step| (worker + step) % self.seats.len());
        for other in others {
            if self.seats[other].hungry.load(Ordering::Relaxed) {
                self.seats[other].wake.notify_one();
                return;
            }
        }
    }

    /// Notes whether a worker has rows to send.
    pub(super) fn set_demanding(&self, worker: usize, is: bool) {
        if self.seats[worker].demanding.swap(is, Ordering::Relaxed) != is {
            adjust(&self.demanding, is);
        }
        if !is {
            self.set_hungry(worker, false);
        }
    }

    fn set_hungry(&self, worker: usize, is: bool) {
        if self.seats[worker].hungry.swap(is, Ordering::AcqRel) != is {
            adjust(&self.hungry, is);
        }
    }

    /// Waits until there may be something for a worker to do.
    pub(super) async fn woken(&self, worker: usize) {
        self.seats[worker].wake.notified().await;
    }

    /// Wakes all workers.
    pub(super) fn wake_all(&self) {
        for seat in &self.seats {
            seat.wake.notify_one();
        }
    }
}

fn adjust(counter: &AtomicUsize, up: bool) {
    if up {
        counter.fetch_add(1, Ordering::AcqRel);
    } else {
        counter.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_may_have_all_until_another_goes_without() {
        let gate = Gate::new(4, 2);
        gate.set_demanding(0, true);
        for held in 0..4 {
            assert!(gate.take(0, held));
        }
        assert!(!gate.take(0, 4));
        assert!(gate.may_keep(0, 4), "nobody else wants any");
        gate.set_demanding(1, true);
        assert!(!gate.take(1, 0));
        assert!(!gate.may_keep(0, 3) && gate.may_keep(0, 2));
        gate.give_back(0, 2);
        assert!(gate.take(1, 0) && gate.take(1, 1));
        assert!(!gate.take(1, 2));
        assert_eq!(gate.used(), 4);
        gate.set_demanding(1, false);
    }

    #[test]
    fn who_must_give_back_what_it_held_is_woken_when_there_is_room() {
        let gate = Gate::new(8, 2);
        for worker in [0, 1] {
            gate.set_demanding(worker, true);
        }
        (0..8).for_each(|held| assert!(gate.take(0, held)));
        // The second goes without, so the first may keep no more than its share.
        assert!(!gate.take(1, 0));
        let mut spare = 4;
        assert!(!gate.take_next(0, 4, &mut spare));
        assert_eq!((spare, gate.used()), (0, 4));
        (0..4).for_each(|held| assert!(gate.take(1, held)));
        gate.set_demanding(1, false);
        gate.give_back(1, 4);
        let woken = std::pin::pin!(gate.woken(0));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(woken.poll(&mut context).is_ready());
        assert!(gate.take_next(0, 4, &mut spare));
    }

    #[test]
    fn the_limit_holds_under_contention() {
        let gate = Gate::new(7, 8);
        let highest = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for worker in 0..8 {
                let (gate, highest) = (&gate, &highest);
                scope.spawn(move || {
                    gate.set_demanding(worker, true);
                    let mut held = 0;
                    for _ in 0..20_000 {
                        if gate.take(worker, held) {
                            held += 1;
                            highest.fetch_max(gate.used(), Ordering::Relaxed);
                        } else {
                            gate.give_back(worker, std::mem::take(&mut held));
                        }
                    }
                    gate.give_back(worker, held);
                    gate.set_demanding(worker, false);
                });
            }
        });
        assert_eq!(gate.used(), 0);
        assert!(highest.into_inner() <= 7);
        assert_eq!(gate.hungry.load(Ordering::Relaxed), 0);
    }
}
