//! A shard worker: one thread with its own runtime, its own connections and its own shards.
//!
//! Each turn of its loop starts the rows it may start, writes what has come in with one `write(2)`
//! a shard, hands what was written to its committer when enough is waiting, and then sleeps until
//! something happens. All that can happen is an [`Event`].

mod admit;
mod judge;
mod named;
mod pay;
mod route;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use crossbeam_channel::Sender;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::UnboundedReceiver;

use super::attached::{Message, Pause, message};
use super::attempt::{Flight, Landing, Line, echo, fly};
use super::committer::{Done, Order};
use super::lane::LaneIndex;
use super::queue::Next;
use super::row::Prepared;
use super::slot::Slot;
use super::{Error, Happened, Shared, StopReason, Tally};
use crate::guard::Guard;
use crate::policy::{CommitWindow, Durability, Verdict};
use crate::shutdown::{Shutdown, Stage};
use crate::telemetry::now_ms;

use route::{Start, Turn};

/// What a worker may be woken by.
enum Event<'a> {
    /// Calls have ended.
    Landed(Vec<Landing>),
    /// The committer has done something.
    Done(Option<Done<'a>>),
    /// A time has come, permits are free, or the run's stage is another.
    Woken,
}

pub(super) struct Worker<'a> {
    number: usize,
    shared: &'a Shared<'a>,
    // By lane; nothing where nobody is called.
    lines: Vec<Option<Rc<Line>>>,
    stage: Shutdown,
    orders: Sender<Order>,
    done: UnboundedReceiver<Done<'a>>,
    window: CommitWindow,
    /// The last is fed; those before it have only stragglers left.
    slots: Vec<Slot<'a>>,
    is_opening: bool,
    queue_is_closed: bool,
    /// Permits that came back and were not used again yet.
    spare: usize,
    /// Outcomes written, and those on their way to the disk.
    written: Tally,
    syncing: Tally,
    // When what holds calls back may be over, and until when the screen says what that is.
    held_until: Option<Instant>,
    told_until: Option<Instant>,
    // The lanes that took no row when calls were last started.
    held: Vec<LaneIndex>,
    turn: Turn,
    // Whether there is more to start once calls were looked after.
    has_paused: bool,
    // Calls that were answered, well or badly, by lane.
    answers: Vec<u64>,
    is_closing: bool,
}

/// Shards with stragglers that a worker keeps open in any case while it feeds another.
const STRAGGLING: usize = 2;

/// A worker's calls that are under way. Each has its future in the set itself, in one allocation.
type Flights<F> = FuturesUnordered<F>;

impl<'a> Worker<'a> {
    pub(super) fn new(
        number: usize,
        shared: &'a Shared<'a>,
        lines: Vec<Option<Rc<Line>>>,
        orders: Sender<Order>,
        done: UnboundedReceiver<Done<'a>>,
    ) -> Self {
        Self {
            number,
            shared,
            answers: vec![0; lines.len()],
            lines,
            stage: shared.stage.clone(),
            orders,
            done,
            window: CommitWindow::new(shared.options.durability, shared.options.parallel),
            slots: Vec::new(),
            is_opening: false,
            queue_is_closed: false,
            spare: 0,
            written: Tally::default(),
            syncing: Tally::default(),
            held_until: None,
            told_until: None,
            held: Vec::new(),
            turn: Turn::default(),
            has_paused: false,
            is_closing: false,
        }
    }

    /// Works until there is nothing left or the run ends.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        let mut flights = Flights::new();
        loop {
            let now = Instant::now();
            if self.stage.stage() == Stage::Aborting && !flights.is_empty() {
                self.drop_flights(&mut flights);
            }
            // A permit is free only once the outcome it was taken for is written.
            if !Guard::WriteBeforePermit.is_left_out() {
                self.write(now)?;
            }
            self.feed(&mut flights, fly, now)?;
            self.open_next(flights.len());
            if !Guard::WriteBeforePermit.is_left_out() || flights.is_empty() {
                self.write(now)?;
            }
            self.leave_lost();
            self.commit(now);
            self.order_leaving()?;
            self.settle(&flights)?;
            match self.next_event(&mut flights, now).await {
                Event::Landed(landings) => {
                    let (now, at_ms) = (Instant::now(), now_ms());
                    for landing in landings {
                        self.spare += 1;
                        self.land(landing, now, at_ms);
                    }
                }
                Event::Done(None) => return Err(Error::Panicked),
                Event::Done(Some(Done::Closed)) => return Ok(()),
                Event::Done(Some(done)) => self.committed(done)?,
                Event::Woken => {}
            }
        }
    }

    fn is_running(&self) -> bool {
        self.stage.stage() == Stage::Running
            && self.shared.asked.stage() == Stage::Running
            && !self.shared.is_stopping.load(Ordering::Acquire)
    }

    fn stop(&self, reason: StopReason) {
        self.shared.is_stopping.store(true, Ordering::Release);
        self.tell(Happened::Stop(reason));
    }

    fn tell(&self, happened: Happened) {
        // The coordinator outlives its workers; if it panicked, so be it.
        let _ = self.shared.events.send(happened);
    }

    /// Counts a row that failed for good, and stops the run if it is one too many.
    fn count_failed(&mut self) {
        self.written.failed += 1;
        let failed = self.shared.failed.fetch_add(1, Ordering::AcqRel) + 1;
        if self.shared.options.max_errors.is_some_and(|most| failed >= most) {
            self.stop(StopReason::MaxErrors { failed });
        }
    }

    /// Has another shard opened when all rows of those at hand are started: a few are enough, but
    /// of small ones as many as permits ask for, as far as memory and open files go.
    fn open_next(&mut self, in_flight: usize) {
        const OPEN: usize = 32;
        const BYTES: u64 = 32 << 20;
        // Rows of a team that cannot be called keep no other team's rows waiting.
        let team = |slot: &Slot<'_>| self.shared.team(slot.variant);
        let is_waiting = |slot: &Slot<'_>| self.is_waiting(team(slot));
        let has_rows = self.slots.iter().any(|it| !it.feed.is_exhausted() && !is_waiting(it));
        if has_rows || self.is_opening || !self.is_running() {
            return;
        }
        let open = self.slots.iter().filter(|slot| !is_waiting(slot)).count();
        let has_permits = in_flight < self.shared.options.concurrency;
        let has_room =
            self.slots.len() < OPEN && self.slots.iter().map(Slot::bytes).sum::<u64>() < BYTES;
        if open > STRAGGLING && !(has_permits && has_room) {
            if has_permits {
                self.put_aside();
            }
            return;
        }
        let is_here = |of| self.slots.iter().any(|it| team(it) == of && !it.feed.is_exhausted());
        let next = match self.shared.queue.take(|shard| !is_here(self.shared.team_of(shard))) {
            Next::Shard(shard) => Some(shard),
            Next::None => self.take_aside(),
            Next::Closed => {
                self.queue_is_closed = true;
                None
            }
        };
        if let Some(shard) = next {
            self.is_opening = true;
            let _ = self.orders.send(Order::Open(shard));
        }
    }

    /// Starts as many rows as may be started.
    fn feed<F: Future<Output = Landing>>(
        &mut self,
        flights: &mut Flights<F>,
        fly: impl Fn(Rc<Line>, Flight, Message) -> F,
        now: Instant,
    ) -> Result<(), Error> {
        let gate = &self.shared.gate;
        let (mut at_ms, mut pause, mut held) = (None, Pause::new(), Vec::new());
        (self.has_paused, self.held_until) = (false, None);
        self.begin_turn();
        while !self.has_paused && self.is_running() && self.window.room() > self.unwritten() {
            let Some(start) = self.next_start(&mut held, flights.len(), now) else { break };
            let Start { slot: index, row, lane, is_probe } = start;
            let (slot, line) = (&mut self.slots[index], self.lines[lane].clone());
            let way = self.shared.lanes.lane(lane);
            let job = &self.shared.manifest.job;
            let Prepared { id, hash, prompt } = slot.prepare(row, job, &self.shared.template);
            let attachments = self.shared.attachments.get(slot.source());
            let message = prompt.and_then(|it| message(it, attachments, way.model.api(), false));
            match (message, line) {
                (Err(failure), line) => {
                    let at_ms = *at_ms.get_or_insert_with(now_ms);
                    slot.put_unasked((row, hash), &id, &failure, job, at_ms);
                    self.count_failed();
                    self.spare += usize::from(line.is_some());
                    if is_probe {
                        way.health.forget_probe();
                    }
                    self.leave(lane);
                }
                (Ok(message), Some(line)) => {
                    self.has_paused = pause.is_due(&message);
                    let flight = Flight::new((slot.number, row), id, hash, (lane, is_probe));
                    let flight = self.permit((index, flight), &message, &mut held, now);
                    let Some(flight) = flight else { continue };
                    self.slots[index].starting += 1;
                    flights.push(fly(line, flight, message));
                }
                (Ok(message), None) => {
                    let flight = Flight::new((slot.number, row), id, hash, (lane, is_probe));
                    let at_ms = *at_ms.get_or_insert_with(now_ms);
                    self.land(echo(way, flight, message), now, at_ms);
                }
            }
        }
        self.held = held;
        // What came back and was not used again is for others.
        gate.give_back(self.number, std::mem::take(&mut self.spare));
        // Before the calls that were prepared here are sent, which is when this thread sleeps.
        self.slots.iter_mut().try_for_each(|slot| Ok(slot.note_started()?))
    }

    /// Rows whose lines are made and not written yet.
    fn unwritten(&self) -> usize {
        self.slots.iter().map(Slot::unwritten).sum()
    }

    /// Judges a call that has ended and makes the line of it.
    fn land(&mut self, mut landing: Landing, now: Instant, at_ms: u64) {
        let (shard, row) = (landing.flight.shard, landing.flight.row);
        self.leave(landing.flight.lane);
        let Some(index) = self.slots.iter().position(|slot| slot.number == shard) else { return };
        let verdict = self.judge(&landing, index, now);
        if self.lines[landing.flight.lane].is_some() {
            self.written.calls += u64::from(landing.is_made);
            self.account(&mut landing);
        }
        let slot = &mut self.slots[index];
        let calls = slot.feed.tried(row, landing.is_made);
        landing.attempt.number = calls;
        if let Some(usage) = &landing.attempt.usage {
            self.written.usage.add(usage);
        }
        let job = &self.shared.manifest.job;
        match verdict {
            None | Some(Verdict::FailRow) => {
                slot.put_landing(&landing, calls, job, at_ms);
                match verdict {
                    None => self.written.ok += 1,
                    Some(_) => self.count_failed(),
                }
            }
            Some(Verdict::RetryAfter(after) | Verdict::Defer(after)) => {
                slot.put_retry(&landing, at_ms);
                slot.feed.again(row, now + after);
            }
            Some(Verdict::RetryNow | Verdict::OpenCircuit | Verdict::AbortRun(_)) => {
                slot.put_retry(&landing, at_ms);
                slot.feed.again(row, now);
            }
        }
    }

    /// Writes the lines that were made.
    fn write(&mut self, now: Instant) -> Result<(), Error> {
        for slot in &mut self.slots {
            self.window.wrote(slot.write()?, now);
        }
        Ok(())
    }

    /// Hands what was written to the committer when it is time.
    fn commit(&mut self, now: Instant) {
        let is_finishing = |slot: &Slot<'_>| match slot.leaving {
            Some(leaving) => !leaving.is_ordered,
            None => slot.feed.left() == 0 && !slot.is_sealing,
        };
        let finishing = self.slots.iter().any(is_finishing);
        let ending = !self.is_running() || finishing;
        let is_due = self.window.is_due(now) || (ending && self.window.may_begin());
        if is_due {
            let groups: Vec<_> = self.slots.iter_mut().filter_map(Slot::take_group).collect();
            self.window.begin();
            self.syncing = std::mem::take(&mut self.written);
            let _ = self.orders.send(Order::Sync(groups));
        } else if self.shared.options.durability == Durability::Seal {
            let tally = std::mem::take(&mut self.written);
            self.report(tally);
        }
        for slot in &mut self.slots {
            if slot.is_complete() && !slot.is_sealing {
                slot.is_sealing = true;
                let _ = self.orders.send(Order::Seal(slot.number));
            }
        }
    }

    fn report(&self, tally: Tally) {
        if tally != Tally::default() {
            self.tell(Happened::Committed { worker: self.number, tally });
        }
    }

    /// Closes when there is nothing left to do, or nothing more may be done.
    fn settle<F>(&mut self, flights: &Flights<F>) -> Result<(), Error> {
        let is_empty = flights.is_empty() && self.window.is_empty() && !self.is_opening;
        let is_sealing = self.slots.iter().any(|slot| slot.is_sealing || slot.is_leaving());
        let has_ended = self.slots.is_empty() && self.queue_is_closed;
        if is_empty && !is_sealing && !self.is_closing && (has_ended || !self.is_running()) {
            self.is_closing = true;
            self.shared.gate.set_demanding(self.number, false);
            self.shared.gate.give_back(self.number, std::mem::take(&mut self.spare));
            // Unless calls were dropped, nothing is under way that a next start would repeat.
            if self.stage.stage() != Stage::Aborting {
                for slot in &mut self.slots {
                    slot.clear_started()?;
                }
            }
            let _ = self.orders.send(Order::Close);
        }
        Ok(())
    }

    fn drop_flights<F>(&mut self, flights: &mut Flights<F>) {
        self.spare += flights.len();
        *flights = Flights::new();
        self.shared.lanes.iter().for_each(|lane| lane.health.forget_probe());
    }

    async fn next_event<F: Future<Output = Landing>>(
        &mut self,
        flights: &mut Flights<F>,
        now: Instant,
    ) -> Event<'a> {
        let mut room = self.window.room();
        // What is written and waits in a window without bounds must not pile up in memory.
        room = room.min(CommitWindow::ROWS);
        let (has_flights, timer) = (!flights.is_empty() && room > 0, self.next_time(now));
        tokio::select! {
            biased;
            done = self.done.recv() => Event::Done(done),
            landings = landings(flights, room), if has_flights => Event::Landed(landings),
            () = sleep_until(timer), if timer.is_some() => Event::Woken,
            () = self.shared.gate.woken(self.number) => Event::Woken,
            () = self.stage.changed() => Event::Woken,
            // The last: calls that were started are sent before more are.
            () = tokio::task::yield_now(), if self.has_paused => Event::Woken,
        }
    }

    /// When there will be something to do, if nothing happens before. Rows that were due at `now`
    /// and were not started wait for something else than the time.
    fn next_time(&self, now: Instant) -> Option<Instant> {
        let retries = self.slots.iter().filter_map(|slot| slot.feed.retry_at()).min();
        // Times that have passed say nothing: the worker waits for a permit then.
        let times = retries.into_iter().chain(self.held_until).chain(self.turn.until);
        let retries = times.filter(|at| *at > now).min();
        let retries = retries.filter(|_| self.is_running());
        retries.into_iter().chain(self.window.due_at()).min()
    }

    /// Takes note of what the committer has done.
    fn committed(&mut self, done: Done<'a>) -> Result<(), Error> {
        match done {
            Done::Opened(slot, repairs, repeated) => {
                self.is_opening = false;
                let (shard, left) = (slot.number, slot.feed.left() as u64);
                let worker = self.number;
                self.tell(Happened::Opened { worker, shard, left, repairs, repeated });
                self.slots.push(*slot);
            }
            Done::Durable => {
                self.window.end();
                let tally = std::mem::take(&mut self.syncing);
                self.report(tally);
            }
            Done::Sealed(seal) => {
                self.close_slot(seal.shard);
                self.tell(Happened::Sealed(seal));
            }
            Done::Unsound(shard, reason) => {
                self.close_slot(shard);
                self.tell(Happened::Unsound { shard, reason });
            }
            Done::Left(shard) => self.left(shard),
            // Calls for rows of other inputs are paid for: they may end.
            Done::NoInput(error) => {
                self.is_opening = false;
                self.shared.is_stopping.store(true, Ordering::Release);
                self.tell(Happened::NoInput(error));
            }
            Done::Failed(error) => return Err(error),
            Done::Closed => {}
        }
        Ok(())
    }

    fn close_slot(&mut self, shard: u32) {
        self.slots.retain(|slot| slot.number != shard);
        if self.slots.is_empty() {
            self.tell(Happened::Idle { worker: self.number });
        }
    }
}

/// Waits for calls to end, and takes all that have, up to `room`.
async fn landings<F: Future<Output = Landing>>(
    flights: &mut Flights<F>,
    room: usize,
) -> Vec<Landing> {
    poll_fn(|context| {
        let mut landed = Vec::new();
        while landed.len() < room {
            match flights.poll_next_unpin(context) {
                Poll::Ready(Some(landing)) => landed.push(landing),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if landed.is_empty() { Poll::Pending } else { Poll::Ready(landed) }
    })
    .await
}

async fn sleep_until(time: Option<Instant>) {
    if let Some(time) = time {
        tokio::time::sleep_until(time.into()).await;
    }
}
