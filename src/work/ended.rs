//! How work ended, and what it came to.

use std::time::Duration;

use super::StopReason;
use crate::job::{Spending, Usage};

/// How work ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// All rows of the shards to work have outcomes.
    Complete,
    /// The run was asked to end, and did.
    Drained,
    /// The run ended itself.
    Stopped(StopReason),
}

/// What was done in one session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows that got an answer.
    pub ok: u64,
    /// Rows that got none for good.
    pub failed: u64,
    /// Calls that ended.
    pub calls: u64,
    /// What the answers used.
    pub usage: Usage,
    /// What the calls cost.
    pub cost: Spending,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.calls += other.calls;
        self.usage.add(&other.usage);
        self.cost.add(&other.cost);
    }
}

/// What a session's work came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub ending: Ending,
    /// What was done.
    pub tally: Tally,
    /// Calls that may have been made before a crash and were made again.
    pub repeated: u64,
    /// Rows that had an answer when the session began.
    pub resumed: u64,
    /// How long it took.
    pub took: Duration,
}
