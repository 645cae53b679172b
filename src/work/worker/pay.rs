//! What calls cost, and whether there is money for them.

use super::Worker;
use crate::work::attempt::{Flight, Landing};
use crate::work::wallet::Short;
use crate::work::{Message, StopReason};

impl Worker<'_> {
    /// Sets aside what a call may cost, where there is a cap. Without money for it the run ends, unless
    /// calls in flight may leave some.
    pub(super) fn pay(&self, flight: &mut Flight, message: &Message) -> bool {
        let lane = self.shared.lanes.lane(flight.lane);
        flight.price = lane.pricing.own(message.request.as_deref());
        let Some(wallet) = &self.shared.wallet else { return true };
        let lane = (flight.lane, lane);
        let (price, correction) = (flight.price.as_ref(), flight.correction.as_deref());
        match wallet.reserve(lane, price, message, correction) {
            Ok(reserved) => {
                flight.reserved = Some(reserved);
                true
            }
            Err(Short::Now) => false,
            Err(Short::ForGood { spent, assumed, call }) => {
                self.stop(StopReason::MaxCost { cap: wallet.cap(), spent, assumed, call });
                false
            }
        }
    }

    /// Notes what a call has cost that has ended.
    pub(super) fn account(&mut self, landing: &mut Landing) {
        let lane = self.shared.lanes.lane(landing.flight.lane);
        let attempt = &mut landing.attempt;
        attempt.cost = lane.cost(landing.flight.price.as_ref(), attempt);
        if let Some(wallet) = &self.shared.wallet
            && wallet.settle(&landing.flight, attempt)
        {
            self.shared.gate.wake_all();
        }
        self.written.cost.note(attempt.cost, attempt.is_unpriced(), attempt.assumed);
    }
}
