//! Decisions: plain functions and small state machines that take the time and the facts and give
//! an answer. None holds a clock, a socket or a random source, so all are tested in microseconds.

mod allowance;
mod outage;
mod purse;
mod restart;
mod retry;
mod retry_after;
mod share;
mod window;

pub use allowance::{Allowance, ParseAllowanceError};
pub use outage::{MayCall, Outage, Trouble};
pub use purse::{Funds, Learned, Purse};
pub use restart::{DEATHS_MOST, restart_after};
pub use retry::{Decision, backoff, decide};
pub use retry_after::retry_after;
pub use share::share;
pub use window::{CommitWindow, Durability, ParseDurabilityError};
