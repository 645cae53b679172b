//! A worker's other half: the thread that waits for the disk.
//!
//! It opens shards, makes what the worker wrote durable, keeps the checkpoint of the shard that is
//! being fed, and seals complete shards. Only it has checkpoints, and only one open at a time: the
//! stragglers of a shard whose rows are all started need none, because whoever opens a journal that
//! is longer than its checkpoint reads the rest.

use std::collections::HashMap;

use crossbeam_channel::Receiver;
use tokio::sync::mpsc::UnboundedSender;

use super::slot::{Group, Slot};
use super::{Error, Shared};
use crate::format::telemetry::{read_attempts, spending};
use crate::input::{self, read_shard};
use crate::job::{Spending, Usage};
use crate::store::{self, Checkpoint, Damage, Record, Seal, Syncer, Verified};
use crate::telemetry::now_ms;

/// What a worker wants of its committer. Orders are carried out one after the other.
#[derive(Debug)]
pub(super) enum Order {
    /// Open a shard and read its rows.
    Open(u32),
    /// Make these parts of journals durable.
    Sync(Vec<Group>),
    /// Seal a shard whose rows all have outcomes.
    Seal(u32),
    /// Give up a shard that has rows left; what is known of the others is durable.
    Leave(u32),
    /// Close everything.
    Close,
}

/// What a committer has done.
#[derive(Debug)]
pub(super) enum Done<'a> {
    /// The shard is open. What a crash or the disk had damaged in it was repaired.
    Opened(Box<Slot<'a>>, Vec<Damage>, u64),
    /// What the oldest [`Order::Sync`] named is durable.
    Durable,
    /// The shard is sealed.
    Sealed(Box<Seal>),
    /// The shard's journal was read back and is not sound.
    Unsound(u32, String),
    /// The shard is given up.
    Left(u32),
    /// A shard cannot be opened, for its input is not what was planned, or cannot be read.
    NoInput(input::Error),
    /// Nothing more can be done.
    Failed(Error),
    /// Everything is closed.
    Closed,
}

struct Committer<'a> {
    shared: &'a Shared<'a>,
    syncers: HashMap<u32, Syncer>,
    // Of the shard that was opened last.
    checkpoint: Option<(u32, Checkpoint)>,
}

/// Carries out orders until one is to close, or one fails.
pub(super) fn run<'a>(
    shared: &'a Shared<'a>,
    orders: &Receiver<Order>,
    done: &UnboundedSender<Done<'a>>,
) {
    let mut committer = Committer { shared, syncers: HashMap::new(), checkpoint: None };
    for order in orders {
        let is_last = matches!(order, Order::Close);
        let result = committer.carry_out(order);
        let failed = result.is_err();
        // When nobody listens any more, the worker has panicked, and its end is told elsewhere.
        let _ = done.send(result.unwrap_or_else(Done::Failed));
        if is_last || failed {
            return;
        }
    }
}

impl<'a> Committer<'a> {
    fn carry_out(&mut self, order: Order) -> Result<Done<'a>, Error> {
        match order {
            Order::Open(shard) => self.open(shard),
            Order::Sync(groups) => self.sync(groups),
            Order::Seal(shard) => self.seal(shard),
            Order::Leave(shard) => {
                self.syncers.remove(&shard);
                self.checkpoint = self.checkpoint.take().filter(|(open, _)| *open != shard);
                Ok(Done::Left(shard))
            }
            Order::Close => {
                self.checkpoint = None;
                self.syncers.clear();
                Ok(Done::Closed)
            }
        }
    }

    fn open(&mut self, number: u32) -> Result<Done<'a>, Error> {
        // The shard before has only stragglers left.
        self.checkpoint = None;
        let Shared { dir, manifest, sources, options, .. } = self.shared;
        let entry = &manifest.shards[number as usize];
        let rows = match read_shard(sources, entry, manifest.job.max_row_bytes) {
            Ok(rows) => rows,
            Err(error) => return Ok(Done::NoInput(error)),
        };
        let open = dir.open_shard(number, entry, now_ms())?;
        let renames = dir.exceptions(number, entry)?;
        self.syncers.insert(number, open.journal.syncer());
        self.checkpoint = Some((number, open.checkpoint));
        let mut slot =
            Slot::new((dir.generation(), number), entry, rows, open.journal, open.started);
        if slot.has_records() {
            dir.peek_shard(number, entry, &mut |record| slot.recall(record))?;
        }
        let again = options.retry.among(dir, number, entry)?;
        slot.want(&open.state, renames, &manifest.chosen, &again);
        Ok(Done::Opened(Box::new(slot), open.repairs, open.repeated))
    }

    fn sync(&mut self, groups: Vec<Group>) -> Result<Done<'a>, Error> {
        self.shared.dir.still_there()?;
        for group in groups {
            if let Some(syncer) = self.syncers.get(&group.shard) {
                syncer.sync()?;
            }
            if let Some((shard, checkpoint)) = &mut self.checkpoint
                && *shard == group.shard
            {
                checkpoint.record(group.begin, group.end, &group.entries);
            }
        }
        Ok(Done::Durable)
    }

    fn seal(&mut self, number: u32) -> Result<Done<'a>, Error> {
        if let Some(syncer) = self.syncers.remove(&number) {
            syncer.sync()?;
        }
        let entry = &self.shared.manifest.shards[number as usize];
        let checkpoint = match self.checkpoint.take() {
            Some((shard, checkpoint)) if shard == number => Some(checkpoint),
            other => {
                self.checkpoint = other;
                None
            }
        };
        let mut seal = Seal { shard: number, rows: entry.wanted, ..Seal::default() };
        let verified = self.shared.dir.verify_shard(number, entry, &mut |record| {
            let (calls, usage, cost) = totals(record);
            seal.calls += calls;
            seal.usage.add(&usage);
            seal.cost.get_or_insert_default().add(&cost);
        });
        match verified {
            Ok(Verified { length, blake3, rows, repeated, at_ms }) => {
                (seal.ok, seal.failed, seal.invalid) = rows;
                (seal.bytes, seal.blake3) = (length, blake3);
                (seal.repeated, seal.at_ms) = (repeated, at_ms);
            }
            Err(store::Error::Unsound { shard, reason }) => {
                // Whoever opens it again is to read all of it.
                drop(checkpoint);
                self.shared.dir.forget_index(shard)?;
                return Ok(Done::Unsound(shard, reason));
            }
            Err(error) => return Err(error.into()),
        }
        self.shared.dir.seal_shard(&seal, checkpoint)?;
        Ok(Done::Sealed(Box::new(seal)))
    }
}

/// The calls that a record tells of, what they used, and what they cost.
pub(super) fn totals(record: &Record<'_>) -> (u64, Usage, Spending) {
    let attempts = match record {
        Record::Outcome(outcome) => outcome.attempts,
        Record::Retry { attempts, .. } => attempts,
        Record::Repeated { .. } | Record::Begin { .. } => return Default::default(),
    };
    let facts = read_attempts(attempts);
    let mut usage = Usage::default();
    facts.iter().filter_map(|facts| facts.usage).for_each(|turn| usage.add(&turn));
    (facts.len() as u64, usage, spending(&facts))
}
