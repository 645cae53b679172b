//! The endpoint's health, as all workers see it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Server;
use crate::policy::{MayCall, Outage, Trouble};

/// One endpoint's outage policy, shared.
#[derive(Debug)]
pub(super) struct Health {
    outage: Mutex<Outage>,
    // Looked at before every call, so that a healthy endpoint costs no lock.
    is_well: AtomicBool,
    has_answered: AtomicBool,
    // Where the endpoint is a server of this run's own; and the turn of it that was last seen.
    server: Option<Arc<Server>>,
    turn: AtomicU64,
}

/// How soon a server that is down is looked at again.
const LOOK: Duration = Duration::from_millis(50);

impl Health {
    pub(super) fn new(max_outage: Duration, server: Option<Arc<Server>>) -> Self {
        let outage = Mutex::new(Outage::new(max_outage, Instant::now()));
        let turn = AtomicU64::new(server.as_ref().map_or(0, |server| server.turn()));
        let (is_well, has_answered) = (AtomicBool::new(true), AtomicBool::new(false));
        Self { outage, is_well, has_answered, server, turn }
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
        self.with(|outage| {
            // Another worker may have seen it first.
            if self.turn.swap(turn, Ordering::AcqRel) != turn {
                outage.restarted(now);
            }
        });
        true
    }

    fn with<T>(&self, change: impl FnOnce(&mut Outage) -> T) -> T {
        // A panic in a worker must not take the others with it: the state is always consistent.
        let mut outage = self.outage.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let result = change(&mut outage);
        self.is_well.store(outage.is_well(), Ordering::Release);
        result
    }

    /// Whether a call may be made now.
    pub(super) fn may_call(&self, now: Instant) -> MayCall {
        if let Some(server) = &self.server
            && !self.is_up(server, now)
        {
            return MayCall::Wait(now + LOOK);
        }
        if self.is_well.load(Ordering::Acquire) {
            return MayCall::Yes;
        }
        self.with(|outage| outage.may_call(now))
    }

    /// Whether any call was ever answered.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed)
    }

    /// A call was answered. True when that ends a pause.
    pub(super) fn answered(&self) -> bool {
        // Read first: what all workers write all the time is slow.
        if !self.has_answered() {
            self.has_answered.store(true, Ordering::Relaxed);
        }
        if let Some(server) = &self.server {
            server.answered();
        }
        !self.is_well.load(Ordering::Acquire) && self.with(|outage| outage.answered(Instant::now()))
    }

    /// A call showed that the endpoint must be left alone.
    pub(super) fn troubled(&self, now: Instant, asked: Option<Duration>) -> Trouble {
        self.with(|outage| outage.troubled(now, asked, fastrand::f64()))
    }

    /// A call was answered with an error that may be the endpoint's.
    pub(super) fn erred(&self, now: Instant, is_first: bool) -> Option<Trouble> {
        self.with(|outage| outage.erred(now, is_first, fastrand::f64()))
    }

    /// A call was lost with a server of this run's own.
    pub(super) fn lost(&self) {
        self.with(Outage::lost);
    }

    /// It was out of reach for too long, and is tried on all the same.
    pub(super) fn spare(&self, now: Instant) {
        self.with(|outage| outage.spare(now, fastrand::f64()));
    }

    /// A probe ended without telling anything.
    pub(super) fn forget_probe(&self) {
        self.with(Outage::forget_probe);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_ones_own_is_left_alone_while_it_is_down_then_tried_with_one_call() {
        let (server, _unwanted) = Server::new();
        let health = Health::new(Duration::from_secs(60), Some(Arc::clone(&server)));
        let now = Instant::now();
        assert_eq!(health.may_call(now), MayCall::Yes);
        health.troubled(now, Some(Duration::from_secs(50)));
        server.went_down();
        assert_eq!(health.may_call(now), MayCall::Wait(now + LOOK), "whatever it asked for");
        server.came_up();
        assert_eq!(health.may_call(now), MayCall::Probe);
        assert!(matches!(health.may_call(now), MayCall::Wait(_)));
        assert!(health.answered());
        assert_eq!(health.may_call(now), MayCall::Yes);
        assert!(server.went_down(), "it had answered");
    }
}
