//! How fast, and how patiently.

use std::time::Duration;

use clap::Args;

use super::super::deadline::{Deadline, deadline};
use super::super::parse::{duration, some_time};
use super::super::signals::DRAIN_TIMEOUT;
use crate::http::Limits;
use crate::job::Money;
use crate::policy::Durability;
use crate::work::Rates;

#[derive(Debug, Args)]
#[command(next_help_heading = "Work")]
pub(in crate::cli) struct PaceArgs {
    /// The most requests in flight [default: 64; with -m local 4]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(in crate::cli) concurrency: Option<u32>,
    /// Have that many requests in flight at all times. Without it their number begins at 8, grows
    /// while the endpoint takes more, and shrinks when it refuses some; a server that rowmill
    /// starts is never asked for less
    #[arg(long)]
    pub(in crate::cli) fixed_concurrency: bool,
    /// The most requests a minute, in any 60 seconds [default: no limit of rowmill's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(in crate::cli) rpm: Option<u64>,
    /// The most tokens a minute, of prompts and answers, in any 60 seconds [default: as --rpm]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub(in crate::cli) tpm: Option<u64>,
    /// How often a row is tried again after a failure that may pass and that the endpoint's state
    /// does not explain [default: 3]. While an endpoint answers no other rows either, what it fails with 5xx
    /// is tried longer (docs/limits.md)
    #[arg(long, value_name = "N")]
    pub(in crate::cli) retries: Option<u32>,
    /// How long one call may take, in seconds or as 5m [default: 600]
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    pub(in crate::cli) timeout: Option<Duration>,
    /// How long making a connection may take [default: 10]
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    pub(in crate::cli) connect_timeout: Option<Duration>,
    /// How long an answer may take to begin [default: 300]
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    pub(in crate::cli) first_byte_timeout: Option<Duration>,
    /// How long an answer that has begun may make no progress: no event, or less than 1 KiB in 10 s
    /// [default: 60]
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    pub(in crate::cli) idle_timeout: Option<Duration>,
    /// How long the endpoint may be out of reach; rows wait, they do not fail [default: 30m]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(in crate::cli) max_outage: Option<Duration>,
    /// How long calls in flight may take to end after SIGINT or SIGTERM (for run and work, also before
    /// --deadline) [default: 30]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(in crate::cli) drain_timeout: Option<Duration>,
    /// Stop with code 4 once so many rows have failed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) max_errors: Option<u64>,
    /// Stop with code 4 before all calls of the job, those of earlier sessions included, may have cost
    /// more: dollars, as 12.50
    #[arg(long, value_name = "DOLLARS")]
    pub(in crate::cli) max_cost: Option<Money>,
}

// What is not given may be in a config file, so the defaults are not clap's.
impl PaceArgs {
    pub(in crate::cli) fn retries(&self) -> u32 {
        self.retries.unwrap_or(3)
    }

    pub(in crate::cli) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(600))
    }

    /// How many requests are wanted in flight, where nothing is said of it so many, or else the usual.
    pub(in crate::cli) fn in_flight(&self, otherwise: Option<u32>) -> usize {
        const IN_FLIGHT: u32 = 64;
        self.concurrency.or(otherwise).unwrap_or(IN_FLIGHT) as usize
    }

    /// The bounds on a call.
    pub(in crate::cli) fn limits(&self) -> Limits {
        // The most bytes of an answer.
        const BODY: usize = 32 << 20;
        let total = self.timeout();
        let bound = |given: Option<Duration>, seconds| {
            given.unwrap_or(Duration::from_secs(seconds)).min(total)
        };
        Limits {
            connect: bound(self.connect_timeout, 10),
            total,
            first_byte: bound(self.first_byte_timeout, 300),
            idle: bound(self.idle_timeout, 60),
            body: BODY,
        }
    }

    /// What may be asked a minute.
    pub(in crate::cli) fn rates(&self) -> Rates {
        Rates { calls: self.rpm, tokens: self.tpm }
    }

    pub(in crate::cli) fn max_outage(&self) -> Duration {
        self.max_outage.unwrap_or(Duration::from_secs(30 * 60))
    }

    pub(in crate::cli) fn drain_timeout(&self) -> Duration {
        self.drain_timeout.unwrap_or(DRAIN_TIMEOUT)
    }
}

/// How a run with a work directory goes about it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Work")]
pub(in crate::cli) struct SessionArgs {
    /// Shard workers, each with a thread of its own [default: one for 128 calls in flight
    /// or, for a model that is not called, one a core; at most one a core]. Where nothing says how many calls are
    /// made at once (-c, a config file), so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(in crate::cli) parallel: Option<u16>,
    /// Stop with code 4 before this moment, and go on with the same command: a time from now (90m,
    /// 2h), a local time (06:00), or a moment (2026-11-22T06:00:00+01:00). Nothing new is started
    /// --drain-timeout before it
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    pub(in crate::cli) deadline: Option<Deadline>,
    /// When answers are made durable: strict (256 rows or 10 ms), interval:1s, or seal
    #[arg(long, value_name = "MODE", default_value = "strict")]
    pub(in crate::cli) durability: Durability,
    /// How long to wait while another process holds the work directory [default: not at all]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(in crate::cli) lock_wait: Option<Duration>,
}

impl SessionArgs {
    /// When the command is to have ended, and how long calls may take to end before that.
    pub(in crate::cli) fn deadline(&self, pace: &PaceArgs) -> Option<(&Deadline, Duration)> {
        self.deadline.as_ref().map(|deadline| (deadline, pace.drain_timeout()))
    }
}
