//! The second stage: calls for the rows that have no outcome yet, and journals what comes back.
//!
//! ```text
//!  coordinator ──shards──▶ worker (one thread, one runtime) ──orders──▶ committer (one thread)
//!       ▲                     │  calls, write(2)              fdatasync, checkpoint, seal
//!       └──── Happened ───────┴◀──────────── done ──────────────────────────┘
//! ```
//!
//! The coordinator owns the state of the run, a worker that of the shards it holds. They share what
//! must be one for all: the permits, and the lanes with the health of the endpoint of each.

mod answerer;
mod attached;
mod attempt;
mod committer;
mod coordinator;
mod ended;
mod feed;
mod gate;
mod health;
mod judge;
mod lane;
mod passed;
mod pricing;
mod queue;
mod retry;
mod route;
mod row;
mod server;
mod slot;
mod stream;
mod structured;
mod wallet;
mod worker;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, unbounded};

use crate::http::Limits;
use crate::input::{self, Attachments, Sources};
use crate::job::{Money, Names};
use crate::policy::Durability;
use crate::price;
use crate::prompt::Template;
use crate::shutdown::{Shutdown, Trigger, channel};
use crate::store::{self, Damage, Held, Manifest, Seal, ShardEntry, WorkDir, spawn};
use crate::telemetry::{Event, Sink, now_ms};

pub use answerer::{Answerer, Member, Needs, Rates};
pub use attached::{Message, message};
use attempt::Line;
pub use ended::{Ending, Report, Tally};
use gate::Gate;
use lane::Lanes;
use passed::Fetching;
use queue::Queue;
pub use stream::{Passed, PassedEnd, Passing, Pipes, stream};
pub use structured::Structured;
pub use wallet::Assumed;
use wallet::Wallet;

pub use retry::{NamedIds, Retry};

pub use server::{Launch, Launched, Server};

/// How the work is done. None of it decides an answer.
#[derive(Debug, Clone)]
pub struct Options {
    /// Shard workers.
    pub parallel: usize,
    /// Whether it may be fewer where fewer are as fast.
    pub fewer_will_do: bool,
    /// The most requests in flight, over all workers.
    pub concurrency: usize,
    /// Whether so many are in flight whatever the endpoints say.
    pub is_fixed: bool,
    /// Set where fewer files may be open than any work needs.
    pub too_few_files: Option<TooFewFiles>,
    /// How often a row is tried again after an answer that does not count.
    pub retries: u32,
    /// Bounds on a call.
    pub limits: Limits,
    /// How long the endpoint may be out of reach.
    pub max_outage: Duration,
    /// How long calls in flight may take to end when the run is drained.
    pub drain_timeout: Duration,
    /// The number of failed rows that ends the run.
    pub max_errors: Option<u64>,
    /// What all calls of the job may cost, those of earlier sessions included.
    pub max_cost: Option<Money>,
    /// When what was written is made durable.
    pub durability: Durability,
    /// Which rows that failed before are tried again.
    pub retry: Retry,
    /// The shards to work; nothing for all.
    pub shards: Option<Vec<u32>>,
}

/// How many files may be open, and how many the smallest run needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFewFiles {
    /// How many may be.
    pub allowed: u64,
    /// How many are needed.
    pub needed: u64,
}

impl Options {
    /// The shards of a plan that are to be worked, done or not.
    fn shards_of<'m>(
        &'m self,
        manifest: &'m Manifest,
    ) -> impl Iterator<Item = (u32, &'m ShardEntry)> {
        let named = self.shards.as_ref();
        manifest.open_shards().filter(move |(it, _)| named.is_none_or(|some| some.contains(it)))
    }

    /// The options with no more workers than calls need. One worker keeps some 70,000 calls a second
    /// going, more than any model answers; a second one only helps with very many in flight, and
    /// costs a tenth of CPU a call in switching between threads.
    fn for_calls(&self, is_called: bool) -> Self {
        const CALLS: usize = 128;
        let mut options = self.clone();
        if is_called && self.fewer_will_do {
            options.parallel = self.parallel.min(self.concurrency.div_ceil(CALLS)).max(1);
        }
        options
    }
}

/// Why work could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The work directory cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The input cannot be read, or has changed.
    #[error(transparent)]
    Input(#[from] input::Error),
    /// The endpoint cannot be called by anyone here.
    #[error("cannot prepare calls to {endpoint}: {reason}")]
    Endpoint {
        /// Where it is.
        endpoint: String,
        /// Why not.
        reason: String,
    },
    /// There is a cap on what calls cost, and nobody knows what some of them do.
    #[error("--max-cost needs to know what calls cost, and no price is known of {}", models.join(", "))]
    UnknownPrices {
        /// The first of the models that lines name.
        models: Vec<String>,
    },
    /// A server that was to be started for the run is not there.
    #[error("{reason}")]
    Server {
        /// Why not.
        reason: String,
    },
    /// A shard's journal is not sound, twice.
    #[error("shard {shard} could not be sealed: {reason}")]
    Unsound {
        /// Which shard.
        shard: u32,
        /// What is wrong.
        reason: String,
    },
    /// The system lets this process open too few files.
    #[error("{allowed} open files are allowed, and a run needs {needed}")]
    NoFiles {
        /// How many it allows.
        allowed: u64,
        /// How many the smallest run needs.
        needed: u64,
    },
    /// A part of rowmill has a bug.
    #[error("a thread of rowmill's panicked; this is a bug")]
    Panicked,
}

/// Why a run ended before its rows were done, though nothing is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// As many rows failed as the user allowed.
    MaxErrors {
        /// How many.
        failed: u64,
    },
    /// The next call may cost more than is left of what the user allowed.
    MaxCost {
        /// What was allowed.
        cap: Money,
        /// What is spent of it.
        spent: Money,
        /// What of that nobody knows to be spent.
        assumed: Assumed,
        /// What the call may cost.
        call: Money,
    },
    /// The endpoint refused the key.
    Credentials {
        /// In its words.
        why: String,
    },
    /// The account has no quota or credit left.
    Quota {
        /// In its words.
        why: String,
    },
    /// No encrypted connection could be made, ever: waiting will not mend that.
    Tls {
        /// What is wrong.
        why: String,
    },
    /// The endpoint asked to be left alone for longer than allowed.
    AsksTooMuch {
        /// For how long.
        wait: Duration,
        /// What it said.
        why: String,
    },
    /// The endpoint was out of reach for longer than allowed.
    Outage {
        /// For how long.
        out: Duration,
        /// What it did last.
        why: String,
    },
    /// The endpoint could not be reached, and never was.
    Unreachable {
        /// For how long it was tried.
        out: Duration,
        /// What happened last.
        why: String,
    },
    /// The endpoint answers no row: it does not know the path or the model, points to another place, or
    /// codes its answers in a way that is not read.
    Unknown {
        /// In its words.
        why: String,
    },
    /// The server that was started for the run died again and again.
    ServerLost {
        /// How it died last.
        why: String,
    },
}

impl StopReason {
    /// Whether the endpoint may be back some time.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Outage { .. } | Self::Unreachable { .. } | Self::AsksTooMuch { .. })
    }

    /// The same with the name of who said or did it, where there are several.
    fn at(mut self, who: &str) -> Self {
        match &mut self {
            Self::Credentials { why }
            | Self::Quota { why }
            | Self::Tls { why }
            | Self::AsksTooMuch { why, .. }
            | Self::Outage { why, .. }
            | Self::Unreachable { why, .. }
            | Self::Unknown { why }
            | Self::ServerLost { why } => *why = format!("{who}: {why}"),
            Self::MaxErrors { .. } | Self::MaxCost { .. } => {}
        }
        self
    }
}

/// What workers tell the coordinator.
#[derive(Debug)]
enum Happened {
    Opened { worker: usize, shard: u32, left: u64, repairs: Vec<Damage>, repeated: u64 },
    Committed { worker: usize, tally: Tally },
    Sealed(Box<Seal>),
    Unsound { shard: u32, reason: String },
    NoInput(input::Error),
    Paused { until: Instant, why: String },
    Waiting { until: Instant, why: &'static str },
    Recovered,
    SchemaRefused { why: String },
    Shown(Event),
    Idle { worker: usize },
    Lost { team: usize, name: String, reason: StopReason },
    LaneLost { reason: StopReason },
    Left { shard: u32 },
    Stop(StopReason),
    Ended(Result<(), Error>),
}

/// What all workers see.
#[derive(Debug)]
struct Shared<'a> {
    dir: &'a Held,
    manifest: &'a Manifest,
    sources: &'a Sources,
    options: &'a Options,
    template: Template,
    // The names in lines, where those say who answers.
    names: Option<Names>,
    // By input.
    attachments: Vec<Attachments>,
    lanes: Lanes,
    gate: Gate,
    // Where there is a cap on what calls may cost.
    wallet: Option<Wallet>,
    queue: Queue,
    events: Sender<Happened>,
    stage: Shutdown,
    // What the user asks: nothing is started once it is more than running, even before the
    // coordinator has noticed.
    asked: &'a Shutdown,
    // Likewise once a worker has found that nothing can succeed.
    is_stopping: AtomicBool,
    // Rows that failed in this session, durable or not.
    failed: AtomicU64,
}

/// Whether there is anything to work: a shard that is not sealed, or one with rows to try again.
///
/// # Errors
/// When seals cannot be read.
pub fn has_work(dir: &WorkDir, manifest: &Manifest, options: &Options) -> Result<bool, Error> {
    for (number, entry) in options.shards_of(manifest) {
        let Some(seal) = dir.whole_seal(number, entry)? else { return Ok(true) };
        if seal.failed > 0 && options.retry.among(dir, number, entry)?.count(seal.failed) > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Works the open shards of a plan until all rows have outcomes or the run ends. Where there is
/// anything to call for, a server is launched for it first, if one is to be.
///
/// # Errors
/// When the disk, the input or a thread fails, or the server does not come. Whatever was finished is
/// kept.
pub fn run(
    dir: &mut Held,
    manifest: &Manifest,
    sources: &Sources,
    (answerer, launch): (&Answerer, Option<&mut Launch<'_>>),
    options: &Options,
    shutdown: &Shutdown,
    sink: &mut dyn Sink,
) -> Result<Report, Error> {
    let options = &options.for_calls(answerer.is_called());
    // What a crash took is known only of shards that were opened since.
    let (lost, repairs) = match options.max_cost {
        Some(_) => dir.settle_shards(manifest, now_ms())?,
        None => Default::default(),
    };
    let mut state = coordinator::Coordinator::new(dir, manifest, options)?;
    state.settled(lost, &repairs, sink);
    if let Some(TooFewFiles { allowed, needed }) =
        options.too_few_files.filter(|_| state.has_work())
    {
        return Err(Error::NoFiles { allowed, needed });
    }
    let models = answerer.unpriced_of(&manifest.own_models);
    if options.max_cost.is_some() && state.has_work() && !models.is_empty() {
        return Err(Error::UnknownPrices { models });
    }
    dir.note_done(state.done())?;
    let Some(launch) = launch.filter(|_| state.has_work()) else {
        let job = Job { dir, manifest, sources, answerer, server: None, options };
        return work(state, &job, shutdown, sink);
    };
    let Some(Launched { endpoint, server }) = launch(&dir.server_log(), shutdown, sink)? else {
        return Ok(state.unstarted());
    };
    let answerer = &answerer.at(&endpoint);
    let server = Dismissed(server);
    let job = Job { dir, manifest, sources, answerer, server: Some(&server), options };
    work(state, &job, shutdown, sink)
}

/// A server that is dismissed however the work ends.
#[derive(Debug)]
struct Dismissed(Arc<Server>);

impl Drop for Dismissed {
    fn drop(&mut self) {
        self.0.dismiss();
    }
}

/// What is to be done, and with what.
struct Job<'a> {
    dir: &'a Held,
    manifest: &'a Manifest,
    sources: &'a Sources,
    answerer: &'a Answerer,
    server: Option<&'a Dismissed>,
    options: &'a Options,
}

/// Runs workers and coordinator.
fn work(
    state: coordinator::Coordinator,
    job: &Job<'_>,
    shutdown: &Shutdown,
    sink: &mut dyn Sink,
) -> Result<Report, Error> {
    let Job { dir, manifest, sources, answerer, options, .. } = *job;
    let server = job.server.map(|server| &server.0);
    let lanes = Lanes::new(answerer, options, server)?;
    lanes.answered_before(|team| state.had_answers(team));
    let fetching = Fetching { retries: options.retries, most: manifest.job.max_attachment_bytes };
    let lines = (0..options.parallel).map(|_| lanes.lines(&options.limits, dir.run(), fetching));
    let lines = lines.collect::<Result<Vec<_>, _>>()?;
    let wallet = match options.max_cost.filter(|_| answerer.is_called()) {
        Some(cap) => Some(Wallet::new(cap, &lanes, &manifest.job, &price::spent(dir, manifest)?)),
        None => None,
    };
    let (events, happened) = unbounded();
    let (trigger, stage) = channel();
    let shared = Shared {
        dir,
        manifest,
        sources,
        options,
        template: Template::parse(&manifest.job.prompt),
        names: Names::of(&manifest.job, answerer.has(manifest.job.own_place())),
        attachments: Attachments::of(&manifest.job, sources, manifest.source().path.is_none()),
        lanes,
        gate: Gate::new(options.concurrency, options.parallel),
        wallet,
        queue: Queue::default(),
        events,
        stage,
        asked: shutdown,
        is_stopping: AtomicBool::new(false),
        failed: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        for (number, lines) in lines.into_iter().enumerate() {
            let shared = &shared;
            let name = format!("worker-{}", number + 1);
            let spawned = spawn(scope, &name, move || {
                let ended = catch_unwind(AssertUnwindSafe(|| start_worker(number, shared, lines)));
                let ended = ended.unwrap_or(Err(Error::Panicked));
                let _ = shared.events.send(Happened::Ended(ended));
            });
            if let Err(error) = spawned {
                // The coordinator has the others end.
                let _ = shared.events.send(Happened::Ended(Err(error.into())));
            }
        }
        let run = coordinator::Run {
            queue: &shared.queue,
            happened: &happened,
            trigger: &trigger,
            gate: &shared.gate,
            shutdown,
            server: server.map(|server| &**server),
        };
        state.run(run, sink)
    })
}

fn start_worker(number: usize, shared: &Shared<'_>, lines: Vec<Option<Line>>) -> Result<(), Error> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|source| {
            store::Error::Io { what: "start a runtime in", path: "a worker".into(), source }
        })?;
    let (orders, to_do) = unbounded();
    let (done, is_done) = tokio::sync::mpsc::unbounded_channel();
    std::thread::scope(|scope| {
        spawn(scope, &format!("commit-{}", number + 1), move || {
            committer::run(shared, &to_do, &done);
        })?;
        let lines: Vec<_> = lines.into_iter().map(|line| line.map(Rc::new)).collect();
        // When it ends early, its orders end as well, and the committer with them.
        let worker = worker::Worker::new(number, shared, lines.clone(), orders, is_done);
        runtime.block_on(async {
            let ended = worker.run().await;
            for line in lines.into_iter().flatten() {
                line.close().await;
            }
            ended
        })
    })
}

/// Asks workers to end, from the coordinator.
fn advance(trigger: &Trigger, gate: &Gate, stage: crate::shutdown::Stage) {
    trigger.advance(stage);
    gate.wake_all();
}
