//! An endpoint that is invented, in a time that is invented, before the policies that are not: what
//! becomes of thousands of calls over minutes is known in milliseconds, and the same every time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rowmill::policy::{
    Blame, Bounds, Ended, Hold, MayCall, Pace, Permit, Reception, Tried, Trouble, backoff,
};

/// What the endpoint is like, and what is asked of it.
#[derive(Debug, Clone)]
pub struct Scene {
    pub seed: u64,
    pub rows: usize,
    /// The most calls in flight, and what may be asked a minute.
    pub concurrency: usize,
    pub calls_a_minute: Option<u64>,
    /// Seconds that an answer takes in the middle.
    pub latency: f64,
    /// Calls that it works on at once; more are refused (503).
    pub capacity: usize,
    /// Calls a minute that it lets in; more are refused (429), with a time or without.
    pub limit: Option<u64>,
    pub says_when: bool,
    /// Seconds in which nobody can reach it.
    pub outage: Option<(f64, f64)>,
    /// Seconds in which so many of a hundred calls fail (500).
    pub brown_out: Option<(f64, f64, f64)>,
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
    /// When calls were started, in seconds.
    pub starts: Vec<f64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Row {
    failed: Tried,
    refused: u32,
    calls: u32,
}

struct World<'a> {
    scene: &'a Scene,
    random: fastrand::Rng,
    start: Instant,
    now: f64,
    pace: Pace,
    fresh: usize,
    rows: Vec<Row>,
    due: BinaryHeap<Reverse<(u64, usize)>>,
    ends: BinaryHeap<Reverse<(u64, usize)>>,
    flights: Vec<Option<(usize, Permit, Reception)>>,
    busy: usize,
    let_in: Vec<f64>,
    outcome: Outcome,
}

const MICRO: f64 = 1e6;
/// A run that takes longer is stuck.
const STUCK: f64 = 36_000.0;

fn micros(seconds: f64) -> u64 {
    (seconds * MICRO).ceil() as u64
}

/// Plays a scene to its end.
pub fn play(scene: &Scene) -> Outcome {
    let start = Instant::now();
    let bounds = Bounds {
        concurrency: scene.concurrency,
        is_fixed: false,
        calls_a_minute: scene.calls_a_minute,
        tokens_a_minute: None,
        answer: None,
        max_outage: Duration::from_secs(86_400),
    };
    let mut world = World {
        scene,
        random: fastrand::Rng::with_seed(scene.seed),
        start,
        now: 0.0,
        pace: Pace::new(&bounds, start),
        fresh: 0,
        rows: vec![Row::default(); scene.rows],
        due: BinaryHeap::new(),
        ends: BinaryHeap::new(),
        flights: Vec::new(),
        busy: 0,
        let_in: Vec::new(),
        outcome: Outcome::default(),
    };
    world.play();
    world.outcome
}

impl World<'_> {
    fn play(&mut self) {
        while self.outcome.answered + self.outcome.lost < self.scene.rows {
            let wake = self.start_calls();
            let next_end = self.ends.peek().map(|Reverse((at, _))| *at);
            let next_due = self.due.peek().map(|Reverse((at, _))| *at);
            let now = micros(self.now);
            let times = [wake.map(micros), next_end, next_due.filter(|at| *at > now)];
            let Some(at) = times.into_iter().flatten().min() else { return };
            self.pass(at.max(now) as f64 / MICRO);
            if self.now > STUCK {
                return;
            }
            while let Some(Reverse((at, flight))) = self.ends.peek().copied() {
                if at as f64 / MICRO > self.now {
                    break;
                }
                self.ends.pop();
                self.end(flight);
            }
        }
        self.outcome.took = Some(self.now);
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    fn second(&mut self) -> &mut Second {
        let second = self.now as usize;
        let limit = self.pace.limit();
        if self.outcome.seconds.len() <= second {
            let in_flight = self.pace.in_flight();
            self.outcome
                .seconds
                .resize(second + 1, Second { in_flight, limit, ..Second::default() });
        }
        &mut self.outcome.seconds[second]
    }

    fn pass(&mut self, to: f64) {
        self.now = to;
        self.second();
    }

    /// Starts what may be started; gives the time at which to ask again.
    fn start_calls(&mut self) -> Option<f64> {
        loop {
            let now = self.at(self.now);
            let is_due = self.due.peek().is_some_and(|Reverse((at, _))| *at <= micros(self.now));
            let has_new = self.fresh < self.scene.rows;
            if !is_due && !has_new {
                return None;
            }
            if !has_new && !self.pace.may_retry() {
                let until = self.pace.refill(now, self.random.f64());
                match until {
                    Some(until) => return Some((until - self.start).as_secs_f64()),
                    None => continue,
                }
            }
            let is_probe = match self.pace.may_call(now) {
                MayCall::Yes => false,
                MayCall::Probe => true,
                MayCall::Wait(until) => {
                    return Some((until - self.start).as_secs_f64().max(self.now + 1e-6));
                }
            };
            let takes_due = is_due && self.pace.may_retry() && !(is_probe && has_new);
            let hold = match self.pace.start(now, 0, 400.into(), (is_probe, takes_due && !is_probe))
            {
                Ok(permit) => {
                    let row = if takes_due {
                        self.due.pop().map_or(0, |Reverse((_, row))| row)
                    } else {
                        self.fresh += 1;
                        self.fresh - 1
                    };
                    self.send(row, permit);
                    continue;
                }
                Err(hold) => hold,
            };
            if is_probe {
                self.pace.outage().forget_probe();
            }
            return match hold {
                Hold::Full => None,
                Hold::Told(at) | Hold::Calls(at) | Hold::Tokens(at) => {
                    Some((at - self.start).as_secs_f64())
                }
            };
        }
    }

    /// The endpoint takes a call.
    fn send(&mut self, row: usize, permit: Permit) {
        let now = self.now;
        self.outcome.calls += 1;
        self.outcome.starts.push(now);
        self.rows[row].calls += 1;
        let inside =
            |window: Option<(f64, f64)>| window.is_some_and(|(from, to)| (from..to).contains(&now));
        self.let_in.retain(|at| *at > now - 60.0);
        let is_above = self.scene.limit.is_some_and(|limit| self.let_in.len() as u64 >= limit);
        let brown = self.scene.brown_out.filter(|(from, to, _)| inside(Some((*from, *to))));
        let (after, reception) = if inside(self.scene.outage) {
            (0.01, Reception::Away { is_overload: false, asked: None })
        } else if is_above && self.scene.says_when {
            let free = self.let_in.first().map_or(1.0, |at| at + 60.0 - now).ceil();
            let asked = Some(Duration::from_secs_f64(free));
            (0.05, Reception::Away { is_overload: true, asked })
        } else if is_above {
            (0.05, Reception::Refused { is_overload: true })
        } else if self.busy >= self.scene.capacity {
            (0.05, Reception::Failed { is_overload: true, asked: None })
        } else {
            self.let_in.push(now);
            self.busy += 1;
            // Most are near the middle, and a few take three times as long.
            let stretch = 0.5 + self.random.f64() + 2.0 * self.random.f64().powi(8);
            let is_bad = brown.is_some_and(|(_, _, rate)| self.random.f64() * 100.0 < rate);
            let reception = match is_bad {
                true => Reception::Failed { is_overload: false, asked: None },
                false => Reception::Answered,
            };
            (self.scene.latency * stretch, reception)
        };
        self.ends.push(Reverse((micros(now + after), self.flights.len())));
        self.flights.push(Some((row, permit, reception)));
    }

    /// A call has ended.
    fn end(&mut self, flight: usize) {
        let Some((row, permit, reception)) = self.flights[flight].take() else { return };
        let was_let_in =
            matches!(reception, Reception::Answered | Reception::Failed { is_overload: false, .. });
        self.busy -= usize::from(was_let_in);
        let (now, random) = (self.at(self.now), self.random.f64());
        let is_first = self.rows[row].failed.count == 0;
        let ended = Ended { reception, is_first, used: None, told: None };
        let follows = self.pace.ended(now, &permit, &ended, random);
        if reception == Reception::Answered {
            self.outcome.answered += 1;
            self.second().answered += 1;
            return;
        }
        self.second().failed += 1;
        let state = &mut self.rows[row];
        let wait = match reception {
            Reception::Failed { .. } => {
                state.failed = self.pace.add(state.failed);
                if Blame::is_rows_own(state.failed, 3) {
                    self.outcome.lost += 1;
                    return;
                }
                backoff(state.failed.count + state.refused - 1, self.random.f64())
            }
            Reception::Refused { .. } => {
                state.refused += 1;
                backoff(state.failed.count + state.refused - 1, self.random.f64())
            }
            _ => Duration::ZERO,
        };
        let is_paused = matches!(follows.trouble, Some(Trouble::Paused(_)));
        let wait = if is_paused { 0.0 } else { wait.as_secs_f64() };
        self.due.push(Reverse((micros(self.now + wait), row)));
    }
}
