//! What a run was, and how far one is: for people and for monitors.

mod status;
mod summary;

pub use status::{Status, status};
pub use summary::{Facts, Summary, VariantFacts, summarize};
