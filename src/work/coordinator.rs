//! The coordinator: owns the state of the run, and decides what follows from what happened.
//!
//! Deciding and doing are apart: [`Coordinator::handle`] is a plain function from what happened and
//! the time to a list of [`Effect`]s; [`Coordinator::run`] carries them out.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::gate::Gate;
use super::lane::team_of;
use super::queue::Queue;
use super::structured::schema_refused;
use super::{Ending, Error, Happened, Options, Report, Retry, Server, StopReason, Tally, advance};
use crate::input;
use crate::shutdown::{Shutdown, Stage, Trigger};
use crate::store::{Damage, DamageKind, Manifest, Seal, WorkDir};
use crate::telemetry::{Event, Sink};

/// The run's state.
#[derive(Debug)]
pub(super) struct Coordinator {
    options: Options,
    /// Whether any model is called, or all answer by themselves.
    is_called: bool,
    /// Rows that are asked about in the whole plan, and how many answers are wanted to each.
    rows: u64,
    variants: usize,
    wanted: u64,
    /// Rows that were done when the session began: with an answer, and without.
    ok_before: u64,
    failed_before: u64,
    /// The teams that had answers then.
    known: HashSet<usize>,
    /// Rows that failed before and are tried again.
    again: u64,
    /// Shards that are not sealed yet, and how often each was found unsound.
    open: HashMap<u32, u32>,
    /// Where there are several, the team that answers each of those shards.
    teams: HashMap<u32, usize>,
    /// Teams that cannot answer any more, and why.
    lost: HashMap<usize, StopReason>,
    /// The same of those who answer rows by the names in them; and the shards whose rows that are left are
    /// theirs.
    lost_lanes: Vec<StopReason>,
    left: HashSet<u32>,
    tally: Tally,
    repeated: u64,
    workers_left: usize,
    stage: Stage,
    ending: Option<Ending>,
    /// When calls in flight are given up.
    deadline: Option<Instant>,
    error: Option<Error>,
    began: Instant,
}

/// What follows from what happened.
#[derive(Debug)]
enum Effect {
    /// Have a shard worked.
    Queue(u32),
    /// No further shard will come.
    CloseQueue,
    /// Tell the workers how far the end has come.
    Advance(Stage),
    /// Show something.
    Show(Event),
}

/// What the coordinator acts through.
pub(super) struct Run<'a> {
    pub(super) queue: &'a Queue,
    pub(super) happened: &'a Receiver<Happened>,
    pub(super) trigger: &'a Trigger,
    pub(super) gate: &'a Gate,
    pub(super) shutdown: &'a Shutdown,
    /// The server of this run's own, where there is one.
    pub(super) server: Option<&'a Server>,
}

/// How often time passes for the screen and for deadlines.
const TICK: Duration = Duration::from_millis(50);
/// How often a shard may be found unsound in one session.
const UNSOUND_MOST: u32 = 2;

impl Coordinator {
    /// Looks at the seals: what is sealed and needs no work is done.
    pub(super) fn new(
        dir: &WorkDir,
        manifest: &Manifest,
        options: &Options,
    ) -> Result<Self, Error> {
        let mut state = Self {
            options: options.clone(),
            is_called: manifest.job.is_any_called(),
            rows: manifest.selected - manifest.skipped,
            variants: manifest.job.variants(),
            wanted: 0,
            ok_before: 0,
            failed_before: 0,
            known: HashSet::new(),
            again: 0,
            open: HashMap::new(),
            teams: HashMap::new(),
            lost: HashMap::new(),
            lost_lanes: Vec::new(),
            left: HashSet::new(),
            tally: Tally::default(),
            repeated: 0,
            workers_left: options.parallel,
            stage: Stage::Running,
            ending: None,
            deadline: None,
            error: None,
            began: Instant::now(),
        };
        for (number, entry) in options.shards_of(manifest) {
            state.wanted += entry.wanted;
            let ok_before = state.ok_before;
            match dir.whole_seal(number, entry)? {
                Some(seal) => {
                    state.ok_before += seal.ok;
                    state.failed_before += seal.invalid;
                    if seal.failed > 0 {
                        let again = options.retry.among(dir, number, entry)?.count(seal.failed);
                        state.failed_before += seal.failed - again;
                        state.again += again;
                        if again > 0 {
                            state.open.insert(number, 0);
                        }
                    }
                }
                None => {
                    state.open.insert(number, 0);
                    let known = dir.peek_shard(number, entry, &mut |_| {})?;
                    let (ok, failed, invalid) = known.counts();
                    state.ok_before += ok;
                    state.failed_before += invalid;
                    let again = options.retry.among(dir, number, entry)?.count(failed);
                    state.failed_before += failed - again;
                    state.again += again;
                }
            }
            if state.ok_before > ok_before {
                state.known.insert(team_of(manifest, entry));
            }
        }
        let open = state.open.keys();
        let teams = open.map(|it| (*it, team_of(manifest, &manifest.shards[*it as usize])));
        state.teams = teams.collect();
        Ok(state)
    }

    /// Notes what was found where a crash had left shards open, before any work.
    pub(super) fn settled(&mut self, repeated: u64, repairs: &[Damage], sink: &mut dyn Sink) {
        self.repeated = self.repeated.saturating_add(repeated);
        repairs.iter().map(shown).for_each(|event| sink.emit(&event));
        if repeated > 0 && self.is_called {
            sink.emit(&Event::calls_again(repeated, None));
        }
    }

    /// Whether any shard is to be worked.
    pub(super) fn has_work(&self) -> bool {
        !self.open.is_empty()
    }

    /// Rows that were done when the session began.
    pub(super) fn done(&self) -> u64 {
        self.ok_before + self.failed_before
    }

    /// Whether a team had answers when the session began.
    pub(super) fn had_answers(&self, team: usize) -> bool {
        self.known.contains(&team)
    }

    /// What a session came to that was asked to end before it began.
    pub(super) fn unstarted(&self) -> Report {
        Report {
            ending: Ending::Drained,
            tally: self.tally,
            repeated: self.repeated,
            resumed: self.ok_before,
            took: self.began.elapsed(),
        }
    }

    /// Runs the workers until all have ended.
    pub(super) fn run(mut self, mut run: Run<'_>, sink: &mut dyn Sink) -> Result<Report, Error> {
        for effect in self.start() {
            perform(effect, &mut run, sink);
        }
        while self.workers_left > 0 {
            let happened = match run.happened.recv_timeout(TICK) {
                Ok(happened) => Some(happened),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let now = Instant::now();
            let mut effects = self.look(run.shutdown.stage(), now);
            if let Some(happened) = happened {
                effects.extend(self.handle(happened, now));
            }
            effects.extend(run.server.map(|server| self.hear(server, now)).unwrap_or_default());
            effects.push(Effect::Show(Event::Tick { now, in_flight: run.gate.used() }));
            for effect in effects {
                perform(effect, &mut run, sink);
            }
        }
        sink.emit(&Event::Ended);
        if let Some(error) = self.error {
            return Err(error);
        }
        // A signal that came when all was done already changes nothing.
        let is_done = self.open.is_empty() && self.ending == Some(Ending::Drained);
        let ending = self.ending.filter(|_| !is_done).unwrap_or(Ending::Complete);
        Ok(Report {
            ending,
            tally: self.tally,
            repeated: self.repeated,
            resumed: self.ok_before,
            took: self.began.elapsed(),
        })
    }

    fn start(&mut self) -> Vec<Effect> {
        let mut shards: Vec<u32> = self.open.keys().copied().collect();
        shards.sort_unstable();
        let mut effects = Vec::new();
        if matches!(self.options.retry, Retry::Only { .. }) {
            let text = match self.again {
                1 => "1 row that failed before is tried again".to_owned(),
                again => format!("{again} rows that failed before are tried again"),
            };
            effects.push(Effect::Show(Event::Note(text)));
        }
        if self.variants > 1 {
            let text = format!("{} rows × {} variants", self.rows, self.variants);
            effects.push(Effect::Show(Event::Note(text)));
        }
        effects.push(Effect::Show(Event::Started {
            wanted: self.wanted,
            done: self.done(),
            failed: self.failed_before,
            workers: self.options.parallel,
            variants: self.variants,
        }));
        effects.extend(shards.into_iter().map(Effect::Queue));
        if self.open.is_empty() {
            effects.push(Effect::CloseQueue);
        }
        effects
    }

    /// Looks at what the user wants and at the time.
    fn look(&mut self, asked: Stage, now: Instant) -> Vec<Effect> {
        if asked >= Stage::Draining && self.stage == Stage::Running {
            self.ending.get_or_insert(Ending::Drained);
            return self.drain(now);
        }
        let is_late = self.deadline.is_some_and(|deadline| now >= deadline);
        if self.stage == Stage::Draining && (asked == Stage::Aborting || is_late) {
            return self.abort();
        }
        Vec::new()
    }

    /// Hears what became of the server of this run's own.
    fn hear(&mut self, server: &Server, now: Instant) -> Vec<Effect> {
        let (told, lost) = server.news();
        let mut effects: Vec<_> = told.into_iter().map(Effect::Show).collect();
        if let Some(why) = lost {
            effects.extend(self.stop(StopReason::ServerLost { why }, now));
        }
        effects
    }

    fn drain(&mut self, now: Instant) -> Vec<Effect> {
        self.stage = Stage::Draining;
        self.deadline = Some(now + self.options.drain_timeout);
        vec![Effect::Show(Event::Draining), Effect::Advance(Stage::Draining), Effect::CloseQueue]
    }

    fn abort(&mut self) -> Vec<Effect> {
        self.stage = Stage::Aborting;
        vec![Effect::Advance(Stage::Aborting), Effect::CloseQueue]
    }

    fn stop(&mut self, reason: StopReason, now: Instant) -> Vec<Effect> {
        if self.stage > Stage::Running {
            return Vec::new();
        }
        self.ending = Some(Ending::Stopped(reason));
        self.drain(now)
    }

    /// Decides what follows.
    fn handle(&mut self, happened: Happened, now: Instant) -> Vec<Effect> {
        match happened {
            Happened::Opened { worker, shard, left, repairs, repeated } => {
                self.repeated = self.repeated.saturating_add(repeated);
                let mut effects: Vec<_> = repairs.iter().map(shown).map(Effect::Show).collect();
                if repeated > 0 && self.is_called {
                    effects.push(Effect::Show(Event::calls_again(repeated, Some(shard))));
                }
                effects.push(Effect::Show(Event::Opened { worker, shard, left }));
                effects
            }
            Happened::Committed { worker, tally } => {
                self.tally.add(&tally);
                let Tally { ok, failed, calls, usage, cost } = tally;
                let calls = if self.is_called { calls } else { 0 };
                vec![Effect::Show(Event::Committed { worker, ok, failed, calls, usage, cost })]
            }
            Happened::Sealed(seal) => {
                let Seal { shard, ok, failed, invalid, .. } = *seal;
                self.open.remove(&shard);
                let failed = failed + invalid;
                let mut effects = vec![Effect::Show(Event::Sealed { shard, ok, failed })];
                effects.extend(self.open.is_empty().then_some(Effect::CloseQueue));
                effects.extend(self.give_up(now));
                effects
            }
            Happened::Unsound { shard, reason } => self.reopen(shard, reason),
            Happened::NoInput(error) => self.lose_input(error, now),
            Happened::Paused { until, why } => vec![Effect::Show(Event::Paused { until, why })],
            Happened::Waiting { until, why } => vec![Effect::Show(Event::Waiting { until, why })],
            Happened::SchemaRefused { why } => vec![Effect::Show(schema_refused(&why))],
            Happened::Recovered => vec![Effect::Show(Event::Recovered)],
            Happened::Shown(event) => vec![Effect::Show(event)],
            Happened::Idle { worker } => vec![Effect::Show(Event::Idle { worker })],
            Happened::Lost { team, name, reason } => {
                if self.lost.contains_key(&team) {
                    return Vec::new();
                }
                self.lost.insert(team, reason);
                let mut effects = self.give_up(now);
                if self.stage == Stage::Running {
                    effects.push(Effect::Show(Event::Alert(format!(
                        "{name} cannot be called within --max-outage: its rows are left, what other \
                         models are asked goes on"
                    ))));
                }
                effects
            }
            Happened::LaneLost { reason } => {
                self.lost_lanes.push(reason);
                self.give_up(now)
            }
            Happened::Left { shard } => {
                self.left.insert(shard);
                self.give_up(now)
            }
            Happened::Stop(reason) => self.stop(reason, now),
            Happened::Ended(result) => {
                self.workers_left -= 1;
                match result {
                    Ok(()) => Vec::new(),
                    Err(error) => self.fail(error),
                }
            }
        }
    }

    /// Ends the run where nobody is left who could answer what is open.
    fn give_up(&mut self, now: Instant) -> Vec<Effect> {
        let is_lost = |team: &usize| self.lost.contains_key(team);
        let is_left = |it: &u32| self.left.contains(it) || self.teams.get(it).is_some_and(is_lost);
        if self.open.is_empty() || !self.open.keys().all(is_left) {
            return Vec::new();
        }
        let first = self.lost.iter().min_by_key(|(team, _)| **team).map(|(_, reason)| reason);
        match first.or(self.lost_lanes.first()).cloned() {
            Some(reason) => self.stop(reason, now),
            None => Vec::new(),
        }
    }

    /// A shard that was read back damaged is opened again, which repairs it.
    fn reopen(&mut self, shard: u32, reason: String) -> Vec<Effect> {
        let times = self.open.entry(shard).or_default();
        *times += 1;
        if *times > UNSOUND_MOST {
            return self.fail(Error::Unsound { shard, reason });
        }
        let text = format!("shard {shard} is worked again: {reason}");
        vec![Effect::Show(Event::Alert(text)), Effect::Queue(shard)]
    }

    /// An input is not what was planned: nothing more is started, and what is in flight may end.
    fn lose_input(&mut self, error: input::Error, now: Instant) -> Vec<Effect> {
        let text = format!("{error}; ending: waiting for the calls in flight");
        self.error.get_or_insert(error.into());
        if self.stage != Stage::Running {
            return Vec::new();
        }
        let mut effects = self.drain(now);
        effects.insert(0, Effect::Show(Event::Alert(text)));
        effects
    }

    fn fail(&mut self, error: Error) -> Vec<Effect> {
        self.error.get_or_insert(error);
        self.abort()
    }
}

/// What a person should know of a repair.
fn shown(damage: &Damage) -> Event {
    let Damage { file, length, reason, kind, .. } = damage;
    match kind {
        DamageKind::StaleIndex => Event::Warning(format!("{file} was rebuilt: {reason}")),
        DamageKind::Residue => {
            Event::Note(format!("recovered: cut {length} bytes off {file} ({reason})"))
        }
        DamageKind::LostRecords | DamageKind::Fatal => Event::Alert(damage.told()),
    }
}

fn perform(effect: Effect, run: &mut Run<'_>, sink: &mut dyn Sink) {
    match effect {
        Effect::Queue(shard) => {
            run.queue.add(shard);
            run.gate.wake_all();
        }
        Effect::CloseQueue => {
            run.queue.close();
            run.gate.wake_all();
        }
        Effect::Advance(stage) => advance(run.trigger, run.gate, stage),
        Effect::Show(event) => sink.emit(&event),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Limits;
    use crate::policy::Durability;

    fn state(shards: &[u32]) -> Coordinator {
        let options = Options {
            parallel: 2,
            fewer_will_do: false,
            too_few_files: None,
            concurrency: 4,
            is_fixed: false,
            retries: 3,
            limits: Limits::whole(TICK, 1),
            max_outage: TICK,
            drain_timeout: Duration::from_secs(30),
            max_errors: None,
            max_cost: None,
            durability: Durability::Strict,
            retry: Retry::All,
            shards: None,
        };
        Coordinator {
            options,
            is_called: true,
            rows: 10,
            variants: 1,
            wanted: 10,
            ok_before: 0,
            failed_before: 0,
            known: HashSet::new(),
            again: 0,
            open: shards.iter().map(|shard| (*shard, 0)).collect(),
            teams: shards.iter().map(|shard| (*shard, *shard as usize % 2)).collect(),
            lost: HashMap::new(),
            lost_lanes: Vec::new(),
            left: HashSet::new(),
            tally: Tally::default(),
            repeated: 0,
            workers_left: 2,
            stage: Stage::Running,
            ending: None,
            deadline: None,
            error: None,
            began: Instant::now(),
        }
    }

    /// Effects but for what is shown, in short.
    fn told(effects: Vec<Effect>) -> Vec<String> {
        let effects = effects.into_iter().filter(|effect| !matches!(effect, Effect::Show(_)));
        effects.map(|effect| format!("{effect:?}")).collect()
    }

    fn sealed(shard: u32) -> Happened {
        Happened::Sealed(Box::new(Seal { shard, ..Seal::default() }))
    }

    fn stop() -> Happened {
        Happened::Stop(StopReason::MaxErrors { failed: 3 })
    }

    #[test]
    fn shards_are_queued_in_order_and_the_queue_closes_with_the_last() {
        let mut state = state(&[4, 1]);
        let now = Instant::now();
        assert_eq!(told(state.start()), ["Queue(1)", "Queue(4)"]);
        assert_eq!(told(state.handle(sealed(4), now)), [""; 0]);
        assert_eq!(told(state.handle(sealed(1), now)), ["CloseQueue"]);
        assert_eq!(told(self::state(&[]).start()), ["CloseQueue"]);
    }

    #[test]
    fn a_first_signal_drains_a_second_or_the_deadline_aborts() {
        let now = Instant::now();
        let drain = ["Advance(Draining)", "CloseQueue"];
        let abort = ["Advance(Aborting)", "CloseQueue"];
        let mut state = state(&[1]);
        assert_eq!(told(state.look(Stage::Running, now)), [""; 0]);
        assert_eq!(told(state.look(Stage::Draining, now)), drain);
        assert_eq!(told(state.look(Stage::Draining, now)), [""; 0]);
        assert_eq!(told(state.look(Stage::Aborting, now)), abort);
        assert_eq!(state.ending, Some(Ending::Drained));
        let mut state = self::state(&[1]);
        state.look(Stage::Draining, now);
        assert_eq!(told(state.look(Stage::Draining, now + Duration::from_secs(29))), [""; 0]);
        assert_eq!(told(state.look(Stage::Draining, now + Duration::from_secs(30))), abort);
    }

    #[test]
    fn the_first_reason_to_stop_counts() {
        let now = Instant::now();
        let mut state = state(&[1]);
        assert_eq!(told(state.handle(stop(), now)), ["Advance(Draining)", "CloseQueue"]);
        let later = Happened::Stop(StopReason::Quota { why: String::new() });
        assert_eq!(told(state.handle(later, now)), [""; 0]);
        state.look(Stage::Draining, now);
        assert_eq!(state.ending, Some(Ending::Stopped(StopReason::MaxErrors { failed: 3 })));
    }

    #[test]
    fn the_run_goes_on_as_long_as_somebody_can_answer_what_is_open() {
        let now = Instant::now();
        let lost = |team| {
            let why = format!("{team} is away");
            let (name, reason) = (String::new(), StopReason::Outage { out: TICK, why });
            Happened::Lost { team, name, reason }
        };
        let mut state = state(&[1, 2, 3]);
        assert_eq!(told(state.handle(lost(1), now)), [""; 0]);
        assert_eq!(told(state.handle(sealed(1), now)), [""; 0]);
        assert_eq!(told(state.handle(sealed(2), now)), ["Advance(Draining)", "CloseQueue"]);
        let mut state = self::state(&[1, 2]);
        assert_eq!(told(state.handle(lost(1), now)), [""; 0]);
        assert_eq!(told(state.handle(lost(0), now)), ["Advance(Draining)", "CloseQueue"]);
        let why = "0 is away".to_owned();
        let ending = Ending::Stopped(StopReason::Outage { out: TICK, why });
        assert_eq!(state.ending, Some(ending));
    }

    #[test]
    fn the_run_ends_when_all_that_is_open_waits_for_who_is_lost() {
        let (now, mut state) = (Instant::now(), state(&[1, 2]));
        let refused = || StopReason::Credentials { why: "a: no".to_owned() };
        assert_eq!(told(state.handle(Happened::LaneLost { reason: refused() }, now)), [""; 0]);
        assert_eq!(told(state.handle(Happened::Left { shard: 2 }, now)), [""; 0]);
        assert_eq!(told(state.handle(sealed(1), now)).last().unwrap(), "CloseQueue");
        assert_eq!(state.ending, Some(Ending::Stopped(refused())));
    }

    #[test]
    fn a_server_that_is_lost_ends_the_run() {
        let now = Instant::now();
        let mut state = state(&[1]);
        let (server, _unwanted) = Server::new();
        server.tell(Event::Recovered);
        assert_eq!(state.hear(&server, now).len(), 1);
        assert_eq!(told(state.hear(&server, now)), [""; 0], "news are told once");
        server.is_lost("again".to_owned());
        assert_eq!(told(state.hear(&server, now)), ["Advance(Draining)", "CloseQueue"]);
        let lost = StopReason::ServerLost { why: "again".to_owned() };
        assert_eq!(state.ending, Some(Ending::Stopped(lost)));
    }

    #[test]
    fn a_shard_found_unsound_again_and_again_ends_the_run() {
        let now = Instant::now();
        let mut state = state(&[1]);
        let unsound = || Happened::Unsound { shard: 1, reason: "bad disk".to_owned() };
        assert_eq!(told(state.handle(unsound(), now)), ["Queue(1)"]);
        assert_eq!(told(state.handle(unsound(), now)), ["Queue(1)"]);
        assert_eq!(told(state.handle(unsound(), now)), ["Advance(Aborting)", "CloseQueue"]);
        assert!(matches!(state.error, Some(Error::Unsound { shard: 1, .. })));
    }

    #[test]
    fn an_error_of_a_worker_stops_the_others_and_the_first_is_told() {
        let now = Instant::now();
        let mut state = state(&[1]);
        let failed = Happened::Ended(Err(Error::Panicked));
        let abort = ["Advance(Aborting)", "CloseQueue"];
        assert_eq!(told(state.handle(failed, now)), abort);
        state.handle(Happened::Ended(Ok(())), now);
        assert_eq!(state.workers_left, 0);
        assert!(matches!(state.error, Some(Error::Panicked)));
    }
}
