//! An endpoint's health and pace, as all workers see them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Server;
use crate::policy::{Bounds, Ended, Follows, Hold, MayCall, Pace, Permit, Reception, Size, Tried};

/// One endpoint's pace, shared.
#[derive(Debug)]
pub(super) struct Health {
    pace: Mutex<Pace>,
    // What of it is looked at before every call, without the lock.
    is_well: AtomicBool,
    may_retry: AtomicBool,
    limit: AtomicUsize,
    has_answered: AtomicBool,
    // Whether it was out of reach for too long, and is not called any more.
    is_given_up: AtomicBool,
    // Where the endpoint is a server of this run's own; and the turn of it that was last seen.
    server: Option<Arc<Server>>,
    turn: AtomicU64,
}

/// How soon a server that is down is looked at again.
const LOOK: Duration = Duration::from_millis(50);
/// Longer than a run waits for anything.
const NEVER: Duration = Duration::from_secs(86_400);

impl Health {
    pub(super) fn new(bounds: &Bounds, server: Option<Arc<Server>>) -> Self {
        let pace = Pace::new(bounds, Instant::now());
        let turn = AtomicU64::new(server.as_ref().map_or(0, |server| server.turn()));
        let limit = AtomicUsize::new(pace.limit());
        let (is_well, may_retry) = (AtomicBool::new(true), AtomicBool::new(true));
        let (has_answered, is_given_up) = (AtomicBool::new(false), AtomicBool::new(false));
        let pace = Mutex::new(pace);
        Self { pace, is_well, may_retry, limit, has_answered, is_given_up, server, turn }
    }

    /// Whether the endpoint is a server of this run's own, which comes back when it dies.
    pub(super) fn is_own(&self) -> bool {
        self.server.is_some()
    }

    /// Whether a server of this run's own may be called; one that has just come back is tried with
    /// one call first.
    fn is_up(&self, server: &Server, now: Instant) -> bool {
        let turn = server.turn();
        if turn == self.turn.load(Ordering::Acquire) {
            return true;
        }
        if turn.is_multiple_of(2) {
            return false;
        }
        self.with(|pace| {
            // Another worker may have seen it first.
            if self.turn.swap(turn, Ordering::AcqRel) != turn {
                pace.outage().restarted(now);
            }
        });
        true
    }

    fn with<T>(&self, change: impl FnOnce(&mut Pace) -> T) -> T {
        // A panic in a worker must not take the others with it: the state is always consistent.
        let mut pace = self.pace.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let result = change(&mut pace);
        // Read first: what all workers write all the time is slow.
        note(&self.is_well, pace.is_well());
        note(&self.may_retry, pace.may_retry());
        if self.limit.load(Ordering::Relaxed) != pace.limit() {
            self.limit.store(pace.limit(), Ordering::Release);
        }
        result
    }

    /// Nobody is to be called any more in this run.
    pub(super) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Release);
    }

    /// How many calls may be under way.
    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Acquire)
    }

    /// Whether rows may be tried again.
    pub(super) fn may_retry(&self) -> bool {
        self.may_retry.load(Ordering::Acquire)
    }

    /// Only rows to be tried again are left: when that may be done, if not now.
    pub(super) fn refill(&self, now: Instant) -> Option<Instant> {
        self.with(|pace| pace.refill(now, fastrand::f64()))
    }

    /// Whether a call may be made now.
    pub(super) fn may_call(&self, now: Instant) -> MayCall {
        if self.is_given_up.load(Ordering::Acquire) {
            return MayCall::Wait(now + NEVER);
        }
        if let Some(server) = &self.server
            && !self.is_up(server, now)
        {
            return MayCall::Wait(now + LOOK);
        }
        if self.is_well.load(Ordering::Acquire) {
            return MayCall::Yes;
        }
        self.with(|pace| pace.may_call(now))
    }

    /// Whether any call was ever answered.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed)
    }

    /// Starts a call for a row whose prompt has so many bytes, as a probe or not, as a retry or not.
    pub(super) fn start(
        &self,
        now: Instant,
        worker: usize,
        size: Size,
        kind: (bool, bool),
    ) -> Result<Permit, Hold> {
        self.with(|pace| pace.start(now, worker, size, kind))
    }

    /// A call that was started is not made.
    pub(super) fn cancel(&self, permit: &Permit) {
        self.with(|pace| pace.cancel(permit));
    }

    /// A call has ended.
    pub(super) fn ended(&self, now: Instant, permit: &Permit, ended: &Ended) -> Follows {
        if ended.reception == Reception::Answered {
            if !self.has_answered() {
                self.has_answered.store(true, Ordering::Relaxed);
            }
            if let Some(server) = &self.server {
                server.answered();
            }
        }
        self.with(|pace| pace.ended(now, permit, ended, fastrand::f64()))
    }

    /// Adds a failed try to those of a row.
    pub(super) fn add(&self, tried: Tried) -> Tried {
        self.with(|pace| pace.add(tried))
    }

    /// Adds a call that was not let in, or closed without an answer, to those of a row.
    pub(super) fn add_refused(&self, tried: Tried) -> Tried {
        self.with(|pace| pace.add_refused(tried))
    }

    /// A call was lost with a server of this run's own.
    pub(super) fn lost(&self) {
        self.with(|pace| pace.outage().lost());
    }

    /// It was out of reach for too long, and is tried on all the same.
    pub(super) fn spare(&self, now: Instant) {
        self.with(|pace| pace.outage().spare(now, fastrand::f64()));
    }

    /// A probe ended without telling anything.
    pub(super) fn forget_probe(&self) {
        self.with(|pace| pace.outage().forget_probe());
    }
}

fn note(flag: &AtomicBool, is: bool) {
    if flag.load(Ordering::Relaxed) != is {
        flag.store(is, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_ones_own_is_left_alone_while_it_is_down_then_tried_with_one_call() {
        let (server, _unwanted) = Server::new();
        let bounds = Bounds {
            concurrency: 4,
            is_fixed: false,
            calls_a_minute: None,
            tokens_a_minute: None,
            answer: None,
            max_outage: Duration::from_secs(60),
        };
        let health = Health::new(&bounds, Some(Arc::clone(&server)));
        let now = Instant::now();
        assert_eq!(health.may_call(now), MayCall::Yes);
        let end = |permit: &Permit, reception| {
            let ended = Ended { reception, is_first: true, used: None, told: None };
            health.ended(now, permit, &ended).has_recovered
        };
        let permit = health.start(now, 0, 1.into(), (false, false)).unwrap();
        let asked = Some(Duration::from_secs(50));
        end(&permit, Reception::Away { is_overload: false, asked });
        server.went_down();
        assert_eq!(health.may_call(now), MayCall::Wait(now + LOOK), "whatever it asked for");
        server.came_up();
        assert_eq!(health.may_call(now), MayCall::Probe);
        assert!(matches!(health.may_call(now), MayCall::Wait(_)));
        let permit = health.start(now, 0, 1.into(), (true, false)).unwrap();
        assert!(end(&permit, Reception::Answered));
        assert_eq!(health.may_call(now), MayCall::Yes);
        assert!(server.went_down(), "it had answered");
    }
}
