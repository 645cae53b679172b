//! A client before an endpoint, in a time that is invented: what becomes of thousands of calls over
//! minutes is known in milliseconds, and the same every time. The client is the policies of rowmill, or a
//! plain loop that tries again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rowmill::policy::{
    Bounds, Ended, EndpointSignal, Follows, Hold, MayCall, Pace, Permit, Told, Tried, retry_wait,
};

use super::endpoint::{Behaviour, Endpoint, Reply};

/// What is asked of an endpoint.
#[derive(Debug, Clone)]
pub struct Scene {
    pub seed: u64,
    pub rows: usize,
    /// The most calls in flight, and what may be asked a minute.
    pub concurrency: usize,
    pub calls_a_minute: Option<u64>,
    pub endpoint: Behaviour,
}

/// What happened in a second.
#[derive(Debug, Clone, Copy, Default)]
pub struct Second {
    pub in_flight: usize,
    pub limit: usize,
    pub answered: usize,
    pub failed: usize,
}

/// What became of it all.
#[derive(Debug, Default)]
pub struct Outcome {
    pub seconds: Vec<Second>,
    pub calls: usize,
    pub answered: usize,
    /// Rows that failed for good.
    pub lost: usize,
    /// When the last row was done; nothing where it never was.
    pub took: Option<f64>,
    /// When calls were started, in seconds, and when they were answered.
    pub starts: Vec<f64>,
    pub answers: Vec<f64>,
}

impl Outcome {
    /// The share of calls that were refused.
    pub fn refused(&self) -> f64 {
        1.0 - self.answered as f64 / self.calls.max(1) as f64
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Row {
    failed: u32,
    tried: Tried,
    answered_then: usize,
    answered_last: usize,
    failed_last: f64,
}

const MICRO: f64 = 1e6;
/// A run that takes longer is stuck.
const STUCK: f64 = 36_000.0;
/// How often a row may be tried again.
pub const RETRIES: u32 = 3;

fn micros(seconds: f64) -> u64 {
    (seconds * MICRO).ceil() as u64
}

/// Something that happens at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The end of a call.
    End(usize),
    /// A row is due again.
    Due(usize),
    Wake,
}

struct World<'a> {
    scene: &'a Scene,
    random: fastrand::Rng,
    start: Instant,
    now: f64,
    endpoint: Endpoint,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    flights: Vec<Option<(usize, Option<Permit>, Reply)>>,
    fresh: usize,
    due: Vec<usize>,
    rows: Vec<Row>,
    outcome: Outcome,
}

impl<'a> World<'a> {
    fn new(scene: &'a Scene) -> Self {
        Self {
            scene,
            random: fastrand::Rng::with_seed(scene.seed),
            start: Instant::now(),
            now: 0.0,
            endpoint: Endpoint::new(&scene.endpoint, scene.seed ^ 0x5eed),
            events: BinaryHeap::new(),
            flights: Vec::new(),
            fresh: 0,
            due: Vec::new(),
            rows: vec![Row::default(); scene.rows],
            outcome: Outcome::default(),
        }
    }

    fn at(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.now)
    }

    fn second(&mut self, in_flight: usize, limit: usize) -> &mut Second {
        let second = self.now as usize;
        let new = Second { in_flight, limit, ..Second::default() };
        if self.outcome.seconds.len() <= second {
            self.outcome.seconds.resize(second + 1, new);
        }
        &mut self.outcome.seconds[second]
    }

    fn is_done(&self) -> bool {
        self.outcome.answered + self.outcome.lost >= self.scene.rows
    }

    fn plan(&mut self, after: f64, event: Event) {
        self.events.push(Reverse((micros(self.now + after.max(0.0)), event)));
    }

    fn send(&mut self, row: usize, permit: Option<Permit>) {
        self.outcome.calls += 1;
        self.outcome.starts.push(self.now);
        let reply = self.endpoint.call(self.now, row);
        self.plan(reply.after, Event::End(self.flights.len()));
        self.flights.push(Some((row, permit, reply)));
    }

    /// Takes a row to be called for.
    fn take(&mut self) -> Option<usize> {
        self.due.pop().or_else(|| {
            let row = self.fresh;
            self.fresh += usize::from(row < self.scene.rows);
            (row < self.scene.rows).then_some(row)
        })
    }
}

/// Plays a scene with rowmill's policies.
pub fn play(scene: &Scene) -> Outcome {
    let mut world = World::new(scene);
    let bounds = Bounds {
        concurrency: scene.concurrency,
        is_fixed: false,
        calls_a_minute: scene.calls_a_minute,
        tokens_a_minute: None,
        answer: None,
        max_outage: Duration::from_secs(86_400),
        max_first_outage: Duration::from_secs(86_400),
    };
    let mut pace = Pace::new(&bounds, world.start);
    let mut wake = f64::INFINITY;
    while !world.is_done() {
        if let Some(at) = start_calls(&mut world, &mut pace) {
            let after = at.saturating_duration_since(world.at()).as_secs_f64().max(1e-6);
            if world.now + after < wake - 1e-5 {
                wake = world.now + after;
                world.plan(after, Event::Wake);
            }
        }
        let Some(Reverse((at, event))) = world.events.pop() else { return world.outcome };
        world.now = (at as f64 / MICRO).max(world.now);
        world.second(pace.in_flight(), pace.limit());
        if world.now > STUCK {
            return world.outcome;
        }
        match event {
            // Others were planned before an earlier one was.
            Event::Wake if world.now < wake - 1e-5 => {}
            Event::Wake => wake = f64::INFINITY,
            Event::Due(row) => world.due.push(row),
            Event::End(flight) => end(&mut world, &mut pace, flight),
        }
    }
    world.outcome.took = Some(world.now);
    world.outcome
}

/// Starts what may be started; gives the time at which to ask again.
fn start_calls(world: &mut World<'_>, pace: &mut Pace) -> Option<Instant> {
    loop {
        let now = world.at();
        if world.due.is_empty() && world.fresh >= world.scene.rows {
            return None;
        }
        let is_probe = match pace.may_call(now) {
            MayCall::Yes => false,
            MayCall::Probe => true,
            MayCall::Wait(until) => return Some(until),
        };
        match pace.start(now, 0, 400.into(), is_probe) {
            Ok(permit) => {
                if let Some(row) = world.take() {
                    world.send(row, Some(permit));
                }
            }
            Err(hold) => {
                if is_probe {
                    pace.outage().forget_probe();
                }
                return match hold {
                    Hold::Full => None,
                    Hold::Load(at) | Hold::Told(at) | Hold::Calls(at) | Hold::Tokens(at) => {
                        Some(at)
                    }
                };
            }
        }
    }
}

fn end(world: &mut World<'_>, pace: &mut Pace, flight: usize) {
    let Some((row, Some(permit), reply)) = world.flights[flight].take() else { return };
    world.endpoint.sent(&reply);
    let asked = reply.wait.map(Duration::from_secs_f64);
    let signal = match reply.status {
        200 => EndpointSignal::Answered,
        429 => EndpointSignal::Refused { asked },
        _ => EndpointSignal::Failed { asked },
    };
    let (now, random) = (world.at(), world.random.f64());
    let Row { failed, answered_then, answered_last, failed_last, .. } = world.rows[row];
    let failed_before = (failed > 0).then(|| world.start + Duration::from_secs_f64(failed_last));
    let is_suspect = failed >= 2 && world.outcome.answered > answered_last;
    let told = reply.left.filter(|(_, full, _)| *full > 0).map(|(left, full, after)| {
        let full_after = Some(Duration::from_secs_f64(after));
        (Told { limit: Some(full), left: Some(left), full_after }, Told::default())
    });
    let ended =
        Ended { signal, is_first: failed == 0, failed_before, is_suspect, used: None, told };
    let Follows { trouble, .. } = pace.ended(now, &permit, &ended, random);
    let (in_flight, limit) = (pace.in_flight(), pace.limit());
    if reply.status == 200 {
        world.outcome.answered += 1;
        world.outcome.answers.push(world.now);
        world.second(in_flight, limit).answered += 1;
        return;
    }
    world.second(in_flight, limit).failed += 1;
    let (answered, at) = (world.outcome.answered, world.now);
    let state = &mut world.rows[row];
    if state.failed == 0 {
        state.answered_then = answered;
    }
    state.failed += 1;
    state.answered_last = answered;
    state.failed_last = at;
    if trouble.is_none() {
        state.tried = match reply.status {
            429 => pace.add_refused(state.tried),
            _ => pace.add(state.tried),
        };
        let retries = if reply.status == 429 { RETRIES + 2 } else { RETRIES };
        if rowmill::policy::Blame::is_rows_own(state.tried, retries) && answered > answered_then {
            world.outcome.lost += 1;
            return;
        }
    }
    let failed = state.failed;
    let random = world.random.f64();
    let wait = retry_wait(failed, asked, pace.is_load_cleared(), random);
    let wait = if trouble.is_some() { 0.0 } else { wait.as_secs_f64() };
    world.plan(wait, Event::Due(row));
}

/// Plays a scene with a plain client: a task for each of `concurrency` rows, which calls until there is
/// an answer, with waits of 0.5 s, 1 s, 2 s, … 8 s in between or what `Retry-After` says, as OpenAI's SDK
/// has them; ten tries again at most.
pub fn play_plain(scene: &Scene) -> Outcome {
    let mut world = World::new(scene);
    for _ in 0..scene.concurrency.min(scene.rows) {
        if let Some(row) = world.take() {
            world.send(row, None);
        }
    }
    while !world.is_done() {
        let Some(Reverse((at, event))) = world.events.pop() else { return world.outcome };
        world.now = at as f64 / MICRO;
        if world.now > STUCK {
            return world.outcome;
        }
        let flight = match event {
            Event::Due(row) => {
                world.send(row, None);
                continue;
            }
            Event::Wake => continue,
            Event::End(flight) => flight,
        };
        let Some((row, _, reply)) = world.flights[flight].take() else { continue };
        world.endpoint.sent(&reply);
        let concurrency = world.scene.concurrency;
        if reply.status == 200 {
            world.second(concurrency, concurrency).answered += 1;
            world.outcome.answered += 1;
            world.outcome.answers.push(world.now);
        } else {
            world.second(concurrency, concurrency).failed += 1;
            world.rows[row].failed += 1;
            if world.rows[row].failed <= PLAIN_RETRIES {
                let random = world.random.f64();
                world.plan(plain_wait(world.rows[row].failed, reply.wait, random), Event::Due(row));
                continue;
            }
            world.outcome.lost += 1;
        }
        if let Some(row) = world.take() {
            world.send(row, None);
        }
    }
    world.outcome.took = Some(world.now);
    world.outcome
}

/// How often a plain client tries again.
pub const PLAIN_RETRIES: u32 = 10;

/// How long a plain client waits after so many failed tries of a row.
pub fn plain_wait(failed: u32, asked: Option<f64>, random: f64) -> f64 {
    match asked {
        Some(seconds) if seconds <= 60.0 => seconds,
        _ => (0.5 * 2_f64.powi(failed.cast_signed() - 1)).min(8.0) * (1.0 - 0.25 * random),
    }
}
