//! Decisions: plain functions and small state machines that take the time and the facts and give
//! an answer. None holds a clock, a socket or a random source, so all are tested in microseconds.

mod allotment;
mod allowance;
mod blame;
mod budget;
mod concurrency;
mod estimate;
mod outage;
mod pace;
mod purse;
mod rate;
mod restart;
mod retry;
mod retry_after;
mod route;
mod share;
mod window;

pub use allotment::{Allotment, Told};
pub use allowance::{Allowance, ParseAllowanceError};
pub use blame::{Blame, Tried};
pub use budget::RetryBudget;
pub use concurrency::Concurrency;
pub use estimate::{Estimate, Size};
pub use outage::{MayCall, Outage, Trouble};
pub use pace::{Bounds, Ended, Follows, Hold, Pace, Permit, Reception};
pub use purse::{Answers, Funds, Learned, Purse};
pub use rate::{Rate, Taken};
pub use restart::{DEATHS_MOST, restart_after};
pub use retry::{Decision, backoff, decide, retries_of};
pub use retry_after::retry_after;
pub use route::Balance;
pub use share::share;
pub use window::{CommitWindow, Durability, ParseDurabilityError};
