//! Which row is called for next, and what holds the others back.

use std::rc::Rc;
use std::time::Instant;

use futures_util::stream::FuturesUnordered;

use super::{LANE, PassedEnd, State};
use crate::format::envelope::Verdict;
use crate::job::{Failure, FailureKind, Id};
use crate::policy::{Hold, MayCall};
use crate::telemetry::Event;
use crate::work::attached::{Message, Pause, message};
use crate::work::attempt::{Flight, Landing, Line, echo};
use crate::work::feed::RowIndex;
use crate::work::row::Prepared;
use crate::work::wallet::Short;
use crate::work::{Error, StopReason};

impl State<'_> {
    /// Starts as many rows as may be started.
    pub(super) fn feed<F: Future<Output = Landing>>(
        &mut self,
        flights: &mut FuturesUnordered<F>,
        fly: impl Fn(Rc<Line>, Flight, Message) -> F,
        now: Instant,
    ) {
        let mut pause = Pause::new();
        (self.has_paused, self.held_until) = (false, None);
        while !self.has_paused && self.end.is_none() && flights.len() < self.options.concurrency {
            let Some(is_probe) = self.admit(now) else { break };
            let Some(place) = self.take(now) else {
                self.turn_away(is_probe);
                break;
            };
            let Some((id, hash, message)) = self.prepare(place) else { break };
            let flight = Flight::new((0, place), id, hash, (LANE, is_probe));
            match (message, self.line.clone()) {
                (Err(failure), _) => {
                    self.turn_away(is_probe);
                    self.put(place, &flight.id, Verdict::Failed(&failure, 0), None);
                }
                (Ok(message), Some(line)) => {
                    self.has_paused = pause.is_due(&message);
                    let Some(flight) = self.permit(flight, &message, now) else { break };
                    flights.push(fly(line, flight, message));
                }
                (Ok(message), None) => {
                    let landing = echo(self.lane(), flight, message);
                    self.land(landing, now);
                }
            }
        }
    }

    /// A row's id, the hash of its prompt, and what is sent for it, or why nothing is.
    fn prepare(&self, place: RowIndex) -> Option<(Id, u64, Result<Message, Failure>)> {
        let Prepared { id, hash, prompt } = self.rows.prepare(place, self.job, &self.template)?;
        let api = self.lane().model.api();
        let message = prompt.and_then(|it| message(it, self.attachments.as_ref(), api, false));
        Some((id, hash, message.and_then(|message| self.priced(message))))
    }

    /// What cannot be kept below a cap is not asked: which models lines name nobody knows before.
    fn priced(&self, message: Message) -> Result<Message, Failure> {
        let pricing = &self.lane().pricing;
        if self.wallet.is_none() || pricing.price.is_some() {
            return Ok(message);
        }
        let own = pricing.own(message.request.as_deref());
        if pricing.of_call(own.as_ref()).is_some() {
            return Ok(message);
        }
        let models = message.request.and_then(|it| it.model).into_iter().collect();
        let what = Error::UnknownPrices { models }.to_string();
        Err(Failure::new(FailureKind::NoModel, what))
    }

    /// Whether the endpoint may be called, and whether with a probe.
    fn admit(&mut self, now: Instant) -> Option<bool> {
        if self.line.is_none() {
            return Some(false);
        }
        match self.lane().health.may_call(now) {
            MayCall::Yes => Some(false),
            MayCall::Probe => Some(true),
            MayCall::Wait(until) => {
                self.held_until = Some(until);
                None
            }
        }
    }

    /// Nothing is called for though that was allowed.
    fn turn_away(&self, is_probe: bool) {
        if is_probe {
            self.lane().health.forget_probe();
        }
    }

    /// The next row that may be started: one that is due, else one that is new.
    fn take(&mut self, now: Instant) -> Option<RowIndex> {
        if let Some(place) = self.rows.take_due(now) {
            return Some(place);
        }
        match self.has_room() {
            true => self.take_in(super::reading::Rows::take_new).flatten(),
            false => None,
        }
    }

    /// Gives a call what it holds of its lane and of the money there is. Where there is none of either its
    /// row goes back.
    fn permit(&mut self, flight: Flight, message: &Message, now: Instant) -> Option<Flight> {
        let (place, is_probe) = (flight.row, flight.is_probe);
        let row = self.rows.row(place)?;
        let (correction, answered) = (row.correction.clone(), row.answered);
        match self.lane().health.start(now, 0, message.size(), is_probe) {
            Ok(permit) => {
                // Nobody looks whether two rows have one id: their calls differ by their places.
                let flight = flight.correcting(correction).permitted(permit);
                let flight = flight.again(place, answered);
                if let Some(flight) = self.pay(flight, message) {
                    return Some(flight);
                }
                self.lane().health.cancel(now, &permit);
            }
            Err(hold) => self.hold(hold),
        }
        self.turn_away(is_probe);
        self.rows.put_back(place, now);
        None
    }

    /// Sets aside what a call may cost, where there is a cap. Without money for it nothing more is started,
    /// unless calls in flight may leave some.
    fn pay(&mut self, mut flight: Flight, message: &Message) -> Option<Flight> {
        flight.price = self.lane().pricing.own(message.request.as_deref());
        let Some(wallet) = &self.wallet else { return Some(flight) };
        let (price, correction) = (flight.price.as_ref(), flight.correction.as_deref());
        match wallet.reserve((LANE, self.lanes.lane(LANE)), price, message, correction) {
            Ok(reserved) => {
                flight.reserved = Some(reserved);
                Some(flight)
            }
            Err(Short::Now) => None,
            Err(Short::ForGood { spent, assumed, call }) => {
                let cap = wallet.cap();
                let reason = StopReason::MaxCost { cap, spent, assumed, call };
                self.finish(PassedEnd::Stopped(reason));
                None
            }
        }
    }

    /// Notes what a call has cost that has ended.
    pub(super) fn account(&mut self, landing: &mut Landing) {
        landing.attempt.cost = self.lane().cost(landing.flight.price.as_ref(), &landing.attempt);
        if let Some(wallet) = &self.wallet {
            // Whoever waits for what that leaves is looked at in the next turn.
            wallet.settle(&landing.flight, &mut landing.attempt);
        }
        let attempt = &landing.attempt;
        self.tally.cost.note(attempt.cost, attempt.is_unpriced(), attempt.assumed);
    }

    /// Notes what holds calls back.
    fn hold(&mut self, hold: Hold) {
        let (until, why) = match hold {
            // The end of a call is waited for in any case.
            Hold::Full => return,
            // A moment, of which nobody need know.
            Hold::Load(until) => {
                self.held_until = Some(until);
                return;
            }
            Hold::Told(until) => (until, "rate limit"),
            Hold::Calls(until) => (until, "--rpm"),
            Hold::Tokens(until) => (until, "--tpm"),
        };
        self.held_until = Some(until);
        self.sink.emit(&Event::Waiting { until, why });
    }
}
