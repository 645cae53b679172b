//! What is happening, for people: events, and the screen that shows them.

mod escape;
mod hide;
mod histogram;
mod log;
mod progress;
mod rate;
mod tee;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub use escape::{escape, is_unsafe};
pub use hide::{hide_command_secrets, is_secret_name};
pub use histogram::{Histogram, Spread};
pub use log::{Log, LogError, is_torn};
pub use progress::{Progress, Style, grouped};
pub use tee::Tee;

use crate::job::{Spending, Usage};

/// Something that happened in a run.
#[derive(Debug, Clone)]
pub enum Event {
    /// The input is being read; so many rows so far.
    Planning {
        /// Rows read.
        rows: u64,
    },
    /// Something is made ready that calls wait for: a server, or what it needs.
    Preparing {
        /// What, and how long it has taken.
        what: String,
    },
    /// It is ready.
    Prepared,
    /// Work begins.
    Started {
        /// Outcomes that are wanted: one of each row, or one for each of its variants.
        wanted: u64,
        /// Rows that have one already, and how many of those failed.
        done: u64,
        /// How many of those failed or are invalid.
        failed: u64,
        /// How many workers there are.
        workers: usize,
        /// How many outcomes each row is to have.
        variants: usize,
    },
    /// A worker opened a shard.
    Opened {
        /// Which worker.
        worker: usize,
        /// Which shard.
        shard: u32,
        /// Rows it has to work in it.
        left: u64,
    },
    /// Rows are done: their outcomes are durable.
    Committed {
        /// Which worker.
        worker: usize,
        /// Rows with an answer.
        ok: u64,
        /// Rows without one.
        failed: u64,
        /// Calls that ended for them.
        calls: u64,
        /// What the answers used.
        usage: Usage,
        /// What the calls cost.
        cost: Spending,
    },
    /// A shard is complete: its journal was read back and is sound.
    Sealed {
        /// Which shard.
        shard: u32,
        /// Its rows with an answer.
        ok: u64,
        /// Its rows without one.
        failed: u64,
    },
    /// A worker has nothing to do.
    Idle {
        /// Which worker.
        worker: usize,
    },
    /// Time passes.
    Tick {
        /// The time.
        now: Instant,
        /// Calls in flight.
        in_flight: usize,
    },
    /// The endpoint is left alone until then, and why.
    Paused {
        /// When it is tried again.
        until: Instant,
        /// What it did.
        why: String,
    },
    /// Calls wait until then for something of rowmill's own, and for what.
    Waiting {
        /// When it may be there.
        until: Instant,
        /// What it is.
        why: &'static str,
    },
    /// The endpoint answers again.
    Recovered,
    /// One of several endpoints is left alone until then, and why; the others go on.
    LeftAlone {
        /// Which.
        who: String,
        /// When it is tried again.
        until: Instant,
        /// What it did.
        why: String,
    },
    /// It answers again.
    Back {
        /// Which.
        who: String,
    },
    /// The run is ending: nothing new is started.
    Draining,
    /// Something that needs a person: damage, answers lost, calls paid for twice. Shown with
    /// `--quiet` as well.
    Alert(String),
    /// Something a person should know, and need not act on.
    Warning(String),
    /// Something a person may want to know.
    Note(String),
    /// Work has ended.
    Ended,
}

impl Event {
    /// Calls of an earlier session are made a second time: all of them, or those of one shard.
    #[must_use]
    pub fn calls_again(calls: u64, shard: Option<u32>) -> Self {
        let where_to = shard.map_or_else(String::new, |shard| format!("shard {shard}: "));
        Self::Alert(format!(
            "{where_to}up to {calls} calls of an earlier session never came to their end, for it was \
             cut off or dropped them; they are made, and paid for, again"
        ))
    }
}

/// The time in milliseconds since the Unix epoch: for people and records, never for decisions.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Takes events.
pub trait Sink {
    /// Takes one.
    fn emit(&mut self, event: &Event);
}

/// Takes events and does nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Sink for Silent {
    fn emit(&mut self, _: &Event) {}
}
