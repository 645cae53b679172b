//! The endpoint's health, as all workers see it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::policy::{MayCall, Outage, Trouble};

/// One endpoint's outage policy, shared.
#[derive(Debug)]
pub(super) struct Health {
    outage: Mutex<Outage>,
    // Looked at before every call, so that a healthy endpoint costs no lock.
    is_well: AtomicBool,
    has_answered: AtomicBool,
}

impl Health {
    pub(super) fn new(max_outage: Duration) -> Self {
        let outage = Mutex::new(Outage::new(max_outage, Instant::now()));
        Self { outage, is_well: AtomicBool::new(true), has_answered: AtomicBool::new(false) }
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

    /// A probe ended without telling anything.
    pub(super) fn forget_probe(&self) {
        self.with(Outage::forget_probe);
    }
}
