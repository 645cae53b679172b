//! An endpoint's health and pace, as all workers see them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Server;
use crate::policy::{
    Bounds, Ended, EndpointFacts, EndpointSignal, Follows, Hold, MayCall, Pace, Permit, Size, Tries,
};

/// One endpoint's pace, shared.
#[derive(Debug)]
pub(super) struct Health {
    pace: Mutex<Pace>,
    // What of it is looked at before every call, without the lock.
    is_well: AtomicBool,
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
        let is_well = AtomicBool::new(true);
        let (has_answered, is_given_up) = (AtomicBool::new(false), AtomicBool::new(false));
        let pace = Mutex::new(pace);
        Self { pace, is_well, has_answered, is_given_up, server, turn }
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
        result
    }

    /// Nobody is to be called any more in this run.
    pub(super) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Release);
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

    /// Starts a call for a row whose prompt has so many bytes, as a probe or not.
    pub(super) fn start(
        &self,
        now: Instant,
        worker: usize,
        size: Size,
        is_probe: bool,
    ) -> Result<Permit, Hold> {
        self.with(|pace| pace.start(now, worker, size, is_probe))
    }

    /// A call that was started is not made.
    pub(super) fn cancel(&self, now: Instant, permit: &Permit) {
        self.with(|pace| pace.cancel(now, permit));
    }

    /// A call has ended.
    pub(super) fn ended(&self, now: Instant, permit: &Permit, ended: &Ended) -> Follows {
        if ended.signal == EndpointSignal::Answered {
            if !self.has_answered() {
                self.has_answered.store(true, Ordering::Relaxed);
            }
            if let Some(server) = &self.server {
                server.answered();
            }
        }
        self.with(|pace| pace.ended(now, permit, ended, fastrand::f64()))
    }

    /// What is known of the endpoint where a row's call has failed; what others know of it is filled in
    /// by the caller.
    pub(super) fn facts(&self, tries: &Tries) -> EndpointFacts {
        let (has_answered, is_own) = (self.has_answered(), self.is_own());
        self.with(|pace| EndpointFacts {
            answers: 0,
            has_answered,
            is_known: false,
            is_own,
            is_paused: pace.outage().is_out(),
            is_busy: pace.in_flight() > 0,
            is_load_cleared: pace.is_load_cleared(),
            denied_rows: 0,
            unknown_rows: 0,
            failed: pace.add(tries.failed),
            shut: pace.add_refused(tries.shut),
        })
    }

    /// It was reached before, in an earlier session.
    pub(super) fn reached_before(&self) {
        self.with(|pace| pace.outage().reached());
    }

    /// Whether it was ever reached.
    pub(super) fn was_reached(&self) -> bool {
        self.with(|pace| pace.outage().was_reached())
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
            max_first_outage: Duration::from_secs(60),
        };
        let health = Health::new(&bounds, Some(Arc::clone(&server)));
        let now = Instant::now();
        assert_eq!(health.may_call(now), MayCall::Yes);
        let end = |permit: &Permit, signal| {
            let (is_first, is_suspect, failed_before) = (true, false, None);
            let (used, told) = (None, None);
            let ended = Ended { signal, is_first, failed_before, is_suspect, used, told };
            health.ended(now, permit, &ended).has_recovered
        };
        let permit = health.start(now, 0, 1.into(), false).unwrap();
        let asked = Some(Duration::from_secs(50));
        end(&permit, EndpointSignal::Refused { asked });
        server.went_down();
        assert_eq!(health.may_call(now), MayCall::Wait(now + LOOK), "whatever it asked for");
        server.came_up();
        assert_eq!(health.may_call(now), MayCall::Probe);
        assert!(matches!(health.may_call(now), MayCall::Wait(_)));
        let permit = health.start(now, 0, 1.into(), true).unwrap();
        assert!(end(&permit, EndpointSignal::Answered));
        assert_eq!(health.may_call(now), MayCall::Yes);
        assert!(server.went_down(), "it had answered");
    }
}
