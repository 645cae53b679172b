//! What calls cost, and whether there is money for them.

use std::time::Instant;

use super::Worker;
use crate::work::attempt::{Flight, Landing};
use crate::work::wallet::Short;
use crate::work::{Message, StopReason};

impl Worker<'_> {
    /// Sets aside what a call may cost, where there is a cap. Without money for it the run ends, unless
    /// calls in flight may leave some.
    pub(super) fn pay(&self, flight: &mut Flight, message: &Message) -> bool {
        let Some(wallet) = &self.shared.wallet else { return true };
        let lane = (flight.lane, self.shared.lanes.lane(flight.lane));
        match wallet.reserve(lane, message, flight.correction.as_deref()) {
            Ok(reserved) => {
                flight.reserved = Some(reserved);
                true
            }
            Err(Short::Now) => false,
            Err(Short::ForGood { spent, call }) => {
                self.stop(StopReason::MaxCost { cap: wallet.cap(), spent, call });
                false
            }
        }
    }

    /// Puts a row back that was about to be called for, as if it had not been taken.
    pub(super) fn give_up_call(&mut self, slot: usize, flight: &Flight, now: Instant) {
        self.slots[slot].feed.put_back(flight.row, now);
        self.spare += 1;
        if flight.is_probe {
            self.shared.lanes.lane(flight.lane).health.forget_probe();
        }
    }

    /// Notes what a call has cost that has ended.
    pub(super) fn account(&mut self, landing: &mut Landing) {
        let lane = self.shared.lanes.lane(landing.flight.lane);
        let attempt = &mut landing.attempt;
        let known = lane.price.as_ref().zip(attempt.usage);
        attempt.cost = known.map(|(price, usage)| price.cost(&usage));
        self.written.cost.note(attempt.cost, attempt.is_unpriced());
        if let Some(wallet) = &self.shared.wallet
            && wallet.settle(&landing.flight, attempt)
        {
            self.shared.gate.wake_all();
        }
    }
}
