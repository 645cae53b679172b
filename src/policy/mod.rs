//! Decisions: plain functions and small state machines that take the time and the facts and give
//! an answer. None holds a clock, a socket or a random source, so all are tested in microseconds.

mod allotment;
mod allowance;
mod blame;
mod estimate;
mod load;
mod outage;
mod pace;
mod purse;
mod rate;
mod restart;
mod retry;
mod retry_after;
mod route;
mod share;
mod verdict;
mod window;

pub use allotment::{Allotment, Told};
pub use allowance::{Allowance, ParseAllowanceError};
pub use blame::{Blame, Tried};
pub use estimate::{Estimate, Size};
pub use load::{LoadController, LoadHold, LoadTicket};
pub use outage::{FailedCall, MayCall, Outage, Round, Trouble};
pub use pace::{Bounds, Ended, EndpointSignal, Follows, Hold, Pace, Permit};
pub use purse::{Answers, Funds, Learned, Purse};
pub use rate::{Rate, Taken};
pub use restart::{DEATHS_MOST, restart_after};
pub use retry::{backoff, retries_of, retry_wait};
pub use retry_after::{retry_after, wait_in_text};
pub use route::Balance;
pub use share::share;
pub use verdict::{
    AbortCause, EndpointFacts, FailureFacts, SchemaFacts, Tries, Verdict, endpoint_signal,
    is_connection_lost, is_unknown, verdict,
};
pub use window::{CommitWindow, Durability, ParseDurabilityError};
