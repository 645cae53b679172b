//! Rows and requests that pass by: read from a pipe, asked about, and their lines written to another as soon as they are
//! there. Nothing is kept.
//!
//! ```text
//!  thread: reads ──rows──▶ one loop: calls, judges, spells ──lines──▶ thread: writes
//! ```
//!
//! The loop runs on one current-thread runtime, and calls through the same lanes, with the same policies, as
//! the shard workers do. What it holds is bounded: a window of rows in hand, of which `--concurrency` may be
//! in flight, and as many lines that nobody has read. When a window is full, nothing more is read.

mod judging;
mod reading;
mod starting;
mod writing;

use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::attempt::{Landing, Line};
use super::lane::{Lane, LaneIndex, Lanes};
use super::passed::Fetching;
use super::wallet::Wallet;
use super::{Answerer, Error, Options, StopReason, Tally};
use crate::dialect::detect::Form;
use crate::dialect::{Dialect, Speller, Told};
use crate::format::envelope::{self, Verdict};
use crate::format::telemetry::{Head, write_attempt, write_line};
use crate::input::Attachments;
use crate::job::{Id, JobSpec};
use crate::policy::Verdict as RowVerdict;
use crate::price::Spent;
use crate::prompt::Template;
use crate::shutdown::{Shutdown, Stage};
use crate::store;
use crate::telemetry::{Event, Sink};

use judging::Trouble;
use reading::{Incoming, Rows, Unfit, number_of};
use writing::Lines;

/// What is asked of rows that pass by.
#[derive(Debug, Clone, Copy)]
pub struct Passing<'a> {
    /// The job. It has one model, that is asked once about each row.
    pub job: &'a JobSpec,
    /// Who answers: one team of one.
    pub answerer: &'a Answerer,
    /// How the calls are made. What is said of shards, workers and durability has no meaning here.
    pub options: &'a Options,
    /// How lines out are spelled.
    pub format: Dialect,
    /// Whether lines are taken for rows without anybody having looked: if the first is a request, nothing is asked.
    pub is_unseen: bool,
    /// Whether lines go out in the order of their rows, not as they come.
    pub is_ordered: bool,
}

/// What rows come in by, and lines go out by.
pub struct Pipes {
    /// Rows or requests, as JSON Lines.
    pub input: Box<dyn Read + Send>,
    /// A line for each.
    pub output: Box<dyn Write + Send>,
    /// A line for each attempt, and what messages call it.
    pub telemetry: Option<(PathBuf, Box<dyn Write>)>,
    /// More than running once nobody reads the output any more.
    pub readers: Shutdown,
}

/// What became of rows that passed by.
#[derive(Debug)]
pub struct Passed {
    /// How it ended.
    pub end: PassedEnd,
    /// What was done.
    pub tally: Tally,
    /// Rows that were read.
    pub read: u64,
    /// Lines that were written.
    pub out: u64,
}

/// How a stream ended.
#[derive(Debug)]
pub enum PassedEnd {
    /// All rows have their lines out.
    Complete,
    /// It was asked to end, and did.
    Drained,
    /// It ended itself.
    Stopped(StopReason),
    /// The lines are requests like this, and were taken for rows. None was asked.
    Requests(Form),
    /// Whoever read the lines has gone.
    Unread,
    /// The input, the output or the telemetry failed.
    Failed(Error),
}

/// How many times as many rows as calls in flight are in hand: those that wait for another try, and those
/// whose lines wait for others before them.
const WINDOW: usize = 16;
/// How long lines may take to be written once calls in flight were given up.
const LEAVE: Duration = Duration::from_secs(1);
/// The only lane.
const LANE: LaneIndex = 0;

/// Asks about rows as they come, until there are no more or it is to end.
///
/// # Errors
/// When nothing can be begun. What happens later is told in [`Passed`].
pub fn stream(
    passing: Passing<'_>,
    pipes: Pipes,
    shutdown: &Shutdown,
    sink: &mut dyn Sink,
) -> Result<Passed, Error> {
    let Passing { job, answerer, options, format, is_unseen, is_ordered } = passing;
    let lanes = Lanes::new(answerer, options, None)?;
    // A call that is made again in this process is known by it; nothing of another process is.
    let run = format!("{:032x}", fastrand::u128(..));
    let fetching = Fetching { retries: options.retries, most: job.max_attachment_bytes };
    let line =
        lanes.lines(&options.limits, &run, fetching)?.into_iter().next().flatten().map(Rc::new);
    let cap = options.max_cost.filter(|_| line.is_some());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| store::Error::Io {
        what: "start a runtime in",
        path: "a stream".into(),
        source,
    })?;
    let window = options.concurrency.saturating_mul(WINDOW);
    let state = State {
        job,
        options,
        template: Template::parse(&job.prompt),
        attachments: Attachments::beside(job, Path::new("")),
        wallet: cap.map(|cap| Wallet::new(cap, &lanes, job, &Spent::default())),
        lanes,
        line: line.clone(),
        speller: Speller::new(job, format, &run),
        format,
        rows: Rows::new(pipes.input, job.max_row_bytes, window, is_unseen)?,
        lines: Lines::new(pipes.output, is_ordered, window)?,
        telemetry: pipes.telemetry,
        tally: Tally::default(),
        answers: 0,
        end: None,
        deadline: None,
        is_aborted: false,
        held_until: None,
        has_paused: false,
        trouble: Trouble::default(),
        asked: shutdown.clone(),
        readers: pipes.readers,
        sink,
    };
    Ok(runtime.block_on(async {
        let passed = state.run().await;
        if let Some(line) = line {
            line.close().await;
        }
        passed
    }))
}

/// The state of a stream.
struct State<'a> {
    job: &'a JobSpec,
    options: &'a Options,
    template: Template,
    attachments: Option<Attachments>,
    lanes: Lanes,
    // Nothing where nobody is called.
    line: Option<Rc<Line>>,
    wallet: Option<Wallet>,
    speller: Speller,
    format: Dialect,
    rows: Rows,
    lines: Lines,
    telemetry: Option<(PathBuf, Box<dyn Write>)>,
    tally: Tally,
    // Calls that were answered, well or badly.
    answers: u64,
    // Why nothing more is started, and when what is under way is given up.
    end: Option<PassedEnd>,
    deadline: Option<Instant>,
    is_aborted: bool,
    // When what holds calls back may be over.
    held_until: Option<Instant>,
    // Whether there is more to start once calls were looked after.
    has_paused: bool,
    trouble: Trouble,
    asked: Shutdown,
    readers: Shutdown,
    sink: &'a mut dyn Sink,
}

/// What a stream may be woken by.
enum Happened {
    Landed(Vec<Landing>),
    Read(Option<Incoming>),
    Written(Option<std::io::Result<()>>),
    Woken,
}

impl State<'_> {
    async fn run(mut self) -> Passed {
        let mut flights = FuturesUnordered::new();
        loop {
            let now = Instant::now();
            if self.look(now) {
                flights = FuturesUnordered::new();
                self.lane().health.forget_probe();
            }
            self.feed(&mut flights, super::attempt::fly, now);
            if flights.is_empty() && self.end.is_some() {
                self.lines.let_go();
            }
            if self.has_ended(flights.is_empty(), now) {
                break;
            }
            match self.next(&mut flights, now).await {
                Happened::Landed(landings) => {
                    let now = Instant::now();
                    landings.into_iter().for_each(|landing| self.land(landing, now));
                }
                Happened::Read(incoming) => {
                    self.take_in(|rows| rows.take_in(incoming));
                }
                Happened::Written(Some(Ok(()))) | Happened::Woken => {}
                Happened::Written(Some(Err(error))) => self.fail_writing(error),
                Happened::Written(None) => self.give_up(PassedEnd::Failed(Error::Panicked)),
            }
        }
        self.ended()
    }

    fn lane(&self) -> &Lane {
        self.lanes.lane(LANE)
    }

    /// Looks at what is asked and at the time. True when calls in flight are to be dropped.
    fn look(&mut self, now: Instant) -> bool {
        if self.readers.stage() > Stage::Running && !self.lines.is_broken() {
            self.give_up(PassedEnd::Unread);
        }
        if self.asked.stage() > Stage::Running && self.end.is_none() {
            self.sink.emit(&Event::Draining);
            self.finish(PassedEnd::Drained);
        }
        let is_asked = self.end.is_some() && self.asked.stage() == Stage::Aborting;
        let is_late = self.deadline.is_some_and(|deadline| now >= deadline);
        if self.is_aborted || !(is_asked || is_late) {
            return false;
        }
        self.is_aborted = true;
        self.deadline = Some(now + LEAVE);
        true
    }

    /// Starts nothing more; what is under way may end.
    fn finish(&mut self, end: PassedEnd) {
        if self.end.is_none() {
            self.end = Some(end);
            self.deadline = Some(Instant::now() + self.options.drain_timeout);
        }
    }

    /// Starts nothing more, and drops what is under way: nobody would hear of it.
    fn give_up(&mut self, end: PassedEnd) {
        let is_worse = matches!(end, PassedEnd::Failed(_));
        if self.end.is_none() || is_worse && !matches!(self.end, Some(PassedEnd::Failed(_))) {
            self.end = Some(end);
        }
        self.deadline = Some(Instant::now());
        self.lines.break_off();
    }

    fn fail_writing(&mut self, source: std::io::Error) {
        if source.kind() == ErrorKind::BrokenPipe {
            return self.give_up(PassedEnd::Unread);
        }
        let path = PathBuf::from("standard output");
        let error = store::Error::Io { what: "write to", path, source };
        self.give_up(PassedEnd::Failed(error.into()));
    }

    /// Takes rows in, and finishes where there can be no more of them.
    fn take_in<T>(&mut self, take: impl FnOnce(&mut Rows) -> Result<T, Unfit>) -> Option<T> {
        let taken = take(&mut self.rows);
        let unfit = |unfit| match unfit {
            Unfit::Unreadable(error) => PassedEnd::Failed(error.into()),
            Unfit::Requests(form) => PassedEnd::Requests(form),
        };
        taken.map_err(|error| self.finish(unfit(error))).ok()
    }

    /// Whether there is nothing left to do or to wait for.
    fn has_ended(&self, is_idle: bool, now: Instant) -> bool {
        let is_late = self.is_aborted && self.deadline.is_some_and(|deadline| now >= deadline);
        let is_all = is_idle && self.lines.is_written();
        match &self.end {
            Some(_) => is_all || is_late,
            None => is_all && self.rows.is_done(),
        }
    }

    fn ended(self) -> Passed {
        let Tally { ok, failed, calls, usage, cost } = self.tally;
        let worker = 0;
        self.sink.emit(&Event::Committed { worker, ok, failed, calls, usage, cost });
        self.sink.emit(&Event::Ended);
        let (read, out) = (self.rows.read(), self.lines.out());
        // What asked for the end when all was done already changes nothing.
        let is_all_out = self.rows.is_done() && read == out;
        let is_asked = matches!(self.end, Some(PassedEnd::Drained));
        let end = self.end.filter(|_| !(is_asked && is_all_out)).unwrap_or(PassedEnd::Complete);
        Passed { end, tally: self.tally, read, out }
    }

    async fn next<F: Future<Output = Landing>>(
        &mut self,
        flights: &mut FuturesUnordered<F>,
        now: Instant,
    ) -> Happened {
        let timer = self.next_time(now);
        let (is_written, has_flights) = (self.lines.is_written(), !flights.is_empty());
        let is_wanted = self.end.is_none() && self.rows.is_dry() && self.has_room();
        tokio::select! {
            biased;
            written = self.lines.written(), if !is_written => Happened::Written(written),
            landings = landings(flights), if has_flights => Happened::Landed(landings),
            read = self.rows.more(), if is_wanted => Happened::Read(read),
            () = sleep_until(timer), if timer.is_some() => Happened::Woken,
            () = self.asked.changed() => Happened::Woken,
            () = self.readers.changed() => Happened::Woken,
            // The last: calls that were started are sent before more are.
            () = tokio::task::yield_now(), if self.has_paused => Happened::Woken,
        }
    }

    /// Whether another row may be taken.
    fn has_room(&self) -> bool {
        self.lines.has_room() && self.rows.has_room(self.lines.first())
    }

    /// When there will be something to do, if nothing happens before. Rows that were due at `now` and were
    /// not started wait for something else than the time.
    fn next_time(&self, now: Instant) -> Option<Instant> {
        let starts = self.rows.due_at().into_iter().chain(self.held_until);
        let start = starts.filter(|at| *at > now && self.end.is_none()).min();
        start.into_iter().chain(self.deadline).min()
    }

    /// Makes what follows of a call's end.
    fn land(&mut self, mut landing: Landing, now: Instant) {
        let place = landing.flight.row;
        let decision = self.judge(&landing, now);
        if self.line.is_some() {
            self.tally.calls += u64::from(landing.is_made);
            self.account(&mut landing);
        }
        if let Some(usage) = &landing.attempt.usage {
            self.tally.usage.add(usage);
        }
        let Some(row) = self.rows.row(place) else { return };
        row.tries.made += u32::from(landing.is_made);
        landing.attempt.number = row.tries.made;
        let made = row.tries.made;
        if decision.is_some() && landing.attempt.status.is_some() {
            row.answered += 1;
        }
        if landing.is_made {
            self.note(&landing);
        }
        match decision {
            None | Some(RowVerdict::FailRow) => {
                let verdict = super::row::verdict(&landing, made);
                self.put(place, &landing.flight.id, verdict, Some(&landing));
            }
            Some(RowVerdict::RetryAfter(after) | RowVerdict::Defer(after)) => {
                self.rows.again(place, now + after);
            }
            Some(RowVerdict::RetryNow | RowVerdict::OpenCircuit | RowVerdict::AbortRun(_)) => {
                self.rows.again(place, now);
            }
        }
    }

    /// Spells a row's line, after the last call for it if there was one, and sends it on its way.
    fn put(&mut self, place: usize, id: &Id, verdict: Verdict<'_>, last: Option<&Landing>) {
        let has_failed = matches!(verdict, Verdict::Failed(..));
        let input = self.rows.done(place, self.job.include_input);
        let (mut envelope, mut attempts, mut line) = (Vec::new(), Vec::new(), Vec::new());
        envelope::write(&mut envelope, id, number_of(place), verdict);
        // Envelopes show nothing of calls.
        if let Some(landing) = last.filter(|_| !self.format.is_rows()) {
            super::row::list_attempt(&mut attempts, landing);
        }
        let (envelope, attempts, input) = (&*envelope, &*attempts, input.as_deref());
        let told = Told { envelope, attempts, input, ..Told::default() };
        if self.speller.line(&mut line, &told).is_err() {
            // It was written just now.
            return self.give_up(PassedEnd::Failed(Error::Panicked));
        }
        self.lines.put(place, line);
        if !has_failed {
            self.tally.ok += 1;
            return;
        }
        self.tally.failed += 1;
        let failed = self.tally.failed;
        if self.options.max_errors.is_some_and(|most| failed >= most) {
            self.finish(PassedEnd::Stopped(StopReason::MaxErrors { failed }));
        }
    }

    /// Writes the telemetry line of an attempt, where that is wanted. Each is one write, so that several
    /// processes may append to one file.
    fn note(&mut self, landing: &Landing) {
        let Some((path, telemetry)) = &mut self.telemetry else { return };
        let (mut attempt, mut line) = (Vec::new(), Vec::new());
        write_attempt(&mut attempt, &landing.attempt);
        let (id, row) = (landing.flight.id.as_json().as_bytes(), number_of(landing.flight.row));
        write_line(&mut line, Head { id, row, mark: b"", epoch: 1 }, &attempt);
        if let Err(source) = telemetry.write_all(&line).and_then(|()| telemetry.flush()) {
            let error = store::Error::Io { what: "write to", path: path.clone(), source };
            self.telemetry = None;
            self.finish(PassedEnd::Failed(error.into()));
        }
    }
}

/// Waits for calls to end, and takes all that have.
async fn landings<F: Future<Output = Landing>>(flights: &mut FuturesUnordered<F>) -> Vec<Landing> {
    poll_fn(|context| {
        let mut landed = Vec::new();
        while let Poll::Ready(Some(landing)) = flights.poll_next_unpin(context) {
            landed.push(landing);
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
