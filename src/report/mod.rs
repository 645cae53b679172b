//! What a run was, how far one is, and what one will come to: for people and for monitors.

mod estimate;
mod inputs;
mod status;
mod summary;

pub use estimate::{AnswerFrom, Counted, Estimate, Expecting, Prices, Range};
pub use inputs::{Input, InputRows};
pub use status::{Status, status};
pub use summary::{Cost, Facts, Summary, VariantFacts, summarize};
